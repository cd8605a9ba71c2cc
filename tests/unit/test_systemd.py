"""What the service tells systemd, heard on a notify socket of our own, and the sockets that it is passed."""

import asyncio
import os
import socket
import time

import pytest

from bridge.errors import ConfigError
from bridge.systemd import Notifier, passed_sockets

PERIOD_S = 0.2


@pytest.fixture(params=["path", "abstract"])
def supervisor(request, tmp_path):
    """A socket as systemd's, and its name in NOTIFY_SOCKET."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@smp-bridge-test-{os.getpid()}-{time.time_ns()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(name.replace("@", "\0", 1) if name.startswith("@") else name)
        heard.setblocking(False)
        yield heard, name


def drain(heard):
    told = []
    while True:
        try:
            told.append(heard.recv(4096).decode())
        except BlockingIOError:
            return told


def environment(name):
    return {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": str(int(PERIOD_S * 1e6)), "WATCHDOG_PID": str(os.getpid())}


async def test_a_blocked_loop_is_silent(supervisor):
    """The sign of life comes at half the period, and not at all while the loop stands for two periods."""
    heard, name = supervisor
    notifier = Notifier.of(environment(name), os.getpid())
    notifier.ready()
    told = drain(heard)
    assert told[0].startswith("READY=1\n")
    assert told[1:] == ["WATCHDOG=1"]
    async with asyncio.timeout(5):
        await asyncio.get_running_loop().sock_recv(heard, 100)
    drain(heard)
    time.sleep(2 * PERIOD_S)  # the loop stands
    assert drain(heard) == []
    async with asyncio.timeout(5):
        assert await asyncio.get_running_loop().sock_recv(heard, 100) == b"WATCHDOG=1"
    notifier.close()
    drain(heard)
    await asyncio.sleep(PERIOD_S)
    assert drain(heard) == []


async def test_a_reload_is_told_with_its_time(supervisor):
    """RELOADING=1 with the monotonic time in microseconds, READY=1 after it, STOPPING=1 at the end."""
    heard, name = supervisor
    notifier = Notifier(name)
    before = time.monotonic_ns() // 1000
    notifier.reloading()
    notifier.ready()
    notifier.stopping()
    reloading, ready, stopping = drain(heard)
    first, stamp = reloading.split("\n")
    assert first == "RELOADING=1"
    assert before <= int(stamp.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000
    assert ready.startswith("READY=1\n")
    assert stopping.startswith("STOPPING=1\n")


async def test_the_watchdog_of_another_process_is_not_ours(supervisor):
    """WATCHDOG_PID names somebody else: no sign of life is sent."""
    heard, name = supervisor
    notifier = Notifier.of(environment(name) | {"WATCHDOG_PID": "1"}, os.getpid())
    notifier.ready()
    await asyncio.sleep(PERIOD_S)
    assert len(drain(heard)) == 1


def test_nobody_listens(caplog):
    """A supervisor that is gone is logged once and ends nothing; without one nothing is said."""
    notifier = Notifier("/nonexistent/notify")
    notifier.stopping()
    notifier.stopping()
    assert [record.getMessage() for record in caplog.records] == ["supervisor_not_told"]
    Notifier().stopping()
    assert len(caplog.records) == 1


def test_sockets_for_another_process_are_left_alone():
    """LISTEN_PID names somebody else; the variables go all the same."""
    environ = {"LISTEN_FDS": "1", "LISTEN_PID": "1", "LISTEN_FDNAMES": "returns"}
    assert passed_sockets(environ, 2) == {}
    assert environ == {}


def test_a_socket_of_an_unknown_name_is_refused():
    """The error says what would be right."""
    with pytest.raises(ConfigError, match="FileDescriptorName=returns"):
        passed_sockets({"LISTEN_FDS": "1", "LISTEN_PID": "7", "LISTEN_FDNAMES": "smp-bridge.socket"}, 7)
