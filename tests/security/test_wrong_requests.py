"""Requests to the admin listener that nobody should send: each has an answer of ours, with our headers, and none is a fault of the host."""

import asyncio
import io

import pytest
import pytest_asyncio
from admin_world import TEST, admin_world

from bridge.web import pages
from bridge.web.guard import HEADERS
from bridge.web.roles import Role

pytestmark = pytest.mark.asyncio(loop_scope="module")
BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
FORM = "application/x-www-form-urlencoded"
BACK = '<a href="/">Back</a>'


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory):
    async with admin_world(tmp_path_factory.mktemp("admin")) as made:
        yield made


async def asked(world, method, path, headers, data=b""):
    """Status, headers and text."""
    async with world.http.request(
        method, path, headers=headers, data=io.BytesIO(data), allow_redirects=False
    ) as answer:
        assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS, path
        return answer.status, answer.headers, await answer.text()


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("GET", "/submissions/s-unknown", 404, "there is no such submission"),
        ("GET", "/nothing/here", 404, "there is nothing at this address"),
        ("PUT", "/submissions/s-unknown", 405, "this address is asked in another way"),
        ("POST", "/alarms/x/ack", 404, "there is no such number"),
        ("POST", "/submissions/s-unknown/explode", 404, "there is no such action"),
        ("POST", "/approvals/1/approve", 403, "the role operator may not do this"),
    ],
)
async def test_a_browser_is_told_on_a_page(world, method, path, status, words):
    """With the way back; a program hears the same as JSON, and so does a browser that asks the API."""
    operator = await world.bearer(Role.OPERATOR, "Ann", [TEST])
    form = {"Content-Type": FORM}
    code, headers, text = await asked(world, method, path, {**operator, **BROWSER, **form}, b"reason=x")
    assert (code, headers.get("Content-Type")) == (status, "text/html; charset=utf-8")
    assert words in text
    assert BACK in text
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    code, headers, text = await asked(world, method, path, {**operator, **form}, b"reason=x")
    assert (code, headers.get("Content-Type")) == (status, "application/json; charset=utf-8")
    assert words in text


async def test_the_api_answers_in_json(world):
    """Also for what is not there, and which methods there are is still said."""
    operator = await world.bearer(Role.OPERATOR, "Ann", [TEST])
    code, headers, text = await asked(world, "DELETE", "/api/v1/alarms", {**operator, **BROWSER})
    assert (code, headers["Allow"], text[0]) == (405, "GET", "{")


async def test_a_form_after_the_token_has_ended(world):
    """A browser is led to the form that takes another token, whatever it sent."""
    code, headers, _ = await asked(world, "POST", "/alarms/1/ack", {**BROWSER, "Content-Type": FORM}, b"reason=x")
    assert (code, headers["Location"]) == (303, "/sign-in")


@pytest.mark.parametrize(
    ("kind", "data", "status"),
    [
        (f"{FORM}; charset=klingon", b"token=x", 400),
        (FORM, b"token=\xff", 400),
        ("multipart/form-data", b"token=x", 400),
        ("multipart/form-data; boundary=a", b"token=x", 400),
        ("text/plain", b"token=x", 400),
        (FORM, b"token=" + b"x" * 2_000_000, 413),
        (FORM, b"token=" + b"x" * 5000, 401),
        (FORM, b"", 401),
    ],
)
async def test_a_stranger_at_the_form(world, kind, data, status, caplog):
    """What is no form of ours is told on the form, and leaves no trace of a fault in the log."""
    origin = str(world.http.make_url("/")).rstrip("/")
    code, _, text = await asked(world, "POST", "/sign-in", {**BROWSER, "Origin": origin, "Content-Type": kind}, data)
    assert (code, 'name="token"' in text) == (status, True)
    assert caplog.records == []


async def test_a_form_that_comes_too_slowly(world, monkeypatch):
    """It is not waited for."""
    monkeypatch.setattr(pages, "FORM_S", 0.02)
    origin = str(world.http.make_url("/")).rstrip("/")
    reader, writer = await asyncio.open_connection("127.0.0.1", world.http.port)
    head = f"POST /sign-in HTTP/1.1\r\nHost: 127.0.0.1:{world.http.port}\r\nOrigin: {origin}\r\nContent-Type: {FORM}\r\nContent-Length: 9\r\n\r\ntok"
    writer.write(head.encode())
    async with asyncio.timeout(5):
        answer = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    assert answer.startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("origin", ["http://[", "http://[::1", "http://\u2100.example"])
async def test_a_form_from_no_address(world, origin, caplog):
    """An origin that is no address is nobody's."""
    code, _, text = await asked(
        world, "POST", "/sign-in", {**BROWSER, "Origin": origin, "Content-Type": FORM}, b"token=x"
    )
    assert (code, 'name="token"' in text) == (403, True)
    assert caplog.records == []


@pytest.mark.parametrize("host", ["127.0.0.1:x", "127.0.0.1:99999999", "[", ""])
async def test_a_host_that_is_none(tmp_path, host, caplog):
    """Where anybody on this machine may read, whoever comes by such a name is a stranger."""
    async with admin_world(tmp_path, without_token=True) as made:
        code, _, _ = await asked(made, "GET", "/api/v1/alarms", {"Host": host})
    assert code == 401
    assert caplog.records == []


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/v1/submissions?limit=" + "9" * 5000, 400),
        ("/api/v1/submissions?limit=0", 400),
        ("/api/v1/submissions?participant=%00", 404),
        ("/api/v1/submissions/%00", 404),
        ("/submissions/a%00b", 404),
        ("/submissions/%ED%A0%80", 404),
    ],
)
async def test_strange_names_and_numbers(world, path, status):
    """They are not there, or cannot be asked for; no journal is asked for a NUL, which one of its engines takes ill."""
    everything = await world.bearer(Role.VIEWER)
    code, _, text = await asked(world, "GET", path, everything)
    assert (code, "NUL" in text) == (status, "%00" in path)


async def test_no_control_characters_become_an_outcome(world):
    """What an operator confirms goes on to the EMS: one line, as on the command line."""
    operator = await world.bearer(Role.OPERATOR, "Ann")
    path = f"/api/v1/submissions/{await world.in_doubt(TEST, 'C')}/confirm"
    for name in ("asset_id", "error_text"):
        line = {"reference": "C", "outcome": "registered", name: "a\u0000b"}
        assert (await world.ask("POST", path, operator, {"reason": "x", "outcomes": [line]}))[0] == 400
