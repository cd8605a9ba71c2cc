"""DOMAIN 9, the rows after 11 that belong to the main path: recipients, freshness, replay, duplicates, strict JSON, sizes, orphans."""

import asyncio
import json

import pytest

from bridge.clock import iso_ms


async def test_row_12_another_key_and_other_recipients(smp, body):
    """Row 12: signed by another participant's key 401; recipient another participant, environment or sender 403; path of another 404."""
    from conformance_support import signer

    await smp.refused(401, "bad_signature", body, [smp.sign(body, signer(kid="smp-1"))])
    for change, reason in (
        ({"recipient": "OTHER"}, "wrong_recipient"),
        ({"sender": "OTHER"}, "wrong_sender"),
        ({"environment": "LIVE"}, "wrong_environment"),
    ):
        changed = json.dumps(smp.message(**change)).encode()
        await smp.refused(403, reason, changed, [smp.sign(changed)])
    await smp.refused(404, "http_404", body, [smp.sign(body)], path="/v1/returns/other")


@pytest.mark.parametrize(
    ("offset_s", "status"), [(-299, 202), (299, 202), (-301, 202), (-6 * 86400, 202), (-8 * 86400, 401), (301 + 5, 401)]
)
async def test_row_14_freshness_by_event(smp, offset_s, status):
    """Row 14 under `event`: -301 s and -6 days 202 flagged late, -8 days 401, +301 s 401."""
    when = iso_ms(smp.clock.wall_ns() + offset_s * 1_000_000_000)
    found, _ = await smp.good(smp.message(timestamp=when))
    assert found == status
    if status == 202 and offset_s < -300:
        assert smp.counters.taken[-1] == "new_late"


@pytest.mark.parametrize(
    "when",
    ["1970-01-01T00:00:00.000Z", "9999-01-01T00:00:00.000Z", "2026-11-23T10:00:00.000", "2026-11-23T10:00:60.000Z", ""],
)
async def test_row_14_strange_times(smp, when):
    """Row 14: 1970; year 9999; no zone; leap second: 401, no crash."""
    found, _ = await smp.good(smp.message(timestamp=when))
    assert found == 401


async def test_row_15_exact_replay(smp):
    """Row 15: exact replay in the window: 200 with the first receipt, no second effect."""
    body = json.dumps(smp.message()).encode()
    token = smp.sign(body)
    first = await smp.post(body, [token])
    effects = len(smp.tracker.messages)
    again = await smp.post(body, [token])
    assert (first[0], again[0]) == (202, 200)
    assert json.loads(first[1])["receivedAt"] == json.loads(again[1])["receivedAt"]
    assert len(smp.tracker.messages) == effects


async def test_row_17_same_id_other_content(smp):
    """Row 17: 409, both stored, alarm; a re-signed retry with only a new timestamp is a duplicate (200)."""
    message = smp.message()
    assert (await smp.good(message))[0] == 202
    later = {**message, "timestamp": iso_ms(smp.clock.wall_ns() + 1_000_000_000)}
    assert (await smp.good(later))[0] == 200
    other = {**message, "data": {**message["data"], "result": "ERRORS"}}
    assert (await smp.good(other))[0] == 409
    assert smp.counters.taken[-1] == "conflict"
    assert [alarm for alarm in await smp.journal.alarms() if alarm.participant == "acme-test"]


async def test_row_18_a_hundred_identical_returns_at_once(smp):
    """Row 18: one effect, 1 x 202, 99 x 200."""
    body = json.dumps(smp.message()).encode()
    token, effects = smp.sign(body), len(smp.tracker.messages)
    statuses = [status for status, _ in await asyncio.gather(*(smp.post(body, [token]) for _ in range(100)))]
    assert sorted(statuses) == [200] * 99 + [202]
    assert len(smp.tracker.messages) == effects + 1


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace('"transactionId":', '"transactionId": "x", "transactionId":', 1),
        lambda text: text.replace('"transactionId":', '"\\u0074ransactionId": "x", "transactionId":', 1),
        lambda text: text.replace('"sender":', '"sender": "SMP", "sender":', 1),
    ],
)
async def test_row_19_duplicate_members(smp, change):
    """Row 19: duplicate JSON keys (also nested, also escaped): 400, only on a validly signed message."""
    body = change(json.dumps(smp.message())).encode()
    await smp.refused(400, "duplicate_member", body, [smp.sign(body)])
    await smp.refused(401, "bad_signature", body, [smp.sign(b"{}")])


