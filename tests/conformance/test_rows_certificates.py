"""DOMAIN 9 under `dip-headers` (DOMAIN 1.3): a message whose signature and certificate are not exactly right gets the same 401, whatever is wrong with it."""

import base64
from datetime import UTC, datetime, timedelta

import certificates as made
import pytest
from certificates import SUBJECT, URL, Headed, authority, b64, certificate, digest, ec_key, holder, rsa_key, shown
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.serialization import Encoding
from end_point import ACME, OTHER, Draft, each, errors, listening

from bridge.envelope import Algorithm, PublicKey, Refusal, certified
from bridge.envelope.certified import Target, signing_input
from bridge.market.flood import Flood
from bridge.profile import ReturnResult

NS = 1_000_000_000
ALARM = ["CERTIFICATE_REFUSED"]


@pytest.fixture
async def dip(tmp_path):
    """An end point under the third shipped profile."""
    async with listening(tmp_path, profile="dip-like") as smp:
        yield smp


def signed(smp, draft, who=None, **how):
    """A message of this draft, signed by whom and how the test wants."""
    return Headed.made(
        smp.profile.signature_headers, draft.payload, who, **{"at_ns": smp.clock.at_ns, "url": URL} | how
    )  # fmt: skip


def another(**how):
    """Somebody with a certificate of the pinned authority that differs from SMP's in this alone."""
    how = {"key": rsa_key("another"), "issuer": authority()} | how
    return holder(certificate(how.pop("subject", SUBJECT), **how), how["key"])


# row 1 -------------------------------------------------------------------------------------------------------------------


async def test_row_1_headers(dip):
    """Row 1: "no signature; empty; two signature headers; malformed; padding; trailing data", for each of the four headers."""
    _, good = await dip.accepted()
    for role in made.ROLES:
        value = good.value(role)
        missing, twice = (
            ("no_signature", "two_signatures") if role == "signature" else ("header_missing", "header_twice")
        )
        await dip.unauthentic(missing, good.but(**{role: None}))
        await dip.unauthentic(missing, good.but(**{role: ""}))
        await dip.unauthentic(twice, good.but(**{role: [value, value]}))
        await dip.unauthentic(twice, good.but(**{role: [value, ""]}))
        await dip.unauthentic("too_large", good.but(**{role: value + "A" * 17_000}))


async def test_row_1_base64(dip):
    """Row 1: "malformed base64url; padding; trailing data": other letters, no padding, too much of it, stray bits, base64url, blanks inside."""
    _, good = await dip.accepted()
    for role in ("signature", "certificate", "digest"):
        value = good.value(role)
        wrong = [
            value[:-4] + "*AAA",
            value[:-1],
            value + "=",
            value + "====",
            value[:8] + " " + value[8:],
            value + "AAA",
        ]
        wrong += [value[:4] + "-_-_" + value[8:], value[:4] + "é" + value[5:]]
        for text in wrong:
            await dip.unauthentic("base64", good.but(**{role: text}))
    bits = good.value("digest")  # 32 bytes: the last letter before the padding has two bits that say nothing
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    stray = letters[letters.index(bits[-2]) | 1 if letters.index(bits[-2]) % 4 == 0 else 63]
    assert base64.b64decode(bits[:-2] + stray + "=") == base64.b64decode(bits)
    await dip.unauthentic("base64", good.but(digest=bits[:-2] + stray + "="))


async def test_row_1_certificate(dip):
    """Row 1 for what the certificate's header holds: no PEM, DER, two of them, text around, a cut or lengthened certificate."""
    _, good = await dip.accepted()
    pem, der = made.own().public_bytes(Encoding.PEM), made.own().public_bytes(Encoding.DER)
    wrong = [b"x", der, pem + pem, b"Subject: smp\n" + pem, pem + b"x", pem.replace(b"CERTIFICATE", b"PUBLIC KEY")]
    wrong += [
        pem.replace(b"-----END", b"A\n-----END"),
        made.pem_of(der[:-1]),
        made.pem_of(der + b"\0"),
        made.pem_of(b"0\0"),
    ]
    wrong += [pem.replace(b"\n", b" \n")]
    for text in wrong:
        await dip.unauthentic("certificate_malformed", good.but(certificate=b64(text)))


