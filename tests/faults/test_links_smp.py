"""The link to SMP breaks in every way: nothing is lost, nothing is created twice, what may have been processed is in doubt and never sent again."""

import asyncio
import random
import socket
import time

import pytest
from faulty_smp import (
    IN_DOUBT_WORD,
    REGISTERED_WORD,
    Knobs,
    ask,
    faulty_smp,
    path,
    recovered,
    row,
    sent,
    still_in_doubt,
    tls_server,
    until_states,
    until_word,
)
from service import CLOCK, PARTICIPANT

from bridge.sandbox.pki import Authority
from bridge.testing.proxy import FaultProxy, Way

ANSWER = b"HTTP/1.1 202"


# the call is cut ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [0, 20, 900], ids=["before its first line", "in its headers", "in its body"])
async def test_cut_on_the_way_there(tmp_path, table, after):
    """SMP never had the whole call, which only SMP can know: in doubt, not sent again; what comes after it is registered."""
    async with faulty_smp(tmp_path, inside=True) as made:
        made.proxy.trap(Way.UP, at=b"POST " + path(made), after=after)
        places = ask(made, 3)
        await until_word(made, places, IN_DOUBT_WORD)
        recovery_s = await recovered(made)
        await still_in_doubt(made, places)
        assert made.proxy.cuts == 1
        assert max(sent(made, places)) == 0
        table.add(row(made, f"SMP: cut {after} bytes into the call", recovery_s=recovery_s))


@pytest.mark.parametrize(
    ("at", "after"), [(ANSWER, 0), (ANSWER, 20), (b"\r\n\r\n", 12)], ids=["before it", "in its headers", "in its body"]
)
async def test_the_answer_is_cut(tmp_path, table, at, after):
    """SMP has the call, we do not know: in doubt and not sent again, until its return settles it, however late."""
    async with faulty_smp(tmp_path, inside=True, knobs=Knobs(returns="hold")) as made:
        made.proxy.trap(Way.DOWN, at=at, after=after)
        places = ask(made, 3)
        await until_word(made, places, IN_DOUBT_WORD)
        await still_in_doubt(made, places)
        assert (sent(made, places), made.proxy.cuts) == ([1, 1, 1], 1)
        await made.release()
        await until_word(made, places, REGISTERED_WORD)
        made.knobs.returns = "push"
        recovery_s = await recovered(made)
        await until_states(made, "CONFIRMED", "CONFIRMED")
        assert sent(made, places) == [1, 1, 1]
        table.add(
            row(made, f"SMP: answer cut at {at[:4].decode().strip() or 'its body'}+{after}", recovery_s=recovery_s)
        )


async def test_the_link_breaks_again_and_again(tmp_path, table, rounds):
    """Resets at random moments of many calls: each asset is registered once, or in doubt; none is in a second call."""
    drawn = random.Random(7)
    async with faulty_smp(tmp_path, knobs=Knobs(answer_delay_s=0.01, return_delay_s=0.02)) as made:
        places = []
        for _ in range(rounds):
            places += ask(made)
            await asyncio.sleep(drawn.uniform(0, 0.03))
            await made.proxy.cut()
        recovery_s = await recovered(made)
        await until_word(made, places, REGISTERED_WORD, IN_DOUBT_WORD, within_s=30)
        assert max(sent(made, places)) <= 1
        # What SMP processed, its return has settled: only what never arrived stays in doubt.
        creates = [made.ledger.creates(made.site.fields[place]["reference"]) for place in places]
        words = [made.site.last(place) for place in places]
        assert words == [REGISTERED_WORD if count else IN_DOUBT_WORD for count in creates]
        table.add(row(made, "SMP: reset at random moments", rounds=rounds, recovery_s=recovery_s))


# a kept-alive connection that SMP closes ---------------------------------------------------------------------------------


