"""Signatures in headers with a certificate, without a network: a vector of OpenSSL's, the limits of a key, what a profile and an entry must name."""

import base64
import io
import json
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import certificates as made
import pytest
from certificates import SUBJECT, URL, Headed, authority, certificate, ec_key, holder, own, rsa_key, thumbprint
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from end_point import profile_of
from paper import find

from bridge.cli import main
from bridge.cli.importing import imported
from bridge.config import load
from bridge.config.host import SmpCertificate
from bridge.envelope import Algorithm, SignatureForm, SignatureRefused, sign, verify
from bridge.envelope.authority import is_authority, issued_by, may_sign
from bridge.envelope.certified import Fields, Target, address, signing_input
from bridge.envelope.certified import verify as judge
from bridge.errors import BridgeError, ConfigError
from bridge.journal.keys import KeySide, KeyState
from bridge.keys import KeySigner, certify, load_authorities, public_from_jwk
from bridge.profile import CertificateForm, load_profile

NS = 10**9
NAMES = load_profile("dip-like").signature_headers
BODY = b'[{"payload":{}}]'
AT = int(made.NOW.timestamp()) * NS + 123_000_000
# Made with OpenSSL 3.0: a key, an authority, a certificate of it (valid from 2026-11-28 for 100 years), and the signature of the line below.
VECTOR = json.loads((Path(__file__).parent / "vectors/dip-headers.json").read_text())


def verdict(message, *, agreed=None, keys=None, at_ns=AT, target=None):
    """The reason why it is refused, '' for a good one."""
    fields = Fields(*message.values)
    try:
        judge(
            target or Target("POST", URL),
            message.body,
            fields,
            agreed=agreed or made.agreed(),
            keys=keys or {},
            now_ns=at_ns,
        )
    except SignatureRefused as refused:
        return refused.reason.value
    return ""


def good(who=None, **how):
    return Headed.made(NAMES, BODY, who, **{"at_ns": AT} | how)


# the form ----------------------------------------------------------------------------------------------------------------


def vector():
    headers = VECTOR["headers"]
    return Headed(NAMES, VECTOR["body"].encode(), tuple((headers[name],) for name in NAMES))


def agreed_with_vector(**more):
    authorities = [x509.load_pem_x509_certificate(VECTOR["authority"].encode())]
    return made.agreed(subjects=(), authorities=authorities, **{"thumbprints": [VECTOR["thumbprint"]], **more})


def test_a_message_that_openssl_signed():
    """DOMAIN 1.3, the line that is signed: a message whose parts another program made is good, and with any of its parts changed it is not."""
    target, at_ns = Target("POST", VECTOR["url"]), int(datetime(2026, 12, 1, tzinfo=UTC).timestamp()) * NS
    line = f"POST;{VECTOR['url'].lower()};{VECTOR['headers']['X-DIP-Signature-Date']};{VECTOR['headers']['X-DIP-Content-Hash']}"
    assert line == VECTOR["line"]
    how = {"agreed": agreed_with_vector(), "at_ns": at_ns, "target": target}
    assert verdict(vector(), **how) == ""
    assert verdict(vector(), **how | {"agreed": agreed_with_vector(thumbprints=["0" * 64])}) == "certificate_unknown"
    assert verdict(vector(), **how | {"target": Target("PUT", VECTOR["url"])}) == "bad_signature"
    assert verdict(vector().but(body=b"[]"), **how) == "content_hash"
    assert verdict(vector().but(date="2026-11-24T00:00:00.001Z"), **how) == "bad_signature"


@pytest.mark.parametrize("encoding", list(CertificateForm))
@pytest.mark.parametrize("alg", [Algorithm.RS256, Algorithm.PS256, Algorithm.ES256, Algorithm.EDDSA])
def test_what_is_signed_verifies(alg, encoding):
    """Every algorithm that a profile may allow, the certificate as PEM or DER; the other encoding is refused."""
    key = {Algorithm.ES256: ec_key(), Algorithm.EDDSA: ed25519.Ed25519PrivateKey.generate()}.get(alg, rsa_key())
    who = holder(_issued(key), key, alg)
    message = good(who, encoding=encoding)
    agreed = made.agreed(algorithms=(alg,), encoding=encoding)
    assert verdict(message, agreed=agreed) == ""
    other = next(one for one in CertificateForm if one is not encoding)
    assert verdict(message, agreed=made.agreed(algorithms=(alg,), encoding=other)) == "certificate_malformed"
    allowed = [one for one in Algorithm if one is not alg]
    assert verdict(message, agreed=made.agreed(algorithms=allowed[:1], encoding=encoding)) in {
        "alg_not_allowed",
        "bad_signature",
    }


