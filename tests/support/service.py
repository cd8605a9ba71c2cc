"""The whole service against the sandbox: a real host, real TLS, a real journal; only the EMSs are in memory."""

import asyncio
import json
from contextlib import AsyncExitStack, asynccontextmanager
from copy import deepcopy
from functools import cache
from pathlib import Path

import memory_adapter as memory
import pytest
from certificates import rsa_key
from mosquitto import free_port
from private_files import write_private_file
from quick_yaml import read_yaml, write_yaml
from yarl import URL

from bridge import registry
from bridge.api import Adapter
from bridge.app import Host, Role, Running
from bridge.clock import SystemClock
from bridge.config import load
from bridge.envelope import Algorithm
from bridge.journal.configured import open_configured_reader
from bridge.journal.port import JournalReader
from bridge.keys import load_signer, new_key, public_jwks, write_private
from bridge.profile import load_profile, parse_profile, shipped_profiles
from bridge.sandbox import Knobs, Sandbox, SandboxOptions, SandboxParticipant
from bridge.sandbox.pki import Authority
from bridge.secret import Secret

CLOCK = SystemClock.here()
PROFILES = ["default", "odd", "drawn-3"]
every_profile = pytest.mark.parametrize("profile", PROFILES)
PARTICIPANT = "acme-test"
SHIPPED = Path(__file__).parents[2] / "bridge/profiles"
# No poll is quicker than a return: for tests that look at what a return brings.
RETURNS_ALONE = {"poll": {"delays_s": [60], "overdue_s": 60}}
# Short waits, so that tests that need polls or retries see them within a second.
QUICK = {
    "poll": {"delays_s": [0.2, 0.2, 0.3, 0.5], "every_s": 1, "until_s": 60, "overdue_s": 5},
    "retry": {"delays_s": [0.1, 0.2]},
}

ASSETS = {
    "adapter": "ems",
    "operation": "asset.create",
    "records": {
        "key": "reference",
        "fields": {"reference": "reference", "name": "name", "kw": "kw", "assets": "assets"},
    },
    "submit": {"when": "request"},
    "payload": {
        "assetReference": "reference",
        "assetName": {"from": "name", "default": "North Yard Battery"},
        "importMpan": {"const": "1023456789017"},
        "postcode": {"const": "IP1 2AB"},
        "gspGroup": {"const": "_A"},
        "connectionType": {"const": "DISTRIBUTION"},
        "connectionVoltageKv": {"const": 33},
        "technologyType": {"const": "SOLAR"},
        "maxExportKw": "kw",
        "maxImportKw": {"const": 10},
        "meteringType": {"const": "HH"},
        "meteringIntervalMs": {"const": 1800000},
        "effectiveFrom": {"const": "2026-12-01T00:00:00Z"},
    },
    "outcome": {"state": "state", "transactionId": "transactionId", "errorCode": "errorCode"},
    "latency_budget": "250ms",
}
UNIT = {
    "adapter": "ems",
    "operation": "unit.create",
    "records": {
        "key": "reference",
        "fields": {"reference": "reference", "name": "name", "kw": "kw", "assets": "assets"},
    },
    "submit": {"when": "request"},
    "payload": {
        "unitReference": "reference",
        "unitName": {"const": "Flexible Unit"},
        "bmParticipation": {"const": "NON_BM"},
        "service": {"const": "DC"},
        "direction": {"const": "BOTH"},
        "capacityKw": "kw",
        "gspGroup": {"const": "_A"},
        "alignedAssets": {"each": "assets", "item": {"assetReference": "$item"}},
        "effectiveFrom": {"const": "2026-12-01T00:00:00Z"},
    },
    "outcome": {"state": "state", "transactionId": "transactionId", "errorCode": "errorCode"},
}


