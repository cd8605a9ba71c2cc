"""Messages under a profile: what one side writes the other reads, under the shipped profiles and under drawn ones."""

import importlib.util
from pathlib import Path

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge.envelope import Algorithm, sign
from bridge.keys import KeySigner, new_key
from bridge.model import Kind, Operation
from bridge.profile import MessageKind, ReturnResult, StatusWord, load_profile, parse_profile
from bridge.wire import (
    BatchReturn,
    CreateAnswer,
    ItemError,
    MessageMeta,
    RenderedItem,
    StatusAnswer,
    Token,
    Unreadable,
    Wire,
)

_SPEC = importlib.util.spec_from_file_location(
    "random_profile", Path(__file__).parents[1] / "support/random_profile.py"
)
_MODULE = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_MODULE)
random_profile = _MODULE.random_profile

NS = 1_000_000
SIGNER = KeySigner("k" * 43, Algorithm.PS256, new_key(Algorithm.PS256))
PROFILES = {name: load_profile(name) for name in ("default", "odd", "dip-like")}
PROFILES |= {f"drawn-{seed}": parse_profile(random_profile(seed)) for seed in range(7)}
WIRES = {name: Wire(profile) for name, profile in PROFILES.items()}
every_profile = pytest.mark.parametrize("name", PROFILES)
quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])

_texts = st.text(
    st.characters(min_codepoint=32, max_codepoint=0x2FF, exclude_categories=["Cc"]), min_size=1, max_size=20
)
_ids = st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-", min_size=1, max_size=36)
_kw = st.integers(0, 100_000_000)
_instants = st.datetimes(min_value=__import__("datetime").datetime(1990, 1, 1)).map(
    lambda moment: moment.isoformat(timespec="milliseconds") + "Z"
)
_times = st.integers(0, 4_000_000_000_000).map(lambda ms: ms * NS)
_technologies = st.sampled_from(PROFILES["default"].schemas[Kind.ASSET]["properties"]["technologyType"]["enum"])
_contact = st.fixed_dictionaries({}, optional={"name": _texts, "phone": _texts, "email": _texts}).filter(bool)

assets = st.fixed_dictionaries(
    {
        "assetReference": _ids,
        "assetName": _texts,
        "postcode": _texts,
        "gspGroup": st.just("_A"),
        "connectionType": st.sampled_from(["TRANSMISSION", "DISTRIBUTION"]),
        "connectionVoltageKv": st.sampled_from([0.23, 0.4, 6.6, 11.0, 33.0, 132.0]),
        "technologyType": _technologies,
        "maxExportKw": _kw,
        "maxImportKw": _kw,
        "meteringType": st.sampled_from(["HH", "BOUNDARY", "ASSET"]),
        "meteringIntervalMs": st.sampled_from([50, 500, 1000, 60000, 1800000]),
        "effectiveFrom": _instants,
    },
    optional={
        "importMpan": _ids,
        "exportMpan": _ids,
        "amsid": _ids,
        "latitude": st.floats(-90, 90).map(lambda value: round(value, 6)),
        "longitude": st.floats(-180, 180).map(lambda value: round(value, 6)),
        "gridSupplyPoint": _texts,
        "storageCapacityKwh": _kw,
        "services": st.lists(_texts, max_size=3),
        "effectiveTo": _instants,
        "controlContact": _contact,
    },
)
_members = st.lists(
    st.fixed_dictionaries(
        {"assetReference": _ids},
        optional={"assetId": _ids, "alignedCapacityKw": _kw, "effectiveFrom": _instants, "effectiveTo": _instants},
    ),
    min_size=1,
    max_size=4,
)
units = st.fixed_dictionaries(
    {
        "unitReference": _ids,
        "unitName": _texts,
        "bmParticipation": st.sampled_from(["BM", "NON_BM"]),
        "service": _texts,
        "capacityKw": _kw,
        "gspGroup": st.just("_A"),
        "alignedAssets": _members,
        "effectiveFrom": _instants,
    },
    optional={
        "bmUnitId": _ids,
        "direction": st.sampled_from(["POSITIVE", "NEGATIVE", "BOTH"]),
        "effectiveTo": _instants,
        "controlPoint": _contact,
    },
)
errors = st.lists(
    st.builds(
        ItemError,
        code=_ids,
        message=_texts,
        warning=st.booleans(),
        index=st.none() | st.integers(0, 999),
        reference=_ids,
        field=_texts,
        value=st.none() | _texts | st.integers(0, 9),
    ),
    max_size=3,
).map(tuple)
pairs = st.dictionaries(_ids, _ids, max_size=3).map(lambda found: tuple(found.items()))


