"""Which of the stated addresses a device shows, and what they hold: blocks, halved where the device refuses. Reads, with a pause between, and no more than so many times."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from adapters.modbus.config import ModbusOptions
from adapters.modbus.link import Link, Refused
from adapters.modbus.places import Span
from bridge.api import LinkError

MOST_REQUESTS: Final = 2000
PAUSE_S: Final = 0.02  # between two requests, so that a device goes on with its own work
_NO_FUNCTION: Final = 1
_HALVED: Final = frozenset({2, 3, 4})  # illegal address and quantity; some devices say "failure" of a hole


class Hole(NamedTuple):
    """Addresses that the device does not show, and its reason."""

    span: Span
    why: str


@dataclass(slots=True)
class Scan:
    """What a scan found. `cut` is where it stopped because of its own bound, `lost` why the connection ended before."""

    unit: int
    held: list[tuple[Span, bytes]] = field(default_factory=list)
    holes: list[Hole] = field(default_factory=list)
    requests: int = 0
    cut: Span | None = None
    lost: LinkError | None = None


async def scan(link: Link, options: ModbusOptions, spans: Sequence[Span], left: int) -> Scan:
    """Read these, in at most `left` requests. A device that falls silent ends it; what was found so far is kept."""
    found = Scan(options.unit)
    pause_s = max(0.0, PAUSE_S - options.pause_between_requests)
    waiting = [block for span in reversed(spans) for block in reversed(_blocks(span, options))]
    while waiting:
        block = waiting.pop()
        if found.requests >= left:
            found.cut = block
            break
        if found.requests:
            await asyncio.sleep(pause_s)
        found.requests += 1
        try:
            found.held.append((block, await link.read(block)))
        except Refused as error:
            waiting += _refused(found, block, error, waiting)
        except LinkError as error:
            found.lost = error
            break
    found.held = _joined(found.held)
    found.holes = _merged(found.holes)
    return found


def _refused(found: Scan, block: Span, error: Refused, waiting: list[Span]) -> list[Span]:
    """What to ask next, the first last: both halves, or nothing where the reason holds for the whole."""
    if error.code in _HALVED and block.size > 1:
        half = block.size // 2
        return [
            Span(block.start + half, block.size - half, block.table),
            Span(block.start, half, block.table),
        ]
    found.holes.append(Hole(block, error.reason))
    if error.code == _NO_FUNCTION:  # the device has no such table
        found.holes += [Hole(other, error.reason) for other in reversed(waiting) if other.table is block.table]
        waiting[:] = [other for other in waiting if other.table is not block.table]
    return []


def _blocks(span: Span, options: ModbusOptions) -> list[Span]:
    most = options.max_bits_per_read if span.table.holds_bits else options.max_registers_per_read
    return [Span(at, min(most, span.end - at), span.table) for at in range(span.start, span.end, most)]


def _joined(held: Sequence[tuple[Span, bytes]]) -> list[tuple[Span, bytes]]:
    """Neighbours as one."""
    found: list[tuple[Span, bytes]] = []
    for span, raw in held:
        if found and found[-1][0].table is span.table and found[-1][0].end == span.start:
            before, bytes_before = found[-1]
            found[-1] = Span(before.start, before.size + span.size, span.table), bytes_before + raw
        else:
            found.append((span, raw))
    return found


def _merged(holes: Sequence[Hole]) -> list[Hole]:
    found: list[Hole] = []
    for hole in holes:
        last = found[-1] if found else None
        if last is not None and (last.span.table, last.span.end, last.why) == (
            hole.span.table,
            hole.span.start,
            hole.why,
        ):
            found[-1] = Hole(Span(last.span.start, last.span.size + hole.span.size, hole.span.table), hole.why)
        else:
            found.append(hole)
    return found
