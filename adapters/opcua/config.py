"""Options of the OPC UA adapter and what can be checked without a server. Pure."""

import enum
import re
from collections.abc import Mapping, Sequence
from math import ceil
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, DirectoryPath, Field, FilePath, model_validator

from adapters.opcua.addresses import pattern
from adapters.opcua.paths import NAME, absolute
from bridge.api import (
    CertificateRole,
    CertificateUse,
    OnExpired,
    Options,
    Outcome,
    OutcomeField,
    PrivateFile,
    RecordsOptions,
    Secret,
    ValueKind,
)

SAMPLING_S: Final = 0.05
POLL_S: Final = 0.25
VALUES_PER_S: Final = 20_000
_UNITS_S: Final = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|min|h)")


def _duration_s(value: object) -> object:
    if isinstance(value, str):
        match = _DURATION.fullmatch(value.strip())
        if match:
            return float(match[1]) * _UNITS_S[match[2]]
    raise ValueError("must be a duration with its unit, such as 10ms, 250 ms or 2s")


def _url(text: str) -> str:
    if not re.fullmatch(r"opc\.tcp://[^@/\s]+(/\S*)?", text):
        raise ValueError("must be opc.tcp://HOST:PORT, perhaps with a path, and without a user")
    return text


def _absolute(text: str) -> str:
    absolute(text)
    return text


def _pattern(text: str) -> str:
    pattern(text)
    return text


Duration = Annotated[float, BeforeValidator(_duration_s), Field(gt=0)]
AbsolutePath = Annotated[str, AfterValidator(_absolute)]
Pattern = Annotated[str, AfterValidator(_pattern)]
RelativePath = Annotated[str, Field(min_length=1)]


class Policy(enum.Enum):
    """Security policies that are still considered safe, and the absence of any, which must be written out."""

    BASIC256SHA256 = "Basic256Sha256"
    AES128 = "Aes128Sha256RsaOaep"
    AES256 = "Aes256Sha256RsaPss"
    NONE = "None"


class Mode(enum.Enum):
    """Whether messages are only signed or encrypted too."""

    SIGN = "Sign"
    SIGN_AND_ENCRYPT = "SignAndEncrypt"


class Watch(enum.Enum):
    """How changes are noticed: told by the server, or asked for."""

    SUBSCRIPTION = "subscription"
    POLLING = "polling"


class Security(Options):
    """How the link is protected. Under `policy: None` nothing is, and nothing else may be given, so that no password travels in the clear.

    `on_expired_certificate`: what follows when the server's certificate ends.
    """

    policy: Policy
    mode: Mode = Mode.SIGN_AND_ENCRYPT
    certificate: FilePath | None = None
    private_key: PrivateFile | None = None
    server_certificates: tuple[FilePath, ...] = ()
    trust: DirectoryPath | None = None
    user: str | None = None
    password: Secret | None = None
    user_certificate: FilePath | None = None
    user_private_key: PrivateFile | None = None
    on_expired_certificate: OnExpired = OnExpired.STOP

    @model_validator(mode="after")
    def _consistent(self) -> "Security":
        if self.policy is Policy.NONE:
            if self.model_fields_set - {"policy"}:
                raise ValueError("under policy: None nothing is protected; remove the other keys, or choose a policy")
            return self
        if self.certificate is None or self.private_key is None:
            raise ValueError("needs `certificate` and `private_key` of this host")
        if not self.server_certificates and self.trust is None:
            raise ValueError("needs `server_certificates: [FILE]` or `trust: DIRECTORY`; no server is trusted unseen")
        if (self.user is None) != (self.password is None):
            raise ValueError("`user` and `password` belong together")
        if (self.user_certificate is None) != (self.user_private_key is None):
            raise ValueError("`user_certificate` and `user_private_key` belong together")
        if self.user is not None and self.user_certificate is not None:
            raise ValueError("a user is known by `password` or by `user_certificate`, not by both; remove one")
        return self


class OpcUaOptions(Options):
    """`adapters.<name>` of a site, without `protocol`."""

    url: Annotated[str, AfterValidator(_url)]
    redundant_urls: Annotated[tuple[Annotated[str, AfterValidator(_url)], ...], Field(max_length=3)] = ()
    security: Security
    application_uri: str | None = None
    namespaces: Mapping[str, str] = Field(default_factory=dict)
    publishing_interval: Duration = 0.05
    sampling_interval: Duration | None = None
    queue_size: Annotated[int, Field(ge=1, le=10_000)] = 10
    watch: Watch = Watch.SUBSCRIPTION
    poll_interval: Annotated[Duration, Field(ge=0.01, le=3600)] | None = None
    rebrowse_interval: Annotated[Duration, Field(ge=1, le=86_400)] = 60.0
    timeout: Annotated[Duration, Field(le=5)] = 4.0
    writable: tuple[Pattern, ...] = ()
    methods: tuple[AbsolutePath, ...] = ()

    @property
    def urls(self) -> tuple[str, ...]:
        """Every server of the set, in the order in which they are tried."""
        return (self.url, *self.redundant_urls)

    def sampling_s(self, changing: int = 0) -> float:
        """How often the server looks at each watched variable, where so many are watched for a change."""
        return _paced(self.sampling_interval, SAMPLING_S, changing)

    def poll_s(self, polled: int) -> float:
        """How often each of so many variables is asked for."""
        return _paced(self.poll_interval, POLL_S, polled)

    @model_validator(mode="after")
    def _distinct(self) -> "OpcUaOptions":
        twice = sorted({url for url in self.urls if self.urls.count(url) > 1})
        if twice:
            raise ValueError(f"`redundant_urls` names {', '.join(twice)} twice; name each other server of the set once")
        return self

    @model_validator(mode="after")
    def _queue(self) -> "OpcUaOptions":
        needed = needed_queue(self.publishing_interval, self.sampling_s())
        if self.watch is Watch.SUBSCRIPTION and self.queue_size < needed:
            raise ValueError(
                f"`queue_size: {self.queue_size}` loses changes: the server samples {needed} times between two publishes; set it to {needed} or more"
            )
        return self


