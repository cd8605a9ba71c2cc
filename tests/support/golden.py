"""Golden cases of the adapters: the sites of their folders as one configuration, and a record after its flow as JSON."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from quick_yaml import read_yaml, write_yaml

from bridge import registry
from bridge.config import Config, load
from bridge.flow import FlowPlan
from bridge.model import Record

ROOT = Path(__file__).parents[2]


def told(record: Record, plan: FlowPlan) -> dict[str, Any]:
    """One record after its flow: the item as the journal would keep it, or the refusal as the EMS would read it."""
    found = plan.evaluate(record)
    said = {"flow": record.flow, "place": record.place, "request": record.request, "key": found.key}
    if found.refusal is not None:
        return {**said, "refused": {"code": int(found.refusal.reason), "text": found.refusal.text}}
    return {**said, "item": json.loads(found.content), "members": list(found.members)}


def pretty(value: Any) -> list[str]:
    """Lines of JSON: they keep true, 1 and 1.0 apart, which a comparison of values does not."""
    return json.dumps(value, indent=2, sort_keys=True).splitlines()


def _in_order(value: Any) -> Any:
    """By their names all the way down: outcomes list what is wrong in the order of the file."""
    if isinstance(value, dict):
        return {key: _in_order(value[key]) for key in sorted(value)}
    return [_in_order(item) for item in value] if isinstance(value, list) else value


def read_sites(directory: Path, shipped_file: str, cases: Sequence[Path], **connection: Any) -> Config:
    """The sites of all cases, read and checked as one configuration of the default profile."""
    (directory / "any").write_text("placeholder")
    (directory / "sites").mkdir()
    shipped = read_yaml(ROOT / "config/sites" / shipped_file)
    (adapter,) = shipped["adapters"].values()
    adapter.update(connection)
    for case in cases:
        content = merged(shipped, read_yaml(case / "site.yaml") or {})
        write_yaml(directory / f"sites/{case.name}.yaml", _in_order({**content, "site": case.name}))
    files = dict.fromkeys(("signing_key", "smp_jwks"), "any")
    participant = {"sender": "ACME", "environment": "TEST", "base_url": "https://smp.example.invalid", "username": "u"}
    host = {
        "journal": {"path": "journal.db"},
        "listeners": {"returns": dict.fromkeys(("certificate", "private_key"), "any")},
        "participants": {shipped["participant"]: {**participant, **files, "password": {"file": "any"}}},
    }
    (directory / "bridge.yaml").write_text(json.dumps(host))
    config = load(directory, registry.find, environ={})
    return config


def merged(shipped: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """The shipped settings with these in their place; mappings are merged, and null takes away."""
    found = dict(shipped)
    for key, value in change.items():
        both = isinstance(value, dict) and isinstance(found.get(key), dict)
        found[key] = merged(found[key], value) if both else value
        if value is None:
            del found[key]
    return found
