"""The programs of the three EMSs in the tests that kill and soak: they ask for records, remember for which, and use their places again.

A place whose outcome is final is used again when all others are taken; it stands empty for a while first, so that no word about the record before it is still on
its way.
"""

import asyncio
import json
import math
import signal
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Hashable

import modbus_records as layout2
from modbus_device import Device
from mosquitto import Broker
from mosquitto import Peer as MqttPeer
from opcua_peer import ASSETS
from opcua_peer import Peer as OpcUaPeer

from bridge.model import EmsState

BASE, STRIDE, RECORD, RESULT, HEARTBEAT = 100, 80, 50, 60, 5
CHARGER = {"name": "Charger", "mpan": "1012345678903", "postcode": "ME1 2AB", "gspGroup": "_J", "kw": "49,5"}
TOPIC = "acme/crawley/ems/asset/{}/registration"
HOST_STATUS = "acme/host/status"
WORDS = {int(state): state.word for state in EmsState}
ENDED = frozenset({"registered", "refused", "refused_by_host"})
POLL_S = 0.02
SAY_AGAIN_S = 2.0
SUBSCRIBED_S = 5.0  # after the bridge said that it is there
NAMESPACES = (["urn:acme:ems"], ["urn:other:a", "urn:other:b", "urn:acme:ems"], ["urn:other:c", "urn:acme:ems"])
EMPTY_S = 20.0  # longer than any link in the tests holds back what was sent


class Program(ABC):
    """What the program of an EMS does: it asks for new records and remembers for which."""

    prefix: str

    def __init__(self) -> None:
        self.requested: list[str] = []
        self._past: dict[str, tuple[str, str]] = {}
        self.forgotten: set[str] = set()
        self._empty: dict[Hashable, float] = {}

    def _over(self, reference: str, word: tuple[str, str]) -> bool:
        """Whether the place of this record may be used again; what it showed is remembered then."""
        if word[0] not in ENDED and reference not in self.forgotten:
            return False
        self._past[reference] = word
        return True

    def _rested(self) -> Hashable | None:
        """A place that has stood empty for long enough."""
        for place, since in self._empty.items():
            if time.monotonic() - since > EMPTY_S:
                del self._empty[place]
                return place
        return None

    def _new_reference(self) -> str:
        reference = f"{self.prefix}{len(self.requested) + 1:05}"
        self.requested.append(reference)
        return reference

    @abstractmethod
    async def request(self) -> str:
        """Ask for one new record; returns its reference."""

    @abstractmethod
    async def shown(self) -> dict[str, tuple[str, str]]:
        """State word and transaction id of each reference."""

    def waiting(self) -> int:
        return 0

    async def stands(self) -> str:
        """Where the program is, for a person."""
        return f"{len(self.requested)} requested, {len(self.forgotten)} forgotten, {len(self._empty)} places at rest, {self.waiting()} to be raised"


