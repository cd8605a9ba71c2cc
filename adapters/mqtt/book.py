"""What each message means: registrations kept as last known, requests joined to them. Pure; it decides, the session sends and acknowledges."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import partial
from typing import Final, NamedTuple

from adapters.mqtt.codec import Unreadable
from adapters.mqtt.config import Format, MessageSubmit, MqttRecords, Scalar
from adapters.mqtt.payload import WHOLE, Layout, Source, fits, plain, reader, reading, request_id
from adapters.mqtt.topics import Template, template
from bridge.api import Quality, Reading, Record, Selection, Stamp

MOST_PLACES: Final = 10_000  # of one flow; a broker that has more is not the one that was meant
MOST_KEPT_BYTES: Final = 128 * 1024 * 1024  # of one flow's registrations, as they came
MOST_AWAITING: Final = 10_000
MOST_AWAITING_BYTES: Final = 16 * 1024 * 1024  # of one flow's waiting requests; beyond it their ids alone are kept
_MOST_KEPT: Final = f"{MOST_KEPT_BYTES >> 20} MiB of registrations"
MOST_ROUTES: Final = 50_000
SHARED: Final = "$share/"  # MQTT 5, 4.8.2


@dataclass(slots=True, kw_only=True)
class Registration:
    """What a place's retained message holds: its fields, or the problem why they cannot be read."""

    fields: Mapping[str, Reading]
    raw: bytes
    problem: str = ""


@dataclass(slots=True, kw_only=True)
class Due:
    """One record that is to be returned. It is made when it is fetched, so that a registration that came meanwhile completes it."""

    flow: "FlowBook"
    place: str
    request: str | None = None
    raw: bytes = b""
    registration: Registration | None = None
    reply: str = ""
    """See `Record.reply`. One that waited for its registration has left it in the journal already."""

    @property
    def size(self) -> int:
        """The bytes it keeps."""
        held = len(self.registration.raw) if self.registration is not None else 0
        return len(self.raw) + len(self.reply) + held

    def record(self, received: Stamp) -> Record:
        """The record as things stand now. Its raw form is the request, a line feed and the registration, whichever there are."""
        registration = self.registration or self.flow.known(self.place)
        if registration is None:
            self.flow.await_registration(self)
            return Record(
                flow=self.flow.name,
                place=self.place,
                fields={},
                received=received,
                request=self.request,
                complete=False,
                raw=self.raw,
                reply=self.reply,
            )
        return Record(
            flow=self.flow.name,
            place=self.place,
            fields=registration.fields,
            received=received,
            request=self.request,
            problem=registration.problem,
            raw=self.raw + b"\n" + registration.raw if self.raw and registration.raw else self.raw or registration.raw,
            reply=self.reply,
        )


@dataclass(slots=True)
class Taken:
    """What became of one message: records that are acknowledged together with it, records that are not, why it was put aside if it was, and what is beyond a bound."""

    asking: list[Due] = field(default_factory=list)
    freed: list[Due] = field(default_factory=list)
    good: bool = False
    aside: list[str] = field(default_factory=list)
    beyond: str = ""


_Take = Callable[[Mapping[str, str], bytes, Taken], None]


