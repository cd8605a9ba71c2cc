"""The three shipped sites on servers that others wrote, for the integrator's commands: no host runs, and nobody asks for anything."""

import asyncio
import json
import os
import signal
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import modbus_records as layout2
from forked import Forked, forked
from mosquitto import Peer as MqttPeer
from processes import CONFIG
from three_sites import ASSET_TOPIC, BASE, CHARGER, STRIDE, UNIT, UNIT_TOPIC, Sites, _beat, _peers, opcua_site

KEYS = {
    "SMP_BRIDGE_RETURNS_CERTIFICATE": "returns.crt.pem",
    "SMP_BRIDGE_RETURNS_KEY": "returns.key.pem",
    "SMP_BRIDGE_SIGNING_KEY": "sign.pem",
    "SMP_BRIDGE_SMP_JWKS": "smp.jwks.json",
    "SMP_BRIDGE_SMP_PASSWORD": "password",
}


class Said(NamedTuple):
    """What a command ended with, printed and complained of."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class ProbeWorld(Sites):
    """The EMSs of `three_sites`, and the commands on their configuration."""

    async def command(self, *arguments: object, within_s: float = 90.0, **more: str) -> Said:
        """Run a command to its end in a process of its own."""
        process = await self.started(*arguments, **more)
        async with asyncio.timeout(within_s):
            out, err = await process.communicate()
        return Said(process.returncode, out.decode(), err.decode())

    async def started(self, *arguments: object, **more: str) -> Forked:
        """A command that runs on."""
        return await forked(*arguments, environment={**os.environ, **self.environment, **more})

    async def probe(self, *arguments: object, wait: float = 0.7, **more: str) -> Said:
        """`smp-bridge probe` on this configuration."""
        return await self.command("probe", "--config", self.config, "--wait", wait, *arguments, **more)

    async def fresh(self) -> None:
        """As at the beginning, whatever a test before has changed."""
        await self.opcua.fresh()
        await self.modbus.put(0, *layout2.HEADER)
        for number in range(2):
            await self.modbus.put_bytes(BASE + STRIDE * number, layout2.record(f"RK{number + 1}"))
        await self.modbus.put_bytes(UNIT, layout2.unit("RK-UNIT1", (0, 1)))
        for number in (1, 2):
            await self.mqtt.publish(ASSET_TOPIC.format(f"EV{number}"), CHARGER, retain=True)
        unit = {"name": "Unit", "service": "DC", "kw": "49", "assets": ["EV1", "EV2"]}
        await self.mqtt.publish(UNIT_TOPIC.format("U1"), unit, retain=True)
        await self.settled()

    async def written(self) -> tuple[Any, Any, Any]:
        """What anybody wrote to the three EMSs: variables, write requests, messages (what the tests publish themselves among them)."""
        opcua = (await self.opcua.order("stats"))["writes"]
        modbus = (await self.modbus.order("stats"))["writes"]
        return opcua, modbus, len(self.heard.messages)

    async def settled(self) -> None:
        """The broker has handed out all that it had: a message of our own comes last."""
        before = len(self.heard.on("tests/settled"))
        await self.mqtt.publish("tests/settled", "x", qos=1)
        await self.heard.until("tests/settled", before + 1)


async def interrupted(process: Forked, within_s: float = 20.0) -> int:
    """Ctrl-C, and how it ended."""
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(within_s):
        await process.communicate()
    return process.returncode


@asynccontextmanager
async def probe_world(directory: Path):
    """The peers with three batteries, two records, two chargers and a unit each; the shipped files as they are."""
    made = ProbeWorld(directory)
    (made.config / "sites").mkdir(parents=True)
    (made.config / "bridge.yaml").write_text((CONFIG / "bridge.yaml").read_text())
    for file in (CONFIG / "sites").glob("*.yaml"):
        (made.config / "sites" / file.name).write_text(file.read_text())
    (directory / "keys").mkdir()
    for variable, name in KEYS.items():
        (directory / "keys" / name).write_text("placeholder")
        made.environment[variable] = str(directory / "keys" / name)
    made.environment["SMP_BRIDGE_JOURNAL"] = str(made.journal)
    async with AsyncExitStack() as stack:
        made.opcua = await stack.enter_async_context(opcua_site(directory))
        await _peers(made, stack, directory)
        made.heard = await stack.enter_async_context(MqttPeer(made.mqtt._broker))
        await made.heard.subscribe("#")
        group = await stack.enter_async_context(asyncio.TaskGroup())
        beating = group.create_task(_beat(made.modbus))
        try:
            yield made
        finally:
            beating.cancel()


__all__ = ["ASSET_TOPIC", "BASE", "STRIDE", "UNIT", "ProbeWorld", "Said", "interrupted", "probe_world"]
