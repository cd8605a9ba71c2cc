"""Everything that the demo starts: three simulated EMSs, the stand-in for SMP, and the bridge with the very files of `config/`."""

import asyncio
import json
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from typing import Final, Self

from bridge.clock import SystemClock
from bridge.config import Participant, load
from bridge.demo.ems_modbus import ModbusEms
from bridge.demo.ems_mqtt import MqttEms
from bridge.demo.ems_opcua import OpcUaEms
from bridge.demo.observer import Ledger
from bridge.demo.play import REFUSED_PER_SITE, Site
from bridge.demo.service import Service
from bridge.envelope import Algorithm
from bridge.errors import ConfigError, Problem
from bridge.keys import new_key, public_jwks, write_private, write_whole
from bridge.material import our_signer
from bridge.registry import find
from bridge.sandbox import Knobs, Refusal, Sandbox, SandboxOptions, SandboxParticipant
from bridge.sandbox.pki import Authority

PARTICIPANT: Final = "acme-test"
PASSWORD: Final = "only-for-the-demo"  # noqa: S105 - of an account that lives as long as the demo
RETURN_DELAY_S: Final = 0.3
REFUSALS: Final = (
    ("E1017", "the MPAN is registered to another participant"),
    ("E2003", "the connection agreement is not on file"),
)


