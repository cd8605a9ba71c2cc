"""A host as a process of its own whose EMS makes its records as they are asked for, so that the memory of the process is the bridge's alone.

Standard input: `assets FIRST COUNT REVISION`, `unit NUMBER FIRST COUNT`, `stop`. Standard output, one JSON object a line: `{"ready": PORT}`,
`{"acked": N}` and `{"told": {"STATE": N}}` whenever they change (how many records were acknowledged, how many places show each state).
"""

import asyncio
import json
import sys
from collections import Counter
from contextlib import asynccontextmanager
from pathlib import Path

from memory_adapter import MemoryOptions, MemoryOutcome, MemoryRecords

from bridge.api import Adapter, Arrival, Options, OutcomeField, Reading, Record, Trigger, Written
from bridge.app import Host, Running
from bridge.clock import SystemClock
from bridge.config import load

CHUNK = 500
CLOCK = SystemClock.here()


def say(**fact):
    print(json.dumps(fact), flush=True)


def reference(number):
    return f"BESS{number:06}"


class LoadEms:
    """Makes records by their numbers; of each place it keeps one byte, its last state."""

    def __init__(self):
        self.queue = asyncio.Queue()
        self.acked = 0
        self.states = {}

    def ask(self, flow, *numbers):
        if flow == "unit":
            self.queue.put_nowait((flow, *numbers))
            return
        first, count, revision = numbers
        for start in range(first, first + count, CHUNK):
            self.queue.put_nowait((flow, start, min(CHUNK, first + count - start), revision))

    def arrival(self, flow, first, count, last):
        if flow == "unit":
            members = [reference(number) for number in range(count, count + last)]
            fields = {"reference": f"UNIT{first}", "kw": 100, "assets": members}
            return self._arrival([self._record("unit", f"U{first}", fields, "1")])
        made = [
            self._record("assets", f"A{number}", {"reference": reference(number), "kw": 5, "name": f"Battery {last}"}, str(last))
            for number in range(first, first + count)
        ]  # fmt: skip
        return self._arrival(made)

    def _arrival(self, records):
        def ack(ok):
            self.acked += len(records) if ok else 0
            say(acked=self.acked)

        return Arrival(records=records, ack=ack)

    def _record(self, flow, place, fields, request):
        readings = {name: Reading(value=value) for name, value in fields.items()}
        return Record(flow=flow, place=place, fields=readings, received=CLOCK.now(), request=request, complete=True)

    def wrote(self, place, state):
        kind = self.states.setdefault(place[0], bytearray())
        number = int(place[1:])
        if len(kind) <= number:
            kind.extend(bytes(number + 1000 - len(kind)))
        kind[number] = state

    def tell(self):
        told = Counter(state for kind in self.states.values() for state in kind if state)
        say(told={str(state): count for state, count in told.items()})


class Session:
    can_read = False

    def __init__(self, ems):
        self._ems = ems

    async def receive(self):
        return [self._ems.arrival(*await self._ems.queue.get())]

    async def read(self, addresses):
        raise NotImplementedError

    async def write(self, writes):
        for write in writes:
            if write.address.name is OutcomeField.STATE:
                self._ems.wrote(write.address.place, write.value.number)
        self._ems.tell()
        return [Written(address=write.address, value=write.value) for write in writes]


def adapter(ems):
    @asynccontextmanager
    async def opened(context):
        yield Session(ems)

    return Adapter(
        protocol="north", summary="an EMS of any size", options=MemoryOptions, records=MemoryRecords, submit={Trigger.REQUEST: Options},
        outcome=MemoryOutcome, check=lambda options, selections: [], open=opened,
    )  # fmt: skip


async def commands(ems, running):
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async for line in reader:
        verb, *numbers = line.decode().split()
        if verb == "stop":
            break
        ems.ask(verb, *(int(number) for number in numbers))
    running.stop.set()


async def main(directory):
    ems, running = LoadEms(), Running()
    config = load(Path(directory), lambda protocol: adapter(ems), environ={})
    async with asyncio.TaskGroup() as group:
        group.create_task(Host(config, clock=CLOCK).run(running))
        await running.ready.wait()
        say(ready=running.returns_port)
        group.create_task(commands(ems, running))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