def _issued(key, **how):
    hashed = hashes.SHA256()
    return certificate(key=key, issuer=authority(), digest=hashed, **how)


def test_it_is_no_jws():
    """The three JWS forms know nothing of it, and say so to whoever mixes them up."""
    with pytest.raises(ValueError, match="no JWS"):
        verify(SignatureForm.DIP_HEADERS, BODY, ["x"], {})
    with pytest.raises(ValueError, match="no JWS"):
        sign(SignatureForm.DIP_HEADERS, BODY, holder(), {})
    with pytest.raises(BridgeError, match="has no certificate"):
        good(KeySigner("bare", Algorithm.RS256, rsa_key()))


@pytest.mark.parametrize(
    ("url", "signed"),
    [
        ("https://SMP.example/A/b", "https://smp.example/a/b"),
        ("https://smp.example:443/a", "https://smp.example/a"),
        ("https://smp.example:4433/a", "https://smp.example:4433/a"),
        ("https://[::1]:443/a", "https://[::1]/a"),
    ],
)
def test_the_address_that_is_signed(url, signed):
    """In lower case, without the port that https has anyway."""
    assert signing_input(Target("post", url), "D", "H") == f"POST;{signed};D;H".encode()
    assert address(url).lower() == signed


# keys and certificates ---------------------------------------------------------------------------------------------------


def test_a_huge_exponent_costs_nobody_anything():
    """A key whose public exponent is long makes verifying as costly as signing: refused before it is used."""
    numbers = rsa_key().public_key().public_numbers()
    for exponent, expected in ((3, "bad_signature"), (2**32 - 1, "bad_signature"), (2**33 + 1, "certificate_key")):
        public = rsa.RSAPublicNumbers(exponent, numbers.n).public_key()
        strange = certificate(key=rsa_key(), issuer=authority(), public=public)
        assert verdict(good(holder(strange))) == expected


def test_other_curves_and_sizes_are_refused():
    """P-384 is on no list; 1024 bits are too few, more than 4096 cost too much."""
    key = ec.generate_private_key(ec.SECP384R1())
    shown = made.shown(certificate(key=key, issuer=authority()))
    assert (
        verdict(good().but(certificate=shown), agreed=made.agreed(algorithms=list(Algorithm)[1:])) == "alg_not_allowed"
    )


def test_a_weak_hash_chains_to_nothing():
    """A certificate that its authority signed over SHA-1 counts as not issued."""
    pinned, weak = (x509.load_pem_x509_certificate(VECTOR[name].encode()) for name in ("authority", "over_sha1"))
    strong = x509.load_pem_x509_certificate(base64.b64decode(VECTOR["headers"]["X-DIP-Signature-Certificate"]))
    assert issued_by(strong, pinned)
    assert not issued_by(weak, pinned)


def test_who_may_issue_and_who_may_sign():
    """By basic constraints and key usage; an authority signs no messages, and whoever signs messages is no authority."""
    assert is_authority(authority().certificate)
    assert not may_sign(authority().certificate)
    assert may_sign(own())
    assert not is_authority(own())
    assert not may_sign(certificate(key=rsa_key(), issuer=authority(), usage=made.ENCRYPTING))
    assert may_sign(certificate(key=rsa_key(), issuer=authority(), usage=None))


def test_an_intermediate_authority_is_pinned_itself():
    """The certificate alone travels: who issued it must be pinned, its root is not enough."""
    between = made.Issuer(
        certificate("CN=between", key=ec_key("between"), issuer=authority(), ca=True), ec_key("between")
    )
    who = holder(certificate(key=rsa_key(), issuer=between))
    assert verdict(good(who)) == "certificate_not_chained"
    assert verdict(good(who), agreed=made.agreed(authorities=[between.certificate])) == ""


def test_what_is_remembered_is_bounded_and_changes_no_verdict():
    """The authorities' verdict on a certificate is kept, its dates are looked at each time; of each subject the last to end is told."""
    agreed = made.agreed()
    first, second = (certificate(key=rsa_key(), issuer=authority(), until_days=days) for days in (10, 20))
    for one in (second, first):
        assert verdict(good(holder(one)), agreed=agreed) == ""
    assert [taken.thumbprint for taken in agreed.taken()] == [thumbprint(second)]
    assert verdict(good(holder(first)), agreed=agreed, at_ns=AT + 11 * 86_400 * NS) == "certificate_expired"
    for number in range(70):
        agreed.took(f"{number}", x509.Name.from_rfc4514_string(f"CN=s{number}"), 1)
    assert len(agreed.taken()) == 64


