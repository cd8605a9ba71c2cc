"""Whom the bridge believes to be the EMS, and which of its own certificates it shows; without a server."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from opcua_certificates import NOW, NOW_NS, make

from adapters.opcua.config import Security
from adapters.opcua.trust import (
    application_uris,
    check_server,
    load_identity,
    load_trusted,
    load_user,
    parse_der,
)
from bridge.api import LinkRefused, OnExpired

URI = "urn:acme:ems"


def check(server, *trusted, uri=URI, now_ns=NOW_NS, sent=()):
    check_server(
        server.certificate, uri, [each.certificate for each in trusted], now_ns, [each.certificate for each in sent]
    )


def test_a_server_in_the_list_is_trusted():
    """Itself, whoever signed it."""
    server = make()
    check(server, make("other"), server)


def test_a_server_of_a_trusted_authority_is_trusted():
    """By a signature of a certificate that may sign."""
    authority = make("authority", ca=True)
    check(make(issuer=authority), authority)


def test_a_stranger_is_refused_with_its_thumbprint():
    """The operator can compare it with what the EMS shows, and reads what to do."""
    server = make()
    with pytest.raises(LinkRefused, match=r"not trusted \(SHA-1 thumbprint [0-9a-f]{40}\)") as raised:
        check(server, make())
    assert "server_certificates" in raised.value.hint


def test_a_certificate_that_may_not_sign_vouches_for_nobody():
    """Another server's certificate in the list is no authority, though it did sign."""
    server = make("other")
    with pytest.raises(LinkRefused, match="not trusted"):
        check(make(issuer=server), server)


def test_an_authority_of_the_same_name_is_not_the_same():
    """Names are anybody's to choose; the signature counts."""
    with pytest.raises(LinkRefused, match="not trusted"):
        check(make(issuer=make("authority", ca=True)), make("authority", ca=True))


@pytest.mark.parametrize(
    ("since", "until"),
    [(NOW - timedelta(days=9), NOW - timedelta(seconds=1)), (NOW + timedelta(seconds=1), NOW + timedelta(days=9))],
)
def test_a_certificate_out_of_date_is_refused(since, until):
    """Its own, and its authority's."""
    server = make(since=since, until=until)
    with pytest.raises(LinkRefused, match="not valid now"):
        check(server, server)
    authority = make("authority", ca=True, since=since, until=until)
    with pytest.raises(LinkRefused, match="not valid now"):
        check(make(issuer=authority), authority)


def test_a_server_that_calls_itself_otherwise_is_refused():
    """The application URI that it states must be in its certificate."""
    server = make(uri="urn:somebody:else")
    with pytest.raises(LinkRefused, match="urn:acme:ems, which is not in its certificate"):
        check(server, server)
    with pytest.raises(LinkRefused, match="not in its certificate"):
        check(nameless := make(uri=None), nameless)


def test_a_chain_may_follow_the_certificate_on_the_wire():
    """The first of a server's certificates is its own; what cannot be read behind it is not missed."""
    server, authority = make(), make("authority", ca=True)
    data, above = (each.certificate.public_bytes(Encoding.DER) for each in (server, authority))
    assert parse_der(data) == (server.certificate,)
    assert parse_der(data + above) == (server.certificate, authority.certificate)
    assert parse_der(data + b"\0\0\0\0") == (server.certificate,)


def test_a_server_is_trusted_by_a_chain_to_what_is_in_the_list():
    """Whether those between stand in the list too, or the server sends them; none may be missing."""
    root = make("root", ca=True)
    upper = make("upper", ca=True, issuer=root)
    lower = make("lower", ca=True, issuer=upper)
    server = make(issuer=lower)
    check(server, root, sent=[lower, upper])
    check(server, root, upper, lower)
    check(server, root, lower, sent=[upper])
    for trusted, sent in (([root], [lower]), ([root], [upper]), ([make("root", ca=True)], [lower, upper, root])):
        with pytest.raises(LinkRefused, match="not trusted"):
            check(server, *trusted, sent=sent)


def test_a_server_that_sends_its_own_authority_is_not_trusted_for_it():
    """What is sent fills gaps, and vouches for nobody."""
    authority = make("authority", ca=True)
    with pytest.raises(LinkRefused, match="not trusted"):
        check(make(issuer=authority), make("other", ca=True), sent=[authority])


