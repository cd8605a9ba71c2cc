"""The tracker beside a journal and a peer that are told what to do: clocks, races, a full disk."""

import asyncio
from dataclasses import replace
from types import SimpleNamespace

import pytest

from bridge.clock import Stamp
from bridge.errors import IllegalMove, JournalFull
from bridge.journal.port import Fence, OpenSubmission, ParkedReturn, ReturnMessage
from bridge.market.pace import Pace
from bridge.market.report import MarketMetrics
from bridge.market.tracker import Tracker
from bridge.model import Operation
from bridge.platform import AnswerClass, BatchSemantics, Exchange, Report
from bridge.submission import SubmissionState

S = 1_000_000_000
_S = SubmissionState


class Clock:
    """Wall time that can be set, beside a monotonic one that cannot."""

    def __init__(self):
        self.offset = 1_795_000_000 * S

    def mono_ns(self):
        return int(asyncio.get_running_loop().time() * S)

    def wall_ns(self):
        return self.mono_ns() + self.offset

    def now(self):
        return Stamp(self.wall_ns(), self.mono_ns(), "boot")


class Journal:
    def __init__(self, state=_S.AWAITING_RETURN):
        self.state = state
        self.settled, self.closed, self.alarms = [], [], []
        self.full = 0
        self.moves = []
        self.first = True
        self.left = []  # returns of an earlier run

    async def open_submissions(self, participant):
        return []

    async def unsettled_returns(self, participant, *, after=0, limit=100):
        page, self.left = self.left, []
        return page

    async def find_submission(self, participant, **ids):
        return OpenSubmission(
            id="s1", participant="acme", flow="assets", operation=Operation.ASSET_CREATE, state=self.state, message_id="m",
            transaction_id="T1", sent_ns=0, items=[],
        )  # fmt: skip

    async def settle(self, fence, submission, state, results, **more):
        if self.full:
            self.full -= 1
            raise JournalFull("full")
        if self.moves:
            self.state = self.moves.pop(0)
            raise IllegalMove("it moved meanwhile")
        self.state = state
        self.settled.append(state)
        return self.first

    async def close_return(self, fence, return_id, verdict):
        self.closed.append(verdict)

    async def alarm(self, code, **more):
        self.alarms.append(code)


class Maker:
    """The profile's plan, and what a status answer or a return says."""

    blocks = False

    def __init__(self, delays_s, *, status=None, overdue_s=900.0):
        self.delays_s = delays_s
        self.status_report = status
        self.semantics = BatchSemantics.PARTIAL
        spec = SimpleNamespace(poll=SimpleNamespace(overdue_s=overdue_s), resubmit_unnamed=False)
        self.profile = SimpleNamespace(spec=spec)
        self.asked = 0

    def poll_delay_s(self, attempt):
        return self.delays_s[attempt] if attempt < len(self.delays_s) else None

    def status(self, transaction_id, *, submission):
        return SimpleNamespace(path="/", method="POST", headers={}, body=b"")

    def token_headers(self, token):
        return {}

    def classify(self, exchange):
        return AnswerClass.ACCEPTED

    def read_status(self, exchange, transaction_id):
        self.asked += 1
        return self.status_report

    def read_return(self, message):
        return SimpleNamespace(
            transaction_id="T1", answers_message_id="", correlation_id="", report=Report(success=True), unknown_word=""
        )


class Client:
    async def post(self, path, **values):
        return Exchange(sent=True, status=200)


class Tokens:
    async def get(self):
        return "t"


RETURN = ParkedReturn(
    id=1,
    message=ReturnMessage(
        participant="acme", message_id="r", transaction_id="T1", correlation_id="", content=b"", body=b"", headers={},
        kid="k", late=False, received=Stamp(0, 0, "boot"),
    ),
)  # fmt: skip


class Counted(MarketMetrics):
    def __init__(self):
        self.ended = 0

    def settled(self, *_):
        self.ended += 1


class Rig:
    def __init__(self, journal, maker):
        self.metrics = Counted()
        self.journal, self.maker, self.clock = journal, maker, Clock()
        self.tracker = Tracker(
            participant="acme", journal=journal, fence=Fence("market:acme", 1), maker=maker, client=Client(), tokens=Tokens(),
            pace=Pace(clock=self.clock, rate_per_s=0, burst=1, concurrency=4, jitter=lambda: 0.5),
            clock=self.clock, metrics=self.metrics,
        )  # fmt: skip

    async def until(self, condition, within_s=5.0):
        """Run the tracker until this holds."""
        task = asyncio.get_running_loop().create_task(self.tracker.run())
        try:
            async with asyncio.timeout(within_s):
                while not condition():
                    if task.done():
                        task.result()
                    await asyncio.sleep(0.005)
        finally:
            task.cancel()
            await asyncio.wait({task})


