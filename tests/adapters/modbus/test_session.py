"""One session against a libmodbus device that behaves, and one that does not."""

import asyncio
import copy
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest
from modbus_device import Device, modbus_device
from modbus_records import COMMAND, ERROR, HEADER, SEQUENCE, STATUS, record, unit
from modbus_site import SAMPLE, context_of, options_of, read_site, selections_of
from recorded import Recorded

from adapters.modbus import ADAPTER
from bridge.api import Address, Code, HostReason, LinkError, OutcomeField, Quality, Session, Write

WITHIN_S = 10.0
FAST = {"poll": "10ms", "heartbeat": None, "busy_pause": "10ms", "timeout": "500ms"}


@pytest.fixture
async def device() -> AsyncIterator[Device]:
    async with modbus_device() as device:
        await device.put(0, *HEADER)
        await device.put_bytes(100, record("RK01"))
        await device.put_bytes(180, record("RK02", name="South Yard Battery 002", kw=-12500))
        await device.put_bytes(6000, unit("UNIT01", (0, 1)))
        yield device


@asynccontextmanager
async def opened(device: Device, *, flows=None, heard=lambda: None, **changes) -> AsyncIterator[Session]:
    site = read_site(SAMPLE)
    site["flows"] = site["flows"] if flows is None else flows
    options = options_of(site, port=device.port, **{**FAST, **changes})
    async with asyncio.timeout(30), ADAPTER.open(context_of(options, selections_of(site), heard)) as session:
        yield session


def on_change() -> dict:
    flows = copy.deepcopy(read_site(SAMPLE)["flows"])
    flows["batteries"]["submit"] = {"when": "change"}
    del flows["unit"]
    return flows


async def ask(device: Device, command: int, sequence: int) -> None:
    await device.put(SEQUENCE, sequence)
    await device.put(COMMAND, command)


async def receive(session: Session):
    async with asyncio.timeout(WITHIN_S):
        (arrival,) = await session.receive()
    return arrival


async def polls(device: Device, count: int) -> None:
    """So many more requests to read have come."""
    reads = (await device.order("stats"))["reads"]
    async with asyncio.timeout(WITHIN_S):
        while (await device.order("stats"))["reads"] < reads + count:
            await asyncio.sleep(0.01)


def outcome(place: str, flow: str = "batteries", **values) -> list[Write]:
    return [Write(address=Address(flow, place, OutcomeField(name)), value=value) for name, value in values.items()]


async def test_a_request_goes_through_its_whole_handshake(device):
    """Busy while it is read, journalled after the acknowledgement, idle once the EMS has cleared its command."""
    async with opened(device) as session:
        await ask(device, 1, 7)
        arrival = await receive(session)
        assert await device.words(STATUS, 2) == [2, 0]
        assert [item.place for item in arrival.records] == ["0", "1"]
        assert {item.request for item in arrival.records} == {"7"}
        arrival.ack(True)
        await device.until(STATUS, 3, 0)
        await device.put(COMMAND, 0)
        await device.until(STATUS, 0, 0)


async def test_a_request_stays_busy_until_it_is_on_disk(device):
    """However long that takes: the EMS is told that its request is ours by the acknowledgement, and by nothing else."""
    async with opened(device) as session:
        await ask(device, 1, 7)
        arrival = await receive(session)
        await polls(device, 10)
        assert await device.words(STATUS, 2) == [2, 0]
        arrival.ack(True)
        await device.until(STATUS, 3, 0)


async def test_a_request_that_cannot_be_read_is_answered_so(device):
    """`ack(False)` becomes status 4 with the host's own code beside it."""
    async with opened(device) as session:
        await ask(device, 1, 1)
        (await receive(session)).ack(False)
        await device.until(STATUS, 4, HostReason.UNREADABLE)


async def test_a_command_that_no_flow_knows_is_answered_so(device):
    """Nobody waits for an answer that never comes; the next good command works."""
    async with opened(device) as session:
        await ask(device, 9, 1)
        await device.until(STATUS, 4, HostReason.UNREADABLE)
        await ask(device, 1, 2)
        assert (await receive(session)).records[0].request == "2"


async def test_a_request_without_any_record_is_answered_so(device):
    """All slots empty: nothing to journal, so the request is unreadable."""
    await device.put_bytes(100, bytes(260))
    async with opened(device):
        await ask(device, 1, 1)
        await device.until(STATUS, 4, HostReason.UNREADABLE)


