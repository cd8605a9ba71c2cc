"""The contract kit: what every adapter must do, as test cases over a rig that the adapter's author writes.

Subclass `AdapterContract` in a pytest module, return your rig from `rig`, and every case below runs against your adapter and a peer of
your choice (a real server, best one that somebody else wrote). The rig plays the EMS.
"""

import asyncio
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from functools import cache
from typing import Any, Final, TypeVar

from bridge.api import (
    MOST_REPLY,
    Adapter,
    Address,
    Arrival,
    Code,
    LinkError,
    OutcomeField,
    Quality,
    Record,
    Selection,
    Session,
    SessionContext,
    Trigger,
    Write,
)
from bridge.clock import SystemClock

T = TypeVar("T")
WITHIN_S: Final = 20.0
RECOVER_S: Final = 10.0


class Rig(ABC):
    """One EMS with at least two places, played for one adapter. Entered before each case, left after it."""

    adapter: Adapter
    options: Any
    selection: Selection
    library: str
    """Top-level module of the protocol library, which must not be imported before `open`."""

    key_field: str = "reference"
    number_field: str = ""
    """A field that holds a number, '' where the protocol has none."""

    @abstractmethod
    def places(self) -> tuple[str, str]:
        """Two places that hold a record each."""

    @abstractmethod
    def key(self, place: str) -> str:
        """The key of the record in this place."""

    @abstractmethod
    async def request(self, place: str) -> None:
        """Let the EMS ask for this place's submission (or, under `change`, change a field of it)."""

    @abstractmethod
    async def outcome(self, place: str) -> Mapping[str, object]:
        """What the EMS itself now holds of the outcome: `state` and `transactionId` at least, '' or 0 when never written."""

    @abstractmethod
    async def stop_peer(self) -> None:
        """Take the peer away: connections break, new ones are refused."""

    @abstractmethod
    async def start_peer(self) -> None:
        """Bring the peer back on the same address, with its state."""

    async def spoil(self, place: str) -> bool:
        """Give one field of the record Bad quality, or make it unreadable, and request it; False where the protocol cannot express that."""
        return False


@cache
def _imports(module: str, library: str) -> bool:
    """Whether a fresh process that imports the module has the library too; asked once, however many rigs an adapter has."""
    code = f"import {module}, sys; sys.exit({library!r} in sys.modules)"
    return subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode != 0