def _meta(name, kind, **changes):
    spec = PROFILES[name].spec.message
    version = str(spec.version) if spec.schema_version.present else ""
    values = {
        "message_id": "0b0f0000-0000-4000-8000-000000000001",
        "operation": kind.value,
        "timestamp_ns": 1_795_392_000_123 * NS,
        "environment": "TEST",
        "sender": "ACME",
        "recipient": "SMP",
        "correlation_id": "sub-000123",
        "schema_version": version,
    }
    return MessageMeta(**{**values, **changes})


def _received(rendered):
    """A message as its receiver has it."""
    headers = {name.lower(): value for name, value in rendered.headers.items()}
    return headers, orjson.loads(rendered.body), orjson.loads(orjson.dumps(dict(rendered.protected)))


@every_profile
@quick
@given(items=st.lists(assets, min_size=1, max_size=3))
def test_assets_survive_the_way_to_the_platform(name, items):
    """A Create call of assets reads back as the very same items, under every profile."""
    wire, meta = WIRES[name], _meta(name, MessageKind.ASSET_CREATE)
    rendered = wire.render_create(Operation.ASSET_CREATE, items, meta)
    assert wire.read_request(Operation.ASSET_CREATE, *_received(rendered)) == (meta, items)


@every_profile
@quick
@given(unit=units)
def test_a_unit_survives_the_way_to_the_platform(name, unit):
    """A Create call of a unit with its aligned assets reads back as the very same item."""
    wire, meta = WIRES[name], _meta(name, MessageKind.UNIT_CREATE)
    rendered = wire.render_create(Operation.UNIT_CREATE, [wire.render_item(Kind.UNIT, unit)], meta)
    assert wire.read_request(Operation.UNIT_CREATE, *_received(rendered)) == (meta, [unit])


@every_profile
def test_a_status_question_survives(name):
    """The transaction id keeps its case and its letters."""
    wire, meta = WIRES[name], _meta(name, MessageKind.STATUS)
    rendered = wire.render_status("a0l4L0000005iPb", meta)
    assert wire.read_status_request(*_received(rendered)) == (meta, "a0l4L0000005iPb")


@every_profile
@quick
@given(data=st.data())
def test_an_answer_survives(name, data):
    """The immediate answer reads back as it was given."""
    wire = WIRES[name]
    answer = CreateAnswer(
        transaction_id=data.draw(_ids),
        status=data.draw(_ids),
        received_ns=data.draw(_times),
        errors=data.draw(_shaped(name)),
    )
    assert wire.read_answer(*_received(wire.render_answer(answer))) == answer


@every_profile
@quick
@given(data=st.data())
def test_a_status_answer_survives(name, data):
    """A status answer reads back as it was given, whatever the profile's words are."""
    wire, spec = WIRES[name], PROFILES[name].spec.status_answer
    status = data.draw(st.sampled_from([word for word in StatusWord if word is not StatusWord.UNKNOWN]))
    counts = data.draw(st.fixed_dictionaries({part: st.integers(0, 1000) for part in ("total", "succeeded", "failed")}))
    answer = StatusAnswer(
        status=status,
        word=next(str(word) for word, meaning in spec.words.items() if meaning is status),
        transaction_id=data.draw(_ids),
        updated_ns=data.draw(_times),
        created=data.draw(pairs) if spec.created else (),
        errors=data.draw(_shaped(name)),
        **counts,
    )
    assert wire.read_status(*_received(wire.render_status_answer(answer))) == answer


@every_profile
@quick
@given(data=st.data())
def test_a_return_survives(name, data):
    """A return reads back as it was given: whose, what of it, which items."""
    wire, spec = WIRES[name], PROFILES[name].spec.batch_return
    answer = BatchReturn(
        meta=_meta(name, MessageKind.RETURN),
        transaction_id=data.draw(_ids),
        operation=data.draw(st.sampled_from(["asset.create", "unit.create"])),
        in_reply_to=data.draw(_ids) if spec.in_reply_to else "",
        result=data.draw(st.sampled_from(sorted(set(spec.words.values()), key=lambda word: word.value))),
        completed_ns=data.draw(_times),
        created=data.draw(pairs) if spec.created else (),
        errors=data.draw(_shaped(name)),
    )
    assert wire.read_return(*_received(wire.render_return(answer))) == answer


