"""What is sent again, and what never is: halves of refused batches, the innocent, the same message, messages signed anew, and poison."""

import asyncio

import apsw
import pytest
import smp_server as smp
from outbound_rig import CLOCK, TAKEN, body_of, market, references, takes

from bridge.journal.people import Decision
from bridge.market import outbound
from bridge.model import HostReason, ItemState, Kind, Refusal
from bridge.submission import SubmissionState

BOB = Decision(by="bob", reason="asked the platform")
QUICK = {"retry": {"delays_s": [0.05]}}


def whole(refuse):
    return lambda keys: (
        smp.answer("422 No", '{"errors":[{"code":"E1","message":"no"}]}') if refuse & set(keys) else None
    )


async def settled(rig, count, within_s=10):
    """Wait until this many submissions are REJECTED or out; returns all by state."""
    async with asyncio.timeout(within_s):
        while True:
            views = await rig.journal.submissions()
            done = [view for view in views if view.state.value in ("REJECTED", "AWAITING_RETURN")]
            if len(done) == len(views) == count:
                return views
            await asyncio.sleep(0.01)


async def events_of(rig, submission):
    return [event.kind for event in await rig.journal.events(submission)]


async def calls_on_disk(rig):
    """(message id, body) of every signed call that the journal keeps."""
    path = rig.directory / "journal.db"
    db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    sql = "SELECT c.message_id, b.bytes FROM calls c JOIN blobs b ON b.id = c.body ORDER BY c.id"
    found = db.execute(sql).fetchall()
    db.close()
    return found


# ------------------------------------------------------------------------------------------------------------- halves


async def test_a_batch_refused_whole_is_halved(tmp_path):
    """DOMAIN 4: until the one to blame stands alone; it alone is refused, and no item is taken twice."""
    async with market(tmp_path, rest=takes(whole({"C"}))) as rig:
        await rig.submit("A", "B", "C", "D", "E")
        await settled(rig, 5)
        asked = [references(request) for request in rig.creates]
        assert (
            sorted(asked) == sorted([list("ABCDE"), list("ABC"), list("DE"), list("AB"), list("C")]) or len(asked) == 7
        )
        taken = [key for keys in asked if "C" not in keys for key in keys]
        assert sorted(taken) == ["A", "B", "D", "E"]
        assert (await rig.journal.member("acme", Kind.ASSET, "C")).state is ItemState.REFUSED
        assert (await rig.journal.member("acme", Kind.ASSET, "A")).state is ItemState.SENT


async def test_an_answer_that_is_in_doubt_is_never_halved(tmp_path):
    """Only under REJECTED: what may have been registered stays whole and in doubt."""
    async with market(tmp_path, smp.answer("500 Oops"), TAKEN) as rig:
        await rig.submit("A", "B")
        await rig.until("IN_DOUBT")
        await asyncio.sleep(0.2)
        assert len(rig.creates) == 1


def named(keys):
    if "B" not in keys:
        return None
    return smp.answer("422 No", '{"errors":[{"code":"E7","message":"no such meter","assetReference":"B"}]}')


async def test_the_innocent_go_again_where_the_profile_says_so(tmp_path):
    """`resubmit_unnamed`: a new message without the named one."""
    async with market(tmp_path, rest=takes(named), profile={"resubmit_unnamed": True}) as rig:
        await rig.submit("A", "B", "C")
        await settled(rig, 2)
        assert [references(request) for request in rig.creates] == [list("ABC"), list("AC")]
        assert len({body_of(request)["messageId"] for request in rig.creates}) == 2
        assert (await rig.journal.member("acme", Kind.ASSET, "B")).state is ItemState.REFUSED


async def test_the_innocent_are_refused_where_it_does_not(tmp_path):
    """The default: refused with their batch, and nothing goes again."""
    async with market(tmp_path, rest=takes(named)) as rig:
        await rig.submit("A", "B", "C")
        [view] = await settled(rig, 1)
        assert (len(rig.creates), dict(view.outcomes)) == (1, {"refused": 3})


# -------------------------------------------------------------------------------------------------------- same message


