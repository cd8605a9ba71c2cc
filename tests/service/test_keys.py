"""Keys change while the service runs: nothing is refused on either side during a rotation, and what is revoked is refused at once."""

import asyncio
import json
from pathlib import Path

import pytest
from service import PARTICIPANT, fill, linked, made_alarm, service, until_pushed, until_words

from bridge.cli import keys as command
from bridge.envelope import Algorithm
from bridge.errors import ConfigError
from bridge.journal.keys import KeySide, KeyState
from bridge.journal.people import Decision
from bridge.keys import load_signer
from bridge.sandbox.knobs import Fault

WHO = {"by": "Ada", "reason": "a test"}


@pytest.fixture
def say(monkeypatch, capsys):
    """Run `smp-bridge keys …` beside the running service; returns what it printed."""

    async def run(made, function, *arguments, **options):
        monkeypatch.setattr(command, "loaded", lambda _: made.config())
        await asyncio.to_thread(function, *arguments, **options)
        return capsys.readouterr().out

    return run


async def make(made, say, tmp_path, name="second", **more):
    """A next key of ours, its id."""
    options = {
        "alg": Algorithm.ES256, "force": False, "password_file": None, "password_env": "", "password_credential": "", "days": 0,
        "config": Path("config"), "participant": PARTICIPANT, **WHO, **more,
    }  # fmt: skip
    printed = await say(made, command.new, tmp_path / f"keys/{name}.pem", **options)
    return printed.split()[1]


async def jwks(made, say):
    return json.loads(await say(made, command.jwks, None, alg=None, participant=PARTICIPANT, config=Path("config")))


async def rotate(made, say, *, smp=False, grace="7d"):
    return await say(
        made, command.rotate, PARTICIPANT, WHO["by"], WHO["reason"], smp=smp, kid="", grace=grace, config=Path("config")
    )


async def revoke(made, say, kid, *, smp=False):
    return await say(made, command.revoke, kid, PARTICIPANT, WHO["by"], WHO["reason"], smp=smp, config=Path("config"))


async def signs(made, kid, within_s=10):
    """Wait until the host signs with this key."""
    async with asyncio.timeout(within_s):
        while made.host._market[PARTICIPANT].keys._ring.signer.kid != kid:
            await asyncio.sleep(0.01)


async def send(made, ems, first, count=1):
    places = fill(ems, count, first=first)
    for place in places:
        ems.request("assets", place)
    await until_words(ems, places, {3: count})


async def alarmed(made, code):
    await made_alarm(made, code)
    return next(alarm for alarm in await made.read(lambda journal: journal.alarms()) if alarm.code == code)


def refusals(made):
    return [entry for entry in made.ledger.requests if entry.status == 401]


async def kid_of(made, number=-1):
    """The key that the newest call was signed with, as the journal has it."""
    views = await made.read(lambda journal: journal.submissions(limit=1))
    events = await made.read(lambda journal: journal.events(views[0].id))
    return [event.data["kid"] for event in events if "kid" in event.data][number]


async def test_our_key_is_rotated_under_load(tmp_path, say):
    """The next key is shown before it signs, the former one while it retires; no call is refused and no restart is needed."""
    async with service(tmp_path) as made:
        ems = await linked(made)
        await send(made, ems, 1)
        first = load_signer(tmp_path / "keys/acme.pem").kid
        second = await make(made, say, tmp_path)
        shown = await jwks(made, say)
        assert [key["kid"] for key in shown["keys"]] == [first, second]
        made.sandbox.accounts.know(PARTICIPANT, shown)
        await send(made, ems, 2)
        assert await kid_of(made) == first

        load = asyncio.create_task(send(made, ems, 10, count=40))
        printed = await rotate(made, say)
        assert printed.splitlines() == [
            f"{second} is the active key of {PARTICIPANT}",
            f"{first} retires; it ends in 7d",
        ]
        await load
        await signs(made, second)
        await send(made, ems, 3)
        assert await kid_of(made) == second
        assert refusals(made) == []
        assert [key["kid"] for key in (await jwks(made, say))["keys"]] == [second, first]

        # The configuration still names the first key: the state of the journal holds after a restart too.
        await made.stop()
        await made.start()
        ems = await linked(made)
        await send(made, ems, 4)
        assert await kid_of(made) == second

        # A revoked key is shown to nobody any more.
        await revoke(made, say, first)
        assert [key["kid"] for key in (await jwks(made, say))["keys"]] == [second]
        listed = await say(made, command.list_, Path("config"), participant=PARTICIPANT, as_json=False)
        assert f"ours   revoked   ES256  {first}" in listed
        assert "by Ada: a test" in listed


