"""Where a participant wants four eyes, the commands that decide of submissions and keys want a second person; where it does not, one is enough."""

import asyncio
import itertools
import json
import sys

import pytest
from admin_world import undecided
from service import CLOCK, PARTICIPANT, prepared

from bridge.cli import main
from bridge.envelope import Algorithm
from bridge.journal.configured import open_configured_journal
from bridge.keys import KeySigner, load_signer, new_key, public_jwks, write_private
from bridge.submission import SubmissionState

WHO = ("--by", "Ada", "--reason", "the help desk said so")
AGREED = ("--approved-by", "Bob Jones", "--approved-because", "I asked them too")
BOTH = {
    "by": "Ada", "reason": "the help desk said so", "approved_by": "Bob Jones", "approved_because": "I asked them too",
}  # fmt: skip
# What is not a second person, and what the command says of it.
NOBODY = {
    (): "this participant wants four eyes: give --approved-by and --approved-because too",
    AGREED[:2]: "give --approved-by and --approved-because too",
    AGREED[2:]: "give --approved-by and --approved-because too",
    ("--approved-by", " ", *AGREED[2:]): "give --approved-by and --approved-because too",
    ("--approved-by", " ADA ", *AGREED[2:]): "Ada cannot approve it: a second person has to",
}
NUMBERS = itertools.count(1)


class Desk:
    """A configuration that never ran, its journal, and somebody who types commands."""

    def __init__(self, made, capsys, monkeypatch):
        self.made, self.capsys, self.monkeypatch = made, capsys, monkeypatch

    async def say(self, *arguments):
        """Exit status, what was printed, what it complained of (in one line)."""
        self.monkeypatch.setattr(sys, "argv", ["smp-bridge", *map(str, arguments)])

        def inside():
            try:
                main()
            except SystemExit as ended:
                return ended.code or 0
            return 0

        status = await asyncio.to_thread(inside)
        told = self.capsys.readouterr()
        return status, told.out, " ".join(told.err.replace("│", "").split())

    async def change(self, ask):
        """What `ask` makes of the journal."""
        options = self.made.config().host.journal
        journal = await open_configured_journal(options, clock=CLOCK, role="all", new_id=str, checkpoint=False)
        try:
            return await ask(journal)
        finally:
            await journal.close()

    async def undecided(self, state=SubmissionState.IN_DOUBT):
        """A submission that waits for a person's word, and its reference."""
        number = next(NUMBERS)
        key = f"BESS{number:05}"
        submission = await self.change(
            lambda journal: undecided(journal, CLOCK, PARTICIPANT, "assets", key, str(number), state)
        )
        return submission, key

    async def events(self):
        """Kind and data of everything that is recorded of the participant, oldest first; none where there is no journal yet."""
        if not self.made.journal_path.exists():
            return []
        rows = "SELECT kind, data FROM events WHERE participant = ? ORDER BY id"
        found = await self.made.read(lambda journal: journal.snapshot(lambda tables: tables.all(rows, (PARTICIPANT,))))
        return [(kind, json.loads(data)) for kind, data in found]


@pytest.fixture(params=[True, False], ids=["four eyes", "two eyes"])
def wanted(request):
    return request.param


@pytest.fixture
async def desk(tmp_path, monkeypatch, capsys, wanted):
    async with prepared(tmp_path, entry={"four_eyes": wanted}) as found:
        for part in ("keys", "resolve"):
            monkeypatch.setattr(f"bridge.cli.{part}.loaded", lambda _: found.config())
        yield Desk(found, capsys, monkeypatch)


async def decided(desk, wanted, kind, *command):
    """The command is refused without a second person where one is wanted, and nothing is recorded; then it is done. The event of this kind."""
    before = await desk.events()
    for more, text in NOBODY.items() if wanted else ():
        status, printed, complained = await desk.say(*command, *WHO, *more)
        assert (status, printed, text in complained) == (2, "", True), (more, complained)
    assert await desk.events() == before
    status, _, complained = await desk.say(*command, *WHO, *(AGREED if wanted else ()))
    assert (status, complained) == (0, ""), complained
    new = [data for name, data in (await desk.events())[len(before) :] if name == kind and data.get("by") == "Ada"]
    assert new, kind
    expected = BOTH if wanted else {name: BOTH[name] for name in ("by", "reason")}
    for data in new:
        assert {name: data[name] for name in BOTH if name in data} == expected
    return new


async def test_submissions(desk, wanted, tmp_path):
    """resolve (send again, confirm, cancel), retry and cancel."""
    again, _ = await desk.undecided()
    await decided(desk, wanted, "resend", "submissions", "resolve", again, "--resend")
    sure, key = await desk.undecided()
    file = tmp_path / "outcomes.csv"
    file.write_text(f"reference,outcome,asset_id\n{key},registered,A-1\n")
    await decided(desk, wanted, "CONFIRMED", "submissions", "resolve", sure, "--confirm", file)
    over, _ = await desk.undecided()
    await decided(desk, wanted, "CANCELLED", "submissions", "resolve", over, "--cancel")
    gone, _ = await desk.undecided()
    await decided(desk, wanted, "CANCELLED", "submissions", "cancel", gone)
    later, _ = await desk.undecided(SubmissionState.RETRY_WAIT)
    await decided(desk, wanted, "retry", "submissions", "retry", later)
    assert "there is no submission" in (await desk.say("submissions", "retry", "s-none", *WHO, *AGREED))[2]


async def test_keys(desk, wanted, tmp_path):
    """new, rotate, revoke and import; a refused `new` leaves no file, and a key that belongs to nobody yet asks for nobody."""
    mine = ("--participant", PARTICIPANT)
    first, second = load_signer(tmp_path / "keys/acme.pem").kid, tmp_path / "second.pem"
    [event] = await decided(desk, wanted, "key.next", "keys", "new", "--out", second, *mine)
    assert event["kid"] == load_signer(second).kid
    active = await decided(desk, wanted, "key.active", "keys", "rotate", *mine)
    assert [event["kid"] for event in active] == [load_signer(second).kid]
    await decided(desk, wanted, "key.revoked", "keys", "revoke", first, *mine)
    (tmp_path / "smp.json").write_text(
        json.dumps(public_jwks([KeySigner("N", Algorithm.ES256, new_key(Algorithm.ES256))]))
    )
    [event] = await decided(desk, wanted, "key.next", "keys", "import", tmp_path / "smp.json", *mine)
    assert (event["kid"], event["side"]) == ("N", "theirs")
    write_private(tmp_path / "elsewhere.pem", new_key(Algorithm.ES256))
    await decided(desk, wanted, "key.next", "keys", "import", tmp_path / "elsewhere.pem", *mine)
    assert (await desk.say("keys", "new", "--out", tmp_path / "nobodys.pem"))[0] == 0
    if wanted:
        assert (await desk.say("keys", "new", "--out", tmp_path / "refused.pem", *mine, *WHO))[0] == 2
    else:
        half = await desk.say("keys", "new", "--out", tmp_path / "refused.pem", *mine, *WHO, *AGREED[:2])
        assert (half[0], "a second person has a name and a reason" in half[2]) == (2, True)
    assert not (tmp_path / "refused.pem").exists()
