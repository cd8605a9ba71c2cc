"""Another process on the journal: `child.py ENGINE ADDRESS hold LEASE | write SITE COUNT | wait TOPIC`. It prints one line per fact."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from bridge.clock import SystemClock
from bridge.journal.pg_server import Server
from bridge.journal.port import Candidate, Journal
from bridge.journal.postgres import open_postgres
from bridge.journal.sqlite import open_journal
from bridge.model import Operation, Trigger
from bridge.secret import Secret


def sqlite(path: str, new_id: Callable[[], str]) -> Awaitable[Journal]:
    return open_journal(Path(path), clock=SystemClock.here(), role="child", new_id=new_id, checkpoint=False)


def postgres(address: str, new_id: Callable[[], str]) -> Awaitable[Journal]:
    host, database, user, password = json.loads(address)
    server = Server(host=host, database=database, user=user, password=Secret(password), tls="disable")
    return open_postgres(server, clock=SystemClock.here(), role="child", new_id=new_id)


ENGINES = {"sqlite": sqlite, "postgres": postgres}


def say(*words: object) -> None:
    print(*words, flush=True)


async def hold(journal: Journal, lease: str) -> None:
    fence = await journal.acquire(lease)
    say("held", fence.epoch)
    await asyncio.to_thread(sys.stdin.readline)


async def write(journal: Journal, site: str, count: str) -> None:
    fence = await journal.acquire(f"field:{site}")
    say("start", fence.epoch)
    for number in range(int(count)):
        key = f"{site}-{number}"
        candidate = Candidate(
            site=site,
            flow="assets",
            place=key,
            participant="acme",
            operation=Operation.ASSET_CREATE,
            trigger=Trigger.CHANGE,
            request=None,
            key=key,
            content=b"{}",
            digest=b"0" * 16,
            readings=b"r" * 100,
            max_items=1_000_000,
        )
        await journal.accept(fence, [candidate])
        say("ack", key)


async def wait(journal: Journal, topic: str) -> None:
    woken = journal.woken(topic)
    say("waiting")
    await woken.wait()
    say("woken")


async def main(engine: str, address: str, verb: str, *words: str) -> None:
    journal = await ENGINES[engine](address, lambda: f"child-{words[0]}")
    await {"hold": hold, "write": write, "wait": wait}[verb](journal, *words)
    await journal.close()


asyncio.run(main(*sys.argv[1:]))
