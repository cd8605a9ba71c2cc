"""The real sender on a real journal against a server that misbehaves: which state each answer leaves a submission in (DOMAIN 5)."""

import asyncio
import json
import socket
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import smp_server as smp
from outbound_rig import ASSETS, CLOCK, LOGIN, TAKEN, _candidate, logins, market, signed, takes

from bridge.errors import JournalFull
from bridge.journal.port import ItemOutcome, NoneDue
from bridge.lane import RenderedItem
from bridge.market.client import SmpClient
from bridge.market.lanes import Lanes
from bridge.market.outbound import ALLOWED
from bridge.model import ItemState, Operation
from bridge.sandbox.jose import SigningKey
from bridge.sandbox.pki import Authority
from bridge.submission import SubmissionState


async def test_taken(tmp_path):
    """2xx with a transaction id: AWAITING_RETURN, signed, with the token, sent once."""
    async with market(tmp_path, TAKEN) as rig:
        await rig.submit("BESS001")
        view = await rig.until("AWAITING_RETURN")
        [request] = rig.creates
        assert (view.transaction_id, request.headers["authorization"]) == ("a0B1", "Bearer t1")
        assert request.headers["x-jws-signature"].count(".") == 2
        assert await rig.alarms() == []


@pytest.mark.parametrize("status", ["200 OK", "201 Created", "202 Accepted"])
async def test_each_2xx_of_the_table(tmp_path, status):
    """DOMAIN 4: "HTTP 200, 201 or 202 all accepted"; the id may be a number as text."""
    async with market(tmp_path, smp.answer(status, '{"transactionId":"9007199254740993"}')) as rig:
        await rig.submit("BESS001")
        assert (await rig.until("AWAITING_RETURN")).transaction_id == "9007199254740993"


@pytest.mark.parametrize("severity", ["ERROR", "WARNING"])
async def test_a_call_that_is_taken_with_errors(tmp_path, severity):
    """Its result counts, and a person hears that the answer said two things; a warning is none."""
    error = {"code": "E1", "message": "no such site", "assetReference": "BESS001", "severity": severity}
    answer = smp.answer("202 Accepted", json.dumps({"transactionId": "a0B1", "errors": [error]}))
    async with market(tmp_path, answer) as rig:
        await rig.submit("BESS001")
        await rig.until("AWAITING_RETURN")
        await asyncio.sleep(0.05)
        told = [(alarm.code, alarm.text) for alarm in await rig.journal.alarms()]
    text = "the platform took the call and named an error of BESS001 in the same answer: E1 no such site; its result counts"
    assert told == ([("CONFLICT", text)] if severity == "ERROR" else [])


IN_DOUBT = {
    "a 2xx that is not JSON": smp.answer("202 Accepted", "not JSON"),
    "a 2xx that is HTML": smp.answer("200 OK", "<html><body>Welcome</body></html>"),
    "a 2xx without a body": smp.answer("202 Accepted", b""),
    "a 2xx without an id": smp.answer("202 Accepted", '{"status":"RECEIVED"}'),
    "a 2xx with an id that no header could carry": smp.answer("202 Accepted", '{"transactionId":"a\\r\\nb"}'),
    "a 2xx with an id of 129": smp.answer("202 Accepted", json.dumps({"transactionId": "x" * 129})),
    "a 2xx with the id twice": smp.answer("202 Accepted", '{"transactionId":"a","transactionId":"b"}'),
    "a 2xx of another kind": smp.answer("204 No Content", b""),
    "a 2xx of 1 GB": smp.gigabyte,
    "a 2xx without end": smp.endless,
    "an answer cut in its middle": smp.half,
    "a reset after the body": smp.reset,
    "no answer in time": smp.silence,
    "an answer that drips": smp.drip,
    "503 without Retry-After": smp.answer("503 Unavailable"),
    "500": smp.answer("500 Error"),
    "502 as HTML": smp.answer("502 Bad Gateway", "<html>"),
    "408": smp.answer("408 Timeout"),
    "409": smp.answer("409 Conflict"),
    "a status not named": smp.answer("418 Teapot"),
    "no HTTP": b"SSH-2.0-x\r\n\r\n",
}


