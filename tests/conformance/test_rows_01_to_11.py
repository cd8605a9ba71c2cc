"""DOMAIN 9, rows 1 to 11: a message that is not authentic gets the same 401, whatever is wrong with it."""

import asyncio
import base64
import json
import socket

import pytest
from conformance_support import listening, public, signer
from cryptography.hazmat.primitives import hashes, hmac, serialization

from bridge.envelope import Algorithm
from bridge.envelope.base64url import encode
from bridge.keys import KeySigner

HEAD = {"alg": "ES256", "kid": "smp-1"}


async def test_row_1_no_empty_two_malformed(smp, body):
    """Row 1: no signature; empty; two signature headers; malformed base64url; padding; trailing data."""
    good = smp.sign(body)
    await smp.refused(401, "no_signature", body, [])
    await smp.refused(401, "no_signature", body, [""])
    await smp.refused(401, "two_signatures", body, [good, good])
    await smp.refused(401, "base64url", body, [good[:-1] + "*"])
    await smp.refused(401, "base64url", body, [good + "=="])
    await smp.refused(401, "malformed", body, [good + ".AAAA"])
    await smp.refused(401, "malformed", body, ["abc"])
    await smp.refused(401, "payload_present", body, [good.replace("..", f".{encode(body)}.")])


@pytest.mark.parametrize(
    ("alg", "reason"),
    [
        ("none", "alg_not_allowed"),
        ("None", "alg_not_allowed"),
        ("nOnE", "alg_not_allowed"),
        (None, "alg_missing"),
        (7, "alg_missing"),
    ],
)
async def test_row_2_alg_none(smp, body, alg, reason):
    """Row 2: `alg: none`, `None`, `nOnE`, missing alg, alg not a string."""
    header = {"kid": "smp-1"} if alg is None else {"alg": alg, "kid": "smp-1"}
    await smp.refused(401, reason, body, [smp.forge(body, header)])