def test_every_certificate_of_a_chain_must_be_valid_and_may_sign():
    """Dates, the right to sign, and how many authorities may stand below."""
    root = make("root", ca=True)
    old = make("between", ca=True, issuer=root, until=NOW - timedelta(seconds=1))
    with pytest.raises(LinkRefused, match="not valid now"):
        check(make(issuer=old), root, sent=[old])
    with pytest.raises(LinkRefused, match="not trusted"):
        check(make(issuer=(plain := make("between", issuer=root))), root, sent=[plain])
    narrow = make("root", ca=True, path_length=0)
    between = make("between", ca=True, issuer=narrow)
    check(make(issuer=narrow), narrow)
    with pytest.raises(LinkRefused, match="not trusted"):
        check(make(issuer=between), narrow, sent=[between])
    mute = make("root", ca=True, may_sign=False)
    with pytest.raises(LinkRefused, match="not trusted"):
        check(make(issuer=mute), mute)


def test_a_file_may_hold_several_certificates(tmp_path):
    """As authorities hand them out: each of them is trusted."""
    root = make("root", ca=True)
    between = make("between", ca=True, issuer=root)
    pem = b"".join(each.certificate.public_bytes(Encoding.PEM) for each in (between, root))
    (tmp_path / "bundle.pem").write_bytes(pem)
    own, key = make("own").write(tmp_path, "own")
    files = {"certificate": own, "private_key": key, "server_certificates": [tmp_path / "bundle.pem"]}
    security = Security.model_validate({"policy": "Basic256Sha256", **files})
    assert load_trusted(security) == (between.certificate, root.certificate)


@pytest.mark.parametrize("data", [b"", b"\x30", b"\x30\x82\x00\x04abcd", b"no certificate at all"])
def test_what_is_no_certificate_is_refused(data):
    """Never an error of the library."""
    with pytest.raises(LinkRefused, match="cannot be read"):
        parse_der(data)


# our own


@pytest.fixture
def files(tmp_path):
    server, _ = make().write(tmp_path, "server")
    return {"policy": "Basic256Sha256", "server_certificates": [server]}


def identity(files, own, uri=None, now_ns=NOW_NS):
    certificate, key = own
    return load_identity(
        Security.model_validate({**files, "certificate": certificate, "private_key": key}), uri, now_ns
    )


@pytest.mark.parametrize("form", ["pem", "der"])
def test_our_own_pair_is_read_in_both_forms(files, tmp_path, form):
    """With the application URI of the certificate unless another one is asked for."""
    found = identity(files, make("bridge", uri="urn:bridge").write(tmp_path, "own", form=form))
    assert found.application_uri == "urn:bridge"
    assert found.private_key.public_key() == found.certificate.public_key()


