"""Examination of an exported file, offline: every signature, hash, path and number is computed again, and the first thing that is wrong is named, with its place.

The file comes from a stranger. The signature over its manifest is looked at first, and nothing beyond the sizes that a signed manifest names is read.
"""

import hashlib
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

import orjson

from bridge.envelope import PublicKey
from bridge.envelope.base64url import decode
from bridge.journal.anchor import Anchor
from bridge.journal.examine_blocks import Chain, Count, UnknownKey, Wrong
from bridge.journal.export import FORM, LINES, MANIFEST, SIGNATURE
from bridge.journal.heads import verified

MOST_LINE_BYTES: Final = 256 * 1024 * 1024
EARLIER: Final = "if that was an earlier key of the host, nothing need be wrong: add its public half to the JWK Set of --keys (docs/evidence.md)"
_MOST_SMALL_BYTES: Final = 64 * 1024
_MOST_READ_BYTES: Final = 1024 * 1024
_UNREADABLE: Final = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    struct.error,
    OSError,
    ValueError,
    OverflowError,
)


@dataclass(slots=True, kw_only=True)
class Examined:
    """What was found. `wrong` is the first thing that is not as it was sealed and signed ('' = nothing), `place` where; `notes` are no faults."""

    wrong: str = ""
    place: str = ""
    manifest: Mapping[str, Any] = field(default_factory=dict)
    kid: str = ""
    count: Count = field(default_factory=Count)
    notes: list[str] = field(default_factory=list)


def examine(file: Path, keys: Mapping[str, PublicKey], anchor: Anchor | None = None) -> Examined:
    """Check an exported file against the host's public keys by kid, and against an anchor that was kept elsewhere. Raises `OSError` where there is no such file."""
    report = Examined()
    with file.open("rb") as raw:
        try:
            _examine(raw, keys, anchor, report)
        except Wrong as wrong:
            report.place, report.wrong = wrong.place, wrong.text
            if isinstance(wrong, UnknownKey):
                report.notes.append(EARLIER)
    return report


def _examine(raw: IO[bytes], keys: Mapping[str, PublicKey], anchor: Anchor | None, report: Examined) -> None:
    with _opened(raw) as archive:
        content = _small(archive, MANIFEST)
        _signature(archive, content, keys, report)
        report.manifest = manifest = _manifest(content)
        chain = Chain(manifest, keys, report.count)
        digest = hashlib.sha256()
        for number, line in enumerate(_lines(archive, manifest), 1):
            digest.update(line)
            chain.take(number, line)
        chain.end()
        if digest.hexdigest() != manifest["sha256"]:
            raise Wrong(LINES, "its bytes are not those that the manifest names")
        if retired := manifest.get("retired"):
            report.notes.append(
                f"blocks 1 to {retired} had their time before it was exported: what they held of this is not here"
            )
        if anchor is not None:
            _compare(anchor, keys, manifest, chain, report)


# ----------------------------------------------------------------------------------------------------------- the zip file