def profile_content(name, **changes):
    """A shipped profile's content by its name, or a drawn one's (`drawn-7`), with quick waits and these sections changed."""
    content = deepcopy(_content(name))
    for section, values in {**QUICK, **changes}.items():
        content[section] = {**content.get(section, {}), **values} if isinstance(values, dict) else values
    return content


@cache
def _content(name):
    if name in shipped_profiles():
        return read_yaml(SHIPPED / f"{name}.yaml")
    from random_profile import random_profile

    return random_profile(int(name.removeprefix("drawn-")))


class Service:
    """One sandbox, one host that can be stopped and started again, and an EMS per site."""

    def __init__(self, directory, sandbox, sites):
        self.directory = directory
        self.sandbox = sandbox
        self.ems = sites
        self.running = Running()
        self._task = None
        self.host = None
        self._group = None
        self.role = Role.ALL
        self.clock = CLOCK
        self.discipline = None
        self.mortal = False
        self.ended_by = None

    @property
    def knobs(self):
        return self.sandbox.knobs

    @property
    def ledger(self):
        return self.sandbox.ledger

    @property
    def journal_path(self):
        return self.directory / "var/journal.db"

    def config(self):
        adapters: dict[str, Adapter] = {name: memory.memory_adapter(ems, name) for name, ems in self.ems.items()}

        def find(protocol):
            return adapters[protocol] if protocol in adapters else registry.find(protocol)

        return load(self.directory / "config", find, environ={})

    async def start(self):
        self.running = Running()
        self.host = Host(self.config(), clock=self.clock, role=self.role, discipline=self.discipline)
        self._task = self._group.create_task(self._run(self.host))
        ready = self._group.create_task(self.running.ready.wait())
        await asyncio.wait({ready, self._task}, return_when=asyncio.FIRST_COMPLETED, timeout=20)
        ready.cancel()
        assert self.running.ready.is_set(), "the host is not ready"
        if self.running.returns_port:
            path = self.sandbox_profile.return_path.replace("{participant}", PARTICIPANT)
            self.sandbox.set_return_url(PARTICIPANT, f"https://127.0.0.1:{self.running.returns_port}{path}")

    async def _run(self, host):
        try:
            await host.run(self.running)
        except Exception as error:
            if not self.mortal:
                raise
            self.ended_by = error

    async def crashed(self, within_s=30):
        """Wait until the host ended by itself, which `mortal` allows it; what ended it."""
        await asyncio.wait({self._task}, timeout=within_s)
        assert self.ended_by is not None, "the host works on"
        error, self.ended_by = self.ended_by, None
        return error

    async def stop(self):
        if self._task is not None and not self._task.done():
            self.running.stop.set()
            async with asyncio.timeout(20):
                await self._task

    async def kill(self):
        """End the host as a lost process would: nothing is drained. (A real kill -9 stands in the tests with processes.)"""
        self._task.cancel()
        await asyncio.wait({self._task})

    async def release(self, count=1):
        """Let this many held returns go; one may not have been asked for yet."""
        async with asyncio.timeout(10):
            while (count := count - await self.sandbox.release()) > 0:
                await asyncio.sleep(0.02)

    async def read(self, ask):
        """What the journal says, read beside the running host."""
        journal: JournalReader = await open_configured_reader(self.config().host.journal)
        try:
            return await ask(journal)
        finally:
            await journal.close()

    async def states(self):
        """The state of each submission, oldest first."""
        return [view.state.value for view in reversed(await self.read(lambda journal: journal.submissions(limit=1000)))]

    async def told(self):
        """What a reader of a failed test wants to know."""
        views = await self.read(lambda journal: journal.submissions(limit=20))
        alarms = await self.read(lambda journal: journal.alarms())
        lines = [f"{view.state.value} {view.flow} {view.reason}" for view in views]
        lines += [f"alarm {alarm.code} {alarm.subject} {alarm.text}" for alarm in alarms]
        lines += [f"request {r.operation} {r.status} {r.problem}" for r in self.ledger.requests[-20:]]
        lines += [f"return {r.status} {r.problem}" for r in self.ledger.returns[-20:]]
        lines += [f"{site}: {ems.written}"[:2000] for site, ems in self.ems.items()]
        return "\n".join(lines)

    async def until_states(self, *wanted, within_s=15.0):
        """Wait until the submissions have exactly these states."""
        found = None
        try:
            async with asyncio.timeout(within_s):
                while (found := sorted(await self.states())) != sorted(wanted):
                    await asyncio.sleep(0.03)
        except TimeoutError:
            raise AssertionError(f"submissions are {found}, expected {sorted(wanted)}") from None


