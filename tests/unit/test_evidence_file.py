"""Exported files that somebody worked on: each change is found by our examination and by the stranger's verifier of docs/, which shares no code with it."""

import asyncio
import copy
import hashlib
import io
import itertools
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import orjson
import pytest

from bridge.clock import Stamp
from bridge.envelope import Algorithm
from bridge.envelope.base64url import encode
from bridge.journal import blocks, heads, sealing
from bridge.journal.anchor import Anchor
from bridge.journal.examine import examine
from bridge.journal.export import export
from bridge.journal.export_plan import Scope
from bridge.journal.port import AnswerNote, Candidate, ReturnMessage, SignedCall
from bridge.journal.sqlite import open_journal
from bridge.keys import KeySigner, new_key, public_from_jwk, public_jwks, thumbprint
from bridge.model import Operation, Trigger
from bridge.submission import SubmissionState

STRANGER = Path(__file__).parents[2] / "docs" / "verify_evidence.py"
START = 1_795_000_000_000_000_000
NAMES = ("evidence.jsonl", "manifest.json", "signature.json")


def made_signer(alg=Algorithm.ES256):
    key = new_key(alg)
    return KeySigner(thumbprint(key), alg, key)


class Clock:
    def __init__(self):
        self.ns = START

    def now(self):
        self.ns += 1_000_000
        return Stamp(self.ns, self.ns - START, "boot")

    def wall_ns(self):
        return self.now().wall_ns


async def _live(journal, clock, rounds):
    """Some records that go out and come back; the id of a submission in the middle. One block a round."""
    evidence = journal.evidence()
    field, market, sealer = [await journal.acquire(lease) for lease in ("field:north", "market:acme", sealing.SEALER)]
    wanted = ""
    for number in range(rounds):
        asked = [
            Candidate(
                site="north",
                flow="assets",
                place=f"place-{number}-{part}",
                participant="acme",
                operation=Operation.ASSET_CREATE,
                trigger=Trigger.CHANGE,
                request=None,
                key=f"K{number}-{part}",
                content=b"content",
                digest=b"0123456789abcdef",
                readings=f"readings {number} {part}".encode(),
                stamps={"received": clock.now()},
                max_items=1,
            )
            for part in range(3)
        ]
        for one in asked:
            await journal.accept(field, [one], None)
        due = await journal.next_call("acme", clock.wall_ns(), allow=(Operation.ASSET_CREATE,))
        call = SignedCall(
            message_id=f"M{number}",
            correlation_id=f"C{number}",
            method="POST",
            path="/assets",
            headers={"signature": "sig\x7f\u2028é"},
            body=b"\xff body",
            kid="k",
            profile="default",
            stamps={"signed": clock.now()},
        )
        await journal.sending(market, due.submission, call, 1)
        answer = AnswerNote(status=202, headers={}, body=b"{}", detail="é \n \x01", transaction_id=f"T{number}")
        await journal.answered(market, due.submission, SubmissionState.AWAITING_RETURN, answer)
        await journal.park_return(
            market,
            ReturnMessage(
                participant="acme",
                message_id=f"R{number}",
                transaction_id=f"T{number}",
                correlation_id="",
                content=b"m",
                body=b"return",
                headers={"signature": "theirs"},
                kid="smp",
                late=False,
                received=clock.now(),
            ),
        )
        wanted = due.submission if number == 1 else wanted
        while (await evidence.seal(sealer)).events:
            pass
    return wanted


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A file with one submission, one with everything, the host's key, and what both verifiers are given."""
    directory = tmp_path_factory.mktemp("evidence")
    signer, clock, ids = made_signer(), Clock(), itertools.count(1)

    async def make():
        journal = await open_journal(
            directory / "j.db", clock=clock, role="all", new_id=lambda: f"id-{next(ids)}", checkpoint=True
        )
        try:
            evidence = journal.evidence()
            wanted = await _live(journal, clock, 4)
            await evidence.sign_heads(signer)
            scopes = {
                "one.zip": Scope(participant="acme", submission=wanted),
                "all.zip": Scope(participant="acme", from_ns=0, to_ns=clock.ns),
            }
            for name, scope in scopes.items():
                await export(
                    evidence.read,
                    scope,
                    signer,
                    archive_directory=directory / "a",
                    file=directory / name,
                    now_ns=clock.wall_ns(),
                )
            return await evidence.read(sealing.identity)
        finally:
            await journal.close()

    journal = asyncio.run(make())
    (directory / "keys.json").write_text(json.dumps(public_jwks([signer])))
    return SimpleNamespace(
        directory=directory,
        signer=signer,
        journal=journal,
        keys={signer.kid: public_from_jwk(directory, signer.public_jwk())},
        key_file=directory / "keys.json",
        numbers=itertools.count(1),
    )


