"""The admin listener's own manners, without a host behind it."""

import asyncio
import threading

import pytest
from aiohttp.test_utils import TestClient, TestServer

from bridge.metrics import Metrics
from bridge.web import admin, guard
from bridge.web.admin import Access, AdminListener, Health
from bridge.web.roles import Person, Role, Territory


async def nothing():
    return {}


def client(metrics, gauges):
    access = Access(signer=None, journal=None, territory=Territory(environments={}), clock=None, without_token=True)
    listener = AdminListener(metrics, lambda: Health(ready=True, links={}), gauges, nothing, access)
    return TestClient(TestServer(listener.application()))


async def test_scrapes_do_not_meet():
    """Gauges are cleared and set anew for each: another one waits until that text is written."""
    metrics, gauges = Metrics(), []

    async def set_anew():
        metrics.link.clear()
        gauges.append("cleared")
        await asyncio.sleep(0.02)
        metrics.link.labels("north", "ems").set(1)
        gauges.append("set")

    async with client(metrics, set_anew) as http:
        answers = await asyncio.gather(*(http.get("/metrics") for _ in range(3)))
        texts = [await answer.text() for answer in answers]
    assert all("smp_bridge_link_up{" in text for text in texts)
    assert gauges == ["cleared", "set"] * 3


@pytest.mark.parametrize("participants", [None, frozenset({"acme"})])
async def test_a_long_text_is_written_beside_the_loop(monkeypatch, participants):
    """Once it was found to be long, also for somebody who sees little of it; a short one is written at once."""
    monkeypatch.setattr(guard, "NOBODY", Person(name="", role=Role.VIEWER, participants=participants))
    metrics, threads, render = Metrics(), [], Metrics.render

    def rendered(self, keep=None):
        threads.append(threading.current_thread() is threading.main_thread())
        return render(self, keep)

    monkeypatch.setattr(Metrics, "render", rendered)
    monkeypatch.setattr(admin, "LARGE_BYTES", len(render(metrics)) + 100)
    async with client(metrics, nothing) as http:
        await http.get("/metrics")
        for number in range(1000):
            metrics.link.labels(f"site-{number}", "ems").set(1)
        for _ in range(2):
            text = await (await http.get("/metrics")).text()
    assert threads == [True, True, False]
    assert ('site="site-49"' in text) == (participants is None)
