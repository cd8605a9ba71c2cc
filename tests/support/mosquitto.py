"""A real mosquitto in a process of its own, and an independent client (paho with its own thread), for tests."""

import asyncio
import json
import signal
import socket
import ssl
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from random import SystemRandom
from typing import Self

import trustme
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

ANSWER_S = 10.0
HOST = "127.0.0.1"


class Certificates:
    """An authority, and a server's key and chain below it, as PEM files."""

    def __init__(self, directory: Path, names: tuple[str, ...] = (HOST, "localhost")) -> None:
        self.authority = trustme.CA()
        self.ca = directory / "ca.pem"
        self.key = directory / "server.key"
        self.chain = directory / "server.pem"
        self.authority.cert_pem.write_to_path(str(self.ca))
        server = self.authority.issue_cert(*names)
        server.private_key_pem.write_to_path(str(self.key))
        self.chain.write_bytes(b"".join(blob.bytes() for blob in server.cert_chain_pems))


class Broker:
    """One mosquitto. `user`/`password` are empty where anybody may connect; `ca` is None without TLS."""

    def __init__(
        self,
        directory: Path,
        *,
        tls: bool = False,
        user: str = "",
        password: str = "",
        extra: str = "",
        names: tuple[str, ...] = (HOST, "localhost"),
    ):
        self.directory = directory
        self.host = HOST
        self.port = free_port()
        self.user = user
        self.password = password
        self._extra = extra
        self._process: asyncio.subprocess.Process | None = None
        directory.mkdir(parents=True, exist_ok=True)
        self.certificates = Certificates(directory, names) if tls else None
        self.ca: Path | None = self.certificates.ca if self.certificates else None
        self.authority = self.certificates.authority if self.certificates else None

    async def start(self) -> None:
        """Listen, on the same port and with the same state as before."""
        if self.user:
            await self._write_password()
        config = self.directory / "mosquitto.conf"
        config.write_text(self._config())
        with (self.directory / "mosquitto.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec("mosquitto", "-c", str(config), stdout=log, stderr=log)
        async with asyncio.timeout(ANSWER_S):
            while not self._answers():
                assert self._process.returncode is None, (self.directory / "mosquitto.log").read_text()
                await asyncio.sleep(0.01)

    async def stop(self, how: int = signal.SIGTERM) -> None:
        """End it; SIGTERM lets it save its state."""
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        process.send_signal(how)
        try:
            async with asyncio.timeout(ANSWER_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    def freeze(self) -> None:
        """Stop it without closing anything."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._process.send_signal(signal.SIGCONT)

    def arguments(self) -> list[str]:
        """What mosquitto_sub and mosquitto_pub need."""
        found = ["-h", self.host, "-p", str(self.port)]
        if self.user:
            found += ["-u", self.user, "-P", self.password]
        return found + (["--cafile", str(self.ca)] if self.ca else [])

    def options(self, **changes: object) -> dict:
        """The adapter's options for it, as a site file would spell them."""
        found: dict = {"host": self.host, "port": self.port}
        if self.ca:
            found["tls"] = {"ca": str(self.ca)}
        if self.user:
            found["user"] = self.user
        return {**found, **changes}

    def _answers(self) -> bool:
        try:
            socket.create_connection((self.host, self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def _config(self) -> str:
        lines = [
            f"listener {self.port} {self.host}",
            "user root",
            "persistence true",
            f"persistence_location {self.directory}/",
            "log_dest stdout",
            "connection_messages true",
        ]
        if self.user:
            lines += ["allow_anonymous false", f"password_file {self.directory / 'passwords'}"]
        else:
            lines.append("allow_anonymous true")
        if self.certificates:
            lines += [f"cafile {self.ca}", f"certfile {self.certificates.chain}", f"keyfile {self.certificates.key}"]
        return "\n".join([*lines, self._extra]) + "\n"

    async def _write_password(self) -> None:
        path = self.directory / "passwords"
        if not path.exists():
            command = ["mosquitto_passwd", "-b", "-c", str(path), self.user, self.password]
            process = await asyncio.create_subprocess_exec(*command)
            assert await process.wait() == 0


@asynccontextmanager
async def mosquitto(directory: Path, **options: object) -> AsyncIterator[Broker]:
    """A broker that listens."""
    broker = Broker(directory, **options)
    try:
        await broker.start()
        yield broker
    finally:
        if broker._process is not None:
            broker.thaw()
        await broker.stop()


def free_port() -> int:
    """A port that nobody uses, and that no connection going out is given while its server is not there (Linux hands out 32768 and above)."""
    while True:
        port = SystemRandom().randrange(15_000, 32_000)
        with socket.socket() as found, suppress(OSError):
            found.bind((HOST, port))
            return port


class Peer:
    """An EMS: publishes, and hears what it subscribed to. Its socket belongs to a thread of the library's own."""

    def __init__(
        self,
        broker: Broker,
        *,
        client_id: str = "",
        clean: bool = True,
        manual_ack: bool = False,
        protocol: MQTTProtocolVersion = MQTTProtocolVersion.MQTTv311,
    ):
        self.messages: list[MQTTMessage] = []
        self._news = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._subscribed = threading.Event()
        self.client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=clean if protocol is MQTTProtocolVersion.MQTTv311 else None,
            protocol=protocol,
            manual_ack=manual_ack,
        )
        if broker.ca:
            self.client.tls_set_context(ssl.create_default_context(cafile=str(broker.ca)))
        if broker.user:
            self.client.username_pw_set(broker.user, broker.password)
        self.client.reconnect_delay_set(0.05, 0.2)
        self.client.on_message = self._on_message
        self.client.on_subscribe = lambda *_: self._subscribed.set()
        self._broker = broker

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self.client.connect, self._broker.host, self._broker.port)
        self.client.loop_start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.client.disconnect()
        await asyncio.to_thread(self.client.loop_stop)

    async def publish(
        self, topic: str, payload: object, *, retain: bool = False, qos: int = 1, **properties: object
    ) -> None:
        """Publish JSON, text or bytes, with these properties of MQTT 5, and wait until the broker has it."""
        data = payload if isinstance(payload, bytes | str) else json.dumps(payload)
        carried = Properties(PacketTypes.PUBLISH) if properties else None
        for name, value in properties.items():
            setattr(carried, name, value)
        info = self.client.publish(topic, data, qos, retain, carried)
        await asyncio.to_thread(info.wait_for_publish, ANSWER_S)
        assert info.is_published()

    async def subscribe(self, *topics: str) -> None:
        """Hear these from now on (and what is retained there)."""
        for topic in topics:
            self._subscribed.clear()
            self.client.subscribe(topic, 1)
            assert await asyncio.to_thread(self._subscribed.wait, ANSWER_S)

    async def reconnected(self) -> None:
        """Wait until the library has come back by itself after the broker was away."""
        async with asyncio.timeout(ANSWER_S):
            while not self.client.is_connected():
                await asyncio.sleep(0.02)

    def on(self, topic: str) -> list:
        """The bodies heard on this topic, in order: JSON where it is some, else text."""
        return [_body(message.payload) for message in self.messages if message.topic == topic]

    async def until(self, topic: str, count: int = 1) -> list:
        """Wait until so many messages came on a topic."""
        async with asyncio.timeout(ANSWER_S):
            while len(found := self.on(topic)) < count:
                self._news.clear()
                await self._news.wait()
        return found

    def _on_message(self, _client: Client, _userdata: object, message: MQTTMessage) -> None:
        self._loop.call_soon_threadsafe(self._heard, message)

    def _heard(self, message: MQTTMessage) -> None:
        self.messages.append(message)
        self._news.set()


def _body(payload: bytes) -> object:
    try:
        return json.loads(payload)
    except ValueError:
        return payload.decode("utf-8", "replace")
