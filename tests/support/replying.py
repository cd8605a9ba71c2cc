"""The shipped MQTT site on a real mosquitto, with a scheduler that says at MQTT 5 where its answers go, and the host as a process."""

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager

from mosquitto import Peer, mosquitto
from paho.mqtt.enums import MQTTProtocolVersion
from processes import CONFIG, World, market_side
from three_sites import ASSET_TOPIC, CHARGER

from bridge.sandbox import Knobs

ANSWERS = "acme/crawley/answers/{}"
RESULTS = ASSET_TOPIC + "/result"


@asynccontextmanager
async def crawley(directory):
    """The shipped MQTT site on mosquitto, its scheduler's answers writable; `run` starts the bridge's process."""
    made = World(directory)
    async with AsyncExitStack() as stack:
        await market_side(made, stack, directory, profile="default", knobs=Knobs(returns="hold"))
        text = (CONFIG / "sites/crawley.yaml").read_text()
        assert "    writable: [" in text
        text = text.replace("    writable: [", f'    writable: ["{ANSWERS.format("+")}", ', 1)
        (made.config / "sites/crawley.yaml").write_text(text)
        broker = await stack.enter_async_context(
            mosquitto(directory / "mqtt", tls=True, user="smp-bridge", password="secret")
        )
        made.mqtt = await stack.enter_async_context(Peer(broker, protocol=MQTTProtocolVersion.MQTTv5))
        made.environment |= {
            "SMP_BRIDGE_CRAWLEY_HOST": broker.host, "SMP_BRIDGE_CRAWLEY_PORT": str(broker.port), "SMP_BRIDGE_CRAWLEY_CA": str(broker.ca),
            "SMP_BRIDGE_CRAWLEY_MQTT": "5", "SMP_BRIDGE_CRAWLEY_USER": broker.user, "SMP_BRIDGE_CRAWLEY_PASSWORD": "secret",
        }  # fmt: skip
        made.group = await stack.enter_async_context(asyncio.TaskGroup())
        try:
            yield made
        except BaseException as error:
            for process in made.processes:
                error.add_note(f"{process.arguments}: {process.events[-12:]}"[:6000])
            raise
        finally:
            for process in made.processes:
                if process.process.returncode is None:
                    await process.stop()


def answers(made, place):
    """(state, correlation data) of each message on the place's response topic."""
    topic = ANSWERS.format(place)
    heard = [message.properties for message in made.mqtt.messages if message.topic == topic]
    carried = [getattr(properties, "CorrelationData", None) for properties in heard]
    return [(body["state"], data) for body, data in zip(made.mqtt.on(topic), carried, strict=True)]


async def until_answered(made, place, state):
    """Wait for this word on the place's response topic."""
    async with asyncio.timeout(30):
        while state not in [word for word, _ in answers(made, place)]:
            await asyncio.sleep(0.02)


async def ask(made, place):
    """The place's registration stands, and is asked for with a response topic and correlation data."""
    await made.mqtt.publish(ASSET_TOPIC.format(place), CHARGER, retain=True)
    body = {"reqId": f"r-{place}", "action": "create"}
    carried = {"ResponseTopic": ANSWERS.format(place), "CorrelationData": correlation(place)}
    await made.mqtt.publish(ASSET_TOPIC.format(place) + "/request", body, **carried)


def correlation(place):
    """Any bytes."""
    return b"\x00\xff" + place.encode()
