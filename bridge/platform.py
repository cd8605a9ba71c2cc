"""What SMP's answers mean: the class of an answer to a POST (DOMAIN 5) and the outcome of each item (the ordered rule of DOMAIN 4). Pure."""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from bridge.clock import Stamp
from bridge.model import ErrorNote, HostReason, ItemState

REJECTED_WHOLE: Final = ErrorNote(code=str(int(HostReason.BATCH_REFUSED)), text="the call was refused as a whole")


class Failure(enum.Enum):
    """Why a POST has no answer."""

    REFUSED = "connection refused"
    CONNECT_TIMEOUT = "connect time-out"
    DNS = "name not resolved"
    TLS = "TLS failed"
    RESET = "connection lost"
    TIMEOUT = "no answer in time"
    TOO_LARGE = "answer too large"
    PROTOCOL = "not HTTP"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """The facts of one POST: whether its first body byte was handed to the connection, and the answer or why there is none."""

    sent: bool
    failure: Failure | None = None
    detail: str = ""
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    retry_after_s: float | None = None
    first_byte: Stamp | None = None
    answered: Stamp | None = None
    peer: Mapping[str, str] = field(default_factory=dict)
    """The certificate that the server showed, as `bridge.market.peers` tells it."""


class AnswerClass(enum.Enum):
    """What an answer lets us do (DOMAIN 5)."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    OUR_FAULT = "our_fault"
    RETRY = "retry"
    UNAUTHORISED = "unauthorised"
    IN_DOUBT = "in_doubt"


def classify(exchange: Exchange, classes: Mapping[str, AnswerClass]) -> AnswerClass:
    """The class of an answer by the profile's table: keys are a status (`503`), a status with a condition (`503+retry-after`), or a hundred (`3xx`).

    Without an answer: certainly not processed before the first body byte, in doubt after it. A status that no row names is in doubt.
    """
    if exchange.failure is not None:
        return AnswerClass.IN_DOUBT if exchange.sent else AnswerClass.RETRY
    keys = [f"{exchange.status}", f"{exchange.status // 100}xx"]
    if exchange.retry_after_s is not None:
        keys.insert(0, f"{exchange.status}+retry-after")
    for key in keys:
        found = classes.get(key)
        if found is not None:
            return found
    return AnswerClass.IN_DOUBT


class BatchSemantics(enum.Enum):
    """Whether a list of errors says something of the items it does not name."""

    ATOMIC = "atomic"
    PARTIAL = "partial"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedError:
    """One entry of an error list. `reference` is '' and `index` None when it names no item."""

    code: str
    text: str
    warning: bool = False
    reference: str = ""
    index: int | None = None
    field: str = ""

    @property
    def note(self) -> ErrorNote:
        """As it goes back to the EMS."""
        return ErrorNote(code=self.code, text=self.text, field=self.field)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a return, a status answer or a refused POST says of a submission. `success` is None where it names no result, and then not `understood` where it names one that the profile does not map."""

    rejected: bool = False
    success: bool | None = None
    understood: bool = True
    created: Mapping[str, str] = field(default_factory=dict)
    errors: Sequence[ReportedError] = ()
    total: int | None = None
    succeeded: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The outcome of one item, in the order of the call."""

    state: ItemState
    asset_id: str = ""
    errors: tuple[ErrorNote, ...] = ()


def outcomes(keys: Sequence[str], report: Report, semantics: BatchSemantics) -> list[Verdict]:
    """The outcome of every item by the ordered rule of DOMAIN 4, "Outcome per item".

    Named in an ERROR: refused. Named in `created`: registered. Result SUCCESS: registered. Counts that add up: the unnamed are registered.
    Otherwise by the batch semantics. A WARNING refuses nobody; an error that names no item makes every unnamed item unknown, except under atomic.
    A result that is not understood leaves them unknown under any semantics.
    """
    named, anonymous = _by_key(keys, report.errors)
    refused = {key for key, errors in named.items() if any(not error.warning for error in errors)}
    rest = _unnamed(report, semantics, len(keys), len(refused), anonymous=anonymous)
    verdicts = []
    for key in keys:
        errors = tuple(error.note for error in named.get(key, ()))
        if key in refused:
            verdicts.append(Verdict(state=ItemState.REFUSED, errors=errors))
        elif not report.rejected and key in report.created:
            verdicts.append(Verdict(state=ItemState.REGISTERED, asset_id=report.created[key], errors=errors))
        else:
            notes = errors if rest is not ItemState.REFUSED else (*errors, *_whole(report.errors))
            verdicts.append(Verdict(state=rest, errors=notes))
    return verdicts


def sent_again(
    keys: Sequence[str], report: Report, semantics: BatchSemantics, *, at_once: bool, resubmit_unnamed: bool
) -> list[list[int]]:
    """Which items of a refused batch go out again, as groups of positions that each make one call (DOMAIN 4, "Outcome per item").

    A batch refused whole `at_once` (400, 422) without naming an item is halved, until the one to blame stands alone. Under `resubmit_unnamed` the
    innocent of a refused or atomic batch go again without the named ones. Each group is smaller than the batch, so it ends.
    """
    named, _ = _by_key(keys, report.errors)
    refused = {key for key, errors in named.items() if any(not error.warning for error in errors)}
    if not refused:
        middle = (len(keys) + 1) // 2
        whole = at_once and report.rejected and len(keys) > 1
        return [list(range(middle)), list(range(middle, len(keys)))] if whole else []
    if not resubmit_unnamed or not report.understood or not (report.rejected or semantics is BatchSemantics.ATOMIC):
        return []
    created = frozenset() if report.rejected else frozenset(report.created)
    innocent = [index for index, key in enumerate(keys) if key not in refused and key not in created]
    return [innocent] if innocent else []


def _by_key(keys: Sequence[str], errors: Sequence[ReportedError]) -> tuple[dict[str, list[ReportedError]], bool]:
    """The errors by the item they name, and whether an ERROR names no item of the call."""
    known = set(keys)
    named: dict[str, list[ReportedError]] = {}
    anonymous = False
    for error in errors:
        key = error.reference
        if not key and error.index is not None and 0 <= error.index < len(keys):
            key = keys[error.index]
        if key in known:
            named.setdefault(key, []).append(error)
        elif not error.warning:
            anonymous = True
    return named, anonymous


def _unnamed(report: Report, semantics: BatchSemantics, sent: int, refused: int, *, anonymous: bool) -> ItemState:
    """The state of the items that nothing names. Counts tell something only when their total is that of the call: 0 of 0 registers nobody."""
    if report.rejected:
        return ItemState.REFUSED
    if anonymous:
        return ItemState.REFUSED if semantics is BatchSemantics.ATOMIC and report.understood else ItemState.UNKNOWN
    if report.success:
        return ItemState.REGISTERED
    if report.total == sent and report.succeeded is not None and report.succeeded + refused == sent:
        return ItemState.REGISTERED
    if not report.understood:
        return ItemState.UNKNOWN
    return {
        BatchSemantics.PARTIAL: ItemState.REGISTERED,
        BatchSemantics.ATOMIC: ItemState.REFUSED,
        BatchSemantics.UNKNOWN: ItemState.UNKNOWN,
    }[semantics]


def _whole(errors: Sequence[ReportedError]) -> tuple[ErrorNote, ...]:
    """The reason of an item that was refused only with its batch: the host's code, and what SMP said of no item."""
    said = "; ".join(
        error.text for error in errors if not error.warning and not error.reference and error.index is None
    )
    return (
        ErrorNote(code=REJECTED_WHOLE.code, text=f"{REJECTED_WHOLE.text}: {said}" if said else REJECTED_WHOLE.text),
    )
