"""Read one site file: its adapters by their own models, its flows by ours and theirs, then what only shows across parts."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bridge.api import Adapter, Options, Outcome, RecordsOptions, Selection
from bridge.config.adapters import AdapterFinder, AdapterMissing
from bridge.config.alarms import read_alarms
from bridge.config.always import check_always
from bridge.config.crosscheck import check_payload, check_severities
from bridge.config.document import Document, nearest, unknown
from bridge.config.fits import check_fits
from bridge.config.host import Participant
from bridge.config.payload import Rule
from bridge.config.site import AdapterConfig, FlowConfig, FlowOptions, SiteConfig, SiteOptions, SubmitOptions
from bridge.config.tree import Loc
from bridge.config.values import check_name
from bridge.config.words import words_of
from bridge.errors import Problem
from bridge.model import EmsState, Operation, Trigger
from bridge.vocabulary import Vocabulary

_PROTOCOL: Final = "protocol"
_WHEN: Final = "when"


@dataclass(slots=True)
class SiteReader:
    """Reads one site's document. `participants` are the entries that may be named, None where one is itself wrong."""

    document: Document
    find: AdapterFinder
    vocabulary: Vocabulary
    participants: Mapping[str, Participant | None]
    _adapters: dict[str, Adapter] = field(default_factory=dict)
    _far: dict[str, Options] = field(default_factory=dict)
    _selections: list[tuple[str, Selection]] = field(default_factory=list)

    def read(self, path: Path) -> SiteConfig | None:
        """The site, or None; what is wrong stands in the document's problems."""
        document = self.document
        top, head = document.read_far(SiteOptions, ())
        name = top.site if top is not None else str(document.tree.at(("site",)) or path.stem)
        wrong = check_name(name)
        if wrong and top is not None:
            document.wrong(("site",), wrong)
        options = {key: self._adapter(key) for key in document.mapping(("adapters",))}
        default = head.participant if head is not None else self._unread_participant()
        flows = {key: self._flow(name, key, default) for key in document.mapping(("flows",))}
        if top is not None and not flows:
            document.wrong((), "has no flow; a site without flows does nothing")
        adapters = {
            key: AdapterConfig(name=key, adapter=self._adapters[key], options=found)
            for key, found in options.items()
            if found is not None
        }
        whole = {key: found for key, found in flows.items() if found is not None}
        for key, far in self._far.items():
            if not document.flaw_below(("adapters", key, "writable")):  # else every outcome would seem to lie outside
                self._check(key, far, complete=len(whole) == len(flows))
        alarms = read_alarms(document, self._adapters, self._far, self._selections, self._place)
        if document.problems:
            return None
        return SiteConfig(name=name, file=path, adapters=adapters, flows=whole, alarms=alarms)

    def _unread_participant(self) -> str | None:
        """The site's participant where the top of its file cannot be read; '' for one that is given somehow."""
        given = self.document.tree.at(("participant",))
        return given if given is None or isinstance(given, str) else ""

    def _adapter(self, name: str) -> Options | None:
        """The options of one adapter by its own model."""
        loc: Loc = ("adapters", name)
        document = self.document
        wrong = check_name(name)
        if wrong:
            document.wrong(loc, wrong, at_key=True)
        settings = document.mapping(loc)
        protocol = settings.get(_PROTOCOL)
        if not isinstance(protocol, str):
            if settings and not document.flaw(loc):
                document.wrong(loc, f"`{_PROTOCOL}` is missing; add it, such as `{_PROTOCOL}: opcua`")
            return None
        try:
            adapter = self._adapters[name] = self.find(protocol)
        except AdapterMissing as error:
            document.wrong((*loc, _PROTOCOL), str(error))
            return None
        found, far = document.read_far(adapter.options, loc, without=(_PROTOCOL,))
        if far is not None:
            self._far[name] = far
        return found

    def _flow(self, site: str, name: str, default_participant: str | None) -> FlowConfig | None:
        """One flow: our own part, then the parts its adapter reads."""
        loc: Loc = ("flows", name)
        document = self.document
        before = len(document.problems)
        wrong = check_name(name)
        if wrong:
            document.wrong(loc, wrong, at_key=True)
        shell = document.read(FlowOptions, loc)
        adapter = self._named_adapter(loc)
        trigger = self._trigger(loc)
        parts = (None, None, None) if adapter is None else self._adapter_parts(adapter, trigger, loc)
        participant = self._participant(loc, shell, default_participant)
        check_severities(document, loc, self.vocabulary.severities)
        if shell is not None:
            self._most_items(loc, shell, participant)
        payload = self._payload(loc, adapter, parts[0], participant)
        records, submit, outcome = parts
        if trigger is not None and records is not None and submit is not None and outcome is not None:
            numbers = {} if shell is None else shell.numbers()
            selection = Selection(
                flow=name, trigger=trigger, records=records, submit=submit, outcome=outcome, numbers=numbers
            )
            self._selections.append((str(document.tree.at((*loc, "adapter"))), selection))
        if len(document.problems) > before or shell is None or trigger is None:
            return None
        if records is None or submit is None or outcome is None:
            return None
        return FlowConfig(
            name=name,
            site=site,
            adapter=shell.adapter,
            participant=participant,
            operation=shell.operation,
            trigger=trigger,
            records=records,
            submit=submit,
            outcome=outcome,
            payload={key: rule for key, rule in payload.items() if rule is not None},
            states={state: shell.states[state.word] for state in EmsState if state.word in shell.states},
            error_codes=shell.error_codes,
            severities=shell.severities,
            linger_s=shell.linger,
            deadline_s=shell.deadline,
            latency_budget_s=shell.latency_budget,
            registration_wait_s=shell.wait_for_registration,
            max_items=shell.max_items,
        )

    def _most_items(self, loc: Loc, shell: FlowOptions, participant: str) -> None:
        """No more items are asked for than the profile allows in one call."""
        entry = self.participants.get(participant)
        if entry is not None and shell.max_items is not None and shell.max_items > entry.profile.limits.records:
            text = f"is more than the {entry.profile.limits.records} that the profile {entry.profile.name} allows in one call"
            self.document.wrong((*loc, "max_items"), text)

    def _named_adapter(self, loc: Loc) -> Adapter | None:
        """The adapter that a flow names; an unknown name is a problem, one that is itself wrong was reported there."""
        name = self.document.tree.at((*loc, "adapter"))
        offered = self.document.tree.at(("adapters",))
        names = [str(key) for key in offered] if isinstance(offered, Mapping) else []
        if isinstance(name, str) and name not in names and not (offered is None and self.document.problems):
            self.document.wrong((*loc, "adapter"), unknown(name, names, "adapter of this site"))
        return self._adapters.get(name) if isinstance(name, str) else None

    def _payload(
        self, loc: Loc, adapter: Adapter | None, records: RecordsOptions | None, participant: str
    ) -> dict[str, Rule | None]:
        """Each rule of the payload, read by itself so that one bad rule hides no other."""
        document = self.document
        place = (*loc, "payload")
        payload = {key: document.read(Rule, (*place, key)) for key in document.mapping(place)}
        word = document.tree.at((*loc, "operation"))
        operation = next((item for item in Operation if item.value == word), None)
        if operation is not None:
            entry = self.participants.get(participant)
            schema = None if entry is None else entry.profile.schemas[operation.kind]
            words = words_of(self.vocabulary, operation.kind, schema)
            check_payload(document, place, payload, records, words)
            meant = {nearest(key, words.kinds) for key in payload if key not in words.kinds}
            if adapter is not None and adapter.kinds is not None and records is not None:
                check_fits(document, place, payload, adapter.kinds(records), words)
            if entry is not None:
                chosen = document.mapping((*loc, "severities"))
                given = {**dict.fromkeys(meant), **payload}  # what is misspelt is not missing too
                check_always(document, place, given, self.vocabulary, operation.kind, chosen)
        return payload

    def _trigger(self, loc: Loc) -> Trigger | None:
        place = (*loc, "submit")
        head = {key for key in self.document.mapping(place) if key != _WHEN}
        if place not in self.document.tree.values or self.document.flaw(place):
            return None  # told as missing where the flow is read, or as no mapping
        found = self.document.read(SubmitOptions, (*loc, "submit"), without=tuple(head))
        return found.when if found is not None else None

    def _adapter_parts(
        self, adapter: Adapter, trigger: Trigger | None, loc: Loc
    ) -> tuple[RecordsOptions | None, Options | None, Outcome | None]:
        document = self.document
        records = document.read(adapter.records, (*loc, "records"))
        if records is not None and records.key not in records.fields:
            document.wrong((*loc, "records", "key"), unknown(records.key, records.fields, "field of `records.fields`"))
        submit: Options | None = None
        if trigger is not None:
            model = adapter.submit.get(trigger)
            if model is None:
                offered = ", ".join(sorted(kind.value for kind in adapter.submit))
                document.wrong((*loc, "submit", _WHEN), f"{adapter.protocol} has no such trigger; it has {offered}")
            else:
                submit = document.read(model, (*loc, "submit"), without=(_WHEN,))
        return records, submit, document.read(adapter.outcome, (*loc, "outcome"))

    def _participant(self, loc: Loc, shell: FlowOptions | None, default: str | None) -> str:
        """The participant entry that a flow works for."""
        own = shell.participant if shell is not None else None
        name, place = (own, (*loc, "participant")) if own else (default, ("participant",))
        if name is None:
            if shell is not None:
                self.document.wrong(loc, "`participant` is missing; name one here or for the whole site")
            return ""
        if not name:
            return ""
        if self.participants and name not in self.participants and not self.document.flaw(place):
            self.document.wrong(place, unknown(name, self.participants, "participant of bridge.yaml"))
        return name

    def _check(self, name: str, options: Options, *, complete: bool) -> None:
        """The adapter's own check over all flows that use it, as far as both can be read."""
        selections = [selection for adapter, selection in self._selections if adapter == name]
        if not selections and complete and self.document.mapping(("flows",)):
            self.document.wrong(
                ("adapters", name), "no flow uses this adapter; remove it, or name it in a flow", at_key=True
            )
        read = {selection.flow for _, selection in self._selections}
        for problem in self._adapters[name].check(options, selections):
            loc = located(self.document, problem.path, name)
            if self._names_unread(self.document.tree.at(loc), read):
                continue  # of a flow that is itself wrong it was said there
            self.document.wrong(loc, problem.text)

    def _names_unread(self, value: object, read: Collection[str]) -> bool:
        """Whether a setting names a flow of this file (`batteries.reference`) that could not be read."""
        flow = value.partition(".")[0] if isinstance(value, str) else ""
        return flow not in read and (("flows", flow) in self.document.tree.values)

    def _place(self, problem: Problem, adapter: str) -> None:
        """Give an adapter's problem its place."""
        self.document.wrong(located(self.document, problem.path, adapter), problem.text)


def located(document: Document, path: str, adapter: str) -> Loc:
    """Where in a site file an adapter's own path lies: it starts with `adapter` or `flows.<flow>`."""
    first, *rest = path.replace("[", ".").replace("]", "").split(".")
    loc: Loc = ("adapters", adapter) if first == "adapter" else (first,)
    for part in rest:
        step: str | int = int(part) if part.isdigit() and isinstance(document.tree.at(loc), list) else part
        loc = (*loc, step)
    return loc