async def test_each_sequence_is_delivered_once_and_wraps(device):
    """The same command stays pending over many polls and is one arrival; 65535 is followed by 0, and that is new."""
    async with opened(device) as session:
        await ask(device, 1, 65535)
        first = await receive(session)
        await polls(device, 5)
        await device.put(SEQUENCE, 0)
        second = await receive(session)
        assert [first.records[0].request, second.records[0].request] == ["65535", "0"]


async def test_a_late_acknowledgement_never_answers_another_request(device):
    """The EMS gave up and asked again: the old request's status would be read as the new one's."""
    async with opened(device) as session:
        await ask(device, 1, 1)
        first = await receive(session)
        await ask(device, 1, 2)
        second = await receive(session)
        first.ack(False)
        await polls(device, 5)
        assert await device.words(STATUS, 2) == [2, 0]
        second.ack(True)
        await device.until(STATUS, 3, 0)


async def test_the_same_sequence_raised_again_is_delivered_again(device):
    """Whether it is a repeat is the core's decision."""
    async with opened(device) as session:
        await ask(device, 1, 5)
        (await receive(session)).ack(True)
        await device.until(STATUS, 3)
        await device.put(COMMAND, 0)
        await device.until(STATUS, 0)
        await device.put(COMMAND, 1)
        assert (await receive(session)).records[0].request == "5"


async def test_a_pending_request_is_delivered_by_a_new_session(device):
    """State, not events: what was asked before the connection is found, also when an earlier session had it already."""
    await ask(device, 1, 3)
    for _ in range(2):
        async with opened(device) as session:
            assert (await receive(session)).records[0].request == "3"


async def test_a_handshake_that_a_dead_host_left_behind_is_tidied(device):
    """The command is cleared but the status still stands: it returns to idle."""
    await device.put(STATUS, 3)
    async with opened(device):
        await device.until(STATUS, 0)


async def test_the_unit_names_its_members_by_key(device):
    """Record numbers are turned into references in the same guarded read."""
    async with opened(device) as session:
        await ask(device, 2, 1)
        (item,) = (await receive(session)).records
        assert (item.flow, item.place) == ("unit", "0")
        assert item.fields["assets"].value == ("RK01", "RK02")
        assert item.fields["assets"].quality is Quality.GOOD


@pytest.mark.parametrize(("numbers", "text"), [((0, 2), "2 records"), ((0, 1), "empty")])
async def test_a_member_that_is_not_there_spoils_the_list(device, numbers, text):
    """A bit for a record beyond the count, or for an empty slot: the list is BAD and says why."""
    await device.put_bytes(6000, unit("UNIT01", numbers))
    if text == "empty":
        await device.put_bytes(180, bytes(100))
    async with opened(device) as session:
        await ask(device, 2, 1)
        (item,) = (await receive(session)).records
        assert item.fields["assets"].quality is Quality.BAD
        assert text in item.fields["assets"].detail
        assert item.fields["reference"].value == "UNIT01"


async def test_a_record_that_moves_while_it_is_read_is_read_again(device):
    """The sequence moved during the first reading: the record of the second one is whole and belongs to the new sequence."""
    async with opened(device) as session:
        await device.order("tear", at=SEQUENCE, **{"from": 100}, times=1)
        await ask(device, 1, 1)
        arrival = await receive(session)
        assert [item.request for item in arrival.records] == ["2", "2"]
        assert not any(item.problem for item in arrival.records)


async def test_a_record_that_never_stands_still_is_torn(device):
    """Three readings, three sequences: every record is a problem without values."""
    async with opened(device) as session:
        await device.order("tear", at=SEQUENCE, **{"from": 100}, times=6)
        await ask(device, 1, 1)
        arrival = await receive(session)
        assert [(item.place, item.problem[:4], dict(item.fields)) for item in arrival.records] == [
            ("0", "torn", {}),
            ("1", "torn", {}),
        ]


async def test_a_wrong_checksum_is_a_problem_of_that_record_alone(device):
    """The values travel too, so that the record can be answered by its key."""
    await device.put(130, 1)
    async with opened(device) as session:
        await ask(device, 1, 1)
        broken, good = (await receive(session)).records
        assert broken.problem.startswith("CRC: register 139")
        assert broken.fields["reference"].value == "RK01"
        assert not good.problem


