"""A site file's Modbus parts as the adapter gets them, without the rest of the configuration."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from quick_yaml import read_yaml

from adapters.modbus import ADAPTER
from bridge.api import Selection, SessionContext, Trigger
from bridge.clock import SystemClock

SAMPLE = Path(__file__).parents[2] / "adapters" / "modbus" / "sample.yaml"


def read_site(path: Path) -> dict[str, Any]:
    """The YAML with every `{env: …, default: …}` as its default."""
    return _plain(read_yaml(path))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return (
            _plain(value["default"]) if value.keys() == {"env", "default"} else {k: _plain(v) for k, v in value.items()}
        )
    return [_plain(item) for item in value] if isinstance(value, list) else value


def options_of(site: dict[str, Any], **changes: Any) -> Any:
    """The only adapter's options."""
    (adapter,) = site["adapters"].values()
    return ADAPTER.options.model_validate(
        {k: v for k, v in {**adapter, **changes}.items() if k != "protocol" and v is not None}
    )


def selections_of(site: dict[str, Any]) -> list[Selection]:
    """Every flow as the adapter sees it."""
    return [selection_of(name, flow) for name, flow in site["flows"].items()]


def selection_of(name: str, flow: dict[str, Any]) -> Selection:
    trigger = Trigger(flow["submit"]["when"])
    return Selection(
        flow=name,
        trigger=trigger,
        records=ADAPTER.records.model_validate(flow["records"]),
        submit=ADAPTER.submit[trigger].model_validate({k: v for k, v in flow["submit"].items() if k != "when"}),
        outcome=ADAPTER.outcome.model_validate(flow["outcome"]),
    )


def context_of(options: Any, selections: list[Selection], heard: Callable[[], None] = lambda: None) -> SessionContext:
    """What a session is opened with."""
    return SessionContext(
        site="test", adapter="ems", options=options, selections=selections, clock=SystemClock.here(), heard=heard
    )
