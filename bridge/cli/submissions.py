"""`smp-bridge submissions`: what became of each call, read from the journal beside a running service or without one."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from bridge.cli import resolve as deciding
from bridge.cli.journals import known_participant, known_site, loaded, moment_option, read
from bridge.cli.waterfall import waterfall_json, waterfall_lines
from bridge.clock import iso_ms
from bridge.config.kinds import clean
from bridge.errors import BridgeError
from bridge.journal.port import EventView, ItemView, JournalReader, SubmissionView
from bridge.submission import SubmissionState

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="What became of each Create call: list them, show one with its items, events and latency, or decide what cannot go on by itself.",
)

EVENT_CHARS = 160
_TEXT_CHARS = 500
_HOPS = ("received", "sent", "settled")
_Whole: TypeAlias = tuple[SubmissionView, Sequence[ItemView], Sequence[EventView]]
ConfigOption = Annotated[Path, typer.Option(help="Directory that holds bridge.yaml and sites/*.yaml.")]


@app.command("list")
def list_(
    config: ConfigOption = Path("config"),
    participant: Annotated[str, typer.Option(help="Only this participant entry.")] = "",
    site: Annotated[str, typer.Option(help="Only this site.")] = "",
    state: Annotated[
        str, typer.Option(help="Only this state, such as CONFIRMED, PARTIAL, IN_DOUBT or AWAITING_RETURN.")
    ] = "",
    since: Annotated[
        str, typer.Option(help="Made on or after this day or time (UTC, 2026-11-01 or 2026-11-01T08:00).")
    ] = "",
    until: Annotated[str, typer.Option(help="Made up to and with this day or time.")] = "",
    before: Annotated[str, typer.Option(help="Older than this submission: the last one of a list before.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="At most this many, newest first.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List submissions, newest first."""
    wanted = _state(state)
    found = loaded(config)
    known_participant(found, participant)
    known_site(found, site)
    since_ns = moment_option("--since", since, last=False) if since else None
    until_ns = moment_option("--until", until, last=True) if until else None

    async def ask(journal: JournalReader) -> Sequence[SubmissionView]:
        if before and await journal.submission(before) is None:
            raise _unknown(before)
        return await journal.submissions(
            participant=participant, site=site, state=wanted, since_ns=since_ns, until_ns=until_ns, before=before, limit=limit,
        )  # fmt: skip

    views = read(found, ask)
    if as_json:
        print(json.dumps([_plain(view) for view in views], indent=2))
        return
    print(
        f"{'ID':<22} {'RECEIVED (UTC)':<19} {'SENT (UTC)':<19} {'STATE':<16} {'PARTICIPANT':<16} {'FLOW':<24} {'ITEMS':>5}  TRANSACTION"
    )
    for view in views:
        where = f"{view.site}/{view.flow}" if view.site else view.flow
        print(
            f"{view.id:<22} {_stamped(view, 'received'):<19} {_stamped(view, 'sent'):<19} {view.state.value:<16} {view.participant:<16} {where:<24} {view.items:>5}  {clean(view.transaction_id or '-', _TEXT_CHARS)}{_archived(view)}"
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
    view, items, events = read(loaded(config), lambda journal: _gather(journal, submission))
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
        raise _unknown(submission)
    return view, await journal.submission_items(submission), await journal.events(submission)


def _unknown(submission: str) -> BridgeError:
    return BridgeError(f"there is no submission {submission}", hint="`smp-bridge submissions list` names them")


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


def _stamped(view: SubmissionView, hop: str) -> str:
    """When it came to this hop, '-' before."""
    stamp = view.stamps.get(hop)
    return "-" if stamp is None else datetime.fromtimestamp(stamp.wall_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _state(word: str) -> SubmissionState | None:
    if not word:
        return None
    try:
        return SubmissionState(word.upper().replace("-", "_"))
    except ValueError:
        known = ", ".join(state.value for state in SubmissionState)
        raise typer.BadParameter(f"{word} is not a state; known are {known}") from None


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
        **{hop: iso_ms(view.stamps[hop].wall_ns) if hop in view.stamps else None for hop in _HOPS},
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
