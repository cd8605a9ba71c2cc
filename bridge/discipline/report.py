"""One reading of the clock's discipline, and where readings come from."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Discipline:
    """What disciplines the clock says of it, all in seconds.

    `offset_s` is what still has to be added to our clock: positive when it is behind. `synchronised` is None while nothing could be read,
    and `detail` then says why; the other figures are None where the source has none.
    """

    source: str
    synchronised: bool | None = None
    offset_s: float | None = None
    max_error_s: float | None = None
    detail: str = ""

    @property
    def known(self) -> bool:
        """Whether anything could be read."""
        return self.synchronised is not None


class DisciplineSource(Protocol):
    """Reads the clock's discipline, without changing it."""

    @property
    def name(self) -> str:
        """The source's name in the configuration, metrics and alarms."""
        ...

    async def read(self) -> Discipline:
        """One reading. Never raises for what a machine can do (then it is not `known`) and ends within a few seconds."""
        ...


def unknown(source: str, why: str) -> Discipline:
    """A reading that could not be made, and why."""
    return Discipline(source=source, detail=why)
