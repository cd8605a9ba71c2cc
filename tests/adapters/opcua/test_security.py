"""Who gets in and who does not, against a node-opcua server."""

import asyncio
import logging
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import Encoding
from opcua_certificates import make
from opcua_peer import PASSWORD, SERVER_URI

from adapters.opcua import ADAPTER
from adapters.opcua.channel import GuardedClient, _choose, look_for_offer
from adapters.opcua.config import Mode, Policy, Security
from adapters.opcua.library import ua
from adapters.opcua.trust import check_server
from bridge.api import Address, LinkError, LinkRefused, Quality, Secret
from bridge.certificates import Wish, new_key, self_signed, write_pair
from bridge.clock import Stamp, SystemClock
from bridge.demo.opcua_keys import make_pair

pytestmark = pytest.mark.asyncio(loop_scope="module")

WITHIN_S = 20.0
PLACE = Address("batteries", "BESS001", "reference")


WAYS = [
    (policy, mode)
    for policy in ("Basic256Sha256", "Aes128Sha256RsaOaep", "Aes256Sha256RsaPss")
    for mode in ("SignAndEncrypt", "Sign")
]
# All of them offered by one server; the other library spells two of them its own way.
EVERYTHING = {"policies": ["Basic256Sha256", "Aes128_Sha256_RsaOaep", "Aes256_Sha256_RsaPss"], "modes": ["SignAndEncrypt", "Sign"]}  # fmt: skip


async def opens(context, peer=None) -> None:
    """With `peer`: in the way that is configured and no other, by what the server says of it."""
    async with asyncio.timeout(WITHIN_S), ADAPTER.open(context) as session:
        (found,) = await session.read([PLACE])
        assert (found.quality, found.value) == (Quality.GOOD, "REF1")
        if peer is not None:
            security = context.options.security
            ((uri, mode),) = (await peer.order("stats"))["secured"]
            named = uri.rpartition("#")[2].replace("_", "")
            assert (named, mode) == (security.policy.value, security.mode.value)
            # After three quarters of an hour the library asks for another token, under which all goes on.
            await session._link._client.open_secure_channel(renew=True)
            (found,) = await session.read([PLACE])
            assert (found.quality, found.value) == (Quality.GOOD, "REF1")


async def refused(context, words: str, kind: type[LinkError] = LinkRefused) -> LinkError:
    with pytest.raises(kind, match=words) as raised:
        await opens(context)
    return raised.value


@pytest.mark.serves(**EVERYTHING)
@pytest.mark.parametrize(("policy", "mode"), WAYS)
async def test_every_policy_works(peer, policy, mode):
    """With user and password; under Sign the password is encrypted by itself."""
    await opens(peer.context(security=peer.security(policy=policy, mode=mode)), peer)


async def test_no_connect_proves_a_key(peer, monkeypatch):
    """cryptography does that for 50 ms and more without letting go of the interpreter: no site's record would move meanwhile."""
    read = []

    def watched(load):
        def reading(*args, **named):
            read.append(named.get("unsafe_skip_rsa_key_validation"))
            return load(*args, **named)

        return reading

    for name in ("load_pem_private_key", "load_der_private_key"):
        load = watched(getattr(serialization, name))
        monkeypatch.setattr(f"cryptography.hazmat.primitives.serialization.{name}", load)
        monkeypatch.setattr(f"adapters.opcua.trust.{name}", load)
    await opens(peer.context())
    assert read == [True]


@pytest.mark.serves(policies=["None"], modes=["None"], user="")
async def test_no_security_works_where_it_is_written_out(peer, caplog):
    """For a laboratory, and for a server that knows nothing else; each connection says so."""
    await opens(peer.context(security={"policy": "None"}))
    (warning,) = [entry for entry in caplog.records if entry.message == "opcua_link_not_protected"]
    assert (warning.levelname, warning.url) == ("WARNING", peer.url)


async def test_a_protected_link_warns_of_nothing(peer, caplog):
    """The warning means something only while it is rare."""
    await opens(peer.context())
    assert not [entry for entry in caplog.records if entry.message == "opcua_link_not_protected"]


