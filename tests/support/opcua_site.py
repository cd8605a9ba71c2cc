"""A site file's OPC UA parts as the adapter gets them, without the rest of the configuration."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from quick_yaml import read_yaml

from adapters.opcua import ADAPTER
from bridge.api import Address, Code, OutcomeField, Secret, Selection, SessionContext, Trigger, Write
from bridge.clock import Clock, SystemClock

REGISTERED = Code(3, "registered")
NO_ERROR = Code(0, "")
IPSWICH = Path(__file__).parents[2] / "config" / "sites" / "ipswich.yaml"


def read_site(path: Path = IPSWICH) -> dict[str, Any]:
    """The YAML as it stands, `{env: …}` and all."""
    return read_yaml(path)


def options_of(site: dict[str, Any], **changes: Any) -> Any:
    """The only adapter's options, with these in place of its own."""
    (adapter,) = site["adapters"].values()
    given = {key: value for key, value in {**adapter, **changes}.items() if key != "protocol" and value is not None}
    return ADAPTER.options.model_validate(given)


def security_of(
    *, certificate: Path, key: Path, servers: Sequence[Path], user: str, password: str, **changes: Any
) -> dict[str, Any]:
    """`security:` with values instead of `{env: …}`."""
    return {
        "policy": "Basic256Sha256",
        "mode": "SignAndEncrypt",
        "certificate": certificate,
        "private_key": key,
        "server_certificates": list(servers),
        "user": user,
        "password": Secret(password),
        **changes,
    }


def selection_of(name: str, flow: dict[str, Any]) -> Selection:
    """A flow as the adapter sees it."""
    trigger = Trigger(flow["submit"]["when"])
    return Selection(
        flow=name,
        trigger=trigger,
        records=ADAPTER.records.model_validate(flow["records"]),
        submit=ADAPTER.submit[trigger].model_validate({k: v for k, v in flow["submit"].items() if k != "when"}),
        outcome=ADAPTER.outcome.model_validate(flow["outcome"]),
    )


def selections_of(site: dict[str, Any]) -> list[Selection]:
    """Every flow as the adapter sees it."""
    return [selection_of(name, flow) for name, flow in site["flows"].items()]


def context_of(
    options: Any,
    selections: list[Selection],
    heard: Callable[[], None] = lambda: None,
    clock: Clock | None = None,
) -> SessionContext:
    """What a session is opened with."""
    return SessionContext(
        site="test",
        adapter="ems",
        options=options,
        selections=selections,
        clock=clock or SystemClock.here(),
        heard=heard,
    )


def outcome_writes(
    flow: str,
    place: str,
    *,
    state: Code = REGISTERED,
    transaction: str = "a0B123",
    code: Code = NO_ERROR,
    lines: tuple[str, ...] = (),
    updated_ns: int = 1_795_392_000_123_000_000,
) -> list[Write]:
    """A whole outcome as the write-back hands it to an adapter, for the targets of Ipswich."""
    values: dict[OutcomeField, object] = {
        OutcomeField.STATE: state,
        OutcomeField.TRANSACTION_ID: transaction,
        OutcomeField.ERROR_CODE: code,
        OutcomeField.ERROR_TEXT: lines,
        OutcomeField.UPDATED_AT: updated_ns,
    }
    return [Write(address=Address(flow, place, name), value=value) for name, value in values.items()]
