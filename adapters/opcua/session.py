"""One session: subscriptions tell which records are due, guarded reads fetch them, outcomes are written and read back."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

from adapters.opcua.batch import ReadBatch
from adapters.opcua.codec import LOCALIZED_TEXT, Target, decode, encode, read_back
from adapters.opcua.config import OpcUaOptions, writable
from adapters.opcua.library import ua
from adapters.opcua.link import Link, log, printable, status_name, translated
from adapters.opcua.paths import absolute, relative
from adapters.opcua.places import Place, find_places, namespaces
from adapters.opcua.watch import Due, Pulse, Watched, is_repeat
from bridge.api import (
    Address,
    Arrival,
    LinkError,
    OutcomeField,
    Quality,
    Reading,
    Record,
    Selection,
    Session,
    SessionContext,
    Torn,
    Trigger,
    Write,
    Written,
    read_guarded,
)

MAX_RECORDS: Final = 1000
KEEP_ALIVE_S: Final = 2.0


@asynccontextmanager
async def open_session(context: SessionContext) -> AsyncIterator[Session]:
    """Connect, find every address, subscribe and read all triggers. A new client object for every session."""
    link = Link(context.options, context.clock)
    session = OpcUaSession(context, link)
    try:
        await session.open()
        yield session
    finally:
        session.ended = True
        await link.close()


class OpcUaSession:
    """`bridge.api.Session` over one OPC UA connection. State, not messages: what matters is always read again."""

    can_read = True

    def __init__(self, context: SessionContext, link: Link) -> None:
        self._context = context
        self._link = link
        self._options: OpcUaOptions = context.options
        self._selections: Mapping[str, Selection] = {each.flow: each for each in context.selections}
        self._places: dict[tuple[str, str], Place] = {}
        self._handles: list[tuple[Watched, str]] = []
        self._allowed: frozenset[tuple[str, OutcomeField]] = _allowed(self._options, context.selections)
        self._due = Due()
        self._pulse = Pulse(context.clock)
        self._failure: LinkError | None = None
        self.ended = False

    async def open(self) -> None:
        """Everything up to the first `receive`; raises `LinkError` or `LinkRefused`."""
        await self._link.open(self._lost)
        with translated("finding the configured addresses"):
            indexes = await namespaces(self._link, self._options.namespaces)
            for selection in self._selections.values():
                for place in await find_places(self._link, indexes, selection):
                    self._places[place.flow, place.name] = place
                    self._watch(selection, place)
        await self._subscribe()
        await self._read_triggers()

    async def receive(self) -> Sequence[Arrival]:
        """Wait until a record is due, read what is due, and return one arrival for each."""
        with self._ending():
            while True:
                await self._wait()
                records = await self._collect(self._due.take(MAX_RECORDS))
                if records:
                    return [Arrival(records=(record,), ack=_acknowledge) for record in records]

    async def read(self, addresses: Sequence[Address]) -> Sequence[Reading]:
        """Values of fields and targets, in one go."""
        with self._ending():
            nodes = [self._node(address) for address in addresses]
            values = iter(await self._link.read_values([node for node in nodes if node is not None]))
            return [
                self._unknown(address) if node is None else self._back(address, _reading(next(values)))
                for address, node in zip(addresses, nodes, strict=True)
            ]

    async def write(self, writes: Sequence[Write]) -> Sequence[Written]:
        """All writes that can be made, in one go; the others carry their reason."""
        with self._ending():
            prepared = [self._prepare(write) for write in writes]
            good = [entry for entry in prepared if not isinstance(entry, Written)]
            codes = iter(await self._link.write([(node, variant) for node, variant, _ in good]))
            return [
                entry if isinstance(entry, Written) else _written(write.address, entry[2], next(codes))
                for write, entry in zip(writes, prepared, strict=True)
            ]

    # opening -------------------------------------------------------------------------------------

    def _watch(self, selection: Selection, place: Place) -> None:
        watched = Watched(place=place)
        if selection.trigger is Trigger.REQUEST:
            if place.request is not None and place.sequence is not None:
                self._handles += [(watched, "request"), (watched, "sequence")]
            return
        self._handles += [(watched, name) for name in place.fields]

    async def _subscribe(self) -> None:
        nodes = [self._watched_node(watched, role) for watched, role in self._handles]
        subscription, quiet_s = await self._link.subscribe(KEEP_ALIVE_S, self._published)
        self._pulse.start(2 * quiet_s + self._options.timeout)
        codes = await self._link.monitor(subscription, nodes)
        refused = [
            (watched.place.name, status_name(code))
            for (watched, _), code in zip(self._handles, codes, strict=True)
            if code & 0x80000000
        ]
        if refused:
            fields = {"count": len(refused), "first_place": printable(refused[0][0]), "status": refused[0][1]}
            log.error("opcua_nodes_not_watched", extra=self._named(fields))

    def _watched_node(self, watched: Watched, role: str) -> Any:
        if self._trigger(watched) is Trigger.REQUEST:
            return watched.place.request if role == "request" else watched.place.sequence
        return watched.place.fields[role]

    async def _read_triggers(self) -> None:
        """Whatever was asked while nobody listened. A lost notification therefore loses nothing."""
        requests = [entry for entry in self._handles if self._trigger(entry[0]) is Trigger.REQUEST]
        nodes = [self._watched_node(watched, role) for watched, role in requests]
        for (watched, role), value in zip(requests, await self._link.read_values(nodes), strict=True):
            self._note(watched, role, _reading(value))
        for watched, _ in self._handles:
            if self._trigger(watched) is Trigger.CHANGE:
                self._due.add(watched)

    # what the subscription tells ------------------------------------------------------------------

    async def _published(self, result: Any) -> None:
        """Called by the library for each publish response, awaited before the next is asked for; must never raise."""
        try:
            self._take_notification(result)
        except LinkError as error:
            self._lost(str(error))

    def _take_notification(self, result: Any) -> None:
        message = result.NotificationMessage
        self._pulse.beat()
        if not message.NotificationData:  # a keep-alive: nothing changed, and the values stand
            self._context.heard()
            self._due.stirred.set()
            return
        for notification in message.NotificationData:
            if isinstance(notification, ua.StatusChangeNotification):
                raise LinkError(f"the subscription ended: {status_name(notification.Status.value)}")
        self._pulse.number(int(message.SequenceNumber))
        for notification in message.NotificationData:
            for item in getattr(notification, "MonitoredItems", ()):
                self._changed(item)

    def _changed(self, item: Any) -> None:
        if 0 <= item.ClientHandle < len(self._handles):
            watched, role = self._handles[item.ClientHandle]
            self._note(watched, role, _reading(item.Value))

    def _note(self, watched: Watched, role: str, reading: Reading) -> None:
        if reading.quality is Quality.GOOD:
            self._context.heard()
        if self._trigger(watched) is Trigger.CHANGE:
            self._due.add(watched)
            return
        if role == "request":
            watched.note_request(reading)
        else:
            watched.note_sequence(reading)
        if watched.asks:
            self._due.add(watched)
        else:
            self._due.drop(watched)

    async def _wait(self) -> None:
        """Until a record is due; raises `LinkError` once the link is lost or silent for too long."""
        while not self._due:
            self._check()
            self._due.stirred.clear()
            try:
                async with asyncio.timeout(max(0.0, self._pulse.left_s())):
                    await self._due.stirred.wait()
            except TimeoutError as error:
                if self._pulse.left_s() <= 0:
                    raise LinkError("the subscription has fallen silent") from error
        self._check()

    # reading records -------------------------------------------------------------------------------

    async def _collect(self, due: Sequence[Watched]) -> list[Record]:
        """Read all of these together: their requests share the server's read calls."""
        batch = ReadBatch(self._link.read_values)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._fetch(batch, watched)) for watched in due]
        except BaseExceptionGroup as error:
            raise _link_error(error) from error
        return [record for task in tasks if (record := task.result()) is not None]

    async def _fetch(self, batch: ReadBatch, watched: Watched) -> Record | None:
        if self._trigger(watched) is Trigger.REQUEST:
            return await self._fetch_request(batch, watched)
        fields = await self._fields(batch, watched.place, ())
        content = tuple((name, reading.value, reading.quality) for name, reading in fields.items())
        return None if is_repeat(watched, content) else self._record(watched.place, fields)

    async def _fetch_request(self, batch: ReadBatch, watched: Watched) -> Record | None:
        """The record between two equal sequences; the one that woke us serves as the first, which saves a round trip."""
        place = watched.place
        known = [watched.sequence]

        async def sequence() -> int:
            if len(known) > 1 or known[0] is None:
                (value,) = await batch.read([place.sequence])
                watched.note_sequence(_reading(value))
            known.append(watched.sequence)
            if watched.sequence is None:
                raise _NotReadable
            return watched.sequence

        async def record() -> Mapping[str, Reading]:
            return await self._fields(batch, place, (watched,))

        try:
            number, fields = await read_guarded(sequence, record)
        except _NotReadable:
            return None
        except Torn:
            problem = (
                "its sequence moved in each of three attempts to read it; raise the request after the values stand"
            )
            number, fields = watched.sequence or 0, {}
        else:
            problem = ""
        if not watched.request or is_repeat(watched, (watched.request, number)):
            return None
        return self._record(place, fields, request=str(number), problem=problem)

    async def _fields(self, batch: ReadBatch, place: Place, triggers: Sequence[Watched]) -> Mapping[str, Reading]:
        """Every configured field; one that this place does not have is absent. The trigger is read along."""
        values = await batch.read([*place.fields.values(), *(each.place.request for each in triggers)])
        for watched, value in zip(triggers, values[len(place.fields) :], strict=True):
            watched.note_request(_reading(value))
        present = dict(zip(place.fields, map(_reading, values[: len(place.fields)]), strict=True))
        if any(reading.quality is Quality.GOOD for reading in present.values()):
            self._context.heard()
        wanted = self._selections[place.flow].records.fields
        return {name: present.get(name) or _absent(path) for name, path in wanted.items()}

    def _record(
        self, place: Place, fields: Mapping[str, Reading], *, request: str | None = None, problem: str = ""
    ) -> Record:
        return Record(
            flow=place.flow,
            place=place.name,
            fields=fields,
            received=self._context.clock.now(),
            request=request,
            problem=problem,
        )

    # reading and writing by address -----------------------------------------------------------------

    def _node(self, address: Address) -> Any:
        place = self._places.get((address.flow, address.place))
        if place is None:
            return None
        if isinstance(address.name, OutcomeField):
            return place.targets.get(address.name)
        return place.fields.get(address.name)

    def _unknown(self, address: Address) -> Reading:
        return Reading(value=None, quality=Quality.BAD, detail=f"{_words(address)} does not exist on the server")

    def _back(self, address: Address, reading: Reading) -> Reading:
        """A target reads back as it was written, though a server may give null for an empty text."""
        if not reading.absent or not isinstance(address.name, OutcomeField):
            return reading
        target = self._places[address.flow, address.place].types[address.name]
        value = read_back(reading.value, target)
        return Reading(value=value, source_ns=reading.source_ns, absent=value is None)

    def _prepare(self, write: Write) -> Written | tuple[Any, Any, object]:
        """The node, the Variant and the value as the node will hold it; or why it is not written."""
        address = write.address
        if not isinstance(address.name, OutcomeField) or (address.flow, address.name) not in self._allowed:
            return Written(address=address, error=f"{_words(address)} is outside `writable:`")
        node = self._node(address)
        if node is None:
            return Written(address=address, error=f"{_words(address)} does not exist on the server")
        target = self._places[address.flow, address.place].types[address.name]
        try:
            value = encode(address.name, write.value, target)
        except ValueError as error:
            return Written(address=address, error=str(error))
        return node, _variant(value, target), value

    # the end ------------------------------------------------------------------------------------------

    def _trigger(self, watched: Watched) -> Trigger:
        return self._selections[watched.place.flow].trigger

    def _named(self, fields: Mapping[str, object]) -> dict[str, object]:
        return {"site": self._context.site, "adapter": self._context.adapter, **fields}

    def _lost(self, reason: str) -> None:
        if self._failure is None:
            self._failure = LinkError(reason)
        self._due.stirred.set()

    def _check(self) -> None:
        if self.ended:
            raise LinkError("the session is closed")
        if self._failure is not None:
            raise LinkError(str(self._failure)) from self._failure

    @contextmanager
    def _ending(self) -> Iterator[None]:
        """Any failure or cancellation ends the session: what follows would not know what the server did."""
        self._check()
        try:
            with translated("the session"):
                yield
        except BaseException as error:
            self._lost(f"{type(error).__name__}: {printable(error)}" if str(error) else "a call was cancelled")
            raise


