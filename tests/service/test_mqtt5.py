"""MQTT 5 through the whole service, on mosquitto: response topics, correlation data, and a field by JMESPath."""

from mosquitto import Peer
from paho.mqtt.enums import MQTTProtocolVersion
from three_sites import ASSET_TOPIC, sites

from bridge.sandbox import Knobs

ANSWERS = "acme/crawley/answers/{}"
HOST_STATUS = "acme/host/status"
CHANGES = {
    "    host: {env: SMP_BRIDGE_CRAWLEY_HOST": "    session_expiry: 1d\n    host: {env: SMP_BRIDGE_CRAWLEY_HOST",
    'default: "3.1.1"}': 'default: "5"}',
    "    writable: [": f'    writable: ["{ANSWERS.format("+")}", ',
    "        kw: kw\n    submit:": "        kw: not_null(kva, kw)\n    submit:",
}


def at_version_5(name, text):
    """The shipped site of Crawley with these changes."""
    if name == "crawley":
        for before, after in CHANGES.items():
            assert before in text
            text = text.replace(before, after, 1)
    return text


async def test_an_answer_goes_where_its_request_asked(tmp_path):
    """From the request to SMP's outcome; the same request again is a repeat, and its standing outcome goes where this one asked."""
    async with sites(tmp_path, profile="default", knobs=Knobs(), change=at_version_5) as made:
        async with Peer(made.mqtt._broker, protocol=MQTTProtocolVersion.MQTTv5) as scheduler:
            await scheduler.subscribe(ANSWERS.format("+"), HOST_STATUS)

            async def there():
                return any(message.payload == b"online" for message in scheduler.messages)

            await made.until(there, True)  # a broker keeps no request for a host that it has never seen
            for number in (1, 2):
                own = ANSWERS.format(number)

                async def answer(topic=own):
                    found = scheduler.on(topic)
                    return found[-1]["state"] if found else ""

                body = {"reqId": "r-1", "action": "create"}
                carried = {"ResponseTopic": own, "CorrelationData": bytes([number])}
                await scheduler.publish(ASSET_TOPIC.format("EV1") + "/request", body, **carried)
                await made.until(answer, "registered")
                heard = [message for message in scheduler.messages if message.topic == own]
                assert {message.properties.CorrelationData for message in heard} == {bytes([number])}
                assert scheduler.on(own)[-1]["reqId"] == "r-1"
            first, again = (scheduler.on(ANSWERS.format(number))[-1] for number in (1, 2))
            assert first["transactionId"] == again["transactionId"] != ""
        assert made.sandbox.ledger.creates("EV1") == 1
        assert made.mqtt.on(ASSET_TOPIC.format("EV1") + "/result")[-1]["state"] == "registered"
