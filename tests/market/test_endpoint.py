"""The end point for returns with what HTTP lets through and JSON does not. The table of DOMAIN 9 stands in `tests/conformance`."""

import asyncio
import json

import pytest
from end_point import ACME, listening

from bridge.journal.port import AnswerNote
from bridge.market.returns import ReturnReader
from bridge.submission import SubmissionState


async def test_a_header_that_is_no_unicode(tmp_path):
    """A good return with a proxy's Latin-1 header is taken, and kept as evidence as well as it can be."""
    async with listening(tmp_path) as smp:
        body, [token] = smp.seal(smp.draft()).sent()
        head = [
            f"POST {smp.path()} HTTP/1.1",
            "Host: localhost",
            f"Content-Type: {smp.profile.return_content_types[0]}",
            f"{smp.profile.signature_header}: {token}",
            f"Content-Length: {len(body)}",
            "X-Place: Zürich",
        ]
        reader, writer = await asyncio.open_connection("localhost", smp.port, ssl=smp.trust)
        try:
            writer.write("\r\n".join([*head, "", ""]).encode("latin-1") + body)
            async with asyncio.timeout(5):
                answer = await reader.readuntil(b"\r\n\r\n")
        finally:
            writer.transport.abort()
        assert answer.startswith(b"HTTP/1.1 202 ")
        [headers] = smp.rows("SELECT headers FROM returns")
        assert "Z\ufffdrich" in headers


@pytest.mark.parametrize("bound", ["MOST_ARRIVED", "MOST_ARRIVED_BYTES"])
async def test_smp_is_asked_to_come_again_when_returns_pile_up(tmp_path, monkeypatch, bound):
    """The bound on returns that wait to be settled: 503 with Retry-After, nothing stored; taken as soon as there is room."""
    async with listening(tmp_path) as smp:
        tracker = smp.sides[ACME].tracker
        monkeypatch.setattr(f"bridge.market.tracker.{bound}", 0)
        envelope = smp.seal(smp.draft())
        body, tokens = envelope.sent()
        await smp.refused(503, "too_many_returns", body, tokens)
        assert (await smp.send(body, tokens))[1]["Retry-After"].isdecimal()
        monkeypatch.undo()
        assert not tracker.crowded
        status, _, _ = await smp.send(body, tokens)
        assert status == smp.profile.spec.ack.status


async def test_a_return_that_the_start_took_up_is_dealt_with_once(tmp_path, monkeypatch):
    """It was parked just before the tracker read what was left, and is handed over just after: one verdict, one event."""
    async with listening(tmp_path) as smp:
        tracker, held = smp.sides[ACME].tracker, []
        real = tracker.returned
        monkeypatch.setattr(tracker, "returned", held.append)
        draft = smp.draft()
        await smp.post(smp.seal(draft))
        tracker._left_over = 0  # as at a start
        tracker._wake_returns.set()
        await smp.settled()
        real(*held)
        monkeypatch.undo()
        await smp.accepted()
        events = smp.rows("SELECT subject FROM events WHERE kind = 'return.orphan'")
        assert events.count(held[0].message.message_id) == 1
        assert len(events) == 2


async def test_an_early_return_that_echoes_our_message_id_alone(tmp_path):
    """It came before its call's answer, which is lost then: the id of our message says whose it is, whatever SMP's own correlation id."""
    async with listening(tmp_path, profile="odd") as smp:
        ours = await smp.submission("BESS001", state=SubmissionState.SENDING)
        await smp.post(smp.draft(transaction_id="", correlation_id="theirs", in_reply_to=f"m-{ours}"))
        nothing = AnswerNote(status=0, headers={}, body=b"", detail="connection lost", transaction_id="")
        early = await smp.journal.answered(smp.sides[ACME].fence, ours, SubmissionState.IN_DOUBT, nothing)
        smp.sides[ACME].tracker.handed_out(early)
        await smp.until("SELECT state FROM submissions", ["CONFIRMED"])


async def test_a_return_that_comes_to_a_former_owner(tmp_path, monkeypatch):
    """Another process has the lease now: SMP is asked to come again, as where the journal fails, and nothing of our own error is shown."""
    async with listening(tmp_path) as smp:
        await smp.journal.acquire(smp.sides[ACME].fence.lease)
        body, tokens = smp.seal(smp.draft()).sent()
        await smp.refused(503, "journal_failed", body, tokens)


async def test_a_defect_of_ours_tells_a_stranger_nothing(tmp_path, monkeypatch, caplog):
    """The same kind of body as any other answer and no software's name; the log says where it was, and it is counted."""
    async with listening(tmp_path) as smp:

        def fail(*values, **named):
            raise RuntimeError("planted")

        monkeypatch.setattr(ReturnReader, "read", fail)
        counted = smp.refusals()
        status, headers, body = await smp.send(*smp.seal(smp.draft()).sent())
        assert (status, json.loads(body)) == (500, {"type": "about:blank", "title": "Error", "status": 500})
        assert headers["Server"] == "smp-bridge"
        assert smp.new_refusals(counted) == {"host_failed": 1}
        assert "planted" in caplog.text


@pytest.mark.parametrize("member", ["correlation_id", "in_reply_to"])
async def test_an_echo_beyond_all_reason_names_nothing_of_ours(tmp_path, member):
    """An index of PostgreSQL holds no key of so many letters; the transaction id says whose the return is."""
    async with listening(tmp_path, profile="odd") as smp:
        await smp.submission("BESS001")
        await smp.post(smp.draft(**{"correlation_id": "theirs", member: "x" * 3000}))
        await smp.until("SELECT state FROM submissions", ["CONFIRMED"])
        assert smp.rows("SELECT max(length(correlation_id)) FROM returns") != [3000]
