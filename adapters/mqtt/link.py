"""One MQTT connection, used once, driven by the event loop's own readers and writers. Beside client.py and faults.py the only file that touches the protocol library."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from adapters.mqtt.book import SHARED
from adapters.mqtt.client import (
    AT_LEAST_ONCE,
    OFFLINE,
    ONLINE,
    certificate_of,
    connect,
    correlated,
    made,
    without_delay,
)
from adapters.mqtt.codec import printable
from adapters.mqtt.config import MqttOptions
from adapters.mqtt.faults import LIBRARY_FAULTS, Faults
from adapters.mqtt.outbox import Message
from adapters.mqtt.posts import Posts
from adapters.mqtt.replies import Reply
from bridge.api import Certified, Clock, LinkError, LinkRefused, shown, unseen

CLOSE_S: Final = 1.0
BURST: Final = 200  # packets read in one turn of the event loop
LATE_S: Final = 30.0  # for the answer to a subscription that stands behind messages
LONGEST_TICK_S: Final = 1.0
NOBODYS: Final = "smp-bridge/nobody"  # a filter that is never subscribed, to be taken back: every broker answers, and nothing changes


class Heard(NamedTuple):
    """One message as it came. `mid` is 0 where nothing is to be acknowledged."""

    topic: str
    payload: bytes
    mid: int
    reply: Reply | None = None
    retained: bool = False


class Link:
    """A connected broker. Once it has failed, every call raises `LinkError`."""

    def __init__(
        self,
        options: MqttOptions,
        client_id: str,
        *,
        heard: Callable[[Heard], None],
        lost: Callable[[], None],
        clock: Clock,
        turned: Callable[[], None] = lambda: None,
        certified: Certified = unseen,
        lowered: Callable[[Sequence[str]], None] = lambda _: None,
    ) -> None:
        self._options = options
        self._clock = clock
        self._certified = certified
        self._lowered = lowered
        self._faults = Faults(options)
        self._heard = heard
        self._lost = lost
        self._turned = turned
        self._loop = asyncio.get_running_loop()
        self._error: LinkError | None = None
        self._socket: Any = None
        self._paused = False
        self._watched = False
        self._bare = False  # a plain TCP socket: nothing is kept above it that was read already
        self._closing = False
        self._events = 0
        self._moved = asyncio.Event()
        self._gone = asyncio.Event()
        self._heard_out = asyncio.Event()
        self._connected = False
        self._filters: Sequence[str] = ()
        self._subscribed = False
        self._visited = False
        self._late: asyncio.TimerHandle | None = None
        self._posts = Posts()
        self._asked = 0
        self.messages = 0
        """How many messages came so far."""
        self.kept_s: int | None = None
        """For how long the broker keeps our session, where it said that this is shorter than was asked."""
        self._tick: asyncio.TimerHandle | None = None
        self._client = made(options, client_id)
        self._listen()

    async def open(self, filters: Sequence[str]) -> None:
        """Connect, subscribe, and say that we are there. Raises `LinkRefused` or `LinkError`.

        A broker may hand out what it kept for us before it answers the subscription, and may want that acknowledged first (amqtt does), so the
        first message ends the wait as well; the answer is then expected while the session runs.
        """
        self._filters = filters
        await self._dial()
        await self._until(lambda: self._connected, "connecting")
        # The session may remember a time before the group: with both subscriptions every member would hear every request.
        alone = [topic.split("/", 2)[2] for topic in filters if topic.startswith(SHARED)]
        if alone:
            self._client.unsubscribe(alone)
        self._client.subscribe([(topic, AT_LEAST_ONCE) for topic in filters])
        await self._until(lambda: self._subscribed or self._visited, "subscribing")
        if not self._subscribed:
            self._late = self._loop.call_later(LATE_S, self._unsubscribed)
        if self._options.status_topic is not None:
            with self._translated("publishing"):
                info = self._client.publish(self._options.status_topic, ONLINE, AT_LEAST_ONCE, retain=True)
            self._posts.status(info.mid)

    async def publish(self, messages: Sequence[Message]) -> dict[int, str]:
        """Publish these and wait until the broker has each; returns what it refused, by position. Raises `LinkError`.

        What is larger than the broker says it takes is not sent: it would end the connection, at each new one again.
        """
        self.check()
        await self._until(lambda: self._posts.status_said, "publishing")
        for together in self._posts.begin(messages):
            for position, message in together:
                with self._translated("publishing"):
                    info = self._client.publish(
                        message.topic, message.payload, AT_LEAST_ONCE, message.retain, correlated(message)
                    )
                if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
                    raise self.fail(f"publishing failed ({info.rc.name})")
                self._posts.outstanding[info.mid] = position
            await self._until(lambda: not self._posts.outstanding, "publishing")
        return self._posts.refused

    async def round_trip(self) -> None:
        """Ask the broker something that changes nothing, and wait for its answer: what it sent before has come then. Raises `LinkError`."""
        self.check()
        with self._translated("asking"):
            _, mid = self._client.unsubscribe(NOBODYS)
        self._asked = mid or 0
        await self._until(lambda: not self._asked, "asking whether the broker is there")

    def ack(self, mid: int) -> None:
        """Send the acknowledgement of one message; nothing happens when the link has ended."""
        if self._error is None and not self._closing:
            try:
                self._client.ack(mid, AT_LEAST_ONCE)
            except LIBRARY_FAULTS as error:
                raise self._fail(self._faults.of(error, "acknowledging")) from error

    def pause(self) -> None:
        """Stop reading: what comes stays in the socket, and the broker waits."""
        if not self._paused and self._socket is not None:
            self._paused = True
            self._loop.remove_reader(self._socket)

    def resume(self) -> None:
        """Read again."""
        if self._paused and self._socket is not None:
            self._paused = False
            self._loop.add_reader(self._socket, self._readable)
            self._loop.call_soon(self._readable)  # a secured connection may hold bytes that no longer make it readable

    def check(self) -> None:
        """Raise `LinkError` when the link has ended."""
        if self._error is not None:
            raise type(self._error)(str(self._error), hint=self._error.hint)

    def fail(self, text: str) -> LinkError:
        """End this link; the error is returned to be raised."""
        return self._fail(self._faults.lost(text))

    async def close(self) -> None:
        """Say good-bye where the link is well; otherwise the broker publishes the last will. No socket stays in either case.

        The last word is acknowledged before the socket closes: closing with bytes unread resets the connection, and the broker would then lose
        what it had not read yet, acknowledgements above all.
        """
        well = self._error is None and self._socket is not None and not self._posts.outstanding
        self._closing = True
        try:
            if well:
                async with asyncio.timeout(CLOSE_S):
                    await self._leave()
        except (LinkError, TimeoutError):
            pass  # it was lost while closing; the last will speaks for us
        finally:
            self._drop()

    async def _leave(self) -> None:
        self.resume()
        with self._translated("closing"):
            if self._connected and self._options.status_topic is not None:
                info = self._client.publish(self._options.status_topic, OFFLINE, AT_LEAST_ONCE, retain=True)
                self._posts.status(info.mid)
                await self._heard_out.wait()
            self._client.disconnect()
        await self._gone.wait()

    # opening ---------------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        """Take what the library tells."""
        client = self._client
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_unsubscribe = self._on_unsubscribe
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        client.plain = self._came

    async def _dial(self) -> None:
        """Name look-up, TCP and TLS in a thread: the library blocks there. A cancelled caller leaves no socket behind."""
        dialling = self._loop.run_in_executor(None, connect, self._client, self._options)
        try:
            with self._translated("connecting"):
                waived = await asyncio.shield(dialling)
        except asyncio.CancelledError:
            dialling.add_done_callback(self._hang_up)
            raise
        self._attach()
        if self._options.tls is not None:
            policy, now_ns = self._options.tls.on_expired_certificate, self._clock.wall_ns()
            try:
                certificate = shown(certificate_of(self._socket), policy, now_ns, waived=waived)
            except LinkRefused as error:
                raise self._fail(error) from error
            self._certified(certificate)

    def _attach(self) -> None:
        client = self._client
        self._socket = client.socket()
        if self._socket is None:
            raise self._fail(self._faults.broken())
        self._bare = not hasattr(self._socket, "pending")
        without_delay(self._socket)
        client.on_socket_close = self._on_socket_close
        client.on_socket_register_write = self._on_writing
        client.on_socket_unregister_write = self._on_written
        self._loop.add_reader(self._socket, self._readable)
        self._watch()
        self._tick = self._loop.call_later(self._tick_s, self._ticked)

    def _hang_up(self, dialled: "asyncio.Future[bool]") -> None:
        if not dialled.cancelled() and dialled.exception() is None:
            self._socket = self._client.socket()
            self._drop()

    def _unsubscribed(self) -> None:
        self.fail(f"subscribing: the broker gave no answer within {LATE_S:g} s")

    # what the event loop calls ---------------------------------------------------------------------------------------

    @property
    def _tick_s(self) -> float:
        return min(LONGEST_TICK_S, self._options.keepalive / 4)

    def _ticked(self) -> None:
        """The library's own clockwork: pings, and noticing that none are answered."""
        self._tick = None
        self._run(self._client.loop_misc)
        if self._error is None and self._socket is not None:
            self._tick = self._loop.call_later(self._tick_s, self._ticked)

    def _readable(self) -> None:
        """Read while messages come, up to a burst, so that a flood does not cost one turn of the loop for each.

        The library reads as many packets at once as there are messages of ours on their way, so it is what came that is counted.
        """
        began = self._events
        while self._events - began < BURST:
            if self._socket is None or self._paused:
                break
            before = self._events
            self._run(self._client.loop_read)
            if self._events == before or (self._bare and self._client.drained):
                break
        self._turned()
        if self._socket is not None and not self._paused and self._pending():
            self._loop.call_soon(self._readable)

    def _pending(self) -> bool:
        """Whether bytes are here already, read ahead or decrypted by a secured connection: the socket does not become readable for those."""
        if self._client.ahead:
            return True
        held = getattr(
            self._socket, "pending", None
        )  # a plain TCP socket has no such call; the library's WebSocket has it
        return held is not None and held() > 0

    def _flush(self) -> None:
        """Write what was queued in this turn of the loop; the socket is watched only when it takes no more."""
        if self._socket is not None:
            self._run(self._client.loop_write)
            self._watch()

    def _watch(self) -> None:
        if self._socket is not None and not self._watched and self._client.want_write():
            self._watched = True
            self._loop.add_writer(self._socket, self._writable)

    def _writable(self) -> None:
        self._run(self._client.loop_write)

    def _run(self, step: Callable[[], MQTTErrorCode]) -> None:
        """One step of the library. Whatever it raises ends the link; what nobody expects goes on to the event loop's own report."""
        finished = False
        try:
            step()
            finished = True
        except LinkError:
            finished = True  # told to the owner by `_fail`
        except LIBRARY_FAULTS as error:
            finished = True
            self._fail(self._faults.of(error, "talking to the broker"))
        finally:
            if not finished:
                self.fail("an unexpected error of the protocol library")

    # what the library calls ------------------------------------------------------------------------------------------

    def _on_writing(self, _client: Client, _userdata: Any, _sock: Any) -> None:
        self._loop.call_soon(self._flush)

    def _on_written(self, _client: Client, _userdata: Any, sock: Any) -> None:
        if self._watched:
            self._watched = False
            self._loop.remove_writer(sock)

    def _on_socket_close(self, _client: Client, _userdata: Any, sock: Any) -> None:
        self._loop.remove_reader(sock)
        self._loop.remove_writer(sock)
        self._socket = None

    def _on_connect(
        self, _client: Client, _userdata: Any, _flags: ConnectFlags, reason: ReasonCode, properties: Properties | None
    ) -> None:
        self._events += 1
        if reason.is_failure:
            self._fail(self._faults.unconnected(reason))
            return
        shared = [topic for topic in self._filters if topic.startswith(SHARED)]
        if shared and getattr(properties, "SharedSubscriptionAvailable", 1) == 0:
            self._fail(self._faults.unshared())
            return
        if getattr(properties, "MaximumQoS", AT_LEAST_ONCE) < AT_LEAST_ONCE:
            self._fail(self._faults.unacknowledged())
            return
        kept = getattr(properties, "SessionExpiryInterval", None)
        self.kept_s = kept if isinstance(kept, int) and kept < self._options.session_expiry else None
        self._posts.bound(getattr(properties, "ReceiveMaximum", None), getattr(properties, "MaximumPacketSize", None))
        self._connected = True
        self._moved.set()

    def _on_disconnect(
        self,
        _client: Client,
        _userdata: Any,
        flags: DisconnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        self._gone.set()
        self._heard_out.set()
        if self._closing:
            return
        self._fail(self._faults.ended(reason, told=flags.is_disconnect_packet_from_server, connected=self._connected))

    def _on_subscribe(
        self, _client: Client, _userdata: Any, _mid: int, reasons: list[ReasonCode], _properties: Properties | None
    ) -> None:
        self._events += 1
        self._subscribed = True
        if self._late is not None:
            self._late.cancel()
        granted = list(zip(self._filters, reasons, strict=False))
        for topic, reason in granted:
            if reason.is_failure:
                self._fail(self._faults.unsubscribed(topic, reason))
        below = [topic for topic, reason in granted if reason.value < AT_LEAST_ONCE]
        if below:
            self._lowered(below)
        self._moved.set()

    def _on_unsubscribe(
        self, _client: Client, _userdata: Any, mid: int, _reasons: list[ReasonCode], _properties: Properties | None
    ) -> None:
        self._events += 1
        if mid == self._asked:
            self._asked = 0
        self._moved.set()

    def _on_publish(
        self, _client: Client, _userdata: Any, mid: int, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        self._events += 1
        ours = self._posts.is_status(mid)
        if self._closing and ours:
            self._heard_out.set()
        self._posts.answered(mid, f"the broker refuses the message ({printable(reason)})" if reason.is_failure else "")
        if ours and reason.is_failure:
            self._fail(self._faults.statusless(reason))
        self._moved.set()

    def _on_message(self, _client: Client, _userdata: Any, message: MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = ""  # fits no template: acknowledged and put aside
        mid = message.mid if message.qos else 0
        self._came(topic, bytes(message.payload), mid, message.retain, None)

    def _came(self, topic: str, payload: bytes, mid: int, retained: bool, reply: Reply | None) -> None:  # noqa: FBT001 - the client's own form
        self._events += 1
        self.messages += 1
        if self._closing:
            return  # it comes again to the next session
        if not self._visited:
            self._visited = True
            self._moved.set()
        self._heard(Heard(topic, payload, mid, reply, retained))

    # ending ----------------------------------------------------------------------------------------------------------

    async def _until(self, condition: Callable[[], bool], doing: str) -> None:
        """Wait for an answer; as long as answers come, or messages that it stands behind, the limit starts anew. Raises `LinkError`."""
        while True:
            self.check()
            if condition():
                return
            self._moved.clear()
            before = self.messages, self._client.lacking
            try:
                async with asyncio.timeout(self._options.timeout):
                    await self._moved.wait()
            except TimeoutError:
                if self._paused or before != (self.messages, self._client.lacking):
                    continue  # it is we who do not listen, or a slow link that brings what came first
                raise self.fail(f"{doing}: the broker gave no answer within {self._options.timeout:g} s") from None

    @contextmanager
    def _translated(self, doing: str) -> Iterator[None]:
        """The one place where the library's errors become ours."""
        try:
            yield
        except LIBRARY_FAULTS as error:
            raise self._fail(self._faults.of(error, doing)) from error

    def _fail(self, error: LinkError) -> LinkError:
        if self._error is None:
            self._error = error
            self._moved.set()
            self._lost()
        return error

    def _drop(self) -> None:
        """Close the socket without a word."""
        for timer in (self._tick, self._late):
            if timer is not None:
                timer.cancel()
        self._client.on_socket_close = None  # the library closes it once more when it is collected
        sock, self._socket = self._socket, None
        if sock is not None:
            self._loop.remove_reader(sock)
            self._loop.remove_writer(sock)
            sock.close()
