"""`smp-bridge evidence`: hand out what was recorded in a form that proves itself, and check such a file."""

import asyncio
import json
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Final

import typer

from bridge.assembly import anchor_couriers
from bridge.cli import EXIT_FAILED
from bridge.cli.erase import erase
from bridge.cli.journals import ConfigOption, change, loaded, moment_option, remembered_participant
from bridge.clock import SystemClock, iso_ms
from bridge.config import Config
from bridge.envelope import PublicKey
from bridge.errors import BridgeError, ConfigError, LeaseHeld, NotPossible, Problem
from bridge.ids import submission_ids
from bridge.journal import anchor as anchors
from bridge.journal.configured import journal_exists, no_journal, open_configured_journal
from bridge.journal.examine import Examined, examine
from bridge.journal.export import Exported, export
from bridge.journal.export_plan import Scope
from bridge.journal.keeper import KeptJournal
from bridge.journal.sealing import SEALER, sealed_up_to
from bridge.keys import KeySigner, load_jwks, public_from_jwk
from bridge.material import host_signer

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Hand out sealed evidence as a file that proves itself, and check such a file without the journal.",
)

_WAIT_STEP_S: Final = 0.2
_WAIT_MORE_S: Final = 15.0

app.command("erase")(erase)


@app.command("export")
def export_(
    out: Annotated[Path, typer.Argument(metavar="OUT.zip", help="The new file; an existing one is never replaced.")],
    participant: Annotated[str, typer.Option(help="Whose evidence.")],
    submission: Annotated[str, typer.Option(help="Only this submission, with its returns.")] = "",
    from_: Annotated[
        str, typer.Option("--from", help="Everything from this day or time on (UTC, 2026-11-01 or 2026-11-01T08:00).")
    ] = "",
    to: Annotated[str, typer.Option("--to", help="Up to and with this day or time; default: now.")] = "",
    config: ConfigOption = Path("config"),
) -> None:
    """Sign the newest head with the host's own key, then write a participant's evidence: one submission, or a span of time.

    It runs beside the service or without it. A single submission takes only its own events and bytes, with paths to the signed heads.
    """
    read = loaded(config)
    done = asyncio.run(_export(read, _scope(participant, submission, from_, to), _signer(read), out))
    erased = f", the bytes of {done.erased:,} erased" if done.erased else ""
    print(f"{out}: {done.events:,} events in {done.blocks:,} blocks, {done.blobs:,} pieces of bytes{erased}")
    if done.retired:
        print(
            f"blocks 1 to {done.retired} had their time and are gone (`journal.retention`): what they held of this is not in it"
        )
    print(f"signed by {done.head.kid}; its newest head is block {done.head.number} of {iso_ms(done.head.signed_ns)}")
    print("check it with: smp-bridge evidence verify, or docs/verify_evidence.py (docs/evidence.md)")


