"""A wrong clock holds signing and nothing else; what waited leaves when the clock is right again. An unsynchronised one is only told."""

import asyncio
import json
import math
import time

import pytest
from admin import get, value
from service import PARTICIPANT, fill, linked, made_alarm, prepared, service, until_words

from bridge.discipline import Discipline, unknown
from bridge.sandbox import Knobs

LOOKS = {"clock": {"source": "none", "every": "100ms"}}  # the source is put in by hand


class Source:
    """A discipline that says what it is told to say."""

    name = "chrony"

    def __init__(self, offset_s=0.0, *, synchronised=True):
        self.reads = 0
        self.says(offset_s, synchronised=synchronised)

    def says(self, offset_s, *, synchronised=True):
        self.report = Discipline(
            source=self.name, synchronised=synchronised, offset_s=offset_s, max_error_s=abs(offset_s) + 0.5,
            detail="" if synchronised else "nobody knows the time",
        )  # fmt: skip

    async def read(self):
        self.reads += 1
        return self.report


async def started(made, source):
    made.discipline = source
    await made.start()
    return await linked(made)


async def looked(source, times=2):
    """The source was asked again since now, and what it said counts."""
    wanted = source.reads + times
    async with asyncio.timeout(10):
        while source.reads < wanted:
            await asyncio.sleep(0.01)


async def alarms(made, **options):
    return {alarm.code: alarm for alarm in await made.read(lambda journal: journal.alarms(**options))}


async def cleared(made, code):
    async with asyncio.timeout(10):
        while code in await alarms(made):
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("offset_s", [2.5, -2.5], ids=["behind", "ahead"])
async def test_held_from_the_start_then_free(tmp_path, offset_s):
    """The first look comes before the first signature: records are journalled and acknowledged, no call leaves, a person is told; then all leaves."""
    source = Source(offset_s)
    async with prepared(tmp_path, host=LOOKS) as made:
        ems = await started(made, source)
        places = fill(ems, 12)
        ems.request("assets", *places)
        await until_words(ems, places, {1: 12})
        await made_alarm(made, "CLOCK_OFFSET")
        await looked(source)
        assert made.ledger.of("asset.create") == []
        assert set(await made.states()) == {"WAITING"}
        text = (await alarms(made))["CLOCK_OFFSET"].text
        way = "behind" if offset_s > 0 else "ahead"
        assert text == f"the clock is 2.500 s {way}, says chrony; nothing is signed until it is within 2 s"
        _, metrics = await get(made, "/metrics")
        assert value(metrics, "smp_bridge_signing_held") == 1
        assert value(metrics, "smp_bridge_clock_offset_seconds") == offset_s
        paused = json.loads((await get(made, "/api/v1/connections"))[1])["smp"][0]["paused"]
        assert paused == "this machine's clock is wrong (CLOCK_OFFSET)"
        status, health = await get(made, "/health/ready")
        assert (status, json.loads(health)["clock"]["signing_held"]) == (200, True)
        source.says(0.01)
        await until_words(ems, places, {3: 12})
        await cleared(made, "CLOCK_OFFSET")
        assert value((await get(made, "/metrics"))[1], "smp_bridge_signing_held") == 0
        assert all(made.ledger.creates(f"BESS{number:05}") == 1 for number in range(1, 13))
        await made.stop()


async def test_held_while_it_works(tmp_path):
    """The fast lane lends no slot any more, whatever was sent before; what comes meanwhile waits and leaves within a moment of the next good look."""
    source = Source()
    async with prepared(tmp_path, host=LOOKS) as made:
        ems = await started(made, source)
        places = fill(ems, 10)
        ems.request("assets", *places[:5])
        await until_words(ems, places, {3: 5, None: 5})
        before = len(made.ledger.of("asset.create"))
        source.says(3.0)
        await made_alarm(made, "CLOCK_OFFSET")
        for place in places[5:]:
            ems.request("assets", place)
        await until_words(ems, places, {3: 5, 1: 5})
        await looked(source)
        assert len(made.ledger.of("asset.create")) == before
        source.says(0.0)
        freed = time.monotonic()
        await until_words(ems, places, {3: 10})
        assert time.monotonic() - freed < 5
        await made.stop()


async def test_returns_are_taken_and_acknowledged_while_signing_is_held(tmp_path):
    """A receipt answers SMP on its own connection and is signed as ever (the profile wants it signed); its outcome reaches the EMS."""
    source = Source()
    changes = {"signature": {"sign_acks": True}}
    async with prepared(tmp_path, host=LOOKS, knobs=Knobs(returns="hold"), changes=changes) as made:
        ems = await started(made, source)
        places = fill(ems, 3)
        ems.request("assets", *places)
        await until_words(ems, places, {2: 3})
        await made.until_states("AWAITING_RETURN")
        source.says(-4.0)
        await made_alarm(made, "CLOCK_OFFSET")
        await made.release()
        await until_words(ems, places, {3: 3})
        assert [(answer.status, answer.problem) for answer in made.ledger.returns] == [(202, "")]
        assert value((await get(made, "/metrics"))[1], "smp_bridge_signing_held") == 1
        await made.stop()


