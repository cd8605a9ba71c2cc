"""What the clock's discipline says, and what follows from it."""

import asyncio
import ctypes
import logging
import math
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ntp_server import chronyd

from bridge.clock import Stamp
from bridge.discipline import Chrony, ClockWatch, Discipline, Judge, Kernel, Limits, SigningGate, unknown
from bridge.discipline.chrony import LONGEST, tracking_report
from bridge.discipline.judge import MOST_MISSES
from bridge.discipline.kernel import STA_NANO, STA_UNSYNC, TIME_ERROR, Timex, kernel_report
from bridge.errors import JournalFull
from bridge.metrics import Metrics
from bridge.reports import MarketReport, date_offset_s

GOOD = "7F000001,127.0.0.1,2,1795633968.487796515,-0.250000000,-0.000002746,0.000004066,-106.484,-23.761,164.855,0.020000000,0.005000000,64.2,Normal\n"


# ------------------------------------------------------------------------------------------------------- the kernel


@pytest.mark.parametrize(
    ("state", "status", "synchronised"),
    [(0, 0x0001, True), (0, STA_NANO, True), (5, STA_UNSYNC, False), (0, STA_UNSYNC, False), (TIME_ERROR, 0x1000, False), (1, 0x0010, True)],
    ids=["locked", "nano", "never set", "flag alone", "hardware fault", "leap second ahead"],
)  # fmt: skip
def test_whether_the_kernel_is_synchronised(state, status, synchronised):
    """Either word of it is enough: the state TIME_ERROR or the flag STA_UNSYNC."""
    report = kernel_report(state=state, status=status, offset=0, left_us=0, max_error_us=1000)
    assert (report.synchronised, bool(report.detail), report.known) == (synchronised, not synchronised, True)


@pytest.mark.parametrize(
    ("status", "offset", "left_us", "seconds"),
    [
        (0, 250_000, 0, 0.25),
        (0, -250_000, 0, -0.25),
        (STA_NANO, 250_000, 0, 0.00025),
        (STA_NANO, -500_000_000, 0, -0.5),
        (0, 0, 3_000_000, 3.0),
        (STA_NANO, 1_000_000, -2_001_000, -2.0),
    ],
)
def test_the_kernels_offset(status, offset, left_us, seconds):
    """Microseconds, or nanoseconds under STA_NANO; what an adjtime(3) has left is added, in microseconds always."""
    report = kernel_report(state=0, status=status, offset=offset, left_us=left_us, max_error_us=16_000_000)
    assert (report.offset_s, report.max_error_s) == (pytest.approx(seconds), 16.0)


async def test_this_machines_kernel():
    """The real system call, without privileges: figures in the kernel's own bounds, the clock itself untouched, nothing slow."""
    took = []
    for _ in range(5):
        began = time.perf_counter()
        report = await Kernel().read()
        took.append(time.perf_counter() - began)
    assert report.known, report.detail
    assert 0 <= report.max_error_s <= 16.1  # NTP_PHASE_LIMIT, at which the kernel calls itself unsynchronised
    assert math.isfinite(report.offset_s)
    assert min(took) < 0.05  # the others may have met a busy machine
    if not report.synchronised:
        assert "synchronises" in report.detail


def test_the_head_of_timex_is_where_the_kernels_is(tmp_path):
    """The offsets of the fields that are read, as C has them on a machine of 64 bits."""
    if ctypes.sizeof(ctypes.c_long) != 8:
        pytest.fail("these figures are those of 64 bits")
    found = {name: getattr(Timex, name).offset for name in ("offset", "maxerror", "esterror", "status")}
    assert found == {"offset": 8, "maxerror": 24, "esterror": 32, "status": 40}
    assert ctypes.sizeof(Timex) >= 208  # sizeof(struct timex)


async def test_a_system_without_the_call_is_not_known(monkeypatch):
    """No adjtimex in the C library (macOS), or a sandbox that forbids it: unknown, with the reason."""
    kernel = Kernel()
    monkeypatch.setattr(kernel, "_libc", object())
    report = await kernel.read()
    assert (report.known, report.offset_s, report.detail) == (False, None, "this system has no adjtimex(2)")

    class Forbids:
        @staticmethod
        def adjtimex(_):
            ctypes.set_errno(1)
            return -1

    monkeypatch.setattr(kernel, "_libc", Forbids)
    assert (await kernel.read()).detail == "adjtimex: Operation not permitted"


# ---------------------------------------------------------------------------------------------------------- chrony


def test_a_line_of_tracking():
    """The correction still to be made (positive: slow), and the greatest error: correction, dispersion and half the delay."""
    report = tracking_report(GOOD.encode())
    assert (report.synchronised, report.offset_s, report.detail) == (True, -0.25, "")
    assert report.max_error_s == pytest.approx(0.25 + 0.005 + 0.01)
    assert tracking_report(GOOD.replace("Normal", "Insert second").encode()).synchronised is True


