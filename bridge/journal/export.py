"""Export: evidence of one participant as a zip file that a stranger can check. docs/evidence.md specifies the form; nothing here changes the journal.

Only the participant's own chain is read. One submission takes its own events with their Merkle paths and bytes; a span of time takes whole blocks.
"""

import base64
import hashlib
import os
import tempfile
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

import orjson

from bridge.clock import iso_ms
from bridge.envelope.base64url import encode
from bridge.envelope.keys import Signer
from bridge.errors import NotPossible
from bridge.journal import export_plan, heads, sealing
from bridge.journal.blocks import Event, merkle_path
from bridge.journal.export_plan import Plan, Scope
from bridge.journal.export_source import Found, Source, envelopes
from bridge.journal.files import name_anew
from bridge.journal.heads import EvidenceBroken, SignedHead
from bridge.journal.verify import Read

FORM: Final = "smp-bridge evidence 1"
LINES: Final = "evidence.jsonl"
MANIFEST: Final = "manifest.json"
SIGNATURE: Final = "signature.json"

_EPOCH: Final = (1980, 1, 1, 0, 0, 0)


@dataclass(slots=True, kw_only=True)
class Exported:
    """What an export holds. `head` is the newest signed head; what happened after it is not in the file, nor what of it was in blocks up to `retired`."""

    head: SignedHead
    retired: int = 0
    blocks: int = 0
    events: int = 0
    blobs: int = 0
    erased: int = 0
    lines: int = 0
    bytes: int = 0
    sha256: str = ""


async def export(
    read: Read, scope: Scope, signer: Signer, *, archive_directory: Path, file: Path, now_ns: int
) -> Exported:
    """Write the evidence of `scope` to a new file, signed as a whole. Sign the heads before.

    Raises `NotPossible` (nothing of that scope, or no head is signed yet), `EvidenceBroken` (what is to be handed out is not what was sealed) and `OSError`.
    """
    journal = await read(sealing.identity)
    signed = await read(lambda rows: heads.of(rows, scope.participant))
    wrong = await read(lambda rows: heads.contradiction(rows, scope.participant, signed))
    if wrong:
        raise EvidenceBroken(wrong, hint=heads.KEEP)
    if not signed:
        raise NotPossible(f"no block of {scope.participant} is signed yet")
    plan = await export_plan.make(read, scope, archive_directory, last=signed[-1].number)
    done = Exported(head=signed[-1], retired=plan.retired)
    source = Source(read, archive_directory, scope.participant, journal)
    with _File(file) as target:
        with target.lines(done) as lines:
            await _write(read, source, plan, signed, lines)
        manifest = orjson.dumps(_manifest(journal, scope, done, now_ns), option=orjson.OPT_INDENT_2)
        target.add(MANIFEST, manifest)
        signature = {"kid": signer.kid, "alg": signer.alg.value, "signature": encode(signer.sign(manifest))}
        target.add(SIGNATURE, orjson.dumps(signature))
        target.finish()
    return done


def _manifest(journal: str, scope: Scope, done: Exported, now_ns: int) -> dict[str, object]:
    return {
        "form": FORM,
        "journal": journal,
        "participant": scope.participant,
        "scope": scope.plain(),
        "exported_at": iso_ms(now_ns),
        "head": [done.head.number, done.head.hash.hex(), done.head.signed_ns],
        "lines": done.lines,
        "bytes": done.bytes,
        "sha256": done.sha256,
        "blocks": done.blocks,
        "events": done.events,
        "blobs": done.blobs,
        "erased": done.erased,
        "retired": done.retired,
    }


async def _write(read: Read, source: Source, plan: Plan, signed: Sequence[SignedHead], lines: "_Lines") -> None:
    """Every run of blocks up to the signed head that stands for it, and the newest head by itself when no run ends with it."""
    by_number: dict[int, list[SignedHead]] = {}
    for head in signed:
        by_number.setdefault(head.number, []).append(head)
    for first, last in runs(sorted(plan.blocks), sorted(by_number)):
        for number in range(first, last + 1):
            await _block(read, source, plan, number, lines)
        lines.head(by_number[last][-1])


async def _block(read: Read, source: Source, plan: Plan, number: int, lines: "_Lines") -> None:
    keep = plan.blocks.get(number)
    found = await source.get(number, keep)
    lines.block(found)
    if keep is None:
        return
    kept = [event for event in found.events if keep(event)]
    whole = len(kept) == len(found.events)
    leaves = [] if whole else [event.leaf for event in found.events]
    for index, event in enumerate(found.events):
        if keep(event):
            lines.event(event, None if whole else (index, merkle_path(leaves, index)))
    for digest in found.spoken:
        lines.blob(digest, found.bytes.get(digest))
    for digest, text in (await read(partial(envelopes, events=kept))).items():
        lines.blob(digest, None if text is None else (b"", text))


