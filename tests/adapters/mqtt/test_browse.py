"""Browsing mosquitto and aedes: topics as they are heard, nothing published, nobody's session touched; and what drafts are made of."""

import asyncio
import json
import time

import pytest
import pytest_asyncio
from aedes import aedes
from mosquitto import Peer, mosquitto
from mqtt_site import CLIENT_ID

from adapters.mqtt import ADAPTER
from adapters.mqtt.browse import COLUMNS
from adapters.mqtt.drafts import MOST_FLOWS, drafts
from adapters.mqtt.entry import options_of
from adapters.mqtt.sightings import Kind, Sightings, guessed
from bridge.api import Credentials, LinkError, LinkRefused, Search, Secret, Selection, Trigger
from bridge.clock import SystemClock

pytestmark = pytest.mark.asyncio(loop_scope="module")
LIMIT = 1 << 20
CHARGER = {"name": "Charger", "meter": {"mpan": "1012345678903"}, "postcode": "RH10 9NE", "gspGroup": "_J", "kw": "49"}
EACH = "acme/{site}/ems/asset/{asset}/registration"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mosquitto_broker(tmp_path_factory):
    async with mosquitto(tmp_path_factory.mktemp("browse") / "broker") as broker:
        yield broker


@pytest_asyncio.fixture(params=["mosquitto", "mosquitto 5", "aedes", "aedes over WebSocket"], loop_scope="module")
async def broker(request, mosquitto_broker, node, tmp_path):
    """A broker, and the options to reach it."""
    if request.param.startswith("mosquitto"):
        yield mosquitto_broker, mosquitto_broker.options(version="5" if "5" in request.param else "3.1.1")
        return
    async with aedes(tmp_path / "aedes", process=node) as made:
        await made.start()
        options = made.options()
        if "WebSocket" in request.param:
            options |= {"port": await made.listen(websocket="/mqtt"), "websocket": {"path": "/mqtt"}}
        yield made, options


async def browsed(options, **search):
    made = ADAPTER.options.model_validate(options)
    return await ADAPTER.browser.browse(made, Search(**{"wait_s": 0.4, **search}), SystemClock.here())


def rows(seen):
    return {row[0]: dict(zip(COLUMNS, row, strict=True)) for row in seen.rows}


def heard(*messages, most=1000, most_bytes=1 << 20):
    seen = Sightings(most, most_bytes, LIMIT)
    for topic, payload in messages:
        body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        seen.take(topic, body, retained=True)
    return seen


def drafted(*messages):
    flows, writable = drafts(list(heard(*messages).topics.values()))
    return {flow.name: flow for flow in flows}, writable


def problems(flows, writable):
    """What `check` of the adapter says of drafts."""
    options = ADAPTER.options.model_validate({"host": "h", "writable": writable})
    selections = []
    for flow in flows.values():
        trigger = Trigger(flow.submit["when"])
        submit = {key: value for key, value in flow.submit.items() if key != "when"}
        selections.append(
            Selection(
                flow=flow.name,
                trigger=trigger,
                records=ADAPTER.records.model_validate(flow.records),
                submit=ADAPTER.submit[trigger].model_validate(submit),
                outcome=ADAPTER.outcome.model_validate(flow.outcome),
            )
        )
    return list(ADAPTER.check(options, selections))


# on brokers ---------------------------------------------------------------------------------------------------


async def test_what_is_there_and_not_one_message_of_ours(broker):
    """Retained topics with size, kind and fields; whoever hears everything hears nothing of ours, though a status topic is configured."""
    made, options = broker
    async with Peer(made) as ems, Peer(made) as everybody:
        await ems.publish("acme/a/one", CHARGER, retain=True)
        await ems.publish("acme/a/two", "a;b\n1;2\n", retain=True)
        await everybody.subscribe("acme/#")
        seen = await browsed({**options, "status_topic": "acme/host/status"}, start="acme/#")
        await ems.publish("acme/last", b"\x00\xff")
        await everybody.until("acme/last")
    found = rows(seen)
    assert found["acme/a/one"] == {
        "TOPIC": "acme/a/one", "MESSAGES": 1, "RETAINED": "yes", "BYTES": len(json.dumps(CHARGER)), "KIND": "JSON",
        "FIELDS": ("name", "meter.mpan", "postcode", "gspGroup", "kw"),
    }  # fmt: skip
    assert found["acme/a/two"]["KIND"] == "CSV"
    assert sorted(message.topic for message in everybody.messages) == ["acme/a/one", "acme/a/two", "acme/last"]


