"""Polling for changes: what the device answers as before is not looked at again, and nothing that changed is missed for that."""

import asyncio
import struct

import pytest
from modbus_records import record, unit
from modbus_site import SAMPLE, options_of, read_site, selections_of

from adapters.modbus.layout import Layout, layout_of
from adapters.modbus.link import Link, Refused
from adapters.modbus.records import Reader
from bridge.api import LinkError
from bridge.clock import SystemClock

COUNT, BASE, STRIDE = 4, 100, 80
NAME_AT = 0  # of a record: its first register


class Device:
    """Registers in memory, read by the adapter's own requests; `then` is done after the answer of that number from now."""

    fetch, requests, look = Link.fetch, Link.requests, Link.look

    def __init__(self, options):
        self._options = options
        self.memory = bytearray(2 * 65536)
        self.asked = []
        self.then = {}
        self.refuses = lambda span: False
        for number in range(COUNT):
            self.put(number, record(f"RK{number:02}"))

    def put(self, number, data):
        at = 2 * (BASE + STRIDE * number)
        self.memory[at : at + len(data)] = data

    async def read(self, span):
        self.asked.append(span)
        if self.refuses(span):
            raise Refused(f"{span}: no", 2, "no")
        await asyncio.sleep(0)  # as an exchange does: others have their turn
        data = bytes(self.memory[2 * span.start : 2 * span.end])
        self.then, due = {left - 1: do for left, do in self.then.items() if left > 1}, self.then.get(1)
        if due is not None:
            due()
        return data

    async def _one_by_one(self, spans, image):
        await Link._one_by_one(self, spans, image)


class Poll:
    """One flow, polled."""

    def __init__(self, monkeypatch, fields=(), stride=STRIDE, **more):
        site = read_site(SAMPLE)
        flow = site["flows"]["batteries"]
        flow["submit"] = {"when": "change"}
        flow["records"]["each"]["stride"] = stride
        del site["flows"]["unit"]
        if fields:
            del flow["records"]["crc"]
            flow["records"]["fields"] = {name: flow["records"]["fields"][name] for name in fields} | more
        options = options_of(site)
        (selection,) = selections_of(site)
        self.device = Device(options)
        self.layout = layout_of(selection, COUNT, options.gap)
        self.shown = []
        self.reader = Reader(self.device, {"batteries": self.layout}, SystemClock.here(), self.shown.append)
        self.seen, self.compared = {}, 0
        signature = Layout.signature

        def counted(layout, block):
            self.compared += 1
            return signature(layout, block)

        monkeypatch.setattr(Layout, "signature", counted)

    async def __call__(self):
        """The places, names and problems that a poll brings."""
        self.compared = 0
        del self.device.asked[:]
        found = await self.reader.changed("batteries", self.seen)
        return [(item.place, item.fields["name"].value if item.fields else None, item.problem[:4]) for item in found]

    async def settled(self):
        """All that is there was told, and the device was seen to be quiet."""
        assert len(await self()) == COUNT
        assert await self() == []


@pytest.fixture
def poll(monkeypatch):
    return Poll(monkeypatch)


def named(reference, name):
    return record(reference, name=name)


async def test_a_quiet_device_is_asked_and_nothing_is_compared(poll):
    """The same few requests each time."""
    await poll.settled()
    first = list(poll.device.asked)
    for _ in range(3):
        assert await poll() == []
        assert (poll.compared, poll.device.asked) == (0, first)
    assert len(first) <= COUNT


async def test_a_change_is_told_once(poll):
    """In whichever record, also the last one."""
    await poll.settled()
    for number in (COUNT - 1, 0):
        poll.device.put(number, named(f"RK{number:02}", "Other"))
        assert await poll() == [(str(number), "Other", "")]
        assert await poll() == []
        assert await poll() == []
        assert poll.compared == 0


async def test_what_changes_back_after_it_was_read_again_is_told(poll):
    """The poll sees A, the second reading B, and that is told; the next poll sees A again, just as the one before: it is news all the same."""
    await poll.settled()
    poll.device.put(0, named("RK00", "A"))
    requests = len(poll.device.asked)
    poll.device.then = {requests: lambda: poll.device.put(0, named("RK00", "B"))}
    assert await poll() == [("0", "B", "")]
    poll.device.put(0, named("RK00", "A"))
    assert await poll() == [("0", "A", "")]
    assert await poll() == []