class _NotReadable(Exception):
    """The sequence is not a good whole number now; its next notification brings the record back."""


def _acknowledge(_: bool) -> None:  # noqa: FBT001 - the contract's signature
    """OPC UA has nothing to acknowledge: the state word that the core writes is the answer."""


def _reading(value: Any) -> Reading:
    status = value.StatusCode.value if value.StatusCode is not None else 0
    variant = value.Value
    number = int(variant.VariantType.value) if variant is not None else 0
    content = variant.Value if variant is not None else None
    name = status_name(status) if status else ""
    return decode(number, content, status, name, value.SourceTimestamp)


def _absent(path: str) -> Reading:
    return Reading(value=None, detail=f"{path} does not exist here", absent=True)


def _variant(value: object, target: Target) -> Any:
    kind = ua.VariantType(target.type_number)
    if isinstance(value, tuple):
        return ua.Variant([_boxed(item, target) for item in value], kind, is_array=True)
    return ua.Variant(_boxed(value, target), kind)


def _boxed(value: object, target: Target) -> object:
    return ua.LocalizedText(value) if target.type_number == LOCALIZED_TEXT else value


def _written(address: Address, value: object, code: int) -> Written:
    if code & 0xC0000000:
        return Written(address=address, error=f"the server answered {status_name(code)}")
    return Written(address=address, value=value)


def _words(address: Address) -> str:
    name = address.name.value if isinstance(address.name, OutcomeField) else address.name
    return f"{name} of {printable(address.place)}"


def _allowed(options: OpcUaOptions, selections: Sequence[Selection]) -> frozenset[tuple[str, OutcomeField]]:
    """The targets inside `writable:`; asked again here, although the configuration was checked at start."""
    inside = writable(options)
    return frozenset(
        (selection.flow, target)
        for selection in selections
        for each in (absolute(selection.records.each),)
        for target, path in selection.outcome.targets().items()
        if inside(each.below(relative(path, each)))
    )


def _link_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The reason why reading together failed; cancellation goes before everything."""
    leaves = list(_leaves(group))
    for kind in (LinkError, Exception):
        for leaf in leaves:
            if isinstance(leaf, kind):
                return leaf
    return leaves[0]


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