@pytest.mark.parametrize("what", IN_DOUBT)
async def test_in_doubt(tmp_path, what):
    """DOMAIN 5, "IN_DOUBT": the call may have been worked, so it is never sent again by itself, and a person is called."""
    settings = {"answer_s": 0.5, "connect_s": 0.5, "max_answer_bytes": 200_000}
    async with market(tmp_path, IN_DOUBT[what], settings=settings) as rig:
        await rig.submit("BESS001")
        await rig.until("IN_DOUBT")
        assert await rig.alarms() == ["IN_DOUBT"]
        await rig.submit("BESS001")
        assert isinstance(await rig.journal.next_call("acme", CLOCK.wall_ns(), allow=ALLOWED), NoneDue)
        assert (len(rig.creates), rig.pace.circuit_open) == (1, False)


@pytest.mark.parametrize(
    "step", [smp.answer("500 No"), smp.answer("200 OK", "<html>"), smp.reset], ids=["500", "no id", "reset"]
)
async def test_a_platform_that_fails_does_not_put_all_that_waits_in_doubt(tmp_path, step):
    """Each call in doubt is a person's work: after a few in a row the rest waits, and goes once one is taken."""
    failing, taking = True, takes()

    async def either(request, writer):
        if failing and isinstance(step, bytes):
            writer.write(step)
        else:
            await (step if failing else taking)(request, writer)

    async with market(tmp_path, rest=either, circuit=(0.3,)) as rig:
        for number in range(20):
            await rig.submit(f"BESS{number:03}", flow=f"flow{number}")
        async with asyncio.timeout(8):
            while "CIRCUIT_OPEN" not in await rig.alarms() or rig.pace.in_flight:
                await asyncio.sleep(0.01)
            failing = False
            doubtful = (await _states(rig))["IN_DOUBT"]
            assert 3 <= doubtful <= 7
            while await _states(rig) != {"IN_DOUBT": doubtful, "AWAITING_RETURN": 20 - doubtful}:
                await asyncio.sleep(0.01)
        assert (len(rig.creates), await rig.alarms()) == (20, ["IN_DOUBT"])


async def test_conflicts_one_after_the_other_hold_up_nobody(tmp_path):
    """409 is in doubt and speaks of that call alone."""
    async with market(tmp_path, rest=smp.answer("409 Conflict")) as rig:
        for number in range(8):
            await rig.submit(f"BESS{number:03}", flow=f"flow{number}")
        async with asyncio.timeout(5):
            while await _states(rig) != {"IN_DOUBT": 8}:
                await asyncio.sleep(0.01)
        assert await rig.alarms() == ["IN_DOUBT"]


async def _states(rig):
    return Counter(view.state.value for view in await rig.journal.submissions())


@pytest.mark.parametrize("mode", ["required", "if_present"])
async def test_an_unsigned_answer(tmp_path, mode):
    """DOMAIN 5: "unsigned where a signature is required": in doubt; where it may be, the id is taken."""
    async with market(tmp_path, TAKEN, profile={"signature": {"answers_signed": mode}}) as rig:
        await rig.submit("BESS001")
        await rig.until("IN_DOUBT" if mode == "required" else "AWAITING_RETURN")


@pytest.mark.parametrize("mode", ["required", "if_present"])
async def test_a_badly_signed_answer(tmp_path, mode):
    """DOMAIN 5: "or badly signed": in doubt, required or not."""
    step = signed(b'{"transactionId":"a0B1"}', SigningKey("smp-1"))
    async with market(tmp_path, step, profile={"signature": {"answers_signed": mode}}) as rig:
        await rig.submit("BESS001")
        view = await rig.until("IN_DOUBT")
        assert view.transaction_id == ""


async def test_a_well_signed_answer(tmp_path):
    """Signed by SMP with another library: taken where it is required."""
    step = signed(b'{"transactionId":"a0B1"}')
    async with market(tmp_path, step, profile={"signature": {"answers_signed": "required"}}) as rig:
        await rig.submit("BESS001")
        await rig.until("AWAITING_RETURN")