class World:
    """Entered as an async context manager; `directory` receives keys, journal, log and the environment of the run."""

    def __init__(self, config: Path, directory: Path, *, seed: int, told: Callable[[str], None] | None = None) -> None:
        """`told` hears where the pages are, for want of a view that shows it."""
        self._told = told
        self.pages = ""
        self._config = config
        self._directory = directory
        self._keys = directory / "keys"
        self._seed = seed
        self._clock = SystemClock.here()
        self._stack = AsyncExitStack()
        self.journal = directory / "journal/journal.db"  # in a directory of its own: its anchor lies beside that
        self.sites: Sequence[Site] = ()
        self._sandbox: Sandbox
        self._service: Service
        self._return_path = ""

    @property
    def ledger(self) -> Ledger:
        """The stand-in's own book."""
        return self._sandbox.ledger

    @property
    def service(self) -> Service:
        """The bridge."""
        return self._service

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await self._start(stack)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _start(self, stack: AsyncExitStack) -> None:
        self._keys.mkdir(parents=True)
        opcua = OpcUaEms(seed=self._seed, directory=self._keys)
        modbus = ModbusEms(seed=self._seed)
        mqtt = MqttEms(seed=self._seed, directory=self._keys)
        for ems in (opcua, modbus, mqtt):
            await stack.enter_async_context(ems)
        self.sites = (
            _site("ipswich", "opcua", "batteries", opcua),
            _site("rugby", "modbus", "batteries", modbus),
            _site("crawley", "mqtt", "chargers", mqtt),
        )
        environment = {
            **self._make_keys(),
            "SMP_BRIDGE_IPSWICH_URL": opcua.url,
            "SMP_BRIDGE_IPSWICH_CERTIFICATE": str(opcua.client_certificate),
            "SMP_BRIDGE_IPSWICH_KEY": str(opcua.client_key),
            "SMP_BRIDGE_IPSWICH_SERVER_CERTIFICATE": str(opcua.server_certificate),
            "SMP_BRIDGE_IPSWICH_USER": opcua.user,
            "SMP_BRIDGE_IPSWICH_PASSWORD": opcua.password,
            "SMP_BRIDGE_RUGBY_HOST": modbus.host,
            "SMP_BRIDGE_RUGBY_PORT": str(modbus.port),
            "SMP_BRIDGE_CRAWLEY_HOST": mqtt.host,
            "SMP_BRIDGE_CRAWLEY_PORT": str(mqtt.port),
            "SMP_BRIDGE_CRAWLEY_MQTT": "3.1.1",
            "SMP_BRIDGE_CRAWLEY_CA": str(mqtt.ca_file),
            "SMP_BRIDGE_CRAWLEY_USER": mqtt.user,
            "SMP_BRIDGE_CRAWLEY_PASSWORD": mqtt.password,
        }
        await self._start_sandbox(stack, environment)
        self._write_environment(environment)
        self._service = await stack.enter_async_context(
            Service(self._config, environment, log_file=self._directory / "bridge.log", listening=self._listening)
        )

    def _make_keys(self) -> dict[str, str]:
        """The bridge's own keys and certificates, and where its settings find them."""
        self._authority = Authority("smp-bridge demo", clock=self._clock)
        server, client = self._authority.server("smp-bridge"), self._authority.client("smp-bridge")
        files = {
            "returns.crt.pem": server.certificate,
            "returns.key.pem": server.private_key,
            "smp-client.crt.pem": client.certificate,
            "smp-client.key.pem": client.private_key,
            # Filled in once the stand-in has its keys; a configuration names only files that exist.
            "smp.jwks.json": b'{"keys": []}',
            "smp-ca.pem": self._authority.pem,
        }
        for name, data in files.items():
            write_whole(self._keys / name, data, mode=0o600)
        own = ("acme-test.pem", "host.pem")  # the participant's, and the host's own, for tokens and exports
        for name in own:
            write_private(self._keys / name, new_key(Algorithm.ES256))
        at = {name: str(self._keys / name) for name in (*files, *own)}
        return {
            "SMP_BRIDGE_JOURNAL": str(self.journal),
            "SMP_BRIDGE_HOST_KEY": at["host.pem"],
            "SMP_BRIDGE_RETURNS_HOST": "127.0.0.1",
            "SMP_BRIDGE_RETURNS_PORT": "0",
            "SMP_BRIDGE_RETURNS_CERTIFICATE": at["returns.crt.pem"],
            "SMP_BRIDGE_RETURNS_KEY": at["returns.key.pem"],
            "SMP_BRIDGE_ADMIN_PORT": "0",
            "SMP_BRIDGE_ADMIN_WITHOUT_TOKEN": "reading",
            "SMP_BRIDGE_SMP_USERNAME": PARTICIPANT,
            "SMP_BRIDGE_SMP_PASSWORD": PASSWORD,
            "SMP_BRIDGE_SIGNING_KEY": at["acme-test.pem"],
            "SMP_BRIDGE_SMP_JWKS": at["smp.jwks.json"],
            "SMP_BRIDGE_SMP_CA": at["smp-ca.pem"],
            "SMP_BRIDGE_SMP_CLIENT_CERTIFICATE": at["smp-client.crt.pem"],
            "SMP_BRIDGE_SMP_CLIENT_KEY": at["smp-client.key.pem"],
        }

    async def _start_sandbox(self, stack: AsyncExitStack, environment: dict[str, str]) -> None:
        """The stand-in speaks the profile of the configuration as it is; it refuses some assets of each site, drawn by the seed."""
        entry = await asyncio.to_thread(self._participant, environment)
        self._return_path = entry.profile.return_path.replace("{participant}", PARTICIPANT)
        account = SandboxParticipant(
            name=PARTICIPANT,
            user=PARTICIPANT,
            password=PASSWORD,
            sender=entry.options.sender,
            jwks=public_jwks([our_signer(entry)]),
        )
        options = SandboxOptions(
            profile=entry.profile,
            participants=[account],
            seed=self._seed,
            name=entry.options.recipient,
            environment=entry.options.environment.value,
            client_ca=self._authority.pem,
            return_ca=self._authority.pem,
            knobs=Knobs(refuse=self._refusals(), return_delay_s=RETURN_DELAY_S),
        )
        self._sandbox = await stack.enter_async_context(Sandbox(options, clock=self._clock))
        write_whole(self._keys / "smp.jwks.json", json.dumps(self._sandbox.jwks()).encode(), mode=0o600)
        write_whole(self._keys / "smp-ca.pem", self._sandbox.ca_pem, mode=0o600)
        environment["SMP_BRIDGE_SMP_URL"] = self._sandbox.base_url

    def _participant(self, environment: Mapping[str, str]) -> Participant:
        loaded = load(self._config, find, environ={**os.environ, **environment})
        missing = [f"participants.{PARTICIPANT}"] if PARTICIPANT not in loaded.participants else []
        missing += [f"sites/{site.name}.yaml" for site in self.sites if site.name not in loaded.sites]
        if missing:
            raise ConfigError(
                [Problem(file=str(self._config), text=f"the demo needs {name}") for name in missing],
                hint="run it with the sample configuration that comes with the source",
            )
        return loaded.participants[PARTICIPANT]

    def _refusals(self) -> dict[str, Refusal]:
        random = Random(f"refusals/{self._seed}")
        drawn: dict[str, Refusal] = {}
        for site in self.sites:
            for reference in random.sample(list(site.references), REFUSED_PER_SITE):
                code, message = random.choice(REFUSALS)
                drawn[reference] = Refusal(code=code, message=message)
        return drawn

    def _write_environment(self, environment: Mapping[str, str]) -> None:
        """What a person needs to look into a kept run with the same settings."""
        lines = [f"export {name}={shlex.quote(value)}\n" for name, value in environment.items()]
        write_whole(self._directory / "env.sh", "".join(lines).encode(), mode=0o600)

    def _listening(self, listener: str, port: int) -> None:
        if listener == "returns":
            self._sandbox.set_return_url(PARTICIPANT, f"https://127.0.0.1:{port}{self._return_path}")
        elif listener == "admin":
            self.pages = f"http://127.0.0.1:{port}/"
            if self._told is not None:
                self._told(f"pages: {self.pages}")


def _site(name: str, protocol: str, assets_flow: str, ems: OpcUaEms | ModbusEms | MqttEms) -> Site:
    return Site(
        name=name,
        protocol=protocol,
        assets_flow=assets_flow,
        unit_flow="unit",
        ems=ems,
        references=[asset.reference for asset in ems.assets],
    )
