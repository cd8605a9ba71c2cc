"""A device behind TLS whose certificate has ended, under `on_expired_certificate: stop` and `keep`; the peer is libmodbus."""

import ssl
from datetime import timedelta

import pytest
import trustme
from modbus_device import modbus_device
from modbus_lines import tls_in_front
from modbus_records import HEADER, record
from modbus_site import SAMPLE, context_of, read_site, selections_of
from short_lived import HOST, certificate, flaws

from adapters.modbus import ADAPTER
from adapters.modbus.config import ModbusOptions
from bridge.api import Address, LinkRefused, OnExpired
from bridge.clock import SystemClock

CLOCK = SystemClock.here()


def opened(port, tls, certified=lambda _: None, **more):
    flows = {"flows": {"batteries": read_site(SAMPLE)["flows"]["batteries"]}}
    given = {"unit": 1, "poll": "10ms", "timeout": "2s", "host": HOST, "port": port, "tls": tls, "writable": WRITABLE}
    options = ModbusOptions.model_validate({**given, **more})
    return ADAPTER.open(context_of(options, selections_of(flows))._replace(certified=certified))


WRITABLE = ["8..9", {"from": 160, "to": 179, "every": 80, "count": 64}]


def side(leaf):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    leaf.configure_cert(context)
    return context


async def test_stop_refuses_and_keep_takes_what_has_ended_and_nothing_else(tmp_path):
    """Under `keep` the device is read and the end is told, between two polls too; every other flaw is refused."""
    authority, seen = trustme.CA(), []
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    stop, keep = ({"ca": tmp_path / "ca.pem", "on_expired_certificate": word} for word in ("stop", "keep"))
    async with modbus_device() as device:
        await device.put(0, *HEADER)
        await device.put_bytes(100, record("RK01"))
        await device.put_bytes(180, record("RK02"))
        good = side(certificate(authority, ends=timedelta(days=1)))
        async with tls_in_front(device.port, good) as port, opened(port, stop, seen.append):
            assert (seen[-1].on_expired, seen[-1].ends_ns > CLOCK.wall_ns()) == (OnExpired.STOP, True)
        async with tls_in_front(device.port, side(certificate(authority))) as port:
            with pytest.raises(LinkRefused, match="no TLS: CERTIFICATE_VERIFY_FAILED"):
                async with opened(port, stop):
                    pass
            seen.clear()
            async with opened(port, keep, seen.append, close_after_poll=True) as session:
                assert (seen[-1].on_expired, seen[-1].ends_ns < CLOCK.wall_ns()) == (OnExpired.KEEP, True)
                (found,) = await session.read([Address("batteries", "1", "export_kw")])
                assert found.value == 49500
        for flaw, leaf in flaws(authority).items():
            async with tls_in_front(device.port, side(leaf)) as port:
                with pytest.raises(LinkRefused, match="no TLS|not valid before"):
                    async with opened(port, keep):
                        raise AssertionError(flaw)
