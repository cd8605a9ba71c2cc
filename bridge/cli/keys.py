"""`smp-bridge keys`: signing keys and their life, ours and SMP's. What changes a state works beside the running service, which takes it at once."""

import json
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final, TypeAlias, TypeVar

import typer

from bridge.cli.importing import imported, ours
from bridge.cli.journals import (
    ApprovedBecauseOption,
    ApprovedByOption,
    ByOption,
    ConfigOption,
    ReasonOption,
    change,
    decided,
    known_participant,
    loaded,
    read,
    second_person,
)
from bridge.clock import SystemClock
from bridge.config import Config, Participant
from bridge.config.values import duration_s
from bridge.envelope import Algorithm
from bridge.errors import BridgeError, ConfigError, JournalUnusable, NotPossible
from bridge.journal.keeper import KeptJournal
from bridge.journal.keys import KeyRecord, KeySide, KeyState
from bridge.journal.people import Decision
from bridge.keyring import GRACE_S, KeyRing, open_signer, shown
from bridge.keys import KeySigner, load_signer, new_key, write_private
from bridge.material import placed
from bridge.secret import Secret

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Signing keys, ours and SMP's: make, list, rotate, revoke and import them, and print public keys as a JWK Set for SMP.",
)

T = TypeVar("T")
DAY_NS: Final = 86_400 * 1_000_000_000
NobodyOption: TypeAlias = Annotated[str, typer.Option("--participant", help="The participant entry whose key it is.")]
ParticipantOption: TypeAlias = Annotated[str, typer.Option(help="The participant entry whose keys these are.")]
SmpOption: TypeAlias = Annotated[bool, typer.Option("--smp", help="SMP's keys instead of our own.")]
DaysOption: TypeAlias = Annotated[
    int, typer.Option(min=0, help="It ends after so many days: alarms come before. 0: never.")
]
GraceOption: TypeAlias = Annotated[
    str, typer.Option(help="How long the former key is still shown, or still taken, such as 12h or 7d.")
]


@app.command("new")
def new(
    out: Annotated[Path, typer.Option(help="File for the private key (PEM, readable by its owner only).")],
    alg: Annotated[Algorithm, typer.Option(help="The key's one algorithm; ES256 is small and fast.")] = Algorithm.ES256,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there already.")] = False,
    password_file: Annotated[Path | None, typer.Option(help="Encrypt it with the passphrase in this file.")] = None,
    password_env: Annotated[str, typer.Option(help="Encrypt it with the passphrase in this variable.")] = "",
    password_credential: Annotated[str, typer.Option(help="Encrypt it with this systemd credential.")] = "",
    participant: NobodyOption = "",
    days: DaysOption = 0,
    by: ByOption = "",
    reason: ReasonOption = "",
    approved_by: ApprovedByOption = "",
    approved_because: ApprovedBecauseOption = "",
    config: ConfigOption = Path("config"),
) -> None:
    """Make a new private key and print its key id (RFC 7638 thumbprint). Give SMP the public half with `smp-bridge keys jwks`.

    With --participant it becomes that entry's next key: shown in `keys jwks --participant`, and used once `keys rotate` says so. It is encrypted with
    the entry's `signing_password` where there is one.
    """
    password = _passphrase(password_file, password_env, password_credential)
    if not participant:
        signer = _made(out, alg, password, force=force)
        _tell_new(out, signer)
        return
    first, entry = decided(by, reason), _entry(config, participant)
    decision = _agreed(entry, first, approved_by, approved_because)
    if entry.profile.signature_form.certified:
        raise BridgeError(
            f"a key of {participant} needs a certificate (profile {entry.profile.name}), and a new one has none",
            hint="make it without --participant, have it certified, and take both: smp-bridge keys import KEY --certificate FILE",
        )
    if password is not None:
        raise typer.BadParameter("with --participant the entry's `signing_password` is the passphrase")
    signer = _made(out, alg, entry.options.signing_password, force=force)
    ends = SystemClock.here().wall_ns() + days * DAY_NS if days else 0
    record = ours(entry, signer, str(out.absolute()), ends)
    try:
        _change(config, entry, lambda journal: journal.add_key(record, decision))
    except BridgeError:
        out.unlink()
        raise
    _tell_new(out, signer)
    print(
        f"it is the next key of {participant}: send SMP `smp-bridge keys jwks --participant {participant}`, then `smp-bridge keys rotate`"
    )