@asynccontextmanager
async def service(directory, **options):
    """A running service; what `prepared` takes."""
    async with prepared(directory, **options) as made:
        await made.start()
        try:
            yield made
        except BaseException as error:
            error.add_note(await made.told())
            raise
        finally:
            await made.stop()


@asynccontextmanager
async def prepared(
    directory, *, profile="default", sites=("north",), flows=None, changes=None, knobs=None, listener=True, host=None,
    through=None, clock=CLOCK, smp_clock=CLOCK, entry=None, passphrase="",
):  # fmt: skip
    """Everything but a running host: a sandbox, keys, the configuration; `flows` are the flows of every site, `changes` those of the profile's sections, `host` those of bridge.yaml.

    `entry` are more settings of the participant's entry; its key is encrypted with `passphrase`, if there is one.

    `through(sandbox)`, an async context manager, gives the address under which the host finds SMP, where it is not the sandbox's own.
    `clock` is the host's and its EMSs', `smp_clock` the sandbox's.
    """
    content = profile_content(profile, **(changes or {}))
    config = directory / "config"
    (config / "sites").mkdir(parents=True)
    keys = directory / "keys"
    keys.mkdir()
    secret = Secret(passphrase) if passphrase else None
    parsed = parse_profile(content)
    certified = parsed.signature_form.certified
    write_private(keys / "acme.pem", rsa_key("acme") if certified else new_key(Algorithm.ES256), password=secret)
    write_private_file(keys / "password", "s3cret-of-the-test\n")
    account = SandboxParticipant(
        name=PARTICIPANT, user="acme", password="s3cret-of-the-test", sender="ACME",
        jwks=public_jwks([load_signer(keys / "acme.pem", password=secret, alg=Algorithm.RS256 if certified else None)]),
    )  # fmt: skip
    authority = Authority("returns", clock=CLOCK)
    options = SandboxOptions(profile=parsed, participants=[account], return_ca=authority.pem, knobs=knobs or Knobs())
    async with AsyncExitStack() as stack:
        sandbox = await stack.enter_async_context(Sandbox(options, clock=smp_clock))
        url = await stack.enter_async_context(through(sandbox)) if through else sandbox.base_url
        if certified:
            made_of = _certified(keys, sandbox, parsed)
            entry, port = {**made_of, **(entry or {})}, URL(made_of["return_url"]).port
        else:
            port = 0
        _write(
            config, keys, content, sandbox, authority, listener=listener, host=host or {}, url=url, more=entry or {}, port=port
        )  # fmt: skip
        for site in sites:
            write_yaml(config / f"sites/{site}.yaml", {
                "site": site, "participant": PARTICIPANT, "adapters": {"ems": {"protocol": site}},
                "flows": flows or {"assets": ASSETS, "unit": UNIT},
            })  # fmt: skip
        made = Service(directory, sandbox, {site: memory.MemoryEms() for site in sites})
        made.sandbox_profile = parsed
        made.clock = clock
        for ems in made.ems.values():
            ems.clock = clock
        made._group = await stack.enter_async_context(asyncio.TaskGroup())
        yield made


