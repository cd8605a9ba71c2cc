"""DOMAIN 9, row 40: 100,000 mutated messages (`make fuzz`), and some hundreds in every run; row 35's timing is measured here too."""

import asyncio
import base64
import gc
import logging
import secrets
import statistics
import time
from pathlib import Path

import aiohttp
import pytest
from certificates import certificate, holder, rsa_key
from end_point import FORMS, listening, signer
from mutations import Forger, HeadedForger, bytes_changed, generator

from bridge.web.public import Bounds

EVERY = (*FORMS, "dip-like")
AT_ONCE = 16
KNOWN_STATUSES = {200, 400, 401, 403, 404, 405, 408, 411, 413, 415, 417}
MOST_GROWTH_KB = 40_000
NOISE_KB = 4_000  # what the allocator, the database's cache and the bounded quarantine still take in the second half: 1,500 were seen
MOST_BYTES_PER_MESSAGE = 64  # a message that is kept takes a thousand
HASTY = Bounds(head_s=0.2, idle_s=0.3, linger_s=0.05)


@pytest.fixture(autouse=True)
def few_lines():
    """A line for each refused message would be kept by the test runner, and be what grows."""
    log = logging.getLogger("bridge")
    before = log.level
    log.setLevel(logging.WARNING)
    yield
    log.setLevel(before)


def resident_kb():
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4


async def each_of(number, work):
    """Run `work` so many times, a few at once; the first that fails ends it."""
    left = iter(range(number))

    async def worker():
        for _ in left:
            await work()

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(worker())


async def at_most_twice(send):
    """A kept connection may be closed in the very moment it is used again; who is closed twice was not closed for being idle."""
    try:
        return await send()
    except aiohttp.ServerDisconnectedError:
        return await send()


def stranger_of(smp):
    """Somebody who signs in SMP's name with a key of his own: under its `kid`, or with a certificate that he made himself."""
    if not smp.form.certified:
        return signer(kid="smp-1")
    return holder(certificate(key=rsa_key("stranger")), rsa_key("stranger"))


