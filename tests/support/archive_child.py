"""Archives a journal until it is killed: `main(JOURNAL, ARCHIVE)`. Prints one line when it begins, so that whoever kills it knows."""

import itertools
from pathlib import Path

from bridge.clock import SystemClock
from bridge.journal import archiver
from bridge.journal.archiver import Archiver, ArchiverSettings
from bridge.journal.sqlite import open_journal

archiver._SEGMENT_BYTES = 300_000  # many files, so that a kill falls between any two steps


async def main(path: Path, directory: Path) -> None:
    clock, ids = SystemClock.here(), itertools.count()
    journal = await open_journal(path, clock=clock, role="cli", new_id=lambda: f"child-{next(ids)}")
    settings = ArchiverSettings(directory=directory, after_s=0)
    worker = Archiver(settings, evidence=journal.evidence(), journal=journal, clock=clock)
    print("begins", flush=True)
    await worker.archive(0)
    await journal.close()
