"""A broker, an EMS beside it, and sessions of the adapter."""

from contextlib import asynccontextmanager

import pytest
import pytest_asyncio
from aedes import aedes_process
from mosquitto import Peer, mosquitto
from mqtt_site import context_of, options_of, read_site

from adapters.mqtt import ADAPTER


@pytest.fixture(params=["3.1.1", "5"])
def version(request):
    return request.param


@pytest.fixture
async def broker(tmp_path):
    async with mosquitto(tmp_path / "broker", extra="max_inflight_messages 0") as broker:
        yield broker


@pytest.fixture
async def ems(broker):
    async with Peer(broker) as peer:
        yield peer


@pytest.fixture
def session(broker):
    """Open a session of the shipped site; keyword arguments change its options."""

    @asynccontextmanager
    async def opened(*selections, heard=lambda: None, **changes):
        options = options_of(read_site(), **broker.options(**changes))
        async with ADAPTER.open(context_of(options, *selections, heard=heard)) as session:
            yield session

    return opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node():
    """The process of the aedes brokers of a module whose tests run on one loop."""
    async with aedes_process() as process:
        yield process
