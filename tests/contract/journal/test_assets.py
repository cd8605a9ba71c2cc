"""What SMP holds already: imported by a person, adopted by the EMS that asks first, never created again."""

import pytest

from bridge.errors import NotPossible
from bridge.journal.brownfield import FIRST, Import, KnownAsset
from bridge.journal.people import Decision
from bridge.journal.port import DueCall, NoneDue
from bridge.model import EmsState, HostReason, ItemState, Kind, Operation, Refusal
from bridge.submission import Admission, SubmissionState


def row(key, state=ItemState.REGISTERED, asset_id=None, **more):
    known = f"asset-{key}" if asset_id is None and state is ItemState.REGISTERED else asset_id or ""
    return KnownAsset(
        **({"kind": Kind.ASSET, "key": key, "state": state, "asset_id": known, "source": "portal"} | more)
    )


def wanted(*rows, **more):
    return Import(**({"participant": "acme", "rows": rows, "by": "Ada", "file": "portal.csv"} | more))


async def imported(kit, *rows, **more):
    """Import; the examination before must say the same, and change nothing."""
    before = await kit.journal.assets("acme")
    examined = await kit.journal.examine_import(wanted(*rows, **more))
    assert await kit.journal.assets("acme") == before
    report = await kit.journal.import_assets(wanted(*rows, **more))
    assert (report.added, report.filled, report.resolved, report.unchanged, report.left_out, report.problems) == (
        examined.added, examined.filled, examined.resolved, examined.unchanged, examined.left_out, examined.problems,
    )  # fmt: skip
    return report


async def problem(kit, *rows, **more):
    """The one problem of an import, which changed nothing."""
    before = await kit.journal.assets("acme")
    report = await imported(kit, *rows, **more)
    assert await kit.journal.assets("acme") == before
    assert (report.submissions, len(report.problems)) == ((), 1)
    return report.problems[0]


async def state_of(kit, key, kind=Kind.ASSET):
    return (await kit.journal.member("acme", kind, key)).state


# ------------------------------------------------------------------------------------------------------------ importing


async def test_imported_assets_are_known(kit):
    """With their ids, source and transaction; as what a unit may align to."""
    report = await imported(kit, row("A", transaction_id="T-old"), row("B", ItemState.UNKNOWN))
    assert (report.added, len(report.submissions)) == (2, 2)
    member = await kit.journal.member("acme", Kind.ASSET, "A")
    assert (member.state, member.asset_id, member.content) == (ItemState.REGISTERED, "asset-A", b"")
    first, second = await kit.journal.assets("acme")
    assert (first.key, first.asset_id, first.source, first.transaction_id) == ("A", "asset-A", "portal", "T-old")
    assert (first.site, first.flow) == ("", "")
    assert (second.key, second.state, second.asset_id) == ("B", ItemState.UNKNOWN, "")
    states = {view.id: view.state for view in await kit.journal.submissions()}
    assert states == {
        first.submission: SubmissionState.CONFIRMED,
        second.submission: SubmissionState.PARTIAL,
    }


async def test_who_imported_what_is_an_event(kit):
    """By name, with the file and what each row did."""
    report = await imported(kit, row("A"), row("B"))
    [submission] = report.submissions
    [event] = await kit.journal.events(submission)
    assert event.kind == "imported"
    assert (event.data["by"], event.data["file"], event.data["items"]) == ("Ada", "portal.csv", 2)
    assert (event.data["keys"], event.data["rows"]) == (["A", "B"], {"add": 2})


async def test_nothing_imported_goes_out(kit):
    """An import is no call: nothing of it is ever due."""
    await imported(kit, row("A"), row("U", kind=Kind.UNIT), row("B", ItemState.IN_DOUBT))
    assert isinstance(await kit.next(), NoneDue)


async def test_again_changes_nothing(kit):
    """The same file once more: no row, no event."""
    [submission] = (await imported(kit, row("A"), row("B", ItemState.UNKNOWN, transaction_id=""))).submissions[:1]
    before = await kit.journal.assets("acme")
    report = await imported(kit, row("A"), row("B", ItemState.UNKNOWN))
    assert (report.unchanged, report.added, report.submissions) == (2, 0, ())
    assert await kit.journal.assets("acme") == before
    assert len(await kit.journal.events(submission)) == 1


