"""The service under systemd's protocols: what it tells on the notify socket, sockets that it is passed, one participant per instance."""

import asyncio
import json
import signal
import socket
import ssl
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from mosquitto import free_port
from private_files import write_private_file
from processes import PASSWORD, world
from service import PARTICIPANT

ROOT = Path(__file__).parents[2]
# One socket that is opened before the service and passed as systemd does; WHICH is put in.
PASSED = """
import json, os, socket, sys
listening = socket.create_server(("127.0.0.1", 0))
os.dup2(listening.fileno(), 3)
os.environ |= {"LISTEN_FDS": "1", "LISTEN_FDNAMES": "WHICH", "LISTEN_PID": str(os.getpid())}
print(json.dumps({"event": "passed", "port": listening.getsockname()[1]}), file=sys.stderr, flush=True)
from bridge.cli import main
main()
"""


def unverified():
    """TLS that takes any certificate."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


async def shown(port):
    """The certificate (DER) that the returns listener shows in a new handshake."""
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=unverified())
    certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return certificate


class Kept:
    """One connection to the returns listener on which requests follow each other; whatever they hold is not signed."""

    def __init__(self, port, path):
        self.port, self.path = port, path

    async def __aenter__(self):
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=context)
        return self

    async def __aexit__(self, *_):
        self.writer.close()

    @property
    def certificate(self):
        return self.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)

    async def half(self):
        """The head of a request, and the first of two halves of its body."""
        head = f"POST {self.path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n"
        self.writer.write(head.encode() + b"{")
        await self.writer.drain()

    async def rest(self):
        """The other half; the answer has a body and leaves the connection open."""
        self.writer.write(b"}")
        async with asyncio.timeout(10):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = next(
                int(line.partition(":")[2]) for line in head.split("\r\n") if line.startswith("content-length:")
            )
            body = json.loads(await self.reader.readexactly(length))
        assert "connection: close" not in head
        return head.split("\r\n")[0], body["status"]

    async def asked(self):
        await self.half()
        return await self.rest()


REFUSED = ("http/1.1 401 unauthorized", 401)


async def answered(admin):
    """The first line that the admin listener answers to being asked whether it is ready."""
    reader, writer = await asyncio.open_connection("127.0.0.1", admin)
    writer.write(b"GET /health/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    line = await reader.readline()
    writer.close()
    return line


async def test_told_when_ready_reloaded_and_stopping(tmp_path):
    """READY=1 comes once the journal is open and the listeners take connections, and not before; a reload shows the new certificate, a bad one keeps the former; STOPPING=1 at SIGTERM.

    "The public TLS certificate reloaded without dropping connections": one connection stands over both reloads, with a request before, one whose half is sent before and half after, and one after.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(tmp_path / "notify"))
        heard.setblocking(False)

        async def until(word):
            async with asyncio.timeout(20):
                while not (told := await asyncio.get_running_loop().sock_recv(heard, 4096)).startswith(word):
                    assert told == b"WATCHDOG=1"

        async with world(tmp_path) as made, AsyncExitStack() as stack:
            port, admin = free_port(), free_port()
            made.environment |= {
                "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "1000000", "SMP_BRIDGE_RETURNS_PORT": str(port),
                "SMP_BRIDGE_ADMIN_PORT": str(admin),
            }  # fmt: skip
            process = await made.run()
            await until(b"READY=1")
            first = await shown(port)  # at the first try
            assert (await answered(admin)).startswith(b"HTTP/1.1 200")
            assert await made.states() == []  # the journal is there to be read
            await process.until("ready")

            path = made.profile.return_path.replace("{participant}", "acme-test")
            kept = await stack.enter_async_context(Kept(port, path))
            assert await kept.asked() == REFUSED
            await kept.half()
            server = made.authority.server("bridge")
            (tmp_path / "keys/returns.crt.pem").write_bytes(server.certificate)
            (tmp_path / "keys/returns.key.pem").write_bytes(server.private_key)
            process.process.send_signal(signal.SIGHUP)
            await until(b"RELOADING=1\nMONOTONIC_USEC=")
            await until(b"READY=1")
            second = await shown(port)
            assert second != first
            assert await kept.rest() == REFUSED
            assert await kept.asked() == REFUSED
            assert kept.certificate == first

            await kept.half()
            (tmp_path / "keys/returns.crt.pem").write_text("no certificate")
            process.process.send_signal(signal.SIGHUP)
            await process.until("reload_failed")
            await until(b"RELOADING=1\n")
            await until(b"READY=1")
            assert await shown(port) == second
            assert await kept.rest() == REFUSED
            assert await kept.asked() == REFUSED

            process.process.send_signal(signal.SIGTERM)
            await until(b"STOPPING=1")
            assert await process.ended() == 0


async def test_a_socket_that_is_passed_is_listened_on(tmp_path):
    """The admin listener is the socket that was opened before the service, whatever port the configuration names."""
    async with world(tmp_path) as made:
        made.code = PASSED.replace("WHICH", "admin")
        process = await made.run()
        await process.until("ready")
        port = next(e["port"] for e in process.events if e["event"] == "passed")
        assert port == next(e["port"] for e in process.events if e.get("listener") == "admin")
        assert (await answered(port)).startswith(b"HTTP/1.1 200")
        assert await process.stop() == 0


