"""The alarm word as a message through mosquitto, and where it may stand."""

import asyncio

import pytest
from mosquitto import Peer
from mqtt_site import chargers, context_of, options_of, read_site

from adapters.mqtt import ADAPTER
from bridge.api import AlarmWord, WordSession

TOPIC = "acme/crawley/ems/alarms"
WRITABLE = [TOPIC, "acme/crawley/ems/asset/+/registration/result"]
AT_NS = 1_795_392_000_123_000_000


@pytest.mark.parametrize("retain", [True, False])
async def test_published_and_kept_for_who_comes_later(broker, ems, version, retain):
    """Bits and words; retained unless the site says otherwise."""
    await ems.subscribe(TOPIC)
    options = options_of(read_site(), **broker.options(version=version, writable=WRITABLE))
    context = context_of(options)._replace(word=ADAPTER.word(topic=TOPIC, retain=retain))
    async with asyncio.timeout(20), ADAPTER.open(context) as session:
        assert isinstance(session, WordSession)
        assert await session.write_word(AlarmWord(bits=0x8001, words=("stuck", "other"), at_ns=AT_NS)) == ""
    [heard] = await ems.until(TOPIC)
    assert heard == {"alarms": 0x8001, "words": ["stuck", "other"], "updatedAt": "2026-11-23T00:00:00.123Z"}
    async with Peer(broker) as late:
        await late.subscribe(TOPIC, "marker")
        await late.publish("marker", {})
        await late.until("marker")
        assert late.on(TOPIC) == ([heard] if retain else [])


async def test_never_published_outside_writable(broker, ems):
    """The check at start says so already; the session itself does not write there either."""
    await ems.subscribe(TOPIC, "marker")
    options = options_of(read_site(), **broker.options(writable=WRITABLE[1:]))
    context = context_of(options)._replace(word=ADAPTER.word(topic=TOPIC, retain=True))
    async with asyncio.timeout(20), ADAPTER.open(context) as session:
        told = await session.write_word(AlarmWord(bits=1, words=("stuck",), at_ns=AT_NS))
        assert told == f"{TOPIC} is outside `writable:`; nothing was published"
    await ems.publish("marker", {})
    await ems.until("marker")
    assert not ems.on(TOPIC)


@pytest.mark.parametrize(
    ("topic", "said"),
    [
        (TOPIC, ""),
        ("acme/elsewhere", 'add "acme/elsewhere" there'),
        ("acme/crawley/ems/asset/EV1/registration/result", "could be an outcome of the flow chargers"),
        ("acme/crawley/ems/asset/EV1/registration", "could be a registration of the flow chargers"),
        ("acme/crawley/ems/asset/EV1/registration/request", "could be a request of the flow chargers"),
    ],
)
def test_checked_beside_the_flows(topic, said):
    """Inside `writable:`, and nobody else's topic."""
    options = options_of(read_site(), writable=[*WRITABLE, "acme/crawley/ems/asset/+/registration", "acme/crawley/ems/asset/+/registration/request"])  # fmt: skip
    found = [problem.text for problem in ADAPTER.check_word(options, [chargers()], ADAPTER.word(topic=topic))]
    assert (found == []) if not said else any(said in text for text in found)


def test_a_wildcard_is_no_topic():
    """One topic, not a pattern."""
    with pytest.raises(ValueError, match="wildcard"):
        ADAPTER.word(topic="acme/+/alarms")
