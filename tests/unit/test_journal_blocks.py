"""The tree and the chain of blocks, against vectors that others published and a second way to compute them."""

import hashlib
import json

import pytest

from bridge.journal.blocks import Block, Event, Range, close, merkle_root

# The test inputs and roots of Certificate Transparency's own reference (RFC 6962 trees).
INPUTS = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
ROOTS = {
    1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    2: "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    3: "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    8: "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
}


def leaf(data: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + data).digest()


def by_the_book(leaves: list[bytes]) -> bytes:
    """RFC 6962 section 2.1, word for word."""
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return hashlib.sha256(b"\x01" + by_the_book(leaves[:k]) + by_the_book(leaves[k:])).digest()


@pytest.mark.parametrize("size", ROOTS)
def test_published_roots(size):
    """The published roots come out."""
    assert merkle_root([leaf(bytes.fromhex(text)) for text in INPUTS[:size]]).hex() == ROOTS[size]


def test_every_small_tree_is_the_recursive_definition():
    """Joining level by level is the same tree as splitting at the largest power of two."""
    leaves = [leaf(bytes([number])) for number in range(70)]
    for size in range(70):
        assert merkle_root(leaves[:size]) == by_the_book(leaves[:size])


def event(number: int, **changes) -> Event:
    values = {
        "participant": "acme",
        "writer": "market:acme",
        "epoch": 1,
        "number": number,
        "at_ns": 1_795_000_000_123_456_789,
        "kind": "SENDING",
        "subject": "s-1",
        "data": '{"a":"ü\\n"}',
        "digest": b"\x01" * 32,
    }
    return Event(**(values | changes))


def test_the_documented_bytes_are_hashed():
    """Anybody can recompute a leaf and a block's hash with a JSON library and SHA-256."""
    one = event(1)
    fields = [*one[:-1], one.digest.hex()]
    text = json.dumps(fields, separators=(",", ":"), ensure_ascii=False)
    assert one.leaf == leaf(text.encode())
    block = close([event(2), one], number=7, previous=b"\x02" * 32, sealed_ns=5)
    header = ["smp-bridge block 1", "id", "acme", 7, "02" * 32, block.root.hex(), 2, one.at_ns, one.at_ns, 5]
    header.append([["market:acme", 1, 1, 2]])
    text = json.dumps(header, separators=(",", ":"))
    assert block.hash("id") == hashlib.sha256(b"\x02" + text.encode()).digest()


def test_the_order_in_a_block_is_by_writer_epoch_and_number():
    """However the events come, the block is the same; its ranges show each hole."""
    events = [
        event(3, writer="b"),
        event(1, writer="b"),
        event(2, writer="a", epoch=2),
        event(9, writer="a"),
        event(2, writer="b"),
        event(5, writer="b"),
    ]
    block = close(events, number=1, previous=b"", sealed_ns=1)
    assert block == close(events[::-1], number=1, previous=b"", sealed_ns=1)
    assert block.ranges == (Range("a", 1, 9, 9), Range("a", 2, 2, 2), Range("b", 1, 1, 3), Range("b", 1, 5, 5))


def test_every_part_of_a_header_is_in_its_hash():
    """No field of a block can be changed without its hash."""
    block = close([event(1)], number=1, previous=b"", sealed_ns=1)
    seen = {block.hash("id"), block.hash("other")}
    changes = {
        "participant": "x",
        "number": 2,
        "previous": b"\x01",
        "root": b"\x01",
        "events": 2,
        "ranges": (),
        "first_ns": 2,
        "last_ns": 2,
        "sealed_ns": 2,
    }
    for field, value in changes.items():
        parts = {name: getattr(block, name) for name in changes}
        seen.add(Block(**(parts | {field: value})).hash("id"))
    assert len(seen) == 2 + len(changes)
