"""Sealing: everything that is appended is closed into blocks, once, in a chain; and the anchor tells an older journal from the present one."""

import dataclasses

from bridge.errors import Fenced
from bridge.journal import blocks, sealing
from bridge.journal.anchor import AnchorVerdict, current, parse


async def sealed(kit, fence=None):
    """Seal until nothing is left; how many events that were."""
    fence = fence or await kit.journal.acquire(sealing.SEALER)
    evidence, events = kit.journal.evidence(), 0
    while step := (await evidence.seal(fence)).events:
        events += step
    return events


async def chain(kit, participant="acme"):
    return await kit.journal.evidence().read(lambda rows: sealing.stored_blocks(rows, participant, 1, 1000))


async def count(kit):
    return await kit.journal.evidence().read(lambda rows: rows.all("SELECT count(*) FROM events")[0][0])


async def test_every_event_is_sealed_once_in_a_chain(kit):
    """Blocks hold every event, name the block before, and a second round finds nothing."""
    for number in range(5):
        await kit.accept(*(kit.asset(f"A{number}-{part}") for part in range(3)))
        await kit.accept(kit.asset(f"B{number}", participant="other"))
        assert await sealed(kit) == 2
    assert await sealed(kit) == 0
    journal = await kit.journal.evidence().read(sealing.identity)
    for participant in ("acme", "other"):
        found = await chain(kit, participant)
        assert [stored.block.number for stored in found] == [1, 2, 3, 4, 5]
        assert [stored.block.previous for stored in found] == [b"", *(stored.hash for stored in found[:-1])]
        assert all(stored.hash == stored.block.hash(journal) for stored in found)
        assert sum(stored.block.events for stored in found) == 5


async def test_a_block_is_over_exactly_its_events(kit):
    """Its root can be recomputed from the rows that its ranges name, and any other content has another root."""
    await kit.accept(*(kit.asset(f"A{part}") for part in range(3)))
    await kit.accept(kit.asset(None, content=""), kit.asset("A9"))
    await sealed(kit)
    (stored,) = await chain(kit)
    events = await kit.journal.evidence().read(lambda rows: sealing.events_of(rows, stored.block))
    again = blocks.close(events, number=1, previous=b"", sealed_ns=stored.block.sealed_ns)
    assert again == stored.block
    for field, value in (("data", "{}"), ("kind", "x"), ("at_ns", 1), ("subject", "x"), ("digest", None)):
        changed = [events[0]._replace(**{field: value}), *events[1:]]
        assert blocks.merkle_root([event.leaf for event in changed]) != stored.block.root


async def test_many_events_take_several_short_steps(kit):
    """A step stays small however much there is, and the blocks' ranges follow one another without a hole."""
    for number in range(700):
        await kit.accept(kit.asset(f"A{number}"))
    fence = await kit.journal.acquire(sealing.SEALER)
    sizes = []
    while step := (await kit.journal.evidence().seal(fence)).events:
        sizes.append(step)
    assert sum(sizes) == await count(kit)
    assert max(sizes) <= 320
    ranges = [found for stored in await chain(kit) for found in stored.block.ranges]
    assert [(found.first, found.last) for found in ranges] == list(
        zip([1, *(found.last + 1 for found in ranges[:-1])], [found.last for found in ranges], strict=True)
    )


async def test_an_older_owner_seals_nothing(kit):
    """Whoever lost the lease writes no block."""
    old = await kit.journal.acquire(sealing.SEALER)
    await kit.journal.acquire(sealing.SEALER)
    await kit.accept(kit.asset("A"))
    try:
        await kit.journal.evidence().seal(old)
    except Fenced:
        pass
    else:
        raise AssertionError("the older owner sealed")
    assert await chain(kit) == []


