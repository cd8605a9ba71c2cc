"""What stops everybody is seen by everybody, and yet it names nobody: the host's own holds and alarms, read by the people of one participant."""

import pytest
import pytest_asyncio
from admin_world import BOTH, LIVE, TEST, admin_world

from bridge.journal.people import Decision, Scope
from bridge.web.roles import Role

pytestmark = pytest.mark.asyncio(loop_scope="module")
ASK = "the host's own; ask its operator"
TOLD = f"because of {LIVE} at north"
SECRETS = (LIVE, "north", "Zoe", "LIVE", "because of")
# Of no participant and no site, with what may stand in them: other people, participants, files, places.
NAMING = ("EVIDENCE_BROKEN", "EVIDENCE_GAP", "ANCHOR", "ARCHIVE", "JOURNAL_LARGE", "NEWER_THAN_THIS_TEST")
CLOCK = "nothing synchronises this machine's clock"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory):
    """Everything that can stand without a participant and a site, and the same of the other participant, its site and its environment."""
    async with admin_world(tmp_path_factory.mktemp("admin")) as made:
        zoe = Decision(by="Zoe", reason=TOLD)
        for scope, name in (
            (Scope.HOST, ""),
            (Scope.JOURNAL, ""),
            (Scope.PARTICIPANT, LIVE),
            (Scope.ENVIRONMENT, "LIVE"),
            (Scope.SITE, "north"),
        ):
            await made.journal.hold(scope, name, zoe)
        for code in NAMING:
            await made.journal.alarm(code, text=TOLD)
        await made.journal.alarm("ANCHOR_PLACE", subject=f"notary-of-{LIVE}", text=TOLD)
        await made.journal.alarm("CLOCK_UNSYNCHRONISED", text=CLOCK)
        await made.journal.alarm("JOURNAL_FULL", text="no room since noon")
        await made.journal.alarm("CONFLICT", participant=LIVE, text=TOLD)
        await made.journal.alarm("LINK_DOWN", site="north", text=TOLD)
        for view in await made.journal.alarms(of_host=True):
            if view.code == "ARCHIVE":
                await made.journal.ack_alarm(view.id, "Zoe", TOLD)
        yield made


async def read(world, path, role, names=(TEST,)):
    code, told = await world.ask("GET", path, await world.bearer(role, "Ann", names))
    assert code == 200
    return told


@pytest.mark.parametrize("role", Role)
async def test_holds_of_the_whole_host(world, role):
    """Their scope and since when; not why and by whom, and nothing of others."""
    held = (await read(world, "/api/v1/holds", role))["holds"]
    assert [(hold["scope"], hold["name"], hold["by"], hold["reason"]) for hold in held] == [
        ("journal", "", "", ASK),
        ("host", "", "", ASK),
    ]
    assert all(hold["held_ns"] > 0 for hold in held)


@pytest.mark.parametrize("role", Role)
async def test_alarms_of_the_host(world, role):
    """Their code and since when; the words of those alone that can name nobody."""
    told = (await read(world, "/api/v1/alarms", role))["alarms"]
    assert [alarm["id"] for alarm in told] == sorted((alarm["id"] for alarm in told), reverse=True)
    assert {alarm["code"]: alarm["text"] for alarm in told} == {
        **dict.fromkeys((*NAMING, "ANCHOR_PLACE", "HOLD"), ASK),
        "CLOCK_UNSYNCHRONISED": CLOCK,
        "JOURNAL_FULL": "no room since noon",
    }
    assert [alarm["code"] for alarm in told].count("HOLD") == 2
    assert {(alarm["subject"], alarm["acked_by"], alarm["note"]) for alarm in told} == {("", "", "")}
    assert all(alarm["raised_ns"] > 0 for alarm in told)


@pytest.mark.parametrize("path", ["/", "/api/v1/holds", "/api/v1/alarms"])
async def test_nothing_of_anybody_else(world, path):
    """Neither on the page nor in the lists: no other participant, site, environment, person or reason."""
    told = str(await read(world, path, Role.OPERATOR))
    assert [secret for secret in SECRETS if secret in told] == []
    assert "the host&#x27;s own" in told or ASK in told


async def test_the_page(world):
    """It says what stands and what is held, and offers no way to acknowledge what is the host's."""
    page = await read(world, "/", Role.OPERATOR)
    assert "<p>Nothing is held.</p>" not in page  # a runbook says these words too
    assert "<p>None stands.</p>" not in page
    assert page.count(ASK.replace("'", "&#x27;")) == len(NAMING) + 5
    assert CLOCK in page.replace("&#x27;", "'")
    assert "/ack" not in page
    assert "/ack" in await read(world, "/", Role.OPERATOR, ())


async def test_it_is_seen_and_not_decided(world):
    """A token for some participants can neither acknowledge nor release what it sees."""
    ann = await world.bearer(Role.OPERATOR, "Ann", BOTH)
    before = await world.journal.alarms()
    for alarm in await world.journal.alarms(of_host=True):
        assert (await world.ask("POST", f"/api/v1/alarms/{alarm.id}/ack", ann, {"reason": "x"}))[0] == 404
    release = {"scope": "host", "name": "", "reason": "x"}
    assert (await world.ask("POST", "/api/v1/holds/release", ann, release))[0] == 404
    assert await world.journal.alarms() == before
    assert len(await world.journal.holds()) == 5


async def test_who_works_for_all_reads_it_whole(world):
    """Names, reasons and texts, and all holds and alarms."""
    held = (await read(world, "/api/v1/holds", Role.OPERATOR, ()))["holds"]
    assert {(hold["by"], hold["reason"]) for hold in held} == {("Zoe", TOLD)}
    assert len(held) == 5
    alarms = (await read(world, "/api/v1/alarms", Role.OPERATOR, ()))["alarms"]
    assert [alarm["id"] for alarm in alarms] == [view.id for view in await world.journal.alarms()]
    assert {alarm["text"] for alarm in alarms if alarm["code"] in NAMING} == {TOLD}