def by_certificate(peer, pair) -> dict[str, object]:
    security = {key: value for key, value in peer.security().items() if key not in {"user", "password"}}
    return {**security, "user_certificate": pair.certificate, "user_private_key": pair.private_key}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def users(tmp_path_factory):
    """Key pairs of a user and of a stranger, and a folder for the server that trusts the one."""
    directory = tmp_path_factory.mktemp("users")
    names = ("user", "stranger")
    return *await asyncio.to_thread(lambda: [make_pair(directory, name, f"urn:{name}") for name in names]), directory


@pytest.mark.parametrize(("policy", "mode"), WAYS)
async def test_a_user_is_known_by_a_certificate(running_peer, users, policy, mode):
    """Under every policy and mode: the server trusts this user, and no other."""
    peer, (user, stranger, directory) = running_peer, users
    trust = [peer.client.certificate, user.certificate]
    await peer.fresh(**EVERYTHING, trust=trust, pki=directory / "pki")
    changed = {"policy": policy, "mode": mode}
    await opens(peer.context(security={**by_certificate(peer, user), **changed}), peer)
    error = await refused(
        peer.context(security={**by_certificate(peer, stranger), **changed}), "BadIdentityTokenRejected|BadCertificate"
    )
    assert "trust" in error.hint


async def test_a_kind_of_user_that_the_server_does_not_take_is_told_with_those_it_takes(peer):
    """Before anything is signed or encrypted for it."""
    security = {key: value for key, value in peer.security().items() if key not in {"user", "password"}}
    error = await refused(peer.context(security=security), "takes no anonymous users here; it takes")
    assert "users with a password" in str(error)


@pytest.mark.serves(user="")
async def test_anonymous_works_where_the_server_lets_it(peer):
    """Certificates alone."""
    security = {key: value for key, value in peer.security().items() if key not in {"user", "password"}}
    await opens(peer.context(security=security))


async def test_a_handshake_says_that_both_sides_trust_each_other(peer, tmp_path):
    """For the doctor: no record is needed, nothing stays open, and what is wrong is said as a session says it."""
    context = peer.context()._replace(selections=())
    assert await ADAPTER.handshake(context) == (
        "the EMS and this host trust each other: Basic256Sha256, SignAndEncrypt, as smp-bridge"
    )
    assert (await peer.order("stats"))["sessions"] == 0
    other = await asyncio.to_thread(make_pair, tmp_path, "other", SERVER_URI)
    security = peer.security(server_certificates=[other.certificate])
    with pytest.raises(LinkRefused, match="not trusted") as raised:
        await ADAPTER.handshake(peer.context(security=security)._replace(selections=()))
    assert "thumbprint" in raised.value.hint


async def test_a_policy_that_the_server_lacks_is_told_with_those_it_has(peer):
    """Before any key is used."""
    security = peer.security(policy="Aes256Sha256RsaPss")
    error = await refused(peer.context(security=security), r"does not offer Aes256Sha256RsaPss/SignAndEncrypt")
    assert "Basic256Sha256/SignAndEncrypt" in str(error)
    assert "choose one" in error.hint


async def test_what_is_offered_over_https_is_not_taken():
    """Many servers list it beside opc.tcp, under the same policy and mode and another certificate. (node-opcua has opc.tcp alone.)"""

    class Lists:
        async def connect_and_get_server_endpoints(self):
            return found

    def endpoint(url, certificate):
        return ua.EndpointDescription(
            EndpointUrl=url,
            ServerCertificate=certificate,
            SecurityMode=ua.MessageSecurityMode.SignAndEncrypt,
            SecurityPolicyUri="http://opcfoundation.org/UA/SecurityPolicy#Basic256Sha256",
        )

    security = Security.model_construct(policy=Policy.BASIC256SHA256, mode=Mode.SIGN_AND_ENCRYPT)
    found = [endpoint("https://ems:443/", b"of the web"), endpoint("opc.tcp://ems:4840/", b"of the EMS")]
    assert _choose(found, security).ServerCertificate == b"of the EMS"
    found = found[:1]
    with pytest.raises(
        LinkRefused, match="does not offer Basic256Sha256/SignAndEncrypt; it offers nothing over opc.tcp"
    ):
        await look_for_offer(Lists(), security)


async def test_a_server_without_unprotected_links_is_told_with_what_it_offers(peer):
    """It says no more than that the mode is rejected; who looks at it for the first time needs to know what to ask for."""
    error = await refused(
        peer.context(security={"policy": "None"}), "does not offer None; it offers Basic256Sha256/SignAndEncrypt"
    )
    assert "choose one" in error.hint


