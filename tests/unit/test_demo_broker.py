"""The demo's broker at its end."""

import logging

import pytest

from bridge.demo.mqtt_broker import DemoBroker


@pytest.fixture
def loop_log():
    log = logging.getLogger("asyncio")
    before = list(log.filters)
    log.filters.clear()  # another demo's, in this process
    yield log
    log.filters[:] = before


async def test_a_client_that_left_is_not_spoken_of(tmp_path, loop_log, caplog):
    """The library writes on to it, and the event loop says so each time, before the broker closes and after; whatever else the loop has to say is heard."""
    async with DemoBroker(tmp_path, "plant", {"a": "b"}, host="127.0.0.1", port=0):
        loop_log.warning("SSL connection is closed")
        loop_log.warning("something")
    loop_log.warning("SSL connection is closed")
    loop_log.warning("something else")
    assert [
        entry.message for entry in caplog.records if entry.name == "asyncio" and entry.levelno == logging.WARNING
    ] == ["something", "something else"]
