"""DOMAIN 9, rows 12 to 19: whom a message is for, how old it is, and whether it came before."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace

import pytest
from end_point import ACME, FORMS, OTHER, each, errors, listening, public, signer

from bridge.journal.keys import KeySide, KeyState
from bridge.keyring import _Held, record_of
from bridge.profile import ReturnResult

NS = 1_000_000_000
ALARMS = "SELECT code FROM alarms WHERE cleared_ns = 0 ORDER BY code"


# row 12 ------------------------------------------------------------------------------------------------------------------


@pytest.mark.jws
async def test_row_12_another_participants_key(smp):
    """Row 12: "signed by another participant's key": 401, under its own kid and under SMP's; so for a key that nobody knows."""
    draft, _ = await smp.accepted()
    other = smp.signers[OTHER]
    theirs = smp.seal(smp.draft(recipient="OTHER"), other)
    assert (await smp.post(theirs, path=smp.path(OTHER)))[0] == smp.profile.spec.ack.status
    await smp.settled()
    for key in (other, signer(kid="stranger")):
        await smp.unauthentic("kid_unknown", smp.seal(draft, key))
        await smp.unauthentic("bad_signature", smp.seal(draft, key, {"kid": smp.key.kid}))


@pytest.mark.parametrize(
    ("member", "value", "reason"),
    [
        ("recipient", "OTHER", "wrong_recipient"),
        ("recipient", "", "wrong_recipient"),
        ("recipient", "acme", "wrong_recipient"),
        ("sender", "OTHER", "wrong_sender"),
        ("sender", "ACME", "wrong_sender"),
        ("environment", "LIVE", "wrong_environment"),
        ("environment", "", "wrong_environment"),
    ],
)
async def test_row_12_not_for_us(smp, member, value, reason):
    """Row 12: "recipient another participant": 403 and an alarm, nothing stored; so for the sender and for TEST in LIVE."""
    draft, _ = await smp.accepted()
    changed = smp.put(draft, member, value)
    await smp.refused(403, reason, *smp.seal(changed).sent(), alarms=["MISDIRECTED"])
    before = smp.rows("SELECT count FROM alarms")
    await smp.refused(403, reason, *smp.seal(changed).sent())
    assert (before, smp.rows("SELECT count FROM alarms")) == ([1], [2])


@pytest.mark.jws
async def test_row_12_path_of_another(smp):
    """Row 12: "path of participant B with A's message": 403 and an alarm at B; B sees nothing, and B's own message is taken there."""
    _, good = await smp.accepted()
    await smp.refused(403, "wrong_recipient", *good.sent(), path=smp.path(OTHER), alarms=["MISDIRECTED"])
    assert smp.rows("SELECT participant FROM alarms") == [OTHER]
    status, _ = await smp.post(smp.draft(recipient="OTHER"), path=smp.path(OTHER))
    assert status == smp.profile.spec.ack.status


async def test_row_12_transaction_of_another(smp):
    """Row 12: "a transaction id of B at A is as row 30; B sees nothing": stored as an orphan of A, B's submission stays as it is."""
    theirs = await smp.submission("BESS001", transaction_id="a0B9", name=OTHER)
    await smp.accepted(
        transaction_id="a0B9", correlation_id=theirs, errors=errors("BESS001"), result=ReturnResult.ERRORS
    )
    assert smp.rows("SELECT participant || ' ' || verdict FROM returns") == [f"{ACME} orphan"]
    assert await smp.state(theirs) == "AWAITING_RETURN"
    assert smp.told()[OTHER] == 0


# row 13 ------------------------------------------------------------------------------------------------------------------


