"""Modbus over TCP, TLS and serial lines: records in blocks of registers, a request handshake in a header, outcomes written beside each record."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from importlib import import_module
from typing import Any, Final

from adapters.modbus.certificates import certificates
from adapters.modbus.check import check, check_beside, check_word
from adapters.modbus.config import ChangeSubmit, ModbusOptions, ModbusOutcome, ModbusRecords, ModbusWord, RequestSubmit
from adapters.modbus.entry import SCHEMES, options_of
from adapters.modbus.guess import Registers
from adapters.modbus.kinds import kinds
from bridge.api import Adapter, Clock, Credentials, Probe, Search, Seen, Session, SessionContext, Trigger


def _open(context: SessionContext) -> AbstractAsyncContextManager[Session]:
    from adapters.modbus.session import open_session  # noqa: PLC0415 - the protocol library is imported only when a session opens

    return open_session(context)


def _probe(context: SessionContext) -> AbstractAsyncContextManager[Probe]:
    from adapters.modbus.probe import open_probe  # noqa: PLC0415 - as above

    return open_probe(context)


class _Browser:
    """See `bridge.api.Browser`; the library is loaded when it is first used."""

    schemes: Final[Sequence[str]] = SCHEMES

    def options(self, url: str, credentials: Credentials) -> Mapping[str, Any]:
        """See `bridge.api.Browser`."""
        return options_of(url, credentials)

    async def browse(self, options: Any, search: Search, clock: Clock) -> Seen:
        """See `bridge.api.Browser`."""
        browse = await asyncio.to_thread(import_module, "adapters.modbus.browse")
        seen: Seen = await browse.browse(options, search, clock)
        return seen


ADAPTER = Adapter(
    protocol="modbus",
    summary="Modbus over TCP, TLS, RTU: record blocks in holding registers, with a request handshake or on change",
    options=ModbusOptions,
    records=ModbusRecords,
    submit={Trigger.REQUEST: RequestSubmit, Trigger.CHANGE: ChangeSubmit},
    outcome=ModbusOutcome,
    check=check,
    open=_open,
    word=ModbusWord,
    check_word=check_word,
    codec=Registers(),
    certificates=certificates,
    probe=_probe,
    browser=_Browser(),
    check_beside=check_beside,
    kinds=kinds,
)
