"""What a run needs around it: keys, certificates and configuration in a directory of their own, and the three contenders as processes."""

import asyncio
import itertools
import json
import os
import signal
import sys
import time
from contextlib import asynccontextmanager
from pathlib import Path

from children import HERE, Child, stop

from bridge.clock import SystemClock
from bridge.envelope import Algorithm
from bridge.keys import load_signer, new_key, public_jwks, write_private
from bridge.sandbox.pki import Authority

ROOT = HERE.parents[1]
PARTICIPANT = "acme-test"
PASSWORD = "of-the-bench"
FLOOR, JOURNAL, BRIDGE = "floor", "floor with journal", "bridge"
CONTENDERS = (FLOOR, JOURNAL, BRIDGE)
LIMIT = "max_size: 2GB"
NEVER_S = 80_000  # after the end of any run


class World:
    """One directory: `keys/`, and a directory for each run below it."""

    def __init__(self, directory: Path, *, polls: bool = False):
        self.directory = directory
        self.keys = directory / "keys"
        self.keys.mkdir(parents=True)
        self.polls = polls
        self._tags = itertools.count(1)
        clock = SystemClock.here()
        authority = Authority("bench authority", clock=clock)
        server = authority.server("bench")
        (self.keys / "ca.pem").write_bytes(authority.pem)
        self._private("server.pem", server.certificate)
        self._private("server.key.pem", server.private_key)
        for name in ("acme", "smp"):
            write_private(self.keys / f"{name}.pem", new_key(Algorithm.ES256))
        self.kid = load_signer(self.keys / "acme.pem").kid
        self.smp_kid = load_signer(self.keys / "smp.pem").kid
        self._private("smp.jwks.json", json.dumps(public_jwks([load_signer(self.keys / "smp.pem")])).encode())

    def new_tag(self) -> str:
        """The beginning of references that no other run of this world has."""
        return f"R{next(self._tags):03d}"

    def _private(self, name, data):
        path = self.keys / name
        path.write_bytes(data)
        path.chmod(0o600)

    def receiver(self):
        """SMP, not started yet."""
        keys = self.keys
        return Child(
            "receiver.py", certificate=str(keys / "server.pem"), private_key=str(keys / "server.key.pem"), ca=str(keys / "ca.pem"),
            participant_key=str(keys / "acme.pem"), smp_key=str(keys / "smp.pem"), smp_kid=self.smp_kid,
        )  # fmt: skip

    def configure(self, directory: Path, sites: dict[str, str], *, unlimited: bool = False) -> Path:
        """A configuration of the shipped `bridge.yaml` with these sites; returns its directory. `unlimited`: the journal may outgrow the shipped size."""
        config = directory / "config"
        (config / "sites").mkdir(parents=True)
        text = (ROOT / "config" / "bridge.yaml").read_text()
        assert LIMIT in text, "the shipped configuration limits the journal otherwise than the bench believes"
        (config / "bridge.yaml").write_text(text.replace(LIMIT, "max_size: null") if unlimited else text)
        (config / "profile.yaml").write_text(self._profile())
        for name, text in sites.items():
            (config / "sites" / f"{name}.yaml").write_text(text)
        return config

    def _profile(self):
        """The default profile. It polls each transaction 5 s after its call while no return has come, which the reference scripts never do."""
        text = (ROOT / "bridge" / "profiles" / "default.yaml").read_text()
        if self.polls:
            return text
        plan = "delays_s: [5, 10, 20, 40, 60]"
        assert plan in text, "the default profile polls otherwise than the bench believes"
        return text.replace(plan, f"delays_s: [{NEVER_S}]")

    def environment(self, directory: Path, smp_port: int) -> dict[str, str]:
        """Of the bridge's process; it keeps its bytecode, as an installed service does, whatever this process was told."""
        keys = self.keys
        return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"} | {
            "SMP_BRIDGE_JOURNAL": str(directory / "journal.db"), "SMP_BRIDGE_RETURNS_PORT": "0", "SMP_BRIDGE_ADMIN_PORT": "0", "SMP_BRIDGE_ADMIN_WITHOUT_TOKEN": "reading",
            "SMP_BRIDGE_RETURNS_CERTIFICATE": str(keys / "server.pem"), "SMP_BRIDGE_RETURNS_KEY": str(keys / "server.key.pem"),
            "SMP_BRIDGE_PROFILE": "profile.yaml", "SMP_BRIDGE_SMP_URL": f"https://127.0.0.1:{smp_port}", "SMP_BRIDGE_SMP_USERNAME": "acme",
            "SMP_BRIDGE_SMP_PASSWORD": PASSWORD, "SMP_BRIDGE_SIGNING_KEY": str(keys / "acme.pem"),
            "SMP_BRIDGE_SMP_JWKS": str(keys / "smp.jwks.json"), "SMP_BRIDGE_SMP_CA": str(keys / "ca.pem"),
        }  # fmt: skip

    def floor_options(self, directory: Path, smp_port: int, peer: object, *, journal: bool) -> dict:
        return {
            "port": smp_port, "ca": str(self.keys / "ca.pem"), "key": str(self.keys / "acme.pem"), "kid": self.kid, "peer": peer,
            "login": json.dumps({"username": "acme", "password": PASSWORD}), "journal": str(directory / "floor.db") if journal else None,
        }  # fmt: skip


