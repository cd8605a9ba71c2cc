"""DOMAIN 9, rows 20 to 31: what a validly signed body may hold, how large it may be, where it may go, and what it may settle."""

import asyncio
import gzip
import json
import resource
import zlib
from functools import cache

import pytest
from end_point import FORMS, OTHER, each, errors, listening, signer

from bridge.market.endpoint import BODY_S
from bridge.model import ItemState
from bridge.profile import ReturnResult
from bridge.submission import SubmissionState
from bridge.web.public import Bounds

ALARMS = "SELECT code FROM alarms WHERE cleared_ns = 0 ORDER BY code"


# rows 20 and 21 ----------------------------------------------------------------------------------------------------------


@each(
    ("NaN", "not_a_number"),
    ("Infinity", "not_a_number"),
    ("-Infinity", "not_a_number"),
    ("1e999", "not_a_number"),
    ("-1e999", "not_a_number"),
    ("9" * 5000, "integer_too_large"),
    ("9007199254740993", "integer_too_large"),
    ("-9007199254740993", "integer_too_large"),
    ("-0", "negative_zero"),
    ("-0.0", "negative_zero"),
    ("01", "not_json"),
    ("+1", "not_json"),
    ("0x10", "not_json"),
    ("1_000", "not_json"),
)
async def test_row_20_numbers(smp, number, reason):
    """Row 20: "NaN, Infinity, `1e999`, 5000-digit integer, 2^53+1, -0": 400."""
    draft, _ = await smp.accepted()
    await smp.refused(400, reason, *smp.seal(smp.with_extra(draft, number)).sent())


@each("0", "9007199254740992", "-9007199254740992", "1.5", "1e3", "0.1")
async def test_row_20_numbers_that_are_exact(smp, number):
    """Row 20, the other side of its edges: taken."""
    await smp.accepted(smp.with_extra(smp.draft(), number))


@pytest.mark.parametrize("transaction_id", ["9007199254740993", "9" * 64, "a0l4L0000005iPb", "A0L4L0000005IPB"])
async def test_row_20_big_ids_stay_text(smp, transaction_id):
    """Row 20: "400, except big ids which stay text": digits beyond any number, and letters of any case, to the letter."""
    await smp.accepted(transaction_id=transaction_id)
    assert smp.rows("SELECT transaction_id FROM returns") == [transaction_id]


@each(*((depth, shape) for depth in [32, 33, 900, 1100, 100_000] for shape in ["lists", "objects"]))
async def test_row_21_nesting(smp, depth, shape):
    """Row 21: "nesting 900, 1100, 100,000; limit depth 32 before parse": 400, and nothing recurses."""
    draft, _ = await smp.accepted()
    raw = "[" * depth + "]" * depth if shape == "lists" else '{"a":' * depth + "1" + "}" * depth
    # The body's own object is the first of the 32, or the second.
    await smp.refused(400, "too_deep", *smp.seal(smp.with_extra(draft, raw)).sent())


async def test_row_21_the_deepest_that_is_taken(smp):
    """Row 21, the other side of its edge: 32 in all; brackets inside texts do not count."""
    room = 31 - smp.draft().payload.index(b"{")  # a list around the body's object is one of them
    await smp.accepted(smp.with_extra(smp.draft(), "[" * room + "]" * room))
    await smp.accepted(smp.with_extra(smp.draft(), json.dumps('[[{"' * 1000)))


async def test_row_21_a_list_of_a_million(smp):
    """Row 21: "1,000,000-item list": 400 before anything is built of it."""
    draft, _ = await smp.accepted()
    raw = "[" + "1," * 999_999 + "1]"
    await smp.refused(400, "too_many_values", *smp.seal(smp.with_extra(draft, raw)).sent())


async def test_row_21_a_text_of_ten_megabytes(smp):
    """Row 21: "10 MB string": 413."""
    draft, _ = await smp.accepted()
    body, tokens = smp.seal(smp.with_extra(draft, '"' + "x" * 10_000_000 + '"')).sent()
    await smp.refused(413, "body_too_large", body, tokens)


async def test_row_21_an_unending_text(smp):
    """Row 21: a text of escapes that never ends costs no more than its length."""
    draft, _ = await smp.accepted()
    raw = b'{"extra":"' + b'\\"' * 700_000
    async with asyncio.timeout(10):
        await smp.refused(400, "not_json", *smp.seal(draft.saying(raw)).sent())


