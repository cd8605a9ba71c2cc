"""A small MQTT 3.1.1 broker in this process: TLS, two users with a password each."""

import asyncio
import hmac
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from amqtt.broker import Broker
from amqtt.errors import ProtocolHandlerError
from amqtt.plugins.base import BaseAuthPlugin

from bridge.clock import SystemClock
from bridge.sandbox.pki import Authority

_CLOSE_S: Final = 5.0
_LOST: Final = frozenset({"SSL connection is closed", "socket.send() raised exception."})


class Gate(BaseAuthPlugin):  # type: ignore[misc]  # the library is untyped here
    """Lets in who knows a password; the library finds it by its name."""

    async def authenticate(self, *, session: Any) -> bool:
        """Whether this client may connect."""
        expected = self.config.passwords.get(session.username or "")
        return expected is not None and hmac.compare_digest(expected.encode(), (session.password or "").encode())

    @dataclass
    class Config:
        """User and password."""

        passwords: dict[str, str] = field(default_factory=dict)


class DemoBroker:
    """Entered as an async context manager; then `port` is where it listens. `directory` receives its authority and its certificate."""

    def __init__(self, directory: Path, name: str, passwords: Mapping[str, str], *, host: str, port: int) -> None:
        self.host = host
        self.port = port
        self.ca_file = directory / f"{name}-ca.pem"
        self._directory = directory
        self._name = name
        self._passwords = dict(passwords)
        self._broker: Any = None

    async def __aenter__(self) -> Self:
        certificate, key = self._certify()
        listener = {
            "type": "tcp",
            "bind": f"{self.host}:{self.port}",
            "ssl": True,
            "certfile": str(certificate),
            "keyfile": str(key),
        }
        config = {
            "listeners": {"default": listener},
            "plugins": {f"{Gate.__module__}.{Gate.__qualname__}": {"passwords": self._passwords}},
        }
        _hear_nothing_of_clients_that_left()
        self._broker = Broker(config)
        await self._broker.start()
        (server,) = self._broker._servers.values()  # noqa: SLF001 - the library does not tell which port it was given
        self.port = server.instance.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        _hear_nothing_of_messages_on_their_way(asyncio.get_running_loop())
        with suppress(
            TimeoutError
        ):  # the library may wait for ever for a client that vanished; the process ends with the demo
            async with asyncio.timeout(_CLOSE_S):
                await self._broker.shutdown()

    def _certify(self) -> tuple[Path, Path]:
        """A certificate of its own authority, as a plant's own broker would have."""
        authority = Authority(f"{self._name} demo", clock=SystemClock.here())
        pair = authority.server(self._name)
        certificate = self._directory / f"{self._name}-broker.crt.pem"
        key = self._directory / f"{self._name}-broker.key.pem"
        self._directory.mkdir(parents=True, exist_ok=True)
        self.ca_file.write_bytes(authority.pem)
        certificate.write_bytes(pair.certificate)
        key.touch(mode=0o600)
        key.write_bytes(pair.private_key)
        return certificate, key


def _hear_nothing_of_messages_on_their_way(loop: asyncio.AbstractEventLoop) -> None:
    """The library leaves the tasks of messages that it was still handling to fail by themselves; nobody wants their tracebacks at the end of a demo."""
    before = loop.get_exception_handler() or type(loop).default_exception_handler

    def heard(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if not isinstance(context.get("exception"), ProtocolHandlerError):
            before(loop, context)

    loop.set_exception_handler(heard)


def _hear_nothing_of_clients_that_left() -> None:
    """The library goes on writing to a client that has left, and the event loop says so each time: when a demo ends, the host leaves before the broker does."""
    logging.getLogger("asyncio").addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    return record.msg not in _LOST
