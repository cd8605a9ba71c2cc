"""Ids that the host makes."""

import uuid

from bridge.clock import SystemClock
from bridge.ids import new_message_id, submission_ids


def test_a_message_id_is_a_random_uuid():
    """RFC 9562 sections 4.1 and 5.4, in the spelling of section 4; every variant digit comes, and none twice."""
    made = [new_message_id() for _ in range(2000)]
    read = [uuid.UUID(text) for text in made]
    assert {(one.version, one.variant) for one in read} == {(4, uuid.RFC_4122)}
    assert [str(one) for one in read] == made
    assert len(set(made)) == 2000
    assert {text[19] for text in made} == set("89ab")


def test_submission_ids_sort_by_time():
    """And two of the same millisecond differ."""
    new = submission_ids(SystemClock.here())
    made = [new() for _ in range(100)]
    assert [text[:14] for text in made] == sorted(text[:14] for text in made)
    assert len(set(made)) == 100
    assert {len(text) for text in made} == {22}
