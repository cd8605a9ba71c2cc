"""MQTT: records are retained JSON messages, requests are messages, outcomes are published."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from importlib import import_module
from typing import Any, Final

from adapters.mqtt.certificates import certificates
from adapters.mqtt.check import check, check_word
from adapters.mqtt.config import (
    ChangeSubmit,
    MessageSubmit,
    MqttOptions,
    MqttOutcome,
    MqttRecords,
    MqttWord,
    kinds,
)
from adapters.mqtt.entry import SCHEMES, options_of
from bridge.api import Adapter, Clock, Credentials, Probe, Search, Seen, Session, SessionContext, Trigger

__all__ = ["ADAPTER"]


def _open(context: SessionContext) -> AbstractAsyncContextManager[Session]:
    from adapters.mqtt.session import open_session  # noqa: PLC0415 - the protocol library is imported only when a session opens

    return open_session(context)


def _probe(context: SessionContext) -> AbstractAsyncContextManager[Probe]:
    from adapters.mqtt.probe import open_probe  # noqa: PLC0415 - as above

    return open_probe(context)


class _Browser:
    """See `bridge.api.Browser`; the library is loaded when it is first used."""

    schemes: Final[Sequence[str]] = SCHEMES

    def options(self, url: str, credentials: Credentials) -> Mapping[str, Any]:
        """See `bridge.api.Browser`."""
        return options_of(url, credentials)

    async def browse(self, options: Any, search: Search, clock: Clock) -> Seen:
        """See `bridge.api.Browser`."""
        browse = await asyncio.to_thread(import_module, "adapters.mqtt.browse")
        seen: Seen = await browse.browse(options, search, clock)
        return seen


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
    browser=_Browser(),
    kinds=kinds,
)
