"""The places that an anchor is brought to. Every call here blocks, for as long as `ANSWER_S` where the network is well behaved, and belongs on a thread."""

import http.client
import socket
import ssl
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import urlsplit

from bridge.config.anchors import HTTPS_PORT, AnchorPlace, FileOptions, PostOptions
from bridge.config.references import FileSecret
from bridge.errors import BridgeError
from bridge.journal.anchor import MOST_BYTES
from bridge.journal.files import write_durably

ANSWER_S: Final = 10.0
_MOST_ANSWER_BYTES: Final = 64 * 1024


class NotTaken(BridgeError):
    """Try again later: the place did not take the anchor, or could not be asked. The text says why, and holds no secret."""


class Place(Protocol):
    """One place; used by one thread at a time."""

    readable: bool

    def send(self, body: bytes) -> None:
        """Bring the anchor there. Raises `NotTaken`. Blocking."""

    def read(self) -> bytes | None:
        """What lies there, None for nothing, or nothing that we may see. Asked of a `readable` place only. Raises `NotTaken`. Blocking."""

    def interrupt(self) -> None:
        """Let the call that is under way fail soon, where that can be done; from another thread, never blocking."""


def place_of(options: AnchorPlace, *, beside: Path, client_id: str) -> Place:
    """The place of these options. `beside` is a directory of the journal's file system; `client_id` names this host to a broker. Loads no file."""
    if options.post is not None:
        return PostPlace(options.post)
    if options.mqtt is not None:
        from bridge.anchoring.mqtt import MqttPlace  # noqa: PLC0415 - the protocol library is loaded where it is used

        return MqttPlace(options.mqtt, client_id)
    assert options.file is not None
    return FilePlace(options.file, beside)


def trust(ca: Path | None) -> ssl.SSLContext:
    """Whom a connection believes. Host names are always checked. Raises `NotTaken`."""
    try:
        context = ssl.create_default_context(cafile=None if ca is None else str(ca))
    except (ssl.SSLError, OSError) as error:
        raise NotTaken(f"the authorities in {ca} cannot be read") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def told(error: Exception) -> str:
    """One of the errors of a connection in a few words; never what was sent."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message})"
    if isinstance(error, TimeoutError):
        return f"no answer within {ANSWER_S:g} s"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return f"no answer ({type(error).__name__})"


class PostPlace:
    """An HTTPS POST. A redirect is an answer like any other that is not 2xx: it is never followed, so the token goes nowhere else."""

    readable = False

    def __init__(self, options: PostOptions) -> None:
        self._options = options
        self._connection: http.client.HTTPSConnection | None = None

    def send(self, body: bytes) -> None:
        """See `Place`."""
        parts = urlsplit(self._options.url)
        headers = {"Content-Type": "application/json", "User-Agent": "smp-bridge", "Connection": "close"}
        token = self._options.token
        if token is not None:
            token = token.now() if isinstance(token, FileSecret) else token
            headers["Authorization"] = f"Bearer {token.reveal()}"
        context, port = trust(self._options.ca), parts.port or HTTPS_PORT
        connection = http.client.HTTPSConnection(parts.hostname or "", port, timeout=ANSWER_S, context=context)
        self._connection = connection
        try:
            connection.request("POST", f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}", body, headers)
            answer = connection.getresponse()
            answer.read(_MOST_ANSWER_BYTES)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise NotTaken(told(error)) from error
        finally:
            self._connection = None
            connection.close()
        if answer.status // 100 == 3:
            raise NotTaken(f"it answered {answer.status}; a redirect is not followed")
        if answer.status // 100 != 2:
            raise NotTaken(f"it answered {answer.status}")

    def read(self) -> bytes | None:
        """See `Place`."""
        return None

    def interrupt(self) -> None:
        """See `Place`."""
        connection = self._connection
        if connection is not None and connection.sock is not None:
            with suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)


class FilePlace:
    """A file in a directory of another file system. It is replaced whole or not at all."""

    readable = True

    def __init__(self, options: FileOptions, beside: Path) -> None:
        self._options = options
        self._beside = beside

    def send(self, body: bytes) -> None:
        """See `Place`."""
        path = self._options.path
        try:
            self._check(path.parent)
            write_durably(path, body, mode=0o644)
        except OSError as error:
            raise NotTaken(f"{path} cannot be written: {error.strerror or error}") from error

    def read(self) -> bytes | None:
        """See `Place`."""
        path = self._options.path
        try:
            self._check(path.parent)
            with path.open("rb") as file:
                return file.read(MOST_BYTES)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise NotTaken(f"{path} cannot be read: {error.strerror or error}") from error

    def interrupt(self) -> None:
        """See `Place`. A file system that hangs cannot be interrupted."""

    def _check(self, directory: Path) -> None:
        """It is never made here: where it is missing something is not mounted."""
        if not directory.is_dir():
            raise NotTaken(f"the directory {directory} is not there; is it mounted?")
        ours = next(
            path for path in (self._beside, *self._beside.parents) if path.exists()
        )  # it is made at the first start
        if self._options.mounted and directory.stat().st_dev == ours.stat().st_dev:
            raise NotTaken(
                f"{directory} lies on the journal's own file system; mount the other one, or say `mounted: false` where something carries the file away"
            )