async def seen_by(url, *trusted):
    """What is there by a URL and what a person gives at the command line."""
    made = ADAPTER.options.model_validate(options_of(url, Credentials(trusted=trusted)))
    return rows(await ADAPTER.browser.browse(made, Search(wait_s=0.4), SystemClock.here()))


@pytest.mark.parametrize("scheme", ["mqtt", "mqtts", "ws", "wss"])
async def test_every_way_by_its_url(mosquitto_broker, node, tmp_path, scheme):
    """aedes by each of them; mosquitto behind a WebSocket gateway at MQTT 5; a secured one only by the authority that is named."""
    path = "/plant" if scheme.startswith("ws") else None
    async with aedes(tmp_path / "aedes", tls=scheme in {"mqtts", "wss"}, process=node) as made:
        await made.start()
        trusted = [made.ca] if made.ca else []
        url = f"{scheme}://127.0.0.1:{await made.listen(websocket=path)}{path or ''}"
        async with Peer(made) as ems:
            await ems.publish("acme/kept", CHARGER, retain=True)
        assert (await seen_by(url, *trusted))["acme/kept"]["RETAINED"] == "yes"
        if trusted:
            with pytest.raises(LinkRefused, match="certificate is not trusted"):
                await seen_by(url)
        if path:
            async with Peer(mosquitto_broker) as ems:
                await ems.publish("acme/behind", CHARGER, retain=True)
            port = await made.listen(websocket=path, upstream=mosquitto_broker.port)
            assert "acme/behind" in await seen_by(f"{scheme}://127.0.0.1:{port}{path}?version=5", *trusted)


async def test_a_running_session_keeps_its_connection(broker):
    """Under the very client id of the site's session nobody is thrown out, and what waits for it stays."""
    made, options = broker
    async with Peer(made, client_id=CLIENT_ID, clean=False) as bridge, Peer(made) as ems:
        lost = []
        bridge.client.on_disconnect = lambda *_: lost.append(1)
        await bridge.subscribe("acme/requests")
        await browsed({**options, "client_id": CLIENT_ID, "status_topic": "acme/host/status"})
        await ems.publish("acme/requests", "r-1")
        assert await bridge.until("acme/requests") == ["r-1"]
        assert not lost


async def test_only_what_the_filter_names_and_live_messages_too(mosquitto_broker):
    """A filter narrows; messages that come while we listen are counted and not called retained."""
    options = mosquitto_broker.options()
    async with Peer(mosquitto_broker) as ems:
        await ems.publish("yard/kept", "1", retain=True)
        await ems.publish("elsewhere/kept", "1", retain=True)
        looking = asyncio.create_task(browsed(options, start="yard/#", wait_s=2.0))
        for _ in range(8):
            await asyncio.sleep(0.2)
            await ems.publish("yard/live", "2")
        seen = await looking
    found = rows(seen)
    assert set(found) == {"yard/kept", "yard/live"}
    assert found["yard/live"]["RETAINED"] == ""
    assert found["yard/live"]["MESSAGES"] >= 2


async def test_bounds_are_told(mosquitto_broker):
    """More topics than asked for, and a filter on which nothing comes."""
    async with Peer(mosquitto_broker) as ems:
        for number in range(4):
            await ems.publish(f"many/{number}", "x", retain=True)
    seen = await browsed(mosquitto_broker.options(), start="many/#", most=3)
    assert len(seen.rows) == 3
    assert any("only the first 3 topics are shown, 1 messages" in note for note in seen.notes)
    empty = await browsed(mosquitto_broker.options(), start="nobody/#")
    assert not empty.rows
    assert any("nothing came within" in note for note in empty.notes)


