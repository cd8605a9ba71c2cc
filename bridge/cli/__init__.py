"""The command line: one command, subcommands. Only this package exits the process."""

import errno
import os
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
_UNWRITABLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EPIPE})


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
        try:
            app()
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except ConfigError as error:
        _say(error)
        sys.exit(EXIT_USAGE)
    except BridgeError as error:
        _say(error)
        sys.exit(EXIT_FAILED)
    except OSError as error:
        if error.filename is not None or error.errno not in _UNWRITABLE:
            raise
        _lost(error)
        sys.exit(EXIT_FAILED)


def _lost(error: OSError) -> None:
    """Say that what was printed did not arrive, and let Python forget the rest of it: it would try again at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if error.errno != errno.EPIPE:  # whoever reads no more knows
        hint = "is there room where it goes? What the command did before stands"
        _say(BridgeError(f"the output cannot be written: {error.strerror}", hint=hint))


def _say(error: BridgeError) -> None:
    print(error, file=sys.stderr)
    if error.hint:
        print(f"hint: {error.hint}", file=sys.stderr)
