"""`bridge.journal.brownfield` for an engine: each call is handed to its writing or its reading side."""

from collections.abc import Callable, Sequence

from bridge.journal import assets
from bridge.journal.brownfield import FIRST, AssetPlace, AssetView, Import, ImportReport
from bridge.journal.sides import ReadSide, WriteSide
from bridge.model import ItemState, Kind


class AssetReadCases:
    """The reading part."""

    _reader: ReadSide

    async def assets(
        self,
        participant: str = "",
        *,
        kind: Kind | None = None,
        state: ItemState | None = None,
        after: AssetPlace = FIRST,
        limit: int = 1000,
    ) -> Sequence[AssetView]:
        """See the port."""
        return await self._reader.run(lambda rows: assets.assets(rows, participant, kind, state, after, limit))

    async def examine_import(self, wanted: Import) -> ImportReport:
        """See the port."""
        return await self._reader.run(lambda rows: assets.examine(rows, wanted))


class AssetCases:
    """The changing part."""

    _writer: WriteSide
    _new_id: Callable[[], str]

    async def import_assets(self, wanted: Import) -> ImportReport:
        """See the port."""
        new_id = self._new_id
        return (await self._writer.run(lambda tx: assets.import_assets(tx, new_id, wanted))).value
