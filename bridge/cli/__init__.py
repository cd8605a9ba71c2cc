"""The command line: one command, subcommands. Only this package exits the process."""

import sys
from functools import cache
from importlib.metadata import version
from typing import Annotated

import typer

from bridge.errors import BridgeError, ConfigError

app = typer.Typer(
    name="smp-bridge",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="The intermediate data host between energy management systems (OPC UA, Modbus, MQTT) and the Single Markets Platform.",
)

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"smp-bridge {version('smp-bridge')}")
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool, typer.Option("--version", help="Print the version and end.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """The intermediate data host between energy management systems (OPC UA, Modbus, MQTT) and the Single Markets Platform."""


@cache
def _commands() -> typer.Typer:
    """Import the subcommands, once; each imports what it needs only when it runs."""
    from bridge.cli import (
        alarms,
        assets,
        browse,
        certificates,
        check,
        decode,
        demo,
        evidence,
        hold,
        journal,
        jws,
        keys,
        probe,
        run,
        sandbox,
        submissions,
        token,
    )

    app.command("demo")(demo.demo)
    app.command("run")(run.run)
    app.command("check")(check.check)
    app.command("probe")(probe.probe)
    app.command("browse")(browse.browse)
    app.command("decode")(decode.decode)
    app.command("sandbox")(sandbox.sandbox)
    app.add_typer(submissions.app, name="submissions")
    app.command("hold")(hold.hold)
    app.command("release")(hold.release)
    app.add_typer(alarms.app, name="alarms")
    app.add_typer(assets.app, name="assets")
    app.add_typer(evidence.app, name="evidence")
    app.add_typer(journal.app, name="journal")
    app.add_typer(keys.app, name="keys")
    app.add_typer(token.app, name="token")
    app.add_typer(jws.app, name="jws")
    app.add_typer(certificates.app, name="certificates")
    return app


def main() -> None:
    """The entry point of `smp-bridge`: errors of ours become one clear text and an exit status, never a traceback."""
    try:
        _commands()()
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except ConfigError as error:
        _say(error)
        sys.exit(EXIT_USAGE)
    except BridgeError as error:
        _say(error)
        sys.exit(EXIT_FAILED)


def _say(error: BridgeError) -> None:
    print(error, file=sys.stderr)
    if error.hint:
        print(f"hint: {error.hint}", file=sys.stderr)
