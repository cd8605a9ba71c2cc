"""DOMAIN 9, rows 1 to 11: a message that is not authentic gets the same 401, whatever is wrong with it."""

import asyncio
import json
import socket
from base64 import urlsafe_b64decode

import pytest
from cryptography.hazmat.primitives import hashes, hmac, serialization
from end_point import FORMS, LIVE, OTHER, each, listening, public, signer
from overheard import audited, traced_journal

from bridge.envelope import Algorithm, SignatureForm
from bridge.envelope.base64url import decode, encode
from bridge.keys import KeySigner
from bridge.market.returns import ReturnReader


def with_stray_bits(text):
    """The same bytes in letters that an encoder would not have written: the last one has bits that say nothing."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    stray = text[:-1] + letters[letters.index(text[-1]) + 1]
    assert urlsafe_b64decode(stray + "==") == urlsafe_b64decode(text + "==")
    return stray


@pytest.mark.jws
async def test_row_1_malformed_parts(smp):
    """Row 1: "no signature; empty; two signature headers; malformed base64url; padding; trailing data" in every form: 401."""
    _, good = await smp.accepted()
    await smp.unauthentic("no_signature", good.but(tail=""))
    await smp.unauthentic("base64url", good.but(tail=good.tail[:-1] + "*"))
    await smp.unauthentic("base64url", good.but(tail=good.tail + "=="))
    await smp.unauthentic("base64url", good.but(tail=good.tail + "AAA"))
    await smp.unauthentic("base64url", good.but(head=good.head + "="))
    await smp.unauthentic("header_not_json", good.but(head=encode(b"[]")))
    await smp.unauthentic("header_not_json", good.but(head=encode(b'{"alg":')))
    await smp.unauthentic("header_not_json", good.but(head=encode(decode(good.head)[:-1] + b',"x":NaN}')))
    await smp.unauthentic("header_not_json", good.but(head=encode(decode(good.head)[:-1] + b',"x":"\\ud800"}')))
    await smp.unauthentic("base64url", good.but(tail=with_stray_bits(good.tail)))
    await smp.unauthentic("too_large", good.but(head="A" * 9000))
    if smp.form is SignatureForm.JWS_DETACHED:  # the other forms' bound is the body's
        await smp.unauthentic("too_large", good.but(tail="A" * 17_000))


async def test_row_1_detached(detached):
    """Row 1 where the signature is a header: none, an empty one, two of them, trailing data, a payload inside."""
    _, good = await detached.accepted()
    body, [token] = good.sent()
    await detached.unauthentic("no_signature", (body, []))
    await detached.unauthentic("no_signature", (body, [""]))
    await detached.unauthentic("two_signatures", (body, [token, token]))
    await detached.unauthentic("malformed", (body, [token + ".AAAA"]))
    await detached.unauthentic("malformed", (body, ["abc"]))
    await detached.unauthentic("payload_present", (body, [token.replace("..", f".{encode(body)}.")]))


async def test_row_1_flattened(flattened):
    """Row 1 where the body is a JWS in JSON: a member missing or of another type, trailing data, a signature header beside it."""
    _, good = await flattened.accepted()
    body, _ = good.sent()
    message = json.loads(body)

    def without(name):
        return json.dumps({key: value for key, value in message.items() if key != name}).encode()

    await flattened.unauthentic("no_signature", (b"", []))
    await flattened.unauthentic("no_signature", (without("signature"), []))
    await flattened.unauthentic("malformed", (without("payload"), []))
    await flattened.unauthentic("malformed", (without("protected"), []))
    await flattened.unauthentic("malformed", (json.dumps({**message, "signature": 7}).encode(), []))
    await flattened.unauthentic("malformed", (json.dumps({**message, "payload": None}).encode(), []))
    await flattened.unauthentic("malformed", (body + b"{}", []))
    await flattened.unauthentic("malformed", (b"[" * 100_000, []))
    await flattened.unauthentic("malformed", (b"\xff" + body, []))
    await flattened.unauthentic("two_signatures", (body, [f"{good.head}..{good.tail}"]))


async def test_row_1_compact(tmp_path):
    """Row 1 where the body is three dotted parts: too few, too many, a line end, a signature header beside it."""
    async with listening(tmp_path, profile="compact") as smp:
        _, good = await smp.accepted()
        body, _ = good.sent()
        await smp.unauthentic("no_signature", (b"", []))
        await smp.unauthentic("malformed", (body + b".AAAA", []))
        await smp.unauthentic("malformed", (b"abc", []))
        await smp.unauthentic("malformed", (body + "é".encode(), []))
        await smp.unauthentic("base64url", (body + b"\n", []))
        await smp.unauthentic("two_signatures", (body, [f"{good.head}..{good.tail}"]))


@pytest.mark.jws
@each(
    ("none", "alg_not_allowed"),
    ("None", "alg_not_allowed"),
    ("nOnE", "alg_not_allowed"),
    ("es256", "alg_not_allowed"),
    (None, "alg_missing"),
    (7, "alg_missing"),
    (["ES256"], "alg_missing"),
    ({"ES256": 1}, "alg_missing"),
    (True, "alg_missing"),
)
async def test_row_2_alg(smp, alg, reason):
    """Row 2: "`alg: none`, `None`, `nOnE`, missing alg, alg not a string": 401, signed truly or not at all."""
    draft, _ = await smp.accepted()
    changed = smp.seal(draft, header={"alg": alg})
    await smp.unauthentic(reason, changed)
    await smp.unauthentic("no_signature", changed.but(tail=""))


@pytest.fixture(scope="module")
def rsa():
    return signer(Algorithm.PS256)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("encoding", ["PEM", "PEM without its last line end", "DER", "JWK", "SSH"])
async def test_row_3_hs256_with_the_public_key_as_secret(tmp_path, rsa, form, encoding):
    """Row 3: "HS256 made with our/SMP's RSA public key as secret in PEM, DER, JWK and SSH text": 401."""
    async with listening(tmp_path, profile=form, key=rsa) as smp:
        draft, _ = await smp.accepted()
        key, subject = public(rsa).key, serialization.PublicFormat.SubjectPublicKeyInfo
        pem = key.public_bytes(serialization.Encoding.PEM, subject)
        secret = {
            "PEM": pem,
            "PEM without its last line end": pem.rstrip(),
            "DER": key.public_bytes(serialization.Encoding.DER, subject),
            "JWK": json.dumps(rsa.public_jwk()).encode(),
            "SSH": key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH),
        }[encoding]
        forged = smp.seal(draft, header={"alg": "HS256"})
        mac = hmac.HMAC(secret, hashes.SHA256())
        mac.update(f"{forged.head}.{encode(forged.payload)}".encode())
        await smp.unauthentic("alg_not_allowed", forged.but(tail=encode(mac.finalize())))


@pytest.mark.parametrize("form", FORMS)
async def test_row_4_rs256_for_a_ps256_key(tmp_path, rsa, form):
    """Row 4: "right key, other alg (RS256 for a PS256 key ...)": 401, though RS256 itself is on the allow-list."""
    async with listening(tmp_path, profile=form, key=rsa) as smp:
        draft, _ = await smp.accepted()
        other = KeySigner("smp-1", Algorithm.RS256, rsa._key)
        await smp.unauthentic("alg_mismatch", smp.seal(draft, other))
        await smp.unauthentic("alg_mismatch", smp.seal(draft, rsa, {"alg": "ES256"}))
        await smp.unauthentic("bad_signature", smp.seal(draft, other, {"alg": "PS256"}))


@pytest.mark.jws
async def test_row_4_ecdsa_edges(smp):
    """Row 4: "ES384 for ES256; ECDSA r=s=0; wrong length": 401, and so are DER and a signature beyond the curve's order."""
    draft, good = await smp.accepted()
    signature = decode(good.tail)
    await smp.unauthentic("alg_not_allowed", smp.seal(draft, header={"alg": "ES384"}))
    await smp.unauthentic("alg_mismatch", smp.seal(draft, header={"alg": "EdDSA"}))
    await smp.unauthentic("signature_length", good.but(tail=encode(bytes(64))))
    for wrong in (signature[:63], signature + b"\0", signature[:32], b"\0", bytes(96)):
        await smp.unauthentic("signature_length", good.but(tail=encode(wrong)))
    for wrong in (b"\xff" * 64, bytes(32) + signature[32:], signature[:32] + bytes(32)):
        await smp.unauthentic("bad_signature", good.but(tail=encode(wrong)))


