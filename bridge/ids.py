"""New ids: random for messages, sortable by time for submissions."""

import os
from collections.abc import Callable
from typing import Final

from bridge.clock import Clock

_VARIANT: Final = {f"{number:x}": "89ab"[number & 3] for number in range(16)}


def new_message_id() -> str:
    """A random UUID (RFC 9562 section 5.4), the form of DOMAIN 4. Made by hand, for the library's takes several calls of Python's for each message."""
    digits = os.urandom(16).hex()
    variant = _VARIANT[digits[16]]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


def first_submission_id(wall_ns: int) -> str:
    """What no id of `submission_ids` made at this moment (UTC ns) or later sorts before."""
    return f"s-{min(max(wall_ns, 0) // 1_000_000, 16**12 - 1):012x}"


def submission_ids(clock: Clock) -> Callable[[], str]:
    """Ids that sort by time and never repeat: `s-` with 12 hex digits of UTC milliseconds and 8 random ones."""
    return lambda: f"s-{clock.wall_ns() // 1_000_000:012x}{os.urandom(4).hex()}"