# our fault or the path's -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [403, 404, 405, 406, 407, 411, 413, 414, 415, 426, 300, 301, 303, 307, 308])
async def test_our_fault(tmp_path, status):
    """DOMAIN 5, "WAITING": nothing is burnt, the participant's circuit opens, alarm; nothing else leaves meanwhile."""
    async with market(tmp_path, smp.answer(f"{status} No", "<html>", Location="https://localhost:1/")) as rig:
        await rig.submit("BESS001")
        async with asyncio.timeout(5):
            while not (rig.pace.circuit_open and await rig.alarms()):
                await asyncio.sleep(0.01)
        await rig.until("WAITING")
        await rig.submit("BESS002")
        await asyncio.sleep(0.05)
        assert (await rig.alarms(), len(rig.creates)) == (["CIRCUIT_OPEN"], 1)
        assert not rig.outbound.claim(Operation.ASSET_CREATE)


async def test_a_redirect_never_takes_the_token_elsewhere(tmp_path):
    """302 to another host: WAITING, circuit open, and that host sees no connection."""
    async with smp.smp_server() as other:
        step = smp.answer("302 Found", Location=other.url("127.0.0.1") + ASSETS)
        async with market(tmp_path, step) as rig:
            await rig.submit("BESS001")
            async with asyncio.timeout(5):
                while not rig.pace.circuit_open:
                    await asyncio.sleep(0.01)
            await rig.until("WAITING")
            assert (len(rig.creates), other.connections) == (1, 0)


async def test_401_once(tmp_path):
    """DOMAIN 5: "renew the token once, send the same bytes": the second attempt is taken."""
    async with market(tmp_path, smp.answer("401 No"), TAKEN) as rig:
        await rig.submit("BESS001")
        await rig.until("AWAITING_RETURN")
        first, second = rig.creates
        assert first.body == second.body
        assert [request.headers["authorization"] for request in rig.creates] == ["Bearer t1", "Bearer t2"]
        assert first.headers["x-jws-signature"] == second.headers["x-jws-signature"]


async def test_401_twice(tmp_path):
    """DOMAIN 5: "a second 401: WAITING, circuit opens, alarm": two attempts with two tokens, no third."""
    async with market(tmp_path, smp.answer("401 No"), smp.answer("401 No"), TAKEN) as rig:
        await rig.submit("BESS001")
        async with asyncio.timeout(5):
            while not await rig.alarms():
                await asyncio.sleep(0.01)
        await rig.until("WAITING")
        assert (await rig.alarms(), rig.pace.circuit_open, len(rig.creates)) == (["CIRCUIT_OPEN"], True, 2)
        assert len(rig.peer.script.on(LOGIN)) == 2


async def test_a_late_401_for_a_token_that_was_renewed_meanwhile(tmp_path):
    """Two calls left with one token; the second's 401 comes after the first's renewal: it takes the new token, and logs in no second time."""
    both, renewed = asyncio.Event(), asyncio.Event()

    async def first(request, writer):
        await both.wait()
        writer.write(smp.answer("401 No"))

    async def second(request, writer):
        both.set()
        await renewed.wait()
        writer.write(smp.answer("401 No"))

    async def again(request, writer):
        writer.write(TAKEN)
        renewed.set()

    async with market(tmp_path, first, second, again, smp.answer("202 Accepted", '{"transactionId":"a0B2"}')) as rig:
        await rig.submit("BESS001")
        async with asyncio.timeout(8):
            while not rig.creates:
                await asyncio.sleep(0.01)
            await rig.submit("BESS002")
            while [view.state.value for view in await rig.journal.submissions()] != ["AWAITING_RETURN"] * 2:
                await asyncio.sleep(0.01)
        assert [request.headers["authorization"][-2:] for request in rig.creates] == ["t1", "t1", "t2", "t2"]
        assert len(rig.peer.script.on(LOGIN)) == 2