@pytest.mark.parametrize("form", ["PEM", "DER", "JWK", "SSH"])
async def test_row_3_hs256_with_the_public_key_as_secret(tmp_path, form):
    """Row 3: HS256 made with the RSA public key as secret in PEM, DER, JWK and SSH text."""
    key = signer(Algorithm.PS256)
    async with listening(tmp_path, key=key) as smp:
        assert (await smp.good())[0] == 202
        found = public(key).key
        encodings = {
            "PEM": (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
            "DER": (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo),
            "SSH": (serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH),
        }
        secret = json.dumps(key.public_jwk()).encode() if form == "JWK" else found.public_bytes(*encodings[form])
        body = json.dumps(smp.message()).encode()
        head = encode(json.dumps({"alg": "HS256", "kid": "smp-1"}).encode())
        mac = hmac.HMAC(secret, hashes.SHA256())
        mac.update(f"{head}.{encode(body)}".encode())
        await smp.refused(401, "alg_not_allowed", body, [f"{head}..{encode(mac.finalize())}"])


async def test_row_4_right_key_other_alg(tmp_path):
    """Row 4: RS256 for a PS256 key; ES384 for ES256; ECDSA r=s=0; wrong length."""
    key = signer(Algorithm.PS256)
    async with listening(tmp_path, key=key) as smp:
        assert (await smp.good())[0] == 202
        body = json.dumps(smp.message()).encode()
        other = KeySigner("smp-1", Algorithm.RS256, key._key)
        await smp.refused(401, "alg_mismatch", body, [smp.sign(body, other)])


async def test_row_4_ecdsa_edges(smp, body):
    """Row 4: ES384 for ES256; ECDSA r=s=0; wrong length."""
    good = smp.sign(body)
    head, _, tail = good.split(".")
    await smp.refused(401, "alg_not_allowed", body, [smp.forge(body, {"alg": "ES384", "kid": "smp-1"})])
    await smp.refused(401, "signature_length", body, [f"{head}..{encode(bytes(64))}"])
    await smp.refused(401, "signature_length", body, [f"{head}..{encode(base64.urlsafe_b64decode(tail + '==')[:63])}"])


@pytest.mark.parametrize(
    ("kid", "reason"),
    [
        (None, "kid_missing"),
        ("", "kid_missing"),
        (7, "kid_missing"),
        ("nobody", "kid_unknown"),
        ("k" * 200, "kid_malformed"),
        ("../../dev/null", "kid_unknown"),
        ("' OR 1=1 --", "kid_unknown"),
        ("https://127.0.0.1/jwks", "kid_unknown"),
        ("smp-1\x00", "kid_malformed"),
    ],
)
async def test_row_5_kid(smp, body, kid, reason):
    """Row 5: kid missing, unknown, long, path, SQL text, URL, NUL."""
    header = {"alg": "ES256"} if kid is None else {"alg": "ES256", "kid": kid}
    await smp.refused(401, reason, body, [smp.forge(body, header)])


async def test_row_5_kid_of_10_kilobytes(smp, body):
    """Row 5: kid of 10 KB."""
    await smp.refused(
        401, "too_large", body, [smp.forge(body, {"alg": "ES256", "kid": "k" * 5500 + "é" * 500})[:8000] + ".."]
    ) if False else await smp.refused(401, "too_large", body, [smp.forge(body, {"alg": "ES256", "kid": "k" * 6000})])


async def test_row_6_embedded_keys_and_urls(smp, body):
    """Row 6: embedded `jwk`, `x5c`; `jku`, `x5u` pointing at a loopback listener that sees no connection."""
    with socket.create_server(("127.0.0.1", 0)) as trap:
        trap.settimeout(0.05)
        url = f"http://127.0.0.1:{trap.getsockname()[1]}/keys"
        mallory = signer(kid="smp-1")
        for member in ({"jwk": mallory.public_jwk()}, {"x5c": ["AAAA"]}, {"jku": url}, {"x5u": url}):
            token = smp.forge(body, {**HEAD, **member}, mallory)
            await smp.refused(401, "embedded_key", body, [token])
        with pytest.raises(TimeoutError):
            await asyncio.to_thread(trap.accept)


@pytest.mark.parametrize("crit", [["exp"], [], ["alg"], ["b64", "b64"], "b64", ["absent"]])
async def test_row_7_crit(smp, body, crit):
    """Row 7: crit unknown, empty, duplicate, not a list, naming `alg`, naming an absent header."""
    await smp.refused(401, "crit", body, [smp.forge(body, {**HEAD, "crit": crit})])


async def test_row_8_b64_false(smp, body):
    """Row 8: `b64:false` without `crit`; with `crit` when the profile does not allow it."""
    await smp.refused(401, "b64", body, [smp.forge(body, {**HEAD, "b64": False})])
    await smp.refused(401, "crit", body, [smp.forge(body, {**HEAD, "b64": False, "crit": ["b64"]})])


async def test_row_9_flattened_extras(tmp_path):
    """Row 9: flattened form with extra `signatures[]`, or an unprotected header."""
    from bridge.envelope import SignatureRefused, sign, verify
    from bridge.profile import SignatureForm

    key = signer()
    keys = {key.kid: public(key)}
    good = json.loads(sign(SignatureForm.JWS_FLATTENED, b"{}", key, {}).body)
    assert verify(SignatureForm.JWS_FLATTENED, json.dumps(good).encode(), [], keys).payload == b"{}"
    for extra in ({"signatures": []}, {"header": {"alg": "ES256"}}, {"header": {"kid": "smp-1"}}, {"x": 1}):
        with pytest.raises(SignatureRefused) as refused:
            verify(SignatureForm.JWS_FLATTENED, json.dumps({**good, **extra}).encode(), [], keys)
        assert refused.value.reason.value == "extra_member"


async def test_row_10_any_change_of_the_bytes(smp, body):
    """Row 10: one bit of body, header or signature changed; white space added; CRLF; key order changed; BOM added."""
    good = smp.sign(body)
    flipped = bytes([body[0] ^ 1]) + body[1:]
    reordered = json.dumps(dict(reversed(json.loads(body).items()))).encode()
    for changed in (flipped, body + b" ", body.replace(b", ", b",\r\n", 1), reordered, b"\xef\xbb\xbf" + body):
        await smp.refused(401, "bad_signature", changed, [good])
    head, _, tail = good.split(".")
    raw = bytearray(base64.urlsafe_b64decode(tail + "=="))
    raw[10] ^= 1
    await smp.refused(401, "bad_signature", body, [f"{head}..{encode(bytes(raw))}"])
    header = json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))
    await smp.refused(401, "bad_signature", body, [f"{encode(json.dumps({**header, 'x': 1}).encode())}..{tail}"])


async def test_row_11_signature_of_another_valid_message(smp, body):
    """Row 11: body valid, signature of another valid message."""
    other = json.dumps(smp.message()).encode()
    await smp.refused(401, "bad_signature", body, [smp.sign(other)])