async def test_two_drafts_of_the_same_events_are_one_block(kit):
    """What was drafted before somebody else sealed is thrown away."""
    fence = await kit.journal.acquire(sealing.SEALER)
    await kit.accept(kit.asset("A"))
    evidence = kit.journal.evidence()
    first, second = [await evidence.read(lambda rows: sealing.draft(rows, 1)) for _ in range(2)]
    assert await evidence.write(lambda tx: sealing.seal(tx, fence, first))
    assert not await evidence.write(lambda tx: sealing.seal(tx, fence, second))
    assert len(await chain(kit)) == 1


async def test_a_hole_in_the_numbers_raises_an_alarm(kit):
    """Events that are gone before they were sealed are told, and sealing goes on."""
    for number in range(5):
        await kit.accept(kit.asset(f"A{number}"))
    await kit.journal.evidence().write(lambda tx: tx.run("DELETE FROM events WHERE number IN (2, 3)"))
    assert await sealed(kit) == 3
    (alarm,) = [alarm for alarm in await kit.journal.alarms() if alarm.code == "EVIDENCE_GAP"]
    assert alarm.text == "field:north/1: events 2 to 3 missing"
    (stored,) = await chain(kit)
    assert [found[2:] for found in stored.block.ranges] == [(1, 1), (4, 5)]


async def test_an_event_with_a_lower_id_that_came_later_is_sealed_too(kit):
    """Another owner's event may appear behind the cursor (engines with several writers); the next one of that owner brings it in."""
    for number in range(3):
        await kit.accept(kit.asset(f"A{number}"))
    evidence = kit.journal.evidence()
    columns = "id, participant, writer, epoch, number, at_ns, kind, subject, data"

    def take(tx):
        (row,) = tx.all(f"SELECT {columns} FROM events WHERE number = 3")
        tx.run("DELETE FROM events WHERE number = 3")
        return row

    await kit.journal.park_return(kit.market, kit.returned())  # a neighbour's, sealed first
    late = await evidence.write(take)
    assert await sealed(kit) == 3
    await evidence.write(lambda tx: tx.run(f"INSERT INTO events ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", late))
    await kit.accept(kit.asset("A4"))
    assert await sealed(kit) == 2
    ranges = [found for stored in await chain(kit) for found in stored.block.ranges]
    assert [found[2:] for found in ranges if found.writer == "field:north"] == [(1, 2), (3, 4)]
    assert [alarm for alarm in await kit.journal.alarms() if alarm.code == "EVIDENCE_GAP"] == []


async def test_the_last_word_of_an_owner_is_not_left_behind(kit):
    """An event that became visible late is sealed even when its owner never writes again (a person's command, for one)."""
    for number in range(3):
        await kit.accept(kit.asset(f"A{number}"))
    evidence = kit.journal.evidence()
    columns = "id, participant, writer, epoch, number, at_ns, kind, subject, data"

    def take(tx):
        (row,) = tx.all(f"SELECT {columns} FROM events WHERE number = 3")
        tx.run("DELETE FROM events WHERE number = 3")
        return row

    await kit.journal.park_return(kit.market, kit.returned())  # a neighbour's, sealed first
    late = await evidence.write(take)
    assert await sealed(kit) == 3
    await evidence.write(lambda tx: tx.run(f"INSERT INTO events ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", late))
    assert await sealed(kit) == 1
    assert await sealed(kit) == 0
    await kit.accept(kit.asset("A4"))
    assert await sealed(kit) == 1


# ---------------------------------------------------------------------------------------------------------- the anchor


async def test_anchor_of_the_present_journal_agrees(kit, tmp_path):
    """A new journal is fresh; with its anchor it agrees, also when it went on since."""
    evidence, path = kit.journal.evidence(), tmp_path / "elsewhere" / "anchor.json"
    assert (await evidence.compare(path)).verdict is AnchorVerdict.FRESH
    await evidence.write_anchor(path)
    assert (await evidence.compare(path)).verdict is AnchorVerdict.AGREES
    for number in range(3):
        await kit.accept(kit.asset(f"A{number}"))
        await sealed(kit)
        assert (await evidence.compare(path)).verdict is AnchorVerdict.AGREES
        if number == 1:
            await evidence.write_anchor(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path]


