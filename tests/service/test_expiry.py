"""Certificates and keys that end: shown, alarmed at 60, 30 and 7 days and at the end, and no longer once they are renewed."""

import asyncio
from dataclasses import replace

from service import CLOCK, PARTICIPANT, fill, linked, made_alarm, service, until_words

from bridge.api import OnExpired, PeerCertificate
from bridge.clock import Stamp
from bridge.journal.keys import KeySide, KeyState
from bridge.journal.people import Decision
from bridge.sandbox.pki import Authority

DAY_NS = 86_400 * 10**9


class Calendar:
    """The real clock, some days on."""

    def __init__(self):
        self.days = 0

    def now(self):
        stamp = CLOCK.now()
        return Stamp(stamp.wall_ns + self.days * DAY_NS, stamp.mono_ns, stamp.boot)

    def wall_ns(self):
        return self.now().wall_ns

    def mono_ns(self):
        return self.now().mono_ns


async def standing(made):
    rows = await made.read(lambda journal: journal.alarms())
    return {(row.code, row.subject) for row in rows if row.code.startswith("EXPIRE")}


async def test_what_ends_is_shown_and_alarmed_in_time(tmp_path):
    """Each level is one alarm in place of the former; a look that finds nothing new writes nothing; a restart raises nothing again."""
    calendar = Calendar()
    async with service(tmp_path) as made:
        watch = made.host._expiry
        watch._clock = calendar
        await watch.look()
        samples = {
            (sample.labels["what"], sample.labels["name"]): sample.value
            for family in made.host._metrics.registry.collect()
            for sample in family.samples
            if sample.name == "smp_bridge_expiry_timestamp_seconds"
        }
        place = ("listeners.returns.certificate", "returns.crt.pem")
        left = (int(samples[place] * 1e9) - CLOCK.wall_ns()) // DAY_NS
        subject = " ".join(place)
        for before, code in ((61, ""), (60, "EXPIRES_60"), (30, "EXPIRES_30"), (7, "EXPIRES_7"), (-1, "EXPIRED")):
            calendar.days = left - before + 1
            await watch.look()
            found = {one for one in await standing(made) if one[1] == subject}
            assert found == ({(code, subject)} if code else set()), before
        await watch.look()
        rows = await made.read(lambda journal: journal.alarms())
        assert [row.count for row in rows if row.subject == subject] == [1]

        renewed = Authority("returns", clock=calendar).server("bridge")
        (tmp_path / "keys/returns.crt.pem").write_bytes(renewed.certificate)
        await watch.look()
        assert subject not in {name for _, name in await standing(made)}


async def test_a_key_that_ends_is_alarmed_when_it_is_made_known(tmp_path):
    """The watch looks again when keys changed, and the alarm ends when another key signs in its place."""
    async with service(tmp_path) as made:
        ring = made.host._market[PARTICIPANT].ring
        journal = made.host._expiry._journal
        (mine,) = [record for record in ring.records if record.side is KeySide.THEIRS]
        ends = CLOCK.wall_ns() + 20 * DAY_NS
        soon = replace(
            mine,
            kid="soon",
            state=KeyState.NEXT,
            place="imported",
            jwk=mine.jwk.replace(mine.kid, "soon"),
            expires_ns=ends,
        )
        await journal.add_key(soon, Decision(by="Ada", reason="a test"))
        wanted = {("EXPIRES_30", f"participants.{PARTICIPANT}: SMP's key soon")}
        async with asyncio.timeout(10):
            while await standing(made) != wanted:
                await asyncio.sleep(0.02)
        await journal.revoke_key(PARTICIPANT, KeySide.THEIRS, "soon", Decision(by="Ada", reason="a test"))
        async with asyncio.timeout(10):
            while await standing(made):
                await asyncio.sleep(0.02)


async def standing_codes(made):
    return {row.code for row in await made.read(lambda journal: journal.alarms()) if row.site == "north"}


async def until_codes(made, wanted):
    async with asyncio.timeout(20):
        while await standing_codes(made) != wanted:
            await asyncio.sleep(0.02)


def samples(made, name):
    found = (sample for family in made.host._metrics.registry.collect() for sample in family.samples)
    return {sample.labels["what"]: sample.value for sample in found if sample.name == name and sample.labels["site"]}


async def test_an_ems_certificate_that_ends_at_night(tmp_path, monkeypatch):
    """Under `keep` records go on through that moment, with an alarm; under `stop` the link is closed then, and what was asked for meanwhile is done once the EMS shows another one."""
    monkeypatch.setattr("bridge.field.certificates.LONGEST_S", 0.05)
    calendar = Calendar()
    calendar.days = -2  # SMP's clock is the real one, and is spoken to when this one agrees
    async with service(tmp_path, clock=calendar) as made:
        ems = await linked(made)
        await made.stop()
        tonight = calendar.wall_ns() + DAY_NS
        ems.certificate = PeerCertificate(tonight, OnExpired.KEEP)
        await made.start()
        await ems.until(lambda: ems.sessions == 2)
        await until_codes(made, {"EXPIRES_7"})  # though no file of ours names this certificate
        assert samples(made, "smp_bridge_expiry_timestamp_seconds") == {"adapters.ems": tonight / 1e9}
        calendar.days = 0
        await until_codes(made, {"EXPIRES_7", "CERTIFICATE_ENDED"})
        (place,) = fill(ems, 1)
        ems.request("assets", place)
        await until_words(ems, [place], {3: 1})
        assert ems.sessions == 2

        ems.certificate = PeerCertificate(tonight, OnExpired.STOP)
        ems.context.certified(ems.certificate)
        await made_alarm(made, "LINK_REFUSED")
        [alarm] = [row for row in await made.read(lambda journal: journal.alarms()) if row.code == "LINK_REFUSED"]
        assert "closed until it shows another one" in alarm.text
        (place,) = fill(ems, 1, first=2)
        ems.request("assets", place)
        await asyncio.sleep(0.1)
        assert ems.last(place) is None
        ems.certificate = PeerCertificate(calendar.wall_ns() + 300 * DAY_NS, OnExpired.STOP)
        await until_words(ems, [place], {3: 1})
        await until_codes(made, set())
