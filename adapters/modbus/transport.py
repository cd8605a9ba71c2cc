"""The library's client for each way to a device: TCP, TLS, RTU frames over TCP, RTU on a serial line. With `bus` and `link` the only files that touch the library."""

import asyncio
import ssl
import termios
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any, Final

from pymodbus.client import AsyncModbusSerialClient, AsyncModbusTcpClient
from pymodbus.client.base import ModbusBaseClient
from pymodbus.exceptions import ModbusException
from pymodbus.framer import FramerType
from pymodbus.transport import CommParams, CommType

from adapters.modbus.config import Framing, ModbusOptions, Tls
from bridge.api import LinkRefused, load_own

_NEVER: Final = 1 << 31


class Garbled(ModbusException):
    """An answer that came whole and cannot be read."""


class _TlsClient(AsyncModbusTcpClient):
    """TLS with the framer of TCP: the library's own one for TLS ignores the frame's length and takes an answer in two records for two answers."""

    def __init__(self, options: ModbusOptions, context: ssl.SSLContext, traced: Callable[[bool], None]) -> None:
        self.comm_params = CommParams(
            comm_type=CommType.TLS,
            host=options.host,
            port=options.port,
            sslctx=context,
            comm_name="comm",
            reconnect_delay=0,
            reconnect_delay_max=0,
            timeout_connect=options.timeout,
        )
        super().__init__("", framer=FramerType.SOCKET, retries=0, trace_connect=traced)


async def client_of(
    options: ModbusOptions, traced: Callable[[bool], None], failed: Callable[[OSError], None]
) -> ModbusBaseClient:
    """A client that is not connected yet and never repeats or reconnects by itself. Raises `LinkRefused` for certificates that cannot be used."""
    client: ModbusBaseClient
    if options.serial is not None:
        if find_spec("serial") is None:
            raise LinkRefused(
                "a serial line needs pyserial, which is not installed", hint="pip install 'smp-bridge[serial]'"
            )
        client = AsyncModbusSerialClient(
            str(options.serial.device),
            framer=FramerType.RTU,
            baudrate=options.serial.baudrate,
            bytesize=options.serial.data_bits,
            parity=options.serial.parity.value,
            stopbits=options.serial.stop_bits,
            timeout=options.timeout,
            retries=0,
            reconnect_delay=0,
            trace_connect=traced,
        )
    elif options.tls is not None:
        client = _TlsClient(options, await asyncio.to_thread(_context, options.tls), traced)
    else:
        client = AsyncModbusTcpClient(
            options.host,
            port=options.port,
            framer=FramerType.RTU if options.framing is Framing.RTU else FramerType.SOCKET,
            timeout=options.timeout,
            retries=0,
            reconnect_delay=0,
            trace_connect=traced,
        )
    client.set_max_no_responses(_NEVER)  # whether a connection is of any more use is for its owner to say
    _watch(client, failed)
    _guard(client)
    return client


def context_of(client: ModbusBaseClient) -> ssl.SSLContext | None:
    """What secures the connections of this client; None where nothing does."""
    return client.ctx.comm_params.sslctx


def certificate_of(client: ModbusBaseClient) -> Mapping[str, Any]:
    """The device's certificate on a secured connection, as Python's ssl tells it."""
    secured: ssl.SSLObject = client.ctx.transport.get_extra_info("ssl_object")
    return secured.getpeercert() or {}


def allow(client: ModbusBaseClient, seconds: float) -> None:
    """How long the next connect or answer may take: what shares a connection may have time-outs of its own."""
    client.ctx.comm_params.timeout_connect = seconds


def _watch(client: ModbusBaseClient, failed: Callable[[OSError], None]) -> None:
    """Tell why a connection does not come about: the library itself only says that it does not."""
    create = client.ctx.call_create

    async def told() -> object:
        try:
            return await create()
        except (OSError, termios.error) as error:  # a line that does not take its settings
            known = error if isinstance(error, OSError) else OSError(str(error))
            failed(known)
            raise known from error

    client.ctx.call_create = told


def _guard(client: ModbusBaseClient) -> None:
    """A frame that is whole but says nothing is the answer to its request, and no more: the library would break the connection that others may share."""
    take = client.ctx.callback_data

    def taken(data: bytes, addr: tuple[object, ...] | None = None) -> int:
        try:
            return take(data, addr)
        except ModbusException as error:
            if not client.ctx.response_future.done():
                client.ctx.response_future.set_exception(Garbled(str(error)))
            return len(data)

    client.ctx.callback_data = taken  # type: ignore[method-assign]


def _context(tls: Tls) -> ssl.SSLContext:
    """Whom we trust and who we are; a device is never trusted unseen. Raises `LinkRefused`."""
    try:
        context = ssl.create_default_context(cafile=tls.ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if tls.certificate is not None:
            load_own(context, tls.certificate, tls.private_key)
    except (ssl.SSLError, OSError) as error:
        raise LinkRefused(
            f"the certificates of `tls:` cannot be used: {error}", hint="smp-bridge certificates doctor says more"
        ) from error
    return context
