"""Signed JSON without a network: four algorithms in three forms, crossed with another library both ways; the strict gate and the strict parser."""

import base64
import contextlib
import dataclasses
import json
from pathlib import Path

import pytest
from joserfc import jws
from joserfc.jwk import ECKey, OKPKey, RSAKey

from bridge.envelope import (
    Algorithm,
    BodyRefused,
    SignatureForm,
    SignatureRefused,
    base64url,
    parse_strict,
    sign,
    unwrap,
    verify,
)
from bridge.envelope.gate import take_apart, verify_with
from bridge.keys import KeySigner, new_key, public_from_jwk

PAYLOAD = b'{"messageId": "m-1",\r\n "name": "Caf\xc3\xa9"}'
SIGNERS = {alg: KeySigner(f"key-{alg.value}", alg, new_key(alg)) for alg in Algorithm}
RSA_AGAIN = KeySigner("key-PS256", Algorithm.RS256, SIGNERS[Algorithm.PS256]._key)
every_form = pytest.mark.parametrize("form", [form for form in SignatureForm if not form.certified])
every_algorithm = pytest.mark.parametrize("alg", list(Algorithm))
REGISTRY = jws.JWSRegistry(algorithms=[alg.value for alg in Algorithm], strict_check_header=False)


def public(signer, **changes):
    return public_from_jwk(Path("test"), {**signer.public_jwk(), **changes})


def keys(*signers, **changes):
    return {signer.kid: public(signer, **changes) for signer in signers}


def signed(form, signer, payload=PAYLOAD, **protected):
    made = sign(form, payload, signer, protected)
    return made.body, [] if made.token is None else [made.token]


def theirs(signer):
    """The same private key in the other library."""
    jwk = json.loads(json.dumps(signer.alg.jose.to_jwk(signer._key, as_dict=True)))
    jwk.pop("key_ops", None)
    kind = {"EC": ECKey, "OKP": OKPKey, "RSA": RSAKey}[jwk["kty"]]
    return kind.import_key({**jwk, "kid": signer.kid, "alg": signer.alg.value, "use": "sig"})


def reason(form, body, tokens, known):
    with pytest.raises(SignatureRefused) as refused:
        verify(form, body, tokens, known)
    return refused.value.reason.value


# both ways ---------------------------------------------------------------------------------------------------------------


@every_form
@every_algorithm
def test_what_is_signed_verifies(form, alg):
    """The exact payload comes back, with the members of the protected header, the key's id and its algorithm."""
    signer = SIGNERS[alg]
    verified = verify(form, *signed(form, signer, mid="m-1"), keys(*SIGNERS.values()))
    assert (verified.payload, verified.kid, verified.alg) == (PAYLOAD, signer.kid, alg)
    assert verified.protected == {"mid": "m-1", "alg": alg.value, "kid": signer.kid}
    assert unwrap(form, *signed(form, signer)) == (PAYLOAD, {"alg": alg.value, "kid": signer.kid})


@every_form
@every_algorithm
@pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")
def test_the_other_library_verifies_ours(form, alg):
    """joserfc takes what we sign."""
    signer = SIGNERS[alg]
    body, tokens = signed(form, signer)
    if form is SignatureForm.JWS_FLATTENED:
        found = jws.deserialize_json(json.loads(body), theirs(signer), registry=REGISTRY)
    else:
        text = (
            body.decode()
            if form is SignatureForm.JWS_COMPACT
            else tokens[0].replace("..", f".{base64url.encode(body)}.")
        )
        found = jws.deserialize_compact(text, theirs(signer), registry=REGISTRY)
    assert found.payload == PAYLOAD


