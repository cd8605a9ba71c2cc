"""What the doctor says of a link's certificates: each flaw in words, with what would be right."""

import os
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from opcua_certificates import NOW, Made, make

from bridge.api import CertificateRole, CertificateUse
from bridge.certificates import Wish, new_key, self_signed, write_pair
from bridge.doctor import Verdict, examine

YEARS = NOW + timedelta(days=700)


def long(name="ems", **changes):
    return make(name, **{"until": YEARS, **changes})


@pytest.fixture(scope="module")
def key():
    return new_key(2048)


@pytest.fixture
def own(tmp_path, key):
    """A pair of our own making, as `certificates new` writes it."""

    def write(uri="urn:bridge", days=700, **changes):
        files = tmp_path / "own.crt.pem", tmp_path / "own.key.pem"
        wish = Wish(name="smp-bridge", application_uri=uri, **changes)
        write_pair(*files, self_signed(wish, key, now=NOW, days=days), key)
        return {"certificate": files[0], "private_key": files[1]}

    return write


@pytest.fixture
def server(tmp_path):
    return long().write(tmp_path, "server")[0]


def told(now=NOW, role=CertificateRole.OPC_UA, **files):
    """Findings that are not ok, as `verdict: file: text`."""
    found = examine(CertificateUse(path="security", role=role, **files), now)
    assert found
    assert all(each.hint for each in found if each.verdict is Verdict.WRONG)
    return [
        f"{each.verdict.value}: {os.path.basename(each.file)}: {each.text}"
        for each in found
        if each.verdict is not Verdict.OK
    ]


def only(lines):
    assert len(lines) == 1, lines
    return lines[0]


def test_what_the_command_makes_is_well(own, server):
    """Nothing to complain of, and both sides are named with their thumbprints."""
    use = CertificateUse(path="security", role=CertificateRole.OPC_UA, trusted=(server,), **own())
    found = examine(use, NOW)
    assert [each.verdict for each in found] == [Verdict.OK, Verdict.OK]
    assert "urn:bridge, valid until 2028-10-23, SHA-1 thumbprint " in found[0].text
    assert found[1].text.startswith("trusted: CN=ems, urn:acme:ems")


@pytest.mark.parametrize(
    ("since", "until", "words"),
    [
        (NOW - timedelta(days=9), NOW - timedelta(days=1), "wrong: own.crt.pem: ended on 2026-11-22"),
        (NOW + timedelta(days=1), YEARS, "wrong: own.crt.pem: is not valid before 2026-11-24 12:00 UTC, and now is 2026-11-23"),
        (NOW - timedelta(days=9), NOW + timedelta(days=59), "watch: own.crt.pem: ends on 2027-01-21, in 59 days"),
        (NOW - timedelta(days=9), NOW + timedelta(days=60), ""),
    ],
)  # fmt: skip
def test_dates(tmp_path, server, since, until, words):
    """Over, not begun, and so near its end that the EMS's administrator should hear of it."""
    certificate, private_key = make("own", since=since, until=until).write(tmp_path, "own")
    lines = told(certificate=certificate, private_key=private_key, trusted=(server,))
    assert (lines[0] if lines else "").startswith(words)
    assert bool(lines) == bool(words)


def test_uri(tmp_path, own, server):
    """None at all, another one than is configured, and several."""
    certificate, private_key = long("own", uri=None).write(tmp_path, "bare")
    line = only(told(certificate=certificate, private_key=private_key, trusted=(server,)))
    assert line.startswith("wrong: bare.crt.pem: carries no application URI")
    line = only(told(application_uri="urn:other", trusted=(server,), **own()))
    assert line == "wrong: own.crt.pem: carries the application URI urn:bridge, and `application_uri:` says urn:other"
    assert not told(application_uri="urn:bridge", trusted=(server,), **own())
    user = {"certificate": certificate, "private_key": private_key}
    assert not told(role=CertificateRole.USER, **user)


def test_key(tmp_path, own, server):
    """Another's, locked, unreadable for what it is, missing, and open to everybody."""
    files = own()
    other = long("other").write(tmp_path, "other")
    for path, words in (
        (other[1], f"wrong: other.key.pem: is not the key of {files['certificate']}"),
        (long("l").write(tmp_path, "locked", password=b"x")[1], "locked by a password"),
        (files["certificate"], "wrong: own.crt.pem: is a certificate, no private key"),
        (tmp_path / "gone.pem", "wrong: gone.pem: cannot be read: No such file"),
    ):
        path.exists() and path.chmod(0o600)
        assert words in only(told(trusted=(server,), **{**files, "private_key": path})), path
    files["private_key"].chmod(0o604)
    assert "every user of this machine may read" in only(told(trusted=(server,), **files))
    files["private_key"].chmod(0o640)
    assert not told(trusted=(server,), **files)