@each(
    "2026-11-23T10:00:00Z",
    "2026-11-23T10:00:00.000+00:00",
    "2026-11-23T10:00:00.000z",
    "2026-11-23 10:00:00.000Z",
    "2026-11-23T10:00:60.000Z",
    "2026-13-23T10:00:00.000Z",
    "2026-11-23T24:00:00.001Z",
    "0000-11-23T10:00:00.000Z",
    "1795000000",
    "Mon, 23 Nov 2026 10:00:00 GMT",
)
async def test_row_14_no_date(dip, date):
    """Row 14: "no zone; leap second `:60`" in the date of the signature: 401, no crash."""
    _, good = await dip.accepted()
    await dip.unauthentic("date_malformed", good.but(date=date))


# row 4 -------------------------------------------------------------------------------------------------------------------


async def test_row_4_other_algorithms(dip):
    """Row 4: "right key, other alg ...; wrong length": PSS, other hashes, another kind of key of the agreed subject, too short a key."""
    draft, good = await dip.accepted()
    text = signing_input(Target("POST", URL), good.value("date"), good.value("digest"))
    key, pss = rsa_key(), padding.PSS(padding.MGF1(hashes.SHA256()), 32)
    for scheme, hashed in (
        (pss, hashes.SHA256()),
        (padding.PKCS1v15(), hashes.SHA512()),
        (padding.PKCS1v15(), hashes.SHA1()),
    ):  # noqa: S303
        await dip.unauthentic("bad_signature", good.but(signature=b64(key.sign(text, scheme, hashed))))
    raw = base64.b64decode(good.value("signature"))
    for wrong in (raw[:-1], raw + b"\0", bytes(len(raw)), b"\0"):
        await dip.unauthentic("signature_length", good.but(signature=b64(wrong)))
    elliptic = holder(certificate(key=ec_key("smp"), issuer=authority()), ec_key("smp"), Algorithm.ES256)
    await dip.unauthentic("alg_not_allowed", signed(dip, draft, elliptic))


async def test_row_4_a_weak_key(dip):
    """A key of fewer than 2048 bits is refused though the pinned authority certified it."""
    draft, _ = await dip.accepted()
    await dip.unauthentic("certificate_key", signed(dip, draft, another(key=rsa_key("weak", 1024))))


# rows 10 and 11 ----------------------------------------------------------------------------------------------------------