class FlowBook:
    """One flow's registrations and waiting requests."""

    def __init__(self, selection: Selection, limit: int) -> None:
        records, submit = selection.records, selection.submit
        self.name = selection.flow
        self.each: Template = template(records.each)
        self.asks: Template | None = template(submit.topic) if isinstance(submit, MessageSubmit) else None
        self._limit = limit
        self._sources = {name: Source.of(text, records.format) for name, text in records.fields.items()}
        self._fields = reader(self._sources)
        self._layout = Layout.of(records.format, records.csv, limit)
        self.parts: Mapping[str, Template] = parts(records)
        self._needed = frozenset(
            source.text
            for name, source in self._sources.items()
            if source.text in self.parts and name not in records.optional
        )
        self._heard: dict[str, dict[str, tuple[bytes, Reading]]] = {}
        self._id = Source(WHOLE, steps=(WHOLE,))
        self._where: tuple[tuple[Source, Scalar], ...] = ()
        self.share = ""
        if isinstance(submit, MessageSubmit):
            self.share = f"{SHARED}{submit.share}/" if submit.share is not None else ""
            self._asked = Layout.of(submit.format, submit.csv, limit)
            self._id = self._id if submit.id is None else Source.of(submit.id, submit.format)
            self._where = tuple((Source.of(text, submit.format), wanted) for text, wanted in submit.where.items())
        self._known: dict[str, Registration] = {}
        self._kept = 0  # bytes
        self._awaiting: dict[str, dict[str, bytes]] = {}
        self._waiters = 0
        self._awaited = 0  # bytes
        for place, requests in selection.awaiting.items():
            for request in requests:
                self._await(place, request, b"")

    def topics(self) -> Iterator[tuple[Template, _Take]]:
        """Every topic that is heard, and who takes its messages."""
        for address, topic in self.parts.items():
            yield topic, partial(self.register_part, address)
        if not self.parts:
            yield self.each, self.register
        if self.asks is not None:
            yield self.asks, self.ask

    def known(self, place: str) -> Registration | None:
        """A place's registration as last heard."""
        return self._known.get(place)

    def place(self, placeholders: Mapping[str, str]) -> str:
        """The name of a place: its placeholders' values in the order of `each`."""
        return "/".join(placeholders[name] for name in self.each.names)

    def placeholders(self, place: str) -> dict[str, str] | None:
        """The values that make a place's name; None when it cannot be one of this flow."""
        values = place.split("/")
        if len(values) != len(self.each.names) or any(not value or "+" in value or "#" in value for value in values):
            return None
        return dict(zip(self.each.names, values, strict=True))

    def await_registration(self, due: Due) -> None:
        """Note that a request was returned without its registration. Beyond the bound the oldest is forgotten: the core refuses it in its time."""
        if due.request is not None:
            self._await(due.place, due.request, due.raw)

    def register(self, placeholders: Mapping[str, str], payload: bytes, taken: Taken) -> None:
        """A message on a registration's topic. An empty one says that there is none any more."""
        place = self.place(placeholders)
        if not payload:
            taken.good = True
            self._forget(place)
            return
        if place not in self._known and len(self._known) >= MOST_PLACES:
            self._leave_out(taken, f"{MOST_PLACES} registrations")
            return
        registration, before = self._read(placeholders, payload), self._known.get(place)
        kept = self._kept + len(registration.raw) - (len(before.raw) if before is not None else 0)
        if kept > MOST_KEPT_BYTES:
            self._forget(place)  # what was heard before is not what stands there now
            self._leave_out(taken, _MOST_KEPT)
            return
        self._kept = kept
        self._keep(place, registration, taken)

    def _forget(self, place: str) -> None:
        gone = self._known.pop(place, None)
        self._kept -= len(gone.raw) if gone is not None else 0

    def register_part(self, address: str, placeholders: Mapping[str, str], payload: bytes, taken: Taken) -> None:
        """A message on the topic of one value of a registration. An empty one says that the value is gone."""
        place = self.place(placeholders)
        if place not in self._heard and len(self._heard) >= MOST_PLACES:
            self._leave_out(taken, f"{MOST_PLACES} registrations")
            return
        heard = self._heard.setdefault(place, {})
        gone = heard.pop(address, None)
        self._kept -= len(gone[0]) if gone is not None else 0
        held = payload[: self._limit]
        if self._kept + len(held) > MOST_KEPT_BYTES:
            self._kept -= sum(len(part) for part, _ in self._heard.pop(place).values())
            self._known.pop(place, None)
            self._leave_out(taken, _MOST_KEPT)
            return
        if held:
            value = self._value(address, payload)
            heard[address] = (held, value)
            self._kept += len(held)
            if value.quality is not Quality.GOOD and not value.absent:
                taken.aside.append(f"the value {value.detail}")
        if not self._needed <= heard.keys():
            taken.good = taken.good or not taken.aside
            self._known.pop(place, None)
            if not heard:
                del self._heard[place]
            return
        made = {
            name: heard[source.text][1] if source.text in heard else reading({}, source, placeholders)
            for name, source in self._sources.items()
        }
        raw = b"\n".join(part.encode() + b"=" + held for part, (held, _) in heard.items())
        self._keep(place, Registration(fields=made, raw=raw), taken)

    def _leave_out(self, taken: Taken, most: str) -> None:
        taken.beyond = f"{self.name}: there are more than {most}; those beyond are left out"
        taken.aside.append(f"there are more than {most}")

    def _value(self, address: str, payload: bytes) -> Reading:
        """One value of a registration whose values have topics of their own."""
        try:
            value = plain(payload, self._limit)
        except Unreadable as error:
            return Reading(value=None, quality=Quality.BAD, detail=f"{address} {error}")
        return reading({address: value}, Source(address, steps=(address,)), {})

    def _keep(self, place: str, registration: Registration, taken: Taken) -> None:
        """What a place's registration is now, and whom that concerns."""
        before = self._known.get(place)
        self._known[place] = registration
        taken.good = taken.good or not (registration.problem or taken.aside)
        if registration.problem:
            taken.aside.append(registration.problem)
        if self.asks is None:
            if before is None or _differs(before, registration):
                taken.asking.append(Due(flow=self, place=place, registration=registration))
            return
        waiting = self._awaiting.pop(place, {})
        self._left(waiting)
        taken.freed.extend(
            Due(flow=self, place=place, request=request, raw=raw, registration=registration)
            for request, raw in waiting.items()
        )

    def ask(self, placeholders: Mapping[str, str], payload: bytes, taken: Taken) -> None:
        """A message on a request's topic. An empty one only clears what was retained there."""
        if not payload:
            return
        try:
            body = self._asked.parse(payload)
            if not fits(body, self._where):
                taken.good = True
                taken.aside.append(_otherwise(body, self._where))
                return
            request = request_id(body, self._id)
        except Unreadable as error:
            taken.aside.append(f"the request {error}")
            return
        taken.good = True
        taken.asking.append(Due(flow=self, place=self.place(placeholders), request=request, raw=payload))

    def _read(self, placeholders: Mapping[str, str], payload: bytes) -> Registration:
        try:
            body = self._layout.parse(payload)
        except Unreadable as error:
            own = {
                name: reading({}, source, placeholders) for name, source in self._sources.items() if source.placeholder
            }
            return Registration(fields=own, raw=payload[: self._limit], problem=f"the registration {error}")
        return Registration(fields=self._fields(body, placeholders), raw=payload)

    def _await(self, place: str, request: str, raw: bytes) -> None:
        here = self._awaiting.setdefault(place, {})
        if request in here:
            self._awaited -= len(here[request])
            self._waiters -= 1
        held = raw if self._awaited + len(raw) <= MOST_AWAITING_BYTES else b""  # the journal has them already
        here[request] = held
        self._awaited += len(held)
        self._waiters += 1
        while self._waiters > MOST_AWAITING:
            self._left(self._awaiting.pop(next(iter(self._awaiting))))

    def _left(self, waiting: Mapping[str, bytes]) -> None:
        """These wait no longer."""
        self._waiters -= len(waiting)
        self._awaited -= sum(map(len, waiting.values()))


