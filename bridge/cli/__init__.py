"""The command line: one command, subcommands. Only this package exits the process."""

import sys
from typing import Annotated

import typer

from bridge.cli.lazy import Subcommands
from bridge.errors import BridgeError, ConfigError

app = typer.Typer(
    name="smp-bridge",
    cls=Subcommands,
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
        from importlib.metadata import version

        print(f"smp-bridge {version('smp-bridge')}")
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool, typer.Option("--version", help="Print the version and end.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """The intermediate data host between energy management systems (OPC UA, Modbus, MQTT) and the Single Markets Platform."""


def main() -> None:
    """The entry point of `smp-bridge`: errors of ours become one clear text and an exit status, never a traceback."""
    try:
        app()
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
