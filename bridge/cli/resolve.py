"""`smp-bridge submissions resolve|retry|cancel`: what a person decides of calls that cannot go on by themselves."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, TypeAlias, TypeVar

import typer

from bridge.cli.journals import (
    ApprovedBecauseOption,
    ApprovedByOption,
    ByOption,
    ConfigOption,
    ReasonOption,
    change,
    decided,
    loaded,
    second_person,
)
from bridge.cli.tables import Line, Table, read_table
from bridge.errors import BridgeError, NotPossible
from bridge.journal.people import Decision
from bridge.journal.port import ItemOutcome, ItemView, Journal, SubmissionView
from bridge.model import ErrorNote, ItemState

T = TypeVar("T")
OUTCOMES: Final = {state.value: state for state in (ItemState.REGISTERED, ItemState.REFUSED, ItemState.UNKNOWN)}
_REQUIRED: Final = ("reference", "outcome")
_OPTIONAL: Final = ("asset_id", "error_code", "error_text")
_ID_CHARS: Final = 128

IdArgument: TypeAlias = Annotated[str, typer.Argument(help="The submission's id, as `list` prints it.")]
ItemOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--item", help="Only this reference of an ended submission (may be given more than once)."),
]


def resolve(
    submission: IdArgument,
    reason: ReasonOption,
    by: ByOption,
    resend: Annotated[bool, typer.Option("--resend", help="Send it again as a new message.")] = False,
    confirm: Annotated[
        Path | None,
        typer.Option(
            help="Take the outcomes of this CSV: reference, outcome (registered, refused or unknown), and where they are known asset_id, error_code, error_text."
        ),
    ] = None,
    cancel: Annotated[bool, typer.Option("--cancel", help="Give up; the references may be requested again.")] = False,
    item: ItemOption = None,
    approved_by: ApprovedByOption = "",
    approved_because: ApprovedBecauseOption = "",
    config: ConfigOption = Path("config"),
) -> None:
    """Decide what became of a call that is in doubt, or of the unknown items of an ended one.

    Ask the platform first. --resend may register twice if the first message had arrived. --confirm needs every item of a call in doubt;
    of an ended submission it moves the unknown items that it names, and the submission's own state stays.
    Where the participant has `four_eyes: true` a second person agrees: --approved-by and --approved-because.
    """
    if sum((resend, confirm is not None, cancel)) != 1:
        raise typer.BadParameter("give exactly one of --resend, --confirm FILE.csv and --cancel")
    if confirm is not None and item:
        raise typer.BadParameter("the file of --confirm names the items; leave --item away")
    agreed = _Agreed(config, submission, decided(by, reason), approved_by, approved_because)
    if confirm is not None:
        table = read_table(confirm, _REQUIRED, _OPTIONAL)
        agreed.do(lambda journal, decision: _confirm(journal, submission, table, decision))
        print(f"{submission}: confirmed by {agreed.names}")
    elif resend:
        sent = agreed.do(lambda journal, decision: _resend(journal, submission, item or [], decision))
        print(f"{submission}: goes again{'' if sent == submission else f' as {sent}'}, by {agreed.names}")
    else:
        agreed.do(lambda journal, decision: _cancel(journal, submission, item or [], decision))
        print(f"{submission}: cancelled by {agreed.names}")


def retry(
    submission: IdArgument,
    reason: ReasonOption,
    by: ByOption,
    approved_by: ApprovedByOption = "",
    approved_because: ApprovedBecauseOption = "",
    config: ConfigOption = Path("config"),
) -> None:
    """Let a submission that was set aside go on, at once and as a new message; or end the pause of one that waits to be sent again.

    A pause of all calls of the participant (the platform said Retry-After, or refuses everything) stays.
    Where the participant has `four_eyes: true` a second person agrees: --approved-by and --approved-because.
    """
    agreed = _Agreed(config, submission, decided(by, reason), approved_by, approved_because)
    agreed.do(lambda journal, decision: journal.retry(submission, decision))
    print(f"{submission}: retried by {agreed.names}")


def cancel(
    submission: IdArgument,
    reason: ReasonOption,
    by: ByOption,
    item: ItemOption = None,
    approved_by: ApprovedByOption = "",
    approved_because: ApprovedBecauseOption = "",
    config: ConfigOption = Path("config"),
) -> None:
    """Give up a submission that waits, was set aside or is in doubt, or the unknown items of an ended one; its references may be requested again.

    Where the participant has `four_eyes: true` a second person agrees: --approved-by and --approved-because.
    """
    agreed = _Agreed(config, submission, decided(by, reason), approved_by, approved_because)
    agreed.do(lambda journal, decision: _cancel(journal, submission, item or [], decision))
    print(f"{submission}: cancelled by {agreed.names}")


@dataclass(frozen=True, slots=True)
class _Agreed:
    """A decision about a submission, and the second person's word where the submission's participant wants it."""

    config: Path
    submission: str
    first: Decision
    approved_by: str
    approved_because: str

    @property
    def names(self) -> str:
        """Who decided, as a command prints it."""
        second = self.approved_by.strip()
        return f"{self.first.by} and {second}" if second else self.first.by

    def do(self, act: Callable[[Journal, Decision], Awaitable[T]]) -> T:
        """Act on the journal in the name of those who agreed. Raises `typer.BadParameter` where four eyes are wanted and two were not given."""
        found = loaded(self.config)

        async def inside(journal: Journal) -> T:
            view = await _view(journal, self.submission)
            entry = found.participants.get(view.participant)
            four_eyes = entry is not None and entry.options.four_eyes
            return await act(
                journal, second_person(self.first, self.approved_by, self.approved_because, four_eyes=four_eyes)
            )

        return change(found, inside)


async def _resend(journal: Journal, submission: str, keys: Sequence[str], decision: Decision) -> str:
    items = await _named(journal, submission, keys)
    return await journal.resend(submission, decision, items=[item.id for item in items])


async def _cancel(journal: Journal, submission: str, keys: Sequence[str], decision: Decision) -> None:
    items = await _named(journal, submission, keys)
    await journal.cancel(submission, decision, items=[item.id for item in items])


async def _confirm(journal: Journal, submission: str, table: Table, decision: Decision) -> None:
    await _view(journal, submission)
    items = {item.key: item for item in await journal.submission_items(submission)}
    outcomes: list[ItemOutcome] = []
    seen: set[str] = set()
    for line in table.lines:
        key, word = line.cells["reference"], line.cells["outcome"].lower()
        for column, text in _wrong(line, items, seen):
            table.wrong(line.number, column, text)
        seen.add(key)
        if key in items and word in OUTCOMES:
            outcomes.append(_outcome(items[key].id, OUTCOMES[word], line))
    if not table.lines:
        table.wrong(0, "", "holds no item")
    table.check("nothing was changed")
    await journal.confirm(submission, outcomes, decision)


def _wrong(line: Line, items: dict[str, ItemView], seen: set[str]) -> list[tuple[str, str]]:
    """The column and the text of each problem of a line."""
    key, word, asset_id = line.cells["reference"], line.cells["outcome"].lower(), line.cells.get("asset_id", "")
    wrong = []
    if key not in items:
        wrong.append(("reference", f"{key or 'nothing'} is no item of this submission"))
    if key in seen:
        wrong.append(("reference", f"{key} stands in the file twice"))
    if word not in OUTCOMES:
        wrong.append(("outcome", f"{word or 'nothing'} is none; write registered, refused or unknown"))
    if asset_id and OUTCOMES.get(word) is not ItemState.REGISTERED:
        wrong.append(("asset_id", f"only a registered item has one, and {key} is {word}"))
    if len(asset_id) > _ID_CHARS:
        wrong.append(("asset_id", f"has {len(asset_id)} characters, {_ID_CHARS} may be"))
    return wrong


def _outcome(item: int, state: ItemState, line: Line) -> ItemOutcome:
    code, text = line.cells.get("error_code", ""), line.cells.get("error_text", "")
    errors = (ErrorNote(code=code, text=text),) if code or text else ()
    return ItemOutcome(item=item, state=state, asset_id=line.cells.get("asset_id", ""), errors=errors)


async def _view(journal: Journal, submission: str) -> SubmissionView:
    view = await journal.submission(submission)
    if view is None:
        raise BridgeError(f"there is no submission {submission}", hint="`smp-bridge submissions list` names them")
    return view


async def _named(journal: Journal, submission: str, keys: Sequence[str]) -> list[ItemView]:
    """The items of these references, all of which must belong to the submission."""
    await _view(journal, submission)
    items = {item.key: item for item in await journal.submission_items(submission)}
    missing = [key for key in keys if key not in items]
    if missing:
        raise NotPossible(f"{submission} has no item {', '.join(missing)}", hint="`submissions show` names its items")
    return [items[key] for key in keys]