async def test_three_refused_logins_stop_the_account(tmp_path, monkeypatch):
    """DOMAIN 4: "after 3 failed logins stop and alarm": no Create leaves, no fourth login comes."""
    monkeypatch.setattr("bridge.market.token.DELAYS_S", (0.05,))
    async with market(tmp_path, login=smp.answer("401 No", Retry_After="0")) as rig:
        await rig.submit("BESS001")
        async with asyncio.timeout(15):
            while "ACCOUNT_STOPPED" not in await rig.alarms():
                await asyncio.sleep(0.05)
        await asyncio.sleep(0.3)
        assert (rig.creates, len(rig.peer.script.on(LOGIN)), (await rig.view()).state.value) == ([], 3, "WAITING")


@pytest.mark.parametrize(
    ("no", "pause", "times"),
    [(smp.answer("503 No"), "0", 3), (smp.answer("429 No", Retry_After="301"), "301", 1)],
    ids=["three in a row", "a long pause"],
)
async def test_a_platform_at_which_nobody_can_log_in_is_told(tmp_path, monkeypatch, no, pause, times):
    """Nothing leaves, and no call is there whose answer would say so: after three, or of a long pause at once. It ends with the login, though nothing is sent."""
    monkeypatch.setattr("bridge.market.token.DELAYS_S", (0.01,))
    well = logins()

    async def login(request, writer):
        writer.write(no) if not go.is_set() else await well(request, writer)

    go = asyncio.Event()
    async with market(tmp_path, login=login) as rig, asyncio.timeout(8):
        while not (alarms := await rig.journal.alarms()):
            await asyncio.sleep(0.01)
        status = no.split()[1].decode()
        [alarm] = alarms
        assert (alarm.code, alarm.text) == (
            "CIRCUIT_OPEN",
            f"logging in fails; again in {pause} s: no token: status {status}",
        )
        assert len(rig.peer.script.on(LOGIN)) >= times
        go.set()
        if pause == "0":
            while await rig.alarms():
                await asyncio.sleep(0.01)
            assert rig.creates == []


# one transaction for two calls ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("room", [True, False], ids=["room", "full disk"])
async def test_a_transaction_id_that_another_call_has_already_is_in_doubt(tmp_path, monkeypatch, room):
    """What SMP says of that transaction can be true of one of them only: the first keeps it, the second is for a person, and is not asked for."""
    monkeypatch.setattr("bridge.market.answers.FULL_PAUSE_S", 0.01)
    status = "/api/v1/transactions/status"
    profile = {"poll": {"delays_s": [0.2]}, "recognises_repeats": True}
    async with market(tmp_path, rest=TAKEN, profile=profile) as rig:
        rig.peer.script.by_path[status] = smp.answer(
            "200 OK", '{"transactionId":"a0B1","status":"COMPLETED","counts":{"total":1,"succeeded":1}}'
        )
        await rig.submit("BESS001")
        await rig.until("AWAITING_RETURN")
        answered = rig.journal.answered
        full = [] if room else [True]

        async def no_room(fence, submission, state, note, **more):
            if state.value == "IN_DOUBT" and full:
                full.pop()
                raise JournalFull("full")
            return await answered(fence, submission, state, note, **more)

        rig.journal.answered = no_room
        await rig.submit("BESS002")
        async with asyncio.timeout(8):
            while await _states(rig) != {"CONFIRMED": 1, "IN_DOUBT": 1}:
                await asyncio.sleep(0.01)
        second, first = await rig.journal.submissions()
        assert (first.transaction_id, second.transaction_id, second.state.value) == ("a0B1", "", "IN_DOUBT")
        assert second.reason == f"the answer's transaction id a0B1 is that of {first.id} already"
        await asyncio.sleep(0.3)
        assert (len(rig.peer.script.on(status)), len(rig.creates), full) == (1, 2, [])


