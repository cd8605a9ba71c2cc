"""The protocol library's client as the options want it, and what of a message the library keeps in properties. Nothing here knows an event loop."""

import os
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

from paho.mqtt.client import Client, _WebsocketWrapper
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from adapters.mqtt.config import MqttOptions, Version
from adapters.mqtt.outbox import Message
from adapters.mqtt.replies import Reply, carried, variable
from adapters.mqtt.trust import trust
from bridge.api import OnExpired, has_expired, without_dates

AT_LEAST_ONCE: Final = 1
OFFLINE: Final = b"offline"
ONLINE: Final = b"online"
AHEAD: Final = 16 * 1024  # bytes asked of the connection at once
_PUBLISH: Final = 0x30  # with QoS 0 or 1: what else stands in those bits is no matter here
_CONTROL: Final = 0x8  # the bit of an opcode that marks frames of control (RFC 6455, 5.5)

_PROTOCOLS: Final = {Version.V311: MQTTProtocolVersion.MQTTv311, Version.V5: MQTTProtocolVersion.MQTTv5}


def made(options: MqttOptions, client_id: str) -> "Ahead":
    """A client that is not connected yet. It acknowledges and reconnects by itself never; its last will is the status topic's.

    A session that is kept for no time (`session_expiry` 0, which no site file can say) is a clean one: the broker remembers nothing of it.
    """
    client = Ahead(
        CallbackAPIVersion.VERSION2,
        client_id=client_id,
        clean_session=None if options.version is Version.V5 else options.session_expiry == 0,
        protocol=_PROTOCOLS[options.version],
        transport="tcp" if options.websocket is None else "websockets",
        reconnect_on_failure=False,
        manual_ack=True,
    )
    client.connect_timeout = options.timeout
    if options.websocket is not None:
        client.ws_set_options(path=options.websocket.path)
    if options.user is not None:
        client.username_pw_set(options.user, options.password.reveal() if options.password is not None else None)
    if options.status_topic is not None:
        client.will_set(options.status_topic, OFFLINE, AT_LEAST_ONCE, retain=True)
    return client


def connect(client: Client, options: MqttOptions) -> bool:
    """Look the name up, connect, secure, and greet; whether the dates of the broker's certificate had to be waived for that.

    It blocks, so it runs in a thread, before any event loop knows of the socket.
    """
    context = None if options.tls is None else trust(options.tls)
    if context is not None:
        client.tls_set_context(context)
    extra: dict[str, Any] = {}
    if options.version is Version.V5:
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = int(options.session_expiry)
        properties.ReceiveMaximum = options.max_unacknowledged
        extra = {"clean_start": False, "properties": properties}
    waived = False
    try:
        client.connect(options.host, options.port, keepalive=int(options.keepalive), **extra)
    except ssl.SSLCertVerificationError as error:
        keep = options.tls is not None and options.tls.on_expired_certificate is OnExpired.KEEP
        if context is None or not keep or not has_expired(error):
            raise
        with without_dates(context):
            client.connect(options.host, options.port, keepalive=int(options.keepalive), **extra)
        waived = True
    wrapper = client.socket()
    if isinstance(wrapper, _WebsocketWrapper):
        wrapper.__class__ = _Masking
    return waived


def certificate_of(sock: Any) -> Mapping[str, Any]:
    """The broker's certificate on a secured connection, as Python's ssl tells it; the library's WebSocket keeps the connection inside."""
    secured: Any = sock._socket if isinstance(sock, _WebsocketWrapper) else sock  # noqa: SLF001 - it offers no other way
    found: Mapping[str, Any] = secured.getpeercert()
    return found


