"""From a URL and what a person gives at the command line to the options of the adapter. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from bridge.api import Credentials

SCHEMES: Final[Sequence[str]] = ("mqtt", "mqtts", "ws", "wss")
_PORTS: Final = {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443}  # registered for MQTT (IANA), and those of HTTP
_SECURED: Final = frozenset({"mqtts", "wss"})
_WEB: Final = frozenset({"ws", "wss"})
_SHAPE: Final = "mqtt://HOST:PORT, mqtts://HOST:PORT, ws://HOST:PORT/PATH or wss://HOST:PORT/PATH"


def options_of(url: str, credentials: Credentials) -> Mapping[str, Any]:
    """See `bridge.api.Browser.options`. `?version=5` after the URL asks for MQTT 5; 3.1.1 is the default. Raises `ValueError`."""
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    if parts.password is not None:
        raise ValueError("a password must not stand in the URL; give --user, and --password-file or --password-env")
    if credentials.policy or credentials.mode:
        raise ValueError("--policy and --mode belong to OPC UA; MQTT is protected by mqtts:// or wss://")
    options: dict[str, Any] = {"host": _host(parts), "port": _port(parts) or _PORTS[scheme]}
    options |= _query(parts.query)
    if scheme in _WEB:
        options["websocket"] = {"path": parts.path if parts.path not in {"", "/"} else "/mqtt"}
    elif parts.path not in {"", "/"}:
        raise ValueError(f"{parts.path} must not stand in the URL; topics are named with --filter")
    if scheme in _SECURED:
        options["tls"] = _tls(credentials)
    elif credentials.trusted or credentials.certificate is not None or credentials.private_key is not None:
        raise ValueError(f"{scheme}:// has no TLS, so nothing asks for certificates; write mqtts:// or wss://")
    user = credentials.user or unquote(parts.username or "")
    if credentials.password is not None and not user:
        raise ValueError("a password needs a --user")
    if user:
        options["user"] = user
    if credentials.password is not None:
        options["password"] = credentials.password
    return options


def _host(parts: SplitResult) -> str:
    if not parts.hostname:
        raise ValueError(f"the URL names no host; it must be {_SHAPE}")
    return parts.hostname


def _port(parts: SplitResult) -> int | None:
    try:
        return parts.port
    except ValueError:
        raise ValueError(f"the port of the URL must be a number from 1 to 65535; it must be {_SHAPE}") from None


def _query(text: str) -> dict[str, str]:
    given = dict(parse_qsl(text, keep_blank_values=True))
    strange = sorted(given.keys() - {"version"})
    if strange:
        raise ValueError(f"`{strange[0]}` is nothing that the URL may say; only ?version=5 or ?version=3.1.1")
    return given


def _tls(credentials: Credentials) -> dict[str, Any]:
    """Without --trust the authorities of this machine are trusted; a broker is never trusted unseen."""
    if len(credentials.trusted) > 1:
        raise ValueError("--trust is given once: the file that holds the authority of the broker's certificate")
    found = {
        "ca": credentials.trusted[0] if credentials.trusted else None,
        "certificate": credentials.certificate,
        "private_key": credentials.private_key,
    }
    return {name: path for name, path in found.items() if path is not None}