async def test_enough_ends_the_listening(mosquitto_broker, monkeypatch):
    """Once the bound of bytes is met nobody listens on, and a note says so; the connection ends in good order."""
    monkeypatch.setattr("adapters.mqtt.browse.MOST_BYTES", 1000)
    async with Peer(mosquitto_broker) as ems, asyncio.timeout(20):
        for number in range(5):
            await ems.publish(f"large/{number}", "x" * 400, retain=True)
        seen = await browsed(mosquitto_broker.options(), start="large/#", wait_s=600)
    assert len(seen.rows) == 3
    assert any("listening ended early" in note for note in seen.notes)


async def test_what_cannot_be_asked(mosquitto_broker):
    """A filter that is none, words of other protocols, nobody there: said before, or as ever."""
    options = mosquitto_broker.options()
    with pytest.raises(ValueError, match="--filter a/#/b"):
        await browsed(options, start="a/#/b")
    with pytest.raises(ValueError, match="belong to Modbus"):
        await browsed(options, ranges=("holding:0-9",))
    with pytest.raises((LinkError, LinkRefused)):
        await browsed({**options, "port": 1})


# payloads and bounds --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "kind", "fields"),
    [
        (b'{"a": {"b": 1, "c d": 2}, "l": [1, 2]}', Kind.JSON, ["a.b", 'a."c d"', "l"]),
        (b"[1, 2]", Kind.JSON_OTHER, []),
        (b"{not json", Kind.PLAIN, [""]),
        (b"name,kw\nOne,4\n", Kind.CSV, ["name", "kw"]),
        (b"name,kw\nOne,4\nTwo,5\n", Kind.CSV_LONG, ["name", "kw"]),
        (b"One;4;7", Kind.CSV_BARE, ["column_1", "column_2", "column_3"]),
        (b"49,5", Kind.PLAIN, [""]),
        (b"running", Kind.PLAIN, [""]),
        (b"\x00\x01", Kind.BINARY, []),
        (b"\xff\xfe", Kind.BINARY, []),
        (b"x" * (LIMIT + 1), Kind.TOO_LONG, []),
        (b"[" * 100_000, Kind.PLAIN, [""]),
    ],
    ids=lambda value: value.value if isinstance(value, Kind) else "",
)
async def test_what_a_payload_seems_to_be(payload, kind, fields):
    """What the adapter reads as a record comes first; what nobody can read is binary."""
    guess = guessed(payload, LIMIT)
    assert (guess.kind, list(guess.values)) == (kind, fields)


async def test_bytes_are_bounded():
    """Once so many bytes were taken in, nothing more is."""
    seen = heard(("a", b"x" * 60), ("b", b"x" * 60), ("c", b"x"), most_bytes=100)
    assert seen.full
    assert set(seen.topics) == {"a", "b"}


# drafts -----------------------------------------------------------------------------------------------------------


async def test_levels_that_vary_are_placeholders():
    """Site and asset; a field that only some have is a field all the same."""
    flows, writable = drafted(
        *((EACH.format(site=site, asset=asset), CHARGER) for site in ("leeds", "york") for asset in ("EV1", "EV2")),
        (EACH.format(site="york", asset="EV3"), {**CHARGER, "note": "x"}),
    )
    flow = flows["asset"]
    assert flow.records["each"] == EACH
    assert flow.records["fields"]["mpan"] == "meter.mpan"
    assert flow.records["fields"]["note"] == "note"
    assert "EV1 is the name of several" in flow.open["records.key"]
    assert writable == ["acme/+/ems/asset/+/registration/result"]
    assert problems(flows, writable) == []


async def test_requests_and_results_are_no_records():
    """They become trigger and outcome of the records that they belong to."""
    place = "acme/leeds/ems/asset/EV{}/registration"
    flows, writable = drafted(
        (place.format(1), CHARGER),
        (place.format(2), CHARGER),
        (place.format(1) + "/request", {"reqId": "r-1", "action": "create"}),
        (place.format(1) + "/answers/result", {"reqId": "r-1", "state": "registered"}),
    )
    assert list(flows) == ["asset"]
    submit, outcome = flows["asset"].submit, flows["asset"].outcome
    each = "acme/leeds/ems/asset/{asset}/registration"
    assert submit == {"when": "message", "topic": f"{each}/request", "id": "reqId", "where": {"action": "create"}}
    assert outcome["topic"] == f"{each}/answers/result"
    assert outcome["payload"]["reqId"] == "requestId"
    assert problems(flows, writable) == []


