"""`smp-bridge assets`: what SMP holds, made known to the bridge by a file, listed and exported."""

import asyncio
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Final, TypeVar

import typer

from bridge.cli.journals import ByOption, ConfigOption, change, known_participant, loaded, read, whose
from bridge.cli.tables import Line, Table, read_table, write_table
from bridge.config import Config
from bridge.errors import BridgeError
from bridge.journal.brownfield import FIRST, MOST_ROWS, AssetView, Import, ImportReport, KnownAsset
from bridge.journal.configured import journal_exists, journal_place
from bridge.journal.port import JournalReader
from bridge.model import ItemState, Kind
from bridge.profile.words import AlignBy

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="What SMP holds: make assets known that were registered outside the bridge, list what is known, or export it.",
)

W = TypeVar("W", Kind, ItemState)
REQUIRED: Final = ("reference", "asset_id", "state")
OPTIONAL: Final = ("source", "kind", "site", "flow", "transaction_id")
_LONGEST: Final = 255
_PAGE: Final = 1000
_HINT: Final = "Nothing was imported: correct these places, or what the journal says, and import the file again"
ParticipantOption = Annotated[str, typer.Option(help="The participant entry; may be left out where there is only one.")]


@app.command("import")
def import_(
    file: Annotated[
        Path, typer.Argument(help="CSV: reference, asset_id, state; and perhaps source, kind, transaction_id.")
    ],
    by: ByOption,
    config: ConfigOption = Path("config"),
    participant: ParticipantOption = "",
    over_refused: Annotated[
        bool,
        typer.Option("--over-refused", help="Also take what SMP refused through the bridge: it holds it all the same."),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen; nothing is changed.")] = False,
) -> None:
    """Make known what SMP holds already, so that nothing creates it again and units can align to it. All of the file, or nothing.

    The first line names the columns, in any order: reference, asset_id, state (registered or unknown), and if you like source (where you know
    it from), kind (asset or unit) and transaction_id. UTF-8, with commas or semicolons. A file of `assets export` can be imported elsewhere:
    its site and flow are passed over, what was on its way there is unknown here, and what SMP does not hold is left out.

    The first EMS that asks for an imported reference is told that it is registered, and what it shows then counts as what was registered.
    """
    found, name = loaded(config), whose(by)
    whose_assets = _participant(found, participant)
    table = read_table(file, REQUIRED, OPTIONAL)
    rows, lines = _rows(table, needs_id=_aligns_by_id(found, whose_assets))
    wanted = Import(whose_assets, rows, name, file.name, over_refused)
    report = read(found, lambda journal: journal.examine_import(wanted)) if _has_journal(found) else None
    _check(table, lines, report)
    if not dry_run:
        report = change(found, lambda journal: journal.import_assets(wanted), make=True)
        _check(table, lines, report)
    elif report is None:
        raise BridgeError(
            f"there is no journal at {journal_place(found.host.journal)} yet: all {len(rows)} rows would be new",
            hint="run it without --dry-run, or start the service once",
        )
    print(_summary(report, wanted, dry_run=dry_run))


@app.command("list")
def list_(
    config: ConfigOption = Path("config"),
    participant: Annotated[str, typer.Option(help="Only those of this participant entry.")] = "",
    state: Annotated[str, typer.Option(help="Only this state, such as registered, refused, unknown or in_doubt.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="At most this many.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List the assets and units that the journal knows, by participant, kind and reference."""
    found = loaded(config)
    known_participant(found, participant)
    wanted = _state_option(state)
    views = read(found, lambda journal: journal.assets(participant, state=wanted, limit=limit))
    if as_json:
        print(json.dumps([{**asdict(v), "kind": v.kind.value, "state": v.state.value} for v in views], indent=2))
        return
    print(f"{'PARTICIPANT':<16} {'KIND':<5} {'REFERENCE':<24} {'STATE':<12} {'ASSET ID':<24} {'FLOW':<24} SOURCE")
    for view in views:
        where = f"{view.site}/{view.flow}" if view.site else "-"
        print(
            f"{view.participant:<16} {view.kind.value:<5} {view.key:<24} {view.state.value:<12} {view.asset_id or '-':<24} {where:<24} {view.source or '-'}"
        )


@app.command("export")
def export(
    file: Annotated[Path, typer.Argument(help="The CSV file to write.")],
    config: ConfigOption = Path("config"),
    participant: ParticipantOption = "",
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Write all that the journal knows of a participant's assets and units as CSV, in the columns that `import` reads."""
    found = loaded(config)
    whose_assets = _participant(found, participant)
    if file.exists() and not force:
        raise BridgeError(f"{file} is there already", hint="name another file, or give --force")
    views = read(found, lambda journal: _all(journal, whose_assets))
    try:
        count = write_table(file, (*REQUIRED, *OPTIONAL), _exported(views))
    except OSError as error:
        raise BridgeError(f"{file} cannot be written: {error.strerror}", hint="name another place") from error
    print(f"{count} rows of {whose_assets} in {file}")


# ------------------------------------------------------------------------------------------------------------- importing


def _rows(table: Table, *, needs_id: bool) -> tuple[list[KnownAsset], list[int]]:
    """The rows that can be read, and the line of each."""
    rows: list[KnownAsset] = []
    lines: list[int] = []
    first: dict[tuple[Kind, str], int] = {}
    if len(table.lines) > MOST_ROWS:
        table.wrong(0, "", f"has {len(table.lines)} rows, {MOST_ROWS} may be; take it in parts")
    for line in table.lines:
        row = _row(table, line, needs_id=needs_id)
        if row is None:
            continue
        before = first.setdefault((row.kind, row.key), line.number)
        if before != line.number:
            table.wrong(line.number, "reference", f"{row.key} stands in line {before} already; name it once")
            continue
        rows.append(row)
        lines.append(line.number)
    return rows, lines


def _row(table: Table, line: Line, *, needs_id: bool) -> KnownAsset | None:
    cells, before = line.cells, len(table.problems)
    kind, state = _word(table, line, "kind", Kind, Kind.ASSET), _word(table, line, "state", ItemState, None)
    if not cells["reference"]:
        table.wrong(line.number, "reference", "is empty; write the reference as it was registered")
    if state is ItemState.REGISTERED and not cells["asset_id"] and needs_id:
        table.wrong(line.number, "asset_id", "is empty; this participant's profile aligns units by asset id")
    for name in ("reference", "asset_id", "source", "transaction_id"):
        if len(cells[name]) > _LONGEST:
            table.wrong(line.number, name, f"has {len(cells[name])} characters, {_LONGEST} may be")
    if len(table.problems) > before or kind is None or state is None:
        return None
    return KnownAsset(
        kind=kind,
        key=cells["reference"],
        state=state,
        asset_id=cells["asset_id"],
        source=cells["source"],
        transaction_id=cells["transaction_id"],
    )


def _word(table: Table, line: Line, name: str, words: type[W], default: W | None) -> W | None:
    text = line.cells[name].lower().replace("-", "_").replace(" ", "_")
    if not text and default is not None:
        return default
    found = next((word for word in words if word.value == text), None)
    if found is None:
        known = ", ".join(word.value for word in words)
        text = f"`{line.cells[name]}` is none; known are {known}" if text else f"is empty; known are {known}"
        table.wrong(line.number, name, text)
    return found


def _check(table: Table, lines: Sequence[int], report: ImportReport | None) -> None:
    """Every problem of the file and every contradiction with the journal, at once."""
    for problem in report.problems if report is not None else ():
        column = "reference" if problem.field == "key" else problem.field
        table.wrong(lines[problem.row], column, problem.text)
    table.check(_HINT)


def _summary(report: ImportReport | None, wanted: Import, *, dry_run: bool) -> str:
    assert report is not None
    parts = {
        "new": report.added,
        "got an asset id": report.filled,
        "unknown before": report.resolved,
        "known already": report.unchanged,
        "left out, for SMP does not hold them": report.left_out,
    }
    said = "; ".join(f"{count} {text}" for text, count in parts.items() if count) or "the file has no rows"
    lines = [f"{'would import' if dry_run else 'imported'} for {wanted.participant}: {said}"]
    lines += [f"as {submission}" for submission in report.submissions]
    return "\n".join(lines)


def _has_journal(config: Config) -> bool:
    return asyncio.run(journal_exists(config.host.journal))


def _aligns_by_id(config: Config, participant: str) -> bool:
    return config.participants[participant].profile.align_by is AlignBy.ID


def _participant(config: Config, name: str) -> str:
    known = list(config.participants)
    if name:
        return known_participant(config, name)
    if len(known) > 1:
        raise typer.BadParameter(f"name one with --participant; known are {', '.join(known)}")
    return known[0]


# ------------------------------------------------------------------------------------------------------------- exporting


async def _all(journal: JournalReader, participant: str) -> list[AssetView]:
    views: list[AssetView] = []
    after = FIRST
    while page := await journal.assets(participant, after=after, limit=_PAGE):
        views += page
        after = page[-1].place
        await asyncio.sleep(0)
    return views


def _exported(views: Sequence[AssetView]) -> Iterator[Sequence[str]]:
    for view in views:
        known = (view.key, view.asset_id, view.state.value, view.source or "smp-bridge")
        yield (*known, view.kind.value, view.site, view.flow, view.transaction_id)


def _state_option(word: str) -> ItemState | None:
    if not word:
        return None
    found = next((state for state in ItemState if state.value == word.lower().replace("-", "_")), None)
    if found is None:
        raise typer.BadParameter(f"{word} is not a state; known are {', '.join(state.value for state in ItemState)}")
    return found
