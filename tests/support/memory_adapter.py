"""An EMS in memory and its adapter, for tests of the core alone."""

import asyncio
from contextlib import asynccontextmanager

from bridge.api import (
    Adapter,
    Arrival,
    LinkError,
    LinkRefused,
    Options,
    Outcome,
    OutcomeField,
    Quality,
    Reading,
    Record,
    RecordsOptions,
    Trigger,
    Written,
)
from bridge.clock import SystemClock


class MemoryOptions(Options):
    pass


class MemoryRecords(RecordsOptions):
    pass


class MemoryOutcome(Outcome):
    state: str = "state"
    transactionId: str = "transactionId"
    errorCode: str = "errorCode"


class MemoryEms:
    """Places with a key and fields; what was written to each place, in order."""

    def __init__(self):
        self.clock = SystemClock.here()
        self.fields = {}
        self.written = {}
        self.acked = []
        self.queue = asyncio.Queue()
        self.sessions = 0
        self.broken = asyncio.Event()
        self.reachable = True
        self.refuses = ""
        self.certificate = None  # that it shows: a `PeerCertificate`
        self.context = None  # of the session that is open
        self.changed = asyncio.Event()
        self.garble = False
        self.line = None  # where messages stand in line: a coroutine function that ends once they have come

    def put(self, place, **fields):
        self.fields[place] = dict(fields)

    def request(self, flow, *places, sequence="1", complete=True, problem=""):
        """All these places ask together, as one arrival."""
        records = [
            Record(
                flow=flow,
                place=place,
                fields={name: Reading(value=value) for name, value in self.fields.get(place, {}).items()}
                if complete
                else {},
                received=self.clock.now(),
                request=sequence,
                complete=complete,
                problem=problem,
            )
            for place in places
        ]
        self.queue.put_nowait(Arrival(records=records, ack=lambda ok: self._ack(places, ok)))

    def _ack(self, places, ok):
        self.acked.append((places, ok))
        self.changed.set()

    def last(self, place, name=OutcomeField.STATE):
        return self.written.get(place, {}).get(name, [None])[-1]

    async def until(self, condition, within_s=10.0):
        async with asyncio.timeout(within_s):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    def cut(self):
        self.broken.set()


class _Session:
    can_read = True

    def __init__(self, ems):
        self.ems = ems

    async def receive(self):
        async with asyncio.TaskGroup() as group:
            get = group.create_task(self.ems.queue.get())
            cut = group.create_task(self.ems.broken.wait())
            done, _ = await asyncio.wait({get, cut}, return_when=asyncio.FIRST_COMPLETED)
            if cut in done:
                get.cancel()
            cut.cancel()
        if cut in done:
            raise LinkError("cut")
        return [get.result()]

    async def read(self, addresses):
        return [self._read(address) for address in addresses]

    def _read(self, address):
        if isinstance(address.name, OutcomeField):
            values = self.ems.written.get(address.place, {}).get(address.name, [])
            value = values[-1] if values else None
            return Reading(value="garbled" if self.ems.garble else value)
        fields = self.ems.fields.get(address.place, {})
        if address.name not in fields:
            return Reading(value=None, quality=Quality.BAD)
        return Reading(value=fields[address.name])

    async def write(self, writes):
        if self.ems.broken.is_set():
            raise LinkError("cut")
        results = []
        for write in writes:
            value = write.value.number if hasattr(write.value, "number") else write.value
            self.ems.written.setdefault(write.address.place, {}).setdefault(write.address.name, []).append(value)
            results.append(Written(address=write.address, value=value))
        self.ems.changed.set()
        return results


class _InLine(_Session):
    async def caught_up(self):
        await self.ems.line()


def memory_adapter(ems, protocol="memory"):
    @asynccontextmanager
    async def open_(context):
        if not ems.reachable:
            raise LinkError("not there")
        if ems.refuses:
            raise LinkRefused(ems.refuses)
        ems.sessions += 1
        ems.context = context
        ems.broken.clear()
        ems.changed.set()
        if ems.certificate is not None:
            context.certified(ems.certificate)
        yield (_Session if ems.line is None else _InLine)(ems)

    return Adapter(
        protocol=protocol,
        summary="an EMS in memory",
        options=MemoryOptions,
        records=MemoryRecords,
        submit={Trigger.REQUEST: Options, Trigger.CHANGE: Options, Trigger.MESSAGE: Options},
        outcome=MemoryOutcome,
        check=lambda options, selections: [],
        open=open_,
    )
