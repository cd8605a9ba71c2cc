"""Looking for what the server's tree came to hold after a session was opened: new records are added to it, and whoever made others anew is met by a new session."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from adapters.opcua.addresses import Tree, layout_of
from adapters.opcua.errors import translated
from adapters.opcua.link import Link, log
from adapters.opcua.places import Place, find_roots, places_at, still_lacking
from adapters.opcua.structures import Shapes
from adapters.opcua.words import printable
from bridge.api import LinkError, Selection

Key: TypeAlias = tuple[str, str]

# Whoever adds a record makes its nodes one after another: it is looked at when there was no word of a change for so long.
SETTLE_S: Final = 1.0
_REST: Final = 10  # looks, each so long after the one before, in which nothing was added to a record that has grown and still lacks nodes
_CHANGES: Final = 10  # so often that is waited for; a tree that never rests is looked at all the same


class Lookout:
    """The records of one session, and what became of them on the server.

    `found` gets those that are new; `lost` the reason why all must be found anew: a node that was made anew has lost its subscriptions, whatever its id.
    """

    def __init__(
        self,
        link: Link,
        shapes: Shapes,
        selections: Iterable[Selection],
        places: Mapping[Key, Place],
        found: Callable[[Sequence[Place]], None],
        lost: Callable[[str], None],
    ) -> None:
        self._link = link
        self._shapes = shapes
        self._selections = list(selections)
        self._places = places
        self._found = found
        self._lost = lost
        self._told = asyncio.Event()
        # What new or incomplete records lacked when they were looked at last, and at how many looks before that.
        self._growing: dict[Key, tuple[frozenset[str], int]] = {}
        self._gone: set[Key] = set()
        self._missed: set[Key] = set()
        self._failures: dict[str, str] = {}  # by flow

    def stir(self) -> None:
        """The server says that its tree has changed."""
        self._told.set()

    def missed(self, place: Place) -> None:
        """A watched node of this record is not there any more, says the server; it may be again by now, and is another then."""
        self._missed.add((place.flow, place.name))
        self.stir()

    async def run(self, indexes: Mapping[str, int], interval_s: float, named: Mapping[str, object]) -> None:
        """Look at every interval while these flows may have changed, and soon after the server told of a change."""
        while True:
            usual_s = interval_s if any(self._may_change(each) for each in self._selections) else None
            await self._wait(SETTLE_S if self._growing else usual_s)
            for selection in self._selections:
                await self._try(indexes, selection, named)

    async def _try(self, indexes: Mapping[str, int], selection: Selection, named: Mapping[str, object]) -> None:
        """What is wrong with the tree of one flow is in no other's way."""
        try:
            with translated("looking for new records"):
                await self._look(indexes, selection, named)
        except LinkError as error:
            self._fail(selection.flow, str(error), named)
        else:
            self._failures.pop(selection.flow, None)

    def _may_change(self, selection: Selection) -> bool:
        """What the site file lists by node ids is looked for only while some of it is missing."""
        return isinstance(layout_of(selection.records), Tree) or bool(self._incomplete(selection.flow))

    def _incomplete(self, flow: str) -> list[Place]:
        return [place for (of, _), place in self._places.items() if of == flow and place.lacks]

    async def _wait(self, interval_s: float | None) -> None:
        try:
            async with asyncio.timeout(interval_s):
                await self._told.wait()
        except TimeoutError:
            return
        for _ in range(_CHANGES):
            self._told.clear()
            await asyncio.sleep(SETTLE_S)
            if not self._told.is_set():
                return

    async def _look(self, indexes: Mapping[str, int], selection: Selection, named: Mapping[str, object]) -> None:
        flow = selection.flow
        roots = await find_roots(self._link, indexes, selection)
        self._compare(flow, roots, named)
        incomplete = [each for each in self._incomplete(flow) if each.name in roots]
        lacking = await still_lacking(self._link, indexes, selection, incomplete)
        grown = [each.name for each in incomplete if self._has_grown(each, lacking[each.name])]
        if grown:
            self._lost(f"{_some(grown)} of flow {flow} has got nodes that it lacked")
        new = {name: root for name, root in roots.items() if (flow, name) not in self._places}
        looked = await places_at(self._link, indexes, selection, new) if new else []
        added = [each for each in looked if self._settled((flow, each.name), each.lacks)]
        if added:
            await self._shapes.learn(added)
            self._found(added)
            fields = {"flow": flow, "count": len(added), "first_place": printable(added[0].name)}
            log.info("opcua_records_found", extra={**named, **fields})

    def _has_grown(self, known: Place, lacks: frozenset[str]) -> bool:
        key = known.flow, known.name
        if lacks == known.lacks:
            self._growing.pop(key, None)
            return False
        return self._settled(key, lacks, _REST)

    def _settled(self, key: Key, lacks: frozenset[str], looks: int = 1) -> bool:
        """Whether what is new, or other than it was, is whole, or was the same at so many looks before, for nobody makes a whole record in one step."""
        before, count = self._growing.get(key, (None, 0))
        count = count + 1 if before == lacks else 0
        if lacks and count < looks:
            self._growing[key] = lacks, count
            return False
        self._growing.pop(key, None)
        return True

    def _compare(self, flow: str, roots: Mapping[str, Any], named: Mapping[str, object]) -> None:
        """What was taken away is told once; what came back or was made anew ends the session."""
        known = {name: place.root for (of, name), place in self._places.items() if of == flow}
        for key in [key for key in self._growing if key[0] == flow and key[1] not in roots]:
            del self._growing[key]
        away = self._gone | self._missed
        anew = [name for name, root in known.items() if name in roots and ((flow, name) in away or root != roots[name])]
        if anew:
            self._lost(f"{_some(anew)} of flow {flow} was made anew on the server")
        gone = [name for name in known if name not in roots and (flow, name) not in self._gone]
        if gone:
            self._gone |= {(flow, name) for name in gone}
            fields = {"flow": flow, "count": len(gone), "first_place": printable(gone[0])}
            log.warning("opcua_records_gone", extra={**named, **fields})

    def _fail(self, flow: str, reason: str, named: Mapping[str, object]) -> None:
        """What stands still works; the same reason is told once."""
        if reason != self._failures.get(flow):
            self._failures[flow] = reason
            log.warning("opcua_look_failed", extra={**named, "flow": flow, "reason": reason})


def _some(names: Sequence[str]) -> str:
    others = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{printable(names[0])}{others}"