def test_a_certificate_of_ours_belongs_to_its_key(tmp_path):
    """Another key's, one that may not sign, and no certificate at all are refused with their file."""
    file = tmp_path / "our.crt.pem"
    signer = KeySigner("k", Algorithm.RS256, rsa_key())
    file.write_bytes(own().public_bytes(Encoding.PEM))
    certified = certify(signer, file)
    assert base64.b64decode(certified.public_jwk()["x5c"][0]) == own().public_bytes(Encoding.DER)
    for wrong, text in (
        (certificate(key=rsa_key("other"), issuer=authority()), "belongs to another key"),
        (certificate(key=ec_key(), issuer=authority()), "does not fit RS256"),
        (certificate(key=rsa_key(), issuer=authority(), usage=made.ENCRYPTING), "is not for signing"),
    ):
        file.write_bytes(wrong.public_bytes(Encoding.PEM))
        with pytest.raises(ConfigError, match=text):
            certify(signer, file)
    file.write_text("x")
    with pytest.raises(ConfigError, match="holds no certificate"):
        certify(signer, file)
    file.write_bytes(own().public_bytes(Encoding.PEM))
    with pytest.raises(ConfigError, match="of no authority"):
        load_authorities(file)


# profiles and entries ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("dip-like", {"signature": {"date_header": None}}, "signature.date_header: is missing; add it"),
        (
            "dip-like",
            {"signature": {"digest_header": "x-dip-signature"}},
            "signature: two of its headers have the same name",
        ),
        ("dip-like", {"signature": {"answers_signed": "if_present"}}, "signature.answers_signed: must be `no`"),
        ("dip-like", {"signature": {"sign_acks": True}}, "signature.sign_acks: must be false"),
        (
            "dip-like",
            {"signature": {"algorithms": ["RS256", "PS256"]}},
            "signature.algorithms: PS256 and RS256 exclude each other",
        ),
        ("dip-like", {"message": {"environment": "protected:env"}}, "message.environment: protected: needs a JWS"),
        (
            "dip-like",
            {"batch_return": {"in_reply_to": "protected:ans"}},
            "batch_return.in_reply_to: protected: needs a JWS",
        ),
        ("default", {"signature": {"date_header": "X-Date"}}, "signature.date_header: belongs to `dip-headers`"),
        ("default", {"signature": {"form": "dip-headers"}}, "signature.certificate_header: is missing"),
    ],
)
def test_a_profile_that_cannot_work_is_refused(name, changes, expected):
    """Everything that the form needs or cannot have is said when the profile is loaded."""
    with pytest.raises(ConfigError) as refused:
        profile_of(name, **changes)
    assert any(expected in str(problem) for problem in refused.value.problems), refused.value.problems


GOOD = Path(__file__).parent / "config_cases/good"
SHIPPED = Path(__file__).parents[2] / "bridge/profiles"
ENTRY = {
    "signing_certificate: keys/any.pem",
    "return_url: https://bridge.example/dip/acme-test/messages",
    "smp_certificate: {ca: keys/any.pem, subjects: ['CN=smp.example,C=GB'], thumbprints: ['" + "AB:" * 31 + "cd']}",
}


def problems_of(directory, lines, profile="dip-like", without="smp_jwks"):
    shutil.copytree(GOOD, directory)
    file = directory / "bridge.yaml"
    kept = [line for line in file.read_text().splitlines() if without not in line]
    file.write_text("\n".join([*kept, *(f"    {line}" for line in (f"profile: {profile}", *lines)), ""]))
    try:
        found = load(directory, find, environ={})
    except ConfigError as error:
        return [str(problem).partition("participants.acme-test")[2] for problem in error.problems]
    return found.participants["acme-test"].options


def test_what_an_entry_names_under_the_form(tmp_path):
    """All that it needs; a thumbprint may be written as OpenSSL prints it."""
    options = problems_of(tmp_path / "config", sorted(ENTRY))
    assert options.smp_certificate.thumbprints == ["ab" * 31 + "cd"]
    assert options.return_url == "https://bridge.example/dip/acme-test/messages"