async def test_registered_through_the_bridge_is_no_contradiction(kit):
    """What we created ourselves may stand in the file too."""
    await kit.registered("A")
    report = await imported(kit, row("A"), row("B"))
    assert (report.unchanged, report.added) == (1, 1)
    assert [view.source for view in await kit.journal.assets("acme")] == ["", "portal"]


async def test_what_smp_does_not_hold_is_left_out(kit):
    """An export of another host may hold such rows; the EMS may ask for them here."""
    states = [ItemState.REFUSED, ItemState.EXPIRED, ItemState.CANCELLED, ItemState.INVALID, ItemState.WAITING]
    report = await imported(kit, *(row(f"K{number}", state) for number, state in enumerate(states)))
    assert (report.left_out, report.added) == (5, 0)
    assert await kit.journal.assets("acme") == []


@pytest.mark.parametrize("state", [ItemState.SENDING, ItemState.SENT, ItemState.IN_DOUBT, ItemState.SET_ASIDE])
async def test_what_smp_may_hold_is_never_created(kit, state):
    """A call that was out on another host may have been registered: unknown here, until somebody knows."""
    await imported(kit, row("A", state))
    intake = await kit.accept(kit.asked("A", "1"))
    assert intake.accepted[0].admission is Admission.ADOPT
    [told] = await kit.told()
    assert told.outcome.state is EmsState.UNKNOWN
    assert isinstance(await kit.next(), NoneDue)


async def test_large_imports_stand_in_parts(kit):
    """At most a call's worth of rows in one submission; one commit all the same."""
    report = await imported(kit, *(row(f"K{number:04}") for number in range(2001)))
    views = {view.id: view.items for view in await kit.journal.submissions()}
    assert [views[submission] for submission in report.submissions] == [1000, 1000, 1]
    assert report.added == 2001


# ------------------------------------------------------------------------------------------------------- contradictions


async def test_another_id_is_refused(kit):
    """One of the two is wrong, and all or nothing is imported."""
    await kit.registered("A")
    found = await problem(kit, row("B"), row("A", asset_id="other"))
    assert (found.row, found.field) == (1, "asset_id")
    assert "asset-A" in found.text
    assert await state_of(kit, "B") is None


@pytest.mark.parametrize("stage", ["waiting", "sending", "sent", "in_doubt"])
async def test_what_is_on_its_way_is_refused(kit, stage):
    """The journal will know by itself."""
    await kit.accept(kit.asset("A"))
    if stage != "waiting":
        due = await kit.send()
        state = {"sent": SubmissionState.AWAITING_RETURN, "in_doubt": SubmissionState.IN_DOUBT}.get(stage)
        if state:
            await kit.journal.answered(kit.market, due.submission, state, kit.answer("T1"))
    found = await problem(kit, row("A"))
    assert (found.row, found.field, stage in found.text) == (0, "state", True)
    assert (await imported(kit, row("A", ItemState.UNKNOWN))).unchanged == 1


async def test_what_smp_refused_needs_a_second_word(kit):
    """The likely story is that SMP refused a repeat of what it held already; the place is told what is true."""
    await kit.accept(kit.asked("A", "1"))
    await kit.settle(await kit.sent(), ItemState.REFUSED)
    await kit.write_all()
    found = await problem(kit, row("A"))
    assert (found.field, "--over-refused" in found.text) == ("state", True)
    report = await imported(kit, row("A", transaction_id="T-old"), over_refused=True)
    assert report.added == 1
    [told] = await kit.told()
    assert (told.outcome.state, told.outcome.asset_id, told.outcome.errors) == (EmsState.REGISTERED, "asset-A", ())
    assert (told.outcome.transaction_id, told.outcome.request) == ("T-old", "1")
    assert (await kit.accept(kit.asked("A", "2"))).accepted[0].admission is Admission.REPEAT
    assert (await kit.accept(kit.asked("A", "3", "b"))).accepted[0].admission is Admission.DRIFT


