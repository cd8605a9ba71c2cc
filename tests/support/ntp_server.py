"""A small NTP server (RFC 5905) whose clock is wrong by choice, and a real chronyd that follows it without touching this machine's clock."""

import asyncio
import os
import shutil
import struct
import time
from contextlib import asynccontextmanager
from pathlib import Path

UNPACKED = (
    Path(__file__).parents[1] / "peers/chrony/unpacked"
)  # by tests/setup/peers.sh: never installed, so that no machine's own NTP is replaced
ERA = 2_208_988_800  # seconds from 1900 to 1970


def program(name):
    """The path of chronyd or chronyc: the machine's own, or the unpacked one."""
    for directory in ("usr/sbin", "usr/bin"):
        if (UNPACKED / directory / name).exists():
            return str(UNPACKED / directory / name)
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    assert found, f"{name} is missing; run: make peers"
    return found


class NtpServer(asyncio.DatagramProtocol):
    """Answers as a server of stratum 1 whose clock is `ahead_s` before this machine's."""

    def __init__(self, ahead_s):
        self.ahead_s = ahead_s
        self.transport = None

    def connection_made(self, transport):
        self.transport = transport

    @property
    def port(self):
        return self.transport.get_extra_info("sockname")[1]

    def _time(self):
        now = time.time() + self.ahead_s + ERA
        return struct.pack("!II", int(now) & 0xFFFFFFFF, int(now % 1 * 2**32))

    def datagram_received(self, data, peer):
        head = struct.pack("!BBbb", 4 << 3 | 4, 1, struct.unpack("!b", data[2:3])[0], -20)  # version 4, mode server
        root = struct.pack("!II", 0, 0) + b"GPS\0"
        now = self._time()
        self.transport.sendto(head + root + now + data[40:48] + now + self._time(), peer)


@asynccontextmanager
async def chronyd(directory, *, ahead_s=None):
    """A real chronyd with `-x`; `ahead_s` is the clock of the only server that it knows, None: it knows none. Gives the path of a chronyc that asks it."""
    server = NtpServer(ahead_s or 0.0)
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: server, local_addr=("127.0.0.1", 0)
    )
    socket = directory / "chronyd.sock"
    source = "" if ahead_s is None else f"server 127.0.0.1 port {server.port} minpoll -6 maxpoll -6 iburst\n"
    conf = directory / "chrony.conf"
    conf.write_text(f"{source}port 0\ncmdport 0\nbindcmdaddress {socket}\npidfile {directory}/chronyd.pid\n")
    log = (directory / "chronyd.log").open("wb")
    process = await asyncio.create_subprocess_exec(
        program("chronyd"), "-x", "-d", "-U", "-u", _me(), "-f", str(conf), stdout=log, stderr=log
    )
    asking = directory / "chronyc"
    asking.write_text(f'#!/bin/sh\nexec {program("chronyc")} -h {socket} "$@"\n')
    asking.chmod(0o755)
    try:
        async with asyncio.timeout(10):
            while not socket.exists():
                assert process.returncode is None, (directory / "chronyd.log").read_text()
                await asyncio.sleep(0.01)
        yield asking
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
        transport.close()
        log.close()


def _me():
    import pwd

    return pwd.getpwuid(os.getuid()).pw_name