async def test_raw_is_what_the_device_sent(device):
    """Evidence: the registers big-endian, from the record's first to its last field."""
    async with opened(device) as session:
        await ask(device, 1, 1)
        assert (await receive(session)).records[0].raw == record("RK01")


async def test_changes_are_delivered_once_each(device):
    """Under `change` every record comes once, then each that changed; registers between the fields do not count."""
    async with opened(device, flows=on_change()) as session:
        assert [item.place for item in (await receive(session)).records] == ["0", "1"]
        await device.put(138, 5)  # flags: no field of this flow, but its CRC is now wrong; not a change
        await device.put_bytes(180, record("RK02", kw=1))
        (item,) = (await receive(session)).records
        assert (item.place, item.fields["export_kw"].value, item.request) == ("1", 1, None)


async def test_a_record_that_appears_later_is_a_change(device):
    """A slot that was empty at opening is delivered when somebody moves in."""
    await device.put_bytes(180, bytes(100))
    async with opened(device, flows=on_change()) as session:
        assert [item.place for item in (await receive(session)).records] == ["0"]
        await device.put_bytes(180, record("RK09"))
        async with asyncio.timeout(WITHIN_S):
            while True:
                (item,) = (await receive(session)).records
                if not item.problem:
                    break
        assert item.fields["reference"].value == "RK09"


async def test_a_full_inbox_makes_the_device_wait(device):
    """Nobody receives: polling stops after a bounded number of arrivals, and nothing of them is lost."""
    async with opened(device, flows=on_change()) as session:
        seen = []
        for kw in range(40):
            await device.put_bytes(100, record("RK01", kw=kw))
            before = (await device.order("stats"))["reads"]
            deadline = asyncio.get_running_loop().time() + 0.1
            while (await device.order("stats"))["reads"] < before + 3 and asyncio.get_running_loop().time() < deadline:
                await asyncio.sleep(0.005)
        async with asyncio.timeout(WITHIN_S):
            while 39 not in seen:
                arrivals = await session.receive()
                assert len(arrivals) <= 17
                seen += [item.fields["export_kw"].value for arrival in arrivals for item in arrival.records]
    own = [kw for kw in seen if 0 <= kw < 40]
    assert own == sorted(set(own))
    assert len(own) >= 17


async def test_an_outcome_is_written_and_reads_back_the_same(device):
    """Every outcome field in its own form; what `write` reports is what a later `read` gives."""
    writes = outcome(
        "1",
        state=Code(4, "refused"),
        errorCount=2,
        errorCode=Code(9001, "9001"),
        transactionId="a0B0123456789ABCDEFGHIJ",
        updatedAt=1_795_392_000_000_000_000,
        alarm=True,
    )
    async with opened(device) as session:
        written = await session.write(writes)
        readings = await session.read([write.address for write in writes])
    assert [item.error for item in written] == [""] * len(writes)
    assert [item.value for item in written] == [reading.value for reading in readings]
    assert written[0].value == 4
    assert str(written[3].value).startswith("#")
    assert written[4].value == datetime(2026, 11, 23, tzinfo=UTC)
    assert await device.words(240, 3) == [4, 2, 9001]
    assert await device.words(252, 2) == [0x6B03, 0x8200]
    assert await device.words(259) == [1]
    assert await device.words(160, 20) == [0] * 20


async def test_the_state_is_written_last_and_with_its_neighbours(device):
    """An EMS that watches the state finds the rest of the outcome in place."""
    async with opened(device) as session:
        await session.write(
            outcome(
                "0", state=Code(3, "registered"), transactionId="a0B", alarm=False, errorCount=0, errorCode=Code(0, "")
            )
        )
        log = [entry for entry in (await device.order("stats"))["log"] if entry[0] == 16]
    assert log == [[16, 179, 1], [16, 160, 12]]


async def test_nothing_is_written_outside_writable(device):
    """Refused before a single request leaves; the other writes go on."""
    writable = ["8..9", {"from": 160, "to": 179}, "6060..6079"]
    async with opened(device, writable=writable) as session:
        written = await session.write(
            [*outcome("1", state=Code(3, "registered")), *outcome("0", state=Code(3, "registered"))]
        )
        log = [entry for entry in (await device.order("stats"))["log"] if entry[0] == 16]
    assert "outside `writable:`" in written[0].error
    assert written[1].error == ""
    assert log == [[16, 160, 1]]