@pytest.mark.parametrize("at", [BASE + NAME_AT, BASE + 38], ids=["a field", "between the fields"])
async def test_the_last_reading_is_what_arrives(poll, at):
    """Whole, whatever of it is another than in the first one."""
    await poll.settled()
    poll.device.put(0, named("RK00", "A"))
    second = bytearray(poll.device.memory)
    second[2 * at : 2 * at + 2] = b"ZZ"
    poll.device.then = {len(poll.device.asked): lambda: poll.device.memory.__setitem__(slice(None), second)}
    (arrived,) = await poll.reader.changed("batteries", poll.seen)
    assert arrived.raw == bytes(second[2 * BASE : 2 * BASE + len(arrived.raw)])
    assert arrived.fields["name"].value == ("ZZ" if at == BASE + NAME_AT else "A")


async def test_only_what_moved_is_looked_at(monkeypatch):
    """Also where requests end within a record: whichever of its registers moves, that record alone is compared and told, as by a reader that compares all."""
    poll = Poll(monkeypatch)
    poll.device._options = poll.device._options.model_copy(update={"max_registers_per_read": 33, "max_gap": 64})
    await poll.settled()
    ends = {span.end for span in poll.device.asked}
    inside = [poll.layout.span(number) for number in range(COUNT)]
    assert any(span.start < end < span.end for span in inside for end in ends)
    for number in range(COUNT):
        for cut in poll.layout.cuts:
            at = 2 * inside[number].start + cut.start
            poll.device.memory[at] ^= 1
            found = await poll()
            assert ([place for place, *_ in found], poll.compared) == ([str(number)], 1), cut.name
    assert await poll() == []


async def test_after_a_change_the_device_is_quiet_at_once(poll):
    """The very next poll compares nothing, for the answers are those that were told."""
    await poll.settled()
    poll.device.put(1, named("RK01", "Other"))
    assert await poll() == [("1", "Other", "")]
    assert await poll() == []
    assert poll.compared == 0


async def test_a_record_that_was_torn_is_looked_at_again(poll):
    """It moved with each reading; once it stands still it is told."""
    await poll.settled()
    names = iter("BCDEFGHI")

    def move():
        poll.device.put(0, named("RK00", next(names)))
        poll.device.then = {1: move}

    requests = len(poll.device.asked)
    poll.device.put(0, named("RK00", "A"))
    poll.device.then = {requests: move}
    assert await poll() == [("0", None, "torn")]
    poll.device.then = {}
    last = await poll()
    assert [(place, problem) for place, _, problem in last] == [("0", "")]
    assert await poll() == []


@pytest.mark.parametrize("names", ["ABCD", "ABCA"], ids=["the last is new", "the last is the first"])
async def test_a_record_that_stands_after_it_was_torn_is_told(poll, names):
    """Each reading saw another one, and then it moved no more: the last reading was the whole record, and nobody was told of it."""
    await poll.settled()
    later = iter(names[1:])

    def move():
        name = next(later, None)
        if name is not None:
            poll.device.put(0, named("RK00", name))
            poll.device.then = {1: move}

    requests = len(poll.device.asked)
    poll.device.put(0, named("RK00", names[0]))
    poll.device.then = {requests: move}
    assert await poll() == [("0", None, "torn")]
    assert await poll() == [("0", names[-1], "")]
    assert await poll() == []


async def test_a_checksum_that_is_written_last_makes_it_a_record(poll):
    """The fields stand, the CRC is the old one's: that is told as it is, and what it becomes is told too."""
    await poll.settled()
    new, crc = named("RK00", "Other"), slice(78, 80)
    written = bytearray(new)
    written[crc] = record("RK00")[crc]
    poll.device.put(0, bytes(written))
    assert await poll() == [("0", "Other", "CRC:")]
    assert await poll() == []
    poll.device.put(0, new)
    assert await poll() == [("0", "Other", "")]
    assert await poll() == []


async def test_a_refusal_that_passes_costs_one_poll(poll):
    """A device that was busy once is asked as before, and nothing is compared when it is quiet."""
    await poll.settled()
    usual = list(poll.device.asked)
    refusals = iter([True])
    poll.device.refuses = lambda span: next(refusals, False)
    assert await poll() == []
    assert (await poll(), poll.compared, poll.device.asked) == ([], COUNT, usual)
    assert (await poll(), poll.compared, poll.device.asked) == ([], 0, usual)


class Units:
    """A unit whose bits stand for assets, told when it changes."""

    AT = 12_000  # of the unit's block, in bytes

    def __init__(self):
        site = read_site(SAMPLE)
        for flow in site["flows"].values():
            flow["submit"] = {"when": "change"}
        options = options_of(site)
        self.device = Device(options)
        layouts = {
            selection.flow: layout_of(selection, COUNT if selection.flow == "batteries" else 1, options.gap)
            for selection in selections_of(site)
        }
        self.reader, self.seen = Reader(self.device, layouts, SystemClock.here()), {}
        self.put((0, 1))

    def put(self, numbers):
        block = unit("UNIT01", numbers)
        self.device.memory[self.AT : self.AT + len(block)] = block

    async def __call__(self):
        """The assets of each unit that a poll brings, or what is wrong with them."""
        found = [
            item.fields["assets"] if item.fields else None for item in await self.reader.changed("unit", self.seen)
        ]
        return [item and (item.value or item.detail) for item in found]


