"""Reading the records that are due: whole, under the torn-read guard where a sequence counts the requests."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from adapters.opcua.batch import Read, ReadBatch
from adapters.opcua.calls import Method, number_of
from adapters.opcua.link import Link
from adapters.opcua.places import Place
from adapters.opcua.structures import Shapes
from adapters.opcua.together import side_by_side
from adapters.opcua.values import content, reading
from adapters.opcua.watch import Changes, Watched, is_repeat
from bridge.api import Clock, LinkError, Quality, Reading, Record, Selection, Torn, Trigger, read_guarded

_ATTEMPTS: Final = 3
_TORN: Final = "{} moved in each of three attempts to read it; raise the request after the values stand"


class _NotReadable(Exception):
    """The sequence is not a good whole number now; its next notification brings the record back."""


class Fetch:
    """Reads records over one link. `heard` is called for every record that holds a good value."""

    def __init__(
        self,
        link: Link,
        shapes: Shapes,
        selections: Mapping[str, Selection],
        clock: Clock,
        heard: Callable[[], None],
    ) -> None:
        self._link = link
        self._shapes = shapes
        self._selections = selections
        self._clock = clock
        self._heard = heard
        self.changes = Changes()

    async def collect(self, due: Sequence[Watched]) -> list[Record]:
        """Read all of these together: their requests share the server's read calls."""
        changed = [each for each in due if self._selections[each.place.flow].trigger is Trigger.CHANGE]
        asked = [each for each in due if self._selections[each.place.flow].trigger is not Trigger.CHANGE]
        if not asked:
            return await self._fetch_changed(self._link.read_values, changed)
        batch, calls = ReadBatch(self._link.read_values), ReadBatch(self._link.call)
        try:
            found = await side_by_side(
                [self._fetch_changed(batch.read, changed), *(self._fetched(batch, calls, watched) for watched in asked)]
            )
        except BaseExceptionGroup as error:
            raise _reason(error) from error
        return [record for records in found for record in records]

    async def look(self, places: Sequence[Place]) -> list[Record]:
        """The records of these places as they stand, whether anybody asked for them or not."""
        batch = ReadBatch(self._link.read_values)
        try:
            found = await side_by_side([self._fields(batch, place, ()) for place in places])
        except BaseExceptionGroup as error:
            raise _reason(error) from error
        return [self._record(place, fields) for place, fields in zip(places, found, strict=True)]

    async def _fetched(self, batch: ReadBatch, calls: ReadBatch, watched: Watched) -> list[Record]:
        record = await self._fetch(batch, calls, watched)
        return [] if record is None else [record]

    async def _fetch(self, batch: ReadBatch, calls: ReadBatch, watched: Watched) -> Record | None:
        if watched.place.method is not None:
            return await self._fetch_numbered(batch, calls, watched, watched.place.method)
        return await self._fetch_request(batch, watched)

    async def _fetch_changed(self, read: Read, changed: Sequence[Watched]) -> list[Record]:
        """All of them in one go: after a connect there are thousands, and nothing has to be read twice."""
        values = await read([node for each in changed for node in each.place.nodes]) if changed else []
        records, start = [], 0
        for watched in changed:
            place, found = watched.place, values[start : (start := start + len(watched.place.nodes))]
            self.changes.take(watched, [content(each) for each in found])
            fields = self._readings(place, found)
            if not is_repeat(watched, _shown(fields)):
                records.append(self._record(place, fields))
        return records

    async def _fetch_request(self, batch: ReadBatch, watched: Watched) -> Record | None:
        """The record between two equal sequences; the one that woke us serves as the first, which saves a round trip."""
        place = watched.place
        known = [watched.sequence]

        async def sequence() -> int:
            if len(known) > 1 or known[0] is None:
                (value,) = await batch.read([place.sequence])
                watched.note_sequence(reading(value))
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
            problem = _TORN.format("its sequence")
            number, fields = watched.sequence or 0, {}
        else:
            problem = ""
        if not watched.request or is_repeat(watched, (watched.request, number)):
            return None
        return self._record(place, fields, request=str(number), problem=problem)

    async def _fetch_numbered(
        self, batch: ReadBatch, calls: ReadBatch, watched: Watched, method: Method
    ) -> Record | None:
        """The record that was the same before and after; the method is called once, for each call may give the next number."""
        place = watched.place
        fields = await self._fields(batch, place, (watched,))
        if not watched.asks:
            return None
        number, problem = await number_of(calls, method, place.name, fields)
        for _ in range(_ATTEMPTS):
            before, fields = fields, await self._fields(batch, place, (watched,))
            if _shown(before) == _shown(fields):
                break
        else:
            problem, fields = problem or _TORN.format("a field"), {}
        if not watched.request or is_repeat(watched, (watched.request, number)):
            return None
        return self._record(place, fields, request=str(number), problem=problem)

    async def _fields(self, batch: ReadBatch, place: Place, triggers: Sequence[Watched]) -> Mapping[str, Reading]:
        """Every configured field. The trigger is read along."""
        values = await batch.read([*place.nodes, *(each.place.request for each in triggers)])
        for watched, value in zip(triggers, values[len(place.nodes) :], strict=True):
            watched.note_request(reading(value))
        return self._readings(place, values)

    def _readings(self, place: Place, values: Sequence[Any]) -> Mapping[str, Reading]:
        """What stands in the nodes of this place, by field; a field that the place does not have is absent."""
        at, field = place.at, self._shapes.field
        found = {
            name: field(place, name, values[at[name]]) if name in at else _absent(path)
            for name, path in self._selections[place.flow].records.fields.items()
        }
        if any(found[name].quality is Quality.GOOD for name in at):
            self._heard()
        return found

    def _record(
        self, place: Place, fields: Mapping[str, Reading], *, request: str | None = None, problem: str = ""
    ) -> Record:
        return Record(
            flow=place.flow,
            place=place.name,
            fields=fields,
            received=self._clock.now(),
            request=request,
            problem=problem,
        )


def _shown(fields: Mapping[str, Reading]) -> tuple[object, ...]:
    return tuple((name, each.value, each.quality) for name, each in fields.items())


def _absent(path: str) -> Reading:
    return Reading(value=None, detail=f"{path} does not exist here", absent=True)


def _reason(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Why reading together failed; a lost link goes before everything, cancellation last."""
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
