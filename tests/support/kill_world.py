"""Everything around a bridge that is killed: EMSs and SMP in processes of their own, and the journal as it lies on disk."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from forked import forked
from kill_points import ARMED, CREATE_PATHS, MARK, NTH, POINT, VITALS
from processes import CONFIG
from quick_yaml import write_yaml
from service import PARTICIPANT, profile_content, write_profile

from bridge.envelope import Algorithm
from bridge.journal.sqlite import open_reader
from bridge.keys import load_signer, new_key, public_jwks, write_private
from bridge.model import Operation
from bridge.profile import parse_profile
from bridge.submission import SubmissionState
from bridge.testing.proxy import FaultProxy

SUPPORT = Path(__file__).parent
PASSWORD = "of the test"
SITES = ("ipswich", "rugby", "crawley")
PREFIXES = ("BESS", "RK", "EV")
ANSWER_S = 60.0
EVENTS_KEPT = 60
POLL_S = 0.02


def refused(reference: str) -> bool:
    """Whether SMP refuses this record: one in ten."""
    return reference.endswith("7")


class Lines:
    """A helper process that answers each line of JSON with one."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self._turn = asyncio.Lock()

    async def hear(self) -> dict[str, Any]:
        async with asyncio.timeout(ANSWER_S):
            line = await self.process.stdout.readline()
        assert line, "the EMSs' process has ended; are the test peers installed (make peers)?"
        return json.loads(line)

    async def order(self, op: str, **details: object) -> dict[str, Any]:
        async with self._turn:
            self.process.stdin.write(json.dumps({"op": op, **details}).encode() + b"\n")
            return await self.hear()


@dataclass
class Ledger:
    """SMP's own book."""

    creates: Mapping[str, int]
    outcomes: Mapping[str, str]
    requests: list[Mapping[str, Any]]
    returns: list[Mapping[str, Any]]

    def in_the_air(self, reference: str) -> bool:
        """Whether SMP has a Create of this record that it has not answered."""
        return any(entry["status"] == 0 and reference in entry["references"] for entry in self.requests)

    def has(self, reference: str) -> bool:
        """Whether SMP has seen a Create of this record."""
        return any(reference in entry["references"] for entry in self.requests)

    def transactions(self) -> dict[str, str]:
        """The transaction of each record, its first one."""
        found: dict[str, str] = {}
        for entry in self.requests:
            for reference in entry["references"] if entry["transaction_id"] else ():
                found.setdefault(reference, entry["transaction_id"])
        return found

    def pushed(self) -> set[str]:
        """Submissions of which SMP has pushed a return, whether it arrived or not; our own ids, as SMP had them in each call."""
        transactions = {entry["transaction_id"] for entry in self.returns}
        return {entry["correlation_id"] for entry in self.requests if entry["transaction_id"] in transactions}


class Smp:
    """The sandbox as a process, turned over its control port."""

    def __init__(self, process: asyncio.subprocess.Process, control: str, http: aiohttp.ClientSession) -> None:
        self.process = process
        self._control = control
        self._http = http

    async def turn(self, **knobs: object) -> None:
        async with self._http.patch(f"{self._control}/knobs", json=knobs) as answer:
            assert answer.status == 200, await answer.text()

    async def ledger(self) -> Ledger:
        async with self._http.get(f"{self._control}/ledger") as answer:
            book = await answer.json()
        return Ledger(*(book[name] for name in ("creates", "outcomes", "requests", "returns")))

    async def expire_tokens(self) -> None:
        async with self._http.post(f"{self._control}/expire-tokens") as answer:
            assert answer.status == 200, await answer.text()

    async def set_return_url(self, url: str) -> None:
        async with self._http.put(f"{self._control}/return-url/{PARTICIPANT}", data=url) as answer:
            assert answer.status == 200, await answer.text()