async def test_a_field_is_never_written(device):
    """Only outcomes are written, wherever `writable:` would allow more."""
    async with opened(device, writable=["0..65535"]) as session:
        (written,) = await session.write([Write(address=Address("batteries", "0", "export_kw"), value=1)])
    assert "only outcomes" in written.error


async def test_one_refused_register_does_not_stop_the_others(device):
    """The device refuses the transaction id's registers: state and code are written, the id is an error that names them."""
    async with opened(device) as session:
        await device.order("refuse", **{"from": 163, "to": 171})
        written = await session.write(
            outcome("0", state=Code(3, "registered"), errorCount=0, errorCode=Code(0, ""), transactionId="a0B")
        )
        readings = await session.read(
            [Address("batteries", "0", OutcomeField.TRANSACTION_ID), Address("batteries", "0", OutcomeField.STATE)]
        )
    assert [bool(item.error) for item in written] == [False, False, False, True]
    assert "163..171" in written[3].error
    assert "exception 2" in written[3].error
    assert readings[0].quality is Quality.BAD
    assert readings[1].value == 3


async def test_an_address_that_is_nowhere_is_a_bad_reading(device):
    """Unknown flow, record or name: BAD each, in order, beside a good one."""
    addresses = [
        Address("cars", "0", "reference"),
        Address("batteries", "2", "reference"),
        Address("batteries", "01", "reference"),
        Address("batteries", "0", "colour"),
        Address("batteries", "0", OutcomeField.ASSET_ID),
        Address("batteries", "1", "reference"),
        Address("unit", "0", "assets"),
    ]
    async with opened(device) as session:
        readings = await session.read(addresses)
    assert [reading.quality for reading in readings] == [Quality.BAD] * 5 + [Quality.GOOD] * 2
    assert [reading.value for reading in readings[5:]] == ["RK02", ("RK01", "RK02")]


@pytest.mark.parametrize("code", [5, 6])
async def test_a_busy_device_is_asked_again(device, code):
    """Exception 5 (still at work) or 6 (busy) a few times is no failure."""
    async with opened(device) as session:
        await device.order("busy", times=4, code=code)
        (reading,) = await session.read([Address("batteries", "0", "reference")])
    assert reading.value == "RK01"


async def test_a_busy_device_is_left_alone_between_two_tries(device):
    """`busy_pause`: who asks again at once keeps it busy."""
    async with opened(device, poll="10min", busy_pause="60ms") as session:
        before = -1
        while before != (before := len((await device.order("stats"))["turns"])):
            await asyncio.sleep(0.1)  # the only poll is over
        await device.order("busy", times=3, code=6)
        await session.read([Address("batteries", "0", "reference")])
        turns = (await device.order("stats"))["turns"][before:][:4]
    rests = [asked - answered for (_, _, answered), (_, asked, _) in zip(turns, turns[1:], strict=False)]
    assert len(rests) == 3
    assert min(rests) >= 0.06


async def test_a_silent_device_is_found_by_the_poll(device):
    """Requests without answers end the session within the time-out, and every later call says so."""
    async with opened(device) as session:
        await device.order("mute", on=True)
        with pytest.raises(LinkError):
            async with asyncio.timeout(WITHIN_S):
                await session.receive()
        with pytest.raises(LinkError):
            await session.read([Address("batteries", "0", "reference")])
        with pytest.raises(LinkError):
            await session.write(outcome("0", state=Code(3, "registered")))


async def test_a_dropped_connection_ends_the_session_at_once(device):
    """The device closes: `receive` raises without waiting for a time-out."""
    async with opened(device, timeout="30s", poll="60min") as session:
        await device.order("drop")
        with pytest.raises(LinkError):
            async with asyncio.timeout(5):
                await session.receive()


async def test_a_cancelled_read_ends_the_session(device):
    """An answer that nobody waited for must never be taken for the next one's."""
    async with opened(device, poll="60min", timeout="30s") as session:
        await device.order("mute", on=True)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await session.read([Address("batteries", "0", "reference")])
        with pytest.raises(LinkError):
            await session.read([Address("batteries", "0", "reference")])


