"""How cost grows with the journal: the same bridge on a small journal and on one filled to so many events, in turns; stages, commits, size, start, lists."""

import asyncio
import itertools
import json
import shutil
import subprocess
import sys
import time
import urllib.request
from contextlib import closing
from pathlib import Path
from statistics import median

from compare import split
from figures import Row, percentile
from journal_commits import CLOCK, ROUNDS_FAST, Bench
from peers import mqtt_peer
from rig import BenchFailed, Rig, journal_of
from sites import mqtt_site
from worlds import BRIDGE, running_bridge

from bridge.journal.sqlite import open_journal

SMALL, FULL = "small", "full"
LIVES = 500  # assets whose rows are copied
SITE = "bench"
MOST_GROWTH = 1.2
TURNS = 2  # on each journal for each of `--runs`: the machine is a quarter faster now and then, so few and long turns compare its moods
COMMIT_TURNS = 4
WHOLE = "message → request"
SETTLED_S = 60.0
SCRAPES = 5
LISTED = 2
LISTS = {
    "list": ("list",),
    "list --state IN_DOUBT": ("list", "--state", "IN_DOUBT"),
    "list --participant": ("list", "--participant", "acme-test"),
}  # fmt: skip


async def growth(chosen, world, smp):
    """Rows and raw samples."""
    small, full = (world.directory / f"growth-{name}" for name in (SMALL, FULL))
    async with mqtt_peer(world.directory / "growth") as peer:
        site = {SITE: mqtt_site(peer.port, site=SITE)}
        await lives(world, smp, peer, site, small)
        await filled(small, full, chosen.events)
        rig = GrowthRig(world, smp, peer, site, rate=chosen.rate, seconds=chosen.seconds, warm_s=chosen.warm, burst=0)  # fmt: skip
        runs = []
        for number in range(TURNS * chosen.runs):
            run = {}
            for name in (SMALL, FULL):
                run[name] = await rig.measure(BRIDGE, f"growth-{name}")
                print(f"growth run {number}, {name}: {_summary(run[name])}", flush=True)
            runs.append(run)
    raw = {"runs": runs}
    commits = {SMALL: [], FULL: []}
    for turn in range(COMMIT_TURNS):
        for name, directory in ((SMALL, small), (FULL, full)):
            commits[name] += await _commits(directory, turn * ROUNDS_FAST)
    for name, directory in ((SMALL, small), (FULL, full)):
        raw[name] = {"lists_s": _lists(world, smp, directory), "commits_ms": commits[name], **_size(directory)}
    return _rows(chosen, runs, raw), raw


async def lives(world, smp, peer, site, directory, count=LIVES):
    """A small journal: some assets that were sent, registered by a return, and written back."""
    await smp.ask("reset")
    async with running_bridge(world, directory, site, smp.port, unlimited=True) as bridge:
        await smp.ask("returns", url=await bridge.returns_url())
        await bridge.logged("link_open", 1)
        await asyncio.sleep(0.5)
        await peer.flood(world.new_tag(), count)
        query = "SELECT count(*) FROM writebacks w JOIN items i ON i.id = w.follows WHERE i.outcome = 'registered' AND w.step IN ('written', 'read_back_ok')"
        ends, done = time.monotonic() + SETTLED_S, 0
        with closing(journal_of(directory)) as db:
            while done < count:
                await asyncio.sleep(0.2)
                (done,) = db.execute(query).fetchone()
                if time.monotonic() > ends:
                    raise BenchFailed(f"{directory.name}: {done} of {count} assets were written back")
    await smp.ask("returns", url=None)


async def filled(small, full, events):
    """The full journal: a copy of the small one, filled in a process of its own."""
    full.mkdir()
    for source, target in ((small, full), (_anchors(small), _anchors(full))):
        shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("config", "*.lock", "*.log"))
    shutil.copytree(small / "config", full / "config")
    began = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(Path(__file__).parent / "fill_journal.py"), str(full / "journal.db"), str(events)
    )
    if await process.wait():
        raise BenchFailed("the journal could not be filled")
    print(f"filled to {events} events in {time.monotonic() - began:.0f} s", flush=True)


def _anchors(directory):
    return directory.parent / f"{directory.name}.anchor"


class GrowthRig(Rig):
    """A rig that goes on with the journal that is there, and takes the time of its starts and of its metrics."""

    def __init__(self, world, smp, peer, site, **options):
        super().__init__(world, smp, peer, **options)
        self.site = site

    def started(self, contender, directory, *, probe=None):
        with closing(journal_of(directory)) as db:
            (self.after,) = db.execute("SELECT max(id) FROM items").fetchone()
        return running_bridge(self.world, directory, self.site, self.smp.port, unlimited=True)

    async def began(self, process):
        self.process = process

    async def _first(self, tag, name):
        await self.process.logged("ready", 1)
        self.ready_s = (time.monotonic_ns() - self.process.began_ns) / 1e9
        await super()._first(tag, name)
        file = self.world.directory / name / "first.json"
        await self.smp.ask("dump", file=str(file))
        first_ns = min(create["first_ns"] for create in json.loads(file.read_text()))
        self.start_s = (first_ns - self.process.began_ns) / 1e9

    async def settled(self, directory, received):
        url = f"http://127.0.0.1:{await self.process.listening('admin')}/metrics"
        scrapes = [await asyncio.to_thread(_scrape, url) for _ in range(SCRAPES)]
        return {"ready_s": self.ready_s, "start_s": self.start_s, "scrape_ms": scrapes, "after": self.after}

    async def measure(self, contender, name):
        found = await super().measure(contender, name)
        found["stages_ms"] = {**split(self.world.directory / name, found, self.after), WHOLE: found["latencies_ms"]}
        return found


