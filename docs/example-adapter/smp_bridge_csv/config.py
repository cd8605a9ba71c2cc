"""What a site may say of this adapter. Pure: nothing is opened here."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from bridge.api import Options, Outcome, Problem, RecordsOptions, Selection


class CsvOptions(Options):
    """`adapters.<name>`: the file to read, how often, and the files that may be written."""

    file: Path
    poll: Annotated[float, Field(gt=0, le=3600)] = 2.0
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] = ","
    writable: tuple[Path, ...] = ()


class CsvRecords(RecordsOptions):
    """`records:`: the column that names a row's place, and a column per field."""

    each: str
    fields: Mapping[str, str]


class OnChange(Options):
    """`submit: {when: change}` needs nothing more."""


class CsvOutcome(Outcome):
    """`outcome:`: the file for the results and the columns to fill. Words of progress are not worth a file's rewriting."""

    file: Path
    state: str
    transaction_id: Annotated[str | None, Field(alias="transactionId")] = None
    error_text: Annotated[str | None, Field(alias="errorText")] = None
    progress: bool = False


def check(options: CsvOptions, selections: Sequence[Selection]) -> list[Problem]:
    """The outcome file must be one of `writable:`, and never the export itself."""
    problems = []
    for selection in selections:
        target = selection.outcome.file
        path = f"flows.{selection.flow}.outcome.file"
        if target == options.file:
            problems.append(Problem(path=path, text="is the file that the EMS writes; name another one"))
        elif target not in options.writable:
            problems.append(
                Problem(
                    path=path, text=f"{target} is not in the adapter's `writable:`; add it there or write elsewhere"
                )
            )
    return problems