class Ring(Mapping):
    """SMP's keys in the states that their records give them, at the clock's time."""

    def __init__(self, key):
        self._key = public(key)
        self.record = record_of(ACME, KeySide.THEIRS, key, key.public_jwk(), place="configured")
        self.clock = None

    def __getitem__(self, kid):
        return {self._key.kid: _Held(self._key, self.record)}[kid].at(self.clock.wall_ns())

    def __iter__(self):
        return iter([self._key.kid])

    def __len__(self):
        return 1


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("changes", "later_s", "reason"),
    [
        ({"state": KeyState.REVOKED}, 0, "key_revoked"),
        ({"expires_ns": 60}, 59, None),
        ({"expires_ns": 60}, 60, "key_expired"),
        ({"state": KeyState.RETIRING, "until_ns": 60}, 59, None),
        ({"state": KeyState.RETIRING, "until_ns": 60}, 60, "key_retired"),
    ],
)
async def test_row_13_keys_that_are_past(tmp_path, form, changes, later_s, reason):
    """Row 13: "expired or revoked key; retired key after the grace time": 401 and an alarm; a moment before it is taken."""
    ring = Ring(key := signer())
    async with listening(tmp_path, profile=form, key=key, keys=ring) as smp:
        ring.clock = smp.clock
        _, good = await smp.accepted()
        given = {name: value if name == "state" else smp.clock.at_ns + value * NS for name, value in changes.items()}
        ring.record = replace(ring.record, **given)
        smp.clock.at_ns += later_s * NS
        if reason is None:
            assert (await smp.post(good))[0] == 200
        else:
            await smp.unauthentic(reason, good, alarms=["KEY_REFUSED"])
            await smp.unauthentic("bad_signature", good.but(tail=smp.seal(smp.draft(), signer()).tail))


# row 14 ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("offset_s", "taken"), [(-299, True), (-300, True), (-301, False), (299, True), (300, True), (301, False)]
)
async def test_row_14_freshness_by_attempt(tmp_path, form, offset_s, taken):
    """Row 14: "-299 s / -301 s / +299 s / +301 s ... under `attempt`: 202 / 401 / 202 / 401"."""
    async with listening(tmp_path, profile=form, freshness={"mode": "attempt"}) as smp:
        if taken:
            await smp.accepted(timestamp_ns=smp.clock.wall_ns() + offset_s * NS)
            assert smp.rows("SELECT late FROM returns") == [0]
            return
        draft, _ = await smp.accepted()
        time = smp.wire._message._time_out(smp.clock.wall_ns() + offset_s * NS)
        changed = smp.put(draft, "timestamp", time)
        back = smp.put(changed, "timestamp", smp.wire._message._time_out(smp.clock.wall_ns()))
        assert (back.content, back.protected) == (draft.content, draft.protected)
        await smp.unauthentic("from_the_future" if offset_s > 0 else "too_old", smp.seal(changed))


@pytest.mark.parametrize(
    ("offset_s", "late"), [(-299, 0), (-301, 1), (-6 * 86400, 1), (-7 * 86400, 1), (299, 0), (300, 0)]
)
async def test_row_14_freshness_by_event(smp, offset_s, late):
    """Row 14: "under `event`: -301 s and -6 days 202 flagged late"."""
    await smp.accepted(timestamp_ns=smp.clock.wall_ns() + offset_s * NS)
    assert smp.rows("SELECT late FROM returns") == [late]


@each((-8 * 86400, "too_old"), (301, "from_the_future"))
async def test_row_14_out_of_the_window_by_event(smp, offset_s, reason):
    """Row 14: "under `event`: ... -8 days 401, +301 s 401"."""
    draft, _ = await smp.accepted()
    time = smp.wire._message._time_out(smp.clock.wall_ns() + offset_s * NS)
    await smp.unauthentic(reason, smp.seal(smp.put(draft, "timestamp", time)))


@each(
    ("1970-01-01T00:00:00.000Z", "too_old"),
    ("9999-01-01T00:00:00.000Z", "from_the_future"),
    ("2026-11-23T10:00:00.000", "no_timestamp"),
    ("2026-11-23T10:00:60.000Z", "no_timestamp"),
    ("2026-11-23", "no_timestamp"),
    ("now", "no_timestamp"),
    ("", "no_timestamp"),
    (None, "no_timestamp"),
    (1795392000, "no_timestamp"),
    ({}, "no_timestamp"),
)
async def test_row_14_strange_times(detached, text, reason):
    """Row 14: "year 1970; year 9999; no zone; leap second `:60`": 401, no crash."""
    draft, _ = await detached.accepted()
    await detached.unauthentic(reason, detached.seal(detached.put(draft, "timestamp", text)))


