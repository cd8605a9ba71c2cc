"""A probe of mosquitto: what it holds and what arrives, not one message published, and a running session beside it left alone."""

import pytest
from mosquitto import Peer, mosquitto
from mqtt_site import (
    ASSET,
    CLIENT_ID,
    REQUEST,
    chargers,
    context_of,
    options_of,
    read_site,
    registration,
    request,
    selection_of,
    take,
)

from adapters.mqtt import ADAPTER
from adapters.mqtt.link import Heard
from bridge.api import LinkRefused

PROBE_ID = "smp-probe-1"


def context(broker, *selections, **changes):
    return context_of(options_of(read_site(), **broker.options(**changes)), *selections, client_id=PROBE_ID)


async def looked(given, wait_s=0.5):
    async with ADAPTER.probe(given) as probe:
        return await probe.look(wait_s)


def told(look, **where):
    return [
        trouble.text for trouble in look.troubles if all(getattr(trouble, key) == value for key, value in where.items())
    ]


async def test_it_shows_what_a_session_delivers(broker, ems, session, version):
    """The retained registration as a request would bring it; nothing is published, not even that we are there."""
    await ems.publish(ASSET.format("EV001"), registration(), retain=True)
    async with Peer(broker) as everybody:
        await everybody.subscribe("#")
        look = await looked(context(broker, version=version))
        await ems.publish("tests/last", "x")
        await everybody.until("tests/last")
        topics = [message.topic for message in everybody.messages]
    assert topics == [ASSET.format("EV001"), "tests/last"]
    async with session(version=version) as link:
        await ems.publish(REQUEST.format("EV001"), request("r-1"))
        [arrival] = await take(link)
    [shown] = look.records
    assert shown.fields == arrival.records[0].fields
    assert look.marks == {("chargers", "EV001"): "retained"}
    assert told(look) == []


async def test_a_running_session_is_left_alone(broker, ems, session, version):
    """It keeps its connection, and gets each request, those that were asked while it was away too; the probe leaves no session behind."""
    await ems.publish(ASSET.format("EV001"), registration(), retain=True)
    async with session(version=version):
        pass
    await ems.publish(REQUEST.format("EV001"), request("r-1"))
    given = context(broker, version=version, client_id=CLIENT_ID)
    await looked(given)
    async with session(version=version) as link:
        [first] = await take(link)
        await looked(given)
        await ems.publish(REQUEST.format("EV001"), request("r-2"))
        [second] = await take(link)
    assert [each.records[0].request for each in (first, second)] == ["r-1", "r-2"]
    async with Peer(
        broker, client_id=PROBE_ID, clean=False
    ) as heir:  # a session that was left would hand it what came since
        await ems.publish(REQUEST.format("EV001"), request("r-3"))
        await heir.subscribe("tests/last")
        await ems.publish("tests/last", "x")
        await heir.until("tests/last")
    assert [message.topic for message in heir.messages] == ["tests/last"]


async def test_a_group_is_not_joined(broker, ems, session):
    """The requests of a shared subscription go to its members: a probe beside them is none, and hears a copy."""
    flow = read_site()["flows"]["chargers"]
    flow["submit"]["share"] = "hosts"
    selection = selection_of("chargers", flow)
    await ems.publish(ASSET.format("EV001"), registration(), retain=True)
    async with session(selection, version="5") as link, ADAPTER.probe(context(broker, selection, version="5")) as probe:
        for number in range(6):
            await ems.publish(REQUEST.format("EV001"), request(f"r-{number}"))
        arrivals = await take(link, 6)
        look = await probe.look(0.5)
    assert [each.records[0].request for each in arrivals] == [f"r-{number}" for number in range(6)]
    [asked] = look.beside
    assert (asked.place, asked.name, asked.reading.value) == ("EV001", "submit.request", "r-5")


async def test_what_arrives_while_it_listens(broker, ems):
    """A registration that changes, one that comes, one that is taken away: each look shows what stands."""
    await ems.publish(ASSET.format("EV001"), registration(), retain=True)
    await ems.publish(ASSET.format("EV003"), registration(3), retain=True)
    async with ADAPTER.probe(context(broker)) as probe:
        first = await probe.look(0.5)
        await ems.publish(ASSET.format("EV001"), registration(kw="50,0"), retain=True)
        await ems.publish(ASSET.format("EV002"), registration(2), retain=True)
        await ems.publish(ASSET.format("EV003"), b"", retain=True)
        second = await probe.look(0.5)
    assert [each.place for each in first.records] == ["EV001", "EV003"]
    assert [(each.place, each.fields["kw"].value) for each in second.records] == [("EV001", "50,0"), ("EV002", "49,5")]
    assert second.marks["chargers", "EV001"].startswith("arrived ")


async def test_what_is_wrong(broker, ems):
    """A payload that is no JSON, a request without an id, one that is for others, one that is retained, and a flow of which nothing is heard."""
    await ems.publish(ASSET.format("EV001"), b"{", retain=True)
    await ems.publish(REQUEST.format("EV001"), request(None), retain=True)
    await ems.publish(REQUEST.format("EV002"), request("r-1", action="delete"), retain=True)
    await ems.publish(REQUEST.format("EV003"), request("r-2"), retain=True)
    unit = selection_of("unit", read_site()["flows"]["unit"])
    look = await looked(context(broker, chargers(), unit))
    assert "is not JSON" in look.records[0].problem
    grave = [trouble.text for trouble in look.troubles if trouble.grave]
    assert [text for text in grave if "EV001/registration/request: the request has no request id at reqId" in text]
    assert [text for text in grave if text.startswith("nothing was heard on acme/crawley/ems/unit/{unit}/registration")]
    assert len(grave) == 2
    notes = [trouble.text for trouble in look.troubles if not trouble.grave]
    assert [
        text for text in notes if "EV002/registration/request: the request is not one that `where:` asks for" in text
    ]
    assert [text for text in notes if text.startswith("this request is retained")]


async def test_what_we_write_ourselves(broker, ems):
    """A broker may hand out more than was asked for: our own status is no finding, and what nobody reads still is one."""
    await ems.publish(ASSET.format("EV001"), registration(), retain=True)
    given = context(broker)
    async with ADAPTER.probe(given) as probe:
        for topic in (given.options.status_topic, "acme/somewhere/else"):
            probe._take(Heard(topic, b"online", mid=0, retained=True))
        look = await probe.look(0.5)
    assert told(look, grave=True) == ["acme/somewhere/else: no flow reads this topic"]


async def test_a_registration_in_parts(broker, ems):
    """Each value has a topic of its own, and one was never heard."""
    flow = read_site()["flows"]["chargers"]
    flow["records"] |= {"format": "plain", "fields": {"reference": "$asset", "kw": "kw", "mpan": "mpan"}}
    await ems.publish(ASSET.format("EV001") + "/kw", "49", retain=True)
    look = await looked(context(broker, selection_of("chargers", flow)))
    assert told(look, flow="chargers", place="EV001") == ["is not whole: nothing was heard of mpan"]


async def test_a_broker_that_is_not_trusted(tmp_path):
    """Its certificate is checked as a session checks it."""
    async with mosquitto(tmp_path / "tls", tls=True) as broker:
        with pytest.raises(LinkRefused, match="not trusted"):
            await looked(context(broker, tls={}))