class Bridge:
    """One life of the bridge; it may have a moment at which it kills itself."""

    def __init__(self, world: "World", point: str = "", nth: int = 1) -> None:
        self._world = world
        self.point = point
        self._nth = nth
        self.events: list[dict[str, Any]] = []
        self.born_ns = 0
        self._armed = world.directory / "armed"
        self._mark = world.directory / "mark"
        self._vitals = world.directory / "vitals"
        self._ready = asyncio.Event()

    async def start(self, *, armed: bool = False) -> "Bridge":
        self._armed.unlink(missing_ok=True)
        self._mark.unlink(missing_ok=True)
        if armed:
            self.arm()
        environment = {
            **os.environ, **self._world.environment, POINT: self.point, ARMED: str(self._armed), MARK: str(self._mark),
            NTH: str(self._nth), VITALS: str(self._vitals), CREATE_PATHS: ",".join(self._world.create_paths),
        }  # fmt: skip
        self.born_ns = self._world.now_ns()
        self.process = await forked(
            "run", "--config", self._world.config, environment=environment, code="import kill_child; kill_child.main()",
            stdout=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        self._reading = self._world.group.create_task(self._read())
        return self

    async def _read(self) -> None:
        async for line in self.process.stderr:
            try:
                event = json.loads(line)
            except ValueError:
                event = {"event": line.decode(errors="replace").rstrip()}
            self.events = [*self.events[-EVENTS_KEPT:], event]
            if event.get("event") == "listening" and event["listener"] == "returns":
                await self._world.listening(event["port"])
            if event.get("event") == "ready":
                self._ready.set()
        self._ready.set()

    async def vitals(self) -> dict[str, Any]:
        """Resident memory (KiB), open files, threads and asyncio tasks (by their coroutines' names, too) of this life, now."""
        self._vitals.unlink(missing_ok=True)
        self.process.send_signal(signal.SIGUSR1)
        async with asyncio.timeout(ANSWER_S):
            while not self._vitals.exists():
                self.assert_alive()
                await asyncio.sleep(POLL_S)
        return json.loads(self._vitals.read_text())

    def arm(self) -> None:
        """From now on its moment counts."""
        self._armed.touch()

    async def ready(self, within_s: float = ANSWER_S) -> None:
        async with asyncio.timeout(within_s):
            await self._ready.wait()
        self.assert_alive()

    def assert_alive(self) -> None:
        assert self.process.returncode is None, f"the bridge ended with {self.process.returncode}: {self.events}"

    async def kill(self) -> None:
        self.process.kill()
        await self.ended()

    async def ended(self, within_s: float = ANSWER_S) -> int:
        async with asyncio.timeout(within_s):
            code = await self.process.wait()
            await self._reading
        return code

    async def over(self, within_s: float) -> bool:
        """Whether this life ends within so long."""
        try:
            await self.ended(within_s)
        except TimeoutError:
            return False
        return True

    async def died_at_its_moment(self, within_s: float) -> bool:
        """Wait until it killed itself; False when its moment did not come in time (it is killed then)."""
        try:
            code = await self.ended(within_s)
        except TimeoutError:
            await self.kill()
            return False
        assert code == -signal.SIGKILL, f"the bridge ended with {code}: {self.events}"
        return self._mark.exists() and self._mark.read_text() == self.point

    async def stop(self) -> None:
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                assert await self.ended() == 0, self.events
            except TimeoutError:
                await self.kill()
                raise


@dataclass
class World:
    """Three EMSs, SMP, one journal."""

    directory: Path
    group: asyncio.TaskGroup
    environment: dict[str, str] = field(default_factory=dict)
    bridges: list[Bridge] = field(default_factory=list)
    returns_proxy: FaultProxy | None = None  # where SMP pushes to, when returns shall meet faults too

    @property
    def config(self) -> Path:
        return self.directory / "config"

    @property
    def journal(self) -> Path:
        return self.directory / "journal.db"

    @property
    def create_paths(self) -> list[str]:
        return [self.profile.calls[operation.value].path for operation in Operation]

    @property
    def concurrency(self) -> int:
        return self.profile.limits.concurrency

    def now_ns(self) -> int:
        return int(asyncio.get_running_loop().time() * 1e9)

    async def listening(self, port: int) -> None:
        if self.returns_proxy is not None:
            self.returns_proxy.upstream = ("127.0.0.1", port)
            port = self.returns_proxy.port
        path = self.profile.return_path.replace("{participant}", PARTICIPANT)
        await self.smp.set_return_url(f"https://127.0.0.1:{port}{path}")

    async def run(self, point: str = "", *, nth: int = 1, armed: bool = False) -> Bridge:
        bridge = Bridge(self, point, nth)
        self.bridges = [*self.bridges[-1:], bridge]
        return await bridge.start(armed=armed)

    async def request(self, site: str, count: int = 1) -> list[str]:
        return (await self.ems.order("request", site=site, count=count))["references"]

    async def shown(self) -> dict[str, tuple[str, str]]:
        """State word and transaction id of each reference, as the EMSs hold them."""
        found = (await self.ems.order("shown"))["shown"]
        return {reference: (word, transaction) for reference, (word, transaction) in found.items()}

    async def on_its_way(self) -> dict[str, frozenset[str]]:
        """The submissions that stand as SENDING in the journal, with their keys; read while no bridge runs."""
        return await self.submissions_in(SubmissionState.SENDING) if self.journal.exists() else {}

    async def submissions_in(self, state: SubmissionState) -> dict[str, frozenset[str]]:
        """The submissions that stand so in the journal, with their keys."""
        reader = await open_reader(self.journal)
        try:
            views = await reader.submissions(state=state, limit=100_000)
            return {view.id: frozenset([item.key for item in await reader.submission_items(view.id)]) for view in views}
        finally:
            await reader.close()


def _site_files(world: World, slots: int) -> None:
    """The shipped sites; Modbus with as many slots as are used, chargers waiting a moment for each other so that commit 2 is on their way."""
    for name in SITES:
        text = (CONFIG / f"sites/{name}.yaml").read_text()
        if name == "rugby":
            assert text.count("count: 64") == 2
            text = text.replace("count: 64", f"count: {slots}")
        if name == "crawley":
            flow = "  chargers:\n    adapter: broker\n"
            assert flow in text
            text = text.replace(flow, flow + "    linger: 30ms\n")
        (world.config / "sites" / f"{name}.yaml").write_text(text)


@asynccontextmanager
async def _smp(world: World, keys: Path, knobs: Mapping[str, object]) -> AsyncIterator[Smp]:
    """`smp-bridge sandbox` with one account, and what a bridge to it needs in the environment."""
    write_private(keys / "acme.pem", new_key(Algorithm.ES256))
    (keys / "acme.jwks.json").write_text(json.dumps(public_jwks([load_signer(keys / "acme.pem")])))
    (keys / "password").write_text(PASSWORD)
    (keys / "password").chmod(0o600)
    accounts, first, directory = world.directory / "accounts.yaml", world.directory / "knobs.json", keys / "sandbox"
    write_yaml(accounts, [{
        "name": PARTICIPANT, "user": "acme", "password_file": str(keys / "password"), "jwks": str(keys / "acme.jwks.json"),
        "sender": "ACME",
    }])  # fmt: skip
    first.write_text(json.dumps(knobs))
    process = await forked(
        "sandbox", "--accounts", accounts, "--dir", directory, "--profile", world.config / "profile.yaml", "--port", "0",
        "--control-port", "0", "--knobs", first, environment=os.environ, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        said: dict[str, str] = {}
        async with asyncio.timeout(ANSWER_S):
            while "A" not in said:
                line = (await process.stdout.readline()).decode()
                assert line, "the sandbox did not start"
                name, _, rest = line.replace("control API", "control").partition(" ")
                said[name] = rest.split()[0]
                said["url"] = rest.split()[1] if name == "SMP" else said.get("url", "")
        world.environment |= {
            "SMP_BRIDGE_JOURNAL": str(world.journal), "SMP_BRIDGE_RETURNS_PORT": "0", "SMP_BRIDGE_ADMIN_PORT": "0", "SMP_BRIDGE_ADMIN_WITHOUT_TOKEN": "reading", "SMP_BRIDGE_CLOCK": "none",
            "SMP_BRIDGE_PROFILE": "profile.yaml", "SMP_BRIDGE_SMP_URL": said["url"], "SMP_BRIDGE_SMP_USERNAME": "acme",
            "SMP_BRIDGE_SMP_PASSWORD": PASSWORD, "SMP_BRIDGE_SIGNING_KEY": str(keys / "acme.pem"),
            "SMP_BRIDGE_SMP_JWKS": str(directory / "smp.jwks.json"), "SMP_BRIDGE_SMP_CA": str(directory / "ca.pem"),
            "SMP_BRIDGE_RETURNS_CERTIFICATE": str(directory / "returns.crt.pem"),
            "SMP_BRIDGE_RETURNS_KEY": str(directory / "returns.key.pem"),
        }  # fmt: skip
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_S)) as http:
            yield Smp(process, said["control"], http)
    finally:
        await _end(process)