def _shaped(name):
    """Errors as this profile can carry them: a list keeps their order; a map groups them by reference; not every profile has an index."""
    shape = PROFILES[name].spec.errors

    def fit(found):
        kept = [
            ItemError(
                code=error.code,
                message=error.message,
                warning=error.warning,
                index=error.index if shape.index else None,
                reference=error.reference,
                field=error.field,
                value=error.value,
            )
            for error in found
        ]
        if shape.shape.value == "map":
            kept = list({error.reference: error for error in kept if error.reference != shape.unnamed}.values())
        return tuple(kept)

    return errors.map(fit)


@every_profile
def test_an_acknowledgement_survives(name):
    """Our receipt reads back, and a duplicate gets the profile's own status."""
    wire, ack = WIRES[name], PROFILES[name].spec.ack
    status, body = wire.render_ack("m-1", 1_795_392_000_123 * NS, duplicate=False)
    read = wire.read_ack(body)
    assert (status, read.message_id, read.received_ns, read.state) == (ack.status, "m-1", 1_795_392_000_123 * NS, str(ack.state_word))  # fmt: skip
    assert wire.render_ack("m-1", 0, duplicate=True)[0] == ack.duplicate_status


@every_profile
def test_a_login_survives(name):
    """User name, password and token go through; the token is shown in the profile's header and form."""
    wire = WIRES[name]
    assert wire.read_credentials(wire.render_authenticate("acme", "pass word")) == ("acme", "pass word")
    token = wire.read_token(wire.render_token(Token("aaa.bbb.ccc", 1800)))
    assert token == Token("aaa.bbb.ccc", 1800)
    headers = {header.lower(): value for header, value in wire.token_headers(token.value).items()}
    assert wire.read_shown_token(headers) == "aaa.bbb.ccc"
    assert wire.read_shown_token({}) == ""


@every_profile
def test_a_token_is_never_printed(name):
    """The token's repr hides it."""
    assert "hidden" not in repr(WIRES[name].read_token(WIRES[name].render_token(Token("hidden", 10))))


def test_default_messages_look_as_the_domain_says():
    """The default profile's create call, to the byte."""
    item = {"assetReference": "BESS001", "maxExportKw": 49500, "controlContact": {"name": "Jo"}}
    meta = _meta("default", MessageKind.ASSET_CREATE)
    rendered = WIRES["default"].render_create(Operation.ASSET_CREATE, [item], meta)
    assert orjson.loads(rendered.body) == {
        "messageId": meta.message_id,
        "messageType": "asset.create",
        "schemaVersion": "1.0",
        "timestamp": "2026-11-23T00:00:00.123Z",
        "environment": "TEST",
        "sender": "ACME",
        "recipient": "SMP",
        "correlationId": "sub-000123",
        "data": {"assets": [item]},
    }
    assert rendered.headers == {"Idempotency-Key": meta.message_id}
    assert rendered.protected == {}


def test_odd_messages_differ_in_structure():
    """The odd profile: a bare array of records with megawatts as text, and everything else in the protected header."""
    item = {
        "assetReference": "BESS001",
        "maxExportKw": 49500,
        "maxImportKw": 1,
        "effectiveFrom": "2026-11-23T00:00:00.000Z",
    }
    rendered = WIRES["odd"].render_create(Operation.ASSET_CREATE, [item], _meta("odd", MessageKind.ASSET_CREATE))
    assert orjson.loads(rendered.body) == [
        {"ref": "BESS001", "mw": {"up": "49.5", "down": "0.001"}, "span": {"begin": 1795392000000}}
    ]
    assert rendered.protected == {
        "mid": "0b0f0000-0000-4000-8000-000000000001",
        "knd": 11,
        "tms": 1795392000123,
        "env": "TEST",
        "frm": "ACME",
        "dst": "SMP",
        "cor": "sub-000123",
    }


def test_the_odd_answer_brings_its_id_in_a_header():
    """A transaction id stands in an HTTP header, not in the body."""
    assert WIRES["odd"].read_answer({"x-receipt": "R-9"}, {}, {}).transaction_id == "R-9"