async def test_the_library_logs_nothing_of_its_own(peer, caplog):
    """At its own debug level it shows whole requests, a login among them."""
    caplog.set_level(logging.DEBUG)
    await opens(peer.context())
    assert PASSWORD not in caplog.text
    assert not [entry for entry in caplog.records if entry.name.startswith("asyncua")]


@pytest.mark.parametrize("change", [{"password": Secret("wrong")}, {"user": "nobody"}])
async def test_a_wrong_login_is_refused_with_a_hint(peer, change):
    """No password in the words."""
    error = await refused(peer.context(security=peer.security(**change)), "BadUserAccessDenied")
    assert "user" in error.hint
    assert "wrong" not in str(error)


@pytest.mark.parametrize("how", ["Sign", "SignAndEncrypt"])
async def test_a_password_is_never_shown_on_a_link_that_is_only_signed(how):
    """A server may ask for it in plain text: only what is encrypted carries it so. (node-opcua never asks that.)"""
    client = GuardedClient("opc.tcp://127.0.0.1:1")
    plain = ua.UserTokenPolicy(
        TokenType=ua.UserTokenType.UserName, SecurityPolicyUri="http://opcfoundation.org/UA/SecurityPolicy#None"
    )
    client._policy_ids = [plain]
    client.security_policy.Mode = ua.MessageSecurityMode[how]
    if how == "SignAndEncrypt":
        assert client.server_policy(ua.UserTokenType.UserName) is plain
        return
    with pytest.raises(LinkRefused, match="plain text on a link that is not encrypted") as raised:
        client.server_policy(ua.UserTokenType.UserName)
    assert "SignAndEncrypt" in raised.value.hint


async def test_a_login_is_refused_where_anonymous_is_not_allowed(peer):
    """The server says that a user is needed."""
    security = {key: value for key, value in peer.security().items() if key not in {"user", "password"}}
    await refused(peer.context(security=security), "BadIdentityTokenRejected|BadIdentityTokenInvalid|anonymous")


async def test_a_server_that_is_not_ours_never_sees_the_password(peer, tmp_path):
    """A foreign certificate in the trust list: refused before a session is made."""
    other = await asyncio.to_thread(make_pair, tmp_path, "other", SERVER_URI)
    security = peer.security(server_certificates=[other.certificate])
    error = await refused(peer.context(security=security), "not trusted")
    assert "thumbprint" in error.hint
    assert (await peer.order("stats"))["sessions"] == 0


async def test_the_server_is_checked_again_on_the_secured_session(peer, monkeypatch):
    """The discovery that came first was not authenticated: another certificate behind the same address is refused there."""
    seen = []

    def check(certificate, *details):
        seen.append(certificate)
        check_server(certificate, *details)
        if len(seen) == 2:
            raise LinkRefused("the second look")

    monkeypatch.setattr("adapters.opcua.channel.check_server", check)
    await refused(peer.context(), "the second look")
    assert seen[0] == seen[1]


@pytest.mark.serves(uri="urn:somebody:else")
async def test_a_server_that_calls_itself_otherwise_is_refused(peer):
    """Its application URI is not the one in its certificate."""
    await refused(peer.context(), "urn:somebody:else, which is not in its certificate")


async def test_a_server_that_sends_its_chain_is_trusted_by_its_root(running_peer, tmp_path):
    """The authority between them comes from the server; without the root it is worth nothing."""

    def chain():
        now = datetime.now(UTC)
        dates = {"since": now - timedelta(days=1), "until": now + timedelta(days=1)}
        root = make("root", ca=True, uri=None, **dates)
        between = make("between", ca=True, uri=None, issuer=root, **dates)
        server = make("server", uri=SERVER_URI, issuer=between, **dates)
        _, key = server.write(tmp_path, "server")
        pem = b"".join(each.certificate.public_bytes(Encoding.PEM) for each in (server, between))
        (tmp_path / "chain.pem").write_bytes(pem)
        return (
            key,
            root.write(tmp_path, "root")[0],
            make("root", ca=True, uri=None, **dates).write(tmp_path, "other")[0],
        )

    key, root, other = await asyncio.to_thread(chain)
    peer = running_peer
    await peer.fresh(certificate=tmp_path / "chain.pem", key=key)
    await opens(peer.context(security=peer.security(server_certificates=[root])))
    await refused(peer.context(security=peer.security(server_certificates=[other])), "not trusted")


