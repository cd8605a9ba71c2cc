"""MQTT: records are retained JSON messages, requests are messages, outcomes are published."""

from contextlib import AbstractAsyncContextManager
from typing import Final

from adapters.mqtt.certificates import certificates
from adapters.mqtt.check import check, check_word
from adapters.mqtt.config import ChangeSubmit, MessageSubmit, MqttOptions, MqttOutcome, MqttRecords, MqttWord
from bridge.api import Adapter, Probe, Session, SessionContext, Trigger

__all__ = ["ADAPTER"]


def _open(context: SessionContext) -> AbstractAsyncContextManager[Session]:
    from adapters.mqtt.session import open_session  # noqa: PLC0415 - the protocol library is imported only when a session opens

    return open_session(context)


def _probe(context: SessionContext) -> AbstractAsyncContextManager[Probe]:
    from adapters.mqtt.probe import open_probe  # noqa: PLC0415 - as above

    return open_probe(context)


ADAPTER: Final = Adapter(
    protocol="mqtt",
    summary="MQTT 3.1.1 and 5: retained JSON registrations, request messages acknowledged once journalled, results published",
    options=MqttOptions,
    records=MqttRecords,
    submit={Trigger.MESSAGE: MessageSubmit, Trigger.CHANGE: ChangeSubmit},
    outcome=MqttOutcome,
    check=check,
    open=_open,
    readable=False,
    word=MqttWord,
    check_word=check_word,
    certificates=certificates,
    probe=_probe,
)
