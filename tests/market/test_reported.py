"""What the sender reports of each attempt and of each end, and what it says kept a call waiting."""

import asyncio

import smp_server as smp
from outbound_rig import CLOCK, TAKEN, logins, market, signed

from bridge.latency import Wait
from bridge.market.report import MarketMetrics
from bridge.platform import AnswerClass

BUSY = smp.answer("503 Unavailable", Retry_After="0")
QUICK = {"retry": {"delays_s": [0.05]}}


class Heard(MarketMetrics):
    """Keeps what it is told."""

    def __init__(self):
        self.attempts = []
        self.ends = []

    def answered(self, participant, out, answer, stamps):
        self.attempts.append((out, answer, dict(stamps)))

    def settled(self, participant, found, stamps):
        self.ends.append((found, dict(stamps)))

    async def until(self, attempts, within_s=8):
        async with asyncio.timeout(within_s):
            while len(self.attempts) < attempts:
                await asyncio.sleep(0.01)
        return [(out.attempts, answer, out.waited) for out, answer, _ in self.attempts]


async def test_a_further_attempt_reports_its_own_stamps(tmp_path):
    """The first was answered, the second is not: its stamps hold its own first byte and no answer, least of all the first one's."""
    heard = Heard()
    async with market(tmp_path, BUSY, smp.reset, profile=QUICK, metrics=heard) as rig:
        await rig.submit("BESS001")
        await rig.until("IN_DOUBT")
        attempts = await heard.until(2)
        assert attempts == [(0, AnswerClass.RETRY, None), (1, AnswerClass.IN_DOUBT, Wait.RETRY)]
        (_, _, first), (out, _, second) = heard.attempts
        assert (out.site, out.flow, out.submission) == ("north", "assets", (await rig.view()).id)
        assert "answered" in first
        assert "answered" not in second
        assert second["sent"].mono_ns > first["answered"].mono_ns
        assert second["signed"] == first["signed"]


async def test_what_a_401_costs_is_no_time_of_the_hosts(tmp_path):
    """The first byte left before SMP said 401; the new token and the second try are part of its answer."""
    heard, plain, asked = Heard(), logins(), 0

    async def login(request, writer):
        nonlocal asked
        asked += 1
        if asked == 2:
            await asyncio.sleep(0.8)
        await plain(request, writer)

    async with market(tmp_path, smp.answer("401 Unauthorized"), TAKEN, login=login, metrics=heard) as rig:
        await rig.submit("BESS001")
        await rig.until("AWAITING_RETURN")
        await heard.until(1)
        [(_, answer, stamps)] = heard.attempts
        assert (answer, len(rig.creates)) == (AnswerClass.ACCEPTED, 2)
        assert stamps["answered"].mono_ns - stamps["sent"].mono_ns >= 0.8 * 1e9
        assert stamps["sent"].mono_ns - stamps["journalled"].mono_ns < 0.8 * 1e9


async def test_a_call_that_is_refused_whole_is_settled_and_reported(tmp_path):
    """An answer that ends a submission is an end like any other."""
    heard = Heard()
    refused = signed(b'{"errors":[{"code":"E1","message":"no"}]}', status="422 Unprocessable")
    async with market(tmp_path, refused, metrics=heard) as rig:
        await rig.submit("BESS001")
        await rig.until("REJECTED")
        async with asyncio.timeout(8):
            while not heard.ends:
                await asyncio.sleep(0.01)
        [(found, stamps)] = heard.ends
        assert (found.site, found.flow, found.id) == ("north", "assets", (await rig.view()).id)
        assert stamps["settled"].mono_ns >= stamps["answered"].mono_ns


async def test_what_waited_for_the_circuit_says_so(tmp_path):
    """Received while sending was paused; the next one was not."""
    heard = Heard()
    async with market(tmp_path, TAKEN, TAKEN, metrics=heard) as rig:
        rig.pace.trip("refused", delay_s=0.8)
        await rig.submit("BESS001")
        await heard.until(1)
        await rig.submit("BESS002")
        assert [waited for _, _, waited in await heard.until(2)] == [Wait.CIRCUIT, None]


async def test_what_another_machine_received_is_not_placed_by_its_clock(tmp_path):
    """Its monotonic time says nothing here: whether it waited for the circuit is not known, and nothing is claimed."""
    heard = Heard()
    async with market(tmp_path, TAKEN, metrics=heard) as rig:
        rig.pace.trip("refused", delay_s=0.01)
        await asyncio.sleep(0.02)
        await rig.submit("BESS001", stamps={"received": CLOCK.now()._replace(mono_ns=1, boot="another")})
        assert [waited for _, _, waited in await heard.until(1)] == [None]


async def test_what_waited_for_the_clock_says_so(tmp_path):
    """Signing was held when it came."""
    heard, wrong = Heard(), True
    async with market(tmp_path, TAKEN, held=lambda: wrong, metrics=heard) as rig:
        await rig.submit("BESS001")
        await asyncio.sleep(0.05)
        wrong = False
        rig.outbound.wake()
        assert [waited for _, _, waited in await heard.until(1)] == [Wait.CLOCK]