def test_a_warning_beside_the_line():
    """chronyc's own warnings stand on the same stream."""
    assert tracking_report(b"Could not open /etc/chrony.keys\n" + GOOD.encode()) == tracking_report(GOOD.encode())


def test_tracking_without_a_source():
    """chronyd answers and follows nobody: known, and not synchronised."""
    line = "00000000,,0,0.000000000,0.000000000,0.000000000,0.000000000,0.000,0.000,0.000,1.000000000,1.000000000,0.0,Not synchronised\n"
    report = tracking_report(line.encode())
    assert (report.known, report.synchronised, report.offset_s) == (True, False, 0.0)


@pytest.mark.parametrize(
    ("said", "detail"),
    [
        (b"", "chronyc says: nothing"),
        (b"\n\n", "chronyc says: nothing"),
        (b"506 Cannot talk to daemon\n", "chronyc says: 506 Cannot talk to daemon"),
        (GOOD.replace(",Normal", "").encode(), "chronyc says: 7F000001"),
        (GOOD.replace("Normal", "Sideways").encode(), "chronyc says: 7F000001"),
        (GOOD.encode() * 2, "chronyc says: 7F000001"),
        (GOOD.replace("-0.250000000", "fast").encode(), "chronyc gives figures that are none"),
        (GOOD.replace("-0.250000000", "nan").encode(), "chronyc gives figures that are none"),
        (GOOD.replace("0.005000000", "inf").encode(), "chronyc gives figures that are none"),
        (b"\xff\x00\x1b[31m" * 100, "chronyc says: "),
        (b"," * 13, "chronyc says: "),
    ],
)
def test_tracking_that_is_none(said, detail):
    """Whatever else is printed is not known: never a guess, never an exception, and shown on one short line."""
    report = tracking_report(said)
    assert (report.known, report.offset_s) == (False, None)
    assert report.detail.startswith(detail)
    assert report.detail.isprintable()
    assert len(report.detail) < 300


