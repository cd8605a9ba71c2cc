"""One look at what a broker holds for a site file: retained registrations, and what arrives while it listens. Publishes nothing, and keeps no session."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from adapters.mqtt.book import Book, FlowBook
from adapters.mqtt.codec import printable
from adapters.mqtt.config import ChangeSubmit, MqttOptions
from adapters.mqtt.link import Heard, Link
from bridge.api import Beside, Look, Reading, Record, SessionContext, Trigger, Trouble

_MOST_ASIDE: Final = 100  # topics of which something is told
_TOO_MANY: Final = "there are more than"
_OTHERWISE: Final = "the request is not one"


@asynccontextmanager
async def open_probe(context: SessionContext) -> AsyncIterator["MqttProbe"]:
    """Connect under a client id of our own, without a last will, and subscribe outside any group. Raises `LinkRefused` or `LinkError`."""
    probe = MqttProbe(context)
    try:
        await probe.open()
        yield probe
    finally:
        await probe.close()


class MqttProbe:
    """A `bridge.api.Probe`. Its own client id and clean session leave the session of a running bridge, and what waits there, alone."""

    def __init__(self, context: SessionContext) -> None:
        options = context.options
        assert isinstance(options, MqttOptions)
        self._context = context
        self._options = options
        registrations = [replace(each, trigger=Trigger.CHANGE, submit=ChangeSubmit()) for each in context.selections]
        own = {options.status_topic, getattr(context.word, "topic", None)}
        self._held = Book(registrations, options.max_payload, own)
        self._asked = Book(context.selections, options.max_payload, own)
        self._records: dict[tuple[str, str], Record] = {}
        self._marks: dict[tuple[str, str], str] = {}
        self._requests: dict[tuple[str, str], tuple[str, bool]] = {}
        self._parts: dict[tuple[str, str], set[str]] = {}
        self._aside: dict[tuple[str, str], Trouble] = {}
        self._lost = asyncio.Event()
        # A probe is nobody whom the EMS should see come and go, and the broker shall remember nothing of it.
        silent = options.model_copy(update={"status_topic": None, "session_expiry": 0.0})
        self._link = Link(
            silent, context.client_id or "smp-probe", heard=self._take, lost=self._lost.set, clock=context.clock
        )

    async def open(self) -> None:
        """Connect and subscribe."""
        asked = [flow.asks.filter for flow in self._asked.flows.values() if flow.asks is not None]
        await self._link.open(list(dict.fromkeys([*self._held.filters(), *asked])))

    async def close(self) -> None:
        """Leave the broker."""
        await self._link.close()

    async def look(self, wait_s: float) -> Look:
        """See `bridge.api.Probe`."""
        try:
            async with asyncio.timeout(wait_s):
                await self._lost.wait()
        except TimeoutError:
            pass
        self._link.check()
        known = {key: record for key, record in self._records.items() if self._stands(key)}
        return Look(
            said=self._said(),
            records=[known[key] for key in sorted(known)],
            beside=[
                Beside(*key, "submit.request", Reading(value=request)) for key, (request, _) in self._requests.items()
            ],
            troubles=[*self._troubles(wait_s)],
            marks=self._marks,
        )

    def _stands(self, key: tuple[str, str]) -> bool:
        """Whether this registration was not taken away since."""
        return self._held.flows[key[0]].known(key[1]) is not None

    # messages ----------------------------------------------------------------------------------------

    def _take(self, heard: Heard) -> None:
        """One message. Its acknowledgement concerns our own subscription alone: whoever else subscribed gets a copy of his own."""
        if heard.mid:
            self._link.ack(heard.mid)
        received = self._context.clock.now()
        moment = datetime.fromtimestamp(received.wall_ns / 1e9, UTC)
        mark = "retained" if heard.retained else f"arrived {moment:%H:%M:%S}"
        taken = self._held.take(heard.topic, heard.payload)
        for due in taken.asking:
            key = due.flow.name, due.place
            self._records[key], self._marks[key] = due.record(received), mark
        self._tell(heard.topic, [text for text in taken.aside if text.startswith(_TOO_MANY)])
        self._note_parts(heard)
        asked = self._asked.take(heard.topic, heard.payload)
        for due in asked.asking:
            if due.request is not None:
                self._requests[due.flow.name, due.place] = due.request, heard.retained
        if not self._held.hears(heard.topic):
            self._tell(heard.topic, asked.aside)

    def _note_parts(self, heard: Heard) -> None:
        """Which values of a registration were heard, where each has a topic of its own."""
        levels = heard.topic.split("/")
        for flow in self._held.flows.values():
            for address, topic in flow.parts.items():
                placeholders = topic.match(levels)
                if placeholders is not None and heard.payload:
                    self._parts.setdefault((flow.name, flow.place(placeholders)), set()).add(address)

    def _tell(self, topic: str, texts: list[str]) -> None:
        for text in texts:
            if len(self._aside) < _MOST_ASIDE:
                grave = not text.startswith(_OTHERWISE)
                self._aside[topic, text] = Trouble(text=f"{printable(topic)}: {text}", grave=grave)

    # what is wrong --------------------------------------------------------------------------------------

    def _troubles(self, wait_s: float) -> Iterator[Trouble]:
        yield from self._aside.values()
        for flow in self._held.flows.values():
            yield from self._lacking(flow, wait_s)
        for (name, place), (_, retained) in self._requests.items():
            if retained:
                text = "this request is retained: it comes again at each connect, and is known by its id"
                yield Trouble(text=text, flow=name, place=place, name="submit.request", grave=False)
        if self._options.tls is None and self._options.password is not None:
            yield Trouble(text="the password travels in the clear", hint="use `tls:`", grave=False)

    def _lacking(self, flow: FlowBook, wait_s: float) -> Iterator[Trouble]:
        """A flow of which nothing was heard, and registrations that are not whole."""
        if not any(name == flow.name for name, _ in (*self._records, *self._parts)):
            hint = "are registrations published retained, and may this user read the topic? a broker may hide it without a word"
            yield Trouble(text=f"nothing was heard on {flow.each.text} within {wait_s:g} s", hint=hint, flow=flow.name)
        for (name, place), heard in self._parts.items():
            if name == flow.name and flow.known(place) is None:
                missing = ", ".join(sorted(flow.parts.keys() - heard))
                yield Trouble(text=f"is not whole: nothing was heard of {missing}", flow=name, place=place)

    def _said(self) -> str:
        options = self._options
        way = ("wss" if options.tls else "ws") if options.websocket else ("TLS" if options.tls else "plain TCP")
        return f"{options.host}:{options.port}, MQTT {options.version.value} over {way}, as {printable(options.user or 'anonymous')}"
