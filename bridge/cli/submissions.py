"""`smp-bridge submissions`: what became of each call, read from the journal beside a running service or without one."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, TypeAlias, TypeVar

import typer

from bridge.cli import resolve as deciding
from bridge.cli.journals import loaded
from bridge.cli.waterfall import waterfall_json, waterfall_lines
from bridge.config.kinds import clean
from bridge.errors import BridgeError
from bridge.journal.configured import open_configured_reader
from bridge.journal.port import EventView, ItemView, JournalReader, SubmissionView
from bridge.submission import SubmissionState

app = typer.Typer(
    no_args_is_help=True,
    help="What became of each Create call: list them, show one with its items, events and latency, or decide what cannot go on by itself.",
)

T = TypeVar("T")
EVENT_CHARS = 160
_TEXT_CHARS = 500
_Whole: TypeAlias = tuple[SubmissionView, Sequence[ItemView], Sequence[EventView]]
ConfigOption = Annotated[Path, typer.Option(help="Directory that holds bridge.yaml and sites/*.yaml.")]


@app.command("list")
def list_(
    config: ConfigOption = Path("config"),
    participant: Annotated[str, typer.Option(help="Only this participant entry.")] = "",
    state: Annotated[
        str, typer.Option(help="Only this state, such as CONFIRMED, PARTIAL, IN_DOUBT or AWAITING_RETURN.")
    ] = "",
    limit: Annotated[int, typer.Option(min=1, help="At most this many, newest first.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List submissions, newest first."""
    wanted = _state(state)
    _known_participant(config, participant)
    views = _read(config, lambda journal: journal.submissions(participant=participant, state=wanted, limit=limit))
    if as_json:
        print(json.dumps([_plain(view) for view in views], indent=2))
        return
    print(f"{'ID':<22} {'SENT (UTC)':<19} {'STATE':<16} {'PARTICIPANT':<16} {'FLOW':<24} {'ITEMS':>5}  TRANSACTION")
    for view in views:
        where = f"{view.site}/{view.flow}" if view.site else view.flow
        print(
            f"{view.id:<22} {_sent(view):<19} {view.state.value:<16} {view.participant:<16} {where:<24} {view.items:>5}  {clean(view.transaction_id or '-', _TEXT_CHARS)}{_archived(view)}"
        )


@app.command("show")
def show(
    submission: Annotated[str, typer.Argument(help="The submission's id, as `list` prints it.")],
    config: ConfigOption = Path("config"),
    full: Annotated[
        bool, typer.Option("--full", help="Each event with all that it holds, not only its beginning.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Show one submission: how long each stage took, as a waterfall; its items with their outcomes; what happened when."""
    view, items, events = _read(config, lambda journal: _gather(journal, submission))
    if as_json:
        print(json.dumps(_whole(view, items, events), indent=2))
        return
    print(
        f"{view.id}  {view.state.value}  {view.operation.value}  participant {view.participant}  site {view.site}  flow {view.flow}"
    )
    transaction, reason = clean(view.transaction_id or "-", _TEXT_CHARS), clean(view.reason or "-", _TEXT_CHARS)
    print(f"transaction {transaction}  tries {view.attempts}  moved here by: {reason}")
    print("\n".join(["", *waterfall_lines(view.stamps)]))
    print("\nItems")
    for item in items:
        print(_item_line(item))
    print("\nEvents")
    for name in view.segments:
        print(f"  older ones in the archive: {name}")
    for event in events:
        at = datetime.fromtimestamp(event.at_ns / 1e9, UTC).isoformat(timespec="milliseconds")
        print(
            f"  {at}  {event.writer}/{event.epoch}/{event.number}  {event.kind}  {_shortened(json.dumps(dict(event.data)), full=full)}"
        )


app.command("resolve")(deciding.resolve)
app.command("retry")(deciding.retry)
app.command("cancel")(deciding.cancel)


async def _gather(journal: JournalReader, submission: str) -> _Whole:
    view = await journal.submission(submission)
    if view is None:
        raise BridgeError(f"there is no submission {submission}", hint="`smp-bridge submissions list` names them")
    return view, await journal.submission_items(submission), await journal.events(submission)


def _item_line(item: ItemView) -> str:
    """One item on one line, whatever the platform wrote of it."""
    errors = "; ".join(clean(f"{error.code} {error.text}", _TEXT_CHARS) for error in item.errors)
    names = f"{clean(item.key, _TEXT_CHARS):<24} {item.state.value:<14} {clean(item.asset_id or '-', _TEXT_CHARS):<20}"
    return f"  {names} written back: {item.written_back or '-'}  {errors}"


def _shortened(text: str, *, full: bool) -> str:
    return text if full or len(text) <= EVENT_CHARS else f"{text[:EVENT_CHARS]} … (--full)"


def _archived(view: SubmissionView) -> str:
    """That its older events are no longer in the journal itself."""
    return f"  (archived: {', '.join(view.segments)})" if view.segments else ""


def _sent(view: SubmissionView) -> str:
    """When its first byte left, '-' before."""
    stamp = view.stamps.get("sent")
    return "-" if stamp is None else datetime.fromtimestamp(stamp.wall_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _state(word: str) -> SubmissionState | None:
    if not word:
        return None
    try:
        return SubmissionState(word.upper().replace("-", "_"))
    except ValueError:
        known = ", ".join(state.value for state in SubmissionState)
        raise typer.BadParameter(f"{word} is not a state; known are {known}") from None


def _known_participant(config: Path, name: str) -> None:
    known = loaded(config).participants
    if name and name not in known:
        raise typer.BadParameter(f"{name} is not a participant; known are {', '.join(known)}")


def _read(config: Path, ask: Callable[[JournalReader], Awaitable[T]]) -> T:
    options = loaded(config).host.journal

    async def inside() -> T:
        journal = await open_configured_reader(options)
        try:
            return await ask(journal)
        finally:
            await journal.close()

    return asyncio.run(inside())


def _plain(view: SubmissionView) -> dict[str, object]:
    return {
        "id": view.id,
        "state": view.state.value,
        "participant": view.participant,
        "site": view.site,
        "flow": view.flow,
        "operation": view.operation.value,
        "transaction_id": view.transaction_id,
        "items": view.items,
        "outcomes": dict(view.outcomes),
        "attempts": view.attempts,
        "reason": view.reason,
        "segments": list(view.segments),
    }


def _whole(view: SubmissionView, items: Sequence[ItemView], events: Sequence[EventView]) -> dict[str, object]:
    told = [
        {
            "key": item.key,
            "place": item.place,
            "state": item.state.value,
            "asset_id": item.asset_id,
            "errors": [{"code": error.code, "text": error.text, "field": error.field} for error in item.errors],
            "written_back": item.written_back,
        }
        for item in items
    ]
    happened = [
        {
            "at": datetime.fromtimestamp(event.at_ns / 1e9, UTC).isoformat(timespec="milliseconds"),
            "number": f"{event.writer}/{event.epoch}/{event.number}",
            "kind": event.kind,
            "details": dict(event.data),
        }
        for event in events
    ]
    # `items` is a number in `list`; the items themselves stand beside it.
    return {**_plain(view), "latency": waterfall_json(view.stamps), "item_list": told, "events": happened}