async def test_what_a_revoked_key_signed_is_signed_anew(tmp_path, say):
    """A call that waits for another try leaves with the new key, as the same message."""
    async with service(tmp_path) as made:
        ems = await linked(made)
        second = await make(made, say, tmp_path)
        made.sandbox.accounts.know(PARTICIPANT, await jwks(made, say))
        made.knobs.faults = [Fault(operation="asset.create", status=503, headers={"Retry-After": "4"})]
        (place,) = fill(ems, 1)
        ems.request("assets", place)
        await made.until_states("RETRY_WAIT")
        first = await kid_of(made)
        await revoke(made, say, first)
        await signs(made, second)
        await until_words(ems, [place], {3: 1})
        assert await kid_of(made) == second
        assert refusals(made) == []


async def test_smps_key_is_rotated_and_revoked(tmp_path, say):
    """Its next key is taken as soon as it was imported; the former one for its grace time, and after that it is a 401 and an alarm."""
    async with service(tmp_path) as made:
        ems = await linked(made)
        await send(made, ems, 1)
        former = made.sandbox._key
        file = tmp_path / "next.jwks.json"
        second = made.sandbox.rotate_key()
        file.write_text(json.dumps(made.sandbox.jwks()))
        new, made.sandbox._key = made.sandbox._key, former  # announced, not in use yet
        printed = await say(
            made,
            command.import_,
            file,
            PARTICIPANT,
            WHO["by"],
            WHO["reason"],
            active=False,
            days=0,
            config=Path("config"),
        )
        assert printed.splitlines() == [f"{second}: next key of theirs", f"{former.kid}: known already"]
        await send(made, ems, 2)
        made.sandbox._key = new
        await send(made, ems, 3)  # SMP signs with it before anybody here said so
        await rotate(made, say, smp=True)
        made.sandbox._key = former
        await send(made, ems, 4)  # within the grace time
        await until_pushed(made, *[202] * 4)
        assert await made.read(lambda journal: journal.alarms()) == []

        await revoke(made, say, former.kid, smp=True)
        (place,) = fill(ems, 1, first=5)
        ems.request("assets", place)
        alarm = await alarmed(made, "KEY_REFUSED")
        assert former.kid in alarm.text
        assert "key_revoked" in alarm.text
        async with asyncio.timeout(10):
            while made.ledger.returns[4].status != 401:  # the answer to it is on its way when the alarm stands
                await asyncio.sleep(0.01)
        made.sandbox._key = new
        await send(made, ems, 6)


async def test_a_key_that_cannot_be_read_does_not_stop_the_service(tmp_path, say):
    """The former one signs on, with an alarm; once its file is right the next change takes it. A start is refused."""
    async with service(tmp_path) as made:
        ems = await linked(made)
        first = load_signer(tmp_path / "keys/acme.pem").kid
        second = await make(made, say, tmp_path)
        made.sandbox.accounts.know(PARTICIPANT, await jwks(made, say))
        file = tmp_path / "keys/second.pem"
        file.chmod(0o644)
        with pytest.raises(ConfigError, match="open to others"):
            await rotate(made, say)
        file.rename(tmp_path / "keys/away.pem")
        journal = made.host._market[PARTICIPANT].keys._journal  # as somebody else would who cannot see the file
        await journal.rotate_keys(PARTICIPANT, KeySide.OURS, "", 10**18, Decision(**WHO))
        alarm = await alarmed(made, "KEY_UNUSABLE")
        assert alarm.text.startswith(f"{first} signs on: ")
        await send(made, ems, 1)
        assert await kid_of(made) == first
        await made.stop()
        made.mortal = True
        with pytest.raises(AssertionError, match="not ready"):
            await made.start()
        assert isinstance(made.ended_by, ConfigError)
        (tmp_path / "keys/away.pem").rename(file)
        file.chmod(0o600)
        made.mortal = False
        await made.start()
        ems = await linked(made)
        await send(made, ems, 2)
        assert await kid_of(made) == second
        records = await made.read(lambda journal: journal.keys(PARTICIPANT))
        assert [record.state for record in records if record.kid == first] == [KeyState.RETIRING]


async def test_an_encrypted_key_is_opened_with_the_entrys_passphrase(tmp_path, say):
    """A new key of an entry with `signing_password` is written encrypted, and signs after a rotation."""
    async with service(
        tmp_path, entry={"signing_password": {"file": "../keys/password"}}, passphrase="s3cret-of-the-test"
    ) as made:
        ems = await linked(made)
        second = await make(made, say, tmp_path)
        assert b"BEGIN ENCRYPTED PRIVATE KEY" in (tmp_path / "keys/second.pem").read_bytes()
        made.sandbox.accounts.know(PARTICIPANT, await jwks(made, say))
        await rotate(made, say)
        await signs(made, second)
        await send(made, ems, 1)
        assert await kid_of(made) == second
