"""Date-times packed into registers, which say nothing of their zone. Pure: big-endian bytes in, aware UTC date-times out.

`datetime48` is the three-register form of power meters: month and day, year since 1900 and hour, minute and second, a byte each.
`datetime64` is the four-register form of IEC 60870-5-4 (TI 081): year since 2000; month, weekday and day; summer-time bit and hour, invalid bit and
minute; milliseconds of the minute.
"""

import struct
from datetime import UTC, datetime
from functools import cache
from typing import Final
from zoneinfo import ZoneInfo

_YEARS_48: Final = range(1900, 1900 + 256)
_YEARS_64: Final = range(2000, 2000 + 128)
_SUMMER: Final = 0x8000
_INVALID: Final = 0x80


class Unfit(Exception):
    """No date-time is this, or this date-time has no such form; the text says why."""


@cache
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def from_48(data: bytes, zone: str) -> datetime:
    """Three registers. In the hour that an autumn repeats the first one is meant. Raises `Unfit`."""
    month, day, year, hour, minute, second = data
    return _utc(1900 + year, month, day, hour, minute, second * 1000, zone=zone, fold=0)


def to_48(moment: datetime, zone: str) -> bytes:
    """The same moment, cut to whole seconds. Raises `Unfit` for years before 1900 and after 2155."""
    there = moment.astimezone(_zone(zone))
    if there.year not in _YEARS_48:
        raise Unfit(f"the year {there.year} does not fit; it must be 1900 to 2155")
    return bytes((there.month, there.day, there.year - 1900, there.hour, there.minute, there.second))


def from_64(data: bytes, zone: str) -> datetime:
    """Four registers; the summer-time bit tells the two hours of an autumn apart. Raises `Unfit`, also for what the device itself calls invalid."""
    year, date, time, ms = struct.unpack(">4H", data)
    if time & _INVALID:
        raise Unfit("the device marks its date-time as invalid")
    return _utc(
        2000 + (year & 0x7F),
        date >> 8 & 0x0F,
        date & 0x1F,
        time >> 8 & 0x1F,
        time & 0x3F,
        ms,
        zone=zone,
        fold=0 if time & _SUMMER else 1,
    )


def to_64(moment: datetime, zone: str) -> bytes:
    """The same moment, cut to whole milliseconds. Raises `Unfit` for years before 2000 and after 2127."""
    there = moment.astimezone(_zone(zone))
    if there.year not in _YEARS_64:
        raise Unfit(f"the year {there.year} does not fit; it must be 2000 to 2127")
    summer = _SUMMER if there.dst() else 0
    return struct.pack(
        ">4H",
        there.year - 2000,
        there.month << 8 | there.isoweekday() << 5 | there.day,
        summer | there.hour << 8 | there.minute,
        there.second * 1000 + there.microsecond // 1000,
    )


def _utc(year: int, month: int, day: int, hour: int, minute: int, ms: int, *, zone: str, fold: int) -> datetime:
    try:
        there = datetime(year, month, day, hour, minute, ms // 1000, ms % 1000 * 1000, tzinfo=_zone(zone), fold=fold)
        return there.astimezone(UTC)
    except (ValueError, OverflowError):
        raise Unfit(f"{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{ms / 1000:06.3f} is no date-time") from None
