"""The bridge as processes, on real Modbus EMSs and against the sandbox in the test's own process."""

import asyncio
import json
import os
import signal
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from commands import command
from forked import MAIN, forked
from service import CLOCK, PARTICIPANT, profile_content, write_profile

from bridge.demo.ems_modbus import ModbusEms
from bridge.envelope import Algorithm
from bridge.journal.sqlite import open_reader
from bridge.keys import load_signer, new_key, public_jwks, write_private
from bridge.profile import parse_profile
from bridge.sandbox import Knobs, Sandbox, SandboxOptions, SandboxParticipant
from bridge.sandbox.pki import Authority

CONFIG = Path(__file__).parents[2] / "config"
PASSWORD = "of the test"


class Process:
    """One `smp-bridge run`; its log lines as events."""

    def __init__(self, world, *arguments):
        self.world = world
        self.arguments = arguments
        self.events = []
        self.changed = asyncio.Event()

    async def start(self):
        self.process = await self.world.started("run", "--config", str(self.world.config), *self.arguments)
        self.reading = self.world.group.create_task(self._read())
        return self

    async def _read(self):
        async for line in self.process.stderr:
            try:
                event = json.loads(line)
            except ValueError:
                event = {"event": line.decode()}
            self.events.append(event)
            if event.get("event") == "listening" and event["listener"] == "returns":
                self.world.listening(event["port"])
            self.changed.set()
        self.changed.set()

    async def until(self, name, within_s=20):
        async with asyncio.timeout(within_s):
            while not any(event["event"] == name for event in self.events):
                assert self.process.returncode is None, self.events
                self.changed.clear()
                await self.changed.wait()

    async def ended(self, within_s=20):
        async with asyncio.timeout(within_s):
            code = await self.process.wait()
            await self.reading
        return code

    async def stop(self):
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        return await self.ended()

    async def kill(self):
        self.process.kill()
        await self.ended()


class World:
    """Two Modbus sites, one participant, one journal."""

    prefix = ()
    """What each process is started by: a command that puts it somewhere else, say."""

    def __init__(self, directory):
        self.config = directory / "config"
        self.journal = directory / "journal.db"
        self.ems = {}
        self.environment = {}
        self.processes = []
        self.code = MAIN  # what a process runs
        self.version = None  # a directory that holds the packages of another version

    @property
    def version_path(self):
        return {"PYTHONPATH": str(self.version)} if self.version else {}

    async def started(self, *arguments):
        """A process of its `code`: of a new interpreter where it is put somewhere else or is of another version, else forked (forked.py)."""
        environment, quiet = {**os.environ, **self.environment, **self.version_path}, asyncio.subprocess.DEVNULL
        if not self.prefix and self.version is None:
            return await forked(*arguments, environment=environment, code=self.code, stdout=quiet)
        command = [*self.prefix, sys.executable, "-c", self.code, *arguments]
        return await asyncio.create_subprocess_exec(
            *command, env=environment, cwd=self.version, stdout=quiet, stderr=asyncio.subprocess.PIPE
        )

    def listening(self, port):
        path = self.profile.return_path.replace("{participant}", PARTICIPANT)
        self.sandbox.set_return_url(PARTICIPANT, f"https://127.0.0.1:{port}{path}")

    async def run(self, *arguments):
        process = await Process(self, *arguments).start()
        self.processes.append(process)
        return process

    async def say(self, *arguments, within_s=60):
        """Run a command to its end beside whatever runs; returns its exit status, what it printed and what it complained of."""
        given = [*arguments, "--config", self.config]
        return await command(*given, environment=self.environment, within_s=within_s)

    async def read(self, ask):
        journal = await open_reader(self.journal)
        try:
            return await ask(journal)
        finally:
            await journal.close()

    async def states(self):
        return [view.state.value for view in await self.read(lambda journal: journal.submissions(limit=1000))]

    async def until_words(self, site, word, count, within_s=30):
        ems = self.ems[site]
        try:
            async with asyncio.timeout(within_s):
                while sum(item.state == word for item in ems.items().values()) != count:
                    await asyncio.sleep(0.05)
        except TimeoutError:
            words = [item.state for item in ems.items().values()]
            raise AssertionError(
                f"{site} holds { ({w: words.count(w) for w in set(words)}) }, not {count} {word}"
            ) from None

    async def until_told(self, site, within_s):
        """Wait until each asset is registered and created, or in doubt because SMP never had its call."""
        ems, ledger = self.ems[site], self.sandbox.ledger

        def told(item):
            created = ledger.creates(item.reference)
            return (item.state, created) in {("registered", 1), ("in_doubt", 0)}

        try:
            async with asyncio.timeout(within_s):
                while not all(told(item) for item in ems.items().values()):
                    assert max(self.created(site)) <= 1, f"{site}: created twice"
                    await asyncio.sleep(0.05)
        except TimeoutError:
            open_ = [(item.state, ledger.creates(item.reference)) for item in ems.items().values() if not told(item)]
            raise AssertionError(f"{site} was not told: { ({one: open_.count(one) for one in set(open_)}) }") from None

    def created(self, site):
        return [self.sandbox.ledger.creates(asset.reference) for asset in self.ems[site].assets]


