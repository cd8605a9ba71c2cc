"""DOMAIN 9, row 40 as properties: whatever comes, the gate answers with a verdict, and what it takes is exactly what was signed."""

import base64
import json
import math
import secrets
from types import SimpleNamespace

import certificates
import hypothesis
import pytest
from end_point import ACME, FORMS, Smp, StillClock, profile_of, public, signer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutations import bytes_changed

from bridge.envelope import BodyRefused, SignatureRefused, parse_strict
from bridge.envelope.base64url import decode, encode
from bridge.envelope.gate import unwrap
from bridge.envelope.json import LARGEST_EXACT, MAX_DEPTH
from bridge.market.calls import Identity
from bridge.market.flood import Flood
from bridge.market.returns import MessageRefused, ReturnReader
from bridge.wire import Wire

EVERY = (*FORMS, "dip-like")
VERDICTS = (SignatureRefused, BodyRefused, MessageRefused)
FEW = 30  # of each property under each form, in every run

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
exact = st.one_of(
    st.none(), st.booleans(), st.integers(-LARGEST_EXACT, LARGEST_EXACT), texts,
    st.floats(allow_nan=False, allow_infinity=False).filter(lambda number: number or math.copysign(1, number) > 0),
)  # fmt: skip
values = st.recursive(
    exact, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=12
)
nearly = st.text('[]{},:"\\u0dD8-+.eE123 \n\ttruefalsnN\x00é\ud800', max_size=60).map(
    lambda text: text.encode("utf-8", "surrogatepass")
)
FORBIDDEN = [
    "-0",
    "-0.0",
    "1e999",
    "-1e999",
    "NaN",
    "Infinity",
    "9007199254740993",
    "9" * 400,
    '"\\ud800"',
    '"\\udc00\\ud800"',
    "01",
]
raw = st.recursive(
    st.sampled_from(FORBIDDEN) | exact.map(json.dumps),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda found: f"[{','.join(found)}]")
        | st.lists(st.tuples(st.sampled_from(['"a"', '"\\u0061"', '"b"', '"\\ud83d\\ude00"']), inner), max_size=3).map(
            lambda found: "{" + ",".join(f"{name}:{value}" for name, value in found) + "}"
        )
    ),
    max_leaves=6,
)  # well formed, but for what is refused all the same
deep = st.tuples(st.integers(28, 36), raw).map(lambda drawn: "[" * drawn[0] + drawn[1] + "]" * drawn[0])
written = (raw | deep | values.map(json.dumps)).map(str.encode)
anything = st.one_of(st.binary(max_size=80), nearly, written)
names = st.from_regex(r"[a-z][a-z0-9-]{0,15}", fullmatch=True)
headers = st.dictionaries(names, st.text(max_size=30), max_size=6)


def held(request, found, strategy, few=FEW):
    """Let this property be tried: some examples, always the same ones; at length as many as were asked for, from a seed that is printed."""
    tried = given(strategy)(found)
    quiet = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}
    if request.node.get_closest_marker("long") is None:
        settings(max_examples=few, derandomize=True, **quiet)(tried)()
        return
    seed = request.config.getoption("--fuzz-seed") or secrets.randbelow(2**31)
    examples = max(few, request.config.getoption("--fuzz-messages") // 20)
    print(f"\n{request.node.name}: {examples} examples from seed {seed}")
    hypothesis.seed(seed)(settings(max_examples=examples, **quiet)(tried))()


# Each property in every run, and at length.
briefly_and_long = pytest.mark.parametrize("length", ["briefly", pytest.param("at length", marks=pytest.mark.long)])


@pytest.fixture(params=EVERY)
def side(request):
    """A reader of returns and a sender that knows its key, without a network between them."""
    profile, clock = profile_of(request.param), StillClock()
    certified = profile.signature_form.certified
    key = certificates.holder() if certified else signer()
    made = object.__new__(Smp)
    made.profile, made.key, made.clock, made.wire = profile, key, clock, Wire(profile)
    reader = ReturnReader(
        identity=Identity(participant=ACME, sender="ACME", recipient="SMP", environment="TEST"), profile=profile,
        keys={} if certified else {key.kid: public(key)}, agreed=certificates.agreed() if certified else None, return_url=certificates.URL,
    )  # fmt: skip
    flood = Flood(clock.mono_ns, burst=10**9)

    def read(body, tokens, given_headers=None):
        return reader.read(body, tokens, given_headers or {}, clock.now(), flood=flood, source="s").message

    return SimpleNamespace(smp=made, reader=reader, read=read, certified=certified)


def tokens_of(side, sent):
    """The values of each of the signature headers, as the end point hands them to its reader."""
    names = side.reader.signature_headers
    own = side.smp.profile.signature_header
    pairs = [(own, token) if isinstance(token, str) else token for token in sent]
    return [[value for name, value in pairs if name == wanted] for wanted in names]


def depth(value):
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth, inner), default=0)


def whole(number):
    assert number != "-0"
    assert abs(int(number)) <= LARGEST_EXACT


def real(number):
    assert math.isfinite(float(number))
    assert number.strip("-0.eE+") or not number.startswith("-") or float(number)


def members(pairs):
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def constant(name):
    raise AssertionError(name)


def may_be_taken(text):
    """The rules of rows 19 to 21 and 27, said once more with nothing of the product's."""
    try:
        found = json.loads(text.decode())
        json.dumps(found, ensure_ascii=False).encode()
        json.loads(text, parse_int=whole, parse_float=real, object_pairs_hook=members, parse_constant=constant)
    except (ValueError, AssertionError):
        return False
    return depth(found) <= MAX_DEPTH and not text.startswith(b"\xef\xbb\xbf")