@each(
    (0, "too_old"),
    (253_402_300_799_999, "from_the_future"),
    (253_402_300_800_000, "no_timestamp"),
    (-1, "no_timestamp"),
    (1.5, "no_timestamp"),
    (1e300, "no_timestamp"),
    (10**4000, "no_timestamp"),
    ("soon", "no_timestamp"),
    (None, "no_timestamp"),
    (True, "no_timestamp"),
)
async def test_row_14_strange_numbers_of_time(flattened, raw, reason):
    """Row 14 where times are milliseconds: 1970, the end of 9999, beyond it, and what is no whole number: 401, no crash."""
    draft, _ = await flattened.accepted()
    await flattened.unauthentic(reason, flattened.seal(flattened.put(draft, "timestamp", raw)))


# rows 15 to 18 -----------------------------------------------------------------------------------------------------------


async def test_row_15_exact_replay(smp):
    """Row 15: "exact replay in the window": 200 with the first receipt, no second effect."""
    message = smp.seal(smp.draft())
    first = await smp.post(message)
    await smp.settled()
    smp.clock.at_ns += 60 * NS
    told, rows = smp.told(), smp.rows("SELECT id FROM returns")
    again = await smp.post(message)
    assert (first[0], again[0]) == (smp.profile.spec.ack.status, 200)
    assert first[1] == again[1]
    assert (smp.told(), smp.rows("SELECT id FROM returns")) == (told, rows)


async def test_row_15_of_a_settled_submission(smp):
    """Row 15, on a submission of ours: it is settled once, and the replay changes nothing and raises nothing."""
    ours = await smp.submission("BESS001")
    message = smp.seal(smp.draft())
    for status in (smp.profile.spec.ack.status, 200):
        assert (await smp.post(message))[0] == status
        await smp.settled()
        assert await smp.state(ours) == "CONFIRMED"
    assert smp.rows("SELECT count(*) FROM events WHERE kind = 'CONFIRMED'") == [1]
    assert smp.rows(ALARMS) == []


@pytest.mark.parametrize(("mode", "past_s"), [("attempt", 301), ("event", 8 * 86400)])
@pytest.mark.parametrize("form", FORMS)
async def test_row_16_replay_after_the_window(tmp_path, form, mode, past_s):
    """Row 16: "exact replay after the window": 401, no effect; a moment before it was a duplicate."""
    async with listening(tmp_path, profile=form, freshness={"mode": mode}) as smp:
        ours = await smp.submission("BESS001")
        _, message = await smp.accepted()
        assert await smp.state(ours) == "CONFIRMED"
        assert (await smp.post(message))[0] == 200
        smp.clock.at_ns += past_s * NS
        await smp.unauthentic("too_old", message)
        assert (await smp.state(ours), smp.rows("SELECT count(*) FROM returns")) == ("CONFIRMED", [1])


@pytest.mark.parametrize("form", FORMS)
async def test_row_16_replay_after_a_restart(tmp_path, form):
    """Row 16: "after restart": 200 with the first receipt, no second effect: the replay store is on disk."""
    key = signer()
    async with listening(tmp_path, profile=form, key=key) as smp:
        ours, message = await smp.submission("BESS001"), smp.seal(smp.draft())
        first = await smp.post(message)
        await smp.settled()
        at_ns = smp.clock.at_ns
    async with listening(tmp_path, profile=form, key=key) as smp:
        smp.clock.at_ns = at_ns + 60 * NS
        stored = smp.effects()
        again = await smp.post(message)
        assert (first[0], again[0]) == (smp.profile.spec.ack.status, 200)
        assert (first[1], await smp.state(ours)) == (again[1], "CONFIRMED")
        assert (smp.effects(), smp.told()[ACME]) == (stored, 0)


async def test_row_16_replay_at_the_second_worker(tmp_path, cluster):
    """Row 16: "sent to the second worker": over PostgreSQL 200 with the first receipt, and stored once: the replay store is shared."""
    database, key = cluster.lend(), signer()
    server = cluster.server(database)
    count = "SELECT count(*) FROM smp_bridge.returns"
    try:
        async with listening(tmp_path, key=key, postgres=server) as smp:
            message = smp.seal(smp.draft())
            first = await smp.post(message)
            at_ns = smp.clock.at_ns
        async with listening(tmp_path, key=key, postgres=server) as other:
            other.clock.at_ns = at_ns + 60 * NS
            again = await other.post(message)
            assert (first[0], again[0], first[1]) == (202, 200, again[1])
            assert other.told()[ACME] == 0
        assert cluster.rows(count, database=database) == [(1,)]
    finally:
        cluster.give_back(database)


