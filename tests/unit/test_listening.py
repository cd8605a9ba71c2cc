"""What a listener shows and asks for, before and after its files were read anew."""

import ssl
from contextlib import suppress
from hashlib import sha256
from itertools import pairwise

import pytest

from bridge.clock import SystemClock
from bridge.errors import BridgeError
from bridge.listening import renew_certificate, server_context
from bridge.sandbox.pki import Authority

CLOCK = SystemClock.here()
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
AUTHORITY = Authority("servers", clock=CLOCK)
EC, OTHER_EC = (AUTHORITY.server("bridge") for _ in range(2))
RSA, OTHER_RSA = (AUTHORITY.signing("bridge") for _ in range(2))


def put(directory, pair):
    """The pair as the listener's files."""
    files = directory / "crt", directory / "key"
    files[0].write_bytes(pair.certificate)
    files[1].write_bytes(pair.private_key)
    return files


def asking_with(version, pair=None, directory=None):
    """A caller's TLS."""
    asking = ssl.create_default_context(cadata=AUTHORITY.pem.decode())
    asking.check_hostname = False
    asking.minimum_version = asking.maximum_version = version
    if pair is not None:
        asking.load_cert_chain(*put(directory, pair))
    return asking


def met(context, asking, name=None, session=None):
    """Both sides of a handshake, the client first; raises `SSLError` where it is refused."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = asking.wrap_bio(back, there, server_hostname=name, session=session)
    server = context.wrap_bio(there, back, server_side=True)
    for _ in range(4):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    server.do_handshake()
    with suppress(ssl.SSLWantReadError):
        client.read(1)  # TLS 1.3 gives the session behind the handshake
    return client, server


def shown(context, version, name=None, pair=None, directory=None):
    """The digest of the certificate that a handshake shows; raises `SSLError` where it is refused."""
    client, _ = met(context, asking_with(version, pair, directory), name)
    return sha256(client.getpeercert(binary_form=True)).hexdigest()


def digest(pair):
    return sha256(ssl.PEM_cert_to_DER_cert(pair.certificate.decode())).hexdigest()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", [None, "localhost"])
def test_a_certificate_with_another_kind_of_key_takes_the_place_of_the_former(tmp_path, version, name):
    """Callers whose library likes the former kind better would else be shown the old one until it ends."""
    pairs = [EC, RSA, OTHER_EC, OTHER_RSA, RSA]
    context = server_context(*put(tmp_path, pairs[0]), None)
    for former, pair in pairwise(pairs):
        assert shown(context, version, name) == digest(former)
        renew_certificate(context, *put(tmp_path, pair))
        assert shown(context, version, name) == digest(pair)


def test_what_does_not_fit_changes_nothing(tmp_path):
    """The former pair is shown on, and the error says which file it is about."""
    files = put(tmp_path, EC)
    context = server_context(*files, None)
    files[1].write_bytes(RSA.private_key)
    with pytest.raises(BridgeError, match=str(files[0])):
        renew_certificate(context, *files)
    assert shown(context, VERSIONS[1]) == digest(EC)


@pytest.mark.parametrize("version", VERSIONS)
def test_callers_are_asked_for_a_certificate_of_the_authority_of_now(tmp_path, version):
    """`client_ca` is read anew with the pair: a platform whose authority changes needs no restart of the host."""
    old, new = (Authority("clients", clock=CLOCK) for _ in range(2))
    caller = tmp_path / "caller"
    caller.mkdir()
    (tmp_path / "ca").write_bytes(old.pem)
    files = put(tmp_path, EC)
    context = server_context(*files, tmp_path / "ca")
    former, latter = old.client("smp"), new.client("smp")
    assert shown(context, version, None, former, caller) == digest(EC)
    (tmp_path / "ca").write_bytes(new.pem)
    renew_certificate(context, *files, tmp_path / "ca")
    assert shown(context, version, None, latter, caller) == digest(EC)
    for pair in (former, None):
        with pytest.raises(ssl.SSLError):
            shown(context, version, None, pair, caller)


@pytest.mark.parametrize("version", VERSIONS)
def test_no_session_from_before_goes_on_without_a_certificate_of_the_authority_of_now(tmp_path, version, monkeypatch):
    """A resumed session shows no certificate: a caller whose authority is no longer good is refused; one that is new may resume what it began since."""
    old, new = (Authority("clients", clock=CLOCK) for _ in range(2))
    (tmp_path / "ca").write_bytes(old.pem)
    files = put(tmp_path, EC)
    context = server_context(*files, tmp_path / "ca")
    caller = tmp_path / "caller"
    caller.mkdir()
    former, latter = (asking_with(version, authority.client("smp"), caller) for authority in (old, new))
    session = met(context, former)[0].session
    assert met(context, former, session=session)[1].session_reused
    (tmp_path / "ca").write_bytes(new.pem)
    renew_certificate(context, *files, tmp_path / "ca")
    with pytest.raises(ssl.SSLError):
        met(context, former, session=session)
    monkeypatch.setattr("time.time_ns", lambda: (session.time - 1) * 10**9)
    renew_certificate(context, *files, tmp_path / "ca")
    began = met(context, latter)[0].session
    assert met(context, latter, session=began)[1].session_reused
