"""What can be wrong between the parts of a site file, checked without a server. Pure."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from adapters.opcua.addresses import (
    PLACE,
    PLACE_ARGUMENT,
    Address,
    Call,
    Layout,
    Listed,
    Tree,
    call,
    is_node_id,
    layout_of,
    pattern,
)
from adapters.opcua.between import across, read_by
from adapters.opcua.config import OpcUaOptions
from adapters.opcua.paths import absolute, split_member
from bridge.api import Problem, Selection, Trigger

_UNKNOWN_PREFIX: Final = "the prefix `"


def writable(options: OpcUaOptions) -> Callable[[Address], bool]:
    """Tells whether a node lies inside `writable:`."""
    patterns = [pattern(text) for text in options.writable]
    return lambda address: any(each.covers(address) for each in patterns)


def check(options: Any, selections: Sequence[Selection]) -> Sequence[Problem]:
    """Every address, every prefix, and every outcome address against `writable:`."""
    known = frozenset(options.namespaces)
    lists = (("writable", options.writable), ("methods", options.methods))
    problems = [
        Problem(path=f"adapter.{name}[{index}]", text=text)
        for name, entries in lists
        for index, entry in enumerate(entries)
        for text in _prefixes(pattern(entry), known)
    ]
    for selection in selections:
        problems.extend(_check_flow(options, selection, known))
    told = {problem.path for problem in problems}
    problems.extend(problem for problem in across(selections) if problem.path not in told)
    return _once(problems)


def _once(problems: Sequence[Problem]) -> list[Problem]:
    """A prefix that is not known is told at its first place, and at how many others it stands; one line of `namespaces:` mends them all."""
    places = Counter(problem.text for problem in problems if problem.text.startswith(_UNKNOWN_PREFIX))
    found: list[Problem] = []
    for problem in problems:
        count = places.pop(problem.text, 0 if problem.text.startswith(_UNKNOWN_PREFIX) else 1)
        if count:
            more = f" (it stands at {count - 1} more place{'s' if count > 2 else ''})" if count > 1 else ""
            found.append(replace(problem, text=problem.text + more))
    return found


def check_word(options: Any, selections: Sequence[Selection], word: Any) -> Sequence[Problem]:
    """One node, inside `writable:`, and none that a flow reads or writes."""
    place, path = "alarms.word.node", absolute(word.node)
    if path.has_glob:
        return [Problem(path=place, text="must name one node; * is only allowed in `each` and `writable`")]
    found = [Problem(path=place, text=text) for text in _prefixes(path, frozenset(options.namespaces))]
    if not found and not writable(options)(path):
        text = f'is outside `writable:` of its adapter; add "{path}" there, or name another node'
        found.append(Problem(path=place, text=text))
    for selection in selections:
        texts = [*selection.records.fields.values(), *selection.outcome.targets().values()]
        if any(_covers(layout_of(selection.records), text, path) for text in texts):
            found.append(
                Problem(path=place, text=f"is a node of the flow {selection.flow}; give the word one of its own")
            )
    return found


def _covers(layout: Layout, text: str, path: Address) -> bool:
    """Whether a flow's address may be this node; the flow's own check tells of one that cannot be read."""
    try:
        return layout.address(split_member(text)[0]).covers(path)
    except ValueError:
        return False


def _check_flow(options: OpcUaOptions, selection: Selection, known: frozenset[str]) -> Iterator[Problem]:
    base, layout = f"flows.{selection.flow}", layout_of(selection.records)
    if isinstance(layout, Tree):
        for text in _prefixes(layout.each, known):
            yield Problem(path=f"{base}.records.each", text=text)
        known |= layout.each.prefixes
    yield from _check_fields(base, selection, layout, known)
    if selection.trigger is Trigger.REQUEST:
        yield from _check_address(f"{base}.submit.request", selection.submit.request, layout, known, own=True)
        yield from _check_sequence(options, base, selection, layout, known)
    else:
        yield from _check_deadband(base, selection)
    yield from _check_outcome(options, base, selection, layout, known)


def _check_outcome(
    options: OpcUaOptions, base: str, selection: Selection, layout: Layout, known: frozenset[str]
) -> Iterator[Problem]:
    allowed, taken = writable(options), _read_nodes(selection, layout)
    for target, text in selection.outcome.targets().items():
        place = f"{base}.outcome.{target.value}"
        flaws = list(_check_address(place, text, layout, known, own=True))
        yield from flaws
        if flaws:
            continue
        nodes = layout.spread(layout.address(text))
        other = next((taken[each] for each in nodes if each in taken), None)
        named = frozenset(options.namespaces)  # an address of a namespace that is not there seems to lie outside
        outside = [each for each in nodes if not allowed(each) and not each.prefixes - named]
        if other is not None:  # whether it is writable or not
            yield Problem(path=place, text=f"is the node of {other} too; the host would overwrite it, so name another")
        elif outside:
            words = f'is outside `writable:` of its adapter; add "{outside[0]}" there, or name another node'
            yield Problem(path=place, text=words)
        for node in nodes:
            taken.setdefault(node, f"`outcome.{target.value}`")


def _read_nodes(selection: Selection, layout: Layout) -> dict[Address, str]:
    """The nodes that a flow reads, and as what; an address or method that cannot be read as an address is told by its own check."""
    found: dict[Address, str] = {}
    for what, text in read_by(selection):
        with suppress(ValueError):
            for node in layout.spread(layout.address(text)):
                found.setdefault(node, what)
    return found


def _check_fields(base: str, selection: Selection, layout: Layout, known: frozenset[str]) -> Iterator[Problem]:
    for name, text in selection.records.fields.items():
        place = f"{base}.records.fields.{name}"
        try:
            path, _ = split_member(text)
        except ValueError as error:
            yield Problem(path=place, text=str(error))
            continue
        yield from _check_address(place, path, layout, known, own=name == selection.records.key)


def _check_deadband(base: str, selection: Selection) -> Iterator[Problem]:
    for name in selection.submit.deadband:
        place = f"{base}.submit.deadband.{name}"
        if name not in selection.records.fields:
            yield Problem(path=place, text=f"is no field; the fields are {', '.join(selection.records.fields)}")
        elif "#" in selection.records.fields[name]:
            yield Problem(
                path=place, text="is part of a structure or a name, of which the server tells every change; remove it"
            )


def _check_sequence(
    options: OpcUaOptions, base: str, selection: Selection, layout: Layout, known: frozenset[str]
) -> Iterator[Problem]:
    place = f"{base}.submit.sequence"
    try:
        wanted = call(selection.submit.sequence)
    except ValueError as error:
        yield Problem(path=place, text=str(error))
        return
    if wanted is None:
        yield from _check_address(place, selection.submit.sequence, layout, known, own=True)
        return
    flaws = [*_prefixes(wanted.path, known), *_check_call(options, selection, wanted)]
    yield from (Problem(path=place, text=text) for text in flaws)


def _check_call(options: OpcUaOptions, selection: Selection, wanted: Call) -> Iterator[str]:
    """A method may change something in the EMS: only those that are listed are called."""
    if not any(absolute(text).covers(wanted.path) for text in options.methods):
        yield f'is outside `methods:` of its adapter; add "{wanted.path}" there'
    for name in wanted.arguments:
        if name != PLACE_ARGUMENT and name not in selection.records.fields:
            yield f"the argument `{name}` is neither {PLACE_ARGUMENT} nor a field; the fields are {', '.join(selection.records.fields)}"


def _check_address(
    place: str, text: str, layout: Layout, known: frozenset[str], *, own: bool = False
) -> Iterator[Problem]:
    """`own`: each place needs a node of its own there."""
    if isinstance(layout, Tree) and text.startswith("ns=") and is_node_id(text):
        words = (
            "is a node id, and below `each` stand browse paths such as Registration/State; node ids go with `places`"
        )
        yield Problem(path=place, text=words)
        return
    try:
        address = layout.address(text)
    except ValueError as error:
        yield Problem(path=place, text=str(error))
        return
    for problem in _prefixes(address, known):
        yield Problem(path=place, text=problem)
    if own and isinstance(layout, Listed) and len(layout.places) > 1 and len(set(layout.spread(address))) == 1:
        yield Problem(path=place, text=f"is the same node for every place; put {PLACE} where they differ")


def _prefixes(address: Address, known: frozenset[str]) -> Iterator[str]:
    for prefix in sorted(address.prefixes - known):
        if prefix.isdigit():
            yield f'{_UNKNOWN_PREFIX}{prefix}` is a namespace by its number, which a server may give anew at each start; name it, such as `ems: "urn:…"` in `namespaces:` of the adapter, and write ems: for {prefix}:'
            continue
        yield f'{_UNKNOWN_PREFIX}{prefix}` is not in `namespaces:` of its adapter; add `{prefix}: "urn:…"` there'
