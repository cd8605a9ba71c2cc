"""What the field side reports of itself; the composition root hands in one that counts."""

from bridge.api import Intervals
from bridge.clock import Stamp
from bridge.flow import FlowPlan
from bridge.submission import Admission


class FieldMetrics:
    """What the field side reports; the composition root hands in one that counts."""

    def admitted(self, flow: FlowPlan, admission: Admission, count: int) -> None:
        """So many records were journalled with this admission."""

    def unusual(self, flow: FlowPlan) -> None:
        """A rule warned of a record that goes on all the same."""

    def stage(self, site: str, flow: str, hop: str, before: Stamp, after: Stamp) -> None:
        """A hop ended for a record."""

    def source(self, site: str, flow: str, difference_ns: int) -> None:
        """A record came with its source's own time: the host's clock at `received` less that."""

    def intervals(self, site: str, adapter: str) -> Intervals:  # noqa: ARG002 - for those that keep them
        """Where the sessions of this adapter tell of their rhythm."""
        return Intervals()

    def link(self, site: str, adapter: str, *, up: bool) -> None:
        """A session opened or ended, or none was there yet."""

    def broke(self, site: str, adapter: str, error: str) -> None:
        """Why a session ended, or could not be opened."""

    def heard(self, site: str, adapter: str, mono_ns: int) -> None:
        """A good value came."""

    def lost(self, site: str, adapter: str, count: int) -> None:
        """The EMS says that it could not keep so many changes until they were fetched."""

    def wrote_back(self, flow: FlowPlan, state: str, *, final: bool) -> None:
        """A write-back ended with this state."""
