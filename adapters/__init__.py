"""The protocol adapters shipped with smp-bridge; each sub-package imports `bridge.api` and its own protocol library only."""
