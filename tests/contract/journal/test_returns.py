"""Signed returns: durable before the 2xx, told apart, matched early or late."""

from bridge.submission import SubmissionState

HOUR_S = 3600


async def test_new_return_is_on_disk(kit):
    """It is found again after a restart, byte for byte."""
    message = kit.returned()
    parked = await kit.journal.park_return(kit.market, message)
    assert (parked.verdict, parked.receipt_ns) == ("new", message.received.wall_ns)
    await kit.restart()
    (found,) = await kit.journal.unsettled_returns("acme")
    assert (found.id, found.message) == (parked.return_id, message)


async def test_same_return_again_is_a_duplicate_with_the_first_receipt(kit):
    """Same id and meaning: one row, one receipt, whatever the bytes around it."""
    first = await kit.journal.park_return(kit.market, kit.returned())
    kit.clock.advance(HOUR_S)
    again = await kit.journal.park_return(kit.market, kit.returned(body=b"the same, signed anew"))
    assert (again.verdict, again.return_id, again.receipt_ns) == ("duplicate", first.return_id, first.receipt_ns)
    assert len(await kit.journal.unsettled_returns("acme")) == 1


async def test_same_id_with_another_meaning_is_a_conflict(kit):
    """Both are stored, and a person is called; only the first may ever settle anything."""
    first = await kit.journal.park_return(kit.market, kit.returned())
    other = await kit.journal.park_return(kit.market, kit.returned(content=b"another meaning"))
    assert other.verdict == "conflict"
    assert await kit.codes() == ["CONFLICT"]
    assert [entry.id for entry in await kit.journal.unsettled_returns("acme")] == [first.return_id]


async def test_a_conflict_that_comes_again_is_none_the_less_a_conflict(kit):
    """It is stored once, and its sender never hears that it was taken; the genuine one is a duplicate as before."""
    first = await kit.journal.park_return(kit.market, kit.returned())
    other = await kit.journal.park_return(kit.market, kit.returned(content=b"another meaning"))
    again = await kit.journal.park_return(kit.market, kit.returned(content=b"another meaning"))
    assert (again.verdict, again.return_id) == ("conflict", other.return_id)
    assert (await kit.journal.park_return(kit.market, kit.returned())).verdict == "duplicate"
    assert [entry.id for entry in await kit.journal.unsettled_returns("acme")] == [first.return_id]


async def test_message_ids_belong_to_their_participant(kit):
    """The same id for another participant is another message."""
    await kit.journal.park_return(kit.market, kit.returned())
    other = await kit.journal.park_return(kit.market, kit.returned(participant="other", content=b"x"))
    assert other.verdict == "new"


async def test_quarantined_return_does_not_poison_the_genuine_one(kit):
    """What nobody vouches for is kept as evidence, and never makes the real message a conflict."""
    fake = kit.returned(content=b"forged", quarantined="unknown key")
    assert (await kit.journal.park_return(kit.market, fake)).verdict == "new"
    genuine = await kit.journal.park_return(kit.market, kit.returned())
    assert genuine.verdict == "new"
    assert [entry.id for entry in await kit.journal.unsettled_returns("acme")] == [genuine.return_id]


async def test_closed_return_is_dealt_with(kit):
    """It is not found after a restart; duplicates still are."""
    parked = await kit.journal.park_return(kit.market, kit.returned())
    await kit.journal.close_return(kit.market, parked.return_id, "settled")
    assert await kit.journal.unsettled_returns("acme") == []
    assert (await kit.journal.park_return(kit.market, kit.returned())).verdict == "duplicate"


async def test_early_return_is_matched_by_its_transaction_id(kit):
    """The return came before the answer: the answer finds it."""
    await kit.accept(kit.asset("A"))
    due = await kit.send()
    parked = await kit.journal.park_return(kit.market, kit.returned(transaction_id="T9"))
    await kit.journal.close_return(kit.market, parked.return_id, "orphan")
    other = await kit.journal.park_return(kit.market, kit.returned("R2", transaction_id="T8"))
    found = await kit.journal.answered(kit.market, due.submission, SubmissionState.AWAITING_RETURN, kit.answer("T9"))
    assert [entry.id for entry in found] == [parked.return_id]
    assert other.return_id != parked.return_id


async def test_early_return_is_matched_by_what_it_echoes(kit):
    """Without a transaction id in the answer an echoed correlation or message id is enough."""
    await kit.accept(kit.asset("A"))
    due = await kit.due()
    call = kit.call()
    await kit.journal.sending(kit.market, due.submission, call, 1)
    by_correlation = kit.returned("R1", transaction_id="", correlation_id=call.correlation_id)
    by_message = kit.returned("R2", transaction_id="", correlation_id=call.message_id)
    ids = [(await kit.journal.park_return(kit.market, message)).return_id for message in (by_correlation, by_message)]
    await kit.journal.park_return(kit.market, kit.returned("R3", transaction_id=""))
    found = await kit.journal.answered(kit.market, due.submission, SubmissionState.IN_DOUBT, kit.answer(status=500))
    assert [entry.id for entry in found] == ids


async def test_orphan_is_kept_for_a_day(kit):
    """An early return that nobody claims in 24 hours is not matched any more."""
    await kit.accept(kit.asset("A"))
    due = await kit.send()
    parked = await kit.journal.park_return(kit.market, kit.returned(transaction_id="T9"))
    await kit.journal.close_return(kit.market, parked.return_id, "orphan")
    kit.clock.advance(25 * HOUR_S)
    found = await kit.journal.answered(kit.market, due.submission, SubmissionState.AWAITING_RETURN, kit.answer("T9"))
    assert found == []


async def test_return_wakes_the_market(kit):
    """Also one that was taken in by another process."""
    woken = kit.journal.woken("market:acme")
    await kit.journal.park_return(kit.market, kit.returned())
    assert woken.is_set()


async def test_unsettled_returns_come_page_by_page(kit):
    """However many an earlier run left, only so many are in memory at once."""
    for number in range(5):
        await kit.journal.park_return(kit.market, kit.returned(f"R{number}", content=str(number).encode()))
    pages, after = [], 0
    while page := await kit.journal.unsettled_returns("acme", after=after, limit=2):
        pages.append([message.message.message_id for message in page])
        after = page[-1].id
    assert pages == [["R0", "R1"], ["R2", "R3"], ["R4"]]