@pytest.mark.parametrize("state", [SubmissionState.EXPIRED, SubmissionState.CANCELLED, SubmissionState.REJECTED])
async def test_what_never_left_may_be_imported(kit, state):
    """Expired, cancelled, refused by the host: SMP never spoke of it, so nothing contradicts; its place is told."""
    await kit.accept(kit.asked("A", "1"))
    due = await kit.due()
    await kit.journal.refuse_waiting(
        kit.market, due.submission, state, Refusal(reason=HostReason.OTHER, text="never went out")
    )
    await kit.write_all()
    assert (await imported(kit, row("A"))).added == 1
    [told] = await kit.told()
    assert (told.outcome.state, told.outcome.asset_id, told.place) == (EmsState.REGISTERED, "asset-A", "place-A")


async def test_a_key_twice_is_refused(kit):
    """The second one is the problem."""
    found = await problem(kit, row("A"), row("B"), row("A"))
    assert (found.row, found.field) == (2, "key")


# ------------------------------------------------------------------------------------------------------------ resolving


async def test_an_unknown_item_is_resolved(kit):
    """By event on its own submission, whose state stays; the place is told, the alarm goes when nothing is unknown any more."""
    await kit.accept(kit.asked("A", "1"), kit.asked("B", "1"))
    due = await kit.sent()
    await kit.settle(due, ItemState.UNKNOWN)
    await kit.journal.alarm("UNRESOLVED", participant="acme", subject=due.submission)
    await kit.write_all()

    assert (await imported(kit, row("A"))).resolved == 1
    assert await state_of(kit, "A") is ItemState.REGISTERED
    assert await kit.state(due.submission) is SubmissionState.PARTIAL
    [told] = await kit.told()
    assert (told.key, told.outcome.state, told.outcome.asset_id) == ("A", EmsState.REGISTERED, "asset-A")
    event = (await kit.journal.events(due.submission))[-1]
    assert (event.kind, event.data["by"], event.data["rows"]) == ("imported", "Ada", {"resolve": 1})
    assert await kit.codes() == ["UNRESOLVED"]

    assert (await imported(kit, row("B"))).resolved == 1
    assert await kit.codes() == []


async def test_an_imported_unknown_is_resolved_too(kit):
    """First nobody knew, then somebody did."""
    await imported(kit, row("A", ItemState.UNKNOWN))
    assert (await imported(kit, row("A"))).resolved == 1
    assert (await kit.journal.member("acme", Kind.ASSET, "A")).asset_id == "asset-A"


async def test_a_missing_id_is_filled(kit):
    """SMP said registered and named no id; the place hears of it."""
    await kit.accept(kit.asked("A", "1"))
    due = await kit.sent()
    result = kit.result(due.items[0].id, "A", ItemState.REGISTERED)
    bare = type(result)(item=result.item, state=result.state)
    await kit.journal.settle(kit.market, due.submission, SubmissionState.CONFIRMED, [bare], cause="status")
    await kit.write_all()
    assert (await imported(kit, row("A", asset_id=""))).unchanged == 1
    assert (await imported(kit, row("A"))).filled == 1
    [told] = await kit.told()
    assert (told.outcome.state, told.outcome.asset_id) == (EmsState.REGISTERED, "asset-A")


async def test_people_may_resolve_what_was_imported(kit):
    """By the same words as any unknown item; but what no EMS has shown cannot be sent."""
    [submission] = (await imported(kit, row("A", ItemState.UNKNOWN), row("B", ItemState.UNKNOWN))).submissions
    said = Decision(by="Bob", reason="NESO says so")
    with pytest.raises(NotPossible, match="no EMS has shown"):
        await kit.journal.resend(submission, said)
    await kit.accept(kit.asked("A", "1"))
    await kit.write_all()
    woken = kit.journal.woken(f"field:{kit.site}")
    items = {item.key: item.id for item in await kit.journal.submission_items(submission)}
    await kit.journal.confirm(submission, [kit.result(items["A"], "A", ItemState.REGISTERED)], said)
    assert woken.is_set()
    assert [told.outcome.state for told in await kit.told()] == [EmsState.REGISTERED]
    await kit.journal.cancel(submission, said, items=[items["B"]])
    assert (await kit.accept(kit.asked("B", "1"))).accepted[0].admission is Admission.NEW


