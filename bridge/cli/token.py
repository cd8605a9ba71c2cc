"""`smp-bridge token`: who may use the admin listener. A token is shown once, when it is made, and kept nowhere."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Final

import typer

from bridge.cli.journals import (
    ByOption,
    ConfigOption,
    ReasonOption,
    change,
    decided,
    known_participant,
    loaded,
    read,
    whose,
)
from bridge.cli.shown import moment_text, table
from bridge.clock import SystemClock
from bridge.config import Config
from bridge.errors import BridgeError, ConfigError, Problem
from bridge.journal.access import TokenView
from bridge.keys import KeySigner, write_whole
from bridge.material import host_signer
from bridge.web.roles import Role
from bridge.web.tokens import make_token, new_token_id

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Who may use the admin listener: make a token for a person and a role, list those that were made, revoke one at once.",
)

_DAY_NS: Final = 86_400 * 1_000_000_000
_LONGEST_DAYS: Final = 366
_NAME_CHARS: Final = 100


@app.command("new")
def new(
    role: Annotated[Role, typer.Option(help="What it allows beyond reading, which each role may (docs/access.md).")],
    by: ByOption,
    participant: Annotated[
        list[str] | None, typer.Option(help="For this participant entry (may be given more than once).")
    ] = None,
    all_: Annotated[
        bool, typer.Option("--all", help="For all participants, and for what concerns the whole host.")
    ] = False,
    days: Annotated[int, typer.Option(min=1, max=_LONGEST_DAYS, help="How long it counts.")] = 30,
    for_: Annotated[str, typer.Option("--for", help="The person who will work with it; default: --by.")] = "",
    out: Annotated[
        Path | None, typer.Option(help="Write it to this new file (mode 0600) instead of printing it.")
    ] = None,
    config: ConfigOption = Path("config"),
) -> None:
    """Make a token, signed by the host's own key, and print it once. It counts at once, for a service that runs too.

    Give each person a token of their own: events carry the name, and nobody can be their own second person.
    """
    if bool(participant) == all_:
        raise typer.BadParameter("give either --participant (once or more) or --all")
    read_ = loaded(config)
    names = tuple(dict.fromkeys(known_participant(read_, name) for name in participant or ()))
    if "" in names:
        raise typer.BadParameter("--participant must name one")
    if out is not None and out.exists():
        raise BridgeError(f"{out} is there already", hint="name another file")
    issuer = _name("--by", whose(by))
    holder = _name("--for", for_) if for_ else issuer
    signer, now_ns = _signer(read_), SystemClock.here().wall_ns()
    view = TokenView(
        id=new_token_id(),
        holder=holder,
        role=role.value,
        participants=names,
        issued_by=issuer,
        issued_ns=now_ns,
        expires_ns=now_ns + days * _DAY_NS,
    )
    token = make_token(signer, view)
    change(read_, lambda journal: journal.note_token(view), make=True)
    print(f"{view.id}: {_described(view)}, until {moment_text(view.expires_ns)}", file=sys.stderr)
    if out is None:
        print(token.reveal())
    else:
        write_whole(out, f"{token.reveal()}\n".encode(), mode=0o600)
        print(f"written to {out}", file=sys.stderr)


@app.command("list")
def list_(
    config: ConfigOption = Path("config"),
    all_: Annotated[bool, typer.Option("--all", help="Those that do not count any more too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List the tokens that count, newest first; never they themselves."""
    now_ns = SystemClock.here().wall_ns()
    views = read(loaded(config), lambda journal: journal.tokens())
    shown = [view for view in views if all_ or _stands(view, now_ns)]
    if as_json:
        print(json.dumps([asdict(view) for view in shown], indent=2))
        return
    rows = [
        (view.id, view.holder, view.role, ", ".join(view.participants) or "all", moment_text(view.expires_ns)[:19], view.issued_by, _end(view, now_ns))
        for view in shown
    ]  # fmt: skip
    print("\n".join(table(("ID", "FOR", "ROLE", "PARTICIPANTS", "UNTIL (UTC)", "MADE BY", "STATE"), rows)))


@app.command("revoke")
def revoke(
    token: Annotated[str, typer.Argument(metavar="ID", help="The token's id, as `list` prints it.")],
    reason: ReasonOption,
    by: ByOption,
    config: ConfigOption = Path("config"),
) -> None:
    """Let a token count no more, from the next request on."""
    decision = decided(by, reason)
    view = change(loaded(config), lambda journal: journal.revoke_token(token, decision))
    print(f"{view.id}: revoked ({_described(view)})")


def _signer(config: Config) -> KeySigner:
    signer = host_signer(config)
    if signer is None:
        raise ConfigError(
            [Problem(text="`host_key` is missing in bridge.yaml: tokens are signed by the host's own key")],
            hint="make one with `smp-bridge keys new --out FILE`, name it as `host_key: FILE`, and start the service again",
        )
    return signer


def _name(option: str, text: str) -> str:
    name = " ".join(text.split())
    if not name or len(name) > _NAME_CHARS or not name.isprintable():
        raise typer.BadParameter(f"{option} is a person's name of at most {_NAME_CHARS} characters")
    return name


def _stands(view: TokenView, now_ns: int) -> bool:
    return not view.revoked_ns and view.expires_ns > now_ns


def _end(view: TokenView, now_ns: int) -> str:
    if view.revoked_ns:
        return f"revoked by {view.revoked_by}: {view.revoke_reason}"
    return "stands" if _stands(view, now_ns) else "expired"


def _described(view: TokenView) -> str:
    return f"{view.role} for {view.holder}, participants {', '.join(view.participants) or 'all'}"