def runs(blocks: Sequence[int], signed: Sequence[int]) -> list[tuple[int, int]]:
    """From each wanted block to the first signed one at or after it, without doing any twice; at the end the newest signed one."""
    found: list[tuple[int, int]] = []
    for number in [*blocks, signed[-1]]:
        if found and number <= found[-1][1]:
            continue
        found.append((number, next(head for head in signed if head >= number)))
    return found


class _Lines:
    """The lines of an export, counted and hashed as they are written."""

    def __init__(self, target: IO[bytes], done: Exported) -> None:
        self._target = target
        self._done = done
        self._hash = hashlib.sha256()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.sha256 = self._hash.hexdigest()
        self._target.close()

    def block(self, found: Found) -> None:
        """The header of a block."""
        b = found.stored.block
        ranges = [list(each) for each in b.ranges]
        self._line(
            {"block": [b.number, b.previous.hex(), b.root.hex(), b.events, b.first_ns, b.last_ns, b.sealed_ns, ranges]}
        )
        self._done.blocks += 1

    def event(self, event: Event, place: tuple[int, Sequence[bytes]] | None) -> None:
        """An event of the block before; `place` is its index and path where not all events of the block follow."""
        value: dict[str, object] = {"event": [*event[:-1], event.digest.hex() if event.digest is not None else None]}
        if place is not None:
            value |= {"index": place[0], "path": [step.hex() for step in place[1]]}
        self._line(value)
        self._done.events += 1

    def blob(self, digest: bytes, found: tuple[bytes, bytes] | None) -> None:
        """Bytes that events of the block speak of, or that they were erased."""
        if found is None:
            self._line({"erased": digest.hex()})
            self._done.erased += 1
            return
        nonce, data = found
        try:
            content = {"text": data.decode()}
        except UnicodeDecodeError:
            content = {"base64": base64.b64encode(data).decode()}
        self._line({"blob": digest.hex(), "nonce": nonce.hex(), **content})
        self._done.blobs += 1

    def head(self, head: SignedHead) -> None:
        """The signature over the block before."""
        signed = [head.number, head.hash.hex(), head.signed_ns]
        self._line({"head": signed, "kid": head.kid, "alg": head.alg, "signature": encode(head.signature)})

    def _line(self, value: dict[str, object]) -> None:
        line = orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)
        self._hash.update(line)
        self._target.write(line)
        self._done.lines += 1
        self._done.bytes += len(line)


class _File:
    """A new zip file that only its owner can read; gone when the `with` block is left before `finish`.

    It is made under a name that no other export to the same place has, and that nobody can have laid a link at.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._done = False

    def __enter__(self) -> Self:
        if self._path.exists():
            raise NotPossible(f"{self._path} is there already", hint="name a new file; an export replaces none")
        handle, beside = tempfile.mkstemp(
            prefix=f".{self._path.name}.", suffix=".new", dir=self._path.absolute().parent
        )
        self._beside = Path(beside)
        self._file = os.fdopen(handle, "w+b")
        self._zip = zipfile.ZipFile(self._file, "w", zipfile.ZIP_DEFLATED)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError, ValueError):  # of a file that is thrown away
            self._zip.close()
        with suppress(OSError):  # likewise: on a full disk closing writes once more what found no room
            self._file.close()
        if not self._done:
            self._beside.unlink(missing_ok=True)

    def lines(self, done: Exported) -> _Lines:
        """The member that holds the evidence, to be written line by line."""
        return _Lines(self._zip.open(self._member(LINES), "w", force_zip64=True), done)

    def add(self, name: str, content: bytes) -> None:
        """A small member."""
        self._zip.writestr(self._member(name), content)

    def finish(self) -> None:
        """Everything is on disk, under its name."""
        self._zip.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        try:
            name_anew(self._beside, self._path)
        except FileExistsError:
            raise NotPossible(f"{self._path} is there already", hint="name a new file") from None
        self._done = True

    @staticmethod
    def _member(name: str) -> zipfile.ZipInfo:
        info = zipfile.ZipInfo(name, _EPOCH)
        info.compress_type = zipfile.ZIP_DEFLATED
        info.external_attr = 0o600 << 16
        return info