class AdapterContract(ABC):
    """The cases. Each is one sentence of `bridge.api`."""

    @abstractmethod
    def rig(self) -> AbstractAsyncContextManager[Rig]:
        """A fresh rig."""

    def context(self, rig: Rig, heard: Callable[[], None] = lambda: None) -> SessionContext:
        """What a session is opened with."""
        return SessionContext(
            site="kit",
            adapter="under-test",
            options=rig.options,
            selections=[rig.selection],
            clock=SystemClock.here(),
            heard=heard,
            client_id="smp-bridge-kit",
        )

    async def test_importing_the_adapter_does_not_import_its_library(self) -> None:
        """The protocol library is loaded when a session opens, not before."""
        async with self.rig() as rig:
            module = sys.modules[type(rig.options).__module__].__name__.rpartition(".")[0]
            imported = await asyncio.to_thread(_imports, module, rig.library)
            assert not imported, f"importing {module} already imports {rig.library}"

    async def test_a_configuration_that_the_adapter_accepts_has_no_problems(self) -> None:
        """`check` is pure and content with the rig's own configuration."""
        async with self.rig() as rig:
            assert list(rig.adapter.check(rig.options, [rig.selection])) == []

    async def test_a_request_returns_the_whole_record(self) -> None:
        """One complete record with the flow, the place, good readings and the key."""
        async with self.rig() as rig, rig.adapter.open(self.context(rig)) as session:
            place, _ = rig.places()
            await rig.request(place)
            arrival, record = await self.record_of(session, place)
            assert record.flow == rig.selection.flow
            assert record.complete
            assert not record.problem
            assert set(record.fields) == set(rig.selection.records.fields)
            assert all(reading.quality is Quality.GOOD for reading in record.fields.values()), record.fields
            assert record.fields[rig.key_field].value == rig.key(place)
            assert (record.request is None) == (rig.selection.trigger is Trigger.CHANGE)
            arrival.ack(True)

    async def test_a_request_before_the_session_is_not_lost(self) -> None:
        """What was asked while nobody was connected is returned after opening."""
        async with self.rig() as rig:
            place, _ = rig.places()
            await rig.request(place)
            async with rig.adapter.open(self.context(rig)) as session:
                _, record = await self.record_of(session, place)
                assert record.fields[rig.key_field].value == rig.key(place)

    async def test_good_values_are_heard(self) -> None:
        """`heard` is called for a good value; health is its age."""
        count = 0

        def heard() -> None:
            nonlocal count
            count += 1

        async with self.rig() as rig, rig.adapter.open(self.context(rig, heard)) as session:
            place, _ = rig.places()
            await rig.request(place)
            await self.record_of(session, place)
            assert count > 0

    async def test_an_outcome_is_written_and_reads_back_as_written(self) -> None:
        """`Written.value` is what the EMS holds and what a later read of the same address gives."""
        async with self.rig() as rig, rig.adapter.open(self.context(rig)) as session:
            place, _ = rig.places()
            await rig.request(place)
            arrival, record = await self.record_of(session, place)
            arrival.ack(True)
            writes = self.writes(rig, place, record.request)
            written = await self.within(session.write(writes))
            assert [entry.error for entry in written] == [""] * len(writes)
            if session.can_read:
                readings = await self.within(session.read([entry.address for entry in written]))
                assert [reading.value for reading in readings] == [entry.value for entry in written]
            held = await rig.outcome(place)
            assert held["transactionId"] == "a0Bkit"

    async def test_reads_and_writes_while_receive_waits(self) -> None:
        """`read` and `write` may be called by another task while `receive` waits."""
        async with self.rig() as rig, rig.adapter.open(self.context(rig)) as session:
            first, second = rig.places()
            await rig.request(first)
            _, record = await self.record_of(session, first)
            async with asyncio.TaskGroup() as group:
                waiting = group.create_task(self.record_of(session, second))
                written = await self.within(session.write(self.writes(rig, first, record.request)))
                assert not any(entry.error for entry in written)
                await rig.request(second)
                _, other = await waiting
            assert other.fields[rig.key_field].value == rig.key(second)

    async def test_the_key_can_be_read_again(self) -> None:
        """The check before a write-back reads the key field in its place."""
        async with self.rig() as rig, rig.adapter.open(self.context(rig)) as session:
            if session.can_read:
                place, _ = rig.places()
                address = Address(rig.selection.flow, place, rig.key_field)
                (reading,) = await self.within(session.read([address]))
                assert (reading.quality, reading.value) == (Quality.GOOD, rig.key(place))

    async def test_an_unknown_place_fails_alone(self) -> None:
        """One bad address never stops the others."""
        async with self.rig() as rig, rig.adapter.open(self.context(rig)) as session:
            place, _ = rig.places()
            await rig.request(place)
            _, record = await self.record_of(session, place)
            good = self.writes(rig, place, record.request)
            if not session.can_read:
                return
            bad = [
                Write(
                    address=Address(rig.selection.flow, "no such place", OutcomeField.STATE),
                    value=Code(3, "registered"),
                )
            ]
            written = await self.within(session.write([*bad, *good]))
            assert written[0].error
            assert not any(entry.error for entry in written[1:])

    async def test_a_bad_value_is_a_reading_not_an_error(self) -> None:
        """Quality travels with the value; the core refuses the record."""
        async with self.rig() as rig, rig.adapter.open(self.context(rig)) as session:
            place, _ = rig.places()
            if not await rig.spoil(place):
                return
            async with asyncio.timeout(WITHIN_S):
                spoilt = False
                while not spoilt:  # a session may return the record as it was before and the spoilt one together
                    for arrival in await session.receive():
                        for record in arrival.records:
                            bad = any(reading.quality is not Quality.GOOD for reading in record.fields.values())
                            spoilt = spoilt or (record.place == place and (bool(record.problem) or bad))

    async def test_a_lost_peer_ends_the_session_and_a_new_one_goes_on(self) -> None:
        """`LinkError` within 10 s of the loss; a new session then returns what is still asked."""
        async with self.rig() as rig:
            place, _ = rig.places()
            try:
                async with rig.adapter.open(self.context(rig)) as session:
                    await rig.stop_peer()
                    async with asyncio.timeout(RECOVER_S):
                        while True:
                            await session.receive()
            except* LinkError:
                pass
            await rig.start_peer()
            await rig.request(place)
            async with asyncio.timeout(WITHIN_S), rig.adapter.open(self.context(rig)) as session:
                _, record = await self.record_of(session, place)
                assert record.fields[rig.key_field].value == rig.key(place)

    async def test_an_absent_peer_is_a_link_error(self) -> None:
        """Opening fails with `LinkError`, whatever the library raises."""
        async with self.rig() as rig:
            await rig.stop_peer()
            raised = False
            try:
                async with asyncio.timeout(WITHIN_S), rig.adapter.open(self.context(rig)):
                    pass
            except* LinkError:
                raised = True
            assert raised

    async def test_cancelling_receive_leaves_nothing_behind(self) -> None:
        """After a cancelled `receive` the session closes and no task of its own stays."""
        async with self.rig() as rig:
            before = asyncio.all_tasks()
            async with rig.adapter.open(self.context(rig)) as session:
                try:
                    async with asyncio.timeout(0.2):
                        while True:
                            await session.receive()
                except TimeoutError:
                    pass
            await self.until(lambda: not (asyncio.all_tasks() - before - {asyncio.current_task()}))

    # helpers ---------------------------------------------------------------------------------------------------------

    def writes(self, rig: Rig, place: str, request: str | None) -> list[Write]:
        """A registered outcome for this place, in the fields that the rig's configuration names."""
        values: dict[OutcomeField, object] = {
            OutcomeField.STATE: Code(3, "registered"),
            OutcomeField.TRANSACTION_ID: "a0Bkit",
        }
        return [
            Write(address=Address(rig.selection.flow, place, name), value=value, request=request)
            for name, value in values.items()
        ]

    async def record_of(self, session: Session, place: str) -> tuple[Arrival, Record]:
        """The next complete record of this place; other places' records are let through."""
        async with asyncio.timeout(WITHIN_S):
            while True:
                for arrival in await session.receive():
                    for record in arrival.records:
                        assert len(record.reply) <= MOST_REPLY
                        if record.place == place and record.complete:
                            return arrival, record

    async def within(self, call: Awaitable[T]) -> T:
        """No call of a session waits for ever."""
        async with asyncio.timeout(WITHIN_S):
            return await call

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition, bounded."""
        async with asyncio.timeout(WITHIN_S):
            while not condition():
                await asyncio.sleep(0.01)
