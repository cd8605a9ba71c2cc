"""The end of an EMS's certificate: what is waived of a certificate and what never is, and what follows at that moment."""

import asyncio
import ssl

import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from short_lived import HOST, certificate, flaws, tls_server
from virtual_time import in_virtual_time

from bridge.errors import LinkRefused
from bridge.field.certificates import LONGEST_S, PeerWatch
from bridge.peers import OnExpired, PeerCertificate, has_expired, load_own, shown, without_dates

S = 10**9
START = 1_795_000_000 * S


# what is waived ------------------------------------------------------------------------------------------------------


async def reached(context, port):
    """Connect once; the error, or None."""
    try:
        _, writer = await asyncio.open_connection(HOST, port, ssl=context, server_hostname=HOST)
    except ssl.SSLError as error:
        return error
    writer.close()
    return None


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
def context(authority):
    made = ssl.create_default_context()
    authority.configure_trust(made)
    return made


async def test_the_end_of_a_certificate_is_waived_and_only_meanwhile(authority, context):
    """Refused for its end alone, taken without dates, and refused again by the same context afterwards."""
    async with tls_server(certificate(authority)) as (port, _):
        assert has_expired(await reached(context, port))
        with without_dates(context):
            assert await reached(context, port) is None
        assert has_expired(await reached(context, port))


FLAWS = ["another authority", "another host", "another host and not ended", "no server's"]


@pytest.mark.parametrize("flaw", FLAWS)
async def test_nothing_else_is_waived(authority, context, flaw):
    """Whose certificate it is, for which host and for what: all of that is checked without dates as with them."""
    async with tls_server(flaws(authority)[flaw]) as (port, passed):
        with without_dates(context):
            error = await reached(context, port)
        assert isinstance(error, ssl.SSLCertVerificationError)
        assert not has_expired(error)
    assert passed in ([], [b""])


def test_what_is_not_valid_yet_is_refused_although_dates_were_waived():
    """The end is waived, not the beginning; where something above it ended, it ends now at the latest."""
    peer = {"notBefore": "Nov 18 00:00:00 2026 GMT", "notAfter": "Nov 20 00:00:00 2026 GMT"}
    begins, ends = (int(ssl.cert_time_to_seconds(peer[key])) * S for key in ("notBefore", "notAfter"))
    assert shown(peer, OnExpired.KEEP, begins, waived=False) == PeerCertificate(ends, OnExpired.KEEP)
    assert shown(peer, OnExpired.KEEP, ends + S, waived=True).ends_ns == ends
    assert shown(peer, OnExpired.KEEP, begins + S, waived=True).ends_ns == begins + S
    with pytest.raises(LinkRefused, match="not valid before 2026-11-18 00:00Z"):
        shown(peer, OnExpired.KEEP, begins - S, waived=True)


# what follows --------------------------------------------------------------------------------------------------------


class LoopClock:
    """The loop's own time as wall time; it can be set."""

    def __init__(self):
        self.set_ns = 0

    def wall_ns(self):
        return START + self.set_ns + int(asyncio.get_running_loop().time() * S)


class Watched:
    def __init__(self):
        self.clock = LoopClock()
        self.said = []
        self.known = 0
        self.watch = PeerWatch(self.clock, self.said.append, self._known)

    def _known(self):
        self.known += 1

    def show(self, in_s, policy):
        self.watch.show(PeerCertificate(self.clock.wall_ns() + in_s * S, policy))


def test_under_stop_the_link_is_closed_at_that_moment():
    """Not before it and not after it; the alarm says what follows."""

    async def work():
        made = Watched()
        made.show(3600, OnExpired.STOP)
        with pytest.raises(LinkRefused, match="certificate ended on .*closed until it shows another one") as caught:
            await made.watch.run()
        assert made.clock.wall_ns() == START + 3600 * S
        assert caught.value.hint
        assert [bool(text) for text in made.said] == [False, True]

    in_virtual_time(work())


def test_under_keep_the_link_goes_on_and_a_renewed_certificate_ends_the_alarm():
    """The alarm from that moment on, once; another certificate clears it, and is watched in its turn."""

    async def work():
        made = Watched()
        made.show(3600, OnExpired.KEEP)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(7200):
                await made.watch.run()
        assert [bool(text) for text in made.said] == [False, True]
        assert "goes on" in made.said[-1]
        made.show(3600, OnExpired.STOP)
        assert made.said[-1] == ""
        assert (made.known, made.watch.ends_ns) == (2, START + 10_800 * S)
        with pytest.raises(LinkRefused):
            await made.watch.run()
        assert made.clock.wall_ns() == START + 10_800 * S

    in_virtual_time(work())


def test_a_clock_that_is_set_and_a_link_without_a_certificate():
    """Another time of day is noticed within half a minute; without a certificate there is nothing to wait for."""

    async def work():
        made = Watched()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1e6):
                await made.watch.run()
        assert (made.said, made.watch.ends_ns) == ([], 0)
        made.show(864_000, OnExpired.STOP)
        running = asyncio.get_running_loop().create_task(made.watch.run())
        await asyncio.sleep(60)
        made.clock.set_ns = 864_000 * S
        began = asyncio.get_running_loop().time()
        with pytest.raises(LinkRefused):
            await running
        assert asyncio.get_running_loop().time() - began <= LONGEST_S

    in_virtual_time(work())


def test_nobody_is_asked_for_the_passphrase_of_a_key(tmp_path):
    """The library would ask at the terminal, if there is one, and the host would stand still; it is said instead."""
    key = ec.generate_private_key(ec.SECP256R1())
    own = trustme.CA().issue_cert("smp-bridge.example")
    own.cert_chain_pems[0].write_to_path(tmp_path / "own.pem")
    kept = serialization.BestAvailableEncryption(b"secret")
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
    (tmp_path / "own.key").write_bytes(key.private_bytes(*form, kept))
    with pytest.raises(ssl.SSLError, match="has a passphrase"):
        load_own(ssl.create_default_context(), tmp_path / "own.pem", tmp_path / "own.key")
