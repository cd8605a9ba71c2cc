"""The worked example of docs/example-adapter keeps the adapter contract."""

import asyncio
import csv
import time
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from recorded import Recorded

from bridge.api import Selection, Trigger
from bridge.testing.contract import AdapterContract, Rig

EXAMPLE = Path(__file__).parents[2] / "docs" / "example-adapter"
COLUMNS = ("reference", "name", "export_kw")


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """The example is its own distribution; here it is imported from its folder."""
    monkeypatch.syspath_prepend(str(EXAMPLE))
    monkeypatch.setenv("PYTHONPATH", str(EXAMPLE))


class CsvRig(Rig):
    library = "smp_bridge_csv.session"

    def __init__(self, directory):
        from smp_bridge_csv import ADAPTER

        self.file, self.results = directory / "export.csv", directory / "results.csv"
        self.adapter = ADAPTER
        self.options = ADAPTER.options.model_validate({"file": self.file, "poll": 0.02, "writable": [self.results]})
        self.selection = Selection(
            flow="batteries",
            trigger=Trigger.CHANGE,
            records=ADAPTER.records.model_validate(
                {"each": "reference", "key": "reference", "fields": {name: name for name in COLUMNS}}
            ),
            submit=ADAPTER.submit[Trigger.CHANGE](),
            outcome=ADAPTER.outcome.model_validate(
                {"file": self.results, "state": "state", "transactionId": "transaction_id"}
            ),
        )
        self.content = {place: {"reference": place, "name": f"Yard {place}", "export_kw": "100"} for place in "AB"}
        self.save()

    def save(self):
        """All at once: the adapter reads the file in a thread meanwhile."""
        new = self.file.with_suffix(".new")
        with new.open("w", newline="") as target:
            writer = csv.DictWriter(target, COLUMNS)
            writer.writeheader()
            writer.writerows(self.content.values())
        new.replace(self.file)

    def places(self):
        return "A", "B"

    def key(self, place):
        return place

    async def request(self, place):
        self.content[place]["export_kw"] += "0"
        self.save()

    async def outcome(self, place):
        with self.results.open() as source:
            row = next(row for row in csv.DictReader(source) if row["place"] == place)
        return {"state": row["state"], "transactionId": row["transaction_id"]}

    async def spoil(self, place):
        self.content[place]["name"] = ""
        self.save()
        return True

    async def stop_peer(self):
        self.file.unlink()

    async def start_peer(self):
        self.save()


class TestExampleAdapter(AdapterContract):
    """Every case of the kit."""

    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path):
        self.directory = tmp_path

    @asynccontextmanager
    async def rig(self):
        yield CsvRig(self.directory)


def test_an_outcome_outside_writable_is_a_problem(tmp_path):
    """`check` finds it before anything starts."""
    rig = CsvRig(tmp_path)
    options = rig.options.model_copy(update={"writable": ()})
    (problem,) = rig.adapter.check(options, [rig.selection])
    assert problem.path == "flows.batteries.outcome.file"


async def test_it_tells_how_often_it_looks(tmp_path):
    """As configured, and the time from one look to the next."""
    rig, recorded = CsvRig(tmp_path), Recorded()
    context = TestExampleAdapter().context(rig)._replace(intervals=recorded)
    started = time.monotonic()
    async with rig.adapter.open(context) as session:
        await session.receive()
        waiting = asyncio.get_running_loop().create_task(session.receive())
        spacings = await recorded.until("poll", 3)
        waiting.cancel()
    assert recorded.said == {"poll": (0.02, None)}
    elapsed = time.monotonic() - started
    assert elapsed >= 4 * 0.02  # a look may be late, and the next one then follows sooner; none comes before its time
    assert 0 < sum(spacings[:3]) <= elapsed - 0.02


class TestTheKitCanFail:
    """The kit catches what it says it catches."""

    async def test_a_library_imported_early_is_caught(self, tmp_path):
        """A rig that calls the already imported `config` its protocol library turns the case red."""

        class Early(AdapterContract):
            @asynccontextmanager
            async def rig(self):
                rig = CsvRig(tmp_path)
                rig.library = "smp_bridge_csv.config"
                yield rig

        with pytest.raises(AssertionError, match="already imports"):
            await Early().test_importing_the_adapter_does_not_import_its_library()
