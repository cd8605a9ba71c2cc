"""`smp-bridge probe`: look at every EMS of a configuration once, and say what is there and what is wrong."""

import asyncio
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from typing import Annotated, Final

import typer

from bridge.cli.check import load_here
from bridge.cli.probe_shown import Changes, as_json, summary_lines, trouble_lines, value_lines
from bridge.clock import SystemClock
from bridge.probing import Probed, Target, quiet, targets_of
from bridge.probing import probe as look
from bridge.probing import watch as keep_looking

EXIT_PROBLEMS: Final = 1


def probe(
    config: Annotated[Path, typer.Option(help="Directory that holds bridge.yaml and sites/*.yaml.")] = Path("config"),
    site: Annotated[
        str, typer.Option(help="Only this site; what is wrong in the files of others does not matter then.")
    ] = "",
    adapter: Annotated[str, typer.Option(help="Only the adapters of this name.")] = "",
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Keep looking and print what changes, with the time; Ctrl-C ends it with exit 0."),
    ] = False,
    wait: Annotated[
        float,
        typer.Option(
            help="Seconds to listen to an MQTT broker for what it holds and what arrives; with --watch the pause between two looks at others.",
            min=0.1,
            max=600,
        ),
    ] = 3.0,
    deadline: Annotated[
        float,
        typer.Option(
            help="Seconds that one adapter may take, --wait apart; the others do not wait for it.", min=1, max=600
        ),
    ] = 30.0,
    brief: Annotated[bool, typer.Option("--brief", help="Problems and the summary alone, without the values.")] = False,
    wrong: Annotated[
        bool, typer.Option("--wrong", help="Values of those places only of which something is wrong.")
    ] = False,
    json_: Annotated[
        bool, typer.Option("--json", help="Print JSON; with --watch one object a line for each change.")
    ] = False,
    client_id: Annotated[
        str,
        typer.Option(
            help="MQTT: the client id, where the broker lets only known ones in; never that of a bridge that runs."
        ),
    ] = "",
) -> None:
    """Connect to every EMS that the configuration names, read each configured value once, and say what is wrong. Nothing is written.

    Shows value, quality, source time and age of each field, of the triggers and of the places that outcomes are written to. A problem is whatever would keep
    the bridge from working: an EMS that is not reached, a certificate, a node, register or topic that is not there, another magic number or version, a
    heartbeat that stands still, bad quality, a value that mapping or rules would refuse, a target that this user may not write as far as the EMS tells.

    It uses connections of its own, under the same trust as the bridge, and no journal; so it may run beside the bridge.

    Exits 0 when all is well, 1 when there is a problem, 2 when the configuration or the call has to be corrected.
    """
    clock = SystemClock.here()
    found = load_here(config, only=site)
    targets = targets_of(found, clock, site=site, adapter=adapter, client_id=client_id or f"smp-probe-{token_hex(4)}")
    with quiet():
        if watch:
            with suppress(KeyboardInterrupt):
                asyncio.run(_watch(targets, wait_s=wait, deadline_s=deadline + wait, json_lines=json_))
            return
        probed = asyncio.run(look(targets, wait_s=wait, deadline_s=deadline + wait))
    _show(probed, as_json_=json_, brief=brief, wrong=wrong)
    raise typer.Exit(EXIT_PROBLEMS if any(each.grave for each in probed) else 0)


def _show(probed: Sequence[Probed], *, as_json_: bool, brief: bool, wrong: bool) -> None:
    if as_json_:
        print(as_json(probed))
        return
    if not brief:
        lines = list(value_lines(probed, only_wrong=wrong))
        print("\n".join([*lines, ""] if lines else lines), end="\n" if lines else "")
    for line in (*trouble_lines(probed), *summary_lines(probed)):
        print(line)


async def _watch(targets: Sequence[Target], *, wait_s: float, deadline_s: float, json_lines: bool) -> None:
    """Until SIGINT or SIGTERM."""
    changes = Changes(json_lines=json_lines)

    def tell(probed: Probed) -> None:
        for line in changes.lines(probed):
            print(line, flush=True)

    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with asyncio.TaskGroup() as group:
        looking = group.create_task(keep_looking(targets, tell, wait_s=wait_s, deadline_s=deadline_s))
        await stop.wait()
        looking.cancel()