async def test_row_17_same_id_other_content(smp):
    """Row 17: "same messageId, other content, valid signature": 409, both stored, alarm, nobody acts on the second."""
    draft, _ = await smp.accepted(message_id="m-1")
    told, counted = smp.told(), smp.refusals()
    other = smp.draft(message_id="m-1", result=ReturnResult.ERRORS, errors=errors("BESS001"))
    status, body = await smp.post(other)
    assert (status, json.loads(body)["status"]) == (409, 409)
    assert (await smp.post(other))[0] == 409  # however often
    assert smp.new_refusals(counted) == {"same_id_other_content": 2}
    assert smp.rows("SELECT count(*) FROM returns") == [2]
    assert smp.rows(ALARMS) == ["CONFLICT"]
    assert smp.told() == told
    assert (await smp.post(draft))[0] == 200


async def test_row_17_signed_again_with_a_new_time(smp):
    """Row 17: "a re-signed retry with only a new timestamp is a duplicate (200)": the first receipt, no alarm, no second row."""
    draft = smp.draft()
    first = await smp.post(draft)
    smp.clock.at_ns += 2 * NS
    time = smp.wire._message._time_out(smp.clock.wall_ns())
    later = smp.put(draft, "timestamp", time)
    assert later != draft
    again = await smp.post(later)
    assert (first[0], again[0]) == (smp.profile.spec.ack.status, 200)
    assert first[1] == again[1]
    assert smp.rows("SELECT count(*) FROM returns") == [1]
    assert smp.rows(ALARMS) == []


async def test_row_18_a_hundred_at_once(smp):
    """Row 18: "100 identical returns at once": one effect, 1 x 202, 99 x 200."""
    ours = await smp.submission("BESS001")
    body, tokens = smp.seal(smp.draft()).sent()
    answers = await asyncio.gather(*(smp.send(body, tokens) for _ in range(100)))
    statuses = [status for status, _, _ in answers]
    first = smp.profile.spec.ack.status
    assert sorted(statuses) == sorted([first, *[200] * 99])
    assert len({body for _, _, body in answers}) == 1
    await smp.settled()
    assert (smp.told()[ACME], await smp.state(ours)) == (1, "CONFIRMED")
    assert smp.rows("SELECT count(*) FROM returns") == [1]


# row 19 ------------------------------------------------------------------------------------------------------------------


@each(b'"x":1,"x":2', b'"x":1,"\\u0078":2', b'"y":{"x":1,"x":1}', b'"y":[{"x":1,"x":1}]')
async def test_row_19_duplicate_members_of_the_body(smp, twice):
    """Row 19: "duplicate JSON keys (twice, also nested, also escaped) in body": 400, only on a validly signed message, before any use."""
    draft, good = await smp.accepted()
    changed = draft.saying(draft.payload.replace(b"{", b"{" + twice + b",", 1))
    await smp.refused(400, "duplicate_member", *smp.seal(changed).sent())
    await smp.unauthentic("bad_signature", smp.with_body(good, changed.payload))


async def test_row_19_the_transaction_id_twice(smp):
    """Row 19: "`transactionId` twice": 400, whichever of the two would be ours."""
    draft, _ = await smp.accepted()
    at = draft.payload.index(b'"a0B1"')
    start = draft.payload.rindex(b'"', 0, draft.payload.rindex(b'"', 0, at))
    member = draft.payload[start:at]
    for first, second in ((b'"a0B1"', b'"a0B2"'), (b'"a0B2"', b'"a0B1"')):
        both = draft.payload[:start] + member + first + b"," + member + second + draft.payload[at + 6 :]
        json.loads(both)
        await smp.refused(400, "duplicate_member", *smp.seal(draft.saying(both)).sent())


@pytest.mark.jws
async def test_row_19_duplicate_members_of_the_protected_header(smp):
    """Row 19: "in ... protected header": 401, though it is signed."""
    draft, good = await smp.accepted()
    header = json.dumps(good.header).encode()
    for extra in (b'"alg":"ES256",', b'"kid":"smp-1",', b'"\\u0061lg":"ES256",', b'"x":{"y":1,"y":1},'):
        await smp.unauthentic("duplicate_member", smp.seal(draft, header=b"{" + extra + header[1:]))
