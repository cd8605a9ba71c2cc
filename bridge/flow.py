"""What one flow makes of a record: map, validate, decide. Pure; compiled once per flow, no interpretation per record."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final, NamedTuple, Protocol

import orjson

from bridge.api import Code, Outcome, OutcomeField, Selection
from bridge.identifiers import Severity
from bridge.lane import RenderedItem
from bridge.model import (
    UNMAPPED,
    UNMAPPED_ERROR_CODE,
    EmsOutcome,
    EmsState,
    HostReason,
    Operation,
    Reading,
    Record,
    Refusal,
    Trigger,
)

DIGEST_BYTES: Final = 16
MAX_REFUSAL_TEXT: Final = 1000


class MappedRecord(Protocol):
    """What a mapper returns: the key (None without one), the item in the host's vocabulary, why it was refused, and a unit's members."""

    @property
    def key(self) -> str | None:
        """The mapped reference."""

    @property
    def item(self) -> Mapping[str, object]:
        """Host field name to value."""

    @property
    def refusals(self) -> Sequence[Refusal]:
        """Every reason against it; empty for a good record."""

    @property
    def members(self) -> Sequence[str]:
        """References of a unit's aligned assets."""


class RecordMapper(Protocol):
    """Maps one record; never raises for what an EMS can hold."""

    def map(self, record: Record) -> MappedRecord:
        """Map one record."""

    def key_of(self, fields: Mapping[str, Reading]) -> str | None:
        """The mapped reference that these readings (the key field at least) stand for; None when they cannot be one."""


class ItemFinding(Protocol):
    """One thing that is wrong or unusual with an item."""

    @property
    def severity(self) -> Severity:
        """ERROR refuses the item."""

    @property
    def refusal(self) -> Refusal:
        """It as the EMS is told."""


class ItemValidator(Protocol):
    """Validates one mapped item."""

    def check(self, item: Mapping[str, object]) -> Sequence[ItemFinding]:
        """Everything against this item."""


class Evaluated(NamedTuple):
    """A record as the flow sees it: either `content` and `digest`, or a `refusal`, or neither (its registration is awaited).

    `unusual` holds what the rules warn of, a line each without the value; `rendered` is the item as it would stand in a call.
    """

    key: str | None
    rendered: RenderedItem | None = None
    content: bytes = b""
    digest: bytes = b""
    refusal: Refusal | None = None
    members: tuple[str, ...] = ()
    unusual: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowPlan:
    """One flow, ready to run."""

    site: str
    name: str
    adapter: str
    participant: str
    operation: Operation
    trigger: Trigger
    key_field: str
    records: Any
    submit: Any
    outcome: Outcome
    mapper: RecordMapper
    validator: ItemValidator
    max_items: int
    render: Callable[[Mapping[str, object]], RenderedItem | None]
    """An item as it stands in a call; None when no call could hold it."""
    linger_ns: int = 0
    deadline_ns: int = 24 * 3600 * 1_000_000_000
    budget_ns: int = 0
    registration_wait_s: float = 5.0
    states: Mapping[EmsState, int] = field(default_factory=dict)
    error_codes: Mapping[str, int] = field(default_factory=dict)

    def selection(self, awaiting: Mapping[str, tuple[str, ...]] | None = None) -> Selection:
        """The flow as its adapter sees it."""
        return Selection(
            flow=self.name,
            trigger=self.trigger,
            records=self.records,
            submit=self.submit,
            outcome=self.outcome,
            awaiting=awaiting or {},
        )

    def evaluate(self, record: Record) -> Evaluated:
        """Map and validate one record."""
        if not record.complete and not record.problem:
            return Evaluated(key=None)
        mapped = self.mapper.map(record)
        if mapped.refusals:
            return Evaluated(key=mapped.key, refusal=merge(mapped.refusals))
        findings = self.validator.check(mapped.item)
        unusual: tuple[str, ...] = ()
        if findings:
            refusals = [finding.refusal for finding in findings if finding.severity is Severity.ERROR]
            if refusals:
                return Evaluated(key=mapped.key, refusal=merge(refusals))
            unusual = tuple(finding.refusal.text for finding in findings)
        rendered = self.render(mapped.item)
        if rendered is None:
            return Evaluated(key=mapped.key, refusal=TOO_LARGE)
        content = orjson.dumps(mapped.item, option=orjson.OPT_SORT_KEYS)
        return Evaluated(
            key=mapped.key,
            rendered=rendered,
            content=content,
            digest=sha256(content).digest()[:DIGEST_BYTES],
            members=tuple(mapped.members),
            unusual=unusual,
        )

    def values(self, outcome: EmsOutcome) -> Mapping[OutcomeField, object]:
        """An outcome as the values that `Session.write` takes (see `OutcomeField`)."""
        state = outcome.state
        first = outcome.errors[0].code if outcome.errors else ""
        return {
            OutcomeField.STATE: Code(self.states.get(state, int(state)), state.word),
            OutcomeField.TRANSACTION_ID: outcome.transaction_id,
            OutcomeField.ERROR_CODE: Code(self.error_number(first), first),
            OutcomeField.ERROR_TEXT: tuple(error.text for error in outcome.errors),
            OutcomeField.ERROR_COUNT: len(outcome.errors),
            OutcomeField.ASSET_ID: outcome.asset_id,
            OutcomeField.UPDATED_AT: outcome.updated_ns,
            OutcomeField.REQUEST: outcome.request or "",
            OutcomeField.ALARM: state in _ALARMING,
        }

    def error_number(self, code: str) -> int:
        """The integer of an error code: 0 for none, by the site's map, else the host's own codes as they are, and for the rest what the map has for them, or 9999."""
        if not code:
            return 0
        mapped = self.error_codes.get(code)
        if mapped is not None:
            return mapped
        return int(code) if code in _HOST_CODES else self.error_codes.get(UNMAPPED, UNMAPPED_ERROR_CODE)


# Found here and not when the call is made: there it would hold up what waits behind it.
TOO_LARGE: Final = Refusal(
    reason=HostReason.TOO_LARGE, text="this item alone is larger than one call of the profile may be"
)
_ALARMING: Final = frozenset({EmsState.IN_DOUBT, EmsState.UNKNOWN, EmsState.DRIFT})
_HOST_CODES: Final = frozenset(str(int(reason)) for reason in HostReason)


def merge(refusals: Sequence[Refusal]) -> Refusal:
    """All reasons of one record in one refusal: the first one's code, every text."""
    if len(refusals) == 1:
        return refusals[0]
    text = "; ".join(refusal.text for refusal in refusals)
    return Refusal(reason=refusals[0].reason, text=text[:MAX_REFUSAL_TEXT])
