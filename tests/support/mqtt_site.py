"""A site file's MQTT parts as the adapter gets them, and the messages of a simulated EMS."""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from quick_yaml import read_yaml

from adapters.mqtt import ADAPTER
from bridge.api import Address as _Address
from bridge.api import Code, OutcomeField, Secret, Selection, SessionContext, Trigger, Write
from bridge.clock import SystemClock

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "adapters" / "mqtt" / "sample.yaml"
CRAWLEY = ROOT / "config" / "sites" / "crawley.yaml"

ASSET = "acme/crawley/ems/asset/{}/registration"
REQUEST = ASSET + "/request"
RESULT = ASSET + "/result"
CLIENT_ID = "smp-bridge-test"


def read_site(path: Path = CRAWLEY) -> dict[str, Any]:
    """The YAML with every `{env: …, default: …}` as its default."""
    return _plain(read_yaml(path))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return (
            _plain(value["default"]) if value.keys() == {"env", "default"} else {k: _plain(v) for k, v in value.items()}
        )
    return [_plain(item) for item in value] if isinstance(value, list) else value


def options_of(site: dict[str, Any], **changes: Any) -> Any:
    """The only adapter's options; paths and secrets that were not given are left out."""
    (adapter,) = site["adapters"].values()
    given = {key: value for key, value in adapter.items() if key not in {"protocol", "tls", "password"}} | changes
    if isinstance(given.get("password"), str):
        given["password"] = Secret(given["password"])
    return ADAPTER.options.model_validate({key: value for key, value in given.items() if value is not None})


def selection_of(name: str, flow: dict[str, Any], awaiting: Mapping[str, tuple[str, ...]] | None = None) -> Selection:
    """One flow as the adapter sees it."""
    trigger = Trigger(flow["submit"]["when"])
    return Selection(
        flow=name,
        trigger=trigger,
        records=ADAPTER.records.model_validate(flow["records"]),
        submit=ADAPTER.submit[trigger].model_validate({k: v for k, v in flow["submit"].items() if k != "when"}),
        outcome=ADAPTER.outcome.model_validate(flow["outcome"]),
        awaiting=awaiting or {},
    )


def selections_of(site: dict[str, Any]) -> list[Selection]:
    """Every flow."""
    return [selection_of(name, flow) for name, flow in site["flows"].items()]


def chargers(awaiting: Mapping[str, tuple[str, ...]] | None = None) -> Selection:
    """The shipped site's flow of chargers."""
    return selection_of("chargers", read_site()["flows"]["chargers"], awaiting)


def changing(**changes: Any) -> Selection:
    """The same flow, submitting on change."""
    flow = read_site()["flows"]["chargers"]
    flow["submit"] = {"when": "change"}
    flow["outcome"]["payload"] = {"state": "state", "transactionId": "transactionId", "errors": "errorText"}
    return selection_of("chargers", {**flow, **changes})


def context_of(
    options: Any,
    *selections: Selection,
    heard: Callable[[], None] = lambda: None,
    client_id: str = CLIENT_ID,
    site: str = "crawley",
) -> SessionContext:
    """What a session is opened with."""
    return SessionContext(
        site=site,
        adapter="broker",
        options=options,
        selections=selections or [chargers()],
        clock=SystemClock.here(),
        heard=heard,
        client_id=client_id,
    )


def registration(number: int = 1, **changes: Any) -> dict[str, Any]:
    """The JSON of one charger's registration."""
    body = {
        "name": f"Quay Charger {number:03d}",
        "mpan": "1910000000009",
        "postcode": "RH10 1AB",
        "gspGroup": "_J",
        "kw": "49,5",
    }
    return body | changes


def request(request_id: object, **changes: Any) -> dict[str, Any]:
    """The JSON of one request."""
    return {"reqId": request_id, "action": "create", "ts": "2026-11-24T10:00:00Z"} | changes


def outcome(
    place: str, request_id: str | None, state: str = "registered", errors: tuple[str, ...] = (), reply: str = ""
) -> list[Write]:
    """The writes of one outcome, all fields, as the core hands them over."""
    values: dict[OutcomeField, object] = {
        OutcomeField.STATE: Code(3, state),
        OutcomeField.TRANSACTION_ID: "a0B1",
        OutcomeField.ERROR_CODE: Code(9999, "E1") if errors else Code(0, ""),
        OutcomeField.ERROR_TEXT: errors,
        OutcomeField.ERROR_COUNT: len(errors),
        OutcomeField.ASSET_ID: "",
        OutcomeField.UPDATED_AT: 1_795_392_000_123_456_789,
        OutcomeField.REQUEST: request_id or "",
        OutcomeField.ALARM: False,
    }
    return [
        Write(address=_Address("chargers", place, name), value=value, request=request_id, reply=reply)
        for name, value in values.items()
    ]


async def take(session: Any, count: int = 1, within_s: float = 10.0) -> list:
    """The next arrivals, exactly so many."""
    found: list = []
    async with asyncio.timeout(within_s):
        while len(found) < count:
            found += await session.receive()
    assert len(found) == count, [record for arrival in found for record in arrival.records]
    return found


async def nothing(session: Any, within_s: float = 0.3) -> None:
    """Nothing more comes."""
    try:
        async with asyncio.timeout(within_s):
            arrivals = await session.receive()
    except TimeoutError:
        return
    raise AssertionError([record for arrival in arrivals for record in arrival.records])