def _scrape(url):
    began = time.perf_counter()
    with urllib.request.urlopen(url, timeout=60) as answer:
        answer.read()
    return (time.perf_counter() - began) * 1000


def _lists(world, smp, directory):
    """Seconds of each list on the command line, the best of a few: what the journal costs, not what the machine does beside it."""
    command = [str(Path(sys.executable).parent / "smp-bridge"), "submissions"]
    environment = world.environment(directory, smp.port)
    found = {}
    for name, arguments in LISTS.items():
        times = []
        for _ in range(LISTED):
            began = time.perf_counter()
            subprocess.run(
                [*command, *arguments, "--config", str(directory / "config")],
                env=environment, check=True, stdout=subprocess.DEVNULL, timeout=600,
            )  # fmt: skip
            times.append(time.perf_counter() - began)
        found[name] = min(times)
    return found


async def _commits(directory, first):
    """Milliseconds of single commits by the journal alone, of records that nobody has seen, counted from `first`."""
    ids = itertools.count()
    journal = await open_journal(directory / "journal.db", clock=CLOCK, role="bench", new_id=lambda: f"id-{next(ids)}")
    bench = Bench(journal, CLOCK, first)
    await bench.start()
    times = [await bench.accept_fast() for _ in range(ROUNDS_FAST)]
    await journal.close()
    return times


def _size(directory):
    with closing(journal_of(directory)) as db:
        (events,) = db.execute("SELECT count(*) FROM events").fetchone()
        (items,) = db.execute("SELECT count(*) FROM items").fetchone()
    size = (directory / "journal.db").stat().st_size
    return {"events": events, "items": items, "bytes": size}


def _summary(found):
    text = f"ready {found['ready_s']:.2f} s, first record {found['start_s']:.2f} s, metrics {median(found['scrape_ms']):.1f} ms, {found['resident_mb']:.0f} MB"
    for stage, values in found["stages_ms"].items():
        text += f"\n      {stage}: p50 {percentile(values, 0.5):.2f}, p99 {percentile(values, 0.99):.2f}"
    return text


def _rows(chosen, runs, raw):
    full = raw[FULL]
    rows = [
        Row(figure="journal filled to", value=f"{full['events']} events, {full['items']} assets, {full['bytes'] / 1e6:.0f} MB", goal="reported"),
        Row(figure="journal, bytes per event", value=f"{full['bytes'] / full['events']:.0f}", goal="reported"),
    ]  # fmt: skip
    for stage in runs[0][FULL]["stages_ms"]:
        rows.append(_grown(f"{stage}, p99 ms", [_of_all_turns(runs, stage, 0.99)], goal=MOST_GROWTH))
    rows.append(_grown(f"{WHOLE}, p50 ms", [_of_all_turns(runs, WHOLE, 0.5)]))
    commits = [(percentile(raw[FULL]["commits_ms"], share), percentile(raw[SMALL]["commits_ms"], share)) for share in (0.5, 0.99)]  # fmt: skip
    rows += [_grown("one commit, p50 ms", commits[:1]), _grown("one commit, p99 ms", commits[1:], goal=MOST_GROWTH)]
    steady = (("CPU ms per 1000 records", "cpu_ms"), ("start → ready, s", "ready_s"), ("start → first record, s", "start_s"), ("resident MB", "resident_mb"))  # fmt: skip
    for what, name in steady:
        rows.append(_grown(what, [(run[FULL][name], run[SMALL][name]) for run in runs]))
    scrapes = [(median(run[FULL]["scrape_ms"]), median(run[SMALL]["scrape_ms"])) for run in runs]
    rows.append(_grown("/metrics, ms", scrapes))
    rows += [
        _grown(f"submissions {name}, s", [(raw[FULL]["lists_s"][name], raw[SMALL]["lists_s"][name])]) for name in LISTS
    ]
    return rows


def _of_all_turns(runs, stage, share):
    """This percentile of all records of all turns, on the full journal and on the small one."""
    full, small = ([ms for run in runs for ms in run[name]["stages_ms"][stage]] for name in (FULL, SMALL))
    return percentile(full, share), percentile(small, share)


def _grown(what, pairs, goal=None):
    """One figure on the full journal beside the small one; the ratio is the median of the runs' ratios."""
    full, small = (median(pair[index] for pair in pairs) for index in (0, 1))
    ratio = median(pair[0] / pair[1] for pair in pairs)
    return Row(
        figure=f"growth: {what}", value=f"{full:.2f}", floors=f"{small:.2f} (small)", ratio=f"{ratio:.2f} ×",
        goal=f"≤ {goal} ×" if goal else "reported", met=ratio <= goal if goal else None,
    )  # fmt: skip
