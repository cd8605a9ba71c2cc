"""The subcommands, each imported when it is used: one command costs what it needs itself, and the list of all of them costs no import at all."""

from importlib import import_module
from typing import Any, Final, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from bridge.process import calm_imports


class _Place(NamedTuple):
    """Where a subcommand stands, and the sentence of its own that the list of them shows."""

    module: str
    name: str
    help: str


COMMANDS: Final = {
    "demo": _Place("demo", "demo", "Show the bridge at work: three simulated EMSs, a stand-in for SMP, and the bridge itself, on this machine alone."),
    "run": _Place("run", "run", "Run the bridge until it is told to stop (Ctrl-C or SIGTERM), and go on where it stood when it runs again."),
    "check": _Place("check", "check", "Read the configuration and report everything that is wrong with it, each with file, line and column."),
    "probe": _Place("probe", "probe", "Connect to every EMS that the configuration names, read each configured value once, and say what is wrong. Nothing is written."),
    "browse": _Place("browse", "browse", "Show what an EMS has: the tree of an OPC UA server, the topics heard on an MQTT broker, stated addresses of a Modbus device. Nothing is written."),
    "decode": _Place("decode", "decode", "Print the one value that these bytes hold, and nothing else; without --type a table of what they could mean, most plausible first."),
    "sandbox": _Place("sandbox", "sandbox", "Run a stand-in for SMP on this machine: Authenticate, Manage Asset/Create, Manage Unit/Create, Get Transaction Status, and signed returns."),
    "hold": _Place("hold", "hold", "Send nothing more of a participant, an environment, a site or the whole host until `release`; reading and returns go on."),
    "release": _Place("hold", "release", "Let what `hold` stopped go on, at once, at the pace that the profile allows; or (--account) log in again where three refusals stopped it."),
    "submissions": _Place("submissions", "app", "What became of each Create call: list them, show one with its items, events and latency, or decide what cannot go on by itself."),
    "alarms": _Place("alarms", "app", "What needs a person: list the alarms, each with what to do, or acknowledge one."),
    "assets": _Place("assets", "app", "What SMP holds: make assets known that were registered outside the bridge, list what is known, or export it."),
    "evidence": _Place("evidence", "app", "Hand out sealed evidence as a file that proves itself, and check such a file without the journal."),
    "journal": _Place("journal", "app", "Care for the journal: prove that its evidence is whole, back it up, restore it, move old evidence to the archive."),
    "keys": _Place("keys", "app", "Signing keys, ours and SMP's: make, list, rotate, revoke and import them, and print public keys as a JWK Set for SMP."),
    "token": _Place("token", "app", "Who may use the admin listener: make a token for a person and a role, list those that were made, revoke one at once."),
    "jws": _Place("jws", "app", "Sign and verify messages by hand, by the same rules as the end point for returns."),
    "certificates": _Place("certificates", "app", "Make this host's certificate for an EMS, and say what is wrong with those of a configuration."),
}  # fmt: skip


class Subcommands(TyperGroup):
    """The top of the command line. `commands` holds names and help alone; the command itself is imported when it is asked for."""

    def __init__(self, **attrs: Any) -> None:
        super().__init__(**attrs)
        self.commands = {name: TyperCommand(name, help=place.help) for name, place in COMMANDS.items()}
        self._listing = False

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """The list shows what stands above."""
        self._listing = True
        super().format_help(ctx, formatter)
        self._listing = False

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of this name, None when there is none."""
        if self._listing or cmd_name not in COMMANDS:
            return super().get_command(ctx, cmd_name)
        return imported(cmd_name)


def imported(name: str) -> Any:
    """The whole command of this name."""
    with calm_imports():
        found = getattr(import_module(f"bridge.cli.{COMMANDS[name].module}"), COMMANDS[name].name)
    if isinstance(found, typer.Typer):
        group = get_command(found)
        group.name = name
        return group
    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    alone.command(name)(found)
    return get_command(alone)