class Ahead(Client):
    """The library's client, reading ahead: by itself it asks the system for each packet's first byte, each byte of its length, and the rest. For one connection.

    `plain` is told of a message: its topic, payload, packet identifier (0 with QoS 0), whether it was retained, and what its properties say about its
    answer where it has any. Half of what the library does with a message that came whole and without properties is to put it together from pieces,
    and to guard it from other threads.
    """

    plain: Callable[[str, bytes, int, bool, Reply | None], None] | None = None
    _ahead = b""
    _taken = 0
    _short = False

    @property
    def ahead(self) -> int:
        """Bytes that were read and not yet looked at: the connection does not become readable for those."""
        return len(self._ahead) - self._taken

    @property
    def drained(self) -> bool:
        """Whether the last read took all that the connection had, and all of it was looked at: another one now would find nothing."""
        return self._short and self._taken == len(self._ahead)

    @property
    def lacking(self) -> int:
        """Bytes that are still to come of the packet that is being read; 0 between two packets."""
        return int(self._in_packet["to_process"])

    def _handle_connack(self) -> MQTTErrorCode:
        """A broker may ask for more frequent signs of life than the site file (MQTT 5, 3.2.2.3.14). Where it asks for fewer or none ours stay, as any client may send them (3.1.2.10): by them it is noticed that the broker is gone."""
        mine = self._keepalive
        found: MQTTErrorCode = super()._handle_connack()
        self._keepalive = min(mine, self._keepalive or mine)
        return found

    def _sock_recv(self, bufsize: int) -> bytes:
        start, end = self._taken, self._taken + bufsize
        if start == len(self._ahead):
            found: bytes = super()._sock_recv(max(bufsize, AHEAD))
            self._short = len(found) < AHEAD
            if len(found) <= bufsize:
                return found
            self._ahead, start, end = found, 0, bufsize
        self._taken = min(end, len(self._ahead))
        return self._ahead[start:end]

    def _packet_read(self) -> MQTTErrorCode:
        """The next packet: a plain message at once, everything else in the library's way."""
        if self.plain is None or self._in_packet["command"]:
            return super()._packet_read()
        if self._taken == len(self._ahead):
            try:
                self._ahead, self._taken = super()._sock_recv(AHEAD), 0
                self._short = len(self._ahead) < AHEAD
            except BlockingIOError:
                return MQTTErrorCode.MQTT_ERR_AGAIN
            except OSError:
                return MQTTErrorCode.MQTT_ERR_CONN_LOST
        return MQTTErrorCode.MQTT_ERR_SUCCESS if self._told(self.plain) else super()._packet_read()

    def _handle_publish(self) -> MQTTErrorCode:
        """A message with properties, or one that came in pieces. The library ends the connection at U+FEFF in a property, which MQTT 5 allows (1.5.4): such a message would come again to each new one, and nothing behind it."""
        packet = self._in_packet
        found = None
        if self.plain is not None and self._protocol == MQTTProtocolVersion.MQTTv5:
            found = _published(packet["command"], bytes(packet["packet"]))
        if self.plain is None or found is None:
            return super()._handle_publish()
        self.plain(*found)
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def _told(self, plain: Callable[[str, bytes, int, bool, Reply | None], None]) -> bool:
        """Tell a PUBLISH of QoS 0 or 1 (MQTT 3.1.1 and 5, 3.3) that is here whole and has no properties; False for anything else, which stays where it is."""
        data, end, start = self._ahead, len(self._ahead), self._taken + 1
        if start >= end or data[start - 1] & 0xF4 != _PUBLISH:
            return False
        head = data[start - 1]
        try:
            size, start = variable(data, start)
        except ValueError:
            return False
        after = start + size
        if after > end or size < 2:
            return False
        body = start + 2 + (data[start] << 8 | data[start + 1])
        topic, mid = data[start + 2 : body], 0
        if head & 0x02:
            body += 2
            mid = data[body - 2] << 8 | data[body - 1] if body <= after else 0
        if self._protocol == MQTTProtocolVersion.MQTTv5:
            body += 1  # how long the properties are
            if body > after or data[body - 1]:
                return False
        if body > after or not topic:
            return False
        try:
            name = topic.decode()
        except UnicodeDecodeError:
            return False
        self._taken = after
        with self._msgtime_mutex:
            self._last_bytes_received = time.monotonic()
        plain(name, data[body:after], mid, bool(head & 0x01), None)
        return True


def _published(head: int, packet: bytes) -> tuple[str, bytes, int, bool, Reply | None] | None:
    """A PUBLISH of MQTT 5 with QoS 0 or 1 (3.3) as `Ahead.plain` is told of it; None for what is the library's to judge."""
    if head & 0xF4 != _PUBLISH:
        return None
    at = 2 + int.from_bytes(packet[:2], "big")
    topic, mid = packet[2:at], 0
    if head & 0x02:
        mid, at = int.from_bytes(packet[at : at + 2], "big"), at + 2
    try:
        size, at = variable(packet, at)
        end = at + size
        if not topic or end > len(packet):
            return None
        return topic.decode(), packet[end:], mid, bool(head & 0x01), carried(packet[at:end])
    except ValueError:
        return None


class _Masking(_WebsocketWrapper):
    """The library's WebSocket, answering pings and closing as RFC 6455 asks."""

    def _create_frame(self, opcode: int, data: bytearray, do_masking: int = 1) -> bytearray:  # noqa: ARG002 - the library's own signature
        """Every frame of a client is masked (5.1), or a strict gateway ends the connection. One of control waits for the end of the one under way (5.4)."""
        frame = super()._create_frame(opcode, data, 1)
        if opcode & _CONTROL and self._sendbuffer:
            self._sendbuffer += frame
            return bytearray()
        return frame


def without_delay(sock: Any) -> None:
    """Send each packet at once: otherwise an acknowledgement may hold the next outcome back until the peer's delayed TCP answer, 40 ms later.

    The option belongs to the open connection, so it may be set through a second descriptor of it, whatever the library has put around the first.
    A connection that has just broken needs none; that it broke is told where it is read.
    """
    with suppress(OSError), socket.socket(fileno=os.dup(sock.fileno())) as twin:
        twin.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def correlated(message: Message) -> Properties | None:
    """The properties that a message is published with; None for none."""
    if message.correlation is None:
        return None
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.CorrelationData = message.correlation
    return properties
