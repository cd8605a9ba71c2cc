"""Identifiers of the GB market: each rule takes a text and returns None, or in a few words why it is not one. Standard library only, no I/O.

A site may set each to error, warn or off (DOMAIN 2).
"""

import enum
import re
import unicodedata
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from operator import mul
from typing import Final, TypeAlias
from zoneinfo import ZoneInfo

Rule: TypeAlias = Callable[[str], str | None]


class Severity(enum.Enum):
    """What a broken rule does: refuse the item, tell a person, or nothing."""

    ERROR = "error"
    WARN = "warn"
    OFF = "off"


_MPAN_WEIGHTS: Final = (3, 5, 7, 13, 17, 19, 23, 29, 31, 37, 41, 43)
_MPAN_ZEROS: Final = ord("0") * sum(_MPAN_WEIGHTS)
_GROUP_OF_DISTRIBUTOR: Final[Mapping[str, str]] = {
    "10": "_A",
    "11": "_B",
    "12": "_C",
    "13": "_D",
    "14": "_E",
    "15": "_F",
    "16": "_G",
    "17": "_P",
    "18": "_N",
    "19": "_J",
    "20": "_H",
    "21": "_K",
    "22": "_L",
    "23": "_M",
}
_GSP_GROUP: Final = re.compile(r"_[A-HJ-NP]")
_GSP: Final = re.compile(r"[A-Z0-9]{4}([_-]?[A-Z0-9]{1,2})?")
_BM_UNIT: Final = re.compile(r"[TEIM]_[A-Z0-9-]{1,9}|[2CV]__[A-HJ-NP][A-Z0-9]{4}[0-9]{3}")
_UNIT_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{1,29}")
_EIC: Final = re.compile(r"[0-9A-Z-]{2}[XYZWTVA][0-9A-Z-]{12}[0-9A-Z]")
_EIC_LETTERS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ-"
_POSTCODE: Final = re.compile(
    r"([A-PR-UWYZ][0-9][0-9A-HJKSTUW]?|[A-PR-UWYZ][A-HK-Y][0-9][0-9ABEHMNPRVWXY]?) [0-9][ABD-HJLNP-UW-Z]{2}"
)
_COMPANY: Final = re.compile(r"[0-9]{8}|[A-Z]{2}[0-9]{6}")
_LEI: Final = re.compile(r"[0-9A-Z]{18}[0-9]{2}")
_LONDON: Final = "Europe/London"
_HALF_HOUR: Final = timedelta(minutes=30)


def mpan(text: str) -> str | None:
    """A 13-digit MPAN core whose last digit is right; spaces do not count."""
    core = text.replace(" ", "")
    if len(core) != 13 or not core.isascii() or not core.isdigit():
        return "must be 13 digits"
    digits = core.encode()  # each is its digit and 48
    total = sum(map(mul, digits, _MPAN_WEIGHTS)) - _MPAN_ZEROS
    return None if total % 11 % 10 == digits[12] - 48 else "its check digit is wrong"


def group_of_mpan(text: str) -> str | None:
    """The GSP group of an MPAN's distributor; None for independent networks (24 and up), which tell nothing."""
    return _GROUP_OF_DISTRIBUTOR.get(text.replace(" ", "")[:2])


def gsp_group(text: str) -> str | None:
    """One of the 14 GSP groups."""
    return None if _GSP_GROUP.fullmatch(text) else "must be one of _A to _P without _I and _O"


def gsp(text: str) -> str | None:
    """A grid supply point such as COWL or COWL_1."""
    return None if _GSP.fullmatch(text) else "must look like COWL or COWL_1"


def bm_unit(text: str) -> str | None:
    """A BM unit id."""
    if len(text) <= 11 and _BM_UNIT.fullmatch(text):
        return None
    return "must look like T_HUMR-1 or V__JZENO001 and have at most 11 characters"


def unit_id(text: str) -> str | None:
    """The id of an auction, non-BM or demand flexibility unit."""
    if _UNIT_ID.fullmatch(text):
        return None
    return "must have 2 to 30 letters, digits, _ or -, and begin with a letter or digit"