async def test_closed_by_the_server_before_the_call(tmp_path, table):
    """The idle connection was ended by SMP: the next call finds a new one, and no doubt arises."""
    async with faulty_smp(tmp_path) as made:
        accepted = made.proxy.accepted
        made.proxy.half_close(Way.DOWN)
        await asyncio.sleep(0.1)
        places = ask(made, 2)
        await until_word(made, places, REGISTERED_WORD)
        assert sent(made, places) == [1, 1]
        assert made.proxy.accepted > accepted
        table.add(row(made, "SMP: kept connection closed before a call"))


async def test_closed_by_the_server_as_the_call_leaves(tmp_path, table, rounds):
    """The good-bye crosses the call: HTTP cannot tell whether it was read, so it is in doubt unless SMP registered it, and never repeated."""
    drawn = random.Random(3)
    async with faulty_smp(tmp_path) as made:
        for _ in range(rounds):
            ask(made)
            await asyncio.sleep(drawn.uniform(0, 0.006))
            made.proxy.half_close(Way.DOWN)
            await asyncio.sleep(0.05)
        recovery_s = await recovered(made)
        await until_word(made, made.asked, REGISTERED_WORD, IN_DOUBT_WORD, within_s=30)
        assert max(sent(made, made.asked)) <= 1
        table.add(row(made, "SMP: kept connection closed during a call", rounds=rounds, recovery_s=recovery_s))


# nobody answers ----------------------------------------------------------------------------------------------------------


async def test_refused(tmp_path, table):
    """Nobody listens: certainly not processed, so it waits and goes once somebody does, in one call of its own."""
    async with faulty_smp(tmp_path) as made:
        await made.proxy.refuse()
        await made.proxy.cut()
        places = ask(made, 3)
        await until_states(made, "RETRY_WAIT")
        await asyncio.sleep(0.5)
        assert max(sent(made, places)) == 0
        await made.proxy.listen()
        started = time.monotonic()
        await until_word(made, places, REGISTERED_WORD)
        recovery_s = time.monotonic() - started
        assert sent(made, places) == [1, 1, 1]
        table.add(row(made, "SMP: refused", recovery_s=recovery_s))


async def test_a_short_blackhole(tmp_path, table):
    """Silence shorter than the time-out: the call arrives late, is answered late, and nothing is in doubt."""
    async with faulty_smp(tmp_path, changes={"transport": {"connect_s": 5, "answer_s": 10}}) as made:
        made.proxy.set(blackhole=True)
        places = ask(made, 3)
        await asyncio.sleep(1.5)
        assert [made.site.last(place) for place in places] == [2, 2, 2]
        made.proxy.clear()
        started = time.monotonic()
        await until_word(made, places, REGISTERED_WORD)
        recovery_s = time.monotonic() - started
        assert sent(made, places) == [1, 1, 1]
        table.add(row(made, "SMP: blackhole for seconds", recovery_s=recovery_s))


@pytest.mark.parametrize("lost", [False, True], ids=["what was under way arrives", "what was under way is lost"])
async def test_a_long_blackhole(tmp_path, table, lost):
    """Silence beyond every time-out, which stand for minutes here: the call under way is in doubt and not sent again, those after it were certainly
    not processed and are. When the network hands over late what it held, SMP's return settles the first one."""
    async with faulty_smp(tmp_path, changes={"transport": {"connect_s": 0.5, "answer_s": 0.5}}) as made:
        made.proxy.set(blackhole=True)
        first = ask(made, 2)
        await until_word(made, first, IN_DOUBT_WORD)
        later = ask(made, 2)
        await until_states(made, "IN_DOUBT", "RETRY_WAIT")
        if lost:
            await made.proxy.cut()
        made.proxy.clear()
        started = time.monotonic()
        await until_word(made, later, REGISTERED_WORD)
        recovery_s = time.monotonic() - started
        if lost:
            await still_in_doubt(made, first)
            assert sent(made, first) == [0, 0]
        else:
            await until_word(made, first, REGISTERED_WORD)
            assert sent(made, first) == [1, 1]
        assert sent(made, later) == [1, 1]
        table.add(row(made, f"SMP: blackhole for minutes{', bytes lost' if lost else ''}", recovery_s=recovery_s))