class OpcUaProgram(Program):
    """A folder for each asset; a request is a sequence and a flag, which is taken back once the bridge has said anything."""

    prefix = "BESS"

    def __init__(self, peer: OpcUaPeer, places: list[str]) -> None:
        super().__init__()
        self._peer = _one_at_a_time(peer)
        self._places: dict[str, str] = dict.fromkeys(places, "")
        self._asked: deque[str] = deque()
        self._raised: set[str] = set()
        self._starts = 0

    async def renumber(self) -> None:
        """Restart the server; every node has another id afterwards."""
        self._starts += 1
        await self._peer.again(namespaces=NAMESPACES[self._starts % len(NAMESPACES)])

    async def request(self) -> str:
        reference = self._new_reference()
        self._asked.append(reference)
        return reference

    def waiting(self) -> int:
        return len(self._asked)

    async def run(self) -> None:
        """Take requests back that were heard, and raise what was asked for once there is a place."""
        while True:
            for place in list(self._raised):
                if (await self._word(place))[0]:
                    self._raised.discard(place)
                    await self._peer.set(f"{ASSETS}/{place}/Registration/Request", 0)
            while self._asked and (place := await self._free()):
                await self._raise(self._asked.popleft(), place)
            await asyncio.sleep(POLL_S)

    async def _raise(self, reference: str, place: str) -> None:
        registration = f"{ASSETS}/{place}/Registration"
        self._raised.discard(place)
        for name, value in (("Request", 0), ("State", 0), ("TransactionId", "")):
            await self._peer.set(f"{registration}/{name}", value)
        await self._peer.set(f"{ASSETS}/{place}/AssetReference", reference)
        self._places[place] = reference
        await self._peer.request(place)
        self._raised.add(place)

    async def shown(self) -> dict[str, tuple[str, str]]:
        taken = {place: reference for place, reference in self._places.items() if reference}
        names = [f"{ASSETS}/{place}/Registration/{name}" for place in taken for name in ("State", "TransactionId")]
        values = (await self._peer.order("values", paths=names))["values"]  # one order, for there may be hundreds
        states, transactions = values[::2], values[1::2]
        now = {
            reference: (WORDS[state] if state else "", transaction or "")
            for reference, state, transaction in zip(taken.values(), states, transactions, strict=True)
        }
        return {**dict.fromkeys(self.requested, ("", "")), **self._past, **now}

    async def _free(self) -> str:
        """A place that was never used or has rested, '' while there is none; what is over is emptied then."""
        for place, reference in self._places.items():
            if not reference and place not in self._empty:
                return place
        if (found := self._rested()) is not None:
            return str(found)
        for place, reference in self._places.items():
            if reference and self._over(reference, await self._word(place)):
                await self._peer.set(f"{ASSETS}/{place}/AssetReference", "")
                self._places[place], self._empty[place] = "", time.monotonic()
        return ""

    async def _word(self, place: str) -> tuple[str, str]:
        registration = f"{ASSETS}/{place}/Registration"
        state = await self._peer.value(f"{registration}/State")
        return WORDS[state] if state else "", await self._peer.value(f"{registration}/TransactionId") or ""


class ModbusProgram(Program):
    """Records in slots; one request for all of them, under a handshake that may have to wait for a bridge."""

    prefix = "RK"

    def __init__(self, device: Device, slots: int) -> None:
        super().__init__()
        self._device = device
        self._slots = [""] * slots
        self._asked: asyncio.Queue[str] = asyncio.Queue()
        self._shaking = False
        self._does = ""

    async def request(self) -> str:
        reference = self._new_reference()
        self._asked.put_nowait(reference)
        return reference

    def waiting(self) -> int:
        return self._asked.qsize() + self._shaking

    async def busy(self, times: int) -> None:
        """Exception 6 to the bridge's next requests."""
        await self._device.order("busy", times=times, code=6)

    async def stands(self) -> str:
        header = await self._device.words(0, len(layout2.HEADER))
        return f"{await super().stands()}, {self._does}, header {header}"

    async def run(self) -> None:
        """Raise what was asked for, one handshake after the other, however long the bridge is away; a record never changes under a handshake."""
        while True:
            self._does = "has nothing to ask"
            first = await self._asked.get()
            self._shaking = True
            await self._fill(first, await self._free())
            # More of them only while there is room: a place that these take themselves becomes free once they were asked for.
            while not self._asked.empty() and (slot := self._spare()) is not None:
                await self._fill(self._asked.get_nowait(), slot)
            [sequence] = await self._device.words(layout2.SEQUENCE)
            await self._device.put(layout2.SEQUENCE, sequence % 0xFFFF + 1)
            await self._device.put(layout2.COMMAND, 1)
            await self._until(3)
            await self._device.put(layout2.COMMAND, 0)
            await self._until(0)
            self._shaking = False

    async def _fill(self, reference: str, slot: int) -> None:
        at = BASE + STRIDE * slot
        await self._device.put(at + RESULT, *[0] * 20)
        await self._device.put_bytes(at, layout2.record(reference))
        self._slots[slot] = reference

    async def _until(self, status: int) -> None:
        self._does = f"waits for status {status}"
        while (await self._device.words(layout2.STATUS)) != [status]:
            await asyncio.sleep(POLL_S)

    async def shown(self) -> dict[str, tuple[str, str]]:
        found = [(number, reference) for number, reference in enumerate(self._slots) if reference]
        now = {reference: await self._word(number) for number, reference in found}
        return {**dict.fromkeys(self.requested, ("", "")), **self._past, **now}

    def _spare(self) -> int | None:
        """A place that was never used or has rested."""
        for number, reference in enumerate(self._slots):
            if not reference and number not in self._empty:
                return number
        return self._rested()

    async def _free(self) -> int:
        self._does = "waits for a place"
        while (found := self._spare()) is None:  # a full table of records waits for an outcome
            for number, reference in enumerate(self._slots):
                if reference and self._over(reference, await self._word(number)):
                    await self._device.put(BASE + STRIDE * number, *[0] * RECORD)
                    self._slots[number], self._empty[number] = "", time.monotonic()
            await asyncio.sleep(POLL_S)
        return found

    async def _word(self, slot: int) -> tuple[str, str]:
        at = BASE + STRIDE * slot + RESULT
        [state] = await self._device.words(at)
        transaction = (await self._device.bytes(at + 3, 9)).rstrip(b"\0").decode("ascii", "replace")
        return WORDS[state] if state else "", transaction


