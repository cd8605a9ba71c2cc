"""A broker whose certificate has ended, under `on_expired_certificate: stop` and `keep`; and brokers that neither takes."""

import asyncio
from datetime import timedelta

import pytest
from mosquitto import mosquitto
from mqtt_site import context_of, options_of, read_site
from short_lived import HOST, certificate, flaws, tls_server

from adapters.mqtt import ADAPTER
from bridge.api import LinkError, LinkRefused, OnExpired
from bridge.clock import SystemClock

CLOCK = SystemClock.here()


def opened(tls, port, certified=lambda _: None, **options):
    given = {"host": HOST, "port": port, "tls": tls, "user": None, "password": None, **options}
    return ADAPTER.open(context_of(options_of(read_site(), **given))._replace(certified=certified))


def show(broker, leaf):
    """What the broker shows from its next start on."""
    leaf.private_key_pem.write_to_path(str(broker.certificates.key))
    broker.certificates.chain.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))


async def test_stop_refuses_and_keep_takes_what_has_ended(tmp_path):
    """Under `keep` a new connection is made and its end is told; under `stop` there is none; once it is renewed both connect again."""
    seen = []
    async with mosquitto(tmp_path / "broker", tls=True) as broker:
        stop, keep = ({"ca": str(broker.ca), "on_expired_certificate": word} for word in ("stop", "keep"))
        for tls, policy in ((stop, OnExpired.STOP), (keep, OnExpired.KEEP)):
            async with opened(tls, broker.port, seen.append):
                assert seen[-1].on_expired is policy
                assert seen[-1].ends_ns > CLOCK.wall_ns()
        for ends in (-timedelta(days=1), timedelta(days=1)):
            await broker.stop()
            show(broker, certificate(broker.authority, ends=ends))
            await broker.start()
            seen.clear()
            async with opened(keep, broker.port, seen.append):
                assert (seen[-1].ends_ns < CLOCK.wall_ns()) is (ends < timedelta())
            if ends < timedelta():
                with pytest.raises(LinkRefused, match="certificate has expired"):
                    async with opened(stop, broker.port):
                        pass
        async with opened(stop, broker.port, seen.append):
            assert seen[-1].ends_ns > CLOCK.wall_ns()


async def test_keep_takes_nothing_else(tmp_path):
    """Another authority, another host, not yet valid, a client's certificate: refused, and nothing is said to whoever shows one."""
    async with mosquitto(tmp_path / "broker", tls=True) as broker:
        tls = {"ca": str(broker.ca), "on_expired_certificate": "keep"}
        for flaw, leaf in flaws(broker.authority).items():
            async with tls_server(leaf) as (port, passed):
                with pytest.raises(LinkError, match="not trusted|not valid before") as caught:
                    async with opened(tls, port, timeout="2s"):
                        pass
                assert type(caught.value) is LinkRefused, flaw
            await asyncio.sleep(0)
            assert passed in ([], [b""]), flaw