async def test_row_10_certificates_any_change(dip):
    """Row 10: "one bit of body, header or signature changed; whitespace added; CRLF changed": found by the hash, and with another hash by the signature."""
    _, good = await dip.accepted()
    body = good.body
    changed = [bytes([*body[:at], body[at] ^ 1, *body[at + 1 :]]) for at in (0, len(body) // 2, len(body) - 1)]
    changed += [body + b" ", b"\n" + body, body.replace(b",", b",\r\n", 1), b"\xef\xbb\xbf" + body, b""]
    for other in changed:
        await dip.unauthentic("content_hash", good.but(body=other))
        await dip.unauthentic("bad_signature", good.but(body=other, digest=digest(other)))
    await dip.unauthentic("content_hash", good.but(digest=digest(b"another")))
    raw = base64.b64decode(good.value("signature"))
    for at in (0, 128, 255):
        flipped = bytes([*raw[:at], raw[at] ^ 1, *raw[at + 1 :]])
        await dip.unauthentic("bad_signature", good.but(signature=b64(flipped)))
    later = (
        datetime.fromtimestamp(dip.clock.at_ns / NS + 1, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )
    await dip.unauthentic("bad_signature", good.but(date=later))
    renewed = certificate(key=rsa_key("renewed"), issuer=authority())
    await dip.unauthentic("bad_signature", good.but(certificate=shown(renewed)))


async def test_row_11_method_address_and_message(dip):
    """Row 11: "signature of another valid message; same signature, other method or URL (DIP)": 401; letters of the address may differ in case."""
    draft, one = await dip.accepted()
    _, two = await dip.accepted(transaction_id="a0B2")
    await dip.unauthentic("bad_signature", one.but(signature=two.value("signature")))
    await dip.unauthentic("content_hash", one.but(body=two.body))
    await dip.unauthentic("bad_signature", signed(dip, draft, method="PUT"))
    for url in (
        URL.replace(ACME, OTHER), URL.replace("https", "http"), URL.replace("Acme", "Other"), URL + "/", URL + "?x=1",
        URL.replace("Example/", "Example:8443/"), URL.replace("Example", "Example."),
    ):  # fmt: skip
        await dip.unauthentic("bad_signature", signed(dip, draft, url=url))
    for url in (URL.upper(), URL.replace("Example/", "Example:443/")):
        assert (await dip.post(signed(dip, draft, url=url)))[0] == 200


# rows 12 and 13 ----------------------------------------------------------------------------------------------------------


async def test_row_12_certificate_of_another_participant(dip):
    """Row 12: "signed by another participant's key": its own certificate of the same authority, and the same certificate swapped in beside SMP's signature."""
    draft, good = await dip.accepted()
    other = another(subject="CN=other.example,O=Single Markets,C=GB")
    await dip.unauthentic("certificate_unknown", signed(dip, draft, other))
    swapped = x509.load_der_x509_certificate(other.certificate)
    await dip.unauthentic("certificate_unknown", good.but(certificate=shown(swapped)))


@each(
    "CN=SMP.example,O=Single Markets,C=GB",
    "CN=smp.example,O=Single Markets",
    "CN=smp.example,O=Single Markets,C=GB,OU=x",
    "C=GB,O=Single Markets,CN=smp.example",
    "CN=smp.example+O=Single Markets,C=GB",
    "CN=x,O=Single Markets,C=GB",
)
async def test_row_12_chaining_but_another_subject(dip, subject):
    """A certificate of the pinned authority whose subject is not letter by letter the agreed one: 401."""
    draft, _ = await dip.accepted()
    await dip.unauthentic("certificate_unknown", signed(dip, draft, another(subject=subject)))


async def test_row_12_certificates_path_of_another(dip):
    """Row 12: "path of participant B with A's message": the address is signed, so that B's end point takes nothing of A; B's own is taken there."""
    draft, good = await dip.accepted()
    await dip.unauthentic("bad_signature", good, path=dip.path(OTHER))
    theirs = signed(dip, dip.draft(recipient="OTHER"), url=URL.replace(ACME, OTHER))
    assert (await dip.post(theirs, path=dip.path(OTHER)))[0] == 202
    await dip.settled()
    await dip.refused(
        403, "wrong_recipient", *signed(dip, dip.put(draft, "recipient", "OTHER")).sent(), alarms=["MISDIRECTED"]
    )


async def test_row_13_not_chained(dip):
    """Row 13: "certificate ... not chained": 401 and an alarm: a self-signed copy, another authority, one of its name, one that only has a certificate."""
    draft, _ = await dip.accepted()
    copy = certificate(key=rsa_key("copy"))
    await dip.unauthentic("certificate_not_chained", signed(dip, draft, holder(copy, rsa_key("copy"))), alarms=ALARM)
    leaf = made.Issuer(made.own(), rsa_key())
    namesake = made.Issuer(certificate("CN=pinned", key=ec_key("namesake"), ca=True), ec_key("namesake"))
    for issuer in (authority("CN=stranger"), namesake, leaf):
        await dip.unauthentic("certificate_not_chained", signed(dip, draft, another(issuer=issuer)))
    assert dip.rows("SELECT count FROM alarms") == [1]  # anybody can make one: told once a minute


@each(
    ({"since_days": -30, "until_days": -1}, "certificate_expired"),
    ({"since_days": 1}, "certificate_not_yet_valid"),
)
async def test_row_13_out_of_date(dip, dates, reason):
    """Row 13: "certificate out of date": 401 and an alarm; without its key nobody raises one."""
    draft, good = await dip.accepted()
    late = another(**dates)
    alarms = [] if "CERTIFICATE_REFUSED" in dip.stored()["alarms"] else ALARM
    await dip.unauthentic(reason, signed(dip, draft, late), alarms=alarms)
    await dip.unauthentic(
        "bad_signature", good.but(certificate=shown(x509.load_der_x509_certificate(late.certificate)))
    )


async def test_row_13_its_last_second(dip):
    """A certificate is taken until its end, the end included, and not a second later."""
    draft, _ = await dip.accepted()
    until = x509.load_der_x509_certificate((short := another(until_days=1)).certificate).not_valid_after_utc
    dip.clock.at_ns = int(until.timestamp()) * NS + 999_000_000
    assert (await dip.post(signed(dip, draft, short)))[0] == 200
    dip.clock.at_ns += 1_000_000
    await dip.unauthentic("certificate_expired", signed(dip, draft, short), alarms=ALARM)


async def test_row_13_the_authority_has_ended(tmp_path):
    """A certificate is worth no more than the authority that issued it."""
    ended = authority("CN=ended", until_days=1)
    who = holder(certificate(key=rsa_key(), issuer=ended), rsa_key())
    async with listening(
        tmp_path, profile="dip-like", key=who, agreed=made.agreed(authorities=[ended.certificate])
    ) as smp:
        _, good = await smp.accepted()
        smp.clock.at_ns += int(timedelta(days=1, minutes=1).total_seconds()) * NS
        await smp.unauthentic("certificate_expired", good, alarms=ALARM)


async def test_row_13_revoked(tmp_path):
    """Row 13: "expired or revoked key": a certificate that a person revoked is refused though its subject is agreed; another of the subject is taken."""
    keys = {}
    async with listening(tmp_path, profile="dip-like", keys=keys) as smp:
        draft, good = await smp.accepted()
        keys[made.thumbprint(made.own())] = made.record(made.own(), barred=Refusal.KEY_REVOKED)
        await smp.unauthentic("key_revoked", good, alarms=["KEY_REFUSED"])
        assert (await smp.post(signed(smp, draft, another())))[0] == 200


@each(
    {"usage": made.ENCRYPTING},
    {"ca": True},
    {"extensions": [x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.55555.1"), b"\x05\x00")]},
)
async def test_row_13_not_for_signing(dip, changes):
    """A certificate that is for something else, that is an authority's, or that has a critical extension that nobody here knows: 401."""
    draft, _ = await dip.accepted()
    await dip.unauthentic("certificate_use", signed(dip, draft, another(**changes)))


async def test_a_certificate_without_key_usage_may_sign(dip):
    """RFC 5280 section 4.2.1.3: what is not stated is allowed."""
    draft, _ = await dip.accepted()
    assert (await dip.post(signed(dip, draft, another(usage=None))))[0] == 200


# row 14 ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "cases"),
    [
        (
            "event",
            {-300: None, -301: "late", -6 * 86_400: "late", -8 * 86_400: "too_old", 300: None, 301: "from_the_future"},
        ),
        ("attempt", {-300: None, -301: "too_old", 300: None, 301: "from_the_future"}),
    ],
)
async def test_row_14_the_date_of_the_signature(tmp_path, mode, cases):
    """Row 14: "-301 s and -6 days 202 flagged late, -8 days 401, +301 s 401" for the time header, beside a message that says now."""
    async with listening(tmp_path, profile="dip-like", freshness={"mode": mode}) as smp:
        for offset_s, verdict in cases.items():
            at_ns = smp.clock.at_ns + offset_s * NS
            if verdict in (None, "late"):
                assert (await smp.post(signed(smp, smp.draft(), at_ns=at_ns)))[0] == 202
                assert smp.rows("SELECT late FROM returns ORDER BY id DESC LIMIT 1") == [int(verdict == "late")]
            else:
                draft, _ = await smp.accepted()
                await smp.refused(401, verdict, *signed(smp, draft, at_ns=at_ns).sent())


async def test_row_14_the_message_itself(dip):
    """Row 14: a signature of now makes no old message young."""
    draft, _ = await dip.accepted()
    for offset_s, reason in ((-8 * 86_400, "too_old"), (301, "from_the_future")):
        old = dip.put(draft, "timestamp", dip.wire._message._time_out(dip.clock.at_ns + offset_s * NS))
        await dip.refused(401, reason, *signed(dip, old).sent())


# rows 15 to 17, 36 -------------------------------------------------------------------------------------------------------


async def test_row_15_replay_and_retry(dip):
    """Rows 15 and 17: the same bytes, the same message signed anew, and the same id with other content: 200, 200, 409."""
    draft, good = await dip.accepted()
    stored = dip.effects()
    assert (await dip.post(good))[0] == 200
    dip.clock.at_ns += 5 * NS
    assert (await dip.post(signed(dip, draft)))[0] == 200
    assert dip.effects() == stored
    content = draft.content
    other = Draft(dip.draft(message_id=_message_id(dip, content), transaction_id="a0B7").payload, {})
    assert (await dip.post(signed(dip, other)))[0] == 409


def _message_id(smp, content):
    return smp.wire.read_meta({}, content, {}).message_id


async def test_row_30_what_it_does(dip):
    """A good return settles what it speaks of: the errors' references are refused, the others registered by the profile's rule."""
    submission = await dip.submission("BESS001")
    await dip.accepted(correlation_id=submission, errors=errors("BESS001"), result=ReturnResult.ERRORS)
    assert await dip.state(submission) == "FAILED"


@pytest.mark.parametrize("kind", ["unchained", "unsigned"])
async def test_row_36_a_flood(tmp_path, kind):
    """Row 36: "429 after a limit per source; cheap checks run before the RSA verify": what costs a verification costs a token, what does not is free."""
    async with listening(tmp_path, profile="dip-like", limits={"flood": Flood(lambda: NS, burst=3)}) as smp:
        draft, good = await smp.accepted()
        forged = signed(smp, draft, holder(certificate(key=rsa_key("copy")), rsa_key("copy")))
        forged = forged if kind == "unchained" else good.but(signature=forged.value("signature"))
        counted = smp.refusals()
        for _ in range(5):
            await smp.send(*good.but(body=b"x").sent())
        found = [(await smp.send(*forged.sent()))[0] for _ in range(5)]
        assert found == [401, 401, 401, 429, 429]
        reason = "certificate_not_chained" if kind == "unchained" else "bad_signature"
        assert smp.new_refusals(counted) == {"content_hash": 5, reason: 3, "flood": 2}
        assert (await smp.post(good))[0] == 429


async def test_row_35_verify_is_called_once(dip, monkeypatch):
    """Row 35: "each path calls verify exactly once", a good message too; an authority's signature is worked out once for each certificate."""
    calls, asked, real, real_issued = [], [], PublicKey.verify, certified.issued_by
    monkeypatch.setattr(PublicKey, "verify", lambda key, *rest: calls.append(key.kid) or real(key, *rest))
    monkeypatch.setattr(certified, "issued_by", lambda *pair: asked.append(1) or real_issued(*pair))
    draft, good = await dip.accepted()
    mine, copy = made.thumbprint(made.own()), holder(certificate(key=rsa_key("copy")), rsa_key("copy"))
    await dip.unauthentic("bad_signature", good.but(signature=signed(dip, dip.draft()).value("signature")))
    await dip.unauthentic("bad_signature", signed(dip, draft, copy).but(certificate=good.value("certificate")))
    assert (await dip.post(good))[0] == 200
    assert (calls, len(asked)) == ([mine] * 4, 1)
    await dip.unauthentic("certificate_not_chained", signed(dip, draft, copy), alarms=ALARM)
    await dip.unauthentic("content_hash", good.but(body=b"x"))
    assert (calls, len(asked)) == ([mine] * 4, 2)


# rotation ----------------------------------------------------------------------------------------------------------------


async def test_two_thumbprints_while_a_certificate_changes(tmp_path):
    """While SMP changes its certificate both are agreed, and no message of either is refused; the former one taken out is."""
    first, second = another(subject="CN=smp 2026"), another(subject="CN=smp 2027", key=rsa_key("2027"))
    prints = [made.thumbprint(x509.load_der_x509_certificate(one.certificate)) for one in (first, second)]
    (tmp_path / "both").mkdir()
    (tmp_path / "one").mkdir()
    async with listening(
        tmp_path / "both", profile="dip-like", key=first, agreed=made.agreed(subjects=(), thumbprints=prints)
    ) as smp:
        for who in (first, second, first, second):
            assert (await smp.post(signed(smp, smp.draft(), who)))[0] == 202
        await smp.settled()
        third = another(subject="CN=smp 2027", key=rsa_key("third"))
        await smp.unauthentic("certificate_unknown", signed(smp, smp.draft(), third))
    async with listening(
        tmp_path / "one", profile="dip-like", key=second, agreed=made.agreed(subjects=(), thumbprints=prints[1:])
    ) as smp:
        draft, _ = await smp.accepted()
        await smp.unauthentic("certificate_unknown", signed(smp, draft, first))


async def test_a_certificate_that_is_imported_later(tmp_path):
    """What came with a certificate that nobody knew is refused, kept, and taken once a person has imported that certificate."""
    keys, new = {}, another(subject="CN=smp 2027")
    async with listening(tmp_path, profile="dip-like", keys=keys) as smp:
        submission = await smp.submission("BESS001")
        await smp.unauthentic("certificate_unknown", signed(smp, smp.draft(correlation_id=submission), new))
        assert await smp.endpoint.look_again(ACME) == 0
        parsed = x509.load_der_x509_certificate(new.certificate)
        keys[made.thumbprint(parsed)] = made.record(parsed)
        assert await smp.endpoint.look_again(ACME) == 1
        await smp.settled()
        assert await smp.state(submission) == "CONFIRMED"