class Bridge:
    """`smp-bridge run` on a configuration; `probe` names the bench's own entry, which counts syncs or times loop steps beside it."""

    def __init__(self, process, directory: Path, began_ns: int):
        self.process = process
        self.began_ns = began_ns  # CLOCK_MONOTONIC, before the process was made
        self.directory = directory
        self.journal = directory / "journal.db"
        self.events = []
        self._moved = asyncio.Event()
        self._reading = asyncio.ensure_future(self._read())

    @property
    def pid(self):
        return self.process.pid

    async def _read(self):
        with (self.directory / "bridge.log").open("wb") as log:
            async for line in self.process.stderr:
                log.write(line)
                log.flush()
                try:
                    self.events.append(json.loads(line))
                except ValueError:
                    self.events.append({"event": line.decode("utf-8", "replace")})
                self._moved.set()
        self._moved.set()

    async def listening(self, listener):
        """The port of a listener, once it has one."""
        (event,) = await self.logged("listening", 1, listener=listener)
        return event["port"]

    async def logged(self, name, count, within_s=60.0, **fields):
        """So many log lines of this name with these fields, once they are there."""
        async with asyncio.timeout(within_s):
            while True:
                found = [
                    event for event in self.events if event.get("event") == name and fields.items() <= event.items()
                ]
                if len(found) >= count:
                    return found[:count]
                if self.process.returncode is not None:
                    raise RuntimeError(f"the bridge has ended: {self.events[-5:]}")
                self._moved.clear()
                await self._moved.wait()

    async def returns_url(self):
        return f"https://127.0.0.1:{await self.listening('returns')}/v1/returns/{PARTICIPANT}"

    async def told(self, file, within_s=120.0):
        """What the probe in this process writes when it is asked."""
        file.unlink(missing_ok=True)
        self.process.send_signal(signal.SIGUSR1)
        async with asyncio.timeout(within_s):
            while not file.exists():
                await asyncio.sleep(0.05)
        return json.loads(file.read_text())

    async def end(self):
        code = await stop(self.process)
        await self._reading
        return code


@asynccontextmanager
async def running_bridge(
    world: World,
    directory: Path,
    sites: dict[str, str],
    smp_port: int,
    *,
    probe: dict | None = None,
    unlimited: bool = False,
):
    """The bridge as its own process, ended in good order."""
    directory.mkdir(parents=True, exist_ok=True)
    config = directory / "config"
    if not config.exists():  # a second start on the same journal
        world.configure(directory, sites, unlimited=unlimited)
    command = (
        [sys.executable, str(HERE / "probed_bridge.py")] if probe else [str(Path(sys.executable).parent / "smp-bridge")]
    )
    began_ns = time.monotonic_ns()
    process = await asyncio.create_subprocess_exec(
        *command, "run", "--config", str(config), stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        env=world.environment(directory, smp_port) | (probe or {}),
    )  # fmt: skip
    bridge = Bridge(process, directory, began_ns)
    try:
        yield bridge
    finally:
        await bridge.end()


@asynccontextmanager
async def running_floor(world: World, directory: Path, script: str, smp_port: int, peer: object, *, journal: bool):
    """A reference script as its own process."""
    directory.mkdir(parents=True, exist_ok=True)
    options = world.floor_options(directory, smp_port, peer, journal=journal)
    with (directory / "floor.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(HERE / script), json.dumps(options), stdout=log, stderr=log
        )
    try:
        yield process
    finally:
        await stop(process)
