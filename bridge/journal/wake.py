"""How processes on one journal wake each other: a UNIX datagram socket per process beside the journal, never polling."""

import asyncio
import logging
import os
import socket
import time
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final
from weakref import ref

from bridge.journal.files import make_directory

_log = logging.getLogger(__name__)

_DATAGRAM_BYTES: Final = 60_000
_PATH_BYTES: Final = 100  # sun_path holds 108 with its end
_EVERYTHING: Final = b"*"
_TICK_NS: Final = 2_000_000_000  # the coarsest clock of a file system that holds sockets


class Topics:
    """The waiters of one process by topic; a waiter that is gone is forgotten by itself."""

    def __init__(self) -> None:
        self._waiters: dict[str, tuple[ref[asyncio.Event], ...]] = {}

    def event(self, topic: str) -> asyncio.Event:
        """A new event of this topic, for one waiter."""
        event = asyncio.Event()
        self._waiters[topic] = (*self._waiters.get(topic, ()), ref(event, partial(self._forget, topic)))
        return event

    def set(self, topics: Iterable[str]) -> None:
        """Wake the waiters of these topics; topics that nobody here waits for are passed over."""
        for topic in topics:
            for waiter in self._waiters.get(topic, ()):
                event = waiter()
                if event is not None:
                    event.set()

    def _forget(self, topic: str, gone: "ref[asyncio.Event]") -> None:
        left = tuple(waiter for waiter in self._waiters.get(topic, ()) if waiter is not gone)
        if left:
            self._waiters[topic] = left
        else:
            self._waiters.pop(topic, None)

    def set_all(self) -> None:
        """Wake every waiter."""
        self.set(tuple(self._waiters))


class Wake:
    """This process's socket in `<journal>.wake/`, and the way to those of the others.

    A datagram holds topics, one a line, or `*` for all. When a peer's queue is full the sender leaves a file `<socket>.all` and knocks once more:
    either the knock arrives, or an older datagram is still unread; both make the peer look for the file, so nothing is lost without waiting.
    """

    def __init__(self, journal: Path, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._topics = Topics()
        self._directory = Path(f"{journal}.wake")
        make_directory(self._directory)
        self._handle = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._name = f"{os.getpid()}-{name}.sock"
        self._peers: tuple[str, ...] = ()
        self._listed = 0  # the directory's time of change that `_peers` belongs to, 0 for none
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        self._socket.bind(self._address(self._name))
        if os.geteuid() == 0:  # a command of root's is woken by the service too
            owner = os.fstat(self._handle)
            with suppress(PermissionError):
                os.chown(self._name, owner.st_uid, owner.st_gid, dir_fd=self._handle, follow_symlinks=False)
        self._loop.add_reader(self._socket, self._readable)

    def event(self, topic: str) -> asyncio.Event:
        """A new waiter's event, for `Journal.woken`."""
        return self._topics.event(topic)

    def here(self, topics: set[str]) -> None:
        """Called on the loop after a commit: wake the waiters of this process."""
        self._topics.set(topics)

    def others(self, topics: set[str]) -> None:
        """Called on the writing thread after a commit: wake the waiters of the other processes."""
        message = "\n".join(sorted(topics)).encode()
        if len(message) > _DATAGRAM_BYTES:
            message = _EVERYTHING
        try:
            for name in self._others():
                self._send(name, message)
        except OSError:  # no file handle is left, for one: the writing thread must outlive that, the commit stands
            _log.warning("wake_failed", exc_info=True)

    def close(self) -> None:
        """Take the socket away."""
        if self._socket.fileno() < 0:
            return
        self._loop.remove_reader(self._socket)
        self._socket.close()
        for name in (self._name, f"{self._name}.all"):
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self._handle)
        os.close(self._handle)

    def _others(self) -> tuple[str, ...]:
        """The sockets of the other processes. The directory is read again after it changed: reading it takes longer than all else after a commit of one record."""
        changed = os.fstat(self._handle).st_mtime_ns
        if changed != self._listed:
            names = os.listdir(self._handle)  # noqa: PTH208 - by handle, whatever the path's length
            self._peers = tuple(name for name in names if name.endswith(".sock") and name != self._name)
            # A change in the same tick of the file system's clock has the same time: only an older one tells that this list is whole.
            self._listed = changed if abs(time.time_ns() - changed) > _TICK_NS else 0
        return self._peers

    def _address(self, name: str) -> str:
        """The socket's path, or the same through our open directory where the path is too long for a socket address."""
        path = str(self._directory / name)
        if len(os.fsencode(path)) <= _PATH_BYTES:
            return path
        return f"/proc/self/fd/{self._handle}/{name}"

    def _send(self, name: str, message: bytes) -> None:
        try:
            self._socket.sendto(message, self._address(name))
        except BlockingIOError:
            self._overflow(name)
        except (ConnectionRefusedError, FileNotFoundError):
            self._bury(name)
        except OSError:  # the commit stands whatever becomes of a knock
            _log.warning("wake_failed", exc_info=True)

    def _overflow(self, name: str) -> None:
        with suppress(OSError):
            os.close(os.open(f"{name}.all", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=self._handle))
            self._socket.sendto(_EVERYTHING, self._address(name))

    def _bury(self, name: str) -> None:
        for dead in (name, f"{name}.all"):
            with suppress(FileNotFoundError):
                os.unlink(dead, dir_fd=self._handle)

    def _readable(self) -> None:
        """Empty the queue, then look whether a sender found it full."""
        with suppress(BlockingIOError):
            while True:
                message = self._socket.recv(_DATAGRAM_BYTES + 1)
                if message == _EVERYTHING:
                    self._topics.set_all()
                else:
                    self._topics.set(message.decode(errors="replace").split("\n"))
        with suppress(FileNotFoundError):
            os.unlink(f"{self._name}.all", dir_fd=self._handle)
            self._topics.set_all()
