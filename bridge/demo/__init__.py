"""The demo: simulated energy management systems, each with a memory of its own."""