@app.command("verify")
def verify(
    file: Annotated[Path, typer.Argument(metavar="OUT.zip", help="A file that `evidence export` wrote.")],
    keys: Annotated[
        Path | None,
        typer.Option(
            help="The host's public keys as a JWK Set (`smp-bridge keys jwks HOST-KEY`); default: the key in --config."
        ),
    ] = None,
    anchor: Annotated[
        Path | None,
        typer.Option(help="An anchor that was kept elsewhere, as the place got it: finds what was cut off at the end."),
    ] = None,
    config: ConfigOption = Path("config"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of lines.")] = False,
) -> None:
    """Check an exported file, without the journal and without a network. The first thing that is wrong is named with its place.

    Exit status 1: something is not as it was sealed and signed.
    """
    if not file.is_file():
        raise BridgeError(f"{file} is not there", hint="name the file that `evidence export` wrote")
    report = examine(file, _public(keys, config), _anchor(anchor))
    if as_json:
        print(json.dumps(asdict(report), indent=2))
    else:
        _print(file, report)
    if report.wrong:
        raise typer.Exit(EXIT_FAILED)


@app.command("anchor")
def anchor_(
    place: Annotated[str, typer.Argument(help="Only this place of `journal.anchors`; default: all of them.")] = "",
    config: ConfigOption = Path("config"),
) -> None:
    """Bring the anchor to the places off this host now, once each, and say what each answered. It runs beside the service or without it.

    Nothing is brought to a place that knows of more than this journal holds. Exit status 1: a place did not accept it.
    """
    read = loaded(config)
    places = read.host.journal.anchors
    if not places:
        missing = Problem(text="`journal.anchors` is missing in bridge.yaml: it names the places off this host")
        raise ConfigError([missing], hint="docs/evidence.md shows the three kinds of places")
    if place and place not in places:
        raise typer.BadParameter(f"there is no place {place}; known are {', '.join(places)}")

    async def bring(journal: KeptJournal) -> list[tuple[str, str]]:
        finding = await journal.evidence().compare(read.host.journal.anchor_file)
        if not finding.verdict.safe:
            raise NotPossible(
                f"nothing was brought anywhere: {finding.text}", hint="run `smp-bridge journal reconcile`"
            )
        couriers = anchor_couriers(read, journal, clock=SystemClock.here(), hold=_no_hold)
        wanted = [courier for courier in couriers if place in ("", courier.name)]
        return [
            (courier.name, problem)
            for courier, problem in zip(
                wanted, await asyncio.gather(*(courier.bring() for courier in wanted)), strict=True
            )
        ]

    answers = change(read, bring)
    for name, problem in answers:
        print(f"{name}: not accepted: {problem}" if problem else f"{name}: accepted")
    if any(problem for _, problem in answers):
        raise typer.Exit(EXIT_FAILED)


async def _no_hold(_text: str) -> None:
    """What a place knows is printed; holding the host is for the service."""


async def _export(config: Config, scope: Scope, signer: KeySigner, out: Path) -> Exported:
    clock, options = SystemClock.here(), config.host.journal
    if not await journal_exists(options):
        raise no_journal(options)
    journal = await open_configured_journal(
        options, clock=clock, role="cli", new_id=submission_ids(clock), checkpoint=False
    )
    try:
        await remembered_participant(config, journal, scope.participant)
        await _sealed(journal, options.seal_every)
        evidence = journal.evidence()
        await evidence.sign_heads(signer, scope.participant)
        try:
            return await export(
                evidence.read,
                scope,
                signer,
                archive_directory=options.archive_directory,
                file=out,
                now_ns=clock.wall_ns(),
            )
        except OSError as error:
            raise NotPossible(f"{out} cannot be written: {error.strerror or error}") from error
    finally:
        await journal.close()


async def _sealed(journal: KeptJournal, seal_every_s: float) -> None:
    """Everything that is there now is in a block when this returns: sealed here, or by the service that runs. Raises `NotPossible` when the service does not."""
    evidence = journal.evidence()
    with suppress(LeaseHeld):
        sealer = await journal.acquire(SEALER)
        while (await evidence.seal(sealer)).events:
            pass
        await journal.release([sealer])
        return
    newest, sealed = await evidence.read(sealed_up_to)
    target = newest
    with suppress(TimeoutError):
        async with asyncio.timeout(seal_every_s + _WAIT_MORE_S):
            while sealed < target:
                await asyncio.sleep(_WAIT_STEP_S)
                _, sealed = await evidence.read(sealed_up_to)
    if sealed < target:
        raise NotPossible("the service that runs does not seal its evidence", hint="look at `smp-bridge alarms list`")


def _scope(participant: str, submission: str, from_: str, to: str) -> Scope:
    if bool(submission) == bool(from_ or to):
        raise typer.BadParameter("give either --submission, or --from and perhaps --to")
    if submission:
        return Scope(participant=participant, submission=submission)
    if not from_:
        raise typer.BadParameter("--to needs --from")
    first = moment_option("--from", from_, last=False)
    last = moment_option("--to", to, last=True) if to else SystemClock.here().wall_ns()
    if last < first:
        raise typer.BadParameter("--to lies before --from")
    return Scope(participant=participant, from_ns=first, to_ns=last)


def _signer(config: Config) -> KeySigner:
    signer = host_signer(config)
    if signer is None:
        raise ConfigError(
            [Problem(text="`host_key` is missing in bridge.yaml: evidence is signed by the host's own key")],
            hint="make one with `smp-bridge keys new --out FILE`, and name it as `host_key: FILE`",
        )
    return signer


def _public(keys: Path | None, config: Path) -> dict[str, PublicKey]:
    if keys is not None:
        return load_jwks(keys)
    signer = _signer(loaded(config))
    return {signer.kid: public_from_jwk(Path("host_key"), signer.public_jwk())}


def _anchor(file: Path | None) -> anchors.Anchor | None:
    if file is None:
        return None
    found = anchors.load(file)
    if not isinstance(found, anchors.Anchor):
        raise BridgeError(found or f"there is no anchor at {file}", hint="name a copy of the file at `journal.anchor`")
    return found


def _print(file: Path, report: Examined) -> None:
    manifest, count = report.manifest, report.count
    if manifest:
        scope = manifest["scope"]
        what = (
            f"submission {scope['submission']}"
            if "submission" in scope
            else f"{scope.get('from')} to {scope.get('to')}"
        )
        print(f"{file}: {manifest['participant']}, {what}, exported {manifest['exported_at']}, signed by {report.kid}")
    if report.wrong:
        print("\n".join([f"WRONG {report.place}: {report.wrong}", *report.notes]))
        return
    print(
        f"{count.events:,} events in {count.blocks:,} blocks under {count.heads:,} signed heads; {count.blobs:,} pieces of bytes"
    )
    if count.erased:
        print(f"the bytes of {count.erased:,} are erased; their digests stand")
    for note in report.notes:
        print(note)
    print("everything is as it was sealed and signed")