async def test_the_returns_arrive_at_a_socket_that_is_passed(tmp_path):
    """What the shipped socket units pass: TLS is spoken on it with the configured certificate, and the gate refuses what nobody signed."""
    async with world(tmp_path) as made:
        made.code = PASSED.replace("WHICH", "returns")
        process = await made.run()
        await process.until("ready")
        port = next(e["port"] for e in process.events if e["event"] == "passed")
        assert port == next(e["port"] for e in process.events if e.get("listener") == "returns")
        pem = (tmp_path / "keys/returns.crt.pem").read_text()
        assert await shown(port) == ssl.PEM_cert_to_DER_cert(
            pem[pem.index("-----BEGIN") : pem.index("-----END") + 25] + "\n"
        )
        path = made.profile.return_path.replace("{participant}", PARTICIPANT)
        request = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}"
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=unverified())
        writer.write(request.encode())
        assert (await reader.readline()).startswith(b"HTTP/1.1 401")
        writer.close()
        assert await process.stop() == 0


async def test_never_ready_without_its_listeners(tmp_path):
    """The port of the returns is somebody else's: status 1 with a hint, and READY=1 is never told, for the units that wait for it would go on."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard, socket.create_server(("127.0.0.1", 0)) as other:
        heard.bind(str(tmp_path / "notify"))
        heard.setblocking(False)
        async with world(tmp_path) as made:
            made.environment |= {
                "NOTIFY_SOCKET": str(tmp_path / "notify"), "SMP_BRIDGE_RETURNS_PORT": str(other.getsockname()[1])
            }  # fmt: skip
            process = await made.run()
            assert await process.ended() == 1
            assert any("another process hold this port" in str(event) for event in process.events)
        with pytest.raises(BlockingIOError):
            heard.recv(4096)


async def test_an_instance_works_for_its_participant_alone(tmp_path):
    """An instance of another name ends with status 2, a second one of the same participant with status 1, and neither is ever ready."""
    async with world(tmp_path) as made:
        first = await made.run("--participant", "acme-test")
        await first.until("ready")
        second = await made.run("--participant", "acme-test", "--role", "market")
        other = await made.run("--participant", "other")
        assert await second.ended() == 1
        assert any("market:acme-test" in str(event["event"]) for event in second.events)
        assert await other.ended() == 2
        assert any("this instance is for other" in str(event["event"]) for event in other.events)
        assert first.process.returncode is None


async def test_works_under_the_units_own_filter(tmp_path):
    """From record to outcome under the unit's system calls, address families and memory rule; the kernel's clock may be asked there."""
    async with world(tmp_path) as made:
        made.prefix = (sys.executable, ROOT / "tests/support/unit_filter.py", ROOT / "systemd/smp-bridge.service")
        made.environment["SMP_BRIDGE_CLOCK"] = "kernel"
        process = await made.run()
        await process.until("ready")
        for ems in made.ems.values():
            await ems.request_assets()
        for site in made.ems:
            await made.until_words(site, "registered", 20)
        assert not any("adjtimex" in str(event.get("detail", "")) for event in process.events)
        assert await process.stop() == 0


async def test_credentials_are_systemds_to_guard(tmp_path):
    """A key and a password of mode 0440, as systemd hands them over: below $CREDENTIALS_DIRECTORY the service starts and signs with them. The very same key file, where that variable names another directory, is refused with status 2, and nothing is started."""
    async with world(tmp_path, assets=1) as made:
        handed, elsewhere = tmp_path / "handed", tmp_path / "elsewhere"
        for directory in (handed, elsewhere):
            directory.mkdir()
            write_private_file(directory / "smp-password", PASSWORD).chmod(0o440)
        (tmp_path / "keys/acme.pem").rename(handed / "signing-key").chmod(0o440)
        host = made.config / "bridge.yaml"
        text, asked = (
            host.read_text(),
            "password: {env: SMP_BRIDGE_SMP_PASSWORD, default: {file: ../keys/smp-password}}",
        )
        assert asked in text
        host.write_text(text.replace(asked, "password: {credential: smp-password}"))
        del made.environment["SMP_BRIDGE_SMP_PASSWORD"]
        made.environment |= {
            "SMP_BRIDGE_SIGNING_KEY": str(handed / "signing-key"), "CREDENTIALS_DIRECTORY": str(handed)
        }  # fmt: skip
        process = await made.run()
        await process.until("ready")
        await made.ems["rugby"].request_assets()
        await made.until_words("rugby", "registered", 1)
        assert await process.stop() == 0

        made.environment["CREDENTIALS_DIRECTORY"] = str(elsewhere)
        refused = await made.run()
        assert await refused.ended() == 2
        said = [str(event["event"]) for event in refused.events]
        assert any(f"{handed / 'signing-key'} is open to others (mode 0440)" in line for line in said), said
        assert not any("smp-password is open" in line for line in said)
        assert not any(line in {"listening", "ready"} for line in said)
