"""The nodes of one flow laid over those of another: what the host writes for the one is not read or written by the other. Pure."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from adapters.opcua.addresses import Address, Layout, Listed, layout_of
from adapters.opcua.paths import BrowsePath
from bridge.api import OutcomeField, Problem, Selection, Trigger


class _Use(NamedTuple):
    """What a flow does with a node; `target` is None where it only reads it. `place` is '' where records are found by browsing."""

    flow: str
    what: str
    place: str
    target: OutcomeField | None

    def bears(self, other: "_Use") -> bool:
        """Whether both may have this node: of one flow (told by its own check), both readers, or the same word about the same record."""
        if self.flow == other.flow or (self.target is None and other.target is None):
            return True
        return (self.target, self.place) == (other.target, other.place)


class _Uses:
    """Who uses which node: by node id at once, by path through them all, for a glob may be the same node as another path."""

    def __init__(self) -> None:
        self._ids: dict[Address, list[_Use]] = {}
        self._paths: list[tuple[BrowsePath, _Use]] = []

    def add(self, node: Address, use: _Use) -> None:
        """This is done with this node."""
        if isinstance(node, BrowsePath):
            self._paths.append((node, use))
        else:
            self._ids.setdefault(node, []).append(use)

    def of(self, node: Address) -> Iterator[_Use]:
        """What is done with this node, as far as it can be told without the server."""
        if isinstance(node, BrowsePath):
            yield from (use for path, use in self._paths if path.covers(node) or node.covers(path))
        else:
            yield from self._ids.get(node, ())


def across(selections: Sequence[Selection]) -> Iterator[Problem]:
    """Outcomes on a node that another flow reads, or writes as something else; one problem for each line of the site file."""
    if len(selections) < 2:
        return
    uses = _Uses()
    for selection in selections:
        for name, text in read_by(selection):
            _add(uses, selection.flow, name, text, layout_of(selection.records))
    for selection in selections:
        layout = layout_of(selection.records)
        for target, text in selection.outcome.targets().items():
            written = list(_written(selection.flow, target, text, layout))
            for node, use in written:
                other = next((each for each in uses.of(node) if not use.bears(each)), None)
                if other is not None:
                    words = f"is the node of {other.what} of the flow {other.flow} too; the host would overwrite it, so name another"
                    yield Problem(path=f"flows.{selection.flow}.outcome.{target.value}", text=words)
                    break
            for node, use in written:
                uses.add(node, use)


def read_by(selection: Selection) -> list[tuple[str, str]]:
    """What a flow reads, and the address of each as the site file has it."""
    named = [(f"the field `{name}`", text.partition("#")[0]) for name, text in selection.records.fields.items()]
    if selection.trigger is Trigger.REQUEST:
        submit = selection.submit
        named += [("`submit.request`", submit.request), ("`submit.sequence`", submit.sequence)]
    return named


def _add(uses: _Uses, flow: str, what: str, text: str, layout: Layout) -> None:
    with suppress(ValueError):  # an address that cannot be read, or a method, is told by the flow's own check
        for place, node in _nodes(layout, text):
            uses.add(node, _Use(flow, what, place, None))


def _written(flow: str, target: OutcomeField, text: str, layout: Layout) -> Iterator[tuple[Address, _Use]]:
    with suppress(ValueError):
        for place, node in _nodes(layout, text):
            yield node, _Use(flow, f"`outcome.{target.value}`", place, target)


def _nodes(layout: Layout, text: str) -> Iterator[tuple[str, Address]]:
    places = layout.places if isinstance(layout, Listed) else ("",)
    yield from zip(places, layout.spread(layout.address(text)), strict=True)