# ------------------------------------------------------------------------------------------------------------- adopting


async def test_the_first_record_is_adopted(kit):
    """It is told the standing outcome with id and transaction; no Create goes out, and the readings are evidence."""
    await imported(kit, row("A", transaction_id="T-old"))
    intake = await kit.accept(kit.asked("A", "1"))
    assert intake.accepted[0].admission is Admission.ADOPT
    [told] = await kit.told()
    assert (told.place, told.outcome.state) == ("place-A", EmsState.REGISTERED)
    assert (told.outcome.asset_id, told.outcome.transaction_id, told.outcome.request) == ("asset-A", "T-old", "1")
    assert isinstance(await kit.next(), NoneDue)
    [view] = await kit.journal.assets("acme")
    assert (view.site, view.flow, view.source) == (kit.site, "assets", "portal")
    assert (await kit.journal.member("acme", Kind.ASSET, "A")).content == b"a"
    [event] = await kit.journal.events(f"{kit.site}/assets")
    assert event.kind == "record.adopt"
    assert event.data["rows"][0][:3] == ["place-A", "1", "A"]


async def test_later_content_is_held_against_the_first(kit):
    """The same again is a repeat, another one is drift with an alarm, and it clears when the first is back."""
    await imported(kit, row("A"))
    await kit.accept(kit.asked("A", "1"))
    assert (await kit.accept(kit.asked("A", "2"))).accepted[0].admission is Admission.REPEAT
    assert (await kit.accept(kit.asked("A", "3", "b"))).accepted[0].admission is Admission.DRIFT
    assert await kit.codes() == ["DRIFT"]
    assert (await kit.accept(kit.asked("A", "4"))).accepted[0].admission is Admission.REPEAT
    assert await kit.codes() == []


async def test_adopted_within_one_call(kit):
    """Two records of a key in one arrival: the second is judged by the first."""
    await imported(kit, row("A"), row("B"))
    intake = await kit.accept(
        kit.asked("A", "1"), kit.asked("A", "2", "b"), kit.asked("B", "1"), kit.asked("B", "1", place="elsewhere")
    )
    assert [one.admission for one in intake.accepted] == [
        Admission.ADOPT,
        Admission.DRIFT,
        Admission.ADOPT,
        Admission.DUPLICATE_IN_REQUEST,
    ]


async def test_another_site_comes_second(kit):
    """An imported asset belongs to whoever asks first."""
    await imported(kit, row("A"))
    await kit.accept(kit.asked("A", "1"))
    south = await kit.journal.acquire("field:south")
    intake = await kit.journal.accept(south, [kit.asked("A", "1", site="south")])
    assert intake.accepted[0].admission is Admission.DUPLICATE_KEY


async def test_no_fast_call_for_what_is_known(kit):
    """The signed bytes of a call that names an imported asset never leave."""
    await imported(kit, row("A"))
    intake = await kit.accept(kit.asset("A"), kit.asset("B"), fast=kit.fast("F1", "A", "B"))
    assert intake.fast is False
    due = await kit.due()
    assert [item.key for item in due.items] == ["B"]


async def test_each_message_is_answered(kit):
    """Where every request stands alone, the first is adopted and the second repeated, each told by itself."""
    await imported(kit, row("A"))
    await kit.accept(kit.message("A", "r1"))
    await kit.accept(kit.message("A", "r2"))
    assert sorted((told.outcome.request, told.outcome.state) for told in await kit.told()) == [
        ("r1", EmsState.REGISTERED),
        ("r2", EmsState.REGISTERED),
    ]


