"""An adapter without a protocol: only its option models, for tests of the configuration."""

from collections.abc import Sequence
from typing import Any

from pydantic import FilePath

from bridge.api import Adapter, Options, Outcome, Problem, RecordsOptions, Secret, Selection, Trigger
from bridge.config import AdapterMissing


class PaperOptions(Options):
    url: str
    port: int = 1
    password: Secret | None = None
    certificate: FilePath | None = None
    writable: list[str] = []


class PaperRecords(RecordsOptions):
    fields: dict[str, str]


class PaperSubmit(Options):
    request: str


class PaperWord(Options):
    sheet: str


class PaperOutcome(Outcome):
    state: str
    transactionId: str | None = None


def check(options: PaperOptions, selections: Sequence[Selection]) -> list[Problem]:
    return [
        Problem(path=f"flows.{selection.flow}.outcome.{name}", text=f"{target} is outside `writable:`")
        for selection in selections
        for name, target in (("state", selection.outcome.state), ("transactionId", selection.outcome.transactionId))
        if target is not None and target not in options.writable
    ]


def _never(_context: Any) -> Any:
    raise AssertionError("the paper adapter cannot be opened")


def check_word(options: PaperOptions, selections: Sequence[Selection], word: PaperWord) -> list[Problem]:
    if word.sheet in options.writable:
        return []
    return [Problem(path="alarms.word.sheet", text="is outside `writable:`")]


PAPER = Adapter(
    protocol="paper",
    summary="nothing but paper",
    options=PaperOptions,
    records=PaperRecords,
    submit={Trigger.REQUEST: PaperSubmit},
    outcome=PaperOutcome,
    check=check,
    open=_never,
    word=PaperWord,
    check_word=check_word,
)


def find(protocol: str) -> Adapter:
    if protocol == "paper":
        return PAPER
    if protocol == "stone":
        raise AdapterMissing(
            "the adapter for stone needs chisel, which is not installed; pip install 'smp-bridge[stone]'"
        )
    raise AdapterMissing("unknown protocol; known are paper, stone")
