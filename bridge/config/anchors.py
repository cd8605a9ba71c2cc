"""`journal.anchors` of `bridge.yaml`: places off this host that are given the anchor too."""

from pathlib import Path
from typing import Annotated, Final, Literal, Self
from urllib.parse import SplitResult, urlsplit

from pydantic import Field, field_validator, model_validator

from bridge.api import Options
from bridge.config.references import ExistingFile, OwnFile
from bridge.config.values import Duration
from bridge.secret import Secret

EVERY_S: Final = 300.0
ALARM_AFTER_S: Final = 3600.0
LONGEST_S: Final = 86_400.0
MQTTS_PORT: Final = 8883
MQTT_PORT: Final = 1883
HTTPS_PORT: Final = 443
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_MOST_TOPIC_BYTES: Final = 1024

Text = Annotated[str, Field(min_length=1, max_length=200)]
Interval = Annotated[Duration, Field(ge=0.1, le=LONGEST_S)]


class PostOptions(Options):
    """An HTTPS POST of the anchor to `url`. `ca` are the only authorities that are believed (default: the system's); `token` goes as a bearer token."""

    url: str
    ca: ExistingFile | None = None
    token: Secret | None = None

    @field_validator("url")
    @classmethod
    def _https(cls, url: str) -> str:
        parts = _split(url)
        if parts.scheme != "https" or not parts.hostname or parts.username or parts.fragment or not _plain(url):
            raise ValueError("must be an address such as https://notary.example/anchors/host-1, without a user")
        return url

    @field_validator("token")
    @classmethod
    def _sendable(cls, token: Secret | None) -> Secret | None:
        if token is not None and token.at_hand and not _plain(token.reveal()):
            raise ValueError("cannot stand in a header: must be one line of ASCII without blanks")
        return token


class MqttOptions(Options):
    """A retained message of QoS 1 on `topic`. `broker` is mqtts://HOST:PORT; mqtt:// is for this machine only.

    Version 5 is spoken unless told otherwise: a broker of 3.1.1 has no word for "this user may not publish here".
    """

    broker: str
    topic: str
    version: Literal["5", "3.1.1"] = "5"
    ca: ExistingFile | None = None
    certificate: ExistingFile | None = None
    private_key: OwnFile | None = None
    user: Text | None = None
    password: Secret | None = None
    client_id: Text | None = None

    @field_validator("version", mode="before")
    @classmethod
    def _version(cls, value: object) -> object:
        return str(value).removesuffix(".0")

    @field_validator("broker")
    @classmethod
    def _guarded(cls, url: str) -> str:
        parts = _split(url)
        if parts.scheme not in {"mqtt", "mqtts"} or not parts.hostname or parts.username or parts.path or parts.query:
            raise ValueError("must be an address such as mqtts://broker.example:8883, without a user or a path")
        if parts.scheme == "mqtt" and parts.hostname not in _LOOPBACK:
            raise ValueError("must be mqtts:// unless the broker runs on this machine")
        return url

    @field_validator("topic")
    @classmethod
    def _topic(cls, topic: str) -> str:
        long = len(topic.encode()) > _MOST_TOPIC_BYTES
        if not topic or long or not topic.isprintable() or any(sign in topic for sign in "+#") or topic[0] == "$":
            raise ValueError("must be one topic such as smp-bridge/host-1/anchor, without + # and not beginning with $")
        return topic

    @model_validator(mode="after")
    def _together(self) -> Self:
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("`certificate` and `private_key` belong together: give both or neither")
        if self.password is not None and self.user is None:
            raise ValueError("`password` needs a `user`")
        if not self.secured and (self.ca is not None or self.certificate is not None):
            raise ValueError("`ca` and `certificate` are for mqtts://, and `broker` is mqtt://")
        return self

    @property
    def secured(self) -> bool:
        """Whether TLS is spoken."""
        return self.broker.startswith("mqtts:")

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        parts = urlsplit(self.broker)
        return parts.hostname or "", parts.port or (MQTTS_PORT if self.secured else MQTT_PORT)


class FileOptions(Options):
    """A file in a directory that is there already. With `mounted` (the default) it has to lie on another file system than the journal.

    So a share that is not mounted is noticed, and not mistaken for its empty mount point. `mounted: false` is for a directory that something else carries away.
    """

    path: Path
    mounted: bool = True


class AnchorPlace(Options):
    """One place. It gets the anchor at each signed head at once, and for other new blocks at most every `every`; without success for `alarm_after` it is an alarm."""

    post: PostOptions | None = None
    mqtt: MqttOptions | None = None
    file: FileOptions | None = None
    every: Interval = EVERY_S
    alarm_after: Interval = ALARM_AFTER_S

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = [name for name in ("post", "mqtt", "file") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"must have one of `post`, `mqtt` and `file`, and has {' and '.join(given) or 'none'}; give each place a name of its own"
            )
        return self

    @property
    def target(self) -> str:
        """Where the anchor lies there; two places with the same one would be one place."""
        if self.post is not None:
            return self.post.url
        if self.mqtt is not None:
            host, port = self.mqtt.address
            return f"{host}:{port} {self.mqtt.topic}"
        assert self.file is not None
        return str(self.file.path)


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port  # a bad port only shows when it is asked for
    except ValueError:
        return urlsplit("")
    return parts


def _plain(text: str) -> bool:
    return bool(text) and text.isascii() and text.isprintable() and " " not in text
