"""`bridge.journal.people.People` for an engine: each call is handed to its writing or its reading side."""

from collections.abc import Callable, Mapping, Sequence

from bridge.journal import holds, resolve
from bridge.journal.people import Decision, HoldView, Scope
from bridge.journal.port import Fence, ItemOutcome
from bridge.journal.sides import ReadSide, WriteSide
from bridge.model import Kind


class HoldCases:
    """The reading part."""

    _reader: ReadSide

    async def holds(self, *, standing_only: bool = True) -> Sequence[HoldView]:
        """See the port."""
        return await self._reader.run(lambda rows: holds.views(rows, standing_only=standing_only))

    async def standing_item(self, participant: str, kind: Kind, key: str) -> tuple[str, int] | None:
        """See the port."""
        return await self._reader.run(lambda rows: resolve.standing_item(rows, participant, kind, key))

    async def unknown_transactions(self, site: str, shown: Sequence[str]) -> Sequence[str]:
        """See the port."""
        return await self._reader.run(lambda rows: holds.unknown_transactions(rows, site, shown))


class PeopleCases:
    """The changing part."""

    _writer: WriteSide
    _new_id: Callable[[], str]

    async def resend(self, submission: str, decision: Decision, *, items: Sequence[int] = ()) -> str:
        """See the port."""
        new_id = self._new_id
        return (await self._writer.run(lambda tx: resolve.resend(tx, new_id, submission, decision, items))).value

    async def confirm(self, submission: str, outcomes: Sequence[ItemOutcome], decision: Decision) -> None:
        """See the port."""
        await self._writer.run(lambda tx: resolve.confirm(tx, submission, outcomes, decision))

    async def cancel(self, submission: str, decision: Decision, *, items: Sequence[int] = ()) -> None:
        """See the port."""
        await self._writer.run(lambda tx: resolve.cancel(tx, submission, decision, items))

    async def retry(self, submission: str, decision: Decision) -> None:
        """See the port."""
        await self._writer.run(lambda tx: resolve.retry(tx, submission, decision))

    async def withdraw(self, submission: str, outcomes: Sequence[ItemOutcome], decision: Decision) -> None:
        """See the port."""
        rest = self._new_id()
        await self._writer.run(lambda tx: resolve.withdraw(tx, rest, submission, outcomes, decision))

    async def put_aside(self, submission: str, cause: str, decision: Decision) -> None:
        """See the port."""
        await self._writer.run(lambda tx: resolve.put_aside(tx, submission, cause, decision))

    async def set_aside(self, fence: Fence, submission: str, cause: str) -> None:
        """See the port."""
        await self._writer.run(lambda tx: resolve.set_aside(tx, fence, submission, cause))

    async def hold(self, scope: Scope, name: str, decision: Decision) -> bool:
        """See the port."""
        return (await self._writer.run(lambda tx: holds.hold(tx, scope, name, decision))).value

    async def release_hold(self, scope: Scope, name: str, decision: Decision) -> None:
        """See the port."""
        await self._writer.run(lambda tx: holds.release(tx, scope, name, decision))

    async def introduce(self, environments: Mapping[str, str]) -> None:
        """See the port."""
        await self._writer.run(lambda tx: holds.introduce(tx, environments))