def eic(text: str) -> str | None:
    """An energy identification code with its check character."""
    if not _EIC.fullmatch(text):
        return "must be 16 of 0-9 A-Z -, with X Y Z W T V or A as the third"
    values = [_EIC_LETTERS.index(letter) for letter in text[:15]]
    total = sum(value * weight for value, weight in zip(values, range(16, 1, -1), strict=True))
    check = 36 - (total - 1) % 37
    if check == 36:
        return "its first 15 characters would need - as check character, which is not allowed"
    return None if _EIC_LETTERS[check] == text[15] else "its check character is wrong"


def postcode(text: str) -> str | None:
    """A postcode, in any case and spacing."""
    return None if _POSTCODE.fullmatch(canonical("postcode", text)) else "must look like IP1 2AB"


def company_number(text: str) -> str | None:
    """A number of the companies register."""
    return None if _COMPANY.fullmatch(text) else "must be 8 digits, or 2 letters and 6 digits"


def lei(text: str) -> str | None:
    """A legal entity identifier (ISO 17442, check by ISO 7064 mod 97-10)."""
    if not _LEI.fullmatch(text):
        return "must be 18 letters or digits and 2 digits"
    return None if int("".join(str(int(letter, 36)) for letter in text)) % 97 == 1 else "its check digits are wrong"


def text(text: str) -> str | None:
    """Text that every system behind us can take: no control characters, formula starts or links; Unicode NFC."""
    if text.isascii() and text.isprintable() and text[:1] not in _FORMULA and "://" not in text:
        return None
    if text[:1] in _FORMULA and text:
        return "must not begin with = + - or @"
    if any(unicodedata.category(letter) in _FORBIDDEN for letter in text):
        return "must not hold control characters or line breaks"
    lower = text.lower()
    if "http://" in lower or "https://" in lower:
        return "must not hold a link"
    return None if unicodedata.is_normalized("NFC", text) else "must be in Unicode form NFC"


_FORMULA: Final = ("=", "+", "-", "@")
_FORBIDDEN: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def phone(text: str) -> str | None:
    """A telephone number: digits with the usual marks; a leading + is right here, though not in other text."""
    return (
        None
        if re.fullmatch(r"\+?[0-9][0-9 ()/.-]{4,29}", text)
        else "must be a telephone number such as +44 20 7946 0000"
    )


def email(text: str) -> str | None:
    """An e-mail address, by its shape alone."""
    if len(text) <= 254 and re.fullmatch(r"[A-Za-z0-9][^\s@\x00-\x1f<>\"]*@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+", text):
        return None
    return "must be an e-mail address"


def canonical(rule: str, text: str) -> str:
    """The one spelling of an identifier whose rule allows several: an MPAN without spaces, a postcode in capitals with one space."""
    if rule == "mpan":
        return text.replace(" ", "")
    if rule == "postcode":
        joined = "".join(text.split()).upper()
        return f"{joined[:-3]} {joined[-3:]}"
    return text


def settlement_periods(day: date) -> int:
    """How many half-hours a local day has: 48, 46 when the clocks go forward, 50 when they go back."""
    return (_midnight(day + timedelta(days=1)) - _midnight(day)) // _HALF_HOUR


def settlement_period(moment: datetime) -> tuple[date, int]:
    """The local day and the number of the half-hour that an aware moment falls into; period 1 begins at 00:00 local."""
    if moment.tzinfo is None:
        raise ValueError("a settlement period needs a time with a zone")
    day = moment.astimezone(ZoneInfo(_LONDON)).date()
    return day, (moment.astimezone(UTC) - _midnight(day)) // _HALF_HOUR + 1


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(_LONDON)).astimezone(UTC)


# By the name that a vocabulary or a site uses.
RULES: Final[Mapping[str, Rule]] = {
    "mpan": mpan,
    "gsp_group": gsp_group,
    "gsp": gsp,
    "bm_unit": bm_unit,
    "unit_id": unit_id,
    "eic": eic,
    "postcode": postcode,
    "company_number": company_number,
    "lei": lei,
    "text": text,
    "phone": phone,
    "email": email,
}
