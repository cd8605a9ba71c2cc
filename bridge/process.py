"""What a process of the bridge asks of Python itself, so that one record's way never waits for it."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

SWITCH_S: Final = 0.0002  # how long the loop waits while a thread of the journal computes: Python's own 5 ms stood in every record's way


LOADED_S: Final = 5.0  # after the start: the sites' links are open, or wait for their EMS


@contextmanager
def calm_imports() -> Iterator[None]:
    """While modules are imported nothing becomes garbage, and each search for it (a tenth of the time) finds that."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def calm() -> None:
    """Once everything is loaded: short waits between threads, and no search for garbage among what stays anyway (50 ms, in which everything stands)."""
    sys.setswitchinterval(SWITCH_S)
    gc.collect()
    gc.freeze()


def keep_loaded() -> None:
    """The same for what was loaded since, such as the libraries of the protocols (20 ms); without another search, for records are on their way by now."""
    gc.freeze()
