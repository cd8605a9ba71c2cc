"""Evidence as the tasks and commands around it use it: sealing, the anchor, sizes. On connections of its own, so that nobody waits for it."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from bridge.clock import Clock, iso_ms
from bridge.envelope.keys import Signer
from bridge.journal import anchor, facts, heads, sealing
from bridge.journal.anchor import Anchor, AnchorFinding
from bridge.journal.heads import EvidenceBroken, SignedHead
from bridge.journal.port import Fence
from bridge.journal.sides import ReadSide, WriteSide
from bridge.journal.store import Rows, Tx

T = TypeVar("T")

_ROOM_PAGES: Final = 512
_MOST_PAGES: Final = 4_294_967_294


@dataclass(frozen=True, slots=True, kw_only=True)
class SealStep:
    """What one step of sealing did; 0 events: nothing was left to seal."""

    blocks: int
    events: int


class Evidence:
    """A journal's evidence: `read` on a snapshot of its own thread, `write` as one commit among those of the journal."""

    def __init__(self, writer: WriteSide, reader: ReadSide, clock: Clock) -> None:
        self._writer = writer
        self._reader = reader
        self._clock = clock
        self._cap = 0

    async def read(self, work: Callable[[Rows], T]) -> T:
        """The result of `work` on one snapshot."""
        return await self._reader.run(work)

    async def write(self, work: Callable[[Tx], T]) -> T:
        """The result of `work` once it is on disk."""
        return (await self._writer.run(work)).value

    async def write_beyond(self, work: Callable[[Tx], T]) -> T:
        """The same for what makes room: it may go a little beyond the journal's size cap, or a full journal could never become smaller."""
        headroom = _Headroom(self._cap)
        try:
            return await self.write(lambda tx: headroom.run(tx, work))
        finally:
            self._cap = headroom.cap
            if headroom.left_over:  # inside its transaction the cap cannot be lower than the file has grown
                await self.write(headroom.restore)

    async def close(self) -> None:
        """End the reading thread. Safe to call twice."""
        await self._reader.close()

    # sealing ---------------------------------------------------------------------------------------------------------

    async def seal(self, fence: Fence) -> SealStep:
        """Close the next blocks under the lease `sealing.SEALER`: one short step, call it until it finds nothing. Raises `Fenced`, `JournalFull`."""
        drafted = await self.read(lambda rows: sealing.draft(rows, self._clock.wall_ns()))
        if drafted is None:
            return SealStep(blocks=0, events=0)
        await self.write_beyond(lambda tx: sealing.seal(tx, fence, drafted))
        return SealStep(blocks=len(drafted.blocks), events=sum(stored.block.events for stored in drafted.blocks))

    async def sign_heads(self, signer: Signer, participant: str | None = None) -> list[SignedHead]:
        """Sign the last block of each chain, or of this participant's, where this key has not yet.

        Raises `EvidenceBroken` when a chain is not the one that was signed before; the others are signed all the same.
        """
        now_ns = self._clock.wall_ns()
        made, broken = await self.read(lambda rows: heads.sign_next(rows, signer, now_ns, participant))
        if made:
            await self.write_beyond(lambda tx: heads.store(tx, made))
        if broken:
            raise EvidenceBroken("; ".join(broken), hint=heads.KEEP)
        return made

    async def note_facts(self, fence: Fence, participant: str, content: Mapping[str, object]) -> bool:
        """Keep what holds for this participant's calls from now on; see `bridge.journal.facts`. Raises `Fenced`, `JournalFull`."""
        return await self.write(lambda tx: facts.note(tx, fence, participant, content))

    async def last_signed_ns(self, kid: str) -> int:
        """When this key signed last; 0 = never."""
        return await self.read(lambda rows: heads.last_signed_ns(rows, kid))

    async def used_bytes(self) -> int:
        """What the journal's rows take: the file without its free pages, which are used again before it grows."""
        return await self.read(used_bytes)

    # the anchor ------------------------------------------------------------------------------------------------------

    async def compare(self, path: Path) -> AnchorFinding:
        """What the anchor at `path` says of this journal. Ask before anything is sent."""
        found = await asyncio.to_thread(anchor.load, path)
        return await self.read(lambda rows: anchor.judge(rows, found))

    async def write_anchor(self, path: Path) -> None:
        """Let the anchor name the last blocks. Only for a journal that agrees with it (or has none yet). Raises `OSError`."""
        content = await self.read(anchor.current)
        await asyncio.to_thread(anchor.write, path, content, self._clock.wall_ns())

    async def rebase(self, path: Path) -> None:
        """A person reconciled the journal: from now on the anchor speaks of this one. Raises `OSError`."""
        content, now_ns = await self.read(anchor.current), self._clock.wall_ns()
        await asyncio.to_thread(anchor.write, path, content, now_ns)

        def note(tx: Tx) -> None:
            sealing.set_meta(tx, "restored", None)
            sealing.set_meta(tx, anchor.RECONCILED, iso_ms(now_ns))

        await self.write(note)

    async def anchor_body(self, signer: Signer | None) -> bytes:
        """The anchor of this moment as it leaves the host, signed by this key."""
        content = await self.read(anchor.current)
        return content.dump(self._clock.wall_ns(), signer)

    async def compare_elsewhere(self, found: Anchor) -> AnchorFinding:
        """What an anchor that a place off this host holds says of this journal."""
        return await self.read(lambda rows: anchor.judge_elsewhere(rows, found))


class _Headroom:
    """Room beyond SQLite's cap of pages, for one commit. `cap` is the journal's own, 0 until it was read."""

    def __init__(self, cap: int) -> None:
        self.cap = cap
        self.left_over = False

    def run(self, tx: Tx, work: Callable[[Tx], T]) -> T:
        """The result of `work`, with room for it."""
        if tx.dialect != "sqlite":
            return work(tx)
        self.cap = self.cap or int(tx.all("PRAGMA max_page_count")[0][0])
        tx.all(f"PRAGMA max_page_count = {min(self.cap + _ROOM_PAGES, _MOST_PAGES)}")
        try:
            return work(tx)
        finally:
            self.restore(tx)

    def restore(self, tx: Tx) -> None:
        """The cap as it was, or as near to it as the file's size allows."""
        self.left_over = int(tx.all(f"PRAGMA max_page_count = {self.cap}")[0][0]) != self.cap


def used_bytes(rows: Rows) -> int:
    """See `Evidence.used_bytes`."""
    if rows.dialect != "sqlite":
        return rows.size()
    found = rows.all(
        "SELECT (page_count - freelist_count) * page_size FROM pragma_page_count, pragma_freelist_count, pragma_page_size"
    )
    return int(found[0][0])
