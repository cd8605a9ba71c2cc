"""An EMS of 1,000 assets with 20 fields each is read whole within 5 s, from both brokers. `tests/bench/reading.py` tells by how much."""

import pytest
from aedes import aedes
from mosquitto import mosquitto
from mqtt_site import context_of, options_of, read_site
from mqtt_whole import UNBOUNDED, ask, fill, flow, read_whole

from adapters.mqtt import ADAPTER

MOST_S = 5.0


@pytest.fixture(params=["mosquitto", "aedes"])
async def broker(request, tmp_path):
    if request.param == "mosquitto":
        async with mosquitto(tmp_path, tls=True, extra=UNBOUNDED) as broker:
            yield broker
    else:
        async with aedes(tmp_path, tls=True) as broker:
            await broker.start()
            yield broker


async def test_a_thousand_assets_retained_and_asked_for(broker):
    """On change from the opening of a session; and by a request for each that came while nobody was there, each with all of its fields."""
    options = options_of(read_site(), **broker.options())
    await fill(broker, "json")
    took, _ = await read_whole(options, flow("json"))
    assert took < MOST_S
    async with ADAPTER.open(context_of(options, flow("json", asked=True))):
        pass
    await ask(broker)
    took, _ = await read_whole(options, flow("json", asked=True))
    assert took < MOST_S