# rows 22 and 23 ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["default", "odd"])
async def test_row_22_limit_and_one_more(tmp_path, form):
    """Row 22: "body of limit, limit+1": 202 / 413."""
    async with listening(tmp_path, profile=form) as smp:
        limit = smp.profile.limits.max_answer_bytes
        draft = smp.draft()
        extra = limit - len(draft.payload) if form == "default" else limit * 3 // 4 - 2000
        draft = smp.with_extra(draft, json.dumps("x" * (extra - len('"extra":"",'))))
        body, tokens = smp.seal(draft).sent()
        if form == "odd":  # white space around the JWS itself is under no signature
            body += b" " * (limit - len(body))
        assert len(body) == limit
        assert (await smp.send(body, tokens))[0] == smp.profile.spec.ack.status
        await smp.settled()
        await smp.refused(413, "body_too_large", body + b" ", tokens)


async def test_row_22_a_gigabyte_declared(smp):
    """Row 22: "1 GB declared": 413 at once, while nothing of it has come but one byte."""
    await smp.accepted()
    counted = smp.refusals()
    answer = await smp.raw(smp.head("Content-Length: 1000000000") + b"{")
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert smp.new_refusals(counted) == {"body_too_large": 1}


async def test_row_22_chunked_without_end(smp):
    """Row 22: "chunked without end": 413, the connection is closed, memory flat."""
    await smp.accepted()
    before, counted = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, smp.refusals()
    answer = await smp.raw(smp.head("Transfer-Encoding: chunked"), more=b"10000\r\n" + b" " * 65536 + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert smp.new_refusals(counted) == {"body_too_large": 1}
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60_000


async def test_row_22_a_body_that_stops(tmp_path):
    """Row 22: "413 or 408": a body that is not finished within the limit gets 408, and nothing of it is kept."""
    assert BODY_S == 30.0
    async with listening(tmp_path, bounds=Bounds(linger_s=0.1), limits={"body_s": 0.1}) as smp:
        _, good = await smp.accepted()
        before, counted = smp.stored(), smp.refusals()
        answer = await smp.raw(smp.head("Content-Length: 1000") + good.sent()[0][:10])
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert (smp.new_refusals(counted), smp.stored()) == ({"body_too_slow": 1}, before)


@cache
def bomb():
    """50 MB of blanks as some hundred bytes."""
    return gzip.compress(gzip.compress(b" " * 50_000_000))


@each("gzip", "br", "deflate", "gzip, gzip", "zstd", "x-gzip", "GZIP")
async def test_row_23_compressed_bodies(smp, coding):
    """Row 23: "`Content-Encoding: gzip`, br, deflate, nested gzip bomb": 415; never decompressed."""
    _, good = await smp.accepted()
    body, tokens = good.sent()
    packed = {"gzip": gzip.compress(body), "deflate": zlib.compress(body), "gzip, gzip": bomb()}.get(coding, body)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    await smp.refused(415, "content_encoding", packed, tokens, headers={"Content-Encoding": coding})
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30_000


async def test_row_23_identity_is_no_coding(smp):
    """Row 23, the other side of its edge: `identity` is taken."""
    status, _ = await smp.post(smp.draft(), headers={"Content-Encoding": "identity"})
    assert status == smp.profile.spec.ack.status


# rows 27 and 28 ----------------------------------------------------------------------------------------------------------


@each(
    (None, "content_type"),
    ("text/xml", "content_type"),
    ("text/html", "content_type"),
    ("multipart/form-data; boundary=x", "content_type"),
    ("application/x-www-form-urlencoded", "content_type"),
    ("application/octet-stream", "content_type"),
    ("", "content_type"),
    ("{}; charset=utf-16", "charset"),
    ("{}; charset=latin-1", "charset"),
)
async def test_row_27_media_types(smp, media, reason):
    """Row 27: "Content-Type missing, text/xml, multipart, charset=utf-16": 415."""
    _, good = await smp.accepted()
    how = {"skip": ("Content-Type",)} if media is None else {"headers": {"Content-Type": media.format(smp.profile.return_content_types[0])}}  # fmt: skip
    await smp.refused(415, reason, *good.sent(), **how)


@each("{}; charset=utf-8", "{};charset=UTF-8")
async def test_row_27_utf_8_may_be_said(smp, media):
    """Row 27, the other side of its edge: `charset=utf-8` is taken."""
    headers = {"Content-Type": media.format(smp.profile.return_content_types[0])}
    assert (await smp.post(smp.draft(), headers=headers))[0] == smp.profile.spec.ack.status


@each(
    (b'"\xff"', "not_utf8"),
    (b'"\xc3"', "not_utf8"),
    (b'"\xc0\xaf"', "not_utf8"),  # an overlong /
    (b'"\xed\xa0\x80"', "not_utf8"),  # a surrogate in UTF-8
    (b'"\\ud800"', "lone_surrogate"),
    (b'"\\udc00\\ud800"', "lone_surrogate"),
    (b'{"\\ud800":1}', "lone_surrogate"),
    (b'["\\udfff"]', "lone_surrogate"),
    (b'"\x00"', "not_json"),
    (b'"a\nb"', "not_json"),
)
async def test_row_27_texts(smp, raw_text, reason):
    """Row 27: "invalid UTF-8; lone surrogates; overlong": 400, only on a validly signed message."""
    draft, _ = await smp.accepted()
    await smp.refused(400, reason, *smp.seal(smp.with_extra(draft, raw_text)).sent())


async def test_row_27_whole_bodies(smp):
    """Row 27: a byte order mark, UTF-16, nothing, a bare value, two values: 400, though signed."""
    draft, _ = await smp.accepted()
    payload = draft.payload
    for body, reason in (
        (b"\xef\xbb\xbf" + payload, "byte_order_mark"),
        (payload.decode().encode("utf-16"), "not_utf8"),
        (payload + b"{}", "not_json"),
        (b"5", "no_message_id"),
        (b'"text"', "no_message_id"),
        (b"null", "no_message_id"),
    ):
        await smp.refused(400, reason, *smp.seal(draft.saying(body)).sent())


async def test_row_27_an_id_that_no_index_holds(smp):
    """Row 27: "overlong": 400, for with a 503 the message would come again and again."""
    draft, _ = await smp.accepted()
    await smp.refused(400, "message_id_too_long", *smp.seal(smp.put(draft, "id", "x" * 3000)).sent())


@each("id", "recipient")
async def test_row_27_surrogates_where_the_header_says_who(flattened, member):
    """Row 27 where a message's members stand in the protected header: refused as any header that is no JSON text."""
    draft, good = await flattened.accepted()
    name = getattr(flattened.profile.spec.message, member).name
    header = json.dumps({**good.header, name: "\ud800"}).encode()
    await flattened.unauthentic("header_not_json", flattened.seal(draft, header=header))


@each("GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE")
async def test_row_28_methods(smp, method):
    """Row 28: "GET, PUT, TRACE, OPTIONS": 405, no listing, one body for all."""
    _, good = await smp.accepted()
    before, counted = smp.stored(), smp.refusals()
    body, tokens = good.sent()
    status, _, answer = await smp.send(body, tokens, method=method)
    plain = {"type": "about:blank", "title": "Method not allowed", "status": 405}
    assert (status, method == "HEAD" or json.loads(answer) == plain) == (405, True)
    assert (smp.new_refusals(counted), smp.stored()) == ({"http_405": 1}, before)


@each(
    ("/", "http_404"),
    ("/v1", "http_404"),
    ("/v1/returns", "http_404"),
    ("/v1/returns/", "http_404"),
    ("/v1/returns/nobody", "http_404"),
    ("/V1/returns/acme-test", "http_404"),
    ("/v1//returns/acme-test", "http_404"),
    ("/v1/returns//acme-test", "http_404"),
    ("/v1/returns/other-test%2f..%2facme-test", "http_404"),
    ("OWN/", "http_404"),
    ("/OWN", "http_404"),
    ("/x/%2e%2eOWN", "http_404"),
    ("/x/..OWN", "http_404"),
    ("/%2e%2eOWN", "http_404"),
    ("OWN%00", "http_404"),
    ("OWN;x=1", "http_404"),
    ("OWN?x=1", "unknown_path"),
    ("OWN?transactionId=a0B1", "unknown_path"),
    ("OWN in capitals", "http_404"),
)
async def test_row_28_paths(smp, path, reason):
    """Row 28: "unknown path, `//`, `%2e%2e`, mixed-case path, query string": 404, no listing, one body for all."""
    _, good = await smp.accepted()
    before, counted = smp.stored(), smp.refusals()
    own = smp.path()
    changed = path.replace("OWN", own.upper() if "capitals" in path else own).removesuffix(" in capitals")
    status, _, answer = await smp.send(*good.sent(), path=changed)
    assert (status, json.loads(answer)) == (404, {"type": "about:blank", "title": "Not found", "status": 404})
    assert smp.new_refusals(counted) == {reason: 1}
    assert smp.stored() == before


# rows 29 to 31 -----------------------------------------------------------------------------------------------------------


async def quarantined(smp, draft):
    """Taken, stored, in quarantine with an alarm; nobody was told."""
    told = smp.told()
    status, body = await smp.post(draft)
    assert smp.rows("SELECT verdict FROM returns ORDER BY id")[-1] == "quarantined"
    assert smp.rows(ALARMS) == ["QUARANTINE"]
    assert smp.told() == told
    return status, body


async def test_row_29_unknown_kind_of_message(smp):
    """Row 29: "valid and signed, unknown messageType": 202, quarantined, alarm."""
    draft, _ = await smp.accepted()
    assert (await quarantined(smp, smp.put(draft, "type", "party.started")))[0] == smp.profile.spec.ack.status


@pytest.mark.parametrize("kind", ["asset.create", "ack"])
async def test_row_29_a_kind_that_is_no_return(smp, kind):
    """Row 29: a kind that the profile knows, but not as something to push: quarantined too."""
    draft, _ = await smp.accepted()
    word = next(word for known, word in smp.profile.spec.message.types.items() if known.value == kind)
    assert (await quarantined(smp, smp.put(draft, "type", word)))[0] == smp.profile.spec.ack.status


async def test_row_29_unknown_schema(detached):
    """Row 29: "unknown ... schema": 202, quarantined, alarm, and what it says settles nothing."""
    ours = await detached.submission("BESS001")
    status, _ = await quarantined(detached, detached.put(detached.draft(), "schema_version", "2.0"))
    assert (status, await detached.state(ours)) == (202, "AWAITING_RETURN")


async def test_row_29_a_return_that_names_nothing(smp):
    """Row 29: without a transaction, message or correlation id it cannot be matched to anything: quarantined."""
    status, _ = await quarantined(smp, smp.draft(transaction_id="", correlation_id=""))
    assert status == smp.profile.spec.ack.status


@pytest.mark.parametrize("form", FORMS)
async def test_row_29_a_profile_may_choose_422(tmp_path, form):
    """Row 29: "(profile may choose 422)": stored and alarmed all the same; a replay is known again."""
    async with listening(tmp_path, profile=form, ack={"quarantine_status": 422}) as smp:
        draft, _ = await smp.accepted()
        unknown = smp.put(draft, "type", "party.started")
        assert (await quarantined(smp, unknown))[0] == 422
        assert (await smp.post(unknown))[0] == 200
        assert smp.rows("SELECT count(*) FROM returns") == [2]


async def test_row_30_unknown_transaction(smp):
    """Row 30: "valid and signed, unknown transaction id": 202, ORPHAN."""
    ours = await smp.submission("BESS001")
    await smp.accepted(transaction_id="a0Bunknown")
    assert smp.rows("SELECT verdict FROM returns") == ["orphan"]
    assert await smp.state(ours) == "AWAITING_RETURN"
    assert (await smp.journal.counts())["returns.parked"] == 1


async def test_row_30_ids_are_compared_with_their_case(smp):
    """Row 30 and DOMAIN 1.1: an id that differs in its case alone is another one."""
    ours = await smp.submission("BESS001", transaction_id="a0Bxyz")
    await smp.accepted(transaction_id="A0BXYZ")
    assert (smp.rows("SELECT verdict FROM returns"), await smp.state(ours)) == (["orphan"], "AWAITING_RETURN")


async def conflict(smp, ours, state, draft):
    """Taken and stored as a conflict with an alarm; the submission and its items stay as they are."""
    outcomes = smp.rows("SELECT outcome FROM items ORDER BY id")
    await smp.accepted(draft)
    assert smp.rows("SELECT verdict FROM returns ORDER BY id")[-1] == "conflict"
    assert smp.rows(ALARMS) == ["CONFLICT"]
    assert (await smp.state(ours), smp.rows("SELECT outcome FROM items ORDER BY id")) == (state, outcomes)


async def test_row_31_success_after_failed(smp):
    """Row 31: "SUCCESS return after FAILED": 202, stored, CONFLICT, state kept."""
    ours = await smp.submission("BESS001")
    await smp.accepted(result=ReturnResult.ERRORS, errors=errors("BESS001"))
    assert await smp.state(ours) == "FAILED"
    await conflict(smp, ours, "FAILED", smp.draft())


async def test_row_31_errors_after_confirmed(smp):
    """Row 31: "errors after CONFIRMED": 202, stored, CONFLICT, state kept."""
    ours = await smp.submission("BESS001", "BESS002")
    await smp.accepted()
    assert await smp.state(ours) == "CONFIRMED"
    await conflict(smp, ours, "CONFIRMED", smp.draft(result=ReturnResult.ERRORS, errors=errors("BESS002")))


async def test_row_31_return_for_a_cancelled_submission(smp):
    """Row 31: "return for a cancelled submission": 202, stored, CONFLICT, state kept."""
    ours = await smp.submission("BESS001", transaction_id="", state=SubmissionState.IN_DOUBT)
    await smp.journal.settle(smp.sides["acme-test"].fence, ours, SubmissionState.CANCELLED, [], cause="a person")
    await conflict(smp, ours, "CANCELLED", smp.draft(correlation_id=ours))


@pytest.mark.parametrize("state", [SubmissionState.RETRY_WAIT, SubmissionState.WAITING])
async def test_row_31_return_for_a_call_that_smp_had_not_taken(smp, state):
    """Row 31, nearest kin: SMP answered that it did not take the call, then returns its result: CONFLICT, set aside, never sent again by itself."""
    ours = await smp.submission("BESS001", transaction_id="", state=state)
    await smp.accepted(correlation_id=ours)
    assert smp.rows("SELECT verdict FROM returns") == ["conflict"]
    await smp.until("SELECT state FROM submissions", ["SET_ASIDE"])
    await smp.until(ALARMS, ["CONFLICT", "SET_ASIDE"])
    await smp.accepted(correlation_id=ours)
    assert await smp.state(ours) == "SET_ASIDE"


async def test_row_31_what_agrees_is_no_conflict(smp):
    """Row 31, the other side of its edge: another return that says the same raises nothing."""
    ours = await smp.submission("BESS001")
    for _ in range(2):
        await smp.accepted()
    assert (await smp.state(ours), smp.rows(ALARMS)) == ("CONFIRMED", [])


async def test_a_return_settles_what_is_in_doubt(smp):
    """DOMAIN 5: a return that echoes our correlation id ends IN_DOUBT; one with the message id alone does too where the profile has its place."""
    ours = await smp.submission("BESS001", transaction_id="", state=SubmissionState.IN_DOUBT)
    await smp.accepted(correlation_id=ours, transaction_id="a0Bnew")
    assert await smp.state(ours) == "CONFIRMED"
    items = await smp.journal.submission_items(ours)
    assert [item.state for item in items] == [ItemState.REGISTERED]
    assert smp.told()[OTHER] == 0


@pytest.mark.parametrize("form", FORMS)
async def test_receipts_are_signed_where_the_profile_says_so(tmp_path, form):
    """DOMAIN 4: "signed too if `sign_acks` is on": our receipt verifies with our key, in the profile's form."""
    from end_point import public

    from bridge.envelope import verify

    ours = signer(kid="acme-1")
    async with listening(tmp_path, profile=form, sign_with=ours, signature={"sign_acks": True}) as smp:
        draft = smp.draft(message_id="m-1")
        for status in (smp.profile.spec.ack.status, 200):
            found, headers, body = await smp.send(*smp.seal(draft).sent())
            tokens = [headers[name] for name in headers if name.lower() == smp.profile.signature_header.lower()]
            verified = verify(smp.form, body, tokens, {"acme-1": public(ours)})
            assert (found, smp.wire.read_ack(verified.payload).message_id) == (status, "m-1")