async def test_status_polls_wait_too(tmp_path):
    """Without returns an outcome comes by a signed poll: none leaves while signing is held, none is counted as tried, and they go on at once."""
    source = Source()
    changes = {"poll": {"delays_s": [1.0], "every_s": 1, "until_s": 60, "overdue_s": 2}}
    async with prepared(tmp_path, host=LOOKS, knobs=Knobs(returns="hold"), changes=changes) as made:
        ems = await started(made, source)
        places = fill(ems, 2)
        ems.request("assets", *places)
        await made.until_states("AWAITING_RETURN")
        source.says(5.0)
        await made_alarm(made, "CLOCK_OFFSET")
        polled = len(made.ledger.of("transaction.status"))
        await made_alarm(made, "OVERDUE")  # what needs no signature goes on
        assert len(made.ledger.of("transaction.status")) == polled
        source.says(0.0)
        async with asyncio.timeout(5):
            while len(made.ledger.of("transaction.status")) == polled:
                await asyncio.sleep(0.01)
        await made.release()
        await until_words(ems, places, {3: 2})
        await made.stop()


async def test_a_stop_while_held_ends_properly(tmp_path):
    """Nothing is waited for that cannot come; the alarm stands for the next run, which clears it and sends everything."""
    source = Source(10.0)
    async with prepared(tmp_path, host=LOOKS) as made:
        ems = await started(made, source)
        places = fill(ems, 4)
        ems.request("assets", *places)
        await until_words(ems, places, {1: 4})
        await made_alarm(made, "CLOCK_OFFSET")
        began = time.monotonic()
        await made.stop()
        assert time.monotonic() - began < 5
        assert made.ledger.of("asset.create") == []
        assert "CLOCK_OFFSET" in await alarms(made)
        await started(made, None)  # the configuration's own source: none
        await until_words(ems, places, {3: 4})
        await cleared(made, "CLOCK_OFFSET")
        await made.stop()


async def test_an_unsynchronised_clock_is_an_alarm_and_holds_nothing(tmp_path):
    """Containers often have none; the business goes on, the person on duty knows, and the EMS is not bothered."""
    source = Source(0.0, synchronised=False)
    async with prepared(tmp_path, host=LOOKS) as made:
        ems = await started(made, source)
        places = fill(ems, 3)
        ems.request("assets", *places)
        await until_words(ems, places, {3: 3})
        await made_alarm(made, "CLOCK_UNSYNCHRONISED")
        assert set(await alarms(made)) == {"CLOCK_UNSYNCHRONISED"}
        _, metrics = await get(made, "/metrics")
        assert (value(metrics, "smp_bridge_clock_synchronised"), value(metrics, "smp_bridge_signing_held")) == (0, 0)
        source.says(0.0)
        await cleared(made, "CLOCK_UNSYNCHRONISED")
        await made.stop()


async def test_a_source_that_falls_silent_does_not_hold_for_ever(tmp_path):
    """Held by a good reading; when nothing can be read any more the last one counts a little longer, then calls leave and the silence is the alarm."""
    source = Source(3.0)
    async with prepared(tmp_path, host=LOOKS) as made:
        ems = await started(made, source)
        places = fill(ems, 2)
        ems.request("assets", *places)
        await until_words(ems, places, {1: 2})
        source.report = unknown("chrony", "506 Cannot talk to daemon")
        await until_words(ems, places, {3: 2})
        await made_alarm(made, "CLOCK_UNSYNCHRONISED")
        assert (await alarms(made))["CLOCK_UNSYNCHRONISED"].text == "506 Cannot talk to daemon"
        assert math.isnan(value((await get(made, "/metrics"))[1], "smp_bridge_clock_offset_seconds"))
        await made.stop()


async def test_a_smaller_offset_is_only_told(tmp_path):
    """Between the two limits: an alarm that says that signing goes on; raised once, not at each look."""
    source = Source(0.4)
    async with prepared(tmp_path, host=LOOKS) as made:
        ems = await started(made, source)
        ems.request("assets", *fill(ems, 1))
        await until_words(ems, ["B1"], {3: 1})
        await made_alarm(made, "CLOCK_OFFSET")
        await looked(source, 3)
        alarm = (await alarms(made))["CLOCK_OFFSET"]
        assert (alarm.count, alarm.text) == (1, "the clock is 0.400 s behind, says chrony; signing goes on")
        await made.stop()


async def test_smps_date_is_shown_and_nothing_more(tmp_path):
    """Its Date header against our clock, per participant, right to about a second."""
    async with service(tmp_path) as made:
        ems = await linked(made)
        ems.request("assets", *fill(ems, 1))
        await until_words(ems, ["B1"], {3: 1})
        found = value((await get(made, "/metrics"))[1], "smp_bridge_smp_date_offset_seconds", participant=PARTICIPANT)
        assert -3 < found < 1


async def test_without_a_source_nothing_is_claimed(tmp_path):
    """`source: none`: the figures are not known, which is not the same as zero, and nothing is held."""
    async with service(tmp_path) as made:
        _, metrics = await get(made, "/metrics")
        for name in ("offset_seconds", "max_error_seconds", "synchronised"):
            assert math.isnan(value(metrics, f"smp_bridge_clock_{name}"))
        assert value(metrics, "smp_bridge_signing_held") == 0
        assert json.loads((await get(made, "/health/ready"))[1])["clock"] == {"source": "none", "signing_held": False}
