"""For authors of adapters and for our own tests: the contract kit. Never imported by the service."""
