"""`smp-bridge run`: the service itself."""

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from bridge.app import Host, Role, Running
from bridge.cli.check import load_whole
from bridge.cli.logs import LogLevel, set_up
from bridge.cli.placeholders import DONE, left
from bridge.config import Config
from bridge.errors import BridgeError, ConfigError, Problem
from bridge.process import LOADED_S, calm, calm_imports, keep_loaded
from bridge.systemd import Notifier, passed_sockets

log = logging.getLogger(__name__)


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
    participant: Annotated[
        str,
        typer.Option(
            help="Refuse to start unless the configuration names this participant and no other: one service instance per participant."
        ),
    ] = "",
    log_level: Annotated[
        LogLevel, typer.Option(help="What is logged, as JSON lines on standard error.")
    ] = LogLevel.INFO,
) -> None:
    """Run the bridge until it is told to stop (Ctrl-C or SIGTERM), and go on where it stood when it runs again.

    Reads the configuration, refuses to start with every problem named if it is wrong or the draft of a site is not finished (exit 2), opens the journal and keeps every link alive by itself.
    A second signal skips the orderly end. SIGHUP reads the returns listener's certificate and key anew; anything else that changed needs a restart.
    Under systemd it tells when it is ready, reloads, stops and is alive, and listens on the sockets that it is given (systemd/ in the source).
    """
    set_up(log_level.value)
    # Until the loop hears it: a reload before the start is over has nothing to do, and must not end it.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with calm_imports():  # of the adapters, and models as they are built
        loaded = load_whole(config)
    _only(loaded, participant)
    _finished(loaded, site or [])
    asyncio.run(_serve(loaded, role, site or [], passed_sockets(os.environ, os.getpid())))


def _only(config: Config, participant: str) -> None:
    """An instance that is named after a participant works for nobody else, so that no second instance can work for it."""
    if participant and list(config.participants) != [participant]:
        known = ", ".join(config.participants)
        raise ConfigError(
            [
                Problem(
                    text=f"this instance is for {participant}, the configuration has {known}; give each its own directory"
                )
            ]
        )


def _finished(config: Config, sites: list[str]) -> None:
    """No guess of a draft is ever sent to SMP or written into an EMS."""
    drafts = left(config, sites)
    if drafts:
        raise ConfigError(drafts, hint=f"Nothing was started: this is a draft. {DONE}")


def _reload(running: Running, notifier: Notifier) -> None:
    if not running.ready.is_set() or running.stop.is_set():
        return
    notifier.reloading()
    try:
        running.reload()
    except BridgeError as error:
        log.error("reload_failed", extra={"reason": str(error)})
    else:
        log.info("reloaded")
    notifier.ready()


async def _serve(config: Config, role: Role, sites: list[str], sockets: Mapping[str, socket.socket]) -> None:
    loop = asyncio.get_running_loop()
    notifier = Notifier.of(os.environ, os.getpid())

    def ready() -> None:
        calm()
        notifier.ready()
        loop.call_later(LOADED_S, keep_loaded)

    running = Running(on_ready=ready)
    main = asyncio.current_task()
    assert main is not None

    def stop() -> None:
        if running.stop.is_set():
            main.cancel()
        notifier.stopping()
        running.stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    loop.add_signal_handler(signal.SIGHUP, _reload, running, notifier)
    try:
        await Host(config, role=role, sites=sites, sockets=sockets).run(running)
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
    finally:
        notifier.close()
