"""`bridge.yaml`: the host itself and the participants it works for."""

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import SplitResult, urlsplit

from pydantic import Field, IPvAnyNetwork, field_validator, model_validator

from bridge.api import Options
from bridge.config.anchors import AnchorPlace
from bridge.config.references import ExistingFile, OwnFile, Untouched
from bridge.config.tracing import TracingOptions
from bridge.config.values import Duration, Size, check_name
from bridge.profile import Profile
from bridge.secret import Secret

Port = Annotated[int, Field(ge=0, le=65535)]
Text = Annotated[str, Field(min_length=1, max_length=200)]
DAY_S: Final = 86_400.0
LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_THUMBPRINT: Final = re.compile(r"[0-9a-f]{64}")
LARGEST_JOURNAL: Final = 2 * 10**9
SMALLEST_JOURNAL: Final = 10**7
SEVEN_YEARS_S: Final = 2557 * DAY_S
SHORTEST_RETENTION_S: Final = 30 * DAY_S
SHORTEST_LOOK_S: Final = 0.1
LONGEST_LOOK_S: Final = 600.0


class Environment(enum.Enum):
    """Which of SMP's environments a participant entry speaks to."""

    TEST = "TEST"
    LIVE = "LIVE"


class PostgresOptions(Options):
    """A database of PostgreSQL 15 or newer for the journal. `host` is a name, an address or the directory of a UNIX socket.

    Over the network the server's certificate is verified, by the authorities in `ca` or else the system's; `tls: disable` is for this machine only.
    """

    host: Text
    port: Port = 5432
    database: Text
    user: Text
    password: Secret | None = None
    tls: Literal["verify-full", "disable"] = "verify-full"
    ca: ExistingFile | None = None
    client_certificate: ExistingFile | None = None
    client_key: OwnFile | None = None

    @model_validator(mode="after")
    def _guarded(self) -> Self:
        if self.tls == "disable" and not (self.host.startswith("/") or self.host in LOOPBACK):
            raise ValueError(
                "`tls: disable` is for a server on this machine; over a network the journal travels encrypted"
            )
        if (self.client_certificate is None) != (self.client_key is None):
            raise ValueError("`client_certificate` and `client_key` belong together: give both or neither")
        return self


class JournalOptions(Options):
    """Where the journal lives, how large it may grow, and where old evidence goes. Directories are made when missing; the file is never reset.

    Either `path`, a file of this machine, or `postgres`, a database that several processes and machines share.
    `anchor` is a file outside the journal's directory (default `<directory>.anchor/<name>.json` beside that directory): it names the last block, so that
    a journal that was restored or rolled back is noticed. `anchors` are places off this host that are given it too, by name. `archive` is the directory of the segments (default `<path>.archive`). `max_size` caps the
    file (null = only the disk does); from 60 % of it on, settled evidence older than `archive_after` moves to the archive by itself. `seal_every` is how
    long events may wait for their block. Settled evidence older than `retention` (7 years; null = never) ends by itself.
    """

    path: Path | None = None
    postgres: PostgresOptions | None = None
    anchor: Path | None = None
    anchors: Mapping[str, AnchorPlace] = Field(default_factory=dict)
    archive: Path | None = None
    max_size: Size | None = LARGEST_JOURNAL
    archive_after: Duration = 30 * DAY_S
    seal_every: Duration = 5.0
    retention: Duration | None = SEVEN_YEARS_S

    @field_validator("max_size")
    @classmethod
    def _room(cls, size: int | None) -> int | None:
        if size is not None and size < SMALLEST_JOURNAL:
            raise ValueError(f"must be at least {SMALLEST_JOURNAL // 10**6}MB")
        return size

    @field_validator("retention")
    @classmethod
    def _kept(cls, retention: float | None) -> float | None:
        if retention is not None and retention < SHORTEST_RETENTION_S:
            raise ValueError(
                f"must be at least {SHORTEST_RETENTION_S / DAY_S:g}d (requests and returns are told apart for 7 days), or null for ever"
            )
        return retention

    @field_validator("anchors")
    @classmethod
    def _named(cls, places: Mapping[str, AnchorPlace]) -> Mapping[str, AnchorPlace]:
        targets: dict[str, str] = {}
        for name, place in places.items():
            wrong = check_name(name)
            if wrong:
                raise ValueError(f"{name}: {wrong}")
            first = targets.setdefault(place.target, name)
            if first != name:
                raise ValueError(f"{name} is the same place as {first}; leave one out")
        return places

    @model_validator(mode="after")
    def _elsewhere(self) -> Self:
        for name, place in self.anchors.items():
            if place.file is None or (self.path is None and self.anchor is None):
                continue
            if place.file.path == self.anchor_file:
                raise ValueError(f"`anchors`: {name} is the file of `anchor` itself; name one that lies elsewhere")
            if self.path is not None and self.path.parent in place.file.path.parents:
                raise ValueError(f"`anchors`: {name} lies in the journal's own directory; name a file elsewhere")
        return self

    @model_validator(mode="after")
    def _apart(self) -> Self:
        if self.path is None and self.postgres is None:
            raise ValueError("`path` is missing; add it (a file of this machine), or `postgres` (a database)")
        if self.path is not None and self.postgres is not None:
            raise ValueError("`path` (a file of this machine) and `postgres` (a database) exclude each other; give one")
        if self.path is None and (self.anchor is None or self.archive is None):
            raise ValueError("with `postgres`, `anchor` (a file) and `archive` (a directory) have to be named too")
        if self.path is not None and self.path.parent in self.anchor_file.parents:
            raise ValueError(
                f"`anchor` must lie outside the journal's own directory ({self.path.parent}), or it would be restored together with the journal"
            )
        return self

    @property
    def anchor_file(self) -> Path:
        """The anchor's file."""
        if self.anchor is not None:
            return self.anchor
        assert self.path is not None
        directory = self.path.parent
        return directory.parent / f"{directory.name}.anchor" / f"{self.path.name}.json"

    @property
    def archive_directory(self) -> Path:
        """The directory of the segments."""
        return self.archive or Path(f"{self.path}.archive")


