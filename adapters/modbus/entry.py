"""From a URL and what a person gives at the command line to the options of the adapter, and to what is to be scanned. Pure."""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from adapters.modbus.places import LAST_REGISTER, Span, Table
from bridge.api import Credentials

TCP: Final = "modbus"
TLS: Final = "modbus+tls"
RTU: Final = "modbus+rtu"
SERIAL: Final = "modbus+serial"
SCHEMES: Final[Sequence[str]] = (TCP, TLS, RTU, SERIAL)
_LINE: Final = ("baudrate", "parity", "stop_bits", "data_bits")
_RANGE: Final = re.compile(r"([a-z]+)\s*:\s*(\d+)(?:\s*(?:-|\.\.)\s*(\d+))?")
_EXAMPLES: Final = "--range holding:0-199 --range input:0-49"
_SHAPE: Final = (
    "modbus://HOST:PORT, modbus+tls://HOST:PORT, modbus+rtu://HOST:PORT (RTU frames) or modbus+serial:///dev/ttyUSB0"
)


def options_of(url: str, credentials: Credentials) -> Mapping[str, Any]:
    """See `bridge.api.Browser.options`. A serial line's settings follow its device: `?baudrate=9600&parity=N`. Raises `ValueError`."""
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    if credentials.user or credentials.password is not None or parts.username is not None:
        raise ValueError("Modbus has no users and passwords; leave them out")
    if credentials.policy or credentials.mode:
        raise ValueError("--policy and --mode belong to OPC UA")
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    known = _LINE if scheme == SERIAL else ()
    strange = sorted(given.keys() - set(known))
    if strange:
        allowed = f"only {', '.join(known)} may follow" if known else "nothing may follow; --unit names the unit"
        raise ValueError(f"`{strange[0]}` is nothing that the URL may say; {allowed}")
    if scheme != TLS and (credentials.trusted or credentials.certificate or credentials.private_key):
        raise ValueError(f"{scheme}:// has no TLS, so nothing asks for certificates; write {TLS}://")
    if scheme == SERIAL:
        return {"serial": _serial(parts.netloc, parts.path, given)}
    if parts.path not in {"", "/"}:
        raise ValueError(f"{parts.path} must not stand in the URL; addresses are named with --range")
    options: dict[str, Any] = {"host": parts.hostname or ""}
    try:
        options |= {"port": parts.port} if parts.port is not None else {}
    except ValueError:
        raise ValueError(f"the port must be a number from 1 to 65535; the URL must be {_SHAPE}") from None
    if not options["host"]:
        raise ValueError(f"the URL names no host; it must be {_SHAPE}")
    if scheme == RTU:
        options["framing"] = "rtu"
    if scheme == TLS:
        options["tls"] = _tls(credentials)
    return options


def _serial(netloc: str, path: str, given: Mapping[str, str]) -> dict[str, Any]:
    if netloc or path in {"", "/"}:
        raise ValueError("a serial line is named by its device, after three slashes: modbus+serial:///dev/ttyUSB0")
    return {"device": path, **{name: int(text) if text.isdecimal() else text for name, text in given.items()}}


def _tls(credentials: Credentials) -> dict[str, Any]:
    """Without --trust the authorities of this machine are trusted; a device is never trusted unseen."""
    if len(credentials.trusted) > 1:
        raise ValueError("--trust is given once: the file that holds the authority of the device's certificate")
    found = {
        "ca": credentials.trusted[0] if credentials.trusted else None,
        "certificate": credentials.certificate,
        "private_key": credentials.private_key,
    }
    return {name: path for name, path in found.items() if path is not None}


def spans_of(ranges: Sequence[str], most: int) -> list[Span]:
    """What is to be scanned, each address once, table by table. Raises `ValueError`, above all where nothing was stated."""
    if not ranges:
        raise ValueError(
            f"nothing of a Modbus device is scanned unasked: say which addresses, such as {_EXAMPLES}, and of whom with --unit. "
            "The manual of the device says what there is; addresses count from 0, as on the wire, so the manual's 40001 is holding:0"
        )
    found = sorted(map(_span, ranges), key=lambda span: (list(Table).index(span.table), span.start))
    spans = [span for _, group in groupby(found, lambda span: span.table) for span in _joined(group)]
    size = sum(span.size for span in spans)
    if size > most:
        raise ValueError(f"the ranges hold {size} addresses, --most allows {most}; narrow the one or raise the other")
    return spans


def _span(text: str) -> Span:
    match = _RANGE.fullmatch(text.strip().lower())
    names = [table.value for table in Table]
    if match is None or match[1] not in names:
        raise ValueError(f"--range {text} must be TABLE:FIRST-LAST, such as holding:0-199; TABLE is {', '.join(names)}")
    first, last = int(match[2]), int(match[3] or match[2])
    if last > LAST_REGISTER:
        hint = "; a reference number such as 40001 is the holding register 0" if last <= 465_536 else ""
        raise ValueError(f"--range {text} goes beyond {LAST_REGISTER}, the last address of a table{hint}")
    if last < first:
        raise ValueError(f"--range {text} ends before it begins")
    return Span(first, last - first + 1, Table(match[1]))


def _joined(spans: Iterator[Span]) -> Iterator[Span]:
    """Without overlaps; sorted in, sorted out."""
    held = next(spans)
    for span in spans:
        if span.start <= held.end:
            held = Span(held.start, max(held.end, span.end) - held.start, held.table)
        else:
            yield held
            held = span
    yield held