@pytest.mark.jws
@each(
    (None, "kid_missing"),
    ("", "kid_missing"),
    (7, "kid_missing"),
    (["smp-1"], "kid_missing"),
    ("nobody", "kid_unknown"),
    ("SMP-1", "kid_unknown"),
    (" smp-1", "kid_unknown"),
    ("k" * 129, "kid_malformed"),
    ("../../dev/null", "kid_unknown"),
    ("' OR 1=1 --", "kid_unknown"),
    ("https://127.0.0.1/jwks", "kid_unknown"),
    ("smp-1\x00", "kid_malformed"),
    ("smp-1\n", "kid_malformed"),
    ("smp-\u0661", "kid_malformed"),
    ("k" * 10_000, "too_large"),
)
async def test_row_5_kid(smp, kid, reason):
    """Row 5: "`kid` missing, unknown, 10 KB, path, SQL text, URL, NUL": 401."""
    draft, _ = await smp.accepted()
    await smp.unauthentic(reason, smp.seal(draft, header={"kid": kid}))


@pytest.mark.jws
async def test_row_5_kids_of_another_entry(smp):
    """Row 5: "other participant's kid, test kid in live": 401, though the end point knows each key, and takes it where it belongs."""
    draft, _ = await smp.accepted()
    theirs = smp.draft(recipient="OTHER")
    live = smp.draft(environment="LIVE")
    assert (await smp.post(smp.seal(theirs, smp.signers[OTHER]), path=smp.path(OTHER)))[
        0
    ] == smp.profile.spec.ack.status
    assert (await smp.post(smp.seal(live, smp.signers[LIVE]), path=smp.path(LIVE)))[0] == smp.profile.spec.ack.status
    await smp.settled()
    for name in (OTHER, LIVE):
        await smp.unauthentic("kid_unknown", smp.seal(draft, smp.signers[name]))
        await smp.unauthentic("kid_unknown", smp.seal(draft, header={"kid": smp.signers[name].kid}))
    for key in (smp.key, smp.signers[OTHER]):
        await smp.unauthentic("kid_unknown", smp.seal(live, key), path=smp.path(LIVE))
        await smp.unauthentic("bad_signature", smp.seal(live, key, {"kid": smp.signers[LIVE].kid}), path=smp.path(LIVE))