async def test_the_same_message_settles_a_doubt_where_repeats_are_recognised(tmp_path):
    """`recognises_repeats`: byte for byte the same message; a 429 or a refusal of the path in between never makes it less than in doubt."""
    steps = [smp.answer("500 Oops"), smp.answer("429 Slow"), smp.answer("403 No"), TAKEN]
    async with market(tmp_path, *steps, profile={**QUICK, "recognises_repeats": True}, circuit=(0.05,)) as rig:
        await rig.submit("A")
        view = await rig.until("AWAITING_RETURN")
        assert len({request.body for request in rig.creates}) == 1
        kinds = await events_of(rig, view.id)
        assert kinds.count("SENDING") == 4
        assert not {"RETRY_WAIT", "WAITING", "SET_ASIDE"} & set(kinds[1:])
        assert "IN_DOUBT" not in await rig.alarms()


async def test_a_person_sends_again_beside_the_running_service(tmp_path):
    """`resolve --resend`: a new message id, at once, and both calls are kept."""
    async with market(tmp_path, smp.answer("500 Oops"), TAKEN) as rig:
        await rig.submit("A")
        view = await rig.until("IN_DOUBT")
        await rig.journal.resend(view.id, BOB)
        await rig.until("AWAITING_RETURN")
        first, second = (body_of(request)["messageId"] for request in rig.creates)
        assert first != second
        assert [message for message, _ in await calls_on_disk(rig)] == [first, second]


# ---------------------------------------------------------------------------------------------------------- signed anew


async def test_a_message_older_than_the_window_is_signed_anew(tmp_path):
    """DOMAIN 3: the same message id and items under a new time and signature; both forms are kept."""
    profile = {"retry": {"delays_s": [0.4]}, "freshness": {"mode": "event", "window_s": 0.2}}
    async with market(tmp_path, smp.answer("429 Slow"), TAKEN, profile=profile) as rig:
        await rig.submit("A")
        await rig.until("AWAITING_RETURN")
        first, second = rig.creates
        one, two = body_of(first), body_of(second)
        assert (one["messageId"], one["data"]) == (two["messageId"], two["data"])
        assert one["timestamp"] < two["timestamp"]
        assert first.headers["x-jws-signature"] != second.headers["x-jws-signature"]
        assert await calls_on_disk(rig) == [(one["messageId"], first.body), (one["messageId"], second.body)]


async def test_a_call_refused_under_one_profile_leaves_under_the_next_one(tmp_path):
    """A wrong path is put right and the host started anew: what waits goes where the profile says now, as the same message, also where it could go as it is for ever."""

    def profile(path):
        return {"freshness": {"mode": "off"}, "calls": {"asset.create": {"path": path}}}

    async with market(tmp_path, rest=smp.answer("404 No"), profile=profile("/wrong"), circuit=(0.05,)) as rig:
        await rig.submit("A")
        async with asyncio.timeout(5):
            while not rig.pace.circuit_open:
                await asyncio.sleep(0.01)
        await rig.until("WAITING")
        first = rig.peer.script.on("/wrong")[0]
    async with market(tmp_path, rest=TAKEN, profile=profile("/right")) as rig:
        await rig.until("AWAITING_RETURN")
        [second] = [request for request in rig.peer.script.requests if "authenticate" not in request.path]
        assert (second.path, body_of(second)["messageId"]) == ("/right", body_of(first)["messageId"])


async def test_no_window_no_new_signature(tmp_path):
    """Freshness off: the same bytes for ever."""
    profile = {"retry": {"delays_s": [0.4]}, "freshness": {"mode": "off", "window_s": 0.2}}
    async with market(tmp_path, smp.answer("429 Slow"), TAKEN, profile=profile) as rig:
        await rig.submit("A")
        await rig.until("AWAITING_RETURN")
        assert len({request.body for request in rig.creates}) == 1


# --------------------------------------------------------------------------------------------------------------- poison


