"""What a process of the bridge asks of Python itself, so that one record's way never waits for it."""

import gc
import sys
from typing import Final

SWITCH_S: Final = 0.0002  # how long the loop waits while a thread of the journal computes: Python's own 5 ms stood in every record's way


def calm() -> None:
    """Once everything is loaded: short waits between threads, and no search for garbage among what stays anyway (50 ms, in which everything stands)."""
    sys.setswitchinterval(SWITCH_S)
    gc.collect()
    gc.freeze()
