"""Services in parts: a server's limits, several parts on their way, and what happens when one fails; without a server."""

import asyncio

import pytest

from adapters.opcua.library import ua
from adapters.opcua.parts import LIMITS, Parts
from bridge.api import LinkError

READ = LIMITS["read"][0]


class Server:
    """Answers each item with ten times of it, `delay_s` later; takes at most `most` at once, and counts what is on its way."""

    def __init__(self, most=10_000, delay_s=0.0, fail_at=None):
        self.most, self.delay_s, self.fail_at = most, delay_s, fail_at
        self.sizes, self.now, self.widest = [], 0, 0

    async def call(self, part):
        self.sizes.append(len(part))
        self.now += 1
        self.widest = max(self.widest, self.now)
        try:
            await asyncio.sleep(self.delay_s * (1 + part[0] % 3))
            if len(part) > self.most:
                raise ua.UaStatusCodeError(ua.StatusCodes.BadTooManyOperations)
            if self.fail_at in part:
                raise ConnectionError("gone")
            return [10 * item for item in part]
        finally:
            self.now -= 1


async def test_answers_stand_in_the_order_of_what_was_asked_whichever_comes_first():
    """Four on their way while the server is quick, the first one alone, for nobody knows it yet."""
    server, items = Server(delay_s=0.001), list(range(10 * READ + 7))
    assert await Parts(4.0).run("read", items, server.call) == [10 * item for item in items]
    assert server.widest == 4
    assert sorted(server.sizes) == [7, *[READ] * 10]


async def test_a_slow_server_gets_one_part_at_a_time():
    """Else the last of four would wait for the others beyond the time-out."""
    server, parts = Server(delay_s=0.02), Parts(0.1)
    await parts.run("read", list(range(6 * READ)), server.call)
    assert server.widest == 1
    quick = Server()
    await parts.run("read", list(range(6 * READ)), quick.call)
    assert quick.widest == 4


async def test_a_server_that_turns_slow_gets_one_part_at_a_time_again():
    """All but one of the four stop."""
    server, parts = Server(), Parts(0.1)
    running = []

    async def call(part):
        server.delay_s = 0.02 if part[0] >= 4 * READ else 0.0
        running.append(server.now)
        return await server.call(part)

    await parts.run("read", list(range(16 * READ)), call)
    assert server.widest == 4
    assert running[-6:] == [0] * 6


@pytest.mark.parametrize("service", ["write", "call", "browse", "monitor"])
async def test_what_changes_something_goes_one_by_one(service):
    """A state is written after the rest, a call numbers after the one before, and a browse holds pages open at the server."""
    server, parts = Server(), Parts(4.0)
    await parts.run("read", [1], server.call)
    await parts.run(service, list(range(5 * LIMITS[service][0])), server.call)
    assert server.widest == 1


async def test_a_part_that_is_too_large_is_halved_and_loses_nothing():
    """From then on, and also while several are on their way."""
    server, parts, items = Server(most=60), Parts(4.0), list(range(4 * READ))
    assert await parts.run("read", items, server.call) == [10 * item for item in items]
    server.sizes.clear()
    await parts.run("read", items, server.call)
    assert max(server.sizes) <= 60


async def test_a_stated_limit_is_kept_and_a_larger_one_does_not_raise_ours():
    """0 and nonsense state none."""
    server, parts = Server(), Parts(4.0)
    for stated in (0, None, "7", 10_000):
        parts.learn("read", stated)
    await parts.run("read", list(range(READ + 1)), server.call)
    parts.learn("read", 7)
    await parts.run("read", list(range(8)), server.call)
    assert server.sizes == [READ, 1, 7, 1]


async def test_one_failure_is_the_links_and_ends_all():
    """In its own words, not as a group; nothing goes on beside it."""
    server = Server(delay_s=0.001, fail_at=5 * READ)
    with pytest.raises(LinkError, match="read: ConnectionError: gone"):
        await Parts(4.0).run("read", list(range(20 * READ)), server.call)
    assert server.now == 0
    assert len(server.sizes) < 20


async def test_whoever_ends_the_session_ends_all_parts():
    """A cancellation from outside is one, and no part goes on without its caller."""
    server = Server(delay_s=0.01)
    asked = asyncio.create_task(Parts(4.0).run("read", list(range(40 * READ)), server.call))
    while server.widest < 2:
        await asyncio.sleep(0.001)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert server.now == 0
    assert len(server.sizes) < 40


async def test_an_answer_of_the_wrong_length_is_an_error():
    """Nobody could say which value is whose."""

    async def short(part):
        return part[1:]

    with pytest.raises(LinkError, match="read: 2 results for 3 items"):
        await Parts(4.0).run("read", [1, 2, 3], short)
    assert await Parts(4.0).run("read", [], short) == []