# certainly not processed -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "least_s", "paused"),
    [
        (smp.answer("429 Too Many", Retry_After="100"), 100, True),
        (smp.answer("429 Too Many"), 25, False),
        (smp.answer("503 Unavailable", "<html>", Retry_After="100"), 100, True),
        (smp.answer("503 Unavailable", Retry_After="1"), 25, True),
        (smp.answer("417 Expectation Failed"), 25, False),
    ],
)
async def test_retry_wait_by_an_answer(tmp_path, step, least_s, paused):
    """DOMAIN 5, "RETRY_WAIT": no alarm, never sooner than SMP asked for, and a pause that it asked for holds for the whole participant."""
    async with market(tmp_path, step) as rig:
        await rig.submit("BESS001")
        before = CLOCK.wall_ns()
        await rig.until("RETRY_WAIT")
        due = await rig.journal.next_call("acme", CLOCK.wall_ns(), allow=ALLOWED)
        assert isinstance(due, NoneDue)
        assert due.next_ns - before >= least_s * 10**9
        assert (await rig.alarms(), rig.pace.circuit_open, len(rig.creates)) == ([], paused, 1)


async def test_a_pause_that_was_asked_for_outlasts_the_answers_of_other_calls(tmp_path):
    """A gateway says 429 at once while another call is at work behind it; that one is taken, and still nothing leaves. A long pause is told."""
    go = asyncio.Event()

    async def slow(request, writer):
        await go.wait()
        writer.write(TAKEN)

    async with market(tmp_path, slow, smp.answer("429 Slow", Retry_After="400"), rest=TAKEN) as rig:
        await rig.submit("BESS001")
        async with asyncio.timeout(5):
            while not rig.creates:
                await asyncio.sleep(0.01)
            await rig.submit("BESS002")
            while not await rig.alarms():
                await asyncio.sleep(0.01)
            go.set()
            while rig.pace.in_flight:
                await asyncio.sleep(0.01)
        await rig.submit("BESS003")
        await asyncio.sleep(0.1)
        states = sorted(view.state.value for view in await rig.journal.submissions())
        assert states == ["AWAITING_RETURN", "RETRY_WAIT", "WAITING"]
        [alarm] = await rig.journal.alarms()
        assert (alarm.code, alarm.text, len(rig.creates)) == (
            "CIRCUIT_OPEN",
            "the platform takes no calls; again in 400 s: status 429",
            2,
        )


@pytest.mark.parametrize(("jitter", "share"), [(0.0, 0.9), (1.0, 1.1)])
async def test_a_retry_is_spread_by_a_tenth_either_way(tmp_path, jitter, share):
    """Many calls that failed together do not come again together."""
    delays = {"retry": {"delays_s": [100]}}
    async with market(tmp_path, smp.answer("429 Slow"), profile=delays, jitter=jitter) as rig:
        before = CLOCK.wall_ns()
        await rig.submit("BESS001")
        await rig.until("RETRY_WAIT")
        after = CLOCK.wall_ns()
        due = await rig.journal.next_call("acme", after, allow=ALLOWED)
        assert before <= due.next_ns - 100 * share * 10**9 <= after


async def test_a_retry_sends_the_same_bytes(tmp_path):
    """What was certainly not processed goes again as it was signed, and is taken."""
    async with market(tmp_path, smp.answer("429 Slow"), TAKEN, profile={"retry": {"delays_s": [0.05]}}) as rig:
        await rig.submit("BESS001")
        await rig.until("AWAITING_RETURN")
        first, second = rig.creates
        assert (first.body, first.headers["idempotency-key"]) == (second.body, second.headers["idempotency-key"])


@asynccontextmanager
async def nobody():
    with socket.socket() as gone:  # bound and not listening: nobody else can have this port
        gone.bind(("127.0.0.1", 0))
        yield f"https://127.0.0.1:{gone.getsockname()[1]}"


@asynccontextmanager
async def cut_in_the_handshake():
    async def cut(reader, writer):
        await reader.read(1)
        writer.transport.abort()

    async with await asyncio.start_server(cut, "127.0.0.1", 0) as server:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@asynccontextmanager
async def mute():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"https://127.0.0.1:{server.getsockname()[1]}"