class ReturnsListener(Options):
    """The public TLS listener to which SMP pushes returns. `client_ca` also asks the caller for a certificate of that authority.

    Such a certificate has to have one of `client_names` (common name or DNS name), where there are some. `allow` names the only networks that are heard.
    """

    host: Text = "0.0.0.0"  # noqa: S104 - the public listener
    port: Port = 8443
    certificate: ExistingFile
    private_key: OwnFile
    client_ca: ExistingFile | None = None
    client_names: list[Text] = Field(default_factory=list)
    allow: list[IPvAnyNetwork] = Field(default_factory=list)
    connections: Annotated[int, Field(ge=1, le=50_000)] = 512
    connections_per_source: Annotated[int, Field(ge=1, le=50_000)] = 128

    @model_validator(mode="after")
    def _asked_for(self) -> Self:
        if self.client_names and self.client_ca is None:
            raise ValueError("`client_names` needs `client_ca`: without it nobody is asked for a certificate")
        return self


class AdminListener(Options):
    """Metrics, health, the pages and the API for operators; loopback unless told otherwise.

    Everything asks for a token (`smp-bridge token new`). `without_token: reading` lets anybody on this machine read, and change nothing; on a loopback
    address alone. Anywhere else the listener speaks TLS, with `certificate` and `private_key`.
    """

    host: Text = "127.0.0.1"
    port: Port = 9464
    without_token: Literal["nothing", "reading"] = "nothing"  # noqa: S105 - a word
    certificate: ExistingFile | None = None
    private_key: OwnFile | None = None

    @model_validator(mode="after")
    def _guarded(self) -> Self:
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("`certificate` and `private_key` belong together: give both or neither")
        if self.host not in LOOPBACK:
            if self.without_token != "nothing":  # noqa: S105 - a word of the configuration
                raise ValueError(
                    f"`without_token: {self.without_token}` is for a loopback address such as 127.0.0.1; on {self.host} everybody needs a token"
                )
            if self.certificate is None:
                raise ValueError(
                    f"tokens would travel over {self.host} for everybody to read: give `certificate` and `private_key`, or use a loopback address"
                )
        return self


class Listeners(Options):
    """The two listeners; `returns` may be left out where every profile polls."""

    returns: ReturnsListener | None = None
    admin: AdminListener = Field(default_factory=AdminListener)


class HsmOptions(Options):
    """A signing key in a hardware module: `module` is the PKCS#11 library, `token` the token's label, `key` the key's."""

    module: ExistingFile
    token: Text
    key: Text
    pin: Secret


