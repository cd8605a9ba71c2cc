"""Cables (veth pairs) between two network namespaces of our own. A cable that is pulled drops everything without a word, as no proxy can."""

import ctypes
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

NETNS = Path("/run/netns")
CLONE_NEWNET = 0x40000000
NETWORK = "198.18"  # RFC 2544: for tests between devices, routed nowhere


class Wire:
    """One cable. Its far end has `host` as its address; `down` and `up` switch that end."""

    def __init__(self, near: str, far: str, number: int) -> None:
        self._far = far
        self._end = f"far{number}"
        third, first = os.getpid() % 250, 4 * number
        self.host = f"{NETWORK}.{third}.{first + 2}"
        _ip("link", "add", f"near{number}", "netns", near, "type", "veth", "peer", "name", self._end, "netns", far)
        for namespace, name, address in ((near, f"near{number}", first + 1), (far, self._end, first + 2)):
            _ip("-n", namespace, "address", "add", f"{NETWORK}.{third}.{address}/30", "dev", name)
            _ip("-n", namespace, "link", "set", name, "up")

    def down(self) -> None:
        """Pull it: what is sent into it is gone, and nobody is told."""
        _ip("-n", self._far, "link", "set", self._end, "down")

    def up(self) -> None:
        """Plug it in again."""
        _ip("-n", self._far, "link", "set", self._end, "up")

    def listener(self, port: int) -> socket.socket:
        """A socket of this process that is bound at the far end."""
        made: list[socket.socket] = []

        def make() -> None:
            """In a thread of its own: it enters the other namespace and never comes back, but its socket does."""
            with (NETNS / self._far).open() as namespace:
                if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            found = socket.socket()
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind((self.host, port))
            made.append(found)

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        return made[0]


class Cables:
    """Two namespaces: `inside` starts a command in the near one, `wires` lead to the far one."""

    def __init__(self, near: str, wires: list[Wire]) -> None:
        self.inside = ("ip", "netns", "exec", near)
        self.wires = wires


@contextmanager
def cables(count: int) -> Iterator[Cables]:
    """So many cables. Skips the test, saying what is missing, where the machine does not let us make any."""
    if shutil.which("ip") is None:
        pytest.skip("a pulled cable needs the command `ip` (Debian's iproute2), which is not installed")
    if os.geteuid() != 0:
        pytest.skip("a pulled cable needs root, to make network namespaces of our own")
    names = [f"smpb-{os.getpid()}-{end}" for end in ("near", "far")]
    try:
        try:
            for name in names:
                _ip("netns", "add", name)
            _ip("-n", names[0], "link", "set", "lo", "up")
            wires = [Wire(*names, number) for number in range(count)]
        except subprocess.CalledProcessError as error:
            said = str(error.stderr).strip().splitlines()[-1:]
            pytest.skip(
                f"a pulled cable needs CAP_SYS_ADMIN, CAP_NET_ADMIN and veth in the kernel: {error.cmd}: {said}"
            )
        yield Cables(names[0], wires)
    finally:
        for name in names:
            if (NETNS / name).exists():
                _ip("netns", "delete", name)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, timeout=20)