def _certified(keys, sandbox, profile):
    """What an entry needs whose messages carry certificates: ours, whose of SMP's are taken, and the address that SMP signs."""
    (keys / "acme.crt.pem").write_bytes(
        Authority("participants", clock=CLOCK).signing("ACME", rsa_key("acme")).certificate
    )
    path = profile.return_path.replace("{participant}", PARTICIPANT)
    return {
        "signing_algorithm": "RS256",
        "signing_certificate": "../keys/acme.crt.pem",
        "smp_jwks": None,
        "smp_certificate": {"ca": "../keys/smp-ca.pem", "subjects": [f"CN={sandbox.name}"]},
        "return_url": f"https://127.0.0.1:{free_port()}{path}",
    }


def _write(config, keys, content, sandbox, authority, *, listener, host, url, more, port):
    server = authority.server("bridge")
    for name, data in (
        ("smp.jwks.json", json.dumps(sandbox.jwks()).encode()),
        ("smp-ca.pem", sandbox.ca_pem),
        ("returns.crt.pem", server.certificate),
        ("returns.key.pem", server.private_key),
    ):
        (keys / name).write_bytes(data)
        (keys / name).chmod(0o600)
    write_profile(config / "profile.yaml", content)
    listeners = {"admin": {"port": 0, "without_token": "reading"}}
    if listener:
        listeners["returns"] = {
            "host": "127.0.0.1", "port": port, "certificate": "../keys/returns.crt.pem", "private_key": "../keys/returns.key.pem",
        }  # fmt: skip
    entry = {
        "sender": "ACME",
        "environment": "TEST",
        "profile": "profile.yaml",
        "base_url": url,
        "username": "acme",
        "password": {"file": "../keys/password"},
        "signing_key": "../keys/acme.pem",
        "smp_jwks": "../keys/smp.jwks.json",
        "ca": "../keys/smp-ca.pem",
        **more,
    }
    document = {
        "journal": {"path": "../var/journal.db"},
        "listeners": listeners,
        "clock": {"source": "none"},  # a test must not depend on what synchronises this machine
        "participants": {PARTICIPANT: entry},
    }
    write_yaml(config / "bridge.yaml", {**document, **host})


def write_profile(path, content):
    """A profile file. JSON is YAML, and sooner written."""
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False))


async def linked(made, site="north"):
    ems = made.ems[site]
    await ems.until(lambda: ems.sessions)
    return ems


def fill(ems, count, first=1, **fields):
    places = [f"B{number}" for number in range(first, first + count)]
    for number, place in enumerate(places, first):
        ems.put(place, **{"reference": f"BESS{number:05}", "kw": 5, **fields})
    return places


def words(ems, places):
    """How many places have each last state word."""
    last = [ems.last(place) for place in places]
    return {word: last.count(word) for word in set(last)}


async def until_words(ems, places, wanted, within_s=30):
    try:
        await ems.until(lambda: words(ems, places) == wanted, within_s)
    except TimeoutError:
        raise AssertionError(f"the EMS holds {words(ems, places)}, expected {wanted}") from None


async def until_pushed(made, *statuses, within_s=10):
    """Wait until SMP's pushes were answered by these statuses, in this order; a poll may settle a submission before its return was."""
    found = None
    try:
        async with asyncio.timeout(within_s):
            while (found := [entry.status for entry in made.ledger.returns]) != [*statuses]:
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"pushes were answered {found}, expected {statuses}") from None


async def made_alarm(made, code, within_s=10):
    async with asyncio.timeout(within_s):
        while code not in [alarm.code for alarm in await made.read(lambda journal: journal.alarms())]:
            await asyncio.sleep(0.02)


__all__ = [
    "ASSETS",
    "CLOCK",
    "PARTICIPANT",
    "RETURNS_ALONE",
    "UNIT",
    "Service",
    "every_profile",
    "fill",
    "linked",
    "load_profile",
    "made_alarm",
    "profile_content",
    "service",
    "until_pushed",
    "until_words",
]
