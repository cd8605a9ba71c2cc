"""`smp-bridge submissions resolve|retry|cancel`: what a person decides of calls that cannot go on by themselves."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, TypeAlias

import typer

from bridge.cli.journals import ByOption, ConfigOption, ReasonOption, change, decided, loaded
from bridge.cli.tables import Line, Table, read_table
from bridge.errors import BridgeError, NotPossible
from bridge.journal.people import Decision
from bridge.journal.port import ItemOutcome, ItemView, Journal, SubmissionView
from bridge.model import ErrorNote, ItemState

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
    config: ConfigOption = Path("config"),
) -> None:
    """Decide what became of a call that is in doubt, or of the unknown items of an ended one.

    Ask the platform first. --resend may register twice if the first message had arrived. --confirm needs every item of a call in doubt;
    of an ended submission it moves the unknown items that it names, and the submission's own state stays.
    """
    if sum((resend, confirm is not None, cancel)) != 1:
        raise typer.BadParameter("give exactly one of --resend, --confirm FILE.csv and --cancel")
    if confirm is not None and item:
        raise typer.BadParameter("the file of --confirm names the items; leave --item away")
    decision = decided(by, reason)
    found = loaded(config)
    if confirm is not None:
        table = read_table(confirm, _REQUIRED, _OPTIONAL)
        change(found, lambda journal: _confirm(journal, submission, table, decision))
        print(f"{submission}: confirmed by {decision.by}")
    elif resend:
        sent = change(found, lambda journal: _resend(journal, submission, item or [], decision))
        print(f"{submission}: goes again{'' if sent == submission else f' as {sent}'}, by {decision.by}")
    else:
        change(found, lambda journal: _cancel(journal, submission, item or [], decision))
        print(f"{submission}: cancelled by {decision.by}")


def retry(submission: IdArgument, reason: ReasonOption, by: ByOption, config: ConfigOption = Path("config")) -> None:
    """Let a submission that was set aside go on, at once and as a new message; or end the pause of one that waits to be sent again."""
    decision = decided(by, reason)
    change(loaded(config), lambda journal: journal.retry(submission, decision))
    print(f"{submission}: retried by {decision.by}")


def cancel(
    submission: IdArgument,
    reason: ReasonOption,
    by: ByOption,
    item: ItemOption = None,
    config: ConfigOption = Path("config"),
) -> None:
    """Give up a submission that waits, was set aside or is in doubt, or the unknown items of an ended one; its references may be requested again."""
    decision = decided(by, reason)
    change(loaded(config), lambda journal: _cancel(journal, submission, item or [], decision))
    print(f"{submission}: cancelled by {decision.by}")


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
