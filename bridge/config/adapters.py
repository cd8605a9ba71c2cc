"""How the configuration asks for an adapter; who answers is the composition root's choice."""

from collections.abc import Callable
from typing import TypeAlias

from bridge.api import Adapter
from bridge.errors import BridgeError


class AdapterMissing(BridgeError):
    """Fix the configuration or install something: no adapter for this protocol. The message says what would be right."""


# Finds the adapter of a protocol word, or raises `AdapterMissing`.
AdapterFinder: TypeAlias = Callable[[str], Adapter]
