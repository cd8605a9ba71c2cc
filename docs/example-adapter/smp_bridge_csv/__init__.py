"""An example adapter: records in a CSV file."""

from contextlib import AbstractAsyncContextManager

from bridge.api import Adapter, Session, SessionContext, Trigger
from smp_bridge_csv.config import CsvOptions, CsvOutcome, CsvRecords, OnChange, check


def _open(context: SessionContext) -> AbstractAsyncContextManager[Session]:
    from smp_bridge_csv.session import open_session  # noqa: PLC0415 - a protocol library is imported only when a session opens

    return open_session(context)


ADAPTER = Adapter(
    protocol="csv",
    summary="Records in a CSV file, outcomes in another",
    options=CsvOptions,
    records=CsvRecords,
    submit={Trigger.CHANGE: OnChange},
    outcome=CsvOutcome,
    check=check,
    open=_open,
)
