"""`smp-bridge run`: the service itself."""

import asyncio
import signal
from pathlib import Path
from typing import Annotated

import typer

from bridge.app import Host, Role, Running
from bridge.cli.check import load_whole
from bridge.cli.logs import LogLevel, set_up
from bridge.config import Config
from bridge.errors import BridgeError
from bridge.process import LOADED_S, calm, keep_loaded


def run(
    config: Annotated[Path, typer.Option(help="Directory that holds bridge.yaml and sites/*.yaml.")] = Path("config"),
    role: Annotated[
        Role,
        typer.Option(
            help="all: the whole host. field: sessions to the EMSs only. market: calls and returns only; field and market share one journal."
        ),
    ] = Role.ALL,
    site: Annotated[
        list[str] | None, typer.Option(help="Work only these sites (may be given more than once); default all.")
    ] = None,
    log_level: Annotated[
        LogLevel, typer.Option(help="What is logged, as JSON lines on standard error.")
    ] = LogLevel.INFO,
) -> None:
    """Run the bridge until it is told to stop (Ctrl-C or SIGTERM), and go on where it stood when it runs again.

    Reads the configuration, refuses to start with every problem named if it is wrong (exit 2), opens the journal and keeps every link alive by itself.
    A second signal skips the orderly end.
    """
    set_up(log_level.value)
    loaded = load_whole(config)
    asyncio.run(_serve(loaded, role, site or []))


async def _serve(config: Config, role: Role, sites: list[str]) -> None:
    loop = asyncio.get_running_loop()

    def ready() -> None:
        calm()
        loop.call_later(LOADED_S, keep_loaded)

    running = Running(on_ready=ready)
    main = asyncio.current_task()
    assert main is not None

    def stop() -> None:
        if running.stop.is_set():
            main.cancel()
        running.stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    try:
        await Host(config, role=role, sites=sites).run(running)
    except asyncio.CancelledError:
        raise typer.Exit(1) from None
    except ExceptionGroup as group:
        ours, rest = group.split(BridgeError)
        if ours is None or rest is not None:
            raise
        error = ours
        while isinstance(error, ExceptionGroup):
            error = error.exceptions[0]  # type: ignore[assignment]
        raise error from group
