"""Modbus over TCP, TLS and serial lines: records in blocks of registers, a request handshake in a header, outcomes written beside each record."""

from contextlib import AbstractAsyncContextManager

from adapters.modbus.certificates import certificates
from adapters.modbus.check import check, check_word
from adapters.modbus.config import ChangeSubmit, ModbusOptions, ModbusOutcome, ModbusRecords, ModbusWord, RequestSubmit
from adapters.modbus.guess import Registers
from bridge.api import Adapter, Probe, Session, SessionContext, Trigger


def _open(context: SessionContext) -> AbstractAsyncContextManager[Session]:
    from adapters.modbus.session import open_session  # noqa: PLC0415 - the protocol library is imported only when a session opens

    return open_session(context)


def _probe(context: SessionContext) -> AbstractAsyncContextManager[Probe]:
    from adapters.modbus.probe import open_probe  # noqa: PLC0415 - as above

    return open_probe(context)


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
)
