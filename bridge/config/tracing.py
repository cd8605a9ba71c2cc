"""`tracing:` of `bridge.yaml`: where the spans of each submission are sent to, by OpenTelemetry's own protocol (OTLP over HTTP)."""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from bridge.api import Options
from bridge.config.references import ExistingFile
from bridge.secret import Secret

LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
NEEDS: Final = "needs the package opentelemetry-proto: pip install 'smp-bridge[tracing]', or from the source: pip install '.[tracing]'"
_OURS: Final = frozenset({"content-type", "content-length", "host", "transfer-encoding", "connection"})

HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}$")]


class TracingOptions(Options):
    """A collector that takes OTLP over HTTP. `endpoint` is its whole address, path included; `headers` go with each batch, such as a token.

    `sample_ratio` is the share of submissions that are traced. `ca` are the authorities that are believed (default: the system's).
    """

    endpoint: str
    headers: Mapping[HeaderName, Secret] = {}
    service_name: Annotated[str, Field(min_length=1, max_length=200)] = "smp-bridge"
    sample_ratio: Annotated[float, Field(ge=0, le=1)] = 1.0
    ca: ExistingFile | None = None

    @field_validator("endpoint")
    @classmethod
    def _guarded(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            _ = parts.port  # a bad port only shows when it is asked for
        except ValueError:
            parts = urlsplit("")
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username or parts.fragment:
            raise ValueError("must be an address such as https://collector.example:4318/v1/traces, without a user")
        if parts.path in {"", "/"}:
            raise ValueError("must be the whole address, path included; a collector's is usually /v1/traces")
        if parts.scheme == "http" and parts.hostname not in LOOPBACK:
            raise ValueError("must be https:// unless the collector runs on this machine")
        return url

    @field_validator("headers")
    @classmethod
    def _sendable(cls, headers: Mapping[str, Secret]) -> Mapping[str, Secret]:
        for name, value in headers.items():
            if name.lower() in _OURS:
                raise ValueError(f"{name} is set by the host itself; leave it out")
            if not value.at_hand:
                continue
            text = value.reveal()
            if not text or not text.isascii() or not text.isprintable():
                raise ValueError(f"the value of {name} cannot stand in a header: must be one line of ASCII")
        return headers


def installed() -> bool:
    """Whether the packages of the extra are there; imports none of them."""
    return find_spec("opentelemetry") is not None and find_spec("opentelemetry.proto") is not None