@pytest.mark.parametrize(
    ("lines", "profile", "without", "expected"),
    [
        (
            [], "dip-like", "smp_jwks",
            [
                ": `signing_certificate` is missing; add it: the certificate (PEM) of `signing_key`, which each call shows (profile dip-like, dip-headers)",
                ": `smp_certificate` is missing; add it: {ca: FILE, subjects: […]} or {ca: FILE, thumbprints: […]}, the authority and the certificates that were agreed with SMP (profile dip-like, dip-headers)",
                ": `return_url` is missing; add it: the whole address that SMP pushes this participant's returns to; SMP signs it (profile dip-like, dip-headers)",
            ],
        ),
        (sorted(ENTRY), "dip-like", "nothing", [".smp_jwks: does not belong to the profile dip-like (dip-headers); take it out"]),
        (
            sorted(ENTRY), "default", "smp_jwks",
            [
                ": `smp_jwks` is missing; add it",
                ".signing_certificate: does not belong to the profile default (jws-detached); take it out",
                ".smp_certificate: does not belong to the profile default (jws-detached); take it out",
            ],
        ),
    ],
)  # fmt: skip
def test_what_is_missing_or_of_another_form_is_said(tmp_path, lines, profile, without, expected):
    """`smp-bridge check` names each key with what it is, and each that nobody would look at."""
    assert sorted(problems_of(tmp_path / "config", lines, profile, without)) == sorted(expected)


def test_an_entry_that_only_polls_needs_no_certificate_of_smps(tmp_path):
    """Answers are not signed under this form: nothing that comes in would be judged by it."""
    content = (SHIPPED / "dip-like.yaml").read_text().replace("returns: both", "returns: poll")
    (tmp_path / "polled.yaml").write_text(content)
    ours = ["signing_certificate: keys/any.pem"]
    options = problems_of(tmp_path / "config", ours, profile=str(tmp_path / "polled.yaml"))
    assert options.signing_certificate is not None
    assert (options.smp_certificate, options.return_url) == (None, None)


def entry(tmp_path, profile="dip-like"):
    """A participant entry as `keys import` takes it."""
    ca = _written_pem(tmp_path / "ca.pem", authority().certificate)
    wanted = SmpCertificate(ca=ca, subjects=[SUBJECT]) if profile == "dip-like" else None
    options = SimpleNamespace(smp_certificate=wanted, signing_algorithm="RS256", signing_password=None, hsm=None)
    return SimpleNamespace(name="acme", options=options, profile=load_profile(profile))


def _written_pem(path, one):
    path.write_bytes(one.public_bytes(Encoding.PEM))
    return path


def test_a_certificate_is_imported_as_a_key(tmp_path):
    """Its id is the thumbprint, its end that of the certificate; the certificate itself stands in its JWK, and a ring makes it a key again."""
    one = certificate("CN=another", key=rsa_key(), issuer=authority())
    [record] = imported(entry(tmp_path), _written_pem(tmp_path / "one.pem", one), None, KeyState.NEXT, 0)
    assert (record.kid, record.alg, record.state, record.side) == (
        thumbprint(one),
        "RS256",
        KeyState.NEXT,
        KeySide.THEIRS,
    )
    assert record.expires_ns == int(one.not_valid_after_utc.timestamp()) * NS
    jwk = json.loads(record.jwk)
    assert base64.b64decode(jwk["x5c"][0]) == one.public_bytes(Encoding.DER)
    key = public_from_jwk(Path("journal"), jwk)
    assert verdict(good(holder(one)), agreed=made.agreed(subjects=["CN=nobody"]), keys={key.kid: key}) == ""


@pytest.mark.parametrize(
    ("profile", "what", "text"),
    [
        ("dip-like", lambda: certificate(key=rsa_key("copy")), "was issued by no authority of `smp_certificate.ca`"),
        (
            "dip-like",
            lambda: certificate(key=ec_key(), issuer=authority()),
            "fits no algorithm of the profile dip-like",
        ),
        (
            "dip-like",
            lambda: certificate(key=rsa_key(), issuer=authority(), usage=made.ENCRYPTING),
            "is not for signing",
        ),
        ("default", own, "knows SMP by its keys"),
    ],
)
def test_a_certificate_that_no_message_could_use_is_not_imported(tmp_path, profile, what, text):
    """The same rules as for a message's certificate."""
    file = _written_pem(tmp_path / "one.pem", what())
    with pytest.raises(BridgeError, match=text):
        imported(entry(tmp_path, profile), file, None, KeyState.NEXT, 0)