KIDS = [
    "nobody",
    "../../dev/null",
    "/etc/passwd",
    "file:///etc/passwd",
    "' OR 1=1 --",
    "https://127.0.0.1:PORT/jwks",
    "journal.db",
]


@pytest.mark.parametrize("form", FORMS)
async def test_row_5_nothing_is_opened_by_kid(tmp_path, monkeypatch, form):
    """Row 5: "no file, DB or network access by kid": while such a message is in the gate the interpreter opens, connects and starts nothing; until it is answered the journal runs no statement and nobody connects."""
    statements = traced_journal(monkeypatch)
    async with listening(tmp_path, profile=form) as smp:
        draft, _ = await smp.accepted()
        assert statements, "the journal is watched"
        with socket.create_server(("127.0.0.1", 0)) as trap, audited(monkeypatch, ReturnReader, "read") as seen:
            trap.settimeout(0.05)
            for kid in KIDS:
                named = kid.replace("PORT", str(trap.getsockname()[1]))
                message = smp.seal(draft, header={"kid": named})
                stored, counted = smp.stored(), smp.refusals()  # what the test itself reads is over before
                seen.clear()
                statements.clear()
                status, _, _ = await smp.send(*message.sent())
                assert (status, seen, statements) == (401, [], [])
                assert (smp.new_refusals(counted), smp.stored()) == ({"kid_unknown": 1}, stored)
            with pytest.raises(TimeoutError):
                await asyncio.to_thread(trap.accept)


@pytest.mark.jws
async def test_row_6_embedded_keys_and_urls(smp):
    """Row 6: "embedded `jwk`, `x5c`; `jku`, `x5u` pointing at a loopback listener": 401, the listener sees no connection."""
    draft, _ = await smp.accepted()
    mallory = signer()
    with socket.create_server(("127.0.0.1", 0)) as trap:
        trap.settimeout(0.05)
        url = f"http://127.0.0.1:{trap.getsockname()[1]}/keys"
        for name, value in (
            ("jwk", mallory.public_jwk()),
            ("x5c", ["AAAA"]),
            ("jku", url),
            ("x5u", url),
            ("x5t", "AAAA"),
            ("x5t#S256", "AAAA"),
        ):
            await smp.unauthentic("embedded_key", smp.seal(draft, mallory, {name: value}))
            await smp.unauthentic("embedded_key", smp.seal(draft, header={name: value}))
        with pytest.raises(TimeoutError):
            await asyncio.to_thread(trap.accept)