def sign(tmp_path, key, *, digest=None, usage=None, extended=None):
    """A certificate that breaks one rule."""
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "own")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(YEARS)
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier("urn:bridge")]), critical=False)
    )
    for extension in filter(None, (usage, extended)):
        builder = builder.add_extension(extension, critical=False)
    return Made(builder.sign(key, digest or hashes.SHA256()), key).write(tmp_path, "own")


def usage(**given):
    names = (
        "digital_signature content_commitment key_encipherment data_encipherment key_agreement key_cert_sign crl_sign"
    )
    return x509.KeyUsage(
        **{name: given.get(name, True) for name in names.split()}, encipher_only=False, decipher_only=False
    )


@pytest.mark.parametrize(
    ("flaw", "words"),
    [
        ({"usage": usage(digital_signature=False)}, "may not sign"),
        ({"usage": usage(data_encipherment=False)}, "may not encrypt"),
        ({"extended": x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.SERVER_AUTH])}, "lacks clientAuth"),
        ({"digest": hashes.SHA384()}, ""),
    ],
)
def test_usages(tmp_path, key, server, flaw, words):
    """What is stated must allow what is done; what is not stated allows it."""
    certificate, private_key = sign(tmp_path, key, **flaw)
    private_key.chmod(0o600)
    lines = told(certificate=certificate, private_key=private_key, trusted=(server,))
    assert (words in only(lines)) if words else not lines


def test_strength(tmp_path, server):
    """RSA of 2048 bits or more for OPC UA; TLS takes other kinds too."""
    for made, words in (
        (rsa.generate_private_key(public_exponent=65537, key_size=1024), "has 1024 bits; 2048 to 4096 are taken"),
        (ec.generate_private_key(ec.SECP256R1()), "is not RSA"),
    ):
        certificate, private_key = sign(tmp_path, made)
        private_key.chmod(0o600)
        assert words in only(told(certificate=certificate, private_key=private_key, trusted=(server,)))
    assert not told(certificate=certificate, private_key=private_key, role=CertificateRole.TLS_CLIENT)


def test_chain(tmp_path, server):
    """In order it is well; out of order, and by an authority that the file does not hold, is told."""
    authority = long("authority", ca=True)
    made = long("own", issuer=authority)
    certificate, private_key = made.write(tmp_path, "own")
    private_key.chmod(0o600)
    files = {"certificate": certificate, "private_key": private_key, "trusted": (server,)}
    assert (
        only(told(**files)) == "watch: own.crt.pem: was issued by CN=authority: the other side must know that authority"
    )
    pem = [each.certificate.public_bytes(serialization.Encoding.PEM) for each in (made, authority, long("stranger"))]
    certificate.write_bytes(pem[0] + pem[1])
    assert not told(**files)
    certificate.write_bytes(pem[0] + pem[2])
    assert "its certificate 2 (CN=stranger) did not issue the one before it (CN=own)" in only(told(**files))
    expired = long("authority", ca=True, since=NOW - timedelta(days=9), until=NOW - timedelta(days=1))
    later = long("own", issuer=expired)
    later.write(tmp_path, "own")[1].chmod(0o600)
    certificate.write_bytes(
        b"".join(each.certificate.public_bytes(serialization.Encoding.PEM) for each in (later, expired))
    )
    assert "own.crt.pem (certificate 2 of 2): ended on 2026-11-22" in only(told(**files))


def test_trust(tmp_path, own, server):
    """Nobody trusted, the wrong file, our own, an old one, one that its server cannot be known by."""
    files = own()
    assert only(told(**files)) == "wrong: : no server is trusted"
    trust = tmp_path / "trust"
    trust.mkdir()
    assert only(told(trust=trust, **files)) == "wrong: trust: holds no certificate, so no server is trusted"
    for path, words in (
        (files["certificate"], "is this host's own certificate"),
        (files["private_key"], "is a private key, no certificate"),
        (tmp_path / "gone.pem", "cannot be read: No such file"),
        (long("bare", uri=None).write(tmp_path, "bare")[0], "carries no application URI, so that its server cannot be known"),
        (make("old", until=NOW - timedelta(hours=1)).write(tmp_path, "old", form="der")[0], "ended on 2026-11-23"),
    ):  # fmt: skip
        assert words in only(told(trusted=(server, path), **files)), path
    (trust / "junk.der").write_bytes(b"junk")
    assert only(told(trust=trust, **files)) == "wrong: junk.der: is no certificate in PEM or DER form"
    authority = long("authority", ca=True, uri=None).write(tmp_path, "authority")[0]
    assert not told(trusted=(authority,), **files)
    assert "is no authority" in only(told(role=CertificateRole.TLS_CLIENT, trusted=(server,)))


def test_no_protection_is_to_be_watched():
    """It works, and somebody should know."""
    use = CertificateUse(path="security", role=CertificateRole.OPC_UA, warning="nothing is protected")
    (found,) = examine(use, NOW)
    assert (found.verdict, found.text) == (Verdict.WATCH, "nothing is protected")