async def test_it_crawls(tmp_path, table):
    """1 kB/s both ways: slower, and nothing else."""
    async with faulty_smp(tmp_path, changes={"transport": {"connect_s": 20, "answer_s": 20}}) as made:
        made.proxy.set(rate_bytes_per_s=1000)
        started = time.monotonic()
        places = ask(made)
        await until_word(made, places, REGISTERED_WORD, within_s=30)
        assert time.monotonic() - started > 1
        made.proxy.clear()
        recovery_s = await recovered(made)
        assert sent(made, places) == [1]
        table.add(row(made, "SMP: 1 kB/s", recovery_s=recovery_s))


@pytest.mark.long
@pytest.mark.timeout(240)
async def test_a_large_call_crawls(tmp_path, table):
    """50 assets at 1 kB/s take half a minute and are one call; from a cold start, handshake and login included."""
    async with faulty_smp(tmp_path, changes={"transport": {"connect_s": 60, "answer_s": 120}}) as made:
        await made.proxy.cut()
        made.proxy.set(rate_bytes_per_s=1000)
        places = ask(made, 50)
        await until_word(made, places, REGISTERED_WORD, within_s=150)
        assert sent(made, places) == [1] * 50
        made.proxy.clear()
        table.add(row(made, "SMP: 1 kB/s, a large call", recovery_s=await recovered(made)))


async def test_everything_comes_late(tmp_path, table):
    """A second of delay each way, the handshake's turns included: nothing else happens."""
    async with faulty_smp(tmp_path, changes={"transport": {"connect_s": 10, "answer_s": 10}}) as made:
        await made.proxy.cut()
        made.proxy.set(delay_s=0.4)
        places = ask(made, 2)
        await until_word(made, places, REGISTERED_WORD)
        made.proxy.clear()
        assert sent(made, places) == [1, 1]
        table.add(row(made, "SMP: delayed", recovery_s=await recovered(made)))


# TLS and names -----------------------------------------------------------------------------------------------------------


async def test_a_stranger_in_smps_place(tmp_path, table):
    """A certificate of another authority: no byte of a call or of a token leaves; with the right one back, everything goes, once."""
    async with faulty_smp(tmp_path, inside=True) as made:
        right = made.proxy.server_tls
        made.proxy.server_tls = tls_server(Authority("stranger", clock=CLOCK))
        await made.proxy.cut()
        before, requests = made.proxy.passed(Way.UP), len(made.ledger.requests)
        places = ask(made, 3)
        await until_states(made, "RETRY_WAIT")
        await asyncio.sleep(0.4)
        assert (made.proxy.passed(Way.UP), len(made.ledger.requests)) == (before, requests)
        made.proxy.server_tls = right
        started = time.monotonic()
        await until_word(made, places, REGISTERED_WORD)
        recovery_s = time.monotonic() - started
        assert sent(made, places) == [1, 1, 1]
        table.add(row(made, "SMP: certificate of another authority", recovery_s=recovery_s))


@pytest.mark.parametrize(("way", "after"), [(Way.UP, 40), (Way.DOWN, 0), (Way.DOWN, 200)])
async def test_the_handshake_is_cut(tmp_path, table, way, after):
    """Three times in a row, at its first or second message: certainly not processed, the fourth attempt carries the call."""
    async with faulty_smp(tmp_path) as made:
        await made.proxy.cut()
        made.proxy.trap(way, after=after, times=3)
        places = ask(made, 3)
        await until_word(made, places, REGISTERED_WORD)
        assert (sent(made, places), made.proxy.cuts >= 3) == ([1, 1, 1], True)
        table.add(row(made, f"SMP: handshake cut ({way.value}+{after})", rounds=3))