async def test_a_certificate_that_the_server_does_not_know_is_refused_with_a_hint(running_peer, users, tmp_path):
    """The server trusts one client; ours is another."""
    peer, (_, stranger, _) = running_peer, users
    await peer.fresh(trust=[stranger.certificate], pki=tmp_path / "pki")
    error = await refused(peer.context(), "hung up while the connection was secured")
    assert "trust" in error.hint
    security = peer.security(certificate=stranger.certificate, private_key=stranger.private_key)
    await opens(peer.context(security=security))


async def test_nobody_there_is_a_link_error(peer):
    """A closed port is no refusal: it is tried again soon."""
    await peer.stop()
    error = await refused(peer.context(), r"connecting to opc.tcp://127.*: nobody listens there", LinkError)
    assert not isinstance(error, LinkRefused)
    assert "port" in error.hint
    error = await refused(peer.context(url="opc.tcp://ems.invalid:4840"), "the name is not known", LinkError)
    assert not isinstance(error, LinkRefused)


async def test_a_port_that_speaks_something_else_is_a_link_error(peer):
    """A server that answers every byte with nonsense, or nothing at all."""

    async def nonsense(reader, writer):
        await reader.read(8)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    async def silence(reader, writer):
        await reader.read()
        writer.close()

    for handler in (nonsense, silence):
        async with await asyncio.start_server(handler, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            error = await refused(
                peer.context(url=f"opc.tcp://127.0.0.1:{port}", timeout="1s"), "connecting", LinkError
            )
            assert not isinstance(error, LinkRefused)


_DAY_NS = 86_400 * 10**9


class Later:
    """The machine's clock, some days on."""

    def __init__(self, days=0):
        self.days = days

    def now(self):
        stamp = SystemClock.here().now()
        return Stamp(stamp.wall_ns + self.days * _DAY_NS, stamp.mono_ns, stamp.boot)

    def wall_ns(self):
        return self.now().wall_ns

    def mono_ns(self):
        return self.now().mono_ns


@pytest.fixture(scope="module")
def shorter(tmp_path_factory):
    """A server's pair that ends in two days; ours lives for a year."""
    directory, key = tmp_path_factory.mktemp("shorter"), new_key(2048)
    wish = Wish(name="peer", application_uri=SERVER_URI, hosts=("127.0.0.1",), bits=2048)
    write_pair(
        directory / "peer.pem", directory / "peer.key", self_signed(wish, key, now=datetime.now(UTC), days=2), key
    )
    return directory


async def test_a_session_that_is_up_and_new_ones_after_the_end(running_peer, shorter):
    """What is up stays up as far as the adapter is concerned; a new session is made under `keep` alone, and its end is told in both."""
    peer = running_peer
    await peer.fresh(certificate=shorter / "peer.pem", key=shorter / "peer.key")
    clock, seen = Later(), []

    def context(word):
        security = peer.security(server_certificates=[shorter / "peer.pem"], on_expired_certificate=word)
        return peer.context(security=security)._replace(clock=clock, certified=seen.append)

    for word in ("stop", "keep"):
        clock.days = 0
        async with ADAPTER.open(context(word)) as session:
            assert (seen[-1].on_expired.value, 0 < seen[-1].ends_ns - clock.wall_ns() < 3 * _DAY_NS) == (word, True)
            clock.days = 3
            (found,) = await session.read([PLACE])
            assert (found.quality, found.value) == (Quality.GOOD, "REF1")
    with pytest.raises(LinkRefused, match="not valid now"):
        async with ADAPTER.open(context("stop")):
            pass
    seen.clear()
    async with ADAPTER.open(context("keep")) as session:
        assert seen[-1].ends_ns < clock.wall_ns()
        (found,) = await session.read([PLACE])
        assert found.value == "REF1"
    strange = peer.security(on_expired_certificate="keep")  # another certificate than the server's is in the list
    with pytest.raises(LinkRefused, match="not trusted"):
        async with ADAPTER.open(peer.context(security=strange)._replace(clock=clock)):
            pass