@every_profile
@pytest.mark.parametrize("body", [None, [], {}, "text", 5, {"a": [1, {"b": None}]}, [[[]]]])
def test_nonsense_is_read_without_raising(name, body):
    """Whatever JSON an answer holds, it reads as an answer without an id, and no word is UNKNOWN."""
    answer = WIRES[name].read_answer({}, body, {})
    assert (answer.transaction_id, bool(answer.problem)) == ("", True)
    assert WIRES[name].read_status({}, body, {}).status is StatusWord.UNKNOWN


@pytest.mark.parametrize("body", [{}, {"data": {}}, {"data": {"assets": {}}}, {"data": {"assets": [1]}}, [], None])
def test_a_request_without_records_is_unreadable(body):
    """A Create call without a list of objects has no sense."""
    with pytest.raises(Unreadable):
        WIRES["default"].read_request(Operation.ASSET_CREATE, {}, body, {})


def test_a_return_that_names_nothing_is_unreadable():
    """A return without transaction, message or correlation id cannot be matched to anything."""
    with pytest.raises(Unreadable):
        WIRES["default"].read_return({}, {"data": {"result": "SUCCESS"}}, {})


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"result": "success"}, (ReturnResult.SUCCESS, "", 0)),
        ({"errors": [{"code": 7, "recordIndex": "3"}]}, (ReturnResult.ERRORS, "", 1)),
        ({"errors": ["one", "two"]}, (ReturnResult.ERRORS, "", 2)),
        ({"errors": "only one"}, (ReturnResult.ERRORS, "", 1)),
        ({"errors": {"code": "alone"}}, (ReturnResult.ERRORS, "", 1)),
        ({"errors": [{"severity": "warning"}]}, (None, "", 1)),
        ({"result": "MAYBE"}, (None, "MAYBE", 0)),
        ({}, (None, "", 0)),
    ],
)
def test_returns_are_read_tolerantly(data, expected):
    """DOMAIN 4, tolerant reading: errors alone mean ERRORS, bare strings are messages, words have no case."""
    read = WIRES["default"].read_return({}, {"correlationId": "c", "data": data}, {})
    assert (read.result, read.unknown_word, len(read.errors)) == expected


def test_numbers_may_be_strings_and_codes_numbers():
    """An index as text counts, a code as a number becomes text."""
    error = WIRES["default"].read_answer({}, {"errors": [{"code": 7, "recordIndex": "3"}]}, {}).errors[0]
    assert (error.code, error.index) == ("7", 3)
    assert WIRES["default"].read_status({}, {"status": "queued", "counts": {"total": "12"}}, {}).total == 12


@pytest.mark.parametrize(
    "value", ["2026-11-23T10:00:00", "2026-11-23", "2026-11-23T10:00:60Z", "9999-99-99T00:00:00Z", 5, None, "", "now"]
)
def test_a_time_without_zone_or_sense_is_none(value):
    """A timestamp that cannot be judged reads as None, never as a guess and never as a crash."""
    assert WIRES["default"].read_meta({}, {"timestamp": value}, {}).timestamp_ns is None


@pytest.mark.parametrize("transaction_id", ["", "x" * 129, "a\r\nb", "with é", " a", 1.5, True, None, {}])
def test_unusable_transaction_ids_are_a_problem(transaction_id):
    """What cannot be an id leaves the call in doubt instead of reaching a header or an EMS."""
    answer = WIRES["default"].read_answer({}, {"transactionId": transaction_id}, {})
    assert (answer.transaction_id, bool(answer.problem)) == ("", True)


@pytest.mark.parametrize("transaction_id", ["x" * 129, "a\r\nb", "\x1b[31mred", "with é", " a"])
def test_a_return_has_no_unusable_transaction_id_either(transaction_id):
    """It would go to the EMS, to status calls and into lists: a return is matched by what else it echoes, or names nothing."""
    data = {"transactionId": transaction_id, "result": "SUCCESS"}
    assert WIRES["default"].read_return({}, {"correlationId": "c", "data": data}, {}).transaction_id == ""
    with pytest.raises(Unreadable):
        WIRES["default"].read_return({}, {"data": data}, {})


def test_an_integer_transaction_id_is_kept_as_text():
    """A numeric id, however large, is opaque text."""
    assert (
        WIRES["default"].read_answer({}, {"transactionId": 90071992547409931}, {}).transaction_id == "90071992547409931"
    )