async def test_values_with_a_topic_each_and_csv():
    """Plain values below one level that varies are one record; the delimiter of CSV is kept."""
    flows, writable = drafted(
        *((f"yard/meter/M{n}/{name}", value) for n in (1, 2) for name, value in (("mpan", b"1"), ("kw", b"2"))),
        *((f"boxes/B{n}", b"name;kw\nOne;4\n") for n in (1, 2)),
    )
    meters, boxes = flows["meter"].records, flows["boxes"].records
    assert (meters["each"], meters["format"], meters["fields"]) == (
        "yard/meter/{asset}", "plain", {"reference": "$asset", "kw": "kw", "mpan": "mpan"} | meters["fields"],
    )  # fmt: skip
    assert (boxes["each"], boxes["csv"]) == ("boxes/{asset}", {"delimiter": ";"})
    assert problems(flows, writable) == []


async def test_topics_that_fit_no_template_and_one_without_a_like():
    """Braces and empty levels are left out; one topic alone has a level for the asset, marked as a guess."""
    flows, writable = drafted(
        ("a/{x}/y", CHARGER), ("a//y", CHARGER), ("$share/x/y", CHARGER),
        ("acme/unit/U1/registration", {**CHARGER, "assets": ["EV1", "EV2"]}),
    )  # fmt: skip
    assert [flow.records["each"] for flow in flows.values()] == ["acme/unit/{unit}/registration"]
    assert "the only topic of its kind" in flows["unit"].open["records.each"]
    assert flows["unit"].examples["assets"] == ("EV1", "EV2")
    assert problems(flows, writable) == []


async def test_many_topics_of_many_kinds_are_no_hours():
    """Each topic has fields of its own, so none is like another: the work stays small all the same, and the flows are bounded."""
    messages = ((f"a/{number}/x", {f"f{number}_{field}": 1 for field in range(5)}) for number in range(2000))
    started = time.process_time()
    flows, _ = drafted(*messages)
    assert time.process_time() - started < 10
    assert len(flows) <= MOST_FLOWS


# URLs --------------------------------------------------------------------------------------------------------------


async def test_urls(tmp_path):
    """Each scheme with its port, path and protection."""
    ca = tmp_path / "ca.pem"
    ca.write_text("x")
    assert options_of("mqtt://there", Credentials()) == {"host": "there", "port": 1883}
    secured = options_of("mqtts://there:1", Credentials(user="u", password=Secret("p"), trusted=(ca,)))
    assert (secured["tls"], secured["user"], secured["port"]) == ({"ca": ca}, "u", 1)
    assert options_of("wss://there/in", Credentials())["websocket"] == {"path": "/in"}
    assert options_of("ws://there?version=5", Credentials()) == {
        "host": "there", "port": 80, "version": "5", "websocket": {"path": "/mqtt"},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("url", "given", "part"),
    [
        ("mqtt://u:secret@there", {}, "password must not stand in the URL"),
        ("mqtt://", {}, "names no host"),
        ("mqtt://there:99999", {}, "port"),
        ("mqtt://there/topic", {}, "--filter"),
        ("mqtt://there?qos=1", {}, "only ?version=5"),
        ("mqtt://there", {"policy": "None"}, "belong to OPC UA"),
        ("mqtt://there", {"trusted": ("ca.pem",)}, "has no TLS"),
        ("mqtt://there", {"password": Secret("p")}, "needs a --user"),
        ("mqtts://there", {"trusted": ("a.pem", "b.pem")}, "given once"),
    ],
)
async def test_urls_that_are_wrong(url, given, part):
    """Each with what would be right, and without the secret."""
    with pytest.raises(ValueError, match=r".") as raised:
        options_of(url, Credentials(**given))
    assert part in str(raised.value)
    assert "secret" not in str(raised.value)
