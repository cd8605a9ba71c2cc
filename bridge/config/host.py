"""`bridge.yaml`: the host itself and the participants it works for."""

import enum
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import SplitResult, urlsplit

from pydantic import Field, FilePath, field_validator, model_validator

from bridge.api import Options
from bridge.config.references import Untouched
from bridge.profile import Profile
from bridge.secret import Secret

Port = Annotated[int, Field(ge=0, le=65535)]
Text = Annotated[str, Field(min_length=1, max_length=200)]


class Environment(enum.Enum):
    """Which of SMP's environments a participant entry speaks to."""

    TEST = "TEST"
    LIVE = "LIVE"


class JournalOptions(Options):
    """Where the journal lives. The directory is made when it is missing; the file is never reset."""

    path: Path


class ReturnsListener(Options):
    """The public TLS listener to which SMP pushes returns. `client_ca` also asks the caller for a certificate of that authority."""

    host: Text = "0.0.0.0"  # noqa: S104 - the public listener
    port: Port = 8443
    certificate: FilePath
    private_key: FilePath
    client_ca: FilePath | None = None


class AdminListener(Options):
    """Metrics, health and the API for operators; loopback unless told otherwise."""

    host: Text = "127.0.0.1"
    port: Port = 9464


class Listeners(Options):
    """The two listeners; `returns` may be left out where every profile polls."""

    returns: ReturnsListener | None = None
    admin: AdminListener = Field(default_factory=AdminListener)


class ParticipantOptions(Options):
    """One participant in one environment: whose account, keys and evidence these are. What SMP's interface looks like stands in the profile."""

    sender: Text
    recipient: Text = "SMP"
    environment: Environment
    profile: Text = "default"
    base_url: str
    username: Text
    password: Secret
    signing_key: FilePath
    signing_kid: Text | None = None
    signing_algorithm: Literal["PS256", "RS256", "ES256", "EdDSA"] | None = None
    signing_password: Secret | None = None
    smp_jwks: FilePath
    ca: FilePath | None = None
    client_certificate: FilePath | None = None
    client_key: FilePath | None = None
    proxy: str | None = None

    @field_validator("base_url")
    @classmethod
    def _https(cls, url: str) -> str:
        parts = _split(url)
        if parts.scheme != "https" or not parts.hostname or parts.username or parts.query or parts.fragment:
            raise ValueError("must be an https:// address with a host, and without user, query or fragment")
        return url.rstrip("/")

    @field_validator("proxy")
    @classmethod
    def _proxy(cls, url: str | None) -> str | None:
        if url is None:
            return None
        parts = _split(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username:
            raise ValueError("must be an http:// or https:// address with a host, and without a user")
        return url

    @model_validator(mode="after")
    def _pair(self) -> Self:
        if (self.client_certificate is None) != (self.client_key is None):
            raise ValueError("`client_certificate` and `client_key` belong together: give both or neither")
        return self


class ProfileOptions(Options):
    """The word that names a participant's profile, read apart so that a bad profile is reported beside everything else."""

    profile: Text = "default"


class HostOptions(Options):
    """The top of `bridge.yaml`; each participant is read by itself as `ParticipantOptions`."""

    journal: JournalOptions
    listeners: Listeners = Field(default_factory=Listeners)
    participants: Annotated[Any, Untouched]


@dataclass(frozen=True, slots=True, kw_only=True)
class Participant:
    """One participant entry with its profile."""

    name: str
    options: ParticipantOptions
    profile: Profile


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port  # a bad port only shows when it is asked for
    except ValueError:
        raise ValueError("is not an address such as https://smp.example") from None
    return parts
