"""smp-bridge: the intermediate data host between energy management systems and the Single Markets Platform."""
