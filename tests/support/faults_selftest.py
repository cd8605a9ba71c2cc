"""`make faults-selftest`: plants one defect at a time; the fault table must turn red for each, and stays green without one.

Each run is a pytest of its own with the defect's name in the environment, which only test code reads (kill_plants.py, tests/faults/test_power.py).
"""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "SMP_BRIDGE_PLANT"
FAULTS = Path(__file__).parents[1] / "faults"
FAILED = 1  # pytest: tests ran, and some failed
LIMIT_S = 1200
KILL, POWER = "test_kill.py", "test_power.py"


@dataclass(frozen=True)
class Trial:
    """A defect, the tests that have to find it, and the column that tells of it ('' = any red row)."""

    plant: str
    file: str
    points: str = ""
    rounds: int = 0
    column: str = ""

    @property
    def command(self) -> list[str]:
        found = [str(FAULTS / self.file), "-m", "not long"]
        if self.points:
            found += ["--fault-points", self.points, "--fault-rounds", str(self.rounds)]
        return found


POINTS = "received,half-sent,sent,write-journalled"
TRIALS = (
    Trial("", KILL, POINTS, 4),
    Trial("", POWER),
    Trial("acknowledge-before-commit", KILL, "received", 4, "lost"),
    Trial("resend-in-doubt", KILL, "sent", 3, "twice"),
    Trial("lost-write-back", KILL, "write-journalled", 6, "lost"),
    Trial("synchronous-off", POWER),
)


def run(trial: Trial) -> tuple[bool, str]:
    """Whether the trial went as it must, and one line about it."""
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "rows.json"
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", *trial.command, "--fault-report", str(report)],
            env={**os.environ, VARIABLE: trial.plant}, capture_output=True, text=True, timeout=LIMIT_S, check=False,
        )  # fmt: skip
        rows = json.loads(report.read_text()) if report.exists() else []
    red = [row for row in rows if row["red"]]
    if not trial.plant:
        good = done.returncode == 0 and bool(rows) and not red
    else:
        told = [row for row in red if row.get(trial.column, 1)]
        good = done.returncode == FAILED and bool(told)
    if not good:
        print(done.stdout[-6000:], done.stderr[-2000:])
    shown = "; ".join(f"{row['fault']}: lost {row['lost']}, twice {row['twice']}" for row in red)
    return good, shown or ("green" if done.returncode == 0 else f"no row is red; pytest ended with {done.returncode}")


def main() -> int:
    failed = 0
    for trial in TRIALS:
        good, shown = run(trial)
        failed += not good
        verdict = "ok     " if good else "MISSED "
        print(f"{verdict} {trial.plant or 'nothing planted':26} {trial.file:14} {shown}", flush=True)
    print("every planted defect turned the table red" if not failed else f"{failed} trials did not go as they must")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