async def market_side(made, stack, directory, *, profile, knobs, **changes):
    """Keys, bridge.yaml of the shipped configuration, and a sandbox that knows its participant; `changes` are sections of the profile."""
    keys = directory / "keys"
    keys.mkdir()
    (made.config / "sites").mkdir(parents=True)
    content = profile_content(profile, **changes)
    write_profile(made.config / "profile.yaml", content)
    made.profile = parse_profile(content)
    (made.config / "bridge.yaml").write_text((CONFIG / "bridge.yaml").read_text())
    write_private(keys / "acme.pem", new_key(Algorithm.ES256))
    authority = made.authority = Authority("test", clock=CLOCK)
    server = authority.server("bridge")
    account = SandboxParticipant(
        name=PARTICIPANT,
        user="acme",
        password=PASSWORD,
        sender="ACME",
        jwks=public_jwks([load_signer(keys / "acme.pem")]),
    )
    options = SandboxOptions(
        profile=made.profile, participants=[account], return_ca=authority.pem, knobs=knobs or Knobs()
    )
    made.sandbox = await stack.enter_async_context(Sandbox(options, clock=CLOCK))
    for name, data in {
        "smp.jwks.json": json.dumps(made.sandbox.jwks()).encode(), "smp-ca.pem": made.sandbox.ca_pem,
        "returns.crt.pem": server.certificate, "returns.key.pem": server.private_key,
    }.items():  # fmt: skip
        (keys / name).write_bytes(data)
        (keys / name).chmod(0o600)
    made.environment = {
        "SMP_BRIDGE_JOURNAL": str(made.journal), "SMP_BRIDGE_RETURNS_PORT": "0", "SMP_BRIDGE_ADMIN_PORT": "0", "SMP_BRIDGE_ADMIN_WITHOUT_TOKEN": "reading", "SMP_BRIDGE_CLOCK": "none",
        "SMP_BRIDGE_RETURNS_CERTIFICATE": str(keys / "returns.crt.pem"), "SMP_BRIDGE_RETURNS_KEY": str(keys / "returns.key.pem"),
        "SMP_BRIDGE_PROFILE": "profile.yaml", "SMP_BRIDGE_SMP_URL": made.sandbox.base_url, "SMP_BRIDGE_SMP_USERNAME": "acme",
        "SMP_BRIDGE_SMP_PASSWORD": PASSWORD, "SMP_BRIDGE_SIGNING_KEY": str(keys / "acme.pem"),
        "SMP_BRIDGE_SMP_JWKS": str(keys / "smp.jwks.json"), "SMP_BRIDGE_SMP_CA": str(keys / "smp-ca.pem"),
    }  # fmt: skip


@asynccontextmanager
async def world(directory, *, assets=20, knobs=None, profile="default", **changes):
    """Everything but the bridge's processes; `run` starts those. `changes` are sections of the profile."""
    made = World(directory)
    async with AsyncExitStack() as stack:
        await market_side(made, stack, directory, profile=profile, knobs=knobs, **changes)
        rugby = (CONFIG / "sites/rugby.yaml").read_text()
        for site, prefix in (("rugby", "RK"), ("derby", "DY")):
            text = rugby.replace("site: rugby", f"site: {site}").replace(
                "SMP_BRIDGE_RUGBY", f"SMP_BRIDGE_{site.upper()}"
            )
            (made.config / f"sites/{site}.yaml").write_text(text)
            ems = await stack.enter_async_context(ModbusEms(assets, seed=1, site=site, prefix=prefix))
            made.ems[site] = ems
            made.environment |= {
                f"SMP_BRIDGE_{site.upper()}_HOST": ems.host,
                f"SMP_BRIDGE_{site.upper()}_PORT": str(ems.port),
            }
        made.group = await stack.enter_async_context(asyncio.TaskGroup())
        try:
            yield made
        except BaseException as error:
            for process in made.processes:
                error.add_note(f"{process.arguments}: {process.events[-12:]}"[:6000])
            raise
        finally:
            for process in made.processes:
                if process.process.returncode is None:
                    await process.stop()
