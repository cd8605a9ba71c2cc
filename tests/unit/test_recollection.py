"""Which places of an EMS are looked at before their records are admitted."""

from types import SimpleNamespace

import pytest

from bridge.api import OutcomeField, Quality, Reading
from bridge.errors import LinkError
from bridge.field.recollection import Recollection
from bridge.submission import Admission

ID, STATE = OutcomeField.TRANSACTION_ID, OutcomeField.STATE


class Journal:
    """Records of these places look new; of transaction ids it knows none."""

    def __init__(self, new):
        self.new = new
        self.held = []

    async def preview(self, candidates):
        return [Admission.NEW if each.place in self.new else Admission.SEEN for each in candidates]

    async def unknown_transactions(self, site, ids):
        return ids

    async def hold(self, scope, site, decision):
        self.held.append(decision.reason)
        return True


class Ems:
    """What its places show; each read is noted."""

    def __init__(self, **shown):
        self.shown = shown
        self.reads = []
        self.lost = False

    async def read(self, addresses):
        if self.lost:
            raise LinkError("gone")
        self.reads.append([address.place for address in addresses])
        assert {address.name for address in addresses} == {ID}
        return [Reading(value=self.shown.get(address.place, ""), quality=Quality.GOOD) for address in addresses]


class Outcome:
    """A flow's outcome that configures these fields."""

    def __init__(self, names):
        self._names = names

    def model_dump(self, **_):
        return dict.fromkeys(self._names, "somewhere")


def made(new, **shown):
    plan, blind = (SimpleNamespace(outcome=Outcome(names)) for names in ((STATE.value, ID.value), (STATE.value,)))
    journal, ems = Journal(new), Ems(**shown)
    recollection = Recollection(site="s", plans={"assets": plan, "blind": blind}, journal=journal)

    async def look(*places, flow="assets"):
        unseen = recollection.unseen([SimpleNamespace(flow=flow, place=place) for place in places])
        if unseen:
            await recollection.look(ems, unseen)

    return look, ems, journal


async def test_each_place_is_looked_at_once_in_a_session():
    """Whenever its first record comes, and never again: it costs an exchange with the EMS."""
    look, ems, journal = made({"a", "b", "c"})
    for places in (("a",), ("a", "b"), ("b", "a"), ("c", "c")):
        await look(*places)
    assert ems.reads == [["a"], ["b"], ["c"]]
    assert journal.held == []


async def test_what_the_journal_knows_is_not_read():
    """Only a record that looks new may have been sent by another journal; a flow that shows no id cannot tell."""
    look, ems, _ = made({"b"})
    await look("a", "b")
    await look("b", flow="blind")
    assert ems.reads == [["b"]]


async def test_an_id_that_nobody_knows_holds_the_site_whenever_it_comes():
    look, _, journal = made({"a", "b"}, b="T-1")
    await look("a")
    assert journal.held == []
    await look("b")
    (reason,) = journal.held
    assert "T-1 at assets/b" in reason


async def test_a_place_that_could_not_be_read_is_looked_at_again():
    """The link is lost, and so is the session; where it is not, nothing was learnt."""
    look, ems, _ = made({"a"})
    ems.lost = True
    with pytest.raises(LinkError):
        await look("a")
    ems.lost = False
    await look("a")
    assert ems.reads == [["a"]]
