"""What a service and systemd tell each other: readiness and liveness by datagram (sd_notify(3)), sockets by number (sd_listen_fds(3))."""

import asyncio
import logging
import os
import socket
import time
from collections.abc import Mapping, MutableMapping
from typing import Final, Self

from bridge.errors import ConfigError, Problem

log = logging.getLogger(__name__)

FIRST_FD: Final = 3
LISTENERS: Final = ("returns", "admin")


class Notifier:
    """Sends states to the supervisor; without one it does nothing. A datagram that cannot be sent is logged once and never ends the service."""

    def __init__(self, address: str = "", *, watchdog_s: float = 0.0) -> None:
        """`address` is a path, or `@name` for the abstract namespace; `watchdog_s` is how long the supervisor waits for a sign of life, 0 for ever."""
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._watchdog_s = watchdog_s
        self._lost = False
        self._beat: asyncio.TimerHandle | None = None

    @classmethod
    def of(cls, environ: Mapping[str, str], pid: int) -> Self:
        """By NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID (µs; a PID that is not ours means that another process is watched)."""
        period, watched = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", str(pid))
        ours = period.isdecimal() and watched == str(pid)
        return cls(environ.get("NOTIFY_SOCKET", ""), watchdog_s=int(period) / 1e6 if ours else 0.0)

    def ready(self) -> None:
        """Listeners and journal are up. From now on the event loop itself shows that it is alive."""
        self._send("READY=1\nSTATUS=working")
        if self._watchdog_s and self._beat is None:
            self._alive()

    def reloading(self) -> None:
        """A reload begins; `ready` ends it."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """The orderly end begins. The loop goes on to show that it is alive."""
        self._send("STOPPING=1\nSTATUS=calls under way are finished")

    def close(self) -> None:
        """No further sign of life."""
        if self._beat is not None:
            self._beat.cancel()
            self._beat = None

    def _alive(self) -> None:
        """From the loop and no thread, so that a loop that is blocked is silent."""
        self._send("WATCHDOG=1")
        self._beat = asyncio.get_running_loop().call_later(self._watchdog_s / 2, self._alive)

    def _send(self, state: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(
                socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
            ) as sender:
                sender.sendto(state.encode(), self._address)
        except OSError as error:
            if not self._lost:
                log.warning("supervisor_not_told", extra={"reason": str(error)})
            self._lost = True
        else:
            self._lost = False


def passed_sockets(environ: MutableMapping[str, str], pid: int) -> dict[str, socket.socket]:
    """The listening sockets that systemd opened for us, by their FileDescriptorName=; the variables are taken away, children have none.

    Raises `ConfigError` for a name that is not `returns` or `admin`, and for two sockets of one name.
    """
    number, owner = environ.pop("LISTEN_FDS", ""), environ.pop("LISTEN_PID", "")
    names = environ.pop("LISTEN_FDNAMES", "").split(":")
    if owner != str(pid) or not number.isdecimal():
        return {}
    passed: dict[str, socket.socket] = {}
    for index in range(int(number)):
        name = names[index] if index < len(names) else ""
        if name not in LISTENERS or name in passed:
            raise ConfigError([Problem(text=_unfit(name, passed))])
        os.set_inheritable(FIRST_FD + index, False)
        passed[name] = socket.socket(fileno=FIRST_FD + index)
        passed[name].setblocking(False)
    return passed


def _unfit(name: str, passed: Mapping[str, socket.socket]) -> str:
    if name in passed:
        return f"the socket unit opens two sockets called {name}; give it one ListenStream="
    return f"the socket unit calls a socket {name!r}; write FileDescriptorName=returns or FileDescriptorName=admin"