async def test_a_call_refused_while_others_are_taken_is_set_aside(tmp_path):
    """A 413 that always meets one call and no other: the others get through, and it waits for a person with its reason."""
    refuses = takes(lambda keys: smp.answer("413 Too Large", "<html>") if "P" in keys else None)
    async with market(tmp_path, rest=refuses, circuit=(0.02,)) as rig:
        await rig.submit("P")
        async with asyncio.timeout(5):
            while not rig.creates:
                await asyncio.sleep(0.01)
        async with asyncio.timeout(5):
            while not (aside := await rig.journal.submissions(state=SubmissionState.SET_ASIDE)):
                await rig.submit(f"A{CLOCK.wall_ns()}")
                await asyncio.sleep(0.02)
        assert [item.key for item in await rig.journal.submission_items(aside[0].id)] == ["P"]
        assert "413" in aside[0].reason
        assert "SET_ASIDE" in await rig.alarms()
        tried = len([request for request in rig.creates if references(request) == ["P"]])
        assert tried == 3
        await rig.submit("LAST")
        async with asyncio.timeout(5):
            while (await rig.journal.member("acme", Kind.ASSET, "LAST")).state is not ItemState.SENT:
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("damage", ["DELETE FROM blobs", "UPDATE blobs SET bytes = CAST('other' AS BLOB)"])
async def test_signed_bytes_that_are_not_what_was_sealed_never_leave(tmp_path, damage):
    """Gone or changed on the disk between two attempts: a person is asked, who may let it be signed anew."""
    profile = {"retry": {"delays_s": [0.4]}}
    async with market(tmp_path, smp.answer("429 Slow"), TAKEN, profile=profile) as rig:
        await rig.submit("A")
        await rig.until("RETRY_WAIT")
        db = apsw.Connection(str(rig.directory / "journal.db"))
        db.set_busy_timeout(5000)
        db.execute(f"{damage} WHERE id IN (SELECT body FROM calls)")
        db.close()
        view = await rig.until("SET_ASIDE")
        assert "signed are gone from the journal, or were changed" in view.reason
        assert len(rig.creates) == 1
        await rig.journal.retry(view.id, BOB)
        await rig.until("AWAITING_RETURN")
        assert [len(body_of(request)["data"]["assets"]) for request in rig.creates] == [1, 1]


async def test_an_account_that_is_refused_sets_nothing_aside(tmp_path):
    """Nothing is burnt when everything is refused alike."""
    async with market(tmp_path, rest=smp.answer("403 No"), circuit=(0.01,)) as rig:
        await rig.submit("A")
        async with asyncio.timeout(5):
            while len(rig.creates) < 6:
                await asyncio.sleep(0.01)
        assert not await rig.journal.submissions(state=SubmissionState.SET_ASIDE)


async def test_what_cannot_be_made_into_a_call_is_set_aside(tmp_path, monkeypatch):
    """A defect of ours at one item (or a profile that was changed since) stops nobody else."""
    async with market(tmp_path, rest=takes(lambda keys: None)) as rig:
        render = rig.maker.render

        def broken(operation, item):
            if item["assetReference"] == "P":
                raise KeyError("a place that this profile does not have")
            return render(operation, item)

        monkeypatch.setattr(rig.maker, "render", broken)
        await rig.submit("P")
        async with asyncio.timeout(5):
            while not (aside := await rig.journal.submissions(state=SubmissionState.SET_ASIDE)):
                await asyncio.sleep(0.01)
        assert "KeyError" in aside[0].reason
        await rig.submit("A")
        async with asyncio.timeout(5):
            while (await rig.journal.member("acme", Kind.ASSET, "A")).state is not ItemState.SENT:
                await asyncio.sleep(0.01)
        monkeypatch.undo()
        await rig.journal.retry(aside[0].id, BOB)
        async with asyncio.timeout(5):
            while (await rig.journal.member("acme", Kind.ASSET, "P")).state is not ItemState.SENT:
                await asyncio.sleep(0.01)


# ---------------------------------------------------------------------------------------------------------------- outage


async def test_an_outage_is_felt_by_one_call_at_a_time(tmp_path):
    """From the third unanswered call on everything pauses with an alarm; when the platform is back, one goes first, then the rest, and the alarm ends."""
    down = True
    taking = takes(lambda keys: None)

    async def step(request, writer):
        if down:
            writer.write(smp.answer("429 Busy"))
            return
        await taking(request, writer)

    async with market(tmp_path, rest=step, profile=QUICK) as rig:
        for number in range(6):
            await rig.submit(f"A{number}")
            await asyncio.sleep(0.01)
        async with asyncio.timeout(5):
            while "CIRCUIT_OPEN" not in await rig.alarms():
                await asyncio.sleep(0.01)
        down = False
        async with asyncio.timeout(5):
            while {view.state.value for view in await rig.journal.submissions()} != {"AWAITING_RETURN"}:
                await asyncio.sleep(0.01)
        assert await rig.alarms() == []
        taken = sorted(key for request in rig.creates for key in references(request))
        assert set(taken) == {f"A{number}" for number in range(6)}


