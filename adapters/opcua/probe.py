"""One look at everything that a site file names on this server: nodes, values, types and rights. Reads, and nothing else."""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from adapters.opcua.access import Access
from adapters.opcua.addresses import call
from adapters.opcua.codec import encode
from adapters.opcua.config import OpcUaOptions, Policy
from adapters.opcua.errors import translated
from adapters.opcua.fetch import Fetch
from adapters.opcua.library import ua
from adapters.opcua.link import Link
from adapters.opcua.paths import absolute
from adapters.opcua.places import Place, find_places, find_word, namespaces
from adapters.opcua.servers import connect
from adapters.opcua.structures import Shapes
from adapters.opcua.values import reading
from adapters.opcua.watch import whole
from adapters.opcua.words import printable
from bridge.api import (
    Address,
    Beside,
    Code,
    LinkError,
    Look,
    OutcomeField,
    Quality,
    Selection,
    SessionContext,
    Trigger,
    Trouble,
)

_CURRENT_WRITE: Final = 0x02  # OPC 10000-3, 8.57
_SHOWN: Final = 5
# A value of each part of an outcome, to see whether its node could hold one.
_SAMPLES: Final[Mapping[OutcomeField, object]] = {
    OutcomeField.STATE: Code(3, "registered"),
    OutcomeField.TRANSACTION_ID: "a0B1",
    OutcomeField.ERROR_CODE: Code(9999, "E1"),
    OutcomeField.ERROR_TEXT: ("a line",),
    OutcomeField.ERROR_COUNT: 1,
    OutcomeField.ASSET_ID: "A1",
    OutcomeField.UPDATED_AT: 1_795_392_000_000_000_000,
    OutcomeField.REQUEST: "1",
    OutcomeField.ALARM: True,
}


@asynccontextmanager
async def open_probe(context: SessionContext) -> AsyncIterator["OpcUaProbe"]:
    """Connect as a session does, with the same trust, and subscribe to nothing."""
    reached = await connect(context.options, context.clock)
    try:
        yield OpcUaProbe(context, reached.link)
    finally:
        await reached.link.close()


class OpcUaProbe:
    """A `bridge.api.Probe`. Every look finds the nodes anew: what an engineer adds to the server meanwhile is there at the next."""

    def __init__(self, context: SessionContext, link: Link) -> None:
        self._context = context
        self._options: OpcUaOptions = context.options
        self._link = link
        self._broken: LinkError | None = None
        link.listen(self._lost)

    async def look(self, wait_s: float) -> Look:  # noqa: ARG002 - what is asked for is answered at once
        """See `bridge.api.Probe`."""
        self._check()
        with translated("looking"):
            looked = _Looked(self._context, self._link)
            try:
                indexes = await namespaces(self._link, self._options.namespaces)
            except LinkError as error:
                self._check()
                looked.trouble(str(error), hint=error.hint)
                indexes = None
            for selection in self._context.selections if indexes is not None else ():
                await self._flow(looked, indexes or {}, selection)
            if indexes is not None and self._context.word is not None:
                await looked.word(indexes, self._context.word.node)
            await self._others(looked)
        return Look(said=self._said(), records=looked.records, beside=looked.beside, troubles=looked.troubles)

    async def _flow(self, looked: "_Looked", indexes: Mapping[str, int], selection: Selection) -> None:
        try:
            places = await find_places(self._link, indexes, selection, whole=False)
        except LinkError as error:
            self._check()
            looked.trouble(str(error), hint=error.hint, flow=selection.flow)
            return
        await looked.flow(selection, places)

    async def _others(self, looked: "_Looked") -> None:
        """The other servers of a redundant set: one that cannot be reached is missed only when it is needed."""
        for url in self._options.urls if len(self._options.urls) > 1 else ():
            if url == self._link.url:
                continue
            link = Link(self._options, self._context.clock, url)
            try:
                await link.open()
            except LinkError as error:
                looked.trouble(f"the redundant server {url} cannot be used: {error}", hint=error.hint)
            finally:
                await link.close()

    def _said(self) -> str:
        security = self._options.security
        if security.policy is Policy.NONE:
            return f"{self._link.url}, not protected"
        user = security.user or ("the user's certificate" if security.user_certificate is not None else "anonymous")
        return f"{self._link.url}, {security.policy.value}/{security.mode.value}, as {printable(user)}"

    def _lost(self, reason: str) -> None:
        self._broken = self._broken or LinkError(reason)

    def _check(self) -> None:
        if self._broken is not None:
            raise LinkError(str(self._broken)) from self._broken


