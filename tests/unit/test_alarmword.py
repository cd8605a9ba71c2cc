"""The alarm word: written when it changes and on each session, tried again, never in the way of outcomes."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from bridge.clock import SystemClock
from bridge.errors import LinkError
from bridge.field import alarmword
from bridge.field.alarmword import AlarmWords
from bridge.journal.alarms import AlarmBit, bits_of


class Journal:
    """What stands, and who waits for news of it."""

    def __init__(self):
        self.codes = []
        self.full = False
        self.own = []
        self.events = []

    def woken(self, topic):
        assert topic == "alarms"
        self.events.append(asyncio.Event())
        return self.events[-1]

    async def alarm_codes(self, site, participants):
        assert (site, participants) == ("north", ("acme",))
        return list(self.codes)

    async def alarm(self, code, *, site, subject, text="", clear=False):
        assert (code, site, subject) == ("ALARM_WORD", "north", "ems")
        self.own.append("clear" if clear else text)
        for event in self.events:
            event.set()

    def stands(self, *codes):
        self.codes = list(codes)
        for event in self.events:
            event.set()


class Session:
    """An EMS that takes words, or does not."""

    can_read = True

    def __init__(self):
        self.held = []
        self.error = ""
        self.lost = False
        self.tries = 0
        self.changed = asyncio.Event()
        self.busy = 0

    async def receive(self):
        return []

    async def read(self, addresses):
        return await self._one(list(addresses))

    async def write(self, writes):
        return await self._one(list(writes))

    async def write_word(self, word):
        self.tries += 1
        self.changed.set()
        if self.lost:
            raise LinkError("cut")
        error = await self._one(self.error)
        if not error:
            self.held.append(word)
            self.changed.set()
        return error

    async def _one(self, answer):
        assert not self.busy, "two calls at a time"
        self.busy += 1
        await asyncio.sleep(0.001)
        self.busy -= 1
        return answer

    async def until(self, condition):
        async with asyncio.timeout(10):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


class Silent:
    """A session of an adapter without words."""

    can_read = False

    async def receive(self):
        return []

    read = write = receive


@pytest.fixture
def words():
    journal = Journal()
    made = AlarmWords(site="north", adapter="ems", participants=["acme"], journal=journal, clock=SystemClock.here())
    return journal, made


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(alarmword, "RETRY_DELAYS_S", (0.001,))


@asynccontextmanager
async def running(made, session):
    task = asyncio.get_running_loop().create_task(made.run(session, asyncio.Lock()))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task})


def last(session):
    return session.held[-1].bits if session.held else None


async def test_written_on_each_session_and_on_each_change(words):
    """Nothing stands at first: the word is 0, written all the same. The same alarms again are no write."""
    journal, made = words
    first, second = Session(), Session()
    async with running(made, first):
        await first.until(lambda: last(first) == 0)
        journal.stands("STUCK", "DRIFT")
        await first.until(lambda: last(first) == AlarmBit.STUCK | AlarmBit.DRIFT)
        assert first.held[-1].words == ("stuck", "drift")
        journal.stands("DRIFT", "STUCK")
        journal.stands()
        await first.until(lambda: last(first) == 0)
        assert len(first.held) == 3
    journal.stands("IN_DOUBT")
    async with running(made, second):
        await second.until(lambda: last(second) == AlarmBit.IN_DOUBT)


async def test_a_full_journal_shows_although_no_row_can(words):
    """Its row can only be written afterwards."""
    journal, made = words
    session = Session()
    async with running(made, session):
        await session.until(lambda: last(session) == 0)
        journal.full = True
        made.look()
        await session.until(lambda: last(session) == AlarmBit.JOURNAL_FULL)


async def test_a_word_that_is_not_taken_is_tried_again_and_becomes_an_alarm(words):
    """Raised once, after ten tries; cleared when the word stands at last; it sets no bit of its own."""
    journal, made = words
    session = Session()
    session.error = "read-only"
    async with running(made, session):
        await session.until(lambda: session.tries >= 15)
        assert journal.own == ["read-only"]
        session.error = ""
        await session.until(lambda: last(session) == 0)
        async with asyncio.timeout(10):
            while journal.own[-1] != "clear":
                await asyncio.sleep(0.001)
        assert journal.own == ["read-only", "clear"]
    assert bits_of(["ALARM_WORD"]) == 0


async def test_a_word_that_costs_the_session_waits_in_the_next_one(words, monkeypatch):
    """Outcomes come first there; once it was taken, the next session has it at once."""
    _, made = words
    waits = []
    made._sleep = lambda seconds: _noted(waits, seconds)
    monkeypatch.setattr(alarmword, "RETRY_DELAYS_S", (1, 2, 4))
    session = Session()
    session.lost = True
    for _ in range(3):
        with pytest.raises(LinkError):
            await made.run(session, asyncio.Lock())
    assert waits == [1, 2]
    session.lost = False
    async with running(made, session):
        await session.until(lambda: last(session) == 0)
    async with running(made, session):
        await session.until(lambda: len(session.held) == 2)
    assert waits == [1, 2, 4]


async def _noted(waits, seconds):
    waits.append(seconds)


async def test_one_call_at_a_time(words):
    """The word waits for its turn: outcomes are read and written under the same lock."""
    _, made = words
    session, talk = Session(), asyncio.Lock()
    await talk.acquire()
    task = asyncio.get_running_loop().create_task(made.run(session, talk))
    try:
        await asyncio.sleep(0.02)
        assert session.tries == 0
        talk.release()
        await session.until(lambda: last(session) == 0)
        assert not talk.locked()
    finally:
        task.cancel()
        await asyncio.wait({task})


async def test_a_word_that_never_ends_is_left(words, monkeypatch):
    """Its session is over then, as after any cancelled call."""
    _, made = words
    monkeypatch.setattr(alarmword, "WRITE_S", 0.01)
    session = Session()
    session._one = lambda _: asyncio.Event().wait()
    with pytest.raises(LinkError, match="within"):
        await made.run(session, asyncio.Lock())


async def test_an_adapter_without_words_is_no_lost_session(words):
    """The configuration refuses it; a session that lacks it all the same is an alarm."""
    journal, made = words
    async with running(made, Silent()):
        async with asyncio.timeout(10):
            while not journal.own:
                await asyncio.sleep(0.001)
        assert "takes no alarm word" in journal.own[0]


def test_every_bit_has_its_place():
    """Fixed for ever: what an EMS's program was written against."""
    assert {bit.name: int(bit) for bit in AlarmBit} == {
        "STUCK": 1,
        "IN_DOUBT": 2,
        "OVERDUE": 4,
        "UNRESOLVED": 8,
        "SET_ASIDE": 16,
        "DRIFT": 32,
        "DUPLICATE": 64,
        "MOVED": 128,
        "CONFLICT": 256,
        "PLATFORM": 512,
        "HELD": 1024,
        "STOPPED": 2048,
        "LINK": 4096,
        "JOURNAL_FULL": 8192,
        "OTHER": 32768,
    }
    assert bits_of(["SOMETHING_NEW", "LINK_DOWN", "LINK_REFUSED"]) == AlarmBit.OTHER | AlarmBit.LINK