def test_a_key_of_another_kind_is_refused(files, tmp_path):
    """The policies encrypt and sign with RSA; the library would fail without a word about the key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "bridge")])
    now = datetime.fromtimestamp(NOW_NS / 1e9, UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1)).sign(
        key, hashes.SHA256()
    )
    own = tmp_path / "own.pem", tmp_path / "own.key"
    own[0].write_bytes(made.public_bytes(Encoding.PEM))
    own[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(LinkRefused, match=r"own\.pem is not for an RSA key"):
        identity(files, own)


def test_an_application_uri_that_our_certificate_lacks_is_refused(files, tmp_path):
    """The EMS would refuse it, with fewer words."""
    own = make("bridge", uri="urn:bridge").write(tmp_path, "own")
    with pytest.raises(LinkRefused, match="does not carry the application URI urn:other") as raised:
        identity(files, own, uri="urn:other")
    assert "subject alternative name" in raised.value.hint
    with pytest.raises(LinkRefused, match=r"URI \(none\)"):
        identity(files, make("bridge", uri=None).write(tmp_path, "nameless"))


def test_our_own_certificate_must_be_valid(files, tmp_path):
    """An expired one is told here, not only by the EMS."""
    with pytest.raises(LinkRefused, match=r"own.crt.pem is not valid now \(from 2026-11-22 to 2026-11-24\)"):
        identity(files, make("bridge").write(tmp_path, "own"), now_ns=NOW_NS + 10 * 86400 * 1_000_000_000)


def test_our_own_key_must_be_readable_and_fit(files, tmp_path):
    """No password, no other file, no key of another certificate."""
    certificate, _ = make("bridge").write(tmp_path, "own")
    _, other = make("other").write(tmp_path, "other")
    with pytest.raises(LinkRefused, match=r"other.key.pem is not the key of own.crt.pem"):
        identity(files, (certificate, other))
    with pytest.raises(LinkRefused, match="is not a private key that can be read"):
        identity(files, (certificate, certificate))
    with pytest.raises(LinkRefused, match="unencrypted|not a private key"):
        identity(files, make("bridge").write(tmp_path, "locked", password=b"secret"))


def test_a_user_may_be_known_by_a_certificate(files, tmp_path):
    """No URI is asked of it; its dates and its key are."""
    own = make("bridge").write(tmp_path, "own")
    security = {**files, "certificate": own[0], "private_key": own[1]}
    assert load_user(Security.model_validate(security), NOW_NS) is None
    made = make("operator", uri=None)
    pair = made.write(tmp_path, "user", form="der")
    security |= {"user_certificate": pair[0], "user_private_key": pair[1]}
    found = load_user(Security.model_validate(security), NOW_NS)
    assert found is not None
    assert found.certificate == made.certificate
    with pytest.raises(LinkRefused, match=r"user's certificate user.crt.der is not valid now") as raised:
        load_user(Security.model_validate(security), NOW_NS + 10 * 86400 * 1_000_000_000)
    assert "renew" in raised.value.hint
    security["user_private_key"] = own[1]
    with pytest.raises(LinkRefused, match=r"own.key.pem is not the key of user.crt.der"):
        load_user(Security.model_validate(security), NOW_NS)


def test_a_trust_directory_holds_any_number_of_certificates(files, tmp_path):
    """PEM and DER by their suffix; notes beside them are left alone."""
    trusted = tmp_path / "trusted"
    trusted.mkdir()
    own = make("bridge").write(tmp_path, "own")
    security = {"policy": "Basic256Sha256", "certificate": own[0], "private_key": own[1], "trust": trusted}
    with pytest.raises(LinkRefused, match="no server certificate is trusted yet"):
        load_trusted(Security.model_validate(security))
    (trusted / "README.txt").write_text("put certificates here")
    first, second = make("one"), make("two")
    first.write(tmp_path, "one")[0].rename(trusted / "one.crt")
    second.write(tmp_path, "two", form="der")[0].rename(trusted / "two.der")
    assert set(load_trusted(Security.model_validate(security))) == {first.certificate, second.certificate}
    (trusted / "broken.pem").write_text("nothing")
    with pytest.raises(LinkRefused, match=r"broken.pem is not a certificate"):
        load_trusted(Security.model_validate(security))


def test_a_file_that_went_away_is_refused_by_name(files, tmp_path):
    """It stood there when the configuration was checked."""
    security = Security.model_validate({**files, "certificate": __file__, "private_key": __file__})
    files["server_certificates"][0].unlink()
    with pytest.raises(LinkRefused, match="server.crt.pem cannot be read: No such file"):
        load_trusted(security)


def test_application_uris_are_only_the_uris():
    """Host names and addresses stand in the same extension."""
    assert application_uris(make().certificate) == (URI,)
    assert application_uris(make(uri=None).certificate) == ()


# what is waived of a certificate that has ended -----------------------------------------------------------------------


def taken(server, *trusted, uri=URI, now_ns=NOW_NS, policy=OnExpired.KEEP):
    return check_server(server.certificate, uri, [each.certificate for each in trusted], now_ns, (), policy)


def test_nothing_but_the_end_is_waived():
    """Trust, the application URI and the beginning are checked as ever; of several chains the one that lasts longest counts."""
    ended = {"since": NOW.replace(year=2020), "until": NOW.replace(year=2025)}
    old, authority, ended_authority = make(**ended), make("authority", ca=True), make("authority", ca=True, **ended)
    end_ns = int(ended["until"].timestamp()) * 10**9
    assert taken(old, old).ends_ns == end_ns
    assert taken(make(issuer=ended_authority), ended_authority).ends_ns == end_ns
    for server, trusted, uri, words in (
        (old, make(), URI, "not trusted"),
        (old, old, "urn:another", "calls itself"),
        (make(issuer=authority, **ended), ended_authority, URI, "not trusted"),
        (make(since=NOW.replace(year=2027), until=NOW.replace(year=2028)), None, URI, "not valid now"),
    ):
        with pytest.raises(LinkRefused, match=words):
            taken(server, trusted or server, uri=uri)
    with pytest.raises(LinkRefused, match="not valid now"):
        taken(old, old, policy=OnExpired.STOP)
    good = make()
    assert taken(good, good).ends_ns == int(good.certificate.not_valid_after_utc.timestamp()) * 10**9
