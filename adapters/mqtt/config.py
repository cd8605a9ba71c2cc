"""What a site file says about MQTT. Pure: nothing here opens a connection."""

import enum
import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Self

from pydantic import AfterValidator, BeforeValidator, Field, FilePath, model_validator

from adapters.mqtt.topics import MOST_BYTES, pattern, plain, template
from bridge.api import (
    HostName,
    OnExpired,
    Options,
    Outcome,
    OutcomeField,
    PrivateFile,
    RecordsOptions,
    Secret,
    ValueKind,
)

_UNITS_S: Final[Mapping[str, float]] = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|min|h|d)")
_WEB_PATH: Final = re.compile(r"/[!-~]*")  # RFC 3986: what is not ASCII is written as %XX
NUMBER: Final = ".number"  # of a state or an error code: its number in place of its word
_NUMBERED: Final = (OutcomeField.STATE, OutcomeField.ERROR_CODE)
MEMBERS: Final = (*(item.value for item in OutcomeField), *(item.value + NUMBER for item in _NUMBERED))

Scalar = str | int | float | bool | None


class Version(enum.Enum):
    """The protocol's versions that are spoken."""

    V311 = "3.1.1"
    V5 = "5"


class Format(enum.Enum):
    """How a payload is written."""

    JSON = "json"
    CSV = "csv"
    PLAIN = "plain"


def _version(value: object) -> object:
    text = str(value).removesuffix(".0")
    if text not in {version.value for version in Version}:
        raise ValueError('must be "3.1.1" or "5"')
    return text


def _seconds(value: object) -> object:
    match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError("must be a duration with its unit, such as 5s, 10s or 7d")
    return float(match[1]) * _UNITS_S[match[2]]


def _whole(value: float) -> float:
    if not value.is_integer():
        raise ValueError("must be whole seconds: the protocol carries nothing finer")
    return value


def _template(text: str) -> str:
    template(text)
    return text


def _pattern(text: str) -> str:
    pattern(text)
    return text


def _path(text: str) -> str:
    if not text or not all(text.split(".")):
        raise ValueError("must be a member's name, or a path such as meter.mpan")
    return text


def _named(text: str) -> str:
    if not text:
        raise ValueError("must say where the value is")
    return text


def _group(text: str) -> str:
    if not text or not text.isprintable() or any(letter in text for letter in "/+#{}"):
        raise ValueError("must be the name of a group, without / + # { }, such as smp-bridge")
    return text


def _client_id(text: str) -> str:
    if not text or not text.isprintable() or len(text.encode()) > MOST_BYTES:
        raise ValueError("must be printable text; left out, it is made of the site's and the adapter's name")
    return text


def _delimiter(text: str) -> str:
    if len(text) != 1 or text in '"\r\n':
        raise ValueError('must be one character, such as "," or ";" or "\\t"')
    return text


