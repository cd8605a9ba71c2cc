"""The anchor: a small file outside the journal's directory that names the last block of each participant, so that an older journal is noticed.

Whoever restores the journal's directory, or rolls back the disk that it lies on, leaves the anchor where it was; then the two disagree.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from bridge.clock import iso_ms
from bridge.envelope import PublicKey
from bridge.envelope.base64url import decode, encode
from bridge.envelope.keys import Signer
from bridge.journal import sealing
from bridge.journal.files import write_durably
from bridge.journal.heads import verified
from bridge.journal.store import Rows

_FORM: Final = "smp-bridge anchor 1"
_MOST_BLOCKS: Final = 2**63 - 1  # what a column holds
MOST_BYTES: Final = 64 * 1024 * 1024
RECONCILED: Final = "reconciled"  # in the journal's own facts: when a person last did (`clock.iso_ms`)
_FOREIGN: Final = "the anchor belongs to another journal: was this one made anew, or is the path of the other host's anchor configured?"


class AnchorVerdict(enum.Enum):
    """What the anchor says of a journal. Only FRESH and AGREES are `safe`: all others mean that the journal may not know what was sent."""

    FRESH = "fresh"  # no anchor, and a journal without a block
    AGREES = "agrees"
    BEHIND = (
        "behind"  # a block that the anchor names is missing or another one, or the journal was restored from a backup
    )
    FOREIGN = "foreign"  # the anchor of another journal: this one was made anew, or the configuration mixes two hosts
    MISSING = "missing"  # no anchor that can be read, although this journal had one

    @property
    def safe(self) -> bool:
        """Whether calls may leave."""
        return self in (AnchorVerdict.FRESH, AnchorVerdict.AGREES)


@dataclass(frozen=True, slots=True, kw_only=True)
class AnchorFinding:
    """The verdict, and one line for a person that says why."""

    verdict: AnchorVerdict
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """By which key and how an anchor is signed; `raw` as in RFC 7518 section 3."""

    kid: str
    alg: str
    raw: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """The content of the file: the journal's id, number and hash of each participant's last block, and when it was written (`clock.iso_ms`).

    What leaves the host carries the signature of the host's own key, where it has one.
    """

    journal: str
    blocks: Mapping[str, tuple[int, bytes]]
    written_at: str = ""
    signature: Signature | None = None

    def dump(self, now_ns: int, signer: Signer | None = None) -> bytes:
        """The file's bytes, written now and signed by this key."""
        now = iso_ms(now_ns)
        blocks = {name: {"number": number, "hash": hash_.hex()} for name, (number, hash_) in self.blocks.items()}
        content = {"form": _FORM, "journal": self.journal, "written_at": now, "blocks": blocks}
        if signer is not None:
            raw = signer.sign(self.signing_input(now))
            content["signature"] = {"kid": signer.kid, "alg": signer.alg.value, "signature": encode(raw)}
        return orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)

    def signing_input(self, written_at: str) -> bytes:
        """The bytes that are signed: a JSON array, UTF-8, no blanks, the participants by name."""
        blocks = [[name, number, hash_.hex()] for name, (number, hash_) in sorted(self.blocks.items())]
        return orjson.dumps([_FORM, self.journal, written_at, blocks])

    def signed_by(self, keys: Mapping[str, PublicKey]) -> bool:
        """Whether one of these keys signed it."""
        found = self.signature
        return found is not None and verified(
            keys, found.kid, found.alg, self.signing_input(self.written_at), found.raw
        )


def current(rows: Rows) -> Anchor:
    """What the anchor of this journal should say now."""
    return Anchor(journal=sealing.identity(rows), blocks=sealing.heads(rows))


def write(path: Path, anchor: Anchor, now_ns: int) -> None:
    """Write the anchor durably. Raises `OSError`."""
    write_durably(path, anchor.dump(now_ns))


def load(path: Path) -> Anchor | str | None:
    """The anchor at `path`; None when there is none, and one line that says why when it cannot be read."""
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"the anchor {path} cannot be read: {error.strerror}"
    return parse(content) or f"the anchor {path} is damaged"


def parse(content: bytes) -> Anchor | None:
    """The anchor in these bytes, None where they are none."""
    try:
        return _parse(orjson.loads(content))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def judge_elsewhere(rows: Rows, anchor: Anchor) -> AnchorFinding:
    """Compare an anchor that a place off this host holds. One that was written before a person last reconciled the journal says nothing any more."""
    reconciled = sealing.meta(rows, RECONCILED)
    if reconciled is not None and anchor.written_at <= reconciled:
        return AnchorFinding(verdict=AnchorVerdict.AGREES, text=f"a person reconciled the journal since ({reconciled})")
    if anchor.journal != sealing.identity(rows):
        return AnchorFinding(verdict=AnchorVerdict.FOREIGN, text=_FOREIGN)
    return _judge_blocks(rows, anchor)


def judge(rows: Rows, anchor: Anchor | str | None) -> AnchorFinding:
    """Compare a loaded anchor with the journal."""
    restored = sealing.meta(rows, "restored")
    if restored is not None:
        return AnchorFinding(verdict=AnchorVerdict.BEHIND, text=f"the journal was restored from {restored}")
    if isinstance(anchor, str):
        return AnchorFinding(verdict=AnchorVerdict.MISSING, text=anchor)
    if anchor is None:
        if sealing.heads(rows):
            return AnchorFinding(
                verdict=AnchorVerdict.MISSING, text="the journal holds sealed evidence, but its anchor is gone"
            )
        return AnchorFinding(verdict=AnchorVerdict.FRESH, text="a new journal")
    if anchor.journal != sealing.identity(rows):
        return AnchorFinding(verdict=AnchorVerdict.FOREIGN, text=_FOREIGN)
    return _judge_blocks(rows, anchor)


def _judge_blocks(rows: Rows, anchor: Anchor) -> AnchorFinding:
    for participant, (number, hash_) in anchor.blocks.items():
        last, _ = sealing.head(rows, participant)
        if number > last:
            text = f"{participant}: the anchor names block {number}, the journal ends with block {last}: it is older than its anchor"
            return AnchorFinding(verdict=AnchorVerdict.BEHIND, text=text)
        here = sealing.block_hash(rows, participant, number)
        if here is not None and here != hash_:  # None: the block is in the archive, and later ones stand on it
            text = f"{participant}: block {number} is another one than the anchor names"
            return AnchorFinding(verdict=AnchorVerdict.BEHIND, text=text)
    return AnchorFinding(verdict=AnchorVerdict.AGREES, text="the journal holds every block that the anchor names")


def _parse(content: Mapping[str, Any]) -> Anchor:
    if content["form"] != _FORM:
        raise ValueError(content["form"])
    blocks = {
        str(name): (_number(block["number"]), bytes.fromhex(block["hash"])) for name, block in content["blocks"].items()
    }
    return Anchor(
        journal=str(content["journal"]),
        blocks=blocks,
        written_at=str(content["written_at"]),
        signature=_signature(content.get("signature")),
    )


def _number(found: object) -> int:
    """The number of a block: whoever can write to the place may have put anything there."""
    if type(found) is not int or not 0 < found <= _MOST_BLOCKS:
        raise ValueError(found)
    return found


def _signature(content: Mapping[str, Any] | None) -> Signature | None:
    if content is None:
        return None
    return Signature(kid=str(content["kid"]), alg=str(content["alg"]), raw=decode(content["signature"]))