def _paced(configured_s: float | None, usual_s: float, count: int) -> float:
    """As configured; else as usual, and slower where that were more than a server on a small machine does beside its own work."""
    return max(usual_s, count / VALUES_PER_S) if configured_s is None else configured_s


def needed_queue(publishing_s: float, sampling_s: float) -> int:
    """How many changes of one variable can come between two publishes."""
    return max(1, ceil(publishing_s / sampling_s - 1e-9)) if sampling_s > 0 else 1


class OpcUaRecords(RecordsOptions):
    """`records:` of a flow: one record per node that `each` matches, `fields` being paths below it; or one for each of `places`, `fields` being node ids."""

    each: AbsolutePath | None = None
    places: tuple[Annotated[str, Field(min_length=1, max_length=200)], ...] = ()
    fields: Annotated[Mapping[str, RelativePath], Field(min_length=1)]

    @model_validator(mode="after")
    def _keyed(self) -> "OpcUaRecords":
        if self.key not in self.fields:
            raise ValueError(f"`key: {self.key}` must be one of the names in `fields`")
        if (self.each is None) == (not self.places):
            raise ValueError(
                "give `each` (a path from Objects) or `places` (a list of names for node ids), one of them"
            )
        if len(set(self.places)) != len(self.places):
            raise ValueError("`places` names one twice")
        return self


def kinds(records: Any) -> Mapping[str, ValueKind]:
    """See `bridge.api.Adapter`: the name of an enumeration's value is text; what a variable holds only the server tells."""
    return {name: ValueKind.TEXT for name, text in records.fields.items() if text.endswith(f"#{NAME}")}


class OnRequest(Options):
    """`submit:` with `when: request`: the node that asks (not 0), and the one that counts the requests or the method that numbers them."""

    request: RelativePath
    sequence: RelativePath


class OnChange(Options):
    """`submit:` with `when: change`; `deadband` says for numbers by how much they must have moved to count, in their own unit."""

    deadband: Mapping[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)


class OpcUaOutcome(Outcome):
    """`outcome:` of a flow: the nodes below the record's node that take the outcome."""

    state: RelativePath
    transaction_id: Annotated[RelativePath | None, Field(alias="transactionId")] = None
    error_code: Annotated[RelativePath | None, Field(alias="errorCode")] = None
    error_text: Annotated[RelativePath | None, Field(alias="errorText")] = None
    error_count: Annotated[RelativePath | None, Field(alias="errorCount")] = None
    asset_id: Annotated[RelativePath | None, Field(alias="assetId")] = None
    updated_at: Annotated[RelativePath | None, Field(alias="updatedAt")] = None
    request_id: Annotated[RelativePath | None, Field(alias="requestId")] = None
    alarm: RelativePath | None = None

    def targets(self) -> Mapping[OutcomeField, str]:
        """The configured targets and their paths."""
        given = self.model_dump(by_alias=True, exclude_none=True, exclude={"progress"})
        return {OutcomeField(name): path for name, path in given.items()}


class OpcUaWord(Options):
    """`alarms.word` of a site: the variable that takes the alarm word, of any integer type of 16 bits or more."""

    node: AbsolutePath


def certificates(options: Any) -> Sequence[CertificateUse]:
    """This host's own certificate with the servers that it believes, and the user's."""
    security: Security = options.security
    if security.policy is Policy.NONE:
        text = "policy: None protects nothing: whoever reaches this network can read and change what travels"
        return [CertificateUse(path="security", role=CertificateRole.OPC_UA, warning=text)]
    uses = [
        CertificateUse(
            path="security",
            role=CertificateRole.OPC_UA,
            certificate=security.certificate,
            private_key=security.private_key,
            application_uri=options.application_uri,
            trusted=security.server_certificates,
            trust=security.trust,
        )
    ]
    if security.user_certificate is not None:
        uses.append(
            CertificateUse(
                path="security",
                role=CertificateRole.USER,
                certificate=security.user_certificate,
                private_key=security.user_private_key,
            )
        )
    return uses
