"""`bridge.journal.keys` for an engine: each call is handed to its writing or its reading side."""

from collections.abc import Sequence

from bridge.journal import accounts, keyring
from bridge.journal.keys import KeyRecord, KeySide
from bridge.journal.people import Decision
from bridge.journal.sides import ReadSide, WriteSide


class KeyReadCases:
    """The reading part."""

    _reader: ReadSide

    async def keys(self, participant: str = "") -> Sequence[KeyRecord]:
        """See the port."""
        return await self._reader.run(lambda rows: keyring.keys(rows, participant))


class KeyCases:
    """The changing part."""

    _writer: WriteSide

    async def release_account(self, participant: str, decision: Decision) -> None:
        """See the port."""
        await self._writer.run(lambda tx: accounts.release(tx, participant, decision))

    async def introduce_keys(self, configured: Sequence[KeyRecord], grace_ns: int) -> None:
        """See the port."""
        await self._writer.run(lambda tx: keyring.introduce(tx, configured, grace_ns))

    async def add_key(self, record: KeyRecord, decision: Decision) -> None:
        """See the port."""
        await self._writer.run(lambda tx: keyring.add(tx, record, decision))

    async def rotate_keys(
        self, participant: str, side: KeySide, kid: str, grace_ns: int, decision: Decision
    ) -> tuple[str, Sequence[str]]:
        """See the port."""
        return (await self._writer.run(lambda tx: keyring.rotate(tx, participant, side, kid, grace_ns, decision))).value

    async def revoke_key(self, participant: str, side: KeySide, kid: str, decision: Decision) -> str:
        """See the port."""
        return (await self._writer.run(lambda tx: keyring.revoke(tx, participant, side, kid, decision))).value
