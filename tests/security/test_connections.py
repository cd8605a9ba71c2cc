"""Who sees which connection: links that carry something of theirs, and their own ways to SMP; what went wrong on a shared link may speak of another."""

import re

import pytest
import pytest_asyncio
from admin_world import BOTH, LIVE, TEST, admin_world

from bridge.web.connections import Contact, EmsLink, SmpLink
from bridge.web.roles import Role

pytestmark = pytest.mark.asyncio(loop_scope="module")
NS = 1_795_000_000 * 10**9
ASK = "the host's own; ask its operator"


def contact(up, error):
    return Contact(up=up, since_ns=NS, tried_ns=NS, error=error, error_ns=NS if error else 0)


EMS = [
    EmsLink(site="north", adapter="ems", contact=contact(True, f"<b>node of {LIVE}</b>"), age_s=0.5),
    EmsLink(site="north", adapter="lab", contact=contact(False, "<b>refused</b>"), age_s=None),
    EmsLink(site="south", adapter="ems", contact=contact(None, ""), age_s=None),
    EmsLink(site="west", adapter="unused", contact=contact(False, "x"), age_s=None),
]
SMP = [
    SmpLink(participant=LIVE, contact=contact(False, "reset"), paused="503"),
    SmpLink(participant=TEST, contact=contact(True, ""), paused=""),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory):
    async with admin_world(tmp_path_factory.mktemp("admin"), ems=EMS, smp=SMP) as made:
        yield made


async def read(world, path, names):
    code, told = await world.ask("GET", path, await world.bearer(Role.VIEWER, "Ann", names))
    assert code == 200
    return told


@pytest.mark.parametrize(
    ("names", "ems", "errors", "smp"),
    [
        ((), ["north/ems", "north/lab", "south/ems", "west/unused"], [f"<b>node of {LIVE}</b>", "<b>refused</b>", None, "x"], [LIVE, TEST]),
        (BOTH, ["north/ems", "north/lab", "south/ems"], [f"<b>node of {LIVE}</b>", "<b>refused</b>", None], [LIVE, TEST]),
        ((TEST,), ["north/ems", "north/lab", "south/ems"], [ASK, "<b>refused</b>", None], [TEST]),
        ((LIVE,), ["north/ems"], [ASK], [LIVE]),
    ],
)  # fmt: skip
async def test_who_sees_what(world, names, ems, errors, smp):
    """In the API and on the page."""
    told = await read(world, "/api/v1/connections", names)
    assert [f"{link['site']}/{link['adapter']}" for link in told["ems"]] == ems
    assert [link["last_error"] for link in told["ems"]] == errors
    assert [link["participant"] for link in told["smp"]] == smp
    page = await read(world, "/connections", names)
    assert re.findall(r'<tr><td data-label="(?:link|participant)"><[^>]+>([^<]+)<', page) == [*ems, *smp]
    assert "<b>" not in page
    assert (LIVE in page) == (LIVE in smp)


@pytest.mark.parametrize(
    ("names", "line"),
    [
        ((TEST,), "1 of 3 EMS links are open, 1 of 1 SMP connections answer"),
        ((LIVE,), "1 of 1 EMS links are open, 0 of 1 SMP connections answer"),
    ],
)
async def test_the_first_page_says_how_many(world, names, line):
    """And leads to which."""
    page = await read(world, "/", names)
    assert f'<p class="wrong"><a href="/connections">Connections</a>: {line}</p>' in page


async def test_words_and_times(world):
    """What a state is called, since when, and the last error with its time."""
    page = await read(world, "/connections", (TEST,))
    at = '<time datetime="2026-11-18T11:06:40.000Z">2026-11-18 11:06:40</time>'
    assert shown(page, "north/lab") == ["down", at, "&lt;b&gt;refused&lt;/b&gt;", at, "-"]
    assert shown(page, TEST) == ["answers", at, "-", "-", at, "no"]


def shown(page, name):
    """The other cells of the row that begins with this name."""
    [row] = re.findall(rf"<span class=\"id\">{name}</span></td>(.*?)</tr>", page)
    return re.findall(r"<td[^>]*>(.*?)</td>", row)
