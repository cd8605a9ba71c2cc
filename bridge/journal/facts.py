"""Facts: what held for a participant's calls while a process ran (profile, keys, certificates, versions), noted once a start and only when it changed."""

import hashlib
from collections.abc import Mapping
from typing import Final

import orjson

from bridge.journal.port import Fence
from bridge.journal.store import Tx

FACTS: Final = "facts"  # the kind of the event, and its subject


def note(tx: Tx, fence: Fence, participant: str, facts: Mapping[str, object]) -> bool:
    """Append the facts as evidence, unless the last ones say the same; whether they were appended. They hold until the next ones."""
    tx.check(fence)
    content = orjson.dumps(facts, option=orjson.OPT_SORT_KEYS)
    digest = hashlib.sha256(content).hexdigest()
    row = tx.one(
        "SELECT data FROM events WHERE subject = ? AND participant = ? ORDER BY id DESC LIMIT 1", (FACTS, participant)
    )
    if row is not None and orjson.loads(row[0]).get("sha256") == digest:
        return False
    tx.event(fence, participant, FACTS, FACTS, {"sha256": digest}, blob=tx.blob(participant, content))
    return True