# ------------------------------------------------------------------------------------------ doubt stands in nobody's way


async def sent_beside(rig):
    """Something else is asked for, and gets through."""
    await rig.submit("BESIDE")
    async with asyncio.timeout(8):
        while (await rig.journal.member("acme", Kind.ASSET, "BESIDE")).state is not ItemState.SENT:
            await asyncio.sleep(0.01)


async def test_a_doubt_that_is_older_than_its_deadline_is_sent_again(tmp_path):
    """The same message, after the flow's deadline: it left before, so it does not expire, and what waits behind it goes."""
    steps = [smp.answer("500 Oops"), smp.answer("202 Accepted", '{"transactionId":"T1"}')]
    profile = {"retry": {"delays_s": [1.5]}, "recognises_repeats": True}
    async with market(tmp_path, *steps, rest=TAKEN, profile=profile) as rig:
        await rig.submit("A", deadline_ns=CLOCK.wall_ns() + 1_000_000_000)
        await rig.until("AWAITING_RETURN")
        assert len({request.body for request in rig.creates}) == 1
        await sent_beside(rig)


async def test_a_resend_that_cannot_be_made_stands_in_nobodys_way(tmp_path, monkeypatch):
    """A defect of ours at the second making: it stays in doubt, and the next one goes."""
    async with market(tmp_path, smp.answer("500 Oops"), rest=TAKEN) as rig:
        await rig.submit("P")
        view = await rig.until("IN_DOUBT")
        render = rig.maker.render

        def broken(operation, item):
            if item["assetReference"] == "P":
                raise KeyError("a place that this profile does not have")
            return render(operation, item)

        monkeypatch.setattr(rig.maker, "render", broken)
        await rig.journal.resend(view.id, BOB)
        await sent_beside(rig)
        found = await rig.journal.submission(view.id)
        assert found is not None
        assert found.state is SubmissionState.IN_DOUBT


async def test_a_repeat_that_is_always_refused_ends(tmp_path):
    """The same message meets 403 while others are taken: after the third time it waits for a person, still in doubt."""
    seen = []

    def refuses(keys):
        if "P" not in keys:
            return None
        seen.append(keys)
        return smp.answer("500 Oops" if len(seen) == 1 else "403 No")

    profile = {**QUICK, "recognises_repeats": True}
    async with market(tmp_path, rest=takes(refuses), profile=profile, circuit=(0.02,)) as rig:
        await rig.submit("P")
        async with asyncio.timeout(5):
            while not rig.creates:
                await asyncio.sleep(0.01)
        async with asyncio.timeout(8):
            while len(seen) < 4:
                await rig.submit(f"A{CLOCK.wall_ns()}")
                await asyncio.sleep(0.02)
        await asyncio.sleep(0.5)
        assert len(seen) == 4
        assert (await rig.journal.member("acme", Kind.ASSET, "P")).state is ItemState.IN_DOUBT


async def test_a_call_that_the_host_itself_refuses_at_its_next_attempt_stops_nobody(tmp_path, monkeypatch):
    """It waited for another attempt, and what it names has changed meanwhile: it ends, and what stands behind it leaves, one at a time as SMP is busy."""
    made = outbound.prepare

    async def prepare(maker, due, **given):
        if due.attempts:
            return Refusal(reason=HostReason.MEMBER_REFUSED, text="its asset was refused meanwhile")
        return await made(maker, due, **given)

    monkeypatch.setattr(outbound, "prepare", prepare)
    busy = smp.answer("503 Unavailable", Retry_After="0")
    async with market(tmp_path, busy, rest=TAKEN, profile={**QUICK, "limits": {"concurrency": 1, "burst": 1}}) as rig:
        await rig.submit("BESS001")
        await rig.until("REJECTED")
        await rig.submit("BESS002")
        async with asyncio.timeout(8):
            while {view.state.value for view in await rig.journal.submissions()} != {"REJECTED", "AWAITING_RETURN"}:
                await asyncio.sleep(0.01)