def test_a_key_set_is_nothing_for_a_profile_with_certificates(tmp_path):
    """And a certificate of ours belongs to a key of ours, under such a profile alone."""
    (tmp_path / "set").write_text(json.dumps({"keys": []}))
    with pytest.raises(BridgeError, match="knows SMP by certificates"):
        imported(entry(tmp_path), tmp_path / "set", None, KeyState.NEXT, 0)
    key = rsa_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "key.pem").write_bytes(key)
    with pytest.raises(BridgeError, match="no certificate is shown under the profile default"):
        imported(entry(tmp_path, "default"), tmp_path / "key.pem", tmp_path / "ca.pem", KeyState.NEXT, 0)


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        ("{ca: keys/any.pem}", "says of no certificate that it is SMP's"),
        ("{ca: keys/none.pem, subjects: ['CN=x']}", ".smp_certificate.ca: "),
        ("{ca: keys/any.pem, subjects: [smp.example]}", "'smp.example' is no subject"),
        ("{ca: keys/any.pem, subjects: ['CN=x', '']}", "smp_certificate.subjects[1]"),
        ("{ca: keys/any.pem, thumbprints: ['12:34']}", "'12:34' is no SHA-256 thumbprint"),
        ("{ca: keys/any.pem, thumbprint: x}", "did you mean `thumbprints`?"),
    ],
)
def test_an_agreement_that_cannot_work_is_refused(tmp_path, wanted, text):
    """Neither subject nor thumbprint, none that could be one, no authority."""
    lines = [line for line in sorted(ENTRY) if "smp_certificate" not in line]
    assert any(text in told for told in problems_of(tmp_path / "config", [*lines, f"smp_certificate: {wanted}"]))


# by hand -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def say(monkeypatch, capsysbinary):
    """Run `smp-bridge jws …`; its exit status, what it printed, what it complained of."""

    def run(*arguments, stdin=b""):
        monkeypatch.setattr(sys, "argv", ["smp-bridge", "jws", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        try:
            main()
            status = 0
        except SystemExit as ended:
            status = ended.code or 0
        told = capsysbinary.readouterr()
        return status, told.out, told.err.decode()

    return run


def test_by_hand(say, tmp_path):
    """`jws sign-headers` makes what `jws verify-headers` takes, by the end point's own gate; one changed byte is a reason and exit 1."""
    for name, data in (
        ("key.pem", rsa_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())),
        ("crt.pem", own().public_bytes(Encoding.PEM)),
        ("ca.pem", authority().certificate.public_bytes(Encoding.PEM)),
        ("body", BODY),
    ):
        (tmp_path / name).write_bytes(data)
    signing = ("sign-headers", "--key", tmp_path / "key.pem", "--certificate", tmp_path / "crt.pem", "--url", URL)
    status, printed, _ = say(*signing, tmp_path / "body")
    assert status == 0
    message = printed + b"\n" + BODY
    verifying = ("verify-headers", "--ca", tmp_path / "ca.pem", "--url", URL)
    assert say(*verifying, "--subject", SUBJECT, stdin=message) == (0, BODY, "")
    crlf = printed.replace(b"\n", b"\r\n") + b"\r\n" + BODY
    assert say(*verifying, "--thumbprint", thumbprint(own()), stdin=crlf) == (0, BODY, "")
    assert say(*verifying, "--subject", SUBJECT, stdin=message + b" ") == (1, b"", "content_hash\n")
    assert say(*verifying, "--subject", "CN=x", stdin=message) == (1, b"", "certificate_unknown\n")
    assert (
        say(*verifying, "--subject", SUBJECT, "--at", "2099-01-01T00:00:00Z", stdin=message)[2]
        == "certificate_expired\n"
    )
    assert say(*verifying, "--subject", SUBJECT, "--method", "PUT", stdin=message)[2] == "bad_signature\n"
    assert "no empty line" in say(*verifying, "--subject", SUBJECT, stdin=b"x")[2]
    assert "says of no certificate" in say(*verifying, stdin=message)[2].replace("\n", " ")
    assert "jws-detached" in say(*verifying, "--subject", SUBJECT, "--profile", "default", stdin=message)[2]
    assert "sign-headers" in say("sign", "--key", tmp_path / "key.pem", "--form", "dip-headers", tmp_path / "body")[2]