@every_form
@every_algorithm
@pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")
def test_ours_verifies_the_other_librarys(form, alg):
    """We take what joserfc signs."""
    signer = SIGNERS[alg]
    header = {"alg": alg.value, "kid": signer.kid, "x": 1}
    if form is SignatureForm.JWS_FLATTENED:
        body, tokens = (
            json.dumps(jws.serialize_json({"protected": header}, PAYLOAD, theirs(signer), registry=REGISTRY)).encode(),
            [],
        )
    else:
        token = jws.serialize_compact(header, PAYLOAD, theirs(signer), registry=REGISTRY)
        head, _, tail = token.split(".")
        body, tokens = (token.encode(), []) if form is SignatureForm.JWS_COMPACT else (PAYLOAD, [f"{head}..{tail}"])
    verified = verify(form, body, tokens, keys(signer))
    assert (verified.payload, verified.protected) == (PAYLOAD, header)


def test_the_vector_of_rfc_7515():
    """Appendix A.3 of RFC 7515 (ES256) verifies, and no longer with one letter changed."""
    jwk = {
        "kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
        "alg": "ES256",
    }  # fmt: skip
    token = (
        "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ."
        "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
    )
    key = public_from_jwk(Path("rfc"), jwk, need_kid=False)
    parts = take_apart(SignatureForm.JWS_COMPACT, token.encode(), [])
    assert json.loads(verify_with(parts, key).payload)["iss"] == "joe"
    with pytest.raises(SignatureRefused):
        verify_with(take_apart(SignatureForm.JWS_COMPACT, token.replace("DtEh", "DtEi").encode(), []), key)


@every_form
def test_the_callers_members_cannot_replace_alg_and_kid(form):
    """What a profile puts into the protected header never says which key or algorithm it is."""
    signer = SIGNERS[Algorithm.ES256]
    assert verify(form, *signed(form, signer, alg="none", kid="x"), keys(signer)).protected == {
        "alg": "ES256",
        "kid": signer.kid,
    }


# the gate ----------------------------------------------------------------------------------------------------------------


@every_form
@every_algorithm
def test_every_changed_byte_is_found(form, alg):
    """No byte of head, payload or signature may change, whatever else the message's form lets through."""
    signer = SIGNERS[alg]
    parts = take_apart(form, *signed(form, signer))
    for name in ("signing_input", "signature"):
        value = getattr(parts, name)
        for at in range(0, len(value), 7):
            changed = bytes([*value[:at], value[at] ^ 1, *value[at + 1 :]])
            with pytest.raises(SignatureRefused) as refused:
                verify_with(dataclasses.replace(parts, **{name: changed}), public(signer))
            assert refused.value.reason.value == "bad_signature"


@every_form
@pytest.mark.parametrize("alg", list(Algorithm))
@pytest.mark.parametrize("other", list(Algorithm))
def test_a_key_has_one_algorithm(form, alg, other):
    """The right kid with any other algorithm than the key's own is refused, even where the mathematics would fit."""
    if alg is other:
        return
    signer = dataclasses.replace(SIGNERS[other], kid=f"key-{alg.value}")
    assert reason(form, *signed(form, signer), keys(SIGNERS[alg])) == "alg_mismatch"


@every_form
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"use": "sig"}, ""),
        ({"use": "enc"}, "key_use"),
        ({"key_ops": ["verify"]}, ""),
        ({"key_ops": ["sign", "verify"]}, ""),
        ({"key_ops": ["sign"]}, "key_use"),
        ({"key_ops": []}, "key_use"),
    ],
)
def test_use_and_key_ops_are_honoured(form, changes, expected):
    """RFC 7517: a key for something else verifies nothing."""
    signer = SIGNERS[Algorithm.ES256]
    message = signed(form, signer)
    if expected:
        assert reason(form, *message, keys(signer, **changes)) == expected
    else:
        assert verify(form, *message, keys(signer, **changes)).payload == PAYLOAD


