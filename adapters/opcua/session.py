"""One session: subscriptions tell which records are due, guarded reads fetch them, outcomes are written and read back."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from math import inf
from typing import Any, Final

from adapters.opcua.access import Access, allowed_targets
from adapters.opcua.codec import quality
from adapters.opcua.config import OpcUaOptions, Watch
from adapters.opcua.errors import translated
from adapters.opcua.fetch import Fetch
from adapters.opcua.link import log
from adapters.opcua.lookout import Lookout
from adapters.opcua.paths import absolute
from adapters.opcua.places import Place, find_places, find_word, namespaces
from adapters.opcua.requests import LEVEL, TREE, Asked, tree_changes
from adapters.opcua.servers import HEALTHY, SERVICE_LEVEL, Reached, connect, stated_level
from adapters.opcua.structures import Shapes
from adapters.opcua.subscriptions import Subscriptions
from adapters.opcua.together import running
from adapters.opcua.values import content, is_gone, overflowed, reading
from adapters.opcua.watch import Due, Handle, Rhythm, Watched
from adapters.opcua.watching import PART, Watching
from adapters.opcua.word import write_word
from adapters.opcua.words import printable
from bridge.api import (
    Address,
    AlarmWord,
    Arrival,
    LinkError,
    Quality,
    Reading,
    Selection,
    Session,
    SessionContext,
    Trigger,
    Write,
    Written,
)

# So many are read together; what they hold is taken in one step, in which nothing else goes on in this process.
MAX_RECORDS: Final = 100


@asynccontextmanager
async def open_session(context: SessionContext) -> AsyncIterator[Session]:
    """Connect, find every address, subscribe and read all triggers. A new client object for every session."""
    reached = await connect(context.options, context.clock, context.certified)
    session = OpcUaSession(context, reached)
    try:
        await session.open()
        async with running(session.look_out()):
            yield session
    finally:
        session.ended = True
        await reached.link.close()


class OpcUaSession:
    """`bridge.api.Session` over one OPC UA connection. State, not messages: what matters is always read again."""

    can_read = True

    def __init__(self, context: SessionContext, reached: Reached) -> None:
        self._context = context
        self._link = link = reached.link
        self._level = reached.level
        self._options: OpcUaOptions = context.options
        self._selections: Mapping[str, Selection] = {each.flow: each for each in context.selections}
        self._places: dict[tuple[str, str], Place] = {}
        self._handles: list[Handle] = []
        self._shapes = Shapes(link)
        self._access = Access(link, self._shapes, self._places, allowed_targets(self._options, context.selections))
        self._fetch = Fetch(link, self._shapes, self._selections, context.clock, context.heard)
        self._due = Due()
        self._subscriptions = Subscriptions(link, context, self._published, self._lost)
        self._lookout = Lookout(link, self._shapes, context.selections, self._places, self._found, self._lost)
        self._indexes: Mapping[str, int] = {}
        self._watching: Watching | None = None
        self._unread: dict[Watched, None] = {}
        self._losses = 0
        self._polled: list[int] = []
        self._rhythm: Rhythm | None = None
        self._failure: LinkError | None = None
        self._word: Place | None = None
        self.ended = False

    async def open(self) -> None:
        """Everything up to the first `receive`; raises `LinkError` or `LinkRefused`."""
        self._link.listen(self._lost)
        with translated("finding the configured addresses"):
            self._indexes = indexes = await namespaces(self._link, self._options.namespaces)
            for selection in self._selections.values():
                for place in await find_places(self._link, indexes, selection):
                    self._places[place.flow, place.name] = place
                    self._watch(selection, place)
            await self._shapes.learn(list(self._places.values()))
            if self._context.word is not None:
                self._word = await find_word(self._link, indexes, absolute(self._context.word.node))
        if self._options.watch is Watch.POLLING:
            self._poll(list(range(len(self._handles))))
        else:
            await self._watch_triggers()
        await self._read_triggers()

    async def receive(self) -> Sequence[Arrival]:
        """Wait until a record is due, read what is due, and return one arrival for each."""
        with self._ending():
            while True:
                await self._wait()
                due = self._due.take(MAX_RECORDS)
                records = await self._fetch.collect(due)
                for watched in due:
                    self._unread.pop(watched, None)
                if records:
                    return [Arrival(records=(record,), ack=_acknowledge) for record in records]

    async def read(self, addresses: Sequence[Address]) -> Sequence[Reading]:
        """Values of fields and targets, in one go."""
        with self._ending():
            return await self._access.read(addresses)

    async def write(self, writes: Sequence[Write]) -> Sequence[Written]:
        """All writes that can be made, in one go; the others carry their reason."""
        with self._ending():
            return await self._access.write(writes)

    async def write_word(self, word: AlarmWord) -> str:
        """See `bridge.api.WordSession`."""
        if self._word is None:
            return f"{self._context.word.node} does not exist on the server"
        with self._ending():
            return await write_word(self._link, self._word, word.bits)

    # opening -------------------------------------------------------------------------------------

    def places(self, flow: str) -> Sequence[str]:
        """See `bridge.api.ListsPlaces`."""
        return [place for of, place in self._places if of == flow]

    def _watch(self, selection: Selection, place: Place) -> None:
        watched = Watched(place=place)
        if selection.trigger is Trigger.REQUEST:
            if place.request is not None and place.method is not None:
                self._handles.append(Handle(watched, "request", place.request))
            elif place.request is not None and place.sequence is not None:
                self._handles.append(Handle(watched, "request", place.request))
                self._handles.append(Handle(watched, "sequence", place.sequence))
            return
        deadband = selection.submit.deadband.get
        names = {at: name for name, at in place.at.items()}  # several fields may lie in one structure
        self._handles += [
            Handle(watched, name, place.nodes[at], at, float(deadband(name, 0.0))) for at, name in names.items()
        ]
        self._unread[watched] = None

    async def _watch_triggers(self) -> None:
        """Requests, the service level and word of the tree now; what may change waits until it was read for the first time."""
        requests = [number for number, each in enumerate(self._handles) if each.at is None]
        changes = [number for number, each in enumerate(self._handles) if each.at is not None]
        if self._redundant:
            requests.append(LEVEL)
        self._watching = Watching(self._context, self._subscriptions, [*requests, *changes], self._asked)
        await self._watch_more(self._watching, len(requests))
        with suppress(LinkError):  # a server without events may refuse the whole request; its tree is looked at
            await self._subscriptions.watch([tree_changes()])

    def _asked(self, number: int) -> Asked:
        options = self._options
        if number == LEVEL:
            return Asked(number, SERVICE_LEVEL, options.sampling_s(), options.queue_size)
        handle = self._handles[number]
        sampling_s = options.sampling_s(0 if handle.at is None else len(self._handles))
        return Asked(number, handle.node, sampling_s, options.queue_size, handle.deadband)

    async def _watch_more(self, watching: Watching, count: int = PART) -> None:
        """What the server refuses to watch is polled from now on."""
        refused = await watching.some(count)
        if refused:
            self._poll(refused)
        if watching.left:
            return
        self._lookout.stir()  # the server tells of its tree from now on, and not what changed before
        if not watching.refused:
            return
        first = self._handles[watching.refused[0]].watched.place.name
        fields = {"count": len(watching.refused), "first_place": printable(first), "status": watching.why}
        log.warning("opcua_nodes_polled", extra=self._named(fields))

    def _poll(self, handles: Sequence[int]) -> None:
        """From now on these are asked for at every beat, because nobody tells of them."""
        self._polled = [*self._polled, *handles]  # a poll that is on its way has its own
        interval_s = self._options.poll_s(len(self._polled))
        if self._rhythm is None:
            self._rhythm = Rhythm(self._context.clock, interval_s)
        else:
            self._rhythm.pace(interval_s)
        self._context.intervals.agreed("poll", configured_s=interval_s)

    async def _read_triggers(self) -> None:
        """Whatever was asked while nobody listened. A lost notification therefore loses nothing."""
        requests = [handle for handle in self._handles if handle.at is None]
        values = await self._link.read_values([handle.node for handle in requests])
        for handle, value in zip(requests, values, strict=True):
            self._note(handle, reading(value))
        for watched in self._unread:
            self._due.add(watched)

    # what the server came to have -----------------------------------------------------------------

    async def look_out(self) -> None:
        """For as long as the session is open; see `Lookout`."""
        with self._ending():
            await self._lookout.run(self._indexes, self._options.rebrowse_interval, self._named({}))

    def _found(self, places: Sequence[Place]) -> None:
        """These are read and watched from now on."""
        first = len(self._handles)
        for place in places:
            self._places[place.flow, place.name] = place
            self._watch(self._selections[place.flow], place)
        added = range(first, len(self._handles))
        if self._watching is None:
            self._poll(added)
        else:
            self._watching.more(added)
        for watched in self._unread:
            self._due.add(watched)
        self._due.stirred.set()

    # what the subscription tells ------------------------------------------------------------------

    def _published(self, items: Sequence[Any]) -> None:
        """What one publish response tells; nothing is a keep-alive: nothing changed, and the values stand. Raises `LinkError`."""
        if not items:
            self._context.heard()
            self._due.stirred.set()
            return
        lost = sum([self._changed(item) for item in items])
        if lost:
            self._lose(lost)

    def _changed(self, item: Any) -> bool:
        """Takes one notification; returns whether changes before it were lost."""
        if item.ClientHandle == TREE:
            self._lookout.stir()
            return False
        if item.ClientHandle == LEVEL:
            self._note_level(item.Value)
            return False
        if not 0 <= item.ClientHandle < len(self._handles):
            return False
        watched = self._handles[item.ClientHandle].watched
        if not is_gone(item.Value):
            watched.lived = True
        elif watched.lived:
            self._lookout.missed(watched.place)
        lost = overflowed(item.Value)
        self._take(item.ClientHandle, item.Value, anyway=lost)
        return lost

    def _take(self, number: int, value: Any, *, anyway: bool = False) -> None:
        """What a watched node holds now; a field that holds what its record holds, or nearly, wakes nobody."""
        handle = self._handles[number]
        if handle.at is None:
            self._note(handle, reading(value))
            return
        status, held = content(value)
        if quality(status) is Quality.GOOD:
            self._context.heard()
        if anyway or self._fetch.changes.matters(handle.watched, handle.at, status, held, handle.deadband):
            self._due.add(handle.watched)

    @property
    def _redundant(self) -> bool:
        return len(self._options.urls) > 1

    def _note_level(self, value: Any) -> None:
        """A server that says it can serve less than when it was chosen is left for a better one; raises `LinkError`."""
        level = stated_level(value)
        if level < min(self._level, HEALTHY):
            raise LinkError(f"the service level of {self._link.url} fell from {self._level} to {level}")

    def _lose(self, count: int) -> None:
        """The newest value of each node did come, and each record is read whole: what is lost is what stood between."""
        self._losses += count
        self._context.lost(count)
        fields = {"count": count, "since_open": self._losses, "queue_size": self._options.queue_size}
        log.warning("opcua_changes_lost", extra=self._named(fields))

    def _note(self, handle: Handle, found: Reading) -> None:
        """What a request or a sequence holds now."""
        watched = handle.watched
        if found.quality is Quality.GOOD:
            self._context.heard()
        if handle.role == "request":
            watched.note_request(found)
        else:
            watched.note_sequence(found)
        if watched.asks:
            self._due.add(watched)
        else:
            self._due.drop(watched)

    async def _wait(self) -> None:
        """Until a record is due; raises `LinkError` once the link is lost or silent for too long. A poll comes at its beat however busy it is."""
        await self._poll_at_beat()
        await self._watch_on()
        while not self._due:
            self._check()
            if not await self._watch_on():
                await self._stirred()
            await self._poll_at_beat()
        self._check()

    async def _watch_on(self) -> bool:
        """Watch a few more variables, where some wait and all records were read once; whether it did."""
        if self._watching is None or not self._watching.left or self._unread:
            return False
        await self._watch_more(self._watching)
        return True

    async def _stirred(self) -> None:
        """Until something was told, or it is time to look."""
        self._due.stirred.clear()
        try:
            async with asyncio.timeout(self._quiet_s()):
                await self._due.stirred.wait()
        except TimeoutError as error:
            if self._subscriptions.left_s() <= 0:
                raise LinkError("the subscription has fallen silent") from error

    def _quiet_s(self) -> float:
        """How long there may be nothing to do: until a silence is too long, or until the next poll."""
        beat_s = inf if self._rhythm is None else self._rhythm.left_s()
        return min(beat_s, max(0.0, self._subscriptions.left_s()))

    async def _poll_at_beat(self) -> None:
        """Read what is polled, if it is time."""
        rhythm = self._rhythm
        if rhythm is None or rhythm.left_s() > 0:
            return
        self._check()
        spacing_s = rhythm.begin()
        if spacing_s is not None:
            self._context.intervals.achieved("poll", spacing_s)
        polled = self._polled
        if self._unread:  # what may change waits until every record was read once
            polled = [each for each in polled if self._handles[each].at is None]
        nodes = [self._handles[each].node for each in polled]
        *values, level = await self._link.read_values([*nodes, SERVICE_LEVEL])
        for number, value in zip(polled, values, strict=True):
            self._take(number, value)
        if self._redundant:
            self._note_level(level)

    # the end ------------------------------------------------------------------------------------------

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


def _acknowledge(_: bool) -> None:  # noqa: FBT001 - the contract's signature
    """OPC UA has nothing to acknowledge: the state word that the core writes is the answer."""