def test_an_unknown_type_keeps_its_word():
    """A pushed message of a kind that the profile does not know is no return."""
    meta = WIRES["default"].read_meta({}, {"messageId": "m", "messageType": "asset.gone"}, {})
    assert (meta.operation, meta.kind, WIRES["default"].is_return(meta)) == ("asset.gone", None, False)


def test_a_resigned_retry_compares_equal():
    """Without its own timestamp a message equals its re-signed retry, and the message itself is left alone."""
    wire = WIRES["default"]
    one, two = ({"messageId": "m", "timestamp": time, "data": {"a": [1]}} for time in ("t1", "t2"))
    assert wire.without_timestamp(one) == wire.without_timestamp(two)
    assert one["timestamp"] == "t1"


def _signed_size(wire, profile, operation, items):
    """The bytes that travel: the call of these items, signed in the profile's form by a key of the largest usual size."""
    rendered = wire.render_create(operation, items, _meta(profile.name, MessageKind(operation.value)))
    if profile.signature_form.certified:  # the signature stands in headers
        return len(rendered.body)
    return len(sign(profile.signature_form, rendered.body, SIGNER, rendered.protected).body)


@every_profile
@pytest.mark.parametrize("kind", list(Kind))
def test_a_call_is_filled_up_to_its_limits(name, kind):
    """A call takes as many items as its count and its bytes allow: the signed body of these fits, a few more would not."""
    profile, limit = PROFILES[name], 30_000
    limits = profile.limits.model_copy(update={"max_body_bytes": limit, "records": 1000})
    small = profile.spec.model_copy(update={"limits": limits})
    wire = Wire(type(profile)(spec=small, schemas=profile.schemas, vocabulary=profile.vocabulary, hash=""))
    operation = Operation.ASSET_CREATE if kind is Kind.ASSET else Operation.UNIT_CREATE
    reference = "assetReference" if kind is Kind.ASSET else "unitReference"
    rendered = [wire.render_item(kind, {reference: f"REF{number:05}" * 5}) for number in range(1200)]
    count = wire.fit(operation, rendered)
    assert _signed_size(wire, profile, operation, rendered[:count]) <= limit
    if kind is Kind.UNIT and profile.spec.unit.shape == "object":
        assert count == 1
    else:
        # What the estimate keeps free: members and a signature as long as they may ever be.
        assert 50 < count < 1000
        assert _signed_size(wire, profile, operation, rendered[: count + 80]) > limit
    huge = [wire.render_item(kind, {reference: "x" * 70_000})]
    assert wire.fit(operation, huge) == 0


@every_profile
@pytest.mark.parametrize("operation", [Operation.ASSET_CREATE, Operation.UNIT_CREATE])
@pytest.mark.parametrize("limit", [29_998, 29_999, 30_000, 30_001])
def test_the_largest_item_fits_alone_and_a_byte_more_does_not(name, operation, limit):
    """What is worked out once says the same as the look at each item."""
    profile = PROFILES[name]
    small = profile.spec.model_copy(update={"limits": profile.limits.model_copy(update={"max_body_bytes": limit})})
    wire = Wire(type(profile)(spec=small, schemas=profile.schemas, vocabulary=profile.vocabulary, hash=""))
    largest = wire.largest(operation)
    assert wire.fit(operation, [RenderedItem(b"x" * largest)]) == 1
    assert wire.fit(operation, [RenderedItem(b"x" * (largest + 1))]) == 0


def test_a_thousand_assets_fit_one_default_call_and_no_more():
    """The count limit: 1000 go, the 1001st waits."""
    rendered = [WIRES["default"].render_item(Kind.ASSET, {"assetReference": f"R{number}"}) for number in range(1001)]
    assert WIRES["default"].fit(Operation.ASSET_CREATE, rendered) == 1000


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[]", b"{}", b'{"access_token": 5}', b'{"access_token": "a b"}', b'{"access_token": "a\\r\\nb"}'],
)
def test_a_login_answer_without_a_usable_token_is_none(body):
    """Nothing that could break or smuggle a header becomes a token."""
    assert WIRES["default"].read_token(body) is None


@pytest.mark.parametrize(
    ("life", "expected"), [(60, 60), ("90", 90), (None, 3600), (-1, 3600), ("x", 3600), (True, 3600)]
)
def test_a_token_life_without_sense_is_the_profiles_default(life, expected):
    """Only a positive number of seconds counts."""
    assert WIRES["default"].read_token(orjson.dumps({"jwt": "abc", "expires_in": life})).lifetime_s == expected