async def test_late_news_reach_the_adopting_site(kit):
    """An unknown import that a person confirms later is told to the place that asked meanwhile."""
    await imported(kit, row("A", ItemState.UNKNOWN))
    await kit.accept(kit.asked("A", "1"))
    await kit.write_all()
    woken = kit.journal.woken(f"field:{kit.site}")
    assert (await imported(kit, row("A"))).resolved == 1
    assert woken.is_set()
    [told] = await kit.told()
    assert told.outcome.state is EmsState.REGISTERED


# ---------------------------------------------------------------------------------------------------------------- units


async def test_a_waiting_unit_wakes(kit):
    """A unit that waited for a member goes out once it is imported, with its id."""
    await kit.accept(kit.unit("U", ["A", "B"]))
    await imported(kit, row("A"))
    assert isinstance(await kit.next(), NoneDue)
    woken = kit.journal.woken("market:acme")
    await imported(kit, row("B"))
    assert woken.is_set()
    due = await kit.due()
    assert isinstance(due, DueCall)
    assert due.operation is Operation.UNIT_CREATE
    assert [(member.key, member.asset_id) for member in due.members] == [("A", "asset-A"), ("B", "asset-B")]


async def test_a_unit_asked_later_goes_at_once(kit):
    """Its members are registered already."""
    await imported(kit, row("A"))
    await kit.accept(kit.unit("U", ["A"]))
    assert (await kit.due()).operation is Operation.UNIT_CREATE


async def test_units_are_imported_too(kit):
    """A unit that SMP holds is not created again either; kinds do not mix."""
    await imported(kit, row("U", kind=Kind.UNIT, asset_id="unit-7"), row("U", asset_id="asset-7"))
    intake = await kit.accept(kit.unit("U", ["A"], trigger=kit.asked("x", "1").trigger, request="1"))
    assert intake.accepted[0].admission is Admission.ADOPT
    [told] = await kit.told()
    assert (told.outcome.state, told.outcome.asset_id) == (EmsState.REGISTERED, "unit-7")
    assert (await kit.journal.member("acme", Kind.ASSET, "U")).asset_id == "asset-7"


# -------------------------------------------------------------------------------------------------------------- listing


async def test_list_filters_and_pages(kit):
    """By participant, kind and state; a page begins behind the last view."""
    await imported(kit, row("A"), row("B", ItemState.UNKNOWN), row("C"), row("U", kind=Kind.UNIT))
    await kit.journal.import_assets(wanted(row("Z"), participant="bolt"))
    await kit.accept(kit.asset("W"))

    async def keys(*args, **more):
        return [view.key for view in await kit.journal.assets(*args, **more)]

    assert await keys() == ["A", "B", "C", "W", "U", "Z"]
    assert await keys("acme", kind=Kind.UNIT) == ["U"]
    assert await keys("acme", state=ItemState.UNKNOWN) == ["B"]
    assert await keys("acme", state=ItemState.WAITING) == ["W"]
    assert await keys("bolt") == ["Z"]
    seen, after = [], FIRST
    while page := await kit.journal.assets(after=after, limit=2):
        seen += [view.key for view in page]
        after = page[-1].place
    assert seen == ["A", "B", "C", "W", "U", "Z"]


async def test_an_imported_transaction_is_known(kit):
    """A late return of the call that another host made is found, and enriches nothing wrongly."""
    await imported(kit, row("A", transaction_id="T-old"))
    found = await kit.journal.find_submission("acme", transaction_id="T-old")
    assert found is not None
    assert found.state is SubmissionState.CONFIRMED
    result = kit.result(found.items[0].id, "A", ItemState.REGISTERED)
    await kit.journal.settle(kit.market, found.id, SubmissionState.CONFIRMED, [result], cause="late return")
    assert await kit.codes() == []


async def test_it_survives_a_restart(kit):
    """On disk when the call returned."""
    await imported(kit, row("A"))
    await kit.accept(kit.asked("A", "1"))
    await kit.restart()
    assert await state_of(kit, "A") is ItemState.REGISTERED
    assert (await kit.accept(kit.asked("A", "2"))).accepted[0].admission is Admission.REPEAT