def _differs(before: Registration, now: Registration) -> bool:
    """Whether a record's content changed. While it cannot be read, its bytes are its content."""
    if before.problem or now.problem:
        return before.raw != now.raw
    return before.fields != now.fields


def parts(records: MqttRecords) -> dict[str, Template]:
    """The topics of the values of `format: plain`, by their addresses below `each`; those that may be missing come first, to be heard before the record is whole."""
    if records.format is not Format.PLAIN:
        return {}
    named = sorted(records.fields.items(), key=lambda field: field[0] not in records.optional)
    return {text: template(f"{records.each}/{text}") for _, text in named if not text.startswith("$")}


def _otherwise(body: Mapping[str, object], where: Sequence[tuple[Source, Scalar]]) -> str:
    """Why a request is not one of this flow's; no value of the peer's is shown."""
    source = next(source for source, wanted in where if not fits(body, [(source, wanted)]))
    there = "holds another value" if source.find(body) is not None else "is not there"
    return f"the request is not one that `where:` asks for ({source.text} {there})"


class _Route(NamedTuple):
    """What a topic is to one flow."""

    take: _Take
    placeholders: Mapping[str, str]


class Book:
    """All flows of one connection. `own` are the topics that we write ourselves: a broker that hands them back tells nothing new, and nothing strange."""

    def __init__(self, selections: Sequence[Selection], limit: int, own: AbstractSet[str | None] = frozenset()) -> None:
        self._own = own
        self.flows = {selection.flow: FlowBook(selection, limit) for selection in selections}
        self._routes: dict[str, tuple[_Route, ...]] = {}
        self._heard: dict[tuple[int, str], list[tuple[Template, _Take]]] = {}
        """Topics by their number of levels and their last one ('' for a placeholder), so that of hundreds few are compared."""
        for flow in self.flows.values():
            for told, take in flow.topics():
                self._heard.setdefault((len(told.levels), told.levels[-1][0]), []).append((told, take))

    def filters(self) -> list[str]:
        """What is subscribed to, registrations first: the broker then hands them out before it hands out retained requests."""
        flows = self.flows.values()
        asked = [flow.share + flow.asks.filter for flow in flows if flow.asks is not None]
        told = [topic.filter for flow in flows for topic in (flow.parts.values() or [flow.each])]
        return list(dict.fromkeys([*told, *asked]))

    def take(self, topic: str, payload: bytes) -> Taken:
        """Understand one message."""
        taken = Taken()
        routes = self._routes.get(topic)
        if routes is None:
            routes = self._find(topic)
        if not routes and topic not in self._own:
            taken.aside.append("no flow reads this topic")
        for take, placeholders in routes:
            take(placeholders, payload, taken)
        if taken.asking:
            taken.aside.clear()  # another flow's request is nothing to speak of when one flow took it
        return taken

    def hears(self, topic: str) -> bool:
        """Whether a message on this topic would be taken for a registration or a request."""
        return bool(self._find(topic))

    def _find(self, topic: str) -> tuple[_Route, ...]:
        levels = topic.split("/")
        found = [
            _Route(take, placeholders)
            for last in dict.fromkeys((levels[-1], ""))
            for told, take in self._heard.get((len(levels), last), ())
            if (placeholders := told.match(levels)) is not None
        ]
        if len(self._routes) >= MOST_ROUTES:
            self._routes.clear()
        self._routes[topic] = tuple(found)
        return self._routes[topic]
