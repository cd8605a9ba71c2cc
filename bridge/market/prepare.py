"""From a due submission to its signed call, or to the reason why it can never go out. No I/O."""

import logging
from dataclasses import dataclass
from typing import Final

import orjson

from bridge.journal.port import DueCall
from bridge.lane import SignedCall
from bridge.market.calls import CallMaker
from bridge.model import HostReason, ItemState, Operation, Refusal

log = logging.getLogger(__name__)

TOO_LARGE: Final = Refusal(
    reason=HostReason.TOO_LARGE, text="this item alone is larger than one call of the profile may be"
)
_NEVER: Final = (
    ItemState.REFUSED,
    ItemState.UNKNOWN,
    ItemState.EXPIRED,
    ItemState.CANCELLED,
    ItemState.INVALID,
)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A call ready to go, of the first `count` items."""

    call: SignedCall
    count: int


def prepare(maker: CallMaker, due: DueCall) -> Prepared | Refusal:
    """Sign what is due, as many items as one call holds; what was signed before goes again byte for byte."""
    if due.call is not None:
        return Prepared(due.call, len(due.items))
    refusal = _member_refusal(due)
    if refusal is not None:
        return refusal
    items = [orjson.loads(item.content) for item in due.items]
    if due.operation is Operation.UNIT_CREATE:
        items = [maker.complete_unit(items[0], due.members)]
        refusal, unusual = maker.check_unit((due.site, due.flow), items[0], due.members)
        for finding in unusual:
            log.warning("unit_unusual", extra={"site": due.site, "flow": due.flow, "finding": finding.refusal.text})
        if refusal is not None:
            return refusal
    rendered = [maker.render(due.operation, item) for item in items]
    count = maker.fit(due.operation, rendered)
    if count == 0:
        return TOO_LARGE
    call = maker.create(due.operation, rendered[:count], submission=due.submission, stamps=due.stamps)
    return Prepared(call, count)


def _member_refusal(due: DueCall) -> Refusal | None:
    """Why a unit can never go out: a member that was refused or whose outcome is unknown, by name."""
    for member in due.members:
        if member.state in _NEVER:
            unknown = member.state is ItemState.UNKNOWN
            assert member.state is not None
            return Refusal(
                reason=HostReason.MEMBER_UNKNOWN if unknown else HostReason.MEMBER_REFUSED,
                text=f"its asset {member.key} is {member.state.value}",
            )
    return None
