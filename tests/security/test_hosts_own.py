"""What stops somebody is seen by them, and yet it names nobody else: the host's own holds and alarms, and holds of what several share, read by the people of one participant."""

import re
from dataclasses import replace

import pytest
import pytest_asyncio
from admin_world import BOTH, LIVE, TERRITORY, TEST, admin_world

from bridge.journal.people import Decision, Scope
from bridge.web.roles import Role

pytestmark = pytest.mark.asyncio(loop_scope="module")
ASK = "the host's own; ask its operator"
TOLD = f"because of {LIVE} at north"
SECRETS = (LIVE, "real", "Zoe", "LIVE", "because of")
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
            (Scope.EMS, "north"),
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
    """Their scope and since when, and so of a site where others have flows too; not why and by whom, and nothing of others."""
    held = (await read(world, "/api/v1/holds", role))["holds"]
    assert [(hold["scope"], hold["name"], hold["by"], hold["reason"]) for hold in held] == [
        ("ems", "north", "", ASK),
        ("site", "north", "", ASK),
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
    holds = [(alarm["site"], alarm["subject"]) for alarm in told if alarm["code"] == "HOLD"]
    assert holds == [("north", "ems:north"), ("north", ""), ("", ""), ("", "")]
    rest = [alarm for alarm in told if alarm["code"] != "HOLD"]
    assert {(alarm["subject"], alarm["acked_by"], alarm["note"]) for alarm in rest} == {("", "", "")}
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
    assert page.count(ASK.replace("'", "&#x27;")) == len(NAMING) + 9
    assert CLOCK in page.replace("&#x27;", "'")
    assert "/ack" not in page
    assert "/ack" in await read(world, "/", Role.OPERATOR, ())


async def test_it_is_seen_and_not_decided(world):
    """A token for some participants can neither acknowledge nor release what it sees."""
    ann = await world.bearer(Role.OPERATOR, "Ann", BOTH)
    before = await world.journal.alarms()
    one = await world.bearer(Role.OPERATOR, "Ann", (TEST,))
    shared = [alarm for alarm in await world.journal.alarms(site="north") if alarm.code == "HOLD"]
    assert len(shared) == 2
    for alarm in shared:
        assert (await world.ask("POST", f"/api/v1/alarms/{alarm.id}/ack", one, {"reason": "x"}))[0] == 404
    release = {"scope": "site", "name": "north", "reason": "x"}
    assert (await world.ask("POST", "/api/v1/holds/release", one, release))[0] == 404
    for alarm in await world.journal.alarms(of_host=True):
        assert (await world.ask("POST", f"/api/v1/alarms/{alarm.id}/ack", ann, {"reason": "x"}))[0] == 404
    release = {"scope": "host", "name": "", "reason": "x"}
    assert (await world.ask("POST", "/api/v1/holds/release", ann, release))[0] == 404
    assert await world.journal.alarms() == before
    assert len(await world.journal.holds()) == 6


async def test_who_works_for_all_reads_it_whole(world):
    """Names, reasons and texts, and all holds and alarms."""
    held = (await read(world, "/api/v1/holds", Role.OPERATOR, ()))["holds"]
    assert {(hold["by"], hold["reason"]) for hold in held} == {("Zoe", TOLD)}
    assert len(held) == 6
    alarms = (await read(world, "/api/v1/alarms", Role.OPERATOR, ()))["alarms"]
    assert [alarm["id"] for alarm in alarms] == [view.id for view in await world.journal.alarms()]
    assert {alarm["text"] for alarm in alarms if alarm["code"] in NAMING} == {TOLD}


async def test_a_hold_of_an_environment(tmp_path):
    """Who has one of its several entries sees that it is held and since when; who has all of them sees why; who has none sees nothing."""
    third = "bolt-test"
    territory = replace(TERRITORY, environments={**TERRITORY.environments, third: "TEST"})
    async with admin_world(tmp_path, territory=territory) as made:
        await made.journal.hold(Scope.ENVIRONMENT, "TEST", Decision(by="Zoe", reason=f"because of {third}"))
        whole, neutral = ("Zoe", f"because of {third}"), ("", ASK)
        for names, held, text in (
            ((TEST,), neutral, ASK),
            ((TEST, third), whole, None),
            ((), whole, f"held by Zoe: because of {third}"),
        ):
            [hold] = (await read(made, "/api/v1/holds", Role.VIEWER, names))["holds"]
            assert ((hold["by"], hold["reason"]), hold["name"], hold["held_ns"] > 0) == (held, "TEST", True)
            alarms = (await read(made, "/api/v1/alarms", Role.VIEWER, names))["alarms"]
            assert [(alarm["subject"], alarm["text"]) for alarm in alarms] == [("environment:TEST", text or ASK)]
        assert (await read(made, "/api/v1/holds", Role.VIEWER, (LIVE,)))["holds"] == []
        assert (await read(made, "/api/v1/alarms", Role.VIEWER, (LIVE,)))["alarms"] == []


async def test_the_metric_of_alarms(world):
    """What their people see in the list their Prometheus sees too: the host's own by their code, holds of what they share, and no other's."""

    def shown(code, participant="", site="", environment=""):
        return code, environment, participant, site  # as the text form sorts them

    standing = {
        shown("HOLD"), shown("HOLD", site="north"), shown("HOLD", environment="LIVE"), shown("HOLD", environment="TEST"),
        shown("HOLD", LIVE), shown("CONFLICT", LIVE), shown("CONFLICT", TEST), shown("LINK_DOWN", site="north"), shown("ARCHIVE"),
    }  # fmt: skip
    for code, environment, participant, site in standing:
        world.metrics.alarms.labels(code, participant, site, environment, "open").set(1)
    world.metrics.journal.labels("bytes").set(1)

    async def seen(names):
        text = await read(world, "/metrics", Role.VIEWER, names)
        assert ("smp_bridge_journal" in text) == (not names)
        lines = [line for line in text.splitlines() if line.startswith("smp_bridge_alarms{")]
        return {tuple(re.findall(r'(?:code|participant|site|environment)="([^"]*)"', line)) for line in lines}

    assert await seen(()) == standing
    assert await seen(BOTH) == standing
    assert standing - await seen((TEST,)) == {
        shown("HOLD", environment="LIVE"), shown("HOLD", LIVE), shown("CONFLICT", LIVE), shown("LINK_DOWN", site="north"),
    }  # fmt: skip
