"""What stands in line behind the calls under way: looked up together, and sent only as it then stands."""

import asyncio

import smp_server as smp
from outbound_rig import TAKEN, body_of, market

from bridge.journal.people import Decision, Scope

SLOTS = 4
BY = Decision(by="a person", reason="a test")


def gate():
    """An SMP that answers nothing until it is let."""
    let = asyncio.Event()

    async def step(request, writer):
        await let.wait()
        writer.write(TAKEN)

    return let, step


async def settled(count, value):
    """Wait until `value()` is `count`, then a moment longer: it stays so."""
    async with asyncio.timeout(5):
        while value() < count:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    assert value() == count


def ones(count):
    return [f"BESS{number:03d}" for number in range(count)]


async def singly(rig, keys):
    """Each key as a submission of its own, all in one commit."""
    await rig.submit(*keys, max_items=1)


def sent(rig):
    return [asset["assetReference"] for request in rig.creates for asset in body_of(request)["data"]["assets"]]


async def test_one_look_serves_many_calls_in_their_order(tmp_path):
    """Twelve wait behind four under way: one look finds them all, and they are started in the order in which they came."""
    let, step = gate()
    async with market(tmp_path, rest=step) as rig:
        await singly(rig, ones(SLOTS))
        await settled(SLOTS, lambda: len(rig.creates))
        await singly(rig, [f"MORE{number:03d}" for number in range(12)])
        looks, look = [], rig.journal.next_calls

        async def counted(*args, **named):
            looks.append(await look(*args, **named))
            return looks[-1]

        started, sending = [], rig.journal.sending

        async def noted(fence, submission, *args):
            started.append(submission)
            return await sending(fence, submission, *args)

        rig.journal.next_calls, rig.journal.sending = counted, noted
        let.set()
        await settled(SLOTS + 12, lambda: len(rig.creates))
        assert sorted(sent(rig)) == sorted(ones(SLOTS) + [f"MORE{number:03d}" for number in range(12)])
        [found] = [found for found in looks if isinstance(found, list)]
        assert (len(found), started) == (12, [due.submission for due in found])
        assert [due.items[0].key for due in found] == [f"MORE{number:03d}" for number in range(12)]


async def test_what_changed_in_line_leaves_as_it_is_now(tmp_path):
    """Newer content for a record that was looked up already: the old content never leaves, and the record keeps its place."""
    let, step = gate()
    async with market(tmp_path, rest=step) as rig:
        await singly(rig, ones(SLOTS + 8))
        await settled(SLOTS, lambda: len(rig.creates))
        assert len(rig.outbound._line) == 8
        content = b'{"assetReference":"BESS005","assetName":"newer"}'
        await rig.submit("BESS005", max_items=1, content=content, digest=b"newer")
        started, sending = [], rig.journal.sending

        async def noted(fence, submission, *args):
            started.append(submission)
            return await sending(fence, submission, *args)

        rig.journal.sending = noted
        let.set()
        await settled(SLOTS + 8, lambda: len(rig.creates))
        names = {
            asset["assetReference"]: asset["assetName"]
            for request in rig.creates
            for asset in body_of(request)["data"]["assets"]
        }
        assert names == {**dict.fromkeys(ones(SLOTS + 8), "A"), "BESS005": "newer"}
        assert len(sent(rig)) == SLOTS + 8
        [twice] = {submission for submission in started if started.count(submission) == 2}
        assert started.index(twice, started.index(twice) + 1) <= SLOTS


async def test_what_is_held_in_line_stays(tmp_path):
    """A hold counts for what was looked up before it, and its release lets all of it go."""
    let, step = gate()
    async with market(tmp_path, rest=step) as rig:
        await singly(rig, ones(SLOTS + 3))
        await settled(SLOTS, lambda: len(rig.creates))
        await rig.journal.hold(Scope.PARTICIPANT, "acme", BY)
        let.set()
        await asyncio.sleep(0.2)
        assert len(rig.creates) == SLOTS
        await rig.journal.release_hold(Scope.PARTICIPANT, "acme", BY)
        await settled(SLOTS + 3, lambda: len(rig.creates))
        assert sorted(sent(rig)) == ones(SLOTS + 3)


async def test_a_pause_forgets_the_line(tmp_path):
    """While the circuit is open, for who knows how long, nothing that was looked up is kept; afterwards everything leaves once."""
    refuse, step = asyncio.Event(), gate()

    async def refused(request, writer):
        await refuse.wait()
        writer.write(smp.answer("403 No", "{}"))

    async with market(tmp_path, refused, rest=step[1]) as rig:
        await singly(rig, ones(SLOTS + 3))
        await settled(SLOTS, lambda: len(rig.creates))
        assert len(rig.outbound._line) == 3
        refuse.set()
        async with asyncio.timeout(5):
            while rig.outbound._line:
                await asyncio.sleep(0.01)
        assert (rig.pace.circuit_open, len(rig.creates)) == (True, SLOTS)
        step[0].set()  # the others are taken, so the account is well
        await settled(SLOTS + 3, lambda: len(rig.creates))
        assert set(sent(rig)) == set(ones(SLOTS + 3))