def _once(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise ValueError("names a column twice; each needs a name of its own")
    return names


def _web_path(text: str) -> str:
    if not _WEB_PATH.fullmatch(text):
        raise ValueError(
            "must be the path of the WebSocket as in a URL, such as /mqtt: it begins with / and has no spaces"
        )
    return text


def _member(text: str) -> str:
    if text not in MEMBERS:
        raise ValueError(f"`{text}` is nothing that can be written; known are {', '.join(MEMBERS)}")
    return text


Topic = Annotated[str, AfterValidator(_template)]
PlainTopic = Annotated[str, AfterValidator(plain)]
TopicPattern = Annotated[str, AfterValidator(_pattern)]
Where = Annotated[str, AfterValidator(_named)]
MemberPath = Annotated[str, AfterValidator(_path)]
Member = Annotated[str, AfterValidator(_member)]
Timeout = Annotated[float, BeforeValidator(_seconds), Field(ge=0.1, le=20)]
KeepAlive = Annotated[float, BeforeValidator(_seconds), AfterValidator(_whole), Field(ge=2, le=3600)]
Expiry = Annotated[float, BeforeValidator(_seconds), AfterValidator(_whole), Field(ge=60, le=0xFFFF_FFFE)]


class Tls(Options):
    """How the broker is known, and how we are. Without `ca` the authorities of this machine are trusted; a broker is never trusted unseen.

    `on_expired_certificate`: what follows when the broker's certificate ends.
    """

    ca: FilePath | None = None
    certificate: FilePath | None = None
    private_key: PrivateFile | None = None
    on_expired_certificate: OnExpired = OnExpired.STOP

    @model_validator(mode="after")
    def _both(self) -> "Tls":
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("`certificate` and `private_key` belong together")
        return self


class WebSocket(Options):
    """MQTT inside a WebSocket (`ws`, and `wss` with `tls:`), as brokers behind a web gateway offer it; the sub-protocol asked for is `mqtt`."""

    path: Annotated[str, AfterValidator(_web_path)] = "/mqtt"


class MqttOptions(Options):
    """One connection to a broker."""

    host: Annotated[HostName, Field(min_length=1)]
    port: Annotated[int, Field(ge=1, le=65535)] = 8883
    version: Annotated[Version, BeforeValidator(_version)] = Version.V311
    tls: Tls | None = None
    websocket: WebSocket | None = None
    client_id: Annotated[str, AfterValidator(_client_id)] | None = None
    user: str | None = None
    password: Secret | None = None
    keepalive: KeepAlive = 10.0
    timeout: Timeout = 5.0
    session_expiry: Expiry = 604_800.0
    status_topic: PlainTopic | None = None
    max_payload: Annotated[int, Field(ge=1024, le=64 * 1024 * 1024)] = 1024 * 1024
    max_unacknowledged: Annotated[int, Field(ge=1, le=65_535)] = 1000
    writable: tuple[TopicPattern, ...] = ()

    @model_validator(mode="after")
    def _user(self) -> "MqttOptions":
        if self.password is not None and self.user is None:
            raise ValueError("`password` needs a `user`")
        return self

    def may_write(self, topic: str) -> bool:
        """Whether this topic is inside `writable:`."""
        return any(pattern(text).allows(topic) for text in self.writable)


class Csv(Options):
    """Of CSV payloads. `columns` names the cells where the payload's first line does not."""

    delimiter: Annotated[str, AfterValidator(_delimiter)] = ","
    columns: Annotated[tuple[Where, ...], Field(min_length=1), AfterValidator(_once)] | None = None


class _Written(Options):
    """How a payload is written."""

    format: Format = Format.JSON
    csv: Csv | None = None

    @model_validator(mode="after")
    def _table(self) -> Self:
        if self.csv is not None and self.format is not Format.CSV:
            raise ValueError("`csv` belongs to `format: csv`; add that, or leave `csv` out")
        return self


class MqttRecords(RecordsOptions, _Written):
    """A flow's records: retained messages on the topics of `each`. A field is `$name` for a placeholder of the topic, or where the value is.

    `json`: a member's path or a JMESPath expression. `csv`: a column's name. `plain`: the topic below `each` whose whole payload is the value;
    the record is there once each of these was heard, those of `optional` apart.
    """

    each: Topic
    fields: Annotated[Mapping[str, Where], Field(min_length=1)]
    optional: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _placed(self) -> Self:
        if not template(self.each).names:
            raise ValueError("`each` needs a placeholder such as {asset}, which tells one record from another")
        return self


def kinds(records: Any) -> Mapping[str, ValueKind]:
    """See `bridge.api.Adapter`: parts of a topic, cells and plain payloads are text; what a member of JSON is only shows in the message."""
    assert isinstance(records, MqttRecords)
    as_text = records.format is not Format.JSON
    return {name: ValueKind.TEXT for name, source in records.fields.items() if as_text or source.startswith("$")}


class MessageSubmit(_Written):
    """`when: message`: a message on `topic` asks for its place's record; `id` says where the request's id is, `where` what a request must hold.

    Of `format: plain` the whole payload is the id. `share` is the group of a shared subscription (MQTT 5, 4.8.2): each request goes to one of its members.
    """

    topic: Topic
    share: Annotated[str, AfterValidator(_group)] | None = None
    id: Where | None = None
    where: Mapping[Where, Scalar] = Field(default_factory=dict)


class ChangeSubmit(Options):
    """`when: change`: every record once, then whenever one of its fields changes."""


class MqttWord(Options):
    """`alarms.word` of a site: the topic on which the alarm word is published as JSON (`alarms`, `words`, `updatedAt`)."""

    topic: PlainTopic
    retain: bool = True


class MqttOutcome(Outcome):
    """Where an outcome is published: one message, whose members are named in `payload`."""

    topic: Topic
    payload: Annotated[Mapping[MemberPath, Member], Field(min_length=1)]
    retain: bool = False

    @model_validator(mode="after")
    def _members(self) -> "MqttOutcome":
        if not {OutcomeField.STATE.value, OutcomeField.STATE.value + NUMBER} & set(self.payload.values()):
            raise ValueError("`payload` needs a member for the state, such as `state: state`")
        for path in self.payload:
            inner = next((other for other in self.payload if other.startswith(path + ".")), None)
            if inner is not None:
                raise ValueError(f"`payload`: {path} cannot be a value and hold {inner} as well")
        return self
