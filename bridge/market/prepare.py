"""From a due submission to its signed call, or to the reason why it can never go out. No I/O; a large one is made in steps."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import orjson

from bridge.clock import Stamp
from bridge.errors import RetryLater
from bridge.journal.port import DueCall
from bridge.lane import SignedCall
from bridge.market.calls import CallMaker
from bridge.model import HostReason, ItemState, Operation, Refusal
from bridge.turns import Turns, aside, signing
from bridge.wire import RenderedItem

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
class Poison:
    """Why this submission cannot be made into a call although nothing is known to be wrong with its items: a person has to look."""

    text: str


GONE: Final = Poison(
    "the bytes that were signed are gone from the journal, or were changed there; see `smp-bridge journal verify`"
)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A call ready to go, of the first `count` items."""

    call: SignedCall
    count: int


async def prepare(maker: CallMaker, due: DueCall, *, now_ns: int) -> Prepared | Refusal | Poison:
    """Sign what is due, as many items as one call holds.

    What was signed before goes again byte for byte while the profile is the same and its freshness window holds (DOMAIN 3); later it is signed
    anew as the same message. Raises `RetryLater` while what signs is away. A defect of ours or a profile that was changed since may not stop what waits behind: such a submission is `Poison`.
    """
    if due.call is not None and not due.call.body:
        return GONE
    if due.call is not None and maker.is_fresh(due.call, now_ns):
        return Prepared(due.call, len(due.items))
    try:
        return await _prepared(maker, due)
    except RetryLater:  # what signs is away; nothing is wrong with the call
        raise
    except Exception as error:
        log.exception("call_cannot_be_made", extra={"submission": due.submission, "site": due.site, "flow": due.flow})
        return Poison(
            f"its call cannot be made under this profile ({type(error).__name__}); the service's log says where"
        )


async def signed(
    maker: CallMaker,
    operation: Operation,
    rendered: Sequence[RenderedItem],
    *,
    submission: str,
    stamps: Mapping[str, Stamp],
    message_id: str | None = None,
) -> SignedCall:
    """One call of these items; a large one is made on a thread beside the loop, for it takes milliseconds."""
    make = partial(maker.create, submission=submission, stamps=stamps, message_id=message_id)
    if maker.blocks:
        return await signing(maker.participant, make, operation, rendered)
    return await aside(sum(map(len, rendered)), make, operation, rendered)


async def _prepared(maker: CallMaker, due: DueCall) -> Prepared | Refusal | Poison:
    message_id = due.call.message_id if due.call is not None else None
    refusal = _member_refusal(due)
    if refusal is not None:
        return refusal
    if due.operation is Operation.UNIT_CREATE:
        item = maker.complete_unit(orjson.loads(due.items[0].content), due.members)
        refusal, unusual = maker.check_unit((due.site, due.flow), item, due.members)
        for finding in unusual:
            log.warning("unit_unusual", extra={"site": due.site, "flow": due.flow, "finding": finding.refusal.text})
        if refusal is not None:
            return refusal
        rendered = [maker.render(due.operation, item)]
    else:
        rendered = await _rendered(maker, due)
    count = maker.fit(due.operation, rendered)
    if message_id is not None and count < len(rendered):
        return Poison(
            "it is too old, or of another profile, to be sent as it was signed, and larger than one call of this profile may be now"
        )
    if count == 0:
        return TOO_LARGE
    call = await signed(
        maker, due.operation, rendered[:count], submission=due.submission, stamps=due.stamps, message_id=message_id
    )
    return Prepared(call, count)


async def _rendered(maker: CallMaker, due: DueCall) -> list[RenderedItem]:
    rendered, turns = [], Turns()
    for item in due.items:
        if turns.over:
            await turns.give()
        rendered.append(maker.render(due.operation, orjson.loads(item.content)))
    return rendered


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
