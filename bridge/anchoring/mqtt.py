"""A retained message on a broker: one short connection for each anchor, on the thread that blocks for it. The only module here that knows the protocol library."""

import socket
import ssl
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Self

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.exception import MQTTException
from paho.mqtt.reasoncodes import ReasonCode

from bridge.anchoring.places import ANSWER_S, NotTaken, told, trust
from bridge.config.anchors import MqttOptions
from bridge.config.references import FileSecret
from bridge.peers import load_own

QOS: Final = 1
_STEP_S: Final = 0.2
_PROTOCOLS: Final = {"5": MQTTProtocolVersion.MQTTv5, "3.1.1": MQTTProtocolVersion.MQTTv311}
_FAULTS: Final = (OSError, ValueError, TypeError, KeyError, IndexError, struct.error, MQTTException)


class MqttPlace:
    """A topic of a broker."""

    readable = True

    def __init__(self, options: MqttOptions, client_id: str) -> None:
        self._options = options
        self._client_id = options.client_id or client_id
        self._client: Client | None = None

    def send(self, body: bytes) -> None:
        """See `Place`."""
        with _Talk(self, self._options, self._client_id) as talk:
            talk.publish(self._options.topic, body)

    def read(self) -> bytes | None:
        """See `Place`. A broker that does not let us read says nothing."""
        with _Talk(self, self._options, self._client_id) as talk:
            return talk.retained(self._options.topic)

    def opened(self, client: Client | None) -> None:
        """The connection that is under way; None when it is closed."""
        self._client = client

    def interrupt(self) -> None:
        """See `Place`."""
        client = self._client
        sock: Any = client.socket() if client is not None else None
        if sock is not None:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


class _Talk:
    """One connection, entered and left as a context manager. Every wait has a limit; each error is a `NotTaken`."""

    def __init__(self, place: MqttPlace, options: MqttOptions, client_id: str) -> None:
        self._place = place
        self._options = options
        self._answers: dict[str, ReasonCode] = {}
        self._heard: bytes | None = None
        five = options.version == "5"
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=None if five else True,
            protocol=_PROTOCOLS[options.version],
            reconnect_on_failure=False,
        )
        client.connect_timeout = ANSWER_S
        if options.user is not None:
            secret = options.password
            secret = secret.now() if isinstance(secret, FileSecret) else secret
            client.username_pw_set(options.user, None if secret is None else secret.reveal())
        client.on_connect = self._on_connect
        client.on_publish = self._on_publish
        client.on_subscribe = self._on_subscribe
        client.on_unsubscribe = self._on_unsubscribe
        client.on_message = self._on_message
        self._client = client

    def __enter__(self) -> Self:
        options = self._options
        if options.secured:
            self._client.tls_set_context(self._context())
        self._place.opened(self._client)
        self._tried(lambda: self._client.connect(*options.address, keepalive=int(ANSWER_S)))
        self._until("connect")
        return self

    def __exit__(self, *_: object) -> None:
        self._place.opened(None)
        with suppress(*_FAULTS):
            self._client.disconnect()
        sock = self._client.socket()
        if sock is not None:
            with suppress(OSError):
                sock.close()

    def publish(self, topic: str, body: bytes) -> None:
        """Publish, and wait until the broker has it."""
        self._tried(lambda: self._client.publish(topic, body, QOS, retain=True))
        self._until("publish")

    def retained(self, topic: str) -> bytes | None:
        """What the broker keeps on this topic. It answers in order: what it keeps has come when it has ended the subscription."""
        self._tried(lambda: self._client.subscribe(topic, QOS))
        self._until("subscribe", refusable=True)
        if self._answers["subscribe"].is_failure:
            return None
        self._tried(lambda: self._client.unsubscribe(topic))
        self._until("unsubscribe", refusable=True)
        return self._heard

    def _context(self) -> ssl.SSLContext:
        options, context = self._options, trust(self._options.ca)
        if options.certificate is not None:
            try:
                load_own(context, options.certificate, options.private_key)
            except (ssl.SSLError, OSError) as error:
                raise NotTaken(f"{options.certificate} and its key cannot be used") from error
        return context

    def _until(self, answer: str, *, refusable: bool = False) -> None:
        """Turn the library's wheel until the broker answered."""
        deadline = time.monotonic() + ANSWER_S
        while answer not in self._answers:
            if time.monotonic() >= deadline:
                raise NotTaken(f"no answer within {ANSWER_S:g} s")
            code = self._tried(lambda: self._client.loop(_STEP_S))
            if code != MQTTErrorCode.MQTT_ERR_SUCCESS and answer not in self._answers:
                raise NotTaken("the broker broke the connection")
        reason = self._answers[answer]
        if reason.is_failure and not refusable:
            hint = "; is `version` one that the broker speaks?" if reason.value == 132 else ""
            raise NotTaken(f"the broker refuses to {answer} ({reason}){hint}")

    def _tried(self, step: Callable[[], Any]) -> Any:
        try:
            return step()
        except _FAULTS as error:
            raise NotTaken(told(error)) from error

    def _on_connect(self, _client: Client, _userdata: Any, _flags: Any, reason: ReasonCode, _properties: Any) -> None:
        self._answers["connect"] = reason

    def _on_publish(self, _client: Client, _userdata: Any, _mid: int, reason: ReasonCode, _properties: Any) -> None:
        self._answers["publish"] = reason

    def _on_subscribe(
        self, _client: Client, _userdata: Any, _mid: int, reasons: list[ReasonCode], _properties: Any
    ) -> None:
        self._answers["subscribe"] = reasons[0]

    def _on_unsubscribe(
        self, _client: Client, _userdata: Any, _mid: int, reasons: list[ReasonCode], _properties: Any
    ) -> None:
        self._answers["unsubscribe"] = reasons[0] if reasons else self._answers["subscribe"]

    def _on_message(self, _client: Client, _userdata: Any, message: MQTTMessage) -> None:
        if message.retain:
            self._heard = bytes(message.payload) or None