async def test_opening_can_be_cancelled(device):
    """An outer deadline ends an opening that hangs, and leaves no task behind."""
    await device.order("mute", on=True)
    before = asyncio.all_tasks()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1), opened(device, timeout="30s"):
            raise AssertionError("the session opened")
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


async def test_an_error_of_the_core_leaves_as_itself(device):
    """The session's own task group never wraps a `LinkError` that passes through it."""
    with pytest.raises(LinkError, match="mine"):
        async with opened(device):
            raise LinkError("mine")


async def test_another_device_is_refused(device):
    """The wrong magic word ends the session with both words in the text."""
    await device.put(0, 0x1234)
    async with opened(device) as session:
        with pytest.raises(LinkError, match="0x1234.*0x534d"):
            await session.receive()


async def test_a_heartbeat_that_stands_still_ends_the_session(device):
    """Stale values are never delivered: a pending request is not, and the session ends."""
    await ask(device, 1, 1)
    async with opened(device, heartbeat={"at": 5, "stale": "100ms"}) as session:
        with pytest.raises(LinkError, match="stale heartbeat"):
            async with asyncio.timeout(WITHIN_S):
                await session.receive()
    assert await device.words(STATUS) == [0]


async def test_a_heartbeat_that_moves_lets_the_request_through(device):
    """Seen to move once, the device is believed."""
    await device.order("beat", at=5, on=True)
    await ask(device, 1, 1)
    async with opened(device, heartbeat={"at": 5, "stale": "1s"}) as session:
        assert len((await receive(session)).records) == 2


async def test_a_count_beyond_its_bound_is_refused(device):
    """A count that `max` does not allow is another register than was meant."""
    await device.put(2, 65)
    with pytest.raises(LinkError, match="counts 65 records"):
        async with opened(device):
            raise AssertionError("the session opened")


async def test_a_count_that_changes_opens_anew(device):
    """More records are found by a new session."""
    async with opened(device) as session:
        await device.put_bytes(260, record("RK03"))
        await device.put(2, 3)
        with pytest.raises(LinkError, match="now counts 3"):
            async with asyncio.timeout(WITHIN_S):
                await session.receive()
    await ask(device, 1, 1)
    async with opened(device) as session:
        assert [item.place for item in (await receive(session)).records] == ["0", "1", "2"]


async def test_addresses_that_the_device_does_not_have_are_found_at_opening(device):
    """The first and the last record of each flow are looked at; the text names the registers."""
    await device.order("refuse", **{"from": 180, "to": 200})
    with pytest.raises(LinkError, match=r"record 1 of batteries.*180\.\.229"):
        async with opened(device):
            raise AssertionError("the session opened")


async def test_health_is_heard_at_every_poll(device):
    """A quiet device that answers is alive."""
    heard = asyncio.Semaphore(0)
    async with opened(device, heard=heard.release), asyncio.timeout(WITHIN_S):
        for _ in range(5):
            await heard.acquire()


async def test_a_handshake_register_that_cannot_be_written_ends_the_session(device):
    """An EMS that refuses the host's answers would wait for ever; the link says why."""
    await device.order("refuse", **{"from": ERROR, "to": ERROR})
    flows = read_site(SAMPLE)["flows"]
    for flow in flows.values():
        del flow["submit"]["error"]
    async with opened(device, flows=flows):
        pass
    await device.order("refuse", **{"from": STATUS, "to": STATUS})
    with pytest.raises(LinkError, match="header"):
        async with opened(device, flows=flows) as session:
            await session.receive()


async def test_it_tells_how_often_it_polls(device):
    """The interval as configured, and from the start of one poll to that of the next; nobody revises it."""
    recorded, site = Recorded(), read_site(SAMPLE)
    options = options_of(site, port=device.port, **FAST)
    context = context_of(options, selections_of(site))._replace(intervals=recorded)
    async with asyncio.timeout(30), ADAPTER.open(context):
        spacings = await recorded.until("poll", 5)
    assert recorded.said == {"poll": (0.01, None)}
    assert set(recorded.spacings) == {"poll"}
    # A poll begins when its time has come, however long the one before took: never two in one period.
    assert sum(spacings[:5]) >= 4 * 0.01