async def test_anchor_that_names_more_than_the_journal_holds(kit, tmp_path):
    """A missing block and another block at its number are both `behind`; reconciling re-bases the anchor."""
    evidence, path = kit.journal.evidence(), tmp_path / "anchor.json"
    await kit.accept(kit.asset("A"))
    await sealed(kit)
    anchor = await evidence.read(current)
    for block in ((2, b"\x01" * 32), (1, b"\x02" * 32)):
        path.write_bytes(dataclasses.replace(anchor, blocks={"acme": block}).dump(kit.clock.wall_ns()))
        finding = await evidence.compare(path)
        assert finding.verdict is AnchorVerdict.BEHIND
        assert not finding.verdict.safe
        assert "acme: " in finding.text
    await evidence.rebase(path)
    assert (await evidence.compare(path)).verdict is AnchorVerdict.AGREES


async def test_foreign_missing_and_damaged_anchors(kit, tmp_path):
    """Another journal's anchor, none where there was one, and one that cannot be read are told apart, and none is safe."""
    evidence, path = kit.journal.evidence(), tmp_path / "anchor.json"
    await kit.accept(kit.asset("A"))
    await sealed(kit)
    assert (await evidence.compare(path)).verdict is AnchorVerdict.MISSING
    await evidence.write_anchor(path)
    path.write_text(path.read_text().replace(await evidence.read(sealing.identity), "0" * 32))
    assert (await evidence.compare(path)).verdict is AnchorVerdict.FOREIGN
    for damaged in ("", "{", "[]", '{"form": "smp-bridge anchor 1"}', '{"form": "another"}'):
        path.write_text(damaged)
        finding = await evidence.compare(path)
        assert finding.verdict is AnchorVerdict.MISSING
        assert not finding.verdict.safe


async def test_a_restored_journal_is_behind_until_it_was_reconciled(kit, tmp_path):
    """Although its blocks agree: what happened since the backup may not have been sealed."""
    evidence, path = kit.journal.evidence(), tmp_path / "anchor.json"
    await evidence.write_anchor(path)
    await evidence.write(lambda tx: sealing.set_meta(tx, "restored", "backup.db"))
    finding = await evidence.compare(path)
    assert finding.verdict is AnchorVerdict.BEHIND
    assert "backup.db" in finding.text
    await evidence.rebase(path)
    assert (await evidence.compare(path)).verdict is AnchorVerdict.AGREES


async def test_an_anchor_elsewhere_is_compared_until_a_person_reconciled(kit, tmp_path):
    """What a place off the host holds: agrees, names more, another block, another journal; what was written before a reconciliation says nothing any more."""
    evidence = kit.journal.evidence()
    await kit.accept(kit.asset("A"))
    await sealed(kit)
    now = parse(await evidence.anchor_body(None))
    assert (await evidence.compare_elsewhere(now)).verdict is AnchorVerdict.AGREES
    number, hash_ = now.blocks["acme"]
    others = {
        AnchorVerdict.BEHIND: [{"blocks": {"acme": (number + 1, hash_)}}, {"blocks": {"acme": (number, b"x" * 32)}}],
        AnchorVerdict.FOREIGN: [{"journal": "0" * 32}],
    }
    found = {verdict: [dataclasses.replace(now, **change) for change in changes] for verdict, changes in others.items()}
    for verdict, anchors in found.items():
        for anchor in anchors:
            assert (await evidence.compare_elsewhere(anchor)).verdict is verdict
    kit.clock.advance(60)
    await evidence.rebase(tmp_path / "anchor.json")
    for anchors in found.values():
        for anchor in anchors:
            assert (await evidence.compare_elsewhere(anchor)).verdict is AnchorVerdict.AGREES
    kit.clock.advance(60)
    late = parse(dataclasses.replace(now, blocks={"acme": (number + 1, hash_)}).dump(kit.clock.wall_ns()))
    assert (await evidence.compare_elsewhere(late)).verdict is AnchorVerdict.BEHIND