@asynccontextmanager
async def stranger():
    async with smp.smp_server(TAKEN, authority=Authority("stranger", clock=CLOCK)) as peer:
        yield peer.url()


@asynccontextmanager
async def no_name():
    yield "https://nowhere.invalid"


@pytest.mark.parametrize("place", [nobody, cut_in_the_handshake, mute, stranger, no_name])
async def test_retry_wait_before_the_first_byte(tmp_path, place):
    """DOMAIN 5: refused, reset before the first body byte, connect time-out, wrong certificate, no such name: RETRY_WAIT."""
    async with place() as url, market(tmp_path, url=url, settings={"connect_s": 0.5}) as rig:
        await rig.submit("BESS001")
        await rig.until("RETRY_WAIT")
        assert (await rig.alarms(), rig.pace.circuit_open) == ([], False)


async def test_retry_wait_for_another_hosts_certificate(tmp_path):
    """DOMAIN 9 row 39: "wrong host name": RETRY_WAIT, and not one byte of a call reaches it."""
    authority = Authority("authority", clock=CLOCK)
    trusted = {"authority": authority}
    async with (
        smp.smp_server(TAKEN, hosts=("other.example",), **trusted) as elsewhere,
        market(tmp_path, url=elsewhere.url(), peer_options=trusted) as rig,
    ):
        await rig.submit("BESS001")
        await rig.until("RETRY_WAIT")
        assert elsewhere.script.requests == []


# refused -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["400 Bad Request", "422 Unprocessable"])
async def test_rejected_naming_an_item(tmp_path, status):
    """DOMAIN 4: "REJECTED registered nothing (named: refused with its error; unnamed: refused `BATCH_REFUSED`)"."""
    body = json.dumps({"errors": [{"code": "E7", "message": "no such meter", "assetReference": "BESS002"}]})
    async with market(tmp_path, smp.answer(status, body)) as rig:
        await rig.submit("BESS001", "BESS002")
        view = await rig.until("REJECTED")
        items = await rig.journal.submission_items(view.id)
        told = {item.key: (item.state.value, [error.code for error in item.errors]) for item in items}
        assert told == {"BESS001": ("refused", ["9018"]), "BESS002": ("refused", ["E7"])}
        assert (await rig.alarms(), rig.pace.circuit_open) == ([], False)


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"errors":"bad"}', b'{"errors":["one",{"message":"two"}]}', b"[]"])
async def test_rejected_in_words_that_name_nobody(tmp_path, body):
    """A 400 that cannot be read, or names no item: refused whole, everyone hears the host's own reason."""
    async with market(tmp_path, smp.answer("400 Bad Request", body)) as rig:
        await rig.submit("BESS001")
        view = await rig.until("REJECTED")
        [item] = await rig.journal.submission_items(view.id)
        assert (item.state.value, item.errors[0].code) == ("refused", "9018")


async def test_the_circuit_closes_again(tmp_path):
    """After its pause the same call goes again; taken, it clears the alarm."""
    async with market(tmp_path, smp.answer("404 No"), TAKEN, circuit=(0.1,)) as rig:
        await rig.submit("BESS001")
        await rig.until("AWAITING_RETURN")
        async with asyncio.timeout(5):
            while await rig.alarms():
                await asyncio.sleep(0.01)
        assert not rig.pace.circuit_open


async def test_overdue_without_any_poll(tmp_path):
    """DOMAIN 5: OVERDUE with an alarm once the profile's time is over, also where `returns: push` asks for no status."""
    profile = {"poll": {"overdue_s": 1}, "returns": "push"}
    async with market(tmp_path, TAKEN, profile=profile) as rig:
        await rig.submit("BESS001")
        await rig.until("AWAITING_RETURN")
        await rig.until("OVERDUE")
        assert await rig.alarms() == ["OVERDUE"]