@pytest.mark.jws
@each(["exp"], [], ["exp", "exp"], "exp", ["alg"], ["absent"], ["b64"], {}, 7)
async def test_row_7_crit(smp, crit):
    """Row 7: "`crit` unknown, empty, duplicate, not a list, naming `alg`, naming an absent header": 401, signed truly."""
    draft, _ = await smp.accepted()
    await smp.unauthentic("crit", smp.seal(draft, header={"crit": crit, "exp": 1}))


async def test_row_7_crit_in_the_unprotected_part(flattened):
    """Row 7: "`crit` ... in the unprotected part": 401."""
    _, good = await flattened.accepted()
    message = json.loads(good.sent()[0])
    await flattened.unauthentic("extra_member", (json.dumps({**message, "header": {"crit": ["exp"]}}).encode(), []))


@pytest.mark.jws
async def test_row_8_b64_false(smp):
    """Row 8: "`b64:false` without `crit`; with `crit` when the profile does not allow it": 401, and so is `b64:true`."""
    draft, _ = await smp.accepted()
    await smp.unauthentic("b64", smp.seal(draft, header={"b64": False}))
    await smp.unauthentic("b64", smp.seal(draft, header={"b64": True}))
    await smp.unauthentic("crit", smp.seal(draft, header={"b64": False, "crit": ["b64"]}))


@each(
    {"signatures": []},
    {"signatures": [{"protected": "e30", "signature": "AAAA"}]},
    {"header": {}},
    {"header": {"alg": "ES256"}},
    {"header": {"kid": "smp-1"}},
    {"x": 1},
)
async def test_row_9_flattened_extras(flattened, extra):
    """Row 9: "flattened form with extra `signatures[]`, header name in both protected and unprotected parts": 401."""
    _, good = await flattened.accepted()
    message = json.loads(good.sent()[0])
    await flattened.unauthentic("extra_member", (json.dumps({**message, **extra}).encode(), []))


async def test_row_9_flattened_member_twice(flattened):
    """Row 9: a member of the flattened form itself stands twice: 401."""
    _, good = await flattened.accepted()
    body, _ = good.sent()
    await flattened.unauthentic("duplicate_member", (b'{"payload":"e30",' + body[1:], []))


@pytest.mark.jws
async def test_row_10_any_change_of_the_signed_bytes(smp):
    """Row 10: "one bit of body, header or signature changed; whitespace added; CRLF changed; key order changed; BOM added": 401."""
    draft, good = await smp.accepted()
    payload = good.payload
    content = json.loads(payload)
    reordered = json.dumps(dict(reversed(content.items())), separators=(",", ":")).encode()
    assert len(reordered) == len(payload)
    assert reordered != payload
    changed = [
        bytes([*payload[:at], payload[at] ^ 1, *payload[at + 1 :]]) for at in (0, len(payload) // 2, len(payload) - 1)
    ]
    changed += [
        payload + b" ",
        b"\n" + payload,
        payload.replace(b",", b",\r\n", 1),
        reordered,
        b"\xef\xbb\xbf" + payload,
    ]
    for other in changed:
        await smp.unauthentic("bad_signature", good.but(payload=other))
    signature = decode(good.tail)
    for at in (0, 31, 32, 63):
        flipped = bytes([*signature[:at], signature[at] ^ 1, *signature[at + 1 :]])
        await smp.unauthentic("bad_signature", good.but(tail=encode(flipped)))
    header = decode(good.head)
    await smp.unauthentic("bad_signature", good.but(head=encode(header[:-1] + b',"x":1}')))
    await smp.unauthentic("bad_signature", good.but(head=encode(header + b" ")))
    await smp.unauthentic("kid_unknown", good.but(head=encode(header.replace(b"smp-1", b"smp-0"))))


async def test_row_10_a_line_end_of_the_body_is_signed_too(detached):
    """Row 10: "CRLF changed": a body with CRLF is taken as it was signed, and with LF alone it is not."""
    draft, _ = await detached.accepted(detached.draft().saying(detached.draft().payload.replace(b",", b",\r\n")))
    sealed = detached.seal(draft)
    await detached.unauthentic("bad_signature", sealed.but(payload=sealed.payload.replace(b"\r\n", b"\n")))


@pytest.mark.jws
async def test_row_11_signature_of_another_valid_message(smp):
    """Row 11: "body valid, signature of another valid message": 401 both ways."""
    _, one = await smp.accepted()
    _, two = await smp.accepted(transaction_id="a0B2")
    await smp.unauthentic("bad_signature", one.but(payload=two.payload))
    await smp.unauthentic("bad_signature", two.but(payload=one.payload))
    await smp.unauthentic("bad_signature", one.but(tail=two.tail))