class MqttProgram(Program):
    """Retained registrations, requests as messages; the outcomes are what the broker delivered.

    A broker that forgot its sessions has forgotten what nobody had acknowledged, too, and throws away what is asked before the bridge has subscribed anew. What
    had no end then, or was asked in that time, the program says again under the same ids until it hears of it (docs/durability.md); nothing else, ever.
    """

    prefix = "EV"

    def __init__(self, peer: MqttPeer, broker: Broker) -> None:
        super().__init__()
        self._peer = peer
        self._broker = broker
        self._host_was_there = False
        self._unheard: set[str] = set()
        self.said_again: set[str] = set()
        self._deaf_until = 0.0  # nobody may be subscribed before
        self._turn = asyncio.Lock()  # nothing is published while the broker is away

    async def subscribe(self) -> None:
        await self._peer.subscribe(TOPIC.format("+") + "/result", HOST_STATUS)

    async def request(self) -> str:
        # A request is not retained: before the bridge has subscribed once, the broker would keep it for nobody.
        while not self._host_was_there:
            await self.shown()
            await asyncio.sleep(POLL_S)
        reference = self._new_reference()
        if time.monotonic() < self._deaf_until:
            self._unheard.add(reference)
        await self._register(reference)
        await self._ask(reference)
        return reference

    async def _register(self, reference: str) -> None:
        await self._peer.publish(TOPIC.format(reference), CHARGER, retain=True)

    async def _ask(self, reference: str) -> None:
        await self._peer.publish(TOPIC.format(reference) + "/request", {"reqId": f"r-{reference}", "action": "create"})

    async def restart(self, *, forgets: bool) -> None:
        """Restart the broker; it remembers sessions, what is retained and what waits, or nothing at all."""
        async with self._turn:
            await self._broker.stop(signal.SIGKILL if forgets else signal.SIGTERM)
            if forgets:
                (self._broker.directory / "mosquitto.db").unlink(missing_ok=True)
            await self._broker.start()
            await self._peer.reconnected()
            if not forgets:
                return
            self._deaf_until = math.inf
            await self.subscribe()
            shown = await self.shown()
            open_ = [name for name, (word, _) in shown.items() if word not in ENDED and name not in self.forgotten]
            for reference in open_:
                await self._register(reference)
            self._unheard |= set(open_)

    async def run(self) -> None:
        """Say again what a broker may have forgotten."""
        while True:
            await asyncio.sleep(SAY_AGAIN_S)
            async with self._turn:
                await self.shown()
                for reference in sorted(self._unheard - self.forgotten):
                    self.said_again.add(reference)
                    await self._ask(reference)

    async def shown(self) -> dict[str, tuple[str, str]]:
        heard, self._peer.messages[:] = list(self._peer.messages), []
        for message in heard:
            if message.topic == HOST_STATUS:
                self._note_host(message.payload)
            else:
                reference, body = message.topic.split("/")[-3], json.loads(message.payload)
                assert body["reqId"] == f"r-{reference}", body
                self._past[reference] = (body["state"], body["transactionId"])
                self._unheard.discard(reference)
        return {reference: self._past.get(reference, ("", "")) for reference in self.requested}

    def _note_host(self, payload: bytes) -> None:
        if payload == b"online":
            self._host_was_there = True
            if self._deaf_until == math.inf:
                self._deaf_until = time.monotonic() + SUBSCRIBED_S


def _one_at_a_time(peer: OpcUaPeer) -> OpcUaPeer:
    """Its orders are answered in their order; two tasks must not mix theirs."""
    turn, order = asyncio.Lock(), peer.order

    async def one(op: str, **details: object) -> dict:
        async with turn:
            return await order(op, **details)

    peer.order = one
    return peer