async def test_polls_go_on_when_the_clock_is_set_back():
    """An hour back on the wall must not be an hour without a poll."""
    rig = Rig(Journal(), Maker([0.05, 0.05, 0.05]))
    rig.tracker.sent("s1", "T1")
    rig.clock.offset -= 3600 * S
    await rig.until(lambda: rig.maker.asked >= 2)


async def test_nothing_is_overdue_when_the_clock_is_set_forward():
    """A day forward on the wall neither makes a minute-old call overdue nor uses up the poll plan."""
    rig = Rig(Journal(), Maker([0.05, 600.0]))
    rig.tracker.sent("s1", "T1")
    rig.clock.offset += 86_400 * S
    await rig.until(lambda: rig.maker.asked >= 1)
    with pytest.raises(TimeoutError):
        await rig.until(lambda: rig.journal.settled or rig.maker.asked > 1, within_s=0.2)


async def test_polls_wait_while_the_platform_wants_a_pause():
    """Retry-After, to a poll or to any other call: what is due meanwhile is asked afterwards, each once, and the plan is not used up."""
    rig = Rig(Journal(), Maker([0.01, 600.0]))
    rig.maker.answers = [Exchange(sent=True, status=429, retry_after_s=0.3)]
    asked = []

    async def post(path, **values):
        asked.append(rig.clock.mono_ns())
        return rig.maker.answers.pop() if rig.maker.answers else Exchange(sent=True, status=200)

    rig.tracker._client = SimpleNamespace(post=post)
    rig.maker.classify = lambda exchange: AnswerClass.RETRY if exchange.status == 429 else AnswerClass.ACCEPTED
    for number in range(3):
        rig.tracker.sent(f"s{number}", f"T{number}")
    await rig.until(lambda: rig.maker.asked == 2)
    assert len(asked) == 3
    assert asked[1] - asked[0] >= 0.29 * S
    assert rig.journal.alarms == []


async def test_a_long_pause_that_is_the_answer_to_a_poll_is_told():
    """It holds up calls as one that answers a call does."""
    rig = Rig(Journal(), Maker([0.01, 600.0]))

    async def post(path, **values):
        return Exchange(sent=True, status=429, retry_after_s=400.0)

    rig.tracker._client = SimpleNamespace(post=post)
    rig.maker.classify = lambda exchange: AnswerClass.RETRY
    rig.tracker.sent("s1", "T1")
    await rig.until(lambda: rig.journal.alarms == ["CIRCUIT_OPEN"])
    assert not rig.tracker._pace.free()


async def test_giving_up_waits_for_room():
    """The poll plan is over while the disk is full: the outcome is told as unknown when there is room, and nothing ends meanwhile."""
    journal = Journal()
    journal.full = 1
    rig = Rig(journal, Maker([0.01]))
    rig.tracker.sent("s1", "T1")
    await rig.until(lambda: journal.settled == [_S.UNRESOLVED])
    assert journal.alarms == []  # the move raises its own, which the next move ends


async def test_a_call_that_ends_as_it_becomes_overdue_is_no_alarm():
    """The journal alone knows which came first; an alarm raised beside the move would stand for ever."""
    journal = Journal()
    journal.first = False
    rig = Rig(journal, Maker([], overdue_s=0.0))
    rig.tracker.sent("s1", "T1")
    await rig.until(lambda: journal.settled == [_S.OVERDUE])
    await asyncio.sleep(0.01)
    assert journal.alarms == []


async def test_nobody_is_called_over_what_a_return_has_just_settled():
    """The poll plan is over in the very moment in which the return came: there is nothing left to find out."""
    journal = Journal()
    journal.first = False
    rig = Rig(journal, Maker([0.01]))
    rig.tracker.sent("s1", "T1")
    await rig.until(lambda: journal.settled)
    await asyncio.sleep(0.02)
    assert journal.alarms == []


async def test_a_disproved_call_that_leaves_again_meanwhile():
    """A return speaks of a call that SMP had refused to take, which is sent again at that very moment: its own answer hands the return out again."""
    journal = Journal(_S.WAITING)
    journal.moves = [_S.SENDING]
    rig = Rig(journal, Maker([]))
    rig.tracker.returned(RETURN)
    await rig.until(lambda: not journal.moves)
    await asyncio.sleep(0.02)
    assert (journal.settled, journal.closed) == ([], [])


async def test_a_disproved_call_that_leaves_again_is_looked_at_anew():
    """What its own commit saw is old by then: the return must not be judged by it again and again."""
    journal = Journal(_S.WAITING)
    found = await journal.find_submission("acme")
    journal.moves = [_S.SENDING]
    tries = []
    settle = journal.settle

    async def counted(*values, **more):
        tries.append(values)
        return await settle(*values, **more)

    journal.settle = counted
    rig = Rig(journal, Maker([]))
    rig.tracker.returned(replace(RETURN, found=found))
    await rig.until(lambda: not journal.moves)
    await asyncio.sleep(0.02)
    assert (len(tries), journal.settled, journal.closed) == (1, [], [])


