"""New ids: random for messages, sortable by time for submissions."""

import secrets
import uuid
from collections.abc import Callable

from bridge.clock import Clock


def new_message_id() -> str:
    """A random UUID, the form of DOMAIN 4."""
    return str(uuid.uuid4())


def submission_ids(clock: Clock) -> Callable[[], str]:
    """Ids that sort by time and never repeat: `s-` with 12 hex digits of UTC milliseconds and 8 random ones."""
    return lambda: f"s-{clock.wall_ns() // 1_000_000:012x}{secrets.token_hex(4)}"
