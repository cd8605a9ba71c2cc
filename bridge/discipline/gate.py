"""The gate before every signature for SMP's eyes that we start ourselves."""

from collections.abc import Callable


class SigningGate:
    """Open unless this machine's clock is known to be wrong. Whoever waits for it is woken when it opens; nobody asks again and again."""

    def __init__(self) -> None:
        self._held = False
        self._wake: list[Callable[[], None]] = []

    @property
    def held(self) -> bool:
        """Whether nothing may be signed now."""
        return self._held

    def on_open(self, wake: Callable[[], None]) -> None:
        """Call this each time the gate opens again; it must not wait."""
        self._wake.append(wake)

    def set(self, *, held: bool) -> None:
        """Hold or let go."""
        opened = self._held and not held
        self._held = held
        if opened:
            for wake in self._wake:
                wake()