async def test_a_return_of_an_earlier_run_that_its_call_hands_out_again_is_settled():
    """It was on disk at the start and found its call being sent once more: the answer to that hands it out, and it is not taken for one that was dealt with."""
    journal = Journal(_S.SENDING)
    journal.left = [RETURN]
    rig = Rig(journal, Maker([]))
    looked = rig.journal.find_submission

    async def look(participant, **ids):
        found = await looked(participant, **ids)
        journal.looks += 1
        return found

    async def answered():
        while not journal.looks:
            await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        journal.state = _S.AWAITING_RETURN
        rig.tracker.handed_out([RETURN])

    journal.find_submission, journal.looks = look, 0
    answering = asyncio.get_running_loop().create_task(answered())
    await rig.until(lambda: journal.settled == [_S.CONFIRMED])
    await answering


async def test_a_disproved_call_is_set_aside():
    """A return for a call that SMP had refused to take: it is not sent again, a person decides."""
    journal = Journal(_S.RETRY_WAIT)
    rig = Rig(journal, Maker([]))
    rig.tracker.returned(RETURN)
    await rig.until(lambda: journal.closed)
    assert (journal.settled, journal.closed, journal.alarms) == ([_S.SET_ASIDE], ["conflict"], ["CONFLICT"])


async def test_a_return_of_an_earlier_run_whose_disproved_call_leaves_again():
    """It is sent again at the very moment in which it should be set aside: the return is looked at anew, and not lost."""
    journal = Journal(_S.WAITING)
    journal.moves = [_S.AWAITING_RETURN]
    journal.left = [RETURN]
    rig = Rig(journal, Maker([]))
    await rig.until(lambda: journal.settled == [_S.CONFIRMED])


@pytest.mark.parametrize("first", [True, False])
async def test_an_end_that_is_told_twice_at_once_is_counted_once(first):
    """A return and a status answer cross each other: both saw the submission open, and the journal says which of them ended it."""
    journal = Journal()
    journal.first = first
    rig = Rig(journal, Maker([]))
    rig.tracker.returned(RETURN)
    await rig.until(lambda: journal.settled)
    assert rig.metrics.ended == first


def returned(number, transaction_id):
    message = replace(RETURN.message, message_id=f"r{number}", transaction_id=transaction_id)
    return replace(RETURN, id=number, message=message)


async def test_returns_are_settled_side_by_side_and_those_of_one_transaction_in_order():
    """What one commit serves need not wait for another; the second return of a transaction comes after its first."""
    journal = Journal()
    begun, ended, gate = [], [], asyncio.Event()

    async def settle(fence, submission, state, results, *, return_id, **more):
        begun.append(return_id)
        await gate.wait()
        ended.append(return_id)
        return True

    journal.settle = settle
    rig = Rig(journal, Maker([]))
    for number, transaction_id in enumerate(("T1", "T2", "T3", "T1", "T4")):
        rig.tracker.returned(returned(number, transaction_id))
    seen = []

    async def open_the_gate():
        while len(begun) < 3:
            await asyncio.sleep(0)
        await asyncio.sleep(0.02)
        seen.extend(sorted(begun))
        gate.set()

    opening = asyncio.get_running_loop().create_task(open_the_gate())
    await rig.until(lambda: len(ended) == 5)
    await opening
    assert (seen, ended) == ([0, 1, 2], [0, 1, 2, 3, 4])


async def test_a_return_that_finds_no_room_comes_again_in_its_turn(monkeypatch):
    """Of those settled side by side the one that met a full disk is settled once there is room; the others are not settled twice."""
    monkeypatch.setattr("bridge.market.tracker.FULL_PAUSE_S", 0.01)
    journal = Journal()
    settled = []

    async def settle(fence, submission, state, results, *, return_id, **more):
        if return_id == 1 and settled.count(1) == 0 and 1 not in refused:
            refused.append(1)
            raise JournalFull("full")
        settled.append(return_id)
        return True

    refused = []
    journal.settle = settle
    rig = Rig(journal, Maker([]))
    for number in range(3):
        rig.tracker.returned(returned(number, f"T{number}"))
    await rig.until(lambda: len(settled) == 3)
    assert (sorted(settled), refused) == ([0, 1, 2], [1])


async def test_what_its_own_commit_found_is_not_looked_for_again():
    """A return that came with the submission it answers costs no further read; one that names another transaction does."""
    journal = Journal()
    found = await journal.find_submission("acme")
    looked = []

    async def look(participant, **ids):
        looked.append(ids["transaction_id"])
        return found

    journal.find_submission = look
    rig = Rig(journal, Maker([]))
    rig.tracker.returned(replace(returned(1, "T1"), found=found))
    await rig.until(lambda: len(journal.settled) == 1)
    assert looked == []
    rig.tracker.returned(replace(returned(2, "T2"), found=replace(found, transaction_id="T9")))
    await rig.until(lambda: len(journal.settled) == 2)
    assert looked == ["T1"]
