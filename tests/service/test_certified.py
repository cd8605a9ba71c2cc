"""The whole service under `dip-like`: calls and returns signed in headers, a certificate beside them, and how both sides change theirs."""

import asyncio
import json
import sqlite3
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
from certificates import rsa_key, thumbprint
from cryptography import x509
from service import CLOCK, PARTICIPANT, fill, linked, made_alarm, service, until_pushed, until_words

from bridge.cli import keys as command
from bridge.keys import write_private
from bridge.sandbox import Knobs, Refusal
from bridge.sandbox.certified import CertifiedKey
from bridge.sandbox.pki import Authority

WHO = {"by": "Ada", "reason": "a test"}


@pytest.fixture
def say(monkeypatch, capsys):
    """Run `smp-bridge keys …` beside the running service; returns what it printed."""

    async def run(made, function, *arguments, **options):
        monkeypatch.setattr(command, "loaded", lambda _: made.config())
        await asyncio.to_thread(function, *arguments, config=Path("config"), **options)
        return capsys.readouterr().out

    return run


@asynccontextmanager
async def dip(directory, **more):
    async with service(directory, profile="dip-like", **more) as made:
        yield made, await linked(made)


async def send(ems, first, count=1):
    places = fill(ems, count, first=first)
    ems.request("assets", *places)
    await until_words(ems, places, {3: count})


async def test_the_whole_way(tmp_path):
    """Assets, one of them refused, and a unit of the others: signed calls out, signed returns in, outcomes in the EMS, all verified on both sides."""
    async with dip(tmp_path, knobs=Knobs(refuse={"BESS00003": Refusal(code="E7")})) as (made, ems):
        ems.put("U1", reference="UNIT-01", kw=10, assets=("BESS00001", "BESS00002"))
        ems.request("unit", "U1")
        places = fill(ems, 3)
        ems.request("assets", *places)
        await until_words(ems, [*places, "U1"], {3: 3, 4: 1})
        assert ems.last("B3") == 4
        await made.until_states("PARTIAL", "CONFIRMED")
        await until_pushed(made, 202, 202)
        calls = [entry for entry in made.ledger.requests if entry.operation != "authenticate"]
        assert calls
        assert all(entry.verified for entry in calls)
        shown = x509.load_pem_x509_certificate(made.sandbox.certificate)
        with closing(sqlite3.connect(made.journal_path)) as journal:
            assert {row[0] for row in journal.execute("SELECT kid FROM returns")} == {thumbprint(shown)}

        # The certificate that SMP shows is watched like any other that ends, from the first message on.
        await made.host._expiry.look()
        watched = [sample.labels["what"] for family in made.host._metrics.expiry.collect() for sample in family.samples]
        for what in (".signing_certificate", ".smp_certificate.ca", ": SMP's certificate"):
            assert f"participants.{PARTICIPANT}{what}" in watched


@pytest.mark.long
async def test_early_twice_and_badly_signed(tmp_path):
    """A return before its answer and once more has one effect; while SMP spoils its signature nothing is taken, and after that it is."""
    async with dip(tmp_path, knobs=Knobs(return_early=True, return_twice=True, answer_delay_s=0.2)) as (made, ems):
        await send(ems, 1)
        assert [entry.status for entry in made.ledger.returns] == [202, 200]
        made.knobs.change({"return_early": False, "return_twice": False, "answer_delay_s": 0.0, "retry_delay_s": 0.05})
        for knob in ("wrong_signature", "wrong_key"):
            before = len(made.ledger.returns)
            made.knobs.change({knob: True, "resign": True, "retries": 1000})
            (place,) = fill(ems, 1, first=2 if knob == "wrong_key" else 3)
            ems.request("assets", place)
            async with asyncio.timeout(10):
                while [entry.status for entry in made.ledger.returns[before:]].count(401) < 2:
                    await asyncio.sleep(0.02)
            made.knobs.change({knob: False})
            await until_words(ems, [place], {3: 1})


async def test_smps_certificate_changes(tmp_path, say):
    """A renewed one of the agreed subject is taken as it comes. One of another subject is, from its import on, beside the former; revoked, it is a 401."""
    async with dip(tmp_path) as (made, ems):
        await send(ems, 1)
        made.sandbox.rotate_key()
        await send(ems, 2)
        former = made.sandbox._key
        sandbox = made.sandbox
        new = CertifiedKey("smp-9", profile=made.sandbox_profile, authority=sandbox.authority, subject="SMP 2027")
        file = tmp_path / "next.crt.pem"
        file.write_bytes(new.certificate)
        printed = await say(made, command.import_, file, PARTICIPANT, **WHO, active=False, days=0)
        thumbprint = printed.split(":")[0]
        assert printed == f"{thumbprint}: next key of theirs\n"
        for number, key in enumerate((former, new, former, new), 3):
            made.sandbox._key = key
            await send(ems, number)
        await until_pushed(made, *[202] * 6)
        assert await made.read(lambda journal: journal.alarms()) == []

        await say(made, command.revoke, thumbprint, PARTICIPANT, WHO["by"], WHO["reason"], smp=True)
        (place,) = fill(ems, 1, first=9)
        ems.request("assets", place)
        await made_alarm(made, "KEY_REFUSED")
        async with asyncio.timeout(10):
            while made.ledger.returns[-1].status != 401:
                await asyncio.sleep(0.01)


async def test_our_certificate_changes(tmp_path, say):
    """The next key comes with its certificate and signs after the rotation; no call is refused, no restart is needed, and a restart keeps it."""
    async with dip(tmp_path) as (made, ems):
        await send(ems, 1)
        write_private(tmp_path / "keys/second.pem", rsa_key("acme 2027"))
        certified = Authority("participants", clock=CLOCK).signing("ACME", rsa_key("acme 2027")).certificate
        (tmp_path / "keys/second.crt.pem").write_bytes(certified)
        arguments = (tmp_path / "keys/second.pem", PARTICIPANT)
        with pytest.raises(command.BridgeError, match="needs its certificate"):
            await say(made, command.import_, *arguments, **WHO, active=False, days=0)
        with pytest.raises(command.BridgeError, match="belongs to another key"):
            await say(
                made,
                command.import_,
                *arguments,
                **WHO,
                active=False,
                days=0,
                certificate=tmp_path / "keys/acme.crt.pem",
            )
        more = {"certificate": tmp_path / "keys/second.crt.pem"}
        printed = await say(made, command.import_, *arguments, **WHO, active=False, days=0, **more)
        second = printed.split(":")[0]
        shown = json.loads(await say(made, command.jwks, None, alg=None, participant=PARTICIPANT))
        assert [len(key["x5c"]) for key in shown["keys"]] == [1, 1]
        made.sandbox.accounts.know(PARTICIPANT, shown)
        await send(ems, 2)
        await say(made, command.rotate, PARTICIPANT, WHO["by"], WHO["reason"], smp=False, kid="", grace="7d")
        async with asyncio.timeout(10):
            while made.host._market[PARTICIPANT].ring.signer.kid != second:
                await asyncio.sleep(0.01)
        await send(ems, 3)
        await made.stop()
        await made.start()
        await send(await linked(made), 4)
        assert made.host._market[PARTICIPANT].ring.signer.kid == second
        assert [entry.status for entry in made.ledger.requests if entry.status == 401] == []