async def test_a_unit_changes_with_what_its_bits_stand_for():
    """Its own registers stay as they are: an asset that comes later, another one in its slot, and one that goes."""
    units = Units()
    units.device.put(1, bytes(100))
    assert await units() == ["registers 220..229: the record is empty, but its bit is set"]
    assert await units() == []
    units.device.put(1, record("RK01"))
    assert await units() == [("RK00", "RK01")]
    units.device.put(1, record("OTHER"))
    assert await units() == [("RK00", "OTHER")]
    assert await units() == []
    units.device.put(2, record("RK22"))  # none of its own
    assert await units() == []
    units.put((0, 2))
    assert await units() == [("RK00", "RK22")]
    assert await units() == []


async def test_a_unit_is_told_once_what_its_bits_stand_for_agrees_twice():
    """The asset moves between the two readings: what arrives is what two of them showed."""
    units = Units()
    assert await units() == [("RK00", "RK01")]
    units.put((0, 3))
    units.device.then = {3: lambda: units.device.put(3, record("MOVED"))}
    assert await units() == [("RK00", "MOVED")]
    assert await units() == []


async def test_a_slot_that_was_emptied_is_told_when_it_is_filled_again(poll):
    """With the very same record."""
    await poll.settled()
    held = bytes(poll.device.memory)
    poll.device.put(1, bytes(2 * STRIDE))
    assert await poll() == []
    assert await poll() == []
    assert poll.compared == 0
    poll.device.memory[:] = held
    assert await poll() == [("1", "North Yard Battery 001", "")]


async def test_a_device_that_refuses_a_request_is_read_in_parts(monkeypatch):
    """It takes requests of one part of a record alone: that is found out once, and changes are told as ever."""
    poll = Poll(monkeypatch, fields=("name", "reference"))
    parts = {span for number in range(COUNT) for span in poll.layout.chunks_of(number)}
    poll.device.refuses = lambda span: span not in parts
    poll.device._options = poll.device._options.model_copy(update={"max_registers_per_read": 125, "max_gap": 64})
    await poll.settled()
    refused = [span for span in poll.device.asked if span not in parts]
    assert refused != []
    assert len(refused) == len(set(refused))  # not once more for looking first
    poll.device.put(2, named("RK02", "Other"))
    assert await poll() == [("2", "Other", "")]
    assert await poll() == []


async def test_what_lies_between_the_fields_is_no_change(poll):
    """It is read along, so the answer is another one; the record is not."""
    await poll.settled()
    spare = 2 * (BASE + 38)
    poll.device.memory[spare : spare + 2] = struct.pack(">H", 7)
    assert await poll() == []
    assert poll.compared == 1
    assert await poll() == []
    assert poll.compared == 0


async def test_another_scale_factor_is_a_change(monkeypatch):
    """The value is another one, though its own registers say the same."""
    poll = Poll(monkeypatch, fields=("name", "reference"), volts={"at": 29, "type": "uint16", "scale_at": 28})
    await poll.settled()
    at = 2 * (BASE + 28)
    poll.device.memory[at : at + 2] = struct.pack(">h", -1)
    assert await poll() == [("0", "North Yard Battery 001", "")]
    assert await poll() == []


@pytest.mark.parametrize("asks", ["changed", "requested"])
async def test_a_register_that_cannot_be_read_is_no_zero(monkeypatch, asks):
    """Records that lie within one another's gaps: one whose key the device refuses ends the session, however much is known of the others by then."""
    poll = Poll(monkeypatch, fields=("reference",), stride=12, name={"at": 0, "type": "string", "registers": 10})
    poll.device._options = poll.device._options.model_copy(update={"max_gap": 0})
    own = poll.layout.chunks_of(1)[0]
    assert (
        poll.layout.span(0).start < own.start < own.end < poll.layout.span(0).end
    )  # in the gap of the record before it
    poll.device.memory[2 * BASE : 2 * (BASE + 200)] = b"A" * 400
    poll.device.refuses = lambda span: span.start < own.end and own.start < span.end

    async def sequence():
        await asyncio.sleep(0)
        return 1

    asking = poll() if asks == "changed" else poll.reader.requested("batteries", sequence)
    with pytest.raises(LinkError, match="no"):
        await asking
    assert [item.place for item in poll.shown] == ([] if asks == "changed" else ["0"])