def read(made, name):
    with zipfile.ZipFile(made.directory / name) as archive:
        members = {member: archive.read(member) for member in NAMES}
    return [json.loads(line) for line in members["evidence.jsonl"].splitlines()], json.loads(members["manifest.json"])


def write(made, members, *, names=None):
    file = made.directory / f"tampered-{next(made.numbers)}.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names or members:
            archive.writestr(name, members[name])
    return file


def signed_again(made, lines, manifest, signer=None):
    """A file whose manifest is signed again for other lines, as somebody could who has the host's tools but not its past: what is left are blocks and heads."""
    signer = signer or made.signer
    body = b"".join(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE) for line in lines)
    kinds = {"blocks": "block", "events": "event", "blobs": "blob", "erased": "erased"}
    counts = {name: sum(kind in line for line in lines) for name, kind in kinds.items()}
    sums = {"lines": len(lines), "bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
    last = [line["head"] for line in lines if "head" in line]
    content = orjson.dumps({**manifest, **counts, **sums, "head": last[-1] if last else manifest["head"]})
    signature = {"kid": signer.kid, "alg": signer.alg.value, "signature": encode(signer.sign(content))}
    return write(made, {"evidence.jsonl": body, "manifest.json": content, "signature.json": orjson.dumps(signature)})


_LOADED: dict = {}


def stranger(made, file, anchor=None):
    """What the verifier of docs/ says; '' when it finds nothing. Loaded once, as a program of its own."""
    if not _LOADED:
        exec(compile(STRANGER.read_text(encoding="utf-8"), str(STRANGER), "exec"), _LOADED)
    keys = {key["kid"]: key for key in json.loads(made.key_file.read_text())["keys"]}
    kept = None
    if anchor is not None:
        kept = json.loads(anchor.dump(0)) | {"written_at": anchor.written_at}
    try:
        _LOADED["verify"](str(file), keys, kept)
    except SystemExit as wrong:
        return str(wrong.code)
    except Exception as error:
        return f"WRONG: unreadable: {error!r}"
    return ""


def both(made, file, anchor=None):
    """Both verifiers find it; what ours says."""
    report = examine(file, made.keys, anchor)
    theirs = stranger(made, file, anchor)
    assert bool(report.wrong) == bool(theirs), (report.place, report.wrong, theirs)
    return f"{report.place}: {report.wrong}" if report.wrong else ""


def at(lines, kind, which=0):
    return [number for number, line in enumerate(lines) if kind in line][which]


def resealed(made, lines, signer):
    """Every block over these events made anew, chained, and its heads signed with another key: a whole forgery."""
    out, block, previous = copy.deepcopy(lines), None, b""
    for number, line in enumerate(out):
        if "block" in line:
            events = []
            for later in out[number + 1 :]:
                if "block" in later:
                    break
                if "event" in later:
                    *plain, digest = later["event"]
                    events.append(blocks.Event._make([*plain, bytes.fromhex(digest) if digest else None]))
            block = blocks.close(events, number=line["block"][0], previous=previous, sealed_ns=line["block"][6])
            previous = block.hash(made.journal)
            line["block"][1:3] = [block.previous.hex(), block.root.hex()]
        if "head" in line:
            line["head"][1] = previous.hex()
            signed = heads.signing_input(made.journal, "acme", line["head"][0], previous, line["head"][2])
            line |= {"kid": signer.kid, "alg": signer.alg.value, "signature": encode(signer.sign(signed))}
    return out


# ------------------------------------------------------------------------------------------------------------- whole files


@pytest.mark.parametrize("name", ["one.zip", "all.zip"])
def test_a_file_that_nobody_touched_is_whole(made, name):
    """Both verifiers say so; the stranger's as a program too."""
    assert both(made, made.directory / name) == ""
    ran = subprocess.run(
        [sys.executable, str(STRANGER), str(made.directory / name), str(made.key_file)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stdout[:11]) == (0, "whole: acme"), ran.stderr


def test_the_strangers_verifier_is_short_and_shares_nothing():
    """Under 150 lines, the standard library and cryptography."""
    text = STRANGER.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 150
    imported = {
        line.split()[1].split(".")[0].strip(",") for line in text.splitlines() if line.startswith(("import", "from"))
    }
    assert imported == {"base64", "cryptography"}
    assert "bridge" not in text.replace("smp-bridge", "")


def test_an_eddsa_key_signs_as_well(made):
    """The other kind of host key, for manifest and heads."""
    signer = made_signer(Algorithm.EDDSA)
    lines, manifest = read(made, "all.zip")
    file = signed_again(made, resealed(made, lines, signer), manifest, signer)
    assert "none of the host's" in both(made, file)
    keys = made.directory / "eddsa.json"
    keys.write_text(json.dumps(public_jwks([signer])))
    mine = SimpleNamespace(keys={signer.kid: public_from_jwk(keys, signer.public_jwk())}, key_file=keys)
    assert both(mine, file) == ""


# ------------------------------------------------------------------------------------------------------- bytes of members


@pytest.mark.parametrize("name", NAMES)
def test_a_changed_byte_of_any_member_is_found(made, name):
    """Every byte of the small members, every 23rd of the lines, with another bit each time."""
    with zipfile.ZipFile(made.directory / "one.zip") as archive:
        members = {member: archive.read(member) for member in NAMES}
    step = 23 if name == "evidence.jsonl" else 1
    missed = []
    for place in range(0, len(members[name]), step):
        changed = bytearray(members[name])
        changed[place] ^= 1 << place % 8
        if name == "signature.json" and json_or_none(changed) == json.loads(members[name]):
            continue  # the same signature, written otherwise
        file = write(made, {**members, name: bytes(changed)})
        if not both(made, file):
            missed.append((place, bytes(changed[place - 10 : place + 10])))
        file.unlink()
    assert missed == []


def json_or_none(content):
    try:
        return json.loads(bytes(content))
    except ValueError:
        return None


def test_a_changed_byte_of_the_zip_file_is_found_or_changes_nothing(made):
    """A zip file has bytes that say nothing (times, versions); what the members hold is either the same or found out."""
    whole = (made.directory / "one.zip").read_bytes()
    with zipfile.ZipFile(made.directory / "one.zip") as archive:
        members = {member: archive.read(member) for member in NAMES}
    file = made.directory / "bytes.zip"
    for place in range(0, len(whole), 7):
        changed = bytearray(whole)
        changed[place] ^= 0x20
        file.write_bytes(changed)
        if not examine(file, made.keys).wrong:
            with zipfile.ZipFile(file) as archive:
                assert {member: archive.read(member) for member in NAMES} == members


# -------------------------------------------------------------------------------------------- changes by the hand of a forger


def swap(lines, kind, first, second, field=None):
    a, b = at(lines, kind, first), at(lines, kind, second)
    if field is None:
        lines[a], lines[b] = lines[b], lines[a]
    else:
        lines[a][field], lines[b][field] = lines[b][field], lines[a][field]


def drop_block(lines):
    first, second = at(lines, "block", 1), at(lines, "block", 2)
    del lines[first:second]


def renumber(lines):
    for line in lines:
        if "event" in line and line["event"][1] == "field:north":
            line["event"][3] += 1


def change(lines, kind, which, edit):
    edit(lines[at(lines, kind, which)])


CHANGES = {
    "an event's text": (
        lambda lines: change(lines, "event", 2, lambda line: line["event"].__setitem__(7, "{}")),
        "sealed",
    ),
    "an event's time": (
        lambda lines: change(lines, "event", 2, lambda line: line["event"].__setitem__(4, 5)),
        "sealed",
    ),
    "an event's kind": (
        lambda lines: change(lines, "event", 1, lambda line: line["event"].__setitem__(5, "x")),
        "sealed",
    ),
    "an event's participant": (
        lambda lines: change(lines, "event", 2, lambda line: line["event"].__setitem__(0, "other")),
        "another participant",
    ),
    "an event's bytes": (
        lambda lines: change(lines, "blob", 1, lambda line: line.update(text="x")),
        "not those of the digest",
    ),
    "bytes taken out": (lambda lines: lines.pop(at(lines, "blob", 1)), "are missing"),
    "bytes of nobody": (
        lambda lines: lines.insert(
            at(lines, "blob", 1), {"blob": hashlib.sha256(b"x").hexdigest(), "nonce": "", "text": "x"}
        ),
        "no event of the block speaks of",
    ),
    "an event removed in the middle": (lambda lines: lines.pop(at(lines, "event", 2)), ""),
    "numbers renumbered": (renumber, "does not stand at place"),
    "two events swapped": (lambda lines: swap(lines, "event", 1, 2), ""),
    "two events' contents swapped": (lambda lines: swap(lines, "event", 1, 2, "event"), "does not stand at place"),
    "a block left out": (drop_block, ""),
    "two blocks' headers swapped": (lambda lines: swap(lines, "block", 1, 2, "block"), ""),
    "a header's time": (lambda lines: change(lines, "block", 1, lambda line: line["block"].__setitem__(6, 1)), ""),
    "a block's number": (lambda lines: change(lines, "block", 1, lambda line: line["block"].__setitem__(0, 9)), ""),
    "the head's signature": (
        lambda lines: change(lines, "head", 0, lambda line: line.update(signature="A" * 86)),
        "signature",
    ),
    "the head's time": (
        lambda lines: change(lines, "head", 0, lambda line: line["head"].__setitem__(2, 5)),
        "signature",
    ),
    "the head left out": (lambda lines: lines.pop(at(lines, "head")), "signed head"),
    "the end cut off": (lambda lines: lines.__delitem__(slice(at(lines, "block", -1), None)), "signed head"),
    "a line of another kind": (lambda lines: lines.insert(3, {"note": "x"}), "none of block"),
    "an event before every block": (lambda lines: lines.insert(0, lines[at(lines, "event")]), "before the first block"),
}


# Where each is found: (line, block) in all.zip and in one.zip; None is the end of the file. What stands under the root of a whole block is found where that block ends.
PLACES = {
    "an event's text": ((16, 1), (6, 2)),
    "an event's time": ((16, 1), (6, 2)),
    "an event's kind": ((16, 1), (5, 2)),
    "an event's participant": ((4, 1), (6, 2)),
    "an event's bytes": ((9, 1), (8, 2)),
    "bytes taken out": ((15, 1), (12, 2)),
    "bytes of nobody": ((9, 1), (8, 2)),
    "an event removed in the middle": ((4, 1), None),
    "numbers renumbered": ((2, 1), (2, 1)),
    "two events swapped": ((3, 1), (6, 2)),
    "two events' contents swapped": ((3, 1), (5, 2)),
    "a block left out": ((16, 3), (4, 3)),
    "two blocks' headers swapped": ((16, 3), (4, 3)),
    "a header's time": ((31, 3), (13, 3)),
    "a block's number": ((16, 9), (4, 9)),
    "the head's signature": ((61, 4), (15, 4)),
    "the head's time": ((61, 4), (15, 4)),
    "the head left out": (None, None),
    "the end cut off": (None, None),
    "a line of another kind": ((4, 1), (4, 1)),
    "an event before every block": ((1, 0), (1, 0)),
}
UNREADABLE = {
    "a line of another kind",
    "an event before every block",
}  # of these the stranger's verifier tells no place


def assert_named(made, file, what, name):
    """Both verifiers name the line (ours the block too)."""
    place = PLACES[what][name == "one.zip"]
    report, theirs = examine(file, made.keys), stranger(made, file)
    if place is None:
        assert report.place == "after the last line"
        assert theirs.startswith("WRONG the end:")
        return
    line, block = place
    assert report.place == f"line {line}" + (f" (block {block})" if block else "")
    assert theirs.startswith("WRONG: unreadable" if what in UNREADABLE else f"WRONG line {line}:")


# Paths prove what is there; that all events of one submission are there is the manifest's word (the test after this one).
CASES = [("all.zip", what) for what in CHANGES]
CASES += [("one.zip", what) for what in CHANGES if what != "an event removed in the middle"]


@pytest.mark.parametrize(("name", "what"), CASES)
def test_what_a_forger_with_the_tools_changes_is_found(made, name, what):
    """Even when the manifest is signed again for the changed lines: blocks, paths, numbers, digests and heads do not fit any more."""
    edit, told = CHANGES[what]
    lines, manifest = read(made, name)
    edit(lines)
    file = signed_again(made, lines, manifest)
    assert told in both(made, file)
    assert_named(made, file, what, name)


@pytest.mark.parametrize("name", ["all.zip", "one.zip"])
@pytest.mark.parametrize("second", ["a header's time", "the head's signature", "the end cut off"])
def test_of_two_faults_the_first_is_named(made, name, second):
    """Bytes changed in an early block, and something behind them."""
    lines, manifest = read(made, name)
    for what in (second, "an event's bytes"):
        CHANGES[what][0](lines)
    assert_named(made, signed_again(made, lines, manifest), "an event's bytes", name)


def test_an_event_taken_out_of_one_submission_is_found(made):
    """Each of its events, with its bytes: the manifest that the host signed names the digest of all lines."""
    with zipfile.ZipFile(made.directory / "one.zip") as archive:
        members = {member: archive.read(member) for member in NAMES}
    lines = members["evidence.jsonl"].splitlines(keepends=True)
    events = [number for number, line in enumerate(lines) if line.startswith(b'{"event"')]
    assert len(events) >= 4
    for number in events:
        body = b"".join(lines[:number] + lines[number + 1 :])
        assert both(made, write(made, {**members, "evidence.jsonl": body}))


def test_a_block_left_out_of_a_span_under_heads_of_its_own_is_found(made):
    """Whoever has the host's key can sign a head before the hole; but a span has no holes, and everything beside it may have."""
    lines, manifest = read(made, "all.zip")
    hash_ = lines[at(lines, "block", 1)]["block"][1]
    signed = heads.signing_input(made.journal, "acme", 1, bytes.fromhex(hash_), 7)
    head = {"head": [1, hash_, 7], "kid": made.signer.kid, "alg": made.signer.alg.value}
    drop_block(lines)
    lines.insert(at(lines, "block", 1), head | {"signature": encode(made.signer.sign(signed))})
    last = lines[at(lines, "block", 0)]["block"][5]
    assert "block 2 is left out of the span" in both(made, signed_again(made, lines, manifest))
    for line in lines[at(lines, "block", 1) :]:  # what is after the span needs no events, and leads to the newest head
        if "event" in line or "blob" in line:
            lines = [one for one in lines if one is not line]
    short = manifest | {"scope": manifest["scope"] | {"to_ns": last}}
    assert both(made, signed_again(made, lines, short)) == ""


def test_a_forgery_sealed_with_another_key_is_found(made):
    """Events made anew, blocks over them, heads and manifest signed: by a key that is not the host's."""
    signer = made_signer()
    lines, manifest = read(made, "all.zip")
    lines[at(lines, "event", 2)]["event"][7] = '{"forged":1}'
    for line in [line for line in lines if "blob" in line]:
        del line
    forged = resealed(made, lines, signer)
    assert f"signature.json: it is of the key {signer.kid}" in both(made, signed_again(made, forged, manifest, signer))
    assert "the head is signed by the key" in both(made, signed_again(made, forged, manifest))


def test_a_rebuilt_chain_under_the_old_heads_is_found(made):
    """A chain made anew does not end with the block that was signed."""
    lines, manifest = read(made, "all.zip")
    changed = copy.deepcopy(lines)
    changed[at(lines, "event", 2)]["event"][4] += 1
    rebuilt = resealed(made, changed, made.signer)
    old = [line for line in lines if "head" in line]
    for number, line in zip([number for number, line in enumerate(rebuilt) if "head" in line], old, strict=True):
        rebuilt[number] = line
    assert "is not the block that was signed" in both(made, signed_again(made, rebuilt, manifest))


# -------------------------------------------------------------------------------------------------------------- the anchor


@pytest.mark.parametrize(
    ("number", "written_at", "journal", "told"),
    [
        (4, "2026-11-01T00:00:00.000Z", "", "another one"),
        (9, "2026-11-01T00:00:00.000Z", "", "was cut off"),
        (9, "2096-11-01T00:00:00.000Z", "", ""),
        (1, "2026-11-01T00:00:00.000Z", "elsewhere", "another journal"),
    ],
)
def test_an_anchor_kept_elsewhere(made, number, written_at, journal, told):
    """It finds another block in the place of one it names, and a cut; a newer one says nothing of the end."""
    anchor = Anchor(journal=journal or made.journal, blocks={"acme": (number, b"x" * 32)}, written_at=written_at)
    found = both(made, made.directory / "all.zip", anchor)
    assert told in found
    assert bool(told) == bool(found)


# ------------------------------------------------------------------------------------------------------------ hostile files


def test_hostile_zip_files_are_refused(made):
    """Other names, members twice, none at all, too large, a bomb, a directory that is none."""
    with zipfile.ZipFile(made.directory / "one.zip") as archive:
        members = {member: archive.read(member) for member in NAMES}
    bomb = b"\n" * (50 * 1024 * 1024)
    with pytest.warns(UserWarning, match="Duplicate name"):
        twice = write(made, members, names=[*NAMES, "manifest.json"])
    files = {
        "holds 4 members": write(made, {**members, "../../etc/passwd": b"x"}),
        "holds 4 members (evidence": twice,
        "holds 2 members": write(made, members, names=NAMES[:2]),
        "manifest.json: it is larger": write(made, {**members, "manifest.json": bomb}),
        "signature.json: it is larger": write(made, {**members, "signature.json": bomb}),
        "line 1: it has another form": write(made, {**members, "evidence.jsonl": bomb}),
    }
    for told, file in files.items():
        assert told in both(made, file), told
    nothing = made.directory / "nothing.zip"
    for content in (b"", b"PK", b"x" * 100_000):
        nothing.write_bytes(content)
        assert "zip file: it cannot be read" in both(made, nothing)


def test_a_directory_of_a_million_members_is_not_read(made):
    """Counts in the zip's own directory cost nothing before they are refused."""
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as archive:
        for number in range(20_000):
            archive.writestr(zipfile.ZipInfo(f"{number:060}"), b"")
    file = made.directory / "many.zip"
    file.write_bytes(raw.getvalue())
    assert examine(file, made.keys).wrong == "it cannot be read: its directory is too large"


def test_a_line_beyond_the_manifest_is_not_read(made):
    """What the signed manifest does not name is not unpacked."""
    with zipfile.ZipFile(made.directory / "one.zip") as archive:
        members = {member: archive.read(member) for member in NAMES}
    longer = write(made, {**members, "evidence.jsonl": members["evidence.jsonl"] + b'{"block":1}\n'})
    assert "longer than the manifest says" in both(made, longer)
