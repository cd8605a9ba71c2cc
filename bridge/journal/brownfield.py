"""The port's part for what SMP already holds: assets and units that a person makes known, so that nothing creates them again."""

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from bridge.model import ItemState, Kind

MOST_ROWS: Final = 100_000  # of one import, which is one commit


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownAsset:
    """One row of an import. `source` says in a person's words where the knowledge comes from.

    REGISTERED: SMP holds it. UNKNOWN, and every state of a call that is out (SENDING, SENT, IN_DOUBT, SET_ASIDE): SMP may hold it, so nothing
    creates it until somebody knows. Any other state: SMP does not hold it, and the row is left out.
    """

    kind: Kind
    key: str
    state: ItemState
    asset_id: str = ""
    source: str = ""
    transaction_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportProblem:
    """Why a row (counted from 0) contradicts what the journal knows; `field` is the field of `KnownAsset` that it is about."""

    row: int
    field: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """What an import did, or would do: `added` are new to the journal, `filled` got an asset id, `resolved` were unknown before.

    With problems nothing was changed. `submissions` are the ids under which the added rows stand.
    """

    added: int = 0
    filled: int = 0
    resolved: int = 0
    unchanged: int = 0
    left_out: int = 0
    problems: Sequence[ImportProblem] = ()
    submissions: Sequence[str] = field(default=())


class Import(NamedTuple):
    """Who imports what. `file` names the source in the events; `over_refused` also takes rows that SMP refused through the bridge before."""

    participant: str
    rows: Sequence[KnownAsset]
    by: str
    file: str
    over_refused: bool = False


class AssetPlace(NamedTuple):
    """Where a listing goes on: behind this asset."""

    participant: str = ""
    kind: str = ""
    key: str = ""


FIRST: Final = AssetPlace()


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetView:
    """The newest standing of one key. `source` is '' for what was registered through the bridge; `site` and `flow` are '' until an EMS asked."""

    participant: str
    kind: Kind
    key: str
    state: ItemState
    asset_id: str
    source: str
    site: str
    flow: str
    transaction_id: str
    submission: str

    @property
    def place(self) -> AssetPlace:
        """What comes after it in a listing."""
        return AssetPlace(self.participant, self.kind.value, self.key)


class Direction(enum.Enum):
    """What a row of an import does."""

    ADD = "add"
    FILL = "fill"
    RESOLVE = "resolve"
    SAME = "same"
    LEAVE_OUT = "leave_out"


class AssetReader(Protocol):
    """Assets and units as people read them."""

    async def assets(
        self,
        participant: str = "",
        *,
        kind: Kind | None = None,
        state: ItemState | None = None,
        after: AssetPlace = FIRST,
        limit: int = 1000,
    ) -> Sequence[AssetView]:
        """By participant, kind and key; the next page begins after the last view's `place`."""
        ...

    async def examine_import(self, wanted: Import) -> ImportReport:
        """What `import_assets` would do; nothing is changed."""
        ...


class AssetImporter(AssetReader, Protocol):
    """What makes them known."""

    async def import_assets(self, wanted: Import) -> ImportReport:
        """Make these known in one commit, or none of them when one contradicts the journal; each submission that it makes or touches has an event.

        A key that was never seen, or whose request never got to SMP (expired, cancelled, refused by the host), is added. An UNKNOWN one is
        resolved. The same again changes nothing. Another asset id, a key on its way, or one that SMP refused is a problem.
        Waiting units that name what is registered now go out.
        """
        ...
