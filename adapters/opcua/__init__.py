"""OPC UA: records are folders of variables, requests are variables, outcomes are written into variables."""

from contextlib import AbstractAsyncContextManager
from typing import Final

from adapters.opcua.config import (
    OnChange,
    OnRequest,
    OpcUaOptions,
    OpcUaOutcome,
    OpcUaRecords,
    OpcUaWord,
    check,
    check_word,
)
from bridge.api import Adapter, Session, SessionContext, Trigger

__all__ = ["ADAPTER"]


def _open(context: SessionContext) -> AbstractAsyncContextManager[Session]:
    from adapters.opcua.session import open_session  # noqa: PLC0415 - the library costs 50 MB and is loaded when used

    return open_session(context)


ADAPTER: Final = Adapter(
    protocol="opcua",
    summary="OPC UA client: subscriptions for requests and changes, guarded reads, write-back",
    options=OpcUaOptions,
    records=OpcUaRecords,
    submit={Trigger.REQUEST: OnRequest, Trigger.CHANGE: OnChange},
    outcome=OpcUaOutcome,
    check=check,
    open=_open,
    word=OpcUaWord,
    check_word=check_word,
)
