"""A host as a process of its own, with EMSs in it that ask at the times they are told to: two parties on one host, as neighbours of each other.

Standard input, one JSON object a line: `{"load": NAME, "site": S, "rate": R, "seconds": T, "burst": B}` asks for B records every B/R seconds;
`{"take": NAME}` wants what became of that load; `{"stop": true}`. Standard output: `{"ready": {"returns": PORT, "admin": PORT}}`, `{"taken": NAME}` and `{"told": NAME}` once every record of a load
shows a state, and has its end, and for `take` `{"load": NAME, "rows": [[REFERENCE, ASKED, ACKED, TOLD, STATE], …]}` (CLOCK_MONOTONIC in ns; 0 = not yet).

A record is asked for at the time that the plan says, whether the host was ready to look or not: time that it lost is counted.
While the file that the second argument names is missing, `localhost` cannot be looked up.
"""

import asyncio
import json
import os
import socket
import sys
from contextlib import asynccontextmanager
from pathlib import Path

from memory_adapter import MemoryOptions, MemoryOutcome, MemoryRecords

from bridge.api import Adapter, Arrival, Options, OutcomeField, Reading, Record, Trigger, Written
from bridge.app import Host, Running
from bridge.clock import SystemClock
from bridge.config import load
from bridge.model import EmsState
from bridge.process import calm
from bridge.registry import find

CLOCK = SystemClock.here()
TOGETHER = 100
SITES = ("north", "east")
FINAL = {int(state) for state in EmsState if state.final} | {int(EmsState.IN_DOUBT)}


def say(**fact):
    print(json.dumps(fact), flush=True)


class Load:
    """The records of one load by their references: when they were asked for, acknowledged and told, and their last state."""

    def __init__(self, name):
        self.name = name
        self.rows = {}
        self.all_asked = False
        self.untold = 0
        self.unseen = 0
        self.over = False

    def looked(self):
        """Say once that each place shows a state, and once that each shows its end."""
        if self.all_asked and not self.unseen:
            say(taken=self.name)
            self.unseen = -1
        if self.all_asked and not self.untold and not self.over:
            say(told=self.name)
            self.over = True


class Ems:
    """One site's EMS. The place of a record is its reference."""

    can_read = False

    def __init__(self, site):
        self.site = site
        self.queue = asyncio.Queue()
        self.load_of = {}
        self.count = int(os.environ["NEIGHBOURS_FIRST"])  # a host started again asks for other records

    async def ask(self, load, *, rate, seconds, burst):
        """Open loop: every burst has its time, whatever became of the ones before it."""
        started = CLOCK.mono_ns()
        for number in range(max(1, round(rate * seconds / burst))):
            due = started + int(number * burst / rate * 1e9)
            await asyncio.sleep(max(0.0, (due - CLOCK.mono_ns()) / 1e9))
            self.queue.put_nowait(self._arrival([self._record(load, due) for _ in range(burst)], load))
        load.all_asked = True
        load.looked()

    def _record(self, load, due):
        self.count += 1
        reference = f"{self.site[:2].upper()}{self.count:06}"
        load.rows[reference] = [due, 0, 0, 0]
        load.untold += 1
        load.unseen += 1
        self.load_of[reference] = load
        fields = {"reference": Reading(value=reference), "kw": Reading(value=5), "name": Reading(value="Battery")}
        return Record(flow="assets", place=reference, fields=fields, received=CLOCK.now(), request="1", complete=True)

    def _arrival(self, records, load):
        def ack(ok):
            at = CLOCK.mono_ns()
            for record in records:
                load.rows[record.place][1] = at

        return Arrival(records=records, ack=ack)

    async def receive(self):
        """Everything that waits, as the sessions of real protocols hand it out."""
        arrivals = [await self.queue.get()]
        while len(arrivals) < TOGETHER and not self.queue.empty():
            arrivals.append(self.queue.get_nowait())
        return arrivals

    async def read(self, addresses):
        raise NotImplementedError

    async def write(self, writes):
        at = CLOCK.mono_ns()
        for write in writes:
            if write.address.name is not OutcomeField.STATE:
                continue
            load = self.load_of.get(write.address.place)
            if load is None:  # asked for before this start
                continue
            row = load.rows[write.address.place]
            load.unseen -= not row[3]
            row[3] = write.value.number
            if row[3] in FINAL and not row[2]:
                row[2] = at
                load.untold -= 1
            load.looked()
        return [Written(address=write.address, value=write.value) for write in writes]


def adapter(ems):
    @asynccontextmanager
    async def opened(context):
        yield ems

    return Adapter(
        protocol=ems.site, summary="an EMS in memory", options=MemoryOptions, records=MemoryRecords, submit={Trigger.REQUEST: Options},
        outcome=MemoryOutcome, check=lambda options, selections: [], open=opened,
    )  # fmt: skip


async def commands(systems, running, group):
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    loads = {}
    async for line in reader:
        match json.loads(line):
            case {"load": name, "site": site, **how}:
                loads[name] = Load(name)
                group.create_task(systems[site].ask(loads[name], **how))
            case {"take": name}:
                say(load=name, rows=[[reference, *row] for reference, row in loads[name].rows.items()])
            case _:
                break
    running.stop.set()


def without_names(switch):
    """The name service is down while this file is missing."""
    real = socket.getaddrinfo

    def look_up(host, *rest, **more):
        if host == "localhost" and not switch.exists():
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return real(host, *rest, **more)

    socket.getaddrinfo = look_up


async def main(directory):
    systems, running = {site: Ems(site) for site in SITES}, Running(on_ready=calm)
    adapters = {site: adapter(ems) for site, ems in systems.items()}
    config = load(Path(directory), lambda protocol: adapters.get(protocol) or find(protocol), environ=os.environ)
    async with asyncio.TaskGroup() as group:
        group.create_task(Host(config, clock=CLOCK).run(running))
        await running.ready.wait()
        say(ready={"returns": running.returns_port, "admin": running.admin_port})
        group.create_task(commands(systems, running, group))


if __name__ == "__main__":
    if len(sys.argv) > 2:
        without_names(Path(sys.argv[2]))
    asyncio.run(main(sys.argv[1]))