def script(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


async def test_chronyc_is_asked_for_tracking(tmp_path):
    """In the form that programs read."""
    program = script(tmp_path / "chronyc", f'[ "$*" = "-c tracking" ] && printf "%s" "{GOOD}"')
    assert await Chrony(program).read() == tracking_report(GOOD.encode())


async def test_chronyc_that_is_not_there(tmp_path):
    """A missing or forbidden program is said by its name."""
    report = await Chrony(str(tmp_path / "chronyc")).read()
    assert (report.known, report.detail) == (False, f"cannot start {tmp_path}/chronyc: No such file or directory")
    (tmp_path / "plain").write_text("")
    assert "Permission denied" in (await Chrony(str(tmp_path / "plain")).read()).detail


def alive(pid):
    """Whether a process still runs; one that is only still to be reaped does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


async def gone(pid_file):
    async with asyncio.timeout(5):
        while alive(int(pid_file.read_text())):
            await asyncio.sleep(0.02)


async def test_chronyc_that_does_not_answer(tmp_path):
    """It is ended after its time, together with what it started, and the reading is not known."""
    program = script(tmp_path / "chronyc", f"sleep 60 & echo $! > {tmp_path}/pid; wait")
    began = time.monotonic()
    report = await Chrony(program, timeout_s=1.0).read()
    assert (report.known, report.detail) == (False, f"{program} did not answer within 1 s")
    assert time.monotonic() - began < 4
    await gone(tmp_path / "pid")


async def test_chronyc_that_prints_without_end(tmp_path):
    """No more is kept than an answer may have, and it is ended at once."""
    program = script(tmp_path / "chronyc", f"echo $$ > {tmp_path}/pid; exec yes {'y' * 200}")
    began = time.monotonic()
    report = await Chrony(program).read()
    assert not report.known
    assert time.monotonic() - began < 4
    await gone(tmp_path / "pid")
    assert LONGEST <= 4096


async def test_a_stop_ends_chronyc(tmp_path):
    """Cancelled in the middle of a reading, nothing is left behind."""
    program = script(tmp_path / "chronyc", f"echo $$ > {tmp_path}/pid; exec sleep 60")
    reading = asyncio.get_running_loop().create_task(Chrony(program).read())
    async with asyncio.timeout(5):
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            await asyncio.sleep(0.01)
    reading.cancel()
    await asyncio.wait({reading}, timeout=5)
    assert reading.cancelled()
    await gone(tmp_path / "pid")


@pytest.mark.parametrize("ahead_s", [3.0, -3.0, 0.0])
async def test_a_real_chronyd(tmp_path, ahead_s):
    """chronyd follows a server whose clock is ahead (we are behind: positive), behind, or right."""
    async with chronyd(tmp_path, ahead_s=ahead_s) as program:
        chrony = Chrony(str(program))
        async with asyncio.timeout(30):
            while not (report := await chrony.read()).synchronised:
                assert report.known or report.detail, report
                await asyncio.sleep(0.1)
    assert report.offset_s == pytest.approx(ahead_s, abs=0.2)
    assert report.max_error_s >= abs(report.offset_s)


async def test_a_real_chronyd_without_a_server(tmp_path):
    """It answers, and says that it follows nobody; once it has ended, nothing is known."""
    async with chronyd(tmp_path) as program:
        report = await Chrony(str(program)).read()
        assert (report.known, report.synchronised, report.offset_s) == (True, False, pytest.approx(0.0, abs=0.01))
    report = await Chrony(str(program)).read()
    assert (report.known, report.offset_s) == (False, None)
    assert report.detail.startswith("chronyc says: ")
    assert "nothing" not in report.detail


# -------------------------------------------------------------------------------------------- what follows from it


def reading(offset_s, *, synchronised=True):
    return Discipline(source="kernel", synchronised=synchronised, offset_s=offset_s, max_error_s=0.1)


def judged(*readings, limits=Limits()):  # noqa: B008 - frozen
    judge = Judge(limits)
    standings = [judge.take(each) for each in readings]
    return [(standing.held, standing.far, standing.adrift) for standing in standings]


@pytest.mark.parametrize(
    ("offset_s", "held", "far"),
    [(0.0, False, False), (0.1, False, False), (0.1001, False, True), (2.0, False, True), (2.001, True, True), (-2.001, True, True), (86_400.0, True, True)],
)  # fmt: skip
def test_the_limits(offset_s, held, far):
    """Over 100 ms a person hears of it, over 2 s nothing is signed, either way; the limits themselves are still good."""
    assert judged(reading(offset_s)) == [(held, far, False)]


def test_an_unsynchronised_clock_holds_nothing_by_itself():
    """Only a reported offset does."""
    assert judged(reading(0.0, synchronised=False)) == [(False, False, True)]
    assert judged(reading(3.0, synchronised=False)) == [(True, True, True)]
    assert judged(unknown("kernel", "no")) == [(False, False, True)]


def test_the_alarm_ends_at_half_its_limit():
    """An offset beside the limit raises one row, not one at each look."""
    found = judged(*(reading(offset) for offset in (0.11, 0.09, 0.11, 0.06, 0.05, 0.09)))
    assert [far for _, far, _ in found] == [True, True, True, True, False, False]


def test_a_hold_ends_at_once_within_the_limit():
    """Nothing waits longer than it must."""
    assert [held for held, _, _ in judged(reading(2.1), reading(2.0), reading(2.1))] == [True, False, True]


def test_a_reading_that_fails_neither_holds_nor_frees():
    """The last good one counts a little longer; then nothing is known, and the business goes on. A good one starts anew."""
    lost = unknown("chrony", "no answer")
    found = judged(reading(3.0), *[lost] * (MOST_MISSES + 1), reading(0.0), lost)
    assert [held for held, _, _ in found] == [*[True] * (MOST_MISSES + 1), False, False, False]
    assert [adrift for _, _, adrift in found] == [*[False] * (MOST_MISSES + 1), True, False, False]


def test_the_gate_wakes_when_it_opens_and_only_then():
    """Each that waits, once for each opening."""
    gate, woken = SigningGate(), []
    gate.on_open(lambda: woken.append("one"))
    gate.on_open(lambda: woken.append("two"))
    for held in (False, True, True):
        gate.set(held=held)
    assert (gate.held, woken) == (True, [])
    for held in (False, False):
        gate.set(held=held)
    assert (gate.held, woken) == (False, ["one", "two"])


class Said:
    """A source that says these, one after the other, the last one again and again."""

    name = "kernel"

    def __init__(self, *readings):
        self.readings = list(readings)

    async def read(self):
        return self.readings.pop(0) if len(self.readings) > 1 else self.readings[0]


class Book:
    """The journal's part of it: which alarms are written; `full` says how often there is no room first."""

    def __init__(self, *standing, full=0):
        self.standing = [type("Count", (), {"code": code}) for code in standing]
        self.full = full
        self.written = []

    async def alarm_counts(self):
        return self.standing

    async def alarm(self, code, *, text="", clear=False):
        if self.full:
            self.full -= 1
            raise JournalFull("no room")
        self.written.append((code, clear, text))


async def watched(source, book, until):
    """A watch that looks without a pause, until this holds."""
    watch = ClockWatch(source, limits=Limits(), every_s=0.0, gate=SigningGate(), seen=lambda _: None, journal=book)
    await watch.look()
    task = asyncio.get_running_loop().create_task(watch.run())
    try:
        async with asyncio.timeout(5):
            while not until():
                await asyncio.sleep(0)
            for _ in range(20):
                await asyncio.sleep(0)
        if task.done():
            task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    return [(code, "clear" if clear else "raise") for code, clear, _ in book.written]


async def test_alarms_are_written_at_changes_alone():
    """Told, held told anew, and cleared: three rows' worth for ten looks; and what nobody raised is not cleared."""
    readings = [0.5, 0.5, 0.6, 3.0, 3.1, 2.9, 0.5, 0.0, 0.0]
    book = Book()
    found = await watched(Said(*map(reading, readings)), book, lambda: any(clear for _, clear, _ in book.written))
    assert found == [("CLOCK_OFFSET", "raise")] * 3 + [("CLOCK_OFFSET", "clear")]
    assert [text.split("; ")[-1] for _, clear, text in book.written if not clear] == [
        "signing goes on", "nothing is signed until it is within 2 s", "signing goes on",
    ]  # fmt: skip


async def test_a_good_start_writes_nothing():
    """No commit for an alarm that does not stand."""
    source, book = Said(*[reading(0.0)] * 5), Book("STUCK")
    assert await watched(source, book, lambda: len(source.readings) == 1) == []


async def test_what_an_earlier_run_left_is_cleared():
    """With a source that finds all well, and with none at all."""
    for source in (Said(reading(0.0)), None):
        book = Book("CLOCK_OFFSET", "CLOCK_UNSYNCHRONISED")
        found = await watched(source, book, lambda book=book: len(book.written) == 2)
        assert found == [("CLOCK_OFFSET", "clear"), ("CLOCK_UNSYNCHRONISED", "clear")]


async def test_a_full_journal_hears_of_it_later():
    """The alarm is not lost, and the watch goes on."""
    book = Book(full=3)
    found = await watched(Said(reading(3.0, synchronised=False)), book, lambda: len(book.written) == 2)
    assert found == [("CLOCK_OFFSET", "raise"), ("CLOCK_UNSYNCHRONISED", "raise")]


async def test_changes_are_logged_and_nothing_else(caplog):
    """One line when signing is held, one when it is not any more; none for each look."""
    caplog.set_level(logging.INFO, "bridge.discipline")
    book = Book()
    readings = [*[0.0] * 3, *[3.0] * 3, *[0.0] * 3]
    await watched(Said(*map(reading, readings)), book, lambda: any(clear for _, clear, _ in book.written))
    events = [record.message for record in caplog.records if record.name.startswith("bridge.discipline")]
    assert events == ["signing_not_held", "clock_synchronised", "signing_held", "signing_not_held"]


# ------------------------------------------------------------------------------------------------------- SMP's Date

NOON_NS = 1_764_072_000 * 10**9  # 2025-11-25 12:00:00 UTC


@pytest.mark.parametrize(
    ("date", "offset_s"),
    [
        ("Tue, 25 Nov 2025 12:00:00 GMT", 0.5),
        ("Tue, 25 Nov 2025 12:10:00 GMT", 600.5),
        ("Tue, 25 Nov 2025 11:00:00 GMT", -3599.5),
        ("Tue, 25 Nov 2025 12:00:00 -0000", 0.5),
        ("Tuesday, 25-Nov-25 12:00:00 GMT", 0.5),
        ("yesterday", None),
        ("", None),
        ("Tue, 25 Nov 99999999999999999999 12:00:00 GMT", None),
        ("Tue, 32 Nov 2025 12:00:00 GMT", None),
        ("Tue, 25 Nov 2025 12:00:00 +999999999999", None),
    ],
)
def test_a_date_header(date, offset_s):
    """The middle of the second that it names, less our time; what is none is none, whoever sends it."""
    assert date_offset_s(date, NOON_NS) == offset_s


def test_the_date_is_shown_per_participant():
    """A bad header leaves the last figure as it was, and no header is no figure."""
    metrics = Metrics()
    report, at = MarketReport(metrics), Stamp(NOON_NS, 0, "")
    report.smp_date("quiet", "", at)
    report.smp_date("acme", "Tue, 25 Nov 2025 12:00:07 GMT", at)
    report.smp_date("acme", "rubbish", at)
    shown = [line for line in metrics.render().decode().splitlines() if line.startswith("smp_bridge_smp_date")]
    assert shown == ['smp_bridge_smp_date_offset_seconds{participant="acme"} 7.5']


def test_reading_needs_no_rights():
    """The kernel's discipline is read by a process that is nobody, as the service should be."""
    code = (
        "import asyncio, os; from bridge.discipline import Kernel\n"
        "os.getuid() or (os.setgroups([]), os.setgid(65534), os.setuid(65534))\n"
        "report = asyncio.run(Kernel().read())\n"
        "print(os.getuid() > 0, report.known, report.detail)"
    )
    ran = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60)
    assert ran.stdout.startswith("True True"), (ran.stdout, ran.stderr)