class _Looked:
    """What one look has found so far."""

    def __init__(self, context: SessionContext, link: Link) -> None:
        self._link = link
        self._clock = context.clock
        self._shapes = Shapes(link)
        self._fetch = Fetch(
            link, self._shapes, {each.flow: each for each in context.selections}, context.clock, _silent
        )
        self.records: list[Any] = []
        self.beside: list[Beside] = []
        self.troubles: list[Trouble] = []

    def trouble(self, text: str, **where: Any) -> None:
        self.troubles.append(Trouble(text=text, **where))

    async def flow(self, selection: Selection, places: Sequence[Place]) -> None:
        """Its records, its triggers, its targets."""
        self.troubles += _lacking(selection, places)
        await self._shapes.learn(places)
        self.records += await self._fetch.look(places)
        if selection.trigger is Trigger.REQUEST:
            await self._triggers(selection, places)
        await self._targets(places)

    async def _triggers(self, selection: Selection, places: Sequence[Place]) -> None:
        """What asks and what counts hold whole numbers; a method may be called."""
        known = [
            (place, f"submit.{name}", node)
            for place in places
            for name, node in (("request", place.request), ("sequence", place.sequence))
            if node is not None
        ]
        values = await self._link.read_values([node for _, _, node in known])
        for (place, name, _), value in zip(known, values, strict=True):
            found = reading(value)
            self.beside.append(Beside(place.flow, place.name, name, found))
            if found.quality is Quality.GOOD and whole(found) is None:
                text = f"holds {type(found.value).__name__}, must be a whole number"
                self.trouble(text, flow=place.flow, place=place.name, name=name)
        method = places[0].method if places else None
        if method is not None:
            (value,) = await self._link.read([(method.node, ua.AttributeIds.UserExecutable)])
            if _content(value) is False:
                self.trouble(
                    f"this user may not call {method.name}", hint="let the EMS give this user the right to call it",
                    flow=selection.flow, name="submit.sequence",
                )  # fmt: skip

    async def _targets(self, places: Sequence[Place]) -> None:
        """What stands where outcomes will be written, whether they would fit there, and whether this user may write them."""
        targets = [(place, name, node) for place in places for name, node in place.targets.items()]
        access = Access(self._link, self._shapes, {(each.flow, each.name): each for each in places}, frozenset())
        found = await access.read([Address(place.flow, place.name, name) for place, name, _ in targets])
        rights = await self._link.read([(node, ua.AttributeIds.UserAccessLevel) for _, _, node in targets])
        for (place, name, _), held, level in zip(targets, found, rights, strict=True):
            part = f"outcome.{name.value}"
            self.beside.append(Beside(place.flow, place.name, part, held))
            for text, hint in _flaws(place, name, level):
                self.trouble(text, hint=hint, flow=place.flow, place=place.name, name=part)

    async def word(self, indexes: Mapping[str, int], node: str) -> None:
        """The alarm word's node."""
        place, name = await find_word(self._link, indexes, absolute(node)), "alarms.word"
        if place is None:
            self.trouble(f"{node} does not exist on the server", hint="compare the path with the server's", name=name)
            return
        target = place.targets[OutcomeField.ALARM]
        value, level = await self._link.read([(target, each) for each in (ua.AttributeIds.Value, _LEVEL)])
        self.beside.append(Beside("", "", name, reading(value)))
        if _read_only(level):
            self.trouble("this user may not write it", hint=_HINT_RIGHT, name=name)


_LEVEL: Final = ua.AttributeIds.UserAccessLevel
_HINT_RIGHT: Final = "let the EMS give this user the right to write there"


def _flaws(place: Place, name: OutcomeField, level: Any) -> Iterator[tuple[str, str]]:
    if _read_only(level):
        yield "this user may not write it", _HINT_RIGHT
    try:
        encode(name, _SAMPLES[name], place.types[name])
    except ValueError as error:
        yield str(error), "name a node of another type, or have the EMS change it"


def _read_only(level: Any) -> bool:
    """Whether a server says that this user may not write a node; one that says nothing is not blamed."""
    held = _content(level)
    return isinstance(held, int) and not held & _CURRENT_WRITE


def _lacking(selection: Selection, places: Sequence[Place]) -> Iterator[Trouble]:
    """Addresses that no place has, without which no session opens, and those that only some have."""
    wanted = dict(selection.records.fields)
    lacks: dict[str, list[str]] = {
        name: [place.name for place in places if name not in place.fields] for name in wanted
    }
    for target, path in selection.outcome.targets().items():
        wanted[f"outcome.{target.value}"] = path
        lacks[f"outcome.{target.value}"] = [place.name for place in places if target not in place.targets]
    if selection.trigger is Trigger.REQUEST:
        submit = selection.submit
        wanted["submit.request"] = submit.request
        lacks["submit.request"] = [place.name for place in places if place.request is None]
        if call(submit.sequence) is None:
            wanted["submit.sequence"] = submit.sequence
            lacks["submit.sequence"] = [place.name for place in places if place.sequence is None]
    for name, missing in lacks.items():
        if missing and len(missing) == len(places):
            text, hint = f"no record has {wanted[name]}: no session opens", "compare the path with the server's"
            yield Trouble(text=text, hint=hint, flow=selection.flow, name=name)
        elif missing:
            some = ", ".join(printable(each) for each in missing[:_SHOWN]) + (" …" if len(missing) > _SHOWN else "")
            text = f"{len(missing)} of {len(places)} records lack {wanted[name]}: {some}"
            yield Trouble(text=text, flow=selection.flow, name=name, grave=name.startswith(("submit.", "outcome.")))


def _content(value: Any) -> Any:
    good = value.StatusCode is None or value.StatusCode.is_good()
    return value.Value.Value if good and value.Value is not None else None


def _silent() -> None:
    """Nobody asks how old the last good reading of a probe is."""