class _Guarded:
    """A file of which no reader takes much at once: a directory with millions of members is not read."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        self.seek, self.tell, self.seekable, self.close = raw.seek, raw.tell, raw.seekable, raw.close

    def read(self, size: int = -1) -> bytes:
        """At most a megabyte. Raises `zipfile.BadZipFile` when more is asked for."""
        if size > _MOST_READ_BYTES:
            raise zipfile.BadZipFile("its directory is too large")
        found = self._raw.read(size if size >= 0 else _MOST_READ_BYTES + 1)
        if len(found) > _MOST_READ_BYTES:
            raise zipfile.BadZipFile("its directory is too large")
        return found


def _opened(raw: IO[bytes]) -> zipfile.ZipFile:
    try:
        archive = zipfile.ZipFile(_Guarded(raw))
    except _UNREADABLE as error:
        raise Wrong("zip file", f"it cannot be read: {error}") from error
    names = sorted(info.filename for info in archive.infolist())
    if names != sorted((LINES, MANIFEST, SIGNATURE)):
        told = ", ".join(name[:40] for name in names[:5])
        raise Wrong("zip file", f"it holds {len(names)} members ({told}) instead of {LINES}, {MANIFEST}, {SIGNATURE}")
    return archive


def _small(archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        with archive.open(name) as member:
            content = member.read(_MOST_SMALL_BYTES + 1)
    except _UNREADABLE as error:
        raise Wrong(name, f"it cannot be read: {error}") from error
    if len(content) > _MOST_SMALL_BYTES:
        raise Wrong(name, f"it is larger than {_MOST_SMALL_BYTES} bytes")
    return content


def _signature(archive: zipfile.ZipFile, content: bytes, keys: Mapping[str, PublicKey], report: Examined) -> None:
    value = _json(SIGNATURE, _small(archive, SIGNATURE))
    try:
        kid, alg, signature = str(value["kid"]), str(value["alg"]), decode(value["signature"])
    except (KeyError, TypeError, ValueError) as error:
        raise Wrong(SIGNATURE, "it has another form") from error
    if kid not in keys:
        raise UnknownKey(SIGNATURE, f"it is of the key {kid[:100]}, which is none of the host's public keys")
    if not verified(keys, kid, alg, content, signature):
        raise Wrong(MANIFEST, f"its signature is not of the key {kid[:100]}: it was changed, or somebody else made it")
    report.kid = kid


def _manifest(content: bytes) -> Mapping[str, Any]:
    value = _json(MANIFEST, content)
    kinds: dict[str, type] = {"journal": str, "participant": str, "exported_at": str, "sha256": str}
    kinds |= {"scope": dict, "head": list, "lines": int, "bytes": int, "events": int, "blocks": int, "blobs": int}
    if value.get("form") != FORM or any(type(value.get(name)) is not kind for name, kind in kinds.items()):
        raise Wrong(MANIFEST, f"it is not of the form {FORM}")
    return value


def _lines(archive: zipfile.ZipFile, manifest: Mapping[str, Any]) -> Iterator[bytes]:
    """The lines, each bounded, and together no more than the manifest says."""
    left = manifest["bytes"]
    try:
        with archive.open(LINES) as member:
            while line := member.readline(min(left, MOST_LINE_BYTES) + 1):
                left -= len(line)
                if left < 0 or not line.endswith(b"\n"):
                    raise Wrong(LINES, "it is longer than the manifest says, or cut within a line")
                yield line
    except _UNREADABLE as error:
        raise Wrong(LINES, f"it cannot be read: {error}") from error
    if left:
        raise Wrong(LINES, f"{left} bytes of it are missing")


def _json(place: str, content: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(content)
    except ValueError as error:
        raise Wrong(place, "it is not JSON") from error
    if not isinstance(value, dict):
        raise Wrong(place, "it is not a JSON object")
    return value


# ------------------------------------------------------------------------------------------------------------- the anchor


def _compare(
    anchor: Anchor, keys: Mapping[str, PublicKey], manifest: Mapping[str, Any], chain: Chain, report: Examined
) -> None:
    """What an anchor that was kept elsewhere knows of this chain. It is older than the export, or it can say nothing of blocks beyond it."""
    if anchor.signature is None:
        report.notes.append("the anchor is not signed: it proves what it names only as well as it was kept")
    elif not anchor.signed_by(keys):
        raise Wrong("anchor", f"its signature is not of one of the host's public keys ({anchor.signature.kid[:100]})")
    if anchor.journal != manifest["journal"]:
        raise Wrong("anchor", "it belongs to another journal")
    named = anchor.blocks.get(manifest["participant"])
    if named is None:
        report.notes.append("the anchor names no block of this participant")
        return
    number, hash_ = named
    last = manifest["head"][0]
    if number > last and anchor.written_at <= manifest["exported_at"]:
        text = f"it names block {number} since {anchor.written_at}, and this evidence ends with block {last}: what came after was cut off"
        raise Wrong("anchor", text)
    if number > last:
        report.notes.append(
            f"the anchor (block {number}) is newer than this export (block {last}) and says nothing of its end"
        )
    elif number in chain.hashes and chain.hashes[number] != hash_:
        raise Wrong("anchor", f"block {number} is another one than it names")
    elif number in chain.hashes:
        report.notes.append(f"the anchor names block {number}, as it is here")
    else:
        report.notes.append(f"the anchor names block {number}, which is not part of this export")