@briefly_and_long
def test_row_40_strict_json_of_any_bytes(request, length):
    """Any bytes: the value that any other parser reads from them, if no rule is against it, else one refusal, and nothing else."""

    def found(text):
        try:
            value = parse_strict(text)
        except BodyRefused:
            assert not may_be_taken(text)
            return
        assert may_be_taken(text)
        assert json.dumps(value) == json.dumps(json.loads(text))

    held(request, found, anything, few=300)


@briefly_and_long
def test_row_40_strict_json_takes_what_is_exact(request, length):
    """Every value within the limits is taken, and comes out as it went in, however it was written."""

    def found(value):
        for how in ({}, {"ensure_ascii": False}, {"indent": 2}, {"separators": (",", ":")}):
            assert json.dumps(parse_strict(json.dumps(value, **how).encode())) == json.dumps(value)

    held(request, found, values, few=80)


@briefly_and_long
def test_row_40_nothing_unsigned_is_taken(request, length, side):
    """Arbitrary bytes with arbitrary signature and other headers: always a refusal, of the few kinds that there are."""
    one = st.lists(
        st.text(max_size=40) | st.from_regex(r"[\w-]{0,20}\.[\w-]{0,9}\.[\w-]{0,20}", fullmatch=True), max_size=2
    )
    tokens = st.tuples(*[one] * len(side.reader.signature_headers)).map(list)

    def found(drawn):
        with pytest.raises(VERDICTS):
            side.read(*drawn)

    held(request, found, st.tuples(anything, tokens, headers))


@briefly_and_long
def test_row_40_what_is_signed_is_what_is_taken(request, length, side):
    """SMP signs anything at all, or a return with any member in it: a verdict; what is taken is byte for byte what was signed."""
    draft = side.smp.draft()
    extended = values.map(lambda value: side.smp.with_extra(draft, json.dumps(value)))
    replaced = st.tuples(
        st.sampled_from(["id", "type", "sender", "recipient", "environment", "timestamp", "correlation_id"]), exact
    ).map(lambda drawn: placed(side.smp, draft, *drawn))

    def found(drawn):
        signed, more = drawn
        body, sent = side.smp.seal(signed).sent()
        tokens = tokens_of(side, sent)
        try:
            message = side.read(body, tokens, more)
        except (BodyRefused, MessageRefused):  # no `SignatureRefused`: it is authentic, whatever it says
            return
        assert (message.body, message.headers) == (body, more)
        payload = body if side.certified else unwrap(side.smp.form, body, tokens[0])[0]
        assert payload == signed.payload

    held(request, found, st.tuples(extended | replaced | anything.map(draft.saying), headers))


def placed(smp, draft, member, value):
    """The draft with this value there, where the profile has such a member in a place that a message carries."""
    try:
        return smp.put(draft, member, value)
    except (AttributeError, TypeError):
        return draft


@briefly_and_long
def test_row_40_what_is_changed_is_not_taken(request, length, side):
    """A signed return that is changed in one of its parts, or anywhere as it travels, is refused, unless the change says the very same: the same payload under the same header."""
    draft = side.smp.draft()
    sealed = side.smp.seal(draft)
    body, sent = sealed.sent()
    assert side.read(body, tokens_of(side, sent)).body == body
    changes = CERTIFIED if side.certified else JWS

    def found(drawn):
        random, change = drawn
        changed, given = changes[change](random, sealed)
        tokens = tokens_of(side, given)
        try:
            message = side.read(changed, tokens)
        except VERDICTS:
            return
        assert message.body == changed
        if side.certified:
            assert changed == body, "the body is under the signature as it is"
            return
        assert unwrap(side.smp.form, changed, tokens[0]) == (draft.payload, sealed.header)

    held(request, found, st.tuples(st.randoms(use_true_random=False), st.sampled_from(sorted(changes))))


def travelling(random, sealed):
    """The message as it travels, changed anywhere."""
    body, sent = sealed.sent()
    if not sent or random.random() < 0.3:
        return bytes_changed(random, body), sent
    place = random.randrange(len(sent))
    name, value = ("", sent[place]) if isinstance(sent[place], str) else sent[place]
    value = bytes_changed(random, value.encode()).decode("latin-1")
    return body, [*sent[:place], (name, value) if name else value, *sent[place + 1 :]]


def flipped(random, data):
    """The same number of bytes, one bit of them another one."""
    at = random.randrange(len(data))
    return bytes([*data[:at], data[at] ^ (1 << random.randrange(8)), *data[at + 1 :]])


JWS = {
    "anywhere": travelling,
    "payload": lambda random, sealed: sealed.but(payload=bytes_changed(random, sealed.payload)).sent(),
    "a letter of the payload": lambda random, sealed: sealed.but(
        payload=sealed.payload.replace(b"a0B1", b"a0B2")
    ).sent(),
    "header": lambda random, sealed: sealed.but(head=encode(bytes_changed(random, decode(sealed.head)))).sent(),
    "signature": lambda random, sealed: sealed.but(tail=encode(flipped(random, decode(sealed.tail)))).sent(),
}
CERTIFIED = {
    "anywhere": travelling,
    "body": lambda random, sealed: hashed(sealed, bytes_changed(random, sealed.body)).sent(),
    "a letter of the body": lambda random, sealed: hashed(sealed, sealed.body.replace(b"a0B1", b"a0B2")).sent(),
    "signature": lambda random, sealed: sealed.but(
        signature=certificates.b64(flipped(random, base64.b64decode(sealed.value("signature"))))
    ).sent(),
}


def hashed(sealed, body):
    """With this body and its own hash."""
    return sealed.but(body=body, digest=certificates.digest(body))
