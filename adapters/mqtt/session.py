"""One session: messages in, records out; acknowledgements in order; outcomes published. What a message means is decided in book.py."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Final

from adapters.mqtt.book import Book, Due
from adapters.mqtt.codec import printable
from adapters.mqtt.config import MqttOptions
from adapters.mqtt.link import Heard, Link
from adapters.mqtt.outbox import outgoing, word_message
from adapters.mqtt.replies import Reply, packed, unpacked
from adapters.mqtt.topics import plain as plain_topic
from bridge.api import Address, AlarmWord, Arrival, Quality, Reading, SessionContext, Stamp, Write, Written

log = logging.getLogger("adapters.mqtt")

MOST_ARRIVALS: Final = 1000  # returned at once
LONGEST_CATCHING_UP_S: Final = 60.0  # a broker that is never quiet
MOST_HELD_BYTES: Final = 64 * 1024 * 1024


@asynccontextmanager
async def open_session(context: SessionContext) -> AsyncIterator["MqttSession"]:
    """Connect, subscribe, and say good-bye at the end. Raises `LinkRefused` or `LinkError`."""
    session = MqttSession(context)
    try:
        await session.open()
        yield session
    finally:
        await session.close()


class _Receipt:
    """A message that the broker waits to have acknowledged."""

    __slots__ = ("done", "mid")

    def __init__(self, mid: int) -> None:
        self.mid = mid
        self.done = False


class _Waiting:
    """An arrival that was not fetched yet, or not acknowledged."""

    __slots__ = ("acked", "dues", "receipt", "received", "size")

    def __init__(self, dues: Sequence[Due], received: Stamp, receipt: _Receipt | None) -> None:
        self.dues = dues
        self.received = received
        self.receipt = receipt
        self.size = dues[0].size if len(dues) == 1 else sum(due.size for due in dues)
        self.acked = False


class MqttSession:
    """A `bridge.api.Session`."""

    can_read = False

    def __init__(self, context: SessionContext) -> None:
        options = context.options
        assert isinstance(options, MqttOptions)
        self._context = context
        self._options = options
        self._selections = {selection.flow: selection for selection in context.selections}
        self._own = {options.status_topic, getattr(context.word, "topic", None)}
        self._book = Book(context.selections, options.max_payload, self._own)
        self._inbox: deque[_Waiting] = deque()
        self._order: deque[_Receipt] = deque()
        self._ready = asyncio.Event()
        self._held = 0
        self._held_bytes = 0
        self._aside = 0
        self._unanswered = 0
        self._good = False  # something good came in this turn of the loop
        client_id = options.client_id or context.client_id or "smp-bridge"
        self._link = Link(
            options,
            client_id,
            heard=self._take,
            lost=self._ready.set,
            turned=self._turned,
            clock=context.clock,
            certified=context.certified,
            lowered=self._unguarded,
        )

    async def open(self) -> None:
        """Connect and subscribe."""
        where = {"site": self._context.site, "adapter": self._context.adapter}
        if self._options.tls is None and self._options.password is not None:
            log.warning("mqtt_password_in_clear", extra=where)
        await self._link.open(self._book.filters())
        if self._link.kept_s is not None:
            kept = {"asked_s": int(self._options.session_expiry), "kept_s": self._link.kept_s}
            log.warning("mqtt_session_expiry_shortened", extra={**where, **kept})

    async def close(self) -> None:
        """Leave the broker; acknowledgements that come later do nothing."""
        await self._link.close()

    async def receive(self) -> Sequence[Arrival]:
        """See `bridge.api.Session`."""
        while True:
            self._link.check()
            if self._inbox:
                break
            self._ready.clear()
            await self._ready.wait()
        count = min(len(self._inbox), MOST_ARRIVALS)
        return [self._arrival(self._inbox.popleft()) for _ in range(count)]

    async def read(self, addresses: Sequence[Address]) -> Sequence[Reading]:
        """See `bridge.api.Session`: never called, for a message that was sent cannot be looked at again."""
        return [Reading(value=None, quality=Quality.BAD, detail="MQTT cannot be read") for _ in addresses]

    async def write(self, writes: Sequence[Write]) -> Sequence[Written]:
        """See `bridge.api.Session`. An outcome is written once the broker has acknowledged its message."""
        self._link.check()
        entries = outgoing(writes, self._selections, self._book.flows, self._options, self._answer)
        sent = [(entry, message) for entry in entries if not entry.error for message in entry.messages()]
        if sent:
            refused = await self._link.publish([message for _, message in sent])
            for position, text in refused.items():
                entry, message = sent[position]
                if message.topic == entry.topic:
                    entry.error = text
                else:  # the outcome stands where the site file wants it
                    self._no_reply(message.topic, text)
        results = dict(pair for entry in entries for pair in entry.written(writes))
        return [results[position] for position in range(len(writes))]

    async def write_word(self, word: AlarmWord) -> str:
        """See `bridge.api.WordSession`. It stands once the broker has acknowledged its message."""
        self._link.check()
        given = self._context.word
        if not self._options.may_write(given.topic):
            return f"{printable(given.topic)} is outside `writable:`; nothing was published"
        refused = await self._link.publish([word_message(given.topic, word, retain=given.retain)])
        return next(iter(refused.values()), "")

    async def caught_up(self) -> None:
        """See `bridge.api.CatchingUp`. A broker sends what it kept in windows, each after our acknowledgements of the one before."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LONGEST_CATCHING_UP_S):
                before = -1
                while before != self._link.messages:
                    before = self._link.messages
                    await self._link.round_trip()

    # messages --------------------------------------------------------------------------------------------------------

    def _take(self, heard: Heard) -> None:
        """One message. What needs no commit is done with at once; its acknowledgement still waits for those before it (MQTT 5, 4.6)."""
        receipt = None
        if heard.mid:
            receipt = _Receipt(heard.mid)
            self._order.append(receipt)
        taken = self._book.take(heard.topic, heard.payload)
        self._good = self._good or taken.good
        if taken.beyond:
            self._context.beyond(taken.beyond)
        if taken.aside:
            self._put_aside(heard.topic, "; ".join(taken.aside))
        if taken.asking or taken.freed:
            if heard.reply is not None:
                taken.asking = self._replying(heard.reply, taken.asking)
            received = self._context.clock.now()
            if taken.asking:
                self._queue(_Waiting(taken.asking, received, receipt))
            for due in taken.freed:
                self._queue(_Waiting((due,), received, None))
        if receipt is not None and not taken.asking:
            receipt.done = True
            self._acknowledge()

    def _turned(self) -> None:
        """All that was there to be read has been taken: one word for it."""
        if self._good:
            self._good = False
            self._context.heard()

    def _replying(self, reply: Reply, asking: Sequence[Due]) -> list[Due]:
        """These requests with what they say about their answer, for the journal to keep."""
        text = ""
        try:
            text = packed(self._allowed(reply))
        except ValueError as error:
            self._no_reply(reply.topic, str(error))
        return [due if due.request is None else replace(due, reply=text) for due in asking]

    def _answer(self, text: str) -> Reply | None:
        """Where a request wants its answer. It may have been taken under another site file, so that is asked again."""
        try:
            reply = unpacked(text)
        except ValueError as error:
            self._no_reply("", str(error))
            return None
        return None if reply is None else self._allowed(reply)

    def _allowed(self, reply: Reply) -> Reply:
        """Without a topic that the site file does not let us write; the flow's own one is used then."""
        why = ""
        try:
            if reply.topic:
                plain_topic(reply.topic)
                if not self._options.may_write(reply.topic):
                    why = "it is outside `writable:`"
                elif self._book.hears(reply.topic) or reply.topic in self._own:
                    why = "the host reads or writes other things there"
        except ValueError as error:
            why = str(error)
        if not why:
            return reply
        self._no_reply(reply.topic, why)
        return Reply("", reply.correlation)

    def _queue(self, waiting: _Waiting) -> None:
        self._inbox.append(waiting)
        self._held += 1
        self._held_bytes += waiting.size
        if self._full():
            self._link.pause()
        self._ready.set()

    def _full(self) -> bool:
        return self._held >= self._options.max_unacknowledged or self._held_bytes >= MOST_HELD_BYTES

    def _arrival(self, waiting: _Waiting) -> Arrival:
        records = [due.record(waiting.received) for due in waiting.dues]
        return Arrival(records=records, ack=lambda _: self._acked(waiting))

    def _acked(self, waiting: _Waiting) -> None:
        """The core has it, or cannot read it; either way the broker need not send it again."""
        if waiting.acked:
            return
        waiting.acked = True
        self._held -= 1
        self._held_bytes -= waiting.size
        if waiting.receipt is not None:
            waiting.receipt.done = True
            self._acknowledge()
        if not self._full():
            self._link.resume()

    def _acknowledge(self) -> None:
        while self._order and self._order[0].done:
            self._link.ack(self._order.popleft().mid)

    def _unguarded(self, topics: Sequence[str]) -> None:
        """The broker sends these without asking for an acknowledgement: what it sends while nobody is there, or into a crash, is gone."""
        self._say("mqtt_qos_lowered", topics[0], "the broker grants QoS 0 alone", len(topics))

    def _put_aside(self, topic: str, why: str) -> None:
        self._aside += 1
        self._say("mqtt_message_put_aside", topic, why, self._aside)

    def _no_reply(self, topic: str, why: str) -> None:
        self._unanswered += 1
        self._say("mqtt_response_topic_refused", topic, why, self._unanswered)

    def _say(self, what: str, topic: str, why: str, count: int) -> None:
        """One line for the first, the second, the fourth … of them: a flood of nonsense must not become a flood of lines."""
        if count & (count - 1) == 0:
            fields = {
                "site": self._context.site,
                "adapter": self._context.adapter,
                "topic": printable(topic),
                "why": why,
                "count": count,
            }
            log.warning(what, extra=fields)