@asynccontextmanager
async def _ems(directory: Path, places: int, slots: int) -> AsyncIterator[tuple[Lines, dict[str, str]]]:
    directory.mkdir()
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(SUPPORT / "kill_ems.py"), str(directory), str(places), str(slots),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=2**24,
    )  # fmt: skip
    try:
        lines = Lines(process)
        yield lines, (await lines.hear())["environment"]
    finally:
        process.stdin.close()
        await _end(process, signal_too=False)


async def _end(process: asyncio.subprocess.Process, *, signal_too: bool = True) -> None:
    if process.returncode is None and signal_too:
        process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(ANSWER_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


@asynccontextmanager
async def world(
    directory: Path, *, places: int, slots: int, knobs: Mapping[str, object], **profile: object
) -> AsyncIterator[World]:
    """Everything but the bridge; `run` starts one. `places` and `slots` are how many assets the OPC UA server and the Modbus device have room for."""
    content = profile_content("default", **profile)
    keys = directory / "keys"
    keys.mkdir(parents=True)
    (directory / "config/sites").mkdir(parents=True)
    async with asyncio.TaskGroup() as group:
        made = World(directory, group)
        made.profile = parse_profile(content)
        write_profile(made.config / "profile.yaml", content)
        (made.config / "bridge.yaml").write_text((CONFIG / "bridge.yaml").read_text())
        _site_files(made, slots)
        async with _smp(made, keys, knobs) as made.smp, _ems(directory / "ems", places, slots) as (ems, environment):
            made.ems = ems
            made.environment |= environment
            try:
                yield made
            except BaseException as error:
                for bridge in made.bridges:
                    error.add_note(f"{bridge.point}: {bridge.events[-20:]}"[:6000])
                raise
            finally:
                for bridge in made.bridges:
                    if bridge.process.returncode is None:
                        await bridge.kill()