async def test_row_19_duplicate_member_in_the_protected_header(smp, body):
    """Row 19: in the protected header: 401."""
    await smp.refused(401, "duplicate_member", body, [smp.forge(body, b'{"alg":"ES256","alg":"ES256","kid":"smp-1"}')])


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        ("NaN", "not_a_number"),
        ("Infinity", "not_a_number"),
        ("1e999", "not_a_number"),
        ("9" * 5000, "integer_too_large"),
        ("9007199254740993", "integer_too_large"),
        ("-0", "negative_zero"),
    ],
)
async def test_row_20_numbers(smp, number, reason):
    """Row 20: NaN, Infinity, 1e999, 5000-digit integer, 2^53+1, -0: 400."""
    body = json.dumps(smp.message(data={"extra": 1234})).replace("1234", number).encode()
    await smp.refused(400, reason, body, [smp.sign(body)])


@pytest.mark.parametrize("depth", [40, 900, 1100, 100_000])
async def test_row_21_nesting(smp, depth):
    """Row 21: nesting 900, 1100, 100,000: 400, and nothing recurses."""
    body = json.dumps(smp.message(data={"extra": 1234})).replace("1234", "[" * depth + "]" * depth).encode()
    await smp.refused(400, "too_deep", body, [smp.sign(body)])


async def test_row_22_sizes(smp):
    """Row 22: body of limit, limit+1, 1 GB declared: 202, 413, 413."""
    limit = 4_194_304
    message = smp.message(data={"extra": ""})
    message["data"]["extra"] = "x" * (limit - len(json.dumps(message)))
    body = json.dumps(message).encode()
    assert len(body) == limit
    assert (await smp.post(body, [smp.sign(body)]))[0] == 202
    await smp.refused(413, "body_too_large", body + b" ", [smp.sign(body)])


@pytest.mark.parametrize(("headers", "reason"), [([("Content-Encoding", "gzip")], "content_encoding")])
async def test_row_23_compressed_bodies(smp, body, headers, reason):
    """Row 23: Content-Encoding: 415; never decompressed."""
    await smp.refused(415, reason, body, [smp.sign(body)], headers=headers)


async def test_row_28_methods_and_paths(smp, body):
    """Row 28: other methods and paths: 405 or 404, no listing, same body."""
    for method in ("GET", "PUT", "DELETE"):
        status, _ = await smp.post(b"", [], method=method)
        assert status == 405
    for path in ("/", "/v1/returns", "/v1/returns/ACME-TEST", "/v1/returns/acme-test?x=1"):
        status, _ = await smp.post(body, [smp.sign(body)], path=path)
        assert status == 404, path


async def test_row_29_unknown_kind_of_message(smp):
    """Row 29: valid and signed, unknown messageType: 202, quarantined, alarm, nobody acts on it."""
    effects = len(smp.tracker.messages)
    status, _ = await smp.good(smp.message(messageType="party.started"))
    assert status == 202
    assert len(smp.tracker.messages) == effects
    assert [alarm for alarm in await smp.journal.alarms() if "QUARANTINE" in alarm.code]


async def test_row_30_unknown_transaction(smp):
    """Row 30: valid and signed, unknown transaction id: 202, and the tracker is told (it parks it as an orphan)."""
    status, _ = await smp.good(smp.message(data={"transactionId": "a0Bunknown"}))
    assert status == 202
    assert smp.tracker.messages[-1].message.transaction_id == "a0Bunknown"