@pytest.mark.parametrize("word", ["OVERDUE", "IN_DOUBT"])
async def test_a_return_in_the_very_moment_of_an_alarm(tmp_path, word):
    """It settles the call right after the move that raised the alarm: the alarm is cleared by that, and stays so."""
    steps, poll = {
        "OVERDUE": ([TAKEN], {"overdue_s": 0.05}),
        "IN_DOUBT": ([smp.answer("500 Internal Server Error")], {}),
    }[word]
    async with market(tmp_path, *steps, profile={"poll": poll}) as rig:

        def followed(move):
            """The same call, with the return's commit right behind it."""

            async def moved(fence, submission, state, *values, **more):
                result = await move(fence, submission, state, *values, **more)
                if state is SubmissionState[word]:
                    found = await rig.journal.find_submission("acme", submission=submission)
                    results = [ItemOutcome(item=item.id, state=ItemState.REGISTERED) for item in found.items]
                    await settle(fence, submission, SubmissionState.CONFIRMED, results, cause="return")
                return result

            return moved

        settle = rig.journal.settle
        rig.journal.settle, rig.journal.answered = followed(settle), followed(rig.journal.answered)
        await rig.submit("BESS001")
        await rig.until("CONFIRMED")
        await asyncio.sleep(0.05)
        assert await rig.alarms() == []


# what no peer and no hour of the day may break ----------------------------------------------------------------------------


@pytest.mark.parametrize(("step", "state"), [(TAKEN, "AWAITING_RETURN"), (smp.answer("403 No"), "WAITING")])
async def test_an_answer_with_a_header_that_is_no_unicode(tmp_path, step, state):
    """A proxy's Latin-1 header is kept as evidence as well as it can be, and ends nothing."""
    step = step.replace(b"Content-Type", b"X-Place: Z\xfcrich\r\nContent-Type")
    async with market(tmp_path, step) as rig:
        await rig.submit("BESS001")
        async with asyncio.timeout(5):
            while (await rig.view()).state.value != state or not (await rig.view()).stamps.get("answered"):
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("after", ["9" * 20, "Fri, 31 Dec 9999 23:59:59 GMT"])
async def test_a_retry_after_without_end(tmp_path, after):
    """A day is the longest that one answer can silence a call: beyond it lies a mistake, and times that no journal can hold."""
    async with market(tmp_path, smp.answer("429 Slow", Retry_After=after)) as rig:
        await rig.submit("BESS001")
        await rig.until("RETRY_WAIT")
        due = await rig.journal.next_call("acme", CLOCK.wall_ns(), allow=ALLOWED)
        assert 86_000 < (due.next_ns - CLOCK.wall_ns()) / 1e9 < 86_500


async def test_an_alarm_that_finds_no_room_moves_nothing_a_second_time(tmp_path, monkeypatch):
    """The answer is on disk, its alarm is not, and another call's answer lets the first leave again: what is made up for later must not take it for waiting."""
    monkeypatch.setattr("bridge.market.answers.FULL_PAUSE_S", 0.3)
    go, full = [asyncio.Event(), asyncio.Event()], [True]

    async def by_turn(request, writer):
        number = len(rig.creates)
        if number in (1, 5):  # the other call, and this one when it leaves again
            await go[number // 5].wait()
        writer.write(smp.answer("429 Slow") if 1 < number < 5 else TAKEN.replace(b"a0B1", b"a0B%d" % number))

    async with market(tmp_path, rest=by_turn, profile={"retry": {"delays_s": [0.01]}}) as rig:
        alarm = rig.journal.alarm

        async def no_room(code, **more):
            if full and "text" in more:
                full.pop()
                go[0].set()
                raise JournalFull("full")
            await alarm(code, **more)

        rig.journal.alarm = no_room
        async with asyncio.timeout(8):
            await rig.submit("BESS001")
            while not rig.creates:
                await asyncio.sleep(0.01)
            await rig.submit("BESS002")
            while len(rig.creates) < 5:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.4)
            assert (await _states(rig), len(rig.creates), full) == ({"AWAITING_RETURN": 1, "SENDING": 1}, 5, [])
            go[1].set()
            while await _states(rig) != {"AWAITING_RETURN": 2}:
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("login", [None, smp.answer("503 No", Retry_After="3000")], ids=["circuit open", "no token"])
async def test_a_deadline_comes_although_nothing_may_leave(tmp_path, login):
    """DOMAIN 5: "EXPIRED after the flow's deadline", also in the outage that makes it come."""
    async with market(tmp_path, smp.answer("403 No"), login=login) as rig:
        if login is None:
            await rig.submit("BESS001")
            async with asyncio.timeout(5):
                while not rig.pace.circuit_open:
                    await asyncio.sleep(0.01)
        late = replace(_candidate("BESS002"), flow="other", deadline_ns=CLOCK.wall_ns() + 300_000_000)
        await rig.journal.accept(rig.field, [late])
        async with asyncio.timeout(10):
            while "EXPIRED" not in [view.state.value for view in await rig.journal.submissions()]:
                await asyncio.sleep(0.02)