@every_form
def test_one_call_of_verify_for_a_message_that_reaches_it(form, monkeypatch):
    """DOMAIN 9 row 35: a bad signature and a wrong key each cost exactly one verification; what fails before costs none."""
    calls = []
    original = type(public(SIGNERS[Algorithm.ES256])).verify
    monkeypatch.setattr(
        type(public(SIGNERS[Algorithm.ES256])), "verify", lambda key, *rest: calls.append(1) or original(key, *rest)
    )
    signer = SIGNERS[Algorithm.ES256]
    stranger = KeySigner(signer.kid, Algorithm.ES256, new_key(Algorithm.ES256))
    for message, count in (
        (signed(form, signer), 1),
        (signed(form, stranger), 1),
        (signed(form, SIGNERS[Algorithm.PS256]), 0),
    ):
        calls.clear()
        with contextlib.suppress(SignatureRefused):
            verify(form, *message, keys(signer))
        assert len(calls) == count


def test_a_refusal_says_one_word():
    """Nothing of the message stands in the error."""
    with pytest.raises(SignatureRefused) as refused:
        verify(SignatureForm.JWS_DETACHED, b"secret", ["secret..secret"], {})
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("length", [0, 1, 2, 3, 4, 31, 32, 33])
def test_base64url_both_ways(length):
    """Without padding, as another encoder has it."""
    data = bytes(range(200, 200 + length))
    assert base64url.encode(data) == base64.urlsafe_b64encode(data).decode().rstrip("=")
    assert base64url.decode(base64url.encode(data)) == data


@pytest.mark.parametrize(
    "text", ["A", "AA=", "AA==", "A+", "A/", "AA AA", "AAAA\n", "\u0391AAA", "AB", "AAB", "AA.A", "====="]
)
def test_base64url_is_strict(text):
    """Padding, other letters, white space, impossible lengths and stray bits at the end are refused."""
    with pytest.raises(ValueError):
        base64url.decode(text)


# the body ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "[]",
        '"x"',
        "5",
        "null",
        "true",
        '{"a":[1,2.5,-3,1e3,"\\u00e9",{"b":null}]}',
        "[" * 32 + "]" * 32,
        '["\\ud83d\\ude00"]',
    ],
)
def test_the_strict_parser_agrees_with_the_plain_one(text):
    """What is good JSON means what it means to everyone."""
    assert parse_strict(text.encode()) == json.loads(text)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", "not_json"),
        (b"{", "not_json"),
        (b"{}{}", "not_json"),
        (b"{'a':1}", "not_json"),
        (b'{"a":1,}', "not_json"),
        (b"[1,2,]", "not_json"),
        (b"nul", "not_json"),
        (b'"', "not_json"),
        (b'"\\', "not_json"),
        (b'"\\x"', "not_json"),
        (b"]" * 40 + b"[", "not_json"),
        (b"\xef\xbb\xbf{}", "byte_order_mark"),
        (b"\xff", "not_utf8"),
        (b"[" * 33, "too_deep"),
        (b'"a"' + b"[" * 33, "too_deep"),
        (b'{"a":1,"a":1}', "duplicate_member"),
        (b'{"a":1,"\\u0061":1}', "duplicate_member"),
        (b"NaN", "not_a_number"),
        (b"1e400", "not_a_number"),
        (b"9007199254740993", "integer_too_large"),
        (b"-0", "negative_zero"),
        (b"-0e0", "negative_zero"),
        (b'"\\ud800"', "lone_surrogate"),
        (b"[" + b"0," * 300_000 + b"0]", "too_many_values"),
    ],
)
def test_the_strict_parser_refuses(body, expected):
    """DOMAIN 9 rows 19 to 21 and 27, each with its own reason."""
    with pytest.raises(BodyRefused) as refused:
        parse_strict(body)
    assert refused.value.reason == expected


def test_commas_and_brackets_inside_texts_count_for_nothing():
    """Only structure is counted."""
    text = json.dumps({"a": "[{," * 200_000, "b\\": ['"[' * 100, "\\"]})
    assert parse_strict(text.encode()) == json.loads(text)
