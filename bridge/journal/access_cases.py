"""`bridge.journal.access` for an engine: each call is handed to its writing or its reading side."""

from collections.abc import Callable, Sequence
from functools import partial

from bridge.journal import approvals, profiles
from bridge.journal.access import ApprovalView, TokenView, Wanted
from bridge.journal.people import Decision
from bridge.journal.sides import ReadSide, WriteSide


class AccessReadCases:
    """The reading part."""

    _reader: ReadSide

    async def token(self, token: str) -> TokenView | None:
        """See the port."""
        return await self._reader.run(lambda rows: approvals.token(rows, token))

    async def tokens(self) -> Sequence[TokenView]:
        """See the port."""
        return await self._reader.run(approvals.tokens)

    async def approvals(
        self, *, now_ns: int, open_only: bool = True, participants: Sequence[str] | None = None, limit: int = 100
    ) -> Sequence[ApprovalView]:
        """See the port."""
        return await self._reader.run(
            lambda rows: approvals.approvals(rows, now_ns, participants, limit, open_only=open_only)
        )

    async def approval(self, approval: int, *, now_ns: int) -> ApprovalView | None:
        """See the port."""
        return await self._reader.run(lambda rows: approvals.approval(rows, approval, now_ns))


class AccessCases:
    """The changing part."""

    _writer: WriteSide
    _new_id: Callable[[], str]

    async def note_token(self, token: TokenView) -> None:
        """See the port."""
        await self._writer.run(lambda tx: approvals.note_token(tx, token))

    async def revoke_token(self, token: str, decision: Decision) -> TokenView:
        """See the port."""
        return (await self._writer.run(lambda tx: approvals.revoke_token(tx, token, decision))).value

    async def perform(self, wanted: Wanted, decision: Decision) -> str:
        """See the port."""
        new_id = self._new_id
        return (await self._writer.run(lambda tx: approvals.perform(tx, new_id, wanted, decision))).value

    async def ask_approval(self, wanted: Wanted, decision: Decision, *, expires_ns: int) -> int:
        """See the port."""
        return (await self._writer.run(lambda tx: approvals.ask(tx, wanted, decision, expires_ns))).value

    async def approve(self, approval: int, decision: Decision) -> str:
        """See the port."""
        new_id = self._new_id
        return (await self._writer.run(lambda tx: approvals.approve(tx, new_id, approval, decision))).value

    async def introduce_profile(self, participant: str, profile: str, *, four_eyes: bool) -> bool:
        """See the port."""
        work = partial(profiles.introduce, participant=participant, profile=profile, four_eyes=four_eyes)
        return (await self._writer.run(work)).value

    async def accept_profile(self, participant: str, decision: Decision) -> str:
        """See the port."""
        return (await self._writer.run(lambda tx: profiles.accept(tx, participant, decision))).value

    async def refuse_approval(self, approval: int, decision: Decision) -> None:
        """See the port."""
        await self._writer.run(lambda tx: approvals.refuse(tx, approval, decision))
