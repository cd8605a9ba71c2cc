"""What a device has at the addresses that were stated: registers in hexadecimal with what they most plausibly mean. Uses the reading functions alone."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from adapters.modbus.config import Framing, ModbusOptions
from adapters.modbus.drafts import drafts
from adapters.modbus.entry import spans_of
from adapters.modbus.link import connected
from adapters.modbus.places import Span
from adapters.modbus.scan import MOST_REQUESTS, PAUSE_S, Scan, scan
from adapters.modbus.segments import Segment, segments
from bridge.api import Clock, LinkError, Search, Seen

COLUMNS: Final = ("UNIT", "TABLE", "ADDRESS", "HEX", "VALUE", "TYPE", "ORDER")
_BITS: Final = 16  # in one row
_MOST_NOTES: Final = 10


async def browse(options: Any, search: Search, clock: Clock) -> Seen:
    """See `bridge.api.Browser`. `ranges` are such as `holding:0-199`, counted from 0 as on the wire; without them nothing is read (`ValueError`).

    `units` are asked one after the other, the unit of the options where none is named. Raises `LinkError` where no unit showed anything.
    """
    assert isinstance(options, ModbusOptions)
    if search.start:
        raise ValueError("--start and --filter belong to OPC UA and MQTT; of Modbus say which addresses with --range")
    spans = spans_of(search.ranges, search.most)
    scans: list[Scan] = []
    for unit in dict.fromkeys(search.units or (options.unit,)):
        asked, left = options.model_copy(update={"unit": unit}), MOST_REQUESTS - sum(each.requests for each in scans)
        found = await _scan(asked, clock, spans, left)
        if found.lost is not None and not found.held and scans and _swallows(options, scans[-1]):
            found = await _scan(asked, clock, spans, left)
        scans.append(found)
    lost = next((each.lost for each in scans if each.lost is not None), None)
    if lost is not None and not any(each.held or each.holes for each in scans):
        raise lost
    values = {each.unit: segments(_registers(each)) for each in scans}
    shown = next((each.unit for each in scans if any(value.type for value in values[each.unit])), options.unit)
    flows, writable = drafts(values.get(shown, []), options.address_base)
    adds: dict[str, Any] = {"writable": writable} if writable else {}
    if shown != options.unit:
        adds["unit"] = shown
    return Seen(
        said=_said(options, scans),
        columns=COLUMNS,
        rows=[row for each in scans if any(one.held for one in scans) for row in _rows(each, values[each.unit])],
        flows=flows,
        adds=adds,
        notes=[*_notes(scans, shown)],
    )


async def _scan(options: ModbusOptions, clock: Clock, spans: Sequence[Span], left: int) -> Scan:
    """One unit over a connection of its own. One that is not there is told of; the next is asked all the same."""
    try:
        async with connected(options, clock) as link:
            return await scan(link, options, spans, left)
    except LinkError as error:
        return Scan(options.unit, lost=error)


def _swallows(options: ModbusOptions, before: Scan) -> bool:
    """Whether this request may not have been heard: a slave on libmodbus takes the next frame after a request to another unit for that one's answer."""
    return before.lost is not None and (options.serial is not None or options.framing is Framing.RTU)


def _registers(found: Scan) -> list[tuple[Span, bytes]]:
    return [(span, raw) for span, raw in found.held if not span.table.holds_bits]


# what is shown ------------------------------------------------------------------------------------------------


def _rows(found: Scan, values: Sequence[Segment]) -> list[tuple[object, ...]]:
    """In the order of the addresses, holes among them."""
    rows: list[tuple[Span, tuple[object, ...]]] = [
        (value.span, (value.hex, value.value, value.type, value.order)) for value in values
    ]
    for span, raw in found.held:
        if span.table.holds_bits:
            rows += [(part, ("", text, "bit", "")) for part, text in _bits(span, raw)]
    rows += [(hole.span, ("", "", f"not shown: {hole.why}", "")) for hole in found.holes]
    return [(found.unit, span.table.value, _place(span), *cells) for span, cells in sorted(rows, key=_order)]


def _order(row: tuple[Span, tuple[object, ...]]) -> tuple[str, int]:
    return row[0].table.value, row[0].start


def _bits(span: Span, raw: bytes) -> Iterator[tuple[Span, str]]:
    """Bits as 0 and 1, the first address first."""
    for at in range(0, span.size, _BITS):
        part = raw[2 * at + 1 : 2 * (at + _BITS) : 2]
        yield Span(span.start + at, len(part), span.table), " ".join(str(byte) for byte in part)


def _place(span: Span) -> str:
    return str(span.start) if span.size == 1 else f"{span.start}..{span.end - 1}"


def _notes(scans: Sequence[Scan], shown: int) -> Iterator[str]:
    yield "addresses count from 0, as on the wire; what the values mean is a guess, which `smp-bridge decode` lets you try on the hexadecimal"
    for each in scans:
        if each.lost is not None:
            yield f"{each.lost}{'; what came before is shown' if each.held else ''}"
        if each.cut is not None:
            yield f"unit {each.unit}: stopped before {each.cut} after {MOST_REQUESTS} requests; state what is left as a range of its own"
        holes = [f"{hole.span}: {hole.why}" for hole in each.holes]
        if holes:
            more = f" and {len(holes) - _MOST_NOTES} more" if len(holes) > _MOST_NOTES else ""
            yield f"unit {each.unit} does not show {', '.join(holes[:_MOST_NOTES])}{more}"
    if len(scans) > 1:
        yield f"a draft is of unit {shown} alone; another unit needs an adapter of its own, with `shared: true` where a gateway takes one connection"


def _said(options: ModbusOptions, scans: Sequence[Scan]) -> str:
    way = (
        "serial line"
        if options.serial
        else "TLS"
        if options.tls
        else "RTU over TCP"
        if options.framing is Framing.RTU
        else "Modbus TCP"
    )
    units = ("units " if len(scans) > 1 else "unit ") + ", ".join(str(each.unit) for each in scans)
    size = sum(span.size for each in scans for span, _ in each.held)
    asked = sum(each.requests for each in scans)
    return f"{options.where} {units}, {way}: {size} addresses in {asked} reading requests, {PAUSE_S * 1000:g} ms apart; nothing was written"