async def test_the_name_is_not_found(tmp_path, table, monkeypatch):
    """No address for SMP's name, from the start on: the service starts all the same, and sends once there is one."""
    found, known = socket.getaddrinfo, []

    def look_up(host, *rest, **more):
        if host == "localhost" and not known:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return found(host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    async with faulty_smp(tmp_path, name="localhost", ready=False) as made:
        places = ask(made, 3)
        await until_word(made, places, 1)
        await asyncio.sleep(0.5)
        assert (made.proxy.accepted, max(sent(made, places))) == (0, 0)
        known.append(True)
        started = time.monotonic()
        await until_word(made, places, REGISTERED_WORD)
        recovery_s = time.monotonic() - started
        assert sent(made, places) == [1, 1, 1]
        table.add(row(made, "SMP: name not found", recovery_s=recovery_s))


# SMP's way to us ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("way", "answers"), [(Way.UP, [0, 202]), (Way.DOWN, [0, 200])], ids=["it is cut", "our answer to it is cut"]
)
async def test_a_return_is_cut(tmp_path, table, way, answers):
    """SMP pushes it again: stored if it was not, answered as a repeat without a second effect if it was."""
    knobs, push = Knobs(retry_delay_s=0.1), {"returns": "push"}
    async with (
        faulty_smp(tmp_path, changes=push, knobs=knobs) as made,
        FaultProxy("127.0.0.1", made.running.returns_port) as proxy,
    ):
        url = made.sandbox._return_urls[PARTICIPANT].replace(str(made.running.returns_port), str(proxy.port))
        made.sandbox.set_return_url(PARTICIPANT, url)
        await recovered(made)  # from now on there is a kept connection, so that the next bytes are the return itself
        async with asyncio.timeout(10):
            while not all(
                entry.status for entry in made.ledger.returns
            ):  # the answer to the last one may be on its way
                await asyncio.sleep(0.02)
        proxy.trap(way)
        places = ask(made, 3)
        await until_word(made, places, REGISTERED_WORD)
        [transaction] = {entry.transaction_id for entry in made.ledger.of("asset.create")[-1:]}
        async with asyncio.timeout(10):
            while [entry.status for entry in made.ledger.returns if entry.transaction_id == transaction] != answers:
                await asyncio.sleep(0.02)
        await until_states(made, "CONFIRMED", "CONFIRMED")
        assert proxy.cuts == 1
        table.add(row(made, f"SMP: return cut ({way.value})"))


# bytes are changed -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", Way)
async def test_a_changed_byte_breaks_the_connection(tmp_path, table, way):
    """TLS sees it. Changed on the way there: SMP had nothing, in doubt for good. On the way back: SMP's return settles it."""
    async with faulty_smp(tmp_path) as made:
        garble_once(made.proxy, way)
        places = ask(made, 3)
        await until_word(made, places, IN_DOUBT_WORD if way is Way.UP else REGISTERED_WORD)
        made.proxy.clear()
        recovery_s = await recovered(made)
        if way is Way.UP:
            await still_in_doubt(made, places)
        assert sent(made, places) == ([0, 0, 0] if way is Way.UP else [1, 1, 1])
        table.add(row(made, f"SMP: a byte changed ({way.value})", recovery_s=recovery_s))


def garble_once(proxy, way):
    """The next piece has a wrong byte in its middle; those after it are well."""
    left = [True]

    def spoil(piece):
        if not left or len(piece) < 100:
            return piece
        left.clear()
        at = len(piece) // 2
        return piece[:at] + bytes([piece[at] ^ 0x55]) + piece[at + 1 :]

    proxy.set(way, rewrite=spoil)


@pytest.mark.parametrize("way", Way)
async def test_bytes_change_inside_tls(tmp_path, table, way):
    """Something between us ends the TLS and garbles: signatures, HTTP and JSON catch it. No asset is created twice or under another name."""
    async with faulty_smp(tmp_path, inside=True) as made:
        made.proxy.set(way, garble=0.0004)
        for _ in range(25):
            ask(made)
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.5)
        made.proxy.clear()
        recovery_s = await recovered(made)
        await until_word(made, made.asked, REGISTERED_WORD, IN_DOUBT_WORD, 4, 7, within_s=40)
        garbled = made.proxy.lanes[way].garbled
        assert garbled
        ours = {fields["reference"] for fields in made.site.fields.values()}
        assert set(made.ledger.outcomes()) <= ours
        table.add(row(made, f"SMP: bytes changed inside TLS ({way.value})", rounds=garbled, recovery_s=recovery_s))
