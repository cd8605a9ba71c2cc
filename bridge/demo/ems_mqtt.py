"""A simulated EMS behind an MQTT broker: retained registrations of chargers, request messages, one unit (DOMAIN 6, layout 4)."""

import asyncio
import json
import secrets
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any, Final, Self

from amqtt.client import MQTTClient
from amqtt.mqtt.constants import QOS_1

from bridge.demo.memory import ItemView, Memory
from bridge.demo.mqtt_broker import DemoBroker
from bridge.demo.plant import CHARGER, PlantAsset, plant

MOST_ASSETS: Final = 999
VOLTAGE_KV: Final = 0.4
HOST_STATUS: Final = "acme/host/status"
_OWN_USER: Final = "ems"
_POWERS_KW: Final = (7, 11, 22, 49, 99, 149, 249, 349)
_CLOSE_S: Final = 5.0


class MqttEms:
    """Entered as an async context manager; then `host` and `port` are where its broker listens.

    `directory` receives the broker's authority (`ca_file`); `user` and `password` are the bridge's own.
    """

    def __init__(
        self,
        assets: int = 200,
        *,
        seed: int,
        directory: Path,
        site: str = "crawley",
        gsp_group: str = "_J",
        prefix: str = "EV",
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        if not 1 <= assets <= MOST_ASSETS:
            raise ValueError(f"this EMS has room for 1 to {MOST_ASSETS} assets")
        self.assets: tuple[PlantAsset, ...] = tuple(_chargers(site, assets, seed, gsp_group, prefix))
        self.unit_reference = f"{prefix}-UNIT01"
        self.user = "smp-bridge"
        self.password = secrets.token_urlsafe(12)
        self._own_password = secrets.token_urlsafe(12)
        self._root = f"acme/{site}/ems"
        self._run = secrets.token_hex(3)  # request ids are never those of an earlier run
        self._asked = 0
        self._memory = Memory()
        self._host_was_there = asyncio.Event()
        self._client: Any = None
        self._stack = AsyncExitStack()
        passwords = {self.user: self.password, _OWN_USER: self._own_password}
        self._broker = DemoBroker(directory, site, passwords, host=host, port=port)

    @property
    def host(self) -> str:
        """Where its broker listens."""
        return self._broker.host

    @property
    def port(self) -> int:
        """Where its broker listens."""
        return self._broker.port

    @property
    def ca_file(self) -> Path:
        """The authority of the broker's certificate."""
        return self._broker.ca_file

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._broker)
            self._client = _client()
            uri = f"mqtts://{_OWN_USER}:{self._own_password}@{self.host}:{self.port}/"
            await self._client.connect(uri, cleansession=True, cafile=str(self.ca_file))
            stack.push_async_callback(self._leave)
            results = [(f"{self._root}/{kind}/+/registration/result", QOS_1) for kind in ("asset", "unit")]
            await self._client.subscribe([*results, (HOST_STATUS, QOS_1)])
            group = await stack.enter_async_context(asyncio.TaskGroup())
            listening = group.create_task(self._listen())
            stack.callback(listening.cancel)
            for asset in self.assets:
                self._memory.expect(asset.reference)
                await self._publish(f"asset/{asset.reference}/registration", registration(asset), retain=True)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def request_assets(self) -> None:
        """Ask for the registration of every asset, once the host has subscribed: a request is not retained, and before that it would be lost."""
        await self._host_was_there.wait()
        for asset in self.assets:
            await self._ask("asset", asset.reference)

    async def request_unit(self, asset_keys: Sequence[str]) -> None:
        """Ask for the one unit, aligned to these assets."""
        members = [asset for asset in self.assets if asset.reference in set(asset_keys)]
        body = {
            "name": "Crawley Flexible Unit 1",
            "service": "DC",
            "kw": f"{sum(asset.max_export_kw for asset in members)},0",
            "assets": [asset.reference for asset in members],
        }
        self._memory.expect(self.unit_reference)
        await self._publish(f"unit/{self.unit_reference}/registration", body, retain=True)
        await self._ask("unit", self.unit_reference)

    def items(self) -> Mapping[str, ItemView]:
        """What was published for this EMS, by asset and unit reference, from its own memory."""
        return self._memory.items()

    async def _ask(self, kind: str, reference: str) -> None:
        self._asked += 1
        body = {"reqId": f"{self._run}-{self._asked}", "action": "create"}
        await self._publish(f"{kind}/{reference}/registration/request", body)

    async def _publish(self, topic: str, body: Mapping[str, object], *, retain: bool = False) -> None:
        data = json.dumps(body).encode()
        await self._client.publish(f"{self._root}/{topic}", data, qos=QOS_1, retain=retain)

    async def _listen(self) -> None:
        while True:
            message = await self._client.deliver_message()
            self._note(message.topic, bytes(message.data))

    def _note(self, topic: str, payload: bytes) -> None:
        """What the program of the EMS does with a message: believe what it can read."""
        if topic == HOST_STATUS:
            if payload == b"online":  # from then on the broker keeps what is asked while the host is away
                self._host_was_there.set()
            return
        reference = topic.split("/")[-3]
        try:
            body = json.loads(payload)
            state = str(body["state"])
            errors = [str(text) for text in body.get("errors") or ()]
            transaction = str(body.get("transactionId") or "")
        except (ValueError, KeyError, TypeError, AttributeError):
            self._memory.note(reference, "unreadable")
            return
        self._memory.note(reference, state, transaction_id=transaction, error_text="; ".join(errors))

    async def _leave(self) -> None:
        async with asyncio.timeout(_CLOSE_S):
            await self._client.disconnect()


def registration(asset: PlantAsset) -> dict[str, object]:
    """The retained message of one charger: numbers come as text with a decimal comma."""
    return {
        "name": asset.name,
        "mpan": asset.import_mpan,
        "postcode": asset.postcode,
        "gspGroup": asset.gsp_group,
        "kw": f"{asset.max_export_kw},5",
    }


def _chargers(site: str, count: int, seed: int, gsp_group: str, prefix: str) -> list[PlantAsset]:
    random = Random(f"{site}/{seed}/power")
    made = []
    for asset in plant(site, count, seed, gsp_group=gsp_group, technology=CHARGER, prefix=prefix):
        power_kw = random.choice(_POWERS_KW)
        made.append(replace(asset, voltage_kv=VOLTAGE_KV, max_export_kw=power_kw, max_import_kw=power_kw))
    return made


def _client() -> Any:
    """The library's own client; when the broker leaves, the demo is over, so it never comes back by itself."""
    return MQTTClient(client_id="demo-ems", config={"auto_reconnect": False, "keep_alive": 10, "plugins": {}})