@app.command("list")
def list_(
    config: ConfigOption = Path("config"),
    participant: ParticipantOption = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """List the keys, ours and SMP's, each with its state, since when, by whom and why."""
    found = loaded(config)
    known_participant(found, participant)
    try:
        known = list(read(found, lambda journal: journal.keys(participant)))
    except JournalUnusable:
        known = []  # the service has not run yet: what is configured is all there is
    names = [participant] if participant else list(found.participants)
    for name in names:
        have = {(record.side, record.kid) for record in known if record.participant == name}
        try:
            configured = _configured(found, name)
        except ConfigError as error:  # a file that only the service can read hides nothing that the journal knows
            print(f"warning: what is configured of {name} is left out: {error}", file=sys.stderr)
            continue
        known += [record for record in configured if (record.side, record.kid) not in have]
    if as_json:
        rows = [
            {**asdict(record), "side": record.side.value, "state": record.state.value, "jwk": json.loads(record.jwk)}
            for record in known
        ]
        print(json.dumps(rows, indent=2))
        return
    for record in sorted(known, key=lambda one: (one.participant, one.side.value)):
        print(_shown(record))


@app.command("rotate")
def rotate(
    participant: ParticipantOption,
    by: ByOption,
    reason: ReasonOption,
    smp: SmpOption = False,
    kid: Annotated[str, typer.Option(help="The next key, where there are several.")] = "",
    grace: GraceOption = "7d",
    approved_by: ApprovedByOption = "",
    approved_because: ApprovedBecauseOption = "",
    config: ConfigOption = Path("config"),
) -> None:
    """Sign with the next key from now on; the former one retires. With --smp: SMP's next key is the active one.

    Show SMP the next key before (`keys jwks --participant`): a message signed with a key that it does not know is refused.
    """
    first, entry, grace_ns = decided(by, reason), _entry(config, participant), _grace_ns(grace)
    decision = _agreed(entry, first, approved_by, approved_because)
    side = KeySide.THEIRS if smp else KeySide.OURS

    async def ask(journal: KeptJournal) -> tuple[str, list[str]]:
        if side is KeySide.OURS:  # looked at first, so that the service is not told to sign with what cannot be read
            for record in await journal.keys(participant):
                if record.side is side and record.state is KeyState.NEXT and kid in ("", record.kid):
                    open_signer(entry, record)
        active, retired = await journal.rotate_keys(participant, side, kid, grace_ns, decision)
        return active, list(retired)

    active, retired = _change(config, entry, ask)
    print(f"{active} is the active key of {'SMP for ' if smp else ''}{participant}")
    for former in retired:
        print(f"{former} retires; it ends in {grace}")


@app.command("revoke", context_settings={"ignore_unknown_options": True})  # one key id in 64 begins with a hyphen
def revoke(
    kid: Annotated[str, typer.Argument(help="The key's id, as `keys list` prints it.")],
    participant: ParticipantOption,
    by: ByOption,
    reason: ReasonOption,
    smp: SmpOption = False,
    approved_by: ApprovedByOption = "",
    approved_because: ApprovedBecauseOption = "",
    config: ConfigOption = Path("config"),
) -> None:
    """Never use or take this key again, from this moment on. Our active one needs a next one, which signs in its place."""
    first, entry = decided(by, reason), _entry(config, participant)
    decision = _agreed(entry, first, approved_by, approved_because)
    side = KeySide.THEIRS if smp else KeySide.OURS
    successor = _change(config, entry, lambda journal: journal.revoke_key(participant, side, kid, decision))
    print(f"{kid} is revoked")
    if successor:
        print(f"{successor} is the active key of {participant}")
    if not smp:
        print("tell SMP to revoke it too; `smp-bridge keys jwks --participant` no longer shows it")


@app.command("import")
def import_(
    file: Annotated[
        Path,
        typer.Argument(
            help="SMP's public keys (JWK Set) or certificates (PEM), a private key of ours (PEM or JWK), or pkcs11:LABEL for one in the entry's token."
        ),
    ],
    participant: ParticipantOption,
    by: ByOption,
    reason: ReasonOption,
    active: Annotated[bool, typer.Option("--active", help="SMP signs with it already; else it is a next key.")] = False,
    days: DaysOption = 0,
    certificate: Annotated[
        Path | None, typer.Option(help="The certificate (PEM) of a key of ours, where the profile has calls show one.")
    ] = None,
    approved_by: ApprovedByOption = "",
    approved_because: ApprovedBecauseOption = "",
    config: ConfigOption = Path("config"),
) -> None:
    """Take SMP's new public keys or certificates, or a private key of ours that was made elsewhere. Keys that are known already are left as they are.

    A message that SMP signs with an imported key, or that shows an imported certificate, is taken from now on, `next` or active.
    """
    first, entry = decided(by, reason), _entry(config, participant)
    decision = _agreed(entry, first, approved_by, approved_because)
    ends = SystemClock.here().wall_ns() + days * DAY_NS if days else 0
    records = imported(entry, file, certificate, KeyState.ACTIVE if active else KeyState.NEXT, ends)
    allowed = entry.profile.spec.signature.algorithms
    for record in records:
        if record.alg not in allowed:
            raise BridgeError(
                f"{file}: the key {record.kid} is for {record.alg}, and the profile {entry.profile.name} allows {', '.join(allowed)}"
            )

    async def ask(journal: KeptJournal) -> list[KeyRecord]:
        known = {(record.side, record.kid) for record in await journal.keys(participant)}
        fresh = [record for record in records if (record.side, record.kid) not in known]
        for record in fresh:
            await journal.add_key(record, decision)
        return fresh

    fresh = _change(config, entry, ask)
    for record in records:
        print(
            f"{record.kid}: {f'{record.state.value} key of {record.side.value}' if record in fresh else 'known already'}"
        )


@app.command("jwks")
def jwks(
    keys: Annotated[list[Path] | None, typer.Argument(help="Private key files (PEM or JWK).")] = None,
    alg: Annotated[
        Algorithm | None, typer.Option(help="For RSA keys that are used with RS256 instead of PS256.")
    ] = None,
    password_file: Annotated[Path | None, typer.Option(help="The files' passphrase is in this file.")] = None,
    password_env: Annotated[str, typer.Option(help="The files' passphrase is in this variable.")] = "",
    password_credential: Annotated[str, typer.Option(help="The files' passphrase is this systemd credential.")] = "",
    participant: NobodyOption = "",
    config: ConfigOption = Path("config"),
) -> None:
    """Print public keys as a JWK Set (RFC 7517), to be sent to SMP: of these files, or what SMP should know of a participant now.

    With --participant: the key that signs, the next one, and those that retire.
    """
    if bool(keys) == bool(participant):
        raise typer.BadParameter("give either files of private keys, or --participant NAME")
    password = _passphrase(password_file, password_env, password_credential)
    if keys:
        shown_ = [load_signer(path, alg=alg, password=password).public_jwk() for path in keys]
        print(json.dumps({"keys": shown_}, indent=2))
        return
    if password is not None:
        raise typer.BadParameter("a passphrase is for files of private keys")
    found = loaded(config)
    known_participant(found, participant)
    try:
        records = list(read(found, lambda journal: journal.keys(participant)))
    except JournalUnusable:
        records = []
    if not any(record.side is KeySide.OURS for record in records):
        records = _configured(found, participant)
    print(json.dumps({"keys": shown(records, SystemClock.here().wall_ns())}, indent=2))


def _entry(config: Path, participant: str) -> Participant:
    found = loaded(config)
    if not participant:
        raise typer.BadParameter(f"--participant must name one of {', '.join(found.participants)}")
    known_participant(found, participant)
    return found.participants[participant]


def _agreed(entry: Participant, first: Decision, approved_by: str, approved_because: str) -> Decision:
    """Who decided, and who agreed where the entry wants four eyes."""
    return second_person(first, approved_by, approved_because, four_eyes=entry.options.four_eyes)


def _change(config: Path, entry: Participant, ask: Callable[[KeptJournal], Awaitable[T]]) -> T:
    """The result of `ask` on a journal that knows what is configured."""
    found = loaded(config)
    configured = _configured(found, entry.name)

    async def inside(journal: KeptJournal) -> T:
        await journal.introduce_keys(configured, int(GRACE_S * 1e9))
        return await ask(journal)

    return change(found, inside, make=True)


def _configured(found: Config, participant: str) -> list[KeyRecord]:
    """The keys that the configuration names. Raises `ConfigError` with the line that names the file."""
    with placed(found, f"participants.{participant}"):
        return KeyRing(found.participants[participant], SystemClock.here()).configured()


def _made(out: Path, alg: Algorithm, password: Secret | None, *, force: bool) -> KeySigner:
    if out.exists() and not force:
        raise BridgeError(
            f"{out} is there already", hint="name another file, or say --force to replace it; a replaced key is gone"
        )
    out.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(out, new_key(alg), password=password)
    return load_signer(out, alg=alg, password=password)


def _tell_new(out: Path, signer: KeySigner) -> None:
    print(f"kid {signer.kid}")
    print(f"alg {signer.alg.value}")
    more = f" --alg {signer.alg.value}" if signer.alg is Algorithm.RS256 else ""
    print(
        f"private key written to {out}; its public half, for whoever checks its signatures: smp-bridge keys jwks {out}{more}"
    )
    if more:
        print("the PEM file does not say that it is for RS256: set `signing_algorithm: RS256` at the participant too")


def _passphrase(file: Path | None, env: str, credential: str) -> Secret | None:
    """The passphrase from the one place that was named; never from the command line itself, where others could read it."""
    given = [name for name in (file, env, credential) if name]
    if len(given) > 1:
        raise typer.BadParameter("give one of --password-file, --password-env and --password-credential")
    if not given:
        return None
    if env:
        text = os.environ.get(env, "")
        place = f"the variable {env}"
    else:
        directory = os.environ.get("CREDENTIALS_DIRECTORY", "")
        if credential and (not directory or "/" in credential):
            raise typer.BadParameter("--password-credential needs $CREDENTIALS_DIRECTORY and a name without a path")
        path = Path(directory) / credential if credential else file
        assert path is not None
        place = str(path)
        try:
            text = path.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise NotPossible(
                f"{place} cannot be read as text", hint="it holds the passphrase alone, in UTF-8"
            ) from error
    if not text:
        raise typer.BadParameter(f"{place} holds no passphrase")
    return Secret(text)


def _grace_ns(text: str) -> int:
    try:
        return int(duration_s(text) * 1e9)
    except ValueError as error:
        raise typer.BadParameter(f"--grace {error}") from error


def _shown(record: KeyRecord) -> str:
    whose = "ours" if record.side is KeySide.OURS else "SMP's"
    lines = [f"{record.participant}  {whose:<5}  {record.state.value:<8}  {record.alg}  {record.kid}"]
    since = f"since {_time(record.since_ns)}" if record.since_ns else "named by the configuration"
    if record.by:
        since += f" by {record.by}: {record.reason}"
    lines.append(since)
    if record.state is KeyState.RETIRING:
        lines.append(f"grace time until {_time(record.until_ns)}")
    if record.expires_ns:
        lines.append(f"expires {_time(record.expires_ns)}")
    if record.side is KeySide.OURS:
        lines.append(f"file {record.place}")
    return "\n    ".join(lines)


def _time(ns: int) -> str:
    return datetime.fromtimestamp(ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
