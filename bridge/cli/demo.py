"""`smp-bridge demo`: the whole thing on one machine."""

import asyncio
import logging
import random
import shutil
import signal
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bridge.cli.extras import needs_extra
from bridge.cli.logs import quiet
from bridge.errors import BridgeError, ConfigError, Problem

if TYPE_CHECKING:
    from rich.console import Console

    from bridge.demo.play import Play
    from bridge.demo.report import Report
    from bridge.demo.service import Service

ONCE_LIMIT_S = 300.0
STOPPED = 130
PIPED_WIDTH = 120


def demo(
    config: Annotated[
        Path, typer.Option(help="The configuration to run: the sample files that come with the source.")
    ] = Path("config"),
    once: Annotated[
        bool, typer.Option("--once", help="Without the live view: run until every outcome is written back, then end.")
    ] = False,
    report: Annotated[Path | None, typer.Option(help="Write a JSON report to this file at the end.")] = None,
    seed: Annotated[
        int | None, typer.Option(help="Draws the plants and which assets are refused; random when not given.")
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the run's directory (journal, log, keys, settings) afterwards.")
    ] = False,
) -> None:
    """Show the bridge at work: three simulated EMSs, a stand-in for SMP, and the bridge itself, on this machine alone.

    An OPC UA server with 120 assets, a Modbus device with 64 and an MQTT broker with 200 ask for registration; the stand-in refuses two of each site;
    then each site asks for one unit of its registered assets. Needs no root, no fixed ports and no network but loopback. Ctrl-C ends it.
    """
    if not (config / "bridge.yaml").is_file():
        raise ConfigError(
            [Problem(text="there is no bridge.yaml", file=str(config))],
            hint="run this in the source's top directory, or name the sample configuration with --config DIR",
        )
    quiet()
    needs_extra("demo", "amqtt", "joserfc")
    chosen = random.randrange(1_000_000) if seed is None else seed  # noqa: S311 - a demo
    directory = Path(tempfile.mkdtemp(prefix="smp-bridge-demo-"))
    try:
        ended = asyncio.run(_run(config, chosen, directory, once=once))
    except asyncio.CancelledError:
        print("stopped before the demo had begun")
        raise typer.Exit(STOPPED) from None
    finally:
        if not keep:
            shutil.rmtree(directory, ignore_errors=True)
    if report is not None:
        ended.write(report)
    from rich.console import Console

    # Into a file or a pipe there is no terminal to ask for its width, and 80 columns would cut every name.
    console = Console() if sys.stdout.isatty() else Console(width=PIPED_WIDTH)
    full = not _viewed(console, once=once)
    _print(ended, console, kept=directory if keep else None, config=config, full=full, interrupted=not once)
    if once and not ended.ok:
        raise typer.Exit(1)


async def _run(config: Path, seed: int, directory: Path, *, once: bool) -> "Report":
    from rich.console import Console
    from rich.live import Live

    from bridge.demo.play import Picture, Play
    from bridge.demo.view import draw
    from bridge.demo.world import World

    stopped = asyncio.Event()
    starting = asyncio.current_task()

    def stop() -> None:
        stopped.set()
        if starting is not None:
            starting.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    logging.getLogger("bridge.sandbox").addHandler(
        logging.NullHandler()
    )  # the view says what a person needs; the bridge has a log of its own
    print("starting three energy management systems, a stand-in for SMP and the bridge ...", flush=True)
    async with AsyncExitStack() as stack:
        console = Console()
        viewed = _viewed(console, once=once)
        world = World(config, directory, seed=seed, told=None if viewed else _say)
        await stack.enter_async_context(world)
        starting = None
        live = stack.enter_context(Live(console=console, refresh_per_second=4)) if viewed else None

        def changed(picture: Picture) -> None:
            if live is not None:
                live.update(draw(picture, directory, pages=world.pages, width=console.width, height=console.height))

        play = Play(world.sites, world.ledger, world.journal, seed=seed, changed=changed)
        await _tell(play, world.service, stopped, once=once)
        return await play.report()


def _viewed(console: "Console", *, once: bool) -> bool:
    """Whether the live view is shown. In a file or a pipe only its last picture would stand, run together with what follows."""
    return console.is_terminal and not once


def _say(text: str) -> None:
    """At once: whoever reads the pipe waits for it."""
    print(text, flush=True)


async def _tell(play: "Play", service: "Service", stopped: asyncio.Event, *, once: bool) -> None:
    """The story to its end (or to Ctrl-C, or a time limit), with the service watched; without `once`, the view then stays until Ctrl-C."""
    try:
        async with asyncio.TaskGroup() as group:
            watched = group.create_task(service.follow())
            ended = group.create_task(stopped.wait())
            story = group.create_task(play.run())
            await asyncio.wait(
                {story, ended}, timeout=ONCE_LIMIT_S if once else None, return_when=asyncio.FIRST_COMPLETED
            )
            if not once:
                await stopped.wait()
            for task in (story, watched, ended):
                task.cancel()
    except ExceptionGroup as group_error:
        ours = [error for error in group_error.exceptions if isinstance(error, BridgeError)]
        if not ours:
            raise
        raise ours[0] from None


def _print(
    report: "Report", console: "Console", *, kept: Path | None, config: Path, full: bool, interrupted: bool
) -> None:
    """The summary: what became of every record, how fast, and what is missing."""
    from bridge.demo.view import stages_table

    console.print(report.table())
    if full:
        console.print(stages_table(report.recorded))
    states = ", ".join(f"{count} {state}" for state, count in sorted(report.recorded.by_state.items()))
    console.print(f"{report.recorded.total} submissions: {states or 'none'}; seed {report.seed}")
    if interrupted and not report.ok:
        told, of = sum(seen.written_back for seen in report.seen), sum(seen.items for seen in report.seen)
        console.print(f"Stopped before the end: {told} of {of} outcomes asked for were written back so far.")
    else:
        for text in report.missing:
            console.print(f"missing: {text}", style="red", markup=False)
    if report.ok:
        console.print("Every outcome is back in the system that asked for it, and both sides agree with the journal.")
    if kept is not None:
        print(
            f"Kept: {kept}\nTo look into its journal:\n  . {kept}/env.sh\n  {sys.argv[0]} submissions list --config {config}"
        )