async def test_a_stop_waits_for_the_call_that_is_being_committed(tmp_path):
    """What is on disk as SENDING by then leaves and is answered; a stop that did not wait would leave it in doubt."""
    async with market(tmp_path, TAKEN) as rig:
        begun, go, sending = asyncio.Event(), asyncio.Event(), rig.journal.sending

        async def slow(*values):
            begun.set()
            await go.wait()
            return await sending(*values)

        rig.journal.sending = slow
        await rig.submit("BESS001")
        await begun.wait()
        async with asyncio.TaskGroup() as group:
            drained = group.create_task(rig.outbound.drain(5))
            await asyncio.sleep(0.05)
            assert not drained.done()
            go.set()
        assert (await rig.view()).state.value == "AWAITING_RETURN"


async def test_a_record_need_not_wait_for_what_came_a_moment_ago(tmp_path):
    """While the last few are on their way a slot may still be lent, one is kept for them, and none once much waits in line."""
    async with market(tmp_path, rest=TAKEN) as rig:
        await rig.submit("BESS001")
        await rig.until("AWAITING_RETURN")
        outbound, claim = rig.outbound, rig.outbound.claim
        while outbound._behind or outbound._busy:
            await asyncio.sleep(0)
        begun, go, sending = asyncio.Event(), asyncio.Event(), rig.journal.sending

        async def slow(*values):
            begun.set()
            await go.wait()
            return await sending(*values)

        rig.journal.sending = slow
        await rig.submit("BESS002")
        await begun.wait()  # one is being committed, so that three slots are left, one of them kept
        assert [claim(Operation.ASSET_CREATE) for _ in range(3)] == [True, True, False]
        for _ in range(2):
            outbound.release()
        go.set()
        begun.clear()
        go.clear()
        await rig.submit(*(f"MANY{number}" for number in range(200)))
        await begun.wait()
        assert not claim(Operation.ASSET_CREATE)
        go.set()


async def test_a_defect_as_a_call_leaves_ends_the_sender(tmp_path, monkeypatch):
    """Nobody knows whether a byte of it has left: it stays SENDING on disk, is in doubt at the next start, and is never sent a second time."""

    def defect(self, path, **more):
        raise RuntimeError("a defect")

    monkeypatch.setattr(SmpClient, "begin", defect)
    creates = []

    async def leaves():
        async with market(tmp_path, rest=TAKEN) as rig:
            await rig.submit("BESS001")
            await rig.until("AWAITING_RETURN")  # the longer way: there is a token now, and an open connection
            lanes = Lanes()
            lanes.add("acme", rig.outbound)
            async with asyncio.timeout(5):
                while (slot := lanes.claim("acme", Operation.ASSET_CREATE)) is None:
                    await asyncio.sleep(0.01)
            assert await slot.sign(["BESS002"], [RenderedItem(b"{}")], {"received": CLOCK.now()}) is not None
            slot.send(CLOCK.now(), "north", "assets")
            await asyncio.sleep(0.05)
            creates.extend(rig.creates)

    with pytest.raises(AssertionError, match="a part of the market side has ended"):
        await leaves()
    assert len(creates) == 1
