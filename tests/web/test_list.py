"""The list of submissions, on its page and in the API: what narrows it, its pages, and nothing of others."""

import re
from html import unescape

import pytest
import pytest_asyncio
from admin_world import BOTH, LIVE, TEST, admin_world, undecided

from bridge.ids import first_submission_id
from bridge.submission import SubmissionState
from bridge.web.roles import Role

pytestmark = pytest.mark.asyncio(loop_scope="module")
DAY_NS = 86_400 * 10**9
BEGIN_NS = 1_793_491_200 * 10**9  # 2026-11-01T00:00Z
PAGE = 50


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory):
    """One of each participant for each of three days, and many more of TEST on the fourth."""
    async with admin_world(tmp_path_factory.mktemp("admin")) as made:
        made.by_day = {}
        for day in range(3):
            for who in BOTH:
                state = SubmissionState.RETRY_WAIT if day == 1 else SubmissionState.IN_DOUBT
                made.by_day[who, day] = await at(made, who, BEGIN_NS + day * DAY_NS, state)
        made.many = [await at(made, TEST, BEGIN_NS + 3 * DAY_NS + number * 10**9) for number in range(PAGE + 10)]
        yield made


async def at(world, who, wall_ns, state=SubmissionState.IN_DOUBT):
    number = f"{first_submission_id(wall_ns)[2:]}{BOTH.index(who):08x}"
    flow = "trial" if who == TEST else "real"
    return await undecided(world.journal, world.clock, who, flow, f"{who}-{number}", number, state)


async def listed(world, query, names=()):
    code, told = await world.ask("GET", f"/api/v1/submissions{query}", await world.bearer(Role.VIEWER, "Ann", names))
    assert code == 200
    return [view["id"] for view in told["submissions"]], told["next"]


async def page(world, path, names=()):
    code, text = await world.ask("GET", path, await world.bearer(Role.VIEWER, "Ann", names))
    assert code == 200
    return re.findall(r'href="/submissions/([^"?]+)"', text), text


async def test_what_narrows_it(world):
    """Participant, site, state, and the days on which it was made, both of them whole."""
    day = world.by_day
    first = "?since=2026-11-01&until=2026-11-03"
    assert set((await listed(world, first))[0]) == set(day.values())
    assert (await listed(world, f"{first}&participant={LIVE}"))[0] == [day[LIVE, 2], day[LIVE, 1], day[LIVE, 0]]
    assert (await listed(world, f"{first}&state=RETRY_WAIT", [TEST]))[0] == [day[TEST, 1]]
    assert (await listed(world, "?since=2026-11-02T00:00Z&until=2026-11-02T00:00:00", [TEST]))[0] == [day[TEST, 1]]
    assert (await listed(world, "?site=south"))[0] == []
    assert len((await listed(world, "?site=north&limit=1000"))[0]) == 6 + len(world.many)
    shown, text = await page(world, f"/submissions{first}&state=RETRY_WAIT&site=", [TEST])
    assert shown == [day[TEST, 1]]
    assert "<option selected>RETRY_WAIT</option>" in text
    assert 'value="2026-11-01"' in text


async def test_pages_stay_whole_while_new_ones_come(world):
    """The link to older ones goes on where the page ended; nothing is shown twice, nothing is left out."""
    older, seen = f"/submissions?participant={TEST}", []
    for number in range(2):
        shown, text = await page(world, unescape(older), [TEST])
        seen += shown
        [older, *_] = re.findall(r'href="([^"]+)">Older<', text) or [""]
        assert ("Newest</a>" in text) == (number > 0)
        await at(world, TEST, BEGIN_NS + 5 * DAY_NS + number * 10**9)
    assert older == ""
    assert seen == [*reversed(world.many), *(world.by_day[TEST, day] for day in (2, 1, 0))]
    ids, after, times = [], "", 0
    while after is not None:
        found, after = await listed(world, f"?limit=13&until=2026-11-04{f'&before={after}' if after else ''}", [TEST])
        ids, times = [*ids, *found], times + 1
    assert (ids, times) == (seen, 5)


async def test_times_are_shown(world):
    """When each came and when it left, in UTC."""
    _, text = await page(world, "/submissions", [TEST])
    assert "received (UTC)" in text
    assert re.search(r'<time datetime="2026-11-\d\dT[\d:.]+Z">2026-11-\d\d \d\d:\d\d:\d\d</time>', text)


async def test_nothing_of_others(world):
    """Neither a submission, nor a participant in the form, nor that an id is one of theirs."""
    shown, text = await page(world, "/submissions?since=2026-11-01&until=2026-11-03", [TEST])
    assert set(shown) == {world.by_day[TEST, day] for day in range(3)}
    assert LIVE not in text
    ann = await world.bearer(Role.VIEWER, "Ann", [TEST])
    answers = set()
    for other in (world.by_day[LIVE, 0], "s-000000000000deadbeef"):
        for path in ("/api/v1/submissions", "/submissions"):
            code, told = await world.ask("GET", f"{path}?before={other}", ann)
            answers.add((code, told["error"]))
    assert answers == {(404, "there is no such submission")}


@pytest.mark.parametrize("query", ["state=done", "since=yesterday", "until=2026-13-01", "since=9"])
async def test_what_cannot_be_asked(world, query):
    """It is said what would be right."""
    for path in ("/api/v1/submissions", "/submissions"):
        code, told = await world.ask("GET", f"{path}?{query}", await world.bearer(Role.VIEWER))
        assert code == 400
        assert query.split("=")[0] in told["error"]


async def test_what_is_said_is_text(world):
    """What stands in the address comes back in the form as it is, and in its links."""
    _, text = await page(world, "/submissions?site=%22%3E%3Cscript%3E&participant=")
    assert "<script>" not in text
    assert "<option selected>&quot;&gt;&lt;script&gt;</option>" in text
