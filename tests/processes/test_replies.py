"""What a request of MQTT 5 says about its answer outlives the process that acknowledged it."""

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager

from mosquitto import Peer, mosquitto
from paho.mqtt.enums import MQTTProtocolVersion
from processes import CONFIG, World, market_side
from three_sites import ASSET_TOPIC, CHARGER

from bridge.sandbox import Knobs

ANSWERS = "acme/crawley/answers/{}"


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
    async with asyncio.timeout(30):
        while state not in [word for word, _ in answers(made, place)]:
            await asyncio.sleep(0.02)


async def test_results_after_a_kill_and_a_stop_go_where_their_requests_asked(tmp_path):
    """One request is acknowledged before the host is killed, one before it is stopped; both returns come to the process after them."""
    async with crawley(tmp_path) as made:
        await made.mqtt.subscribe(ANSWERS.format("+"))
        for place in ("EV1", "EV2"):
            await made.mqtt.publish(ASSET_TOPIC.format(place), CHARGER, retain=True)
        for place, end in (("EV1", "kill"), ("EV2", "stop")):
            process = await made.run()
            await process.until("link_open")
            topic = ASSET_TOPIC.format(place) + "/request"
            body = {"reqId": f"r-{place}", "action": "create"}
            carried = {"ResponseTopic": ANSWERS.format(place), "CorrelationData": b"\x00\xff" + place.encode()}
            await made.mqtt.publish(topic, body, **carried)
            await until_answered(made, place, "sent")
            await (process.kill() if end == "kill" else process.stop())
        process = await made.run()
        await process.until("link_open")
        await made.sandbox.release()
        for place in ("EV1", "EV2"):
            await until_answered(made, place, "registered")
            assert {data for _, data in answers(made, place)} == {b"\x00\xff" + place.encode()}
        assert [made.sandbox.ledger.creates(place) for place in ("EV1", "EV2")] == [1, 1]