async def fuzzed(directory, form, messages, seed):
    """Row 40 under one signature form. What is drawn depends on the seed and the order alone."""
    draw = generator(seed)
    async with listening(directory, profile=form, bounds=HASTY, limits={"body_s": 0.2}) as smp:
        settled = await smp.submission("BESS001")
        _, known = await smp.accepted()
        waiting = await smp.submission("BESS002", transaction_id="Z" * 20)
        fresh = smp.seal(smp.draft(transaction_id="Z" * 20, correlation_id=waiting))
        stranger = stranger_of(smp)
        forge = (HeadedForger if smp.form.certified else Forger)(draw, smp, fresh, known, stranger)
        await smp.post(smp.seal(smp.draft(), stranger))  # whatever alarm this raises is raised from now on
        before, told, statuses = smp.effects(), smp.told(), {}

        async def one():
            body, tokens, how = forge()
            status, _, _ = await at_most_twice(lambda: smp.send(body, tokens, **how))
            statuses[status] = statuses.get(status, 0) + 1

        async def one_raw():
            body, tokens = fresh.sent()
            seals = [
                f"{smp.profile.signature_header}: {one}" if isinstance(one, str) else ": ".join(one) for one in tokens
            ]
            good = smp.head(f"Content-Length: {len(body)}", "Connection: close", *seals) + body
            changed = bytes_changed(draw, good[:-1] + b"~")
            answer = await smp.raw(changed, within_s=30)
            status = int(answer.split(b" ", 2)[1]) if answer else 408
            statuses[status] = statuses.get(status, 0) + 1

        await each_of(messages // 10, one)
        grown = resident_kb()
        half = (messages - messages // 10 - messages // 50) // 2
        await each_of(half, one)
        halfway = resident_kb()
        await each_of(half, one)
        later = resident_kb() - halfway
        await each_of(messages // 50, one_raw)
        assert statuses.keys() <= KNOWN_STATUSES, f"seed {seed}: {statuses}"
        assert statuses[401] > messages // 3, f"seed {seed}: {statuses}"
        assert (smp.effects(), smp.told()) == (before, told), f"seed {seed}: something was taken"
        assert resident_kb() - grown < MOST_GROWTH_KB, f"seed {seed}: {resident_kb() - grown} kB more"
        most_kb = NOISE_KB + half * MOST_BYTES_PER_MESSAGE // 1024
        print(f"{form}: {halfway - grown} kB more with the first {half} messages, {later} kB with as many again")
        assert later < most_kb, (
            f"seed {seed}: {later} kB more after {half} messages, {halfway - grown} kB with those before"
        )
        assert len(smp.refusals()) < 50, "reasons are a fixed set"
        assert (await smp.state(settled), await smp.state(waiting)) == ("CONFIRMED", "AWAITING_RETURN")
        await signed_by_mistake(smp, draw, messages // 10, seed)
        assert (await smp.state(settled), await smp.state(waiting)) == ("CONFIRMED", "AWAITING_RETURN")
        assert (await smp.post(fresh))[0] == smp.profile.spec.ack.status, f"seed {seed}: a good one is still taken"
        await smp.settled()
        assert await smp.state(waiting) == "CONFIRMED"
    return statuses


async def signed_by_mistake(smp, draw, messages, seed):
    """What SMP itself may sign: bodies that are no JSON, or another one. No crash, and no submission of ours changes."""
    draft = smp.draft()
    statuses = set()

    async def one():
        changed = draft.saying(bytes_changed(draw, draft.payload))
        statuses.add((await at_most_twice(lambda: smp.post(changed)))[0])

    await each_of(messages, one)
    assert statuses <= KNOWN_STATUSES | {202, 409, smp.profile.spec.ack.status}, f"seed {seed}: {statuses}"
    await smp.settled()


@pytest.mark.parametrize("form", EVERY)
async def test_row_40_some_hundreds(tmp_path, form):
    """Row 40: "fuzz: ... mutated messages from valid ones: no 5xx, no crash, no state change, memory flat"; the same ones in each run."""
    await fuzzed(tmp_path, form, 200, 40)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("form", EVERY)
async def test_row_40_at_length(tmp_path, form, request):
    """Row 40: "fuzz: 100,000 mutated messages": a fourth of them under each signature form, from a seed that is printed."""
    seed = request.config.getoption("--fuzz-seed") or secrets.randbelow(2**31)
    messages = request.config.getoption("--fuzz-messages") // len(EVERY)
    print(f"\n{form}: {messages} messages from seed {seed}")
    since = time.monotonic()
    statuses = await fuzzed(tmp_path, form, messages, seed)
    print(f"{form}: {time.monotonic() - since:.0f} s, {dict(sorted(statuses.items()))}")


TRIES = 2000
MOST_GUESSED = 0.05  # of 2000 pairs, chance alone gives 0.011 as the standard deviation of the share


def two_ways(smp, draft, good):
    """A good message with another one's signature, and the same message signed with another key, each as it travels."""
    if not smp.form.certified:
        return [good.but(tail=smp.seal(smp.draft()).tail).sent(), smp.seal(draft, stranger_of(smp)).sent()]
    modulus, stranger = rsa_key().public_key().public_numbers().n, stranger_of(smp)
    while True:  # a signature beyond the modulus is refused sooner; everybody can see which one is
        theirs = smp.seal(draft, stranger).but(certificate=good.value("certificate"))
        if int.from_bytes(base64.b64decode(theirs.value("signature"))) < modulus:
            return [good.but(signature=smp.seal(smp.draft()).value("signature")).sent(), theirs.sent()]
        draft = smp.draft()


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("form", ["default", "dip-like"])
async def test_row_35_no_usable_difference(tmp_path, form):
    """Row 35: "timing: bad signature v. other participant's key, 2000 tries": "no usable difference": who sees a pair guesses which is which no better than by chance."""
    draw, taken = generator(35), ([], [])
    async with listening(tmp_path, profile=form) as smp:
        ways = two_ways(smp, *await smp.accepted())
        for _ in range(TRIES):
            for way in draw.sample((0, 1), 2):
                since = time.perf_counter()
                assert (await smp.send(*ways[way]))[0] == 401
                taken[way].append(time.perf_counter() - since)
    slower = sum(one > two for one, two in zip(*taken, strict=True)) / TRIES
    medians = [statistics.median(found) for found in taken]
    print(
        f"\n{form}: medians {medians[0] * 1e6:.0f} and {medians[1] * 1e6:.0f} us; the first was slower in {slower:.1%} of {TRIES} pairs"
    )
    assert abs(slower - 0.5) < MOST_GUESSED
