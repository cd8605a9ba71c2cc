"""`make soak`: three EMSs ask without end while everything around the bridge breaks at random, and it is killed again and again."""

import asyncio
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from random import Random, SystemRandom

import pytest
from fault_table import render
from kill_rounds import PROMPT, RANDOM, SURE, Fates, Round
from kill_world import PREFIXES, SITES, refused, world
from soak_faults import Bell, Deaths, Sick, Troubles, links, stranger

from bridge.submission import SubmissionState

pytestmark = [pytest.mark.long, pytest.mark.timeout(0)]  # each wait below has a limit of its own

PLACES, SLOTS = 200, 60
MOST_RECORDS = 10_000  # of each EMS, in half an hour
REFUSED = [
    reference for prefix in PREFIXES for number in range(MOST_RECORDS) if refused(reference := f"{prefix}{number:05}")
]
QUIET_S = 240.0
GIVEN_UP_S = 60.0
# An outage ends sooner than a day here, and a silent SMP is noticed in the time of the test.
PROFILE = {
    "transport": {"answer_s": 5, "connect_s": 2},
    "poll": {"delays_s": [0.2, 0.3, 0.5], "every_s": 2, "until_s": 86400, "overdue_s": 20},
    "retry": {"delays_s": [0.5, 1, 2]},
}
GROWTH_KIB = 24_000  # what a life may gain in resident memory after its warm-up, whatever its length
MORE = {"files": 8, "threads": 2, "tasks": 4}  # connections that are kept open come and go
GOES_S = 90.0  # for longer than any connection is kept that nobody uses


async def ask(made, random, asked, bell):
    """Records one after the other, a few at a time, at any of the EMSs."""
    while not bell.rung:
        await bell.pause(random.uniform(0.1, 1.0))
        asked += await made.request(random.choice(SITES), random.randint(1, 3))


async def give_up(made, asked, bell):
    """After a minute an EMS no longer waits for what is in doubt and never came to SMP; it needs the place for other records."""
    seen = {}
    while not bell.rung:
        await bell.pause(GIVEN_UP_S / 4)
        fates = Fates([Round(RANDOM, references=list(asked))])
        if made.journal.exists():
            fates.doubtful = await made.submissions_in(SubmissionState.IN_DOUBT)
        fates.judge(await made.smp.ledger(), await made.shown())
        doubtful = [reference for reference, fate in fates.of.items() if fate == Fates.IN_DOUBT]
        seen = {reference: seen.get(reference, made.now_ns()) for reference in doubtful}
        old = [reference for reference, since in seen.items() if made.now_ns() - since > GIVEN_UP_S * 1e9]
        await made.ems.order("forget", references=old)


async def work(made, troubles, random, asked, seconds, deaths=None):
    """Let records be asked for, troubles come and the bridge die for so long; then all is well again."""
    bell = Bell()
    async with asyncio.TaskGroup() as group:
        group.create_task(ask(made, random, asked, bell))
        group.create_task(troubles.run(bell))
        group.create_task(give_up(made, asked, bell))
        if deaths is not None:
            group.create_task(deaths.run(bell))
        await bell.pause(seconds)
        bell.ring()
    await troubles.clear()


async def quiet(made, asked, troubles):
    """Wait until every record has its end; returns the fates. What may be in doubt is what the journal holds so."""
    fates = Fates([Round(RANDOM, references=asked, came=True)])
    with suppress(TimeoutError):
        async with asyncio.timeout(QUIET_S):
            while not fates.judge(await made.smp.ledger(), await made.shown()):
                made.bridges[-1].assert_alive()
                await asyncio.sleep(1)
                fates.doubtful = await made.submissions_in(SubmissionState.IN_DOUBT)
    lost = [fates.told[reference] for reference, fate in fates.of.items() if fate in {Fates.LOST, Fates.TWICE}]
    stands = (await made.ems.order("stands"))["stands"] if lost else {}
    assert not lost, (
        f"{len(lost)} records are lost or created twice: {lost[:20]}; the EMSs: {stands}; {list(troubles.told)}"
    )
    return fates


async def kept(bridge, before):
    """What this life keeps more than `before`, once what comes and goes has gone: a link that was being opened, a connection that nobody used for a while."""
    ends = asyncio.get_running_loop().time() + GOES_S
    while True:
        after = await bridge.vitals()
        more = {name: after[name] - before[name] for name, most in MORE.items() if after[name] > before[name] + most}
        if more and asyncio.get_running_loop().time() < ends:
            await asyncio.sleep(2)
            continue
        if more:
            more["new tasks"] = dict(Counter(after["names"]) - Counter(before["names"]))
        return more, after


async def test_nothing_is_lost_and_nothing_leaks(tmp_path, request):
    """Half of the time the bridge dies again and again; in the other half one life has to bear all other troubles without growing."""
    minutes = request.config.getoption("--soak-minutes")
    seed = request.config.getoption("--fault-seed") or SystemRandom().randrange(10**6)
    print(f"\nsoak of {minutes:g} minutes, seed {seed}", flush=True)
    random, asked = Random(seed), []
    knobs = {**PROMPT, **SURE, "refuse": {reference: {"code": "E77"} for reference in REFUSED}}
    async with (
        world(tmp_path, places=PLACES, slots=SLOTS, knobs=knobs, **PROFILE) as made,
        links(made, seed) as proxies,
        stranger() as strange,
    ):
        sick = Sick(made)
        troubles, deaths = Troubles(made, proxies, random, sick, strange), Deaths(made, random, sick)
        bridge = await made.run()  # MQTT requests are kept from its first visit on
        asked += await made.request("crawley")
        await bridge.kill()
        await work(made, troubles, random, asked, minutes * 30, deaths)
        bridge = await made.run()
        await work(made, troubles, random, asked, minutes * 10)
        await quiet(made, asked, troubles)
        before = await bridge.vitals()
        await work(made, troubles, random, asked, minutes * 20)
        fates = await quiet(made, asked, troubles)
        more, after = await kept(bridge, before)
        ledger, stand = await made.smp.ledger(), await made.ems.order("shown")
        requested = stand["requested"]
        await bridge.stop()
        doubtful = await made.submissions_in(SubmissionState.IN_DOUBT)
        row = fates.row(RANDOM, made.concurrency)
        row = replace(row, fault=f"soak of {minutes:g} minutes, seed {seed}", rounds=deaths.count)
    print(
        render([row]),
        f"troubles: {dict(sorted(troubles.done.items()))}, ended by a failing disk: {deaths.by_disk}, "
        f"said again to a broker that forgot: {stand['said_again']}",
        f"before {before}, after {after}",
        sep="\n",
    )
    assert not row.red
    assert requested == len(asked) == len(set(asked)), "what the EMSs asked for is not what was counted"
    assert sum(ledger.creates.values()) == row.accepted_once, "SMP created what nobody counts"
    held = {key for keys in doubtful.values() for key in keys}
    told = {reference for reference, fate in fates.of.items() if fate == Fates.IN_DOUBT}
    # What SMP refused goes again with its slot's next request (DOMAIN 6, layout 2): its EMS may have gone by the refusal while that second call is in doubt.
    again = {reference for reference in held - told if fates.of.get(reference) == Fates.REFUSED}
    assert held - again == told, "the journal and the EMSs differ on what is in doubt"
    assert after["resident_kib"] - before["resident_kib"] < GROWTH_KIB, (before, after)
    assert not more, (before, after)