class SmpCertificate(Options):
    """Which certificate SMP's messages have to carry, where the profile has them carry one (`dip-headers`).

    Issued by one of the authorities in `ca` (PEM), and one of those that were agreed: by its subject (RFC 4514, such as `CN=smp.example,O=Example,C=GB`)
    or by its SHA-256 thumbprint in hexadecimal. While SMP changes its certificate, both are named.
    """

    ca: ExistingFile
    subjects: list[Text] = Field(default_factory=list)
    thumbprints: list[Text] = Field(default_factory=list)

    @field_validator("subjects")
    @classmethod
    def _names(cls, subjects: list[str]) -> list[str]:
        from cryptography.x509 import Name  # noqa: PLC0415 - a large package, for who names subjects

        for subject in subjects:
            try:
                found = Name.from_rfc4514_string(subject)
            except (ValueError, KeyError):
                found = None
            if not found:
                raise ValueError(
                    f"{subject!r} is no subject; write it by RFC 4514, such as CN=smp.example,O=Example,C=GB"
                )
        return subjects

    @field_validator("thumbprints")
    @classmethod
    def _hexadecimal(cls, thumbprints: list[str]) -> list[str]:
        plain = [thumbprint.replace(":", "").lower() for thumbprint in thumbprints]
        for given, thumbprint in zip(thumbprints, plain, strict=True):
            if _THUMBPRINT.fullmatch(thumbprint) is None:
                raise ValueError(
                    f"{given!r} is no SHA-256 thumbprint; it has 64 hexadecimal digits, as `openssl x509 -fingerprint -sha256` prints them"
                )
        return plain

    @model_validator(mode="after")
    def _one(self) -> Self:
        if not self.subjects and not self.thumbprints:
            raise ValueError("says of no certificate that it is SMP's; add the agreed `subjects` or `thumbprints`")
        return self


class ParticipantOptions(Options):
    """One participant in one environment: whose account, keys and evidence these are. What SMP's interface looks like stands in the profile.

    With `four_eyes`, what a person decides of a submission or of keys takes the word of a second one, and so does a profile that was changed: the admin API waits for it, a command names it.
    """

    sender: Text
    recipient: Text = "SMP"
    environment: Environment
    profile: Text = "default"
    base_url: str
    username: Text
    password: Secret
    signing_key: OwnFile | None = None
    hsm: HsmOptions | None = None
    signing_kid: Text | None = None
    signing_algorithm: Literal["PS256", "RS256", "ES256", "EdDSA"] | None = None
    signing_password: Secret | None = None
    signing_certificate: ExistingFile | None = None
    smp_jwks: ExistingFile | None = None
    smp_certificate: SmpCertificate | None = None
    return_url: str | None = None
    ca: ExistingFile | None = None
    client_certificate: ExistingFile | None = None
    client_key: OwnFile | None = None
    proxy: str | None = None
    four_eyes: bool = False

    @field_validator("base_url", "return_url")
    @classmethod
    def _https(cls, url: str | None) -> str | None:
        if url is None:
            return None
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
    def _one_key(self) -> Self:
        if self.signing_key is not None and self.hsm is not None:
            raise ValueError(
                "`signing_key` (the file of a private key) and `hsm` (a key in a hardware module) exclude each other; give one"
            )
        return self

    @model_validator(mode="after")
    def _pair(self) -> Self:
        if (self.client_certificate is None) != (self.client_key is None):
            raise ValueError("`client_certificate` and `client_key` belong together: give both or neither")
        return self


class ClockOptions(Options):
    """What is asked how wrong this machine's clock is, and what follows.

    `kernel` asks `adjtimex(2)`, `chrony` the program `chronyc`, `none` nobody. Above `alarm_at` the offset is an alarm, above `hold_at` nothing is signed.
    """

    source: Literal["kernel", "chrony", "none"] = "kernel"
    alarm_at: Duration = 0.1
    hold_at: Duration = 2.0
    every: Duration = 10.0
    chronyc: Text = "chronyc"

    @field_validator("every")
    @classmethod
    def _calm(cls, every: float) -> float:
        if not SHORTEST_LOOK_S <= every <= LONGEST_LOOK_S:
            raise ValueError("must be between 100ms and 10min")
        return every

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if not 0 < self.alarm_at <= self.hold_at:
            raise ValueError(
                "`alarm_at` must be above 0 and not above `hold_at`: a person hears of it before anything waits"
            )
        return self


class ProfileOptions(Options):
    """The word that names a participant's profile, read apart so that a bad profile is reported beside everything else."""

    profile: Text = "default"


class HostOptions(Options):
    """The top of `bridge.yaml`; each participant is read by itself as `ParticipantOptions`.

    `host_key` is the host's own private key (EC P-256 or Ed25519, PEM), apart from the participants': it signs the journal's evidence.
    `host_key_password` is its passphrase, where it is encrypted.
    """

    journal: JournalOptions
    host_key: OwnFile | None = None
    host_key_password: Secret | None = None
    listeners: Listeners = Field(default_factory=Listeners)
    clock: ClockOptions = Field(default_factory=ClockOptions)
    tracing: TracingOptions | None = None
    participants: Annotated[Any, Untouched]

    @model_validator(mode="after")
    def _key_of_password(self) -> Self:
        if self.host_key_password is not None and self.host_key is None:
            raise ValueError("`host_key_password` needs `host_key`: the file that it opens")
        return self


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
