"""A server whose tree changes while a session is open: node-opcua, which tells of it by events where its folders have a version."""

import asyncio

import pytest
from opcua_peer import ASSETS
from opcua_session import PLACE, WITHIN_S, next_record, opened, opened_with, reading, told
from opcua_site import outcome_writes, read_site, selection_of, selections_of

from adapters.opcua import link, lookout, requests
from bridge.api import LinkError, Quality

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.serves(tells=[ASSETS])]

NEW = "BESS101"


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    monkeypatch.setattr(lookout, "SETTLE_S", 0.05)


async def until(condition):
    async with asyncio.timeout(WITHIN_S):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_record_that_is_added_is_found_by_the_servers_word(peer, caplog):
    """No interval passes: the server says that its tree has changed. The record is read, and its outcome written, as any other's."""
    caplog.set_level("INFO")
    async with opened(peer, rebrowse_interval="1h") as session:
        await peer.grow(NEW, 101)
        await peer.request(NEW)
        record = await next_record(session)
        written = await session.write(outcome_writes("batteries", NEW))
        state = await reading(session, "reference", NEW)
        listed = session.places("batteries")
    assert (record.flow, record.place, record.request) == ("batteries", NEW, "1")
    assert record.fields["reference"].value == "REF101"
    assert not any(each.error for each in written)
    assert (state.value, state.quality) == ("REF101", Quality.GOOD)
    assert NEW in listed
    (entry,) = told(caplog.records, "opcua_records_found")
    assert (entry.flow, entry.count, entry.first_place) == ("batteries", 1, NEW)


@pytest.mark.parametrize("changes", [{}, {"watch": "polling", "poll_interval": "20ms"}], ids=["subscribed", "polled"])
@pytest.mark.serves
async def test_a_record_that_is_added_is_found_at_the_interval(peer, changes):
    """A server that says nothing of its tree is looked at; requests that stand there already are seen."""
    async with opened(peer, rebrowse_interval="1s", **changes) as session:
        await peer.grow(NEW, 101)
        await peer.request(NEW)
        first = await next_record(session)
        await peer.request(PLACE)
        second = await next_record(session)
        await peer.set(f"{ASSETS}/{NEW}/Registration/RequestSeq", 2)
        third = await next_record(session)
    assert [(each.place, each.request) for each in (first, second, third)] == [(NEW, "1"), (PLACE, "1"), (NEW, "2")]


@pytest.mark.serves
async def test_a_poll_comes_at_its_time_while_records_are_added(peer):
    """Somebody who adds a record every few seconds would put it off for as long as that takes."""
    async with opened(peer, rebrowse_interval="1s", watch="polling", poll_interval="1h") as session:
        left_s = session._rhythm.left_s()
        await peer.grow(NEW, 101)
        await until(lambda: NEW in session.places("batteries"))
        assert session._rhythm.left_s() < left_s


async def test_a_server_that_fails_at_events_is_looked_at(peer, monkeypatch):
    """One without any may refuse the whole request that asks for them; its variables are watched, and its tree is looked at."""
    monitor = link.Link.monitor

    async def failing(this, subscription, watched):
        if any(each.handle == requests.TREE for each in watched):
            raise LinkError("monitor: the server answered BadMonitoredItemFilterUnsupported")
        return await monitor(this, subscription, watched)

    monkeypatch.setattr(link.Link, "monitor", failing)
    async with opened(peer, rebrowse_interval="1s") as session:
        await peer.request(PLACE)
        assert (await next_record(session)).place == PLACE
        await peer.grow(NEW, 101)
        await peer.request(NEW)
        assert (await next_record(session)).place == NEW


async def test_what_a_new_record_holds_comes_once_and_then_at_each_change(peer):
    """Under `when: change` it is read once when it is found, as after a connect."""
    site = read_site()
    site["flows"] = {"batteries": site["flows"]["batteries"]}
    site["flows"]["batteries"]["submit"] = {"when": "change"}
    context = peer.context(rebrowse_interval="1h")._replace(selections=selections_of(site))
    async with opened_with(context) as session:
        arrivals = await session.receive()
        await peer.grow(NEW, 101)
        found = await next_record(session)
        await peer.set(f"{ASSETS}/{NEW}/MaxExport_kW", 1)
        changed = await next_record(session)
    assert len(arrivals) == 3
    assert [(each.place, each.fields["export_kw"].value) for each in (found, changed)] == [(NEW, 49500), (NEW, 1)]


async def test_a_record_that_is_still_being_made_is_taken_when_it_is_whole(peer, monkeypatch, caplog):
    """Nodes come one after another. What is there twice in the same form is taken as it is."""
    async with opened(peer, rebrowse_interval="1h") as session:
        monkeypatch.setattr(lookout, "SETTLE_S", 0.3)
        coming = asyncio.create_task(next_record(session))
        await peer.grow(NEW, 101, without=["Registration/Request", "Registration/RequestSeq"])
        await until(lambda: session._lookout._growing)
        await peer.order("grow", variables=[
            {"path": f"{ASSETS}/{NEW}/Registration/{name}", "type": kind, "value": value}
            for name, kind, value in (("RequestSeq", "UInt32", 7), ("Request", "Int32", 1))
        ])  # fmt: skip
        record = await coming
    assert (record.place, record.request) == (NEW, "7")
    assert not told(caplog.records, "opcua_nodes_missing")


async def test_a_record_that_lacks_a_node_for_good_is_taken_without_it(peer):
    """As at the opening of a session: the field is absent there."""
    async with opened(peer, rebrowse_interval="1h") as session:
        await peer.grow(NEW, 101, without=["ExportMPAN"])
        await peer.request(NEW)
        record = await next_record(session)
    assert record.place == NEW
    assert record.fields["export_mpan"].absent


async def test_a_node_that_a_record_lacked_is_met_by_a_new_session(peer):
    """Its nodes, types and watched variables were found when the session opened."""
    await peer.grow(NEW, 101, without=["ExportMPAN"])
    async with opened(peer, rebrowse_interval="1h") as session:
        await peer.order(
            "grow", variables=[{"path": f"{ASSETS}/{NEW}/ExportMPAN", "type": "String", "value": "1310000000040"}]
        )
        with pytest.raises(LinkError, match=r"BESS101 of flow batteries has got nodes that it lacked"):
            await next_record(session)


async def test_a_record_that_was_taken_away_is_told_once_and_met_anew_when_it_comes_back(peer, caplog):
    """The others go on. A node that is made again is another, though it has the same id: what watched it watches nothing."""
    async with opened(peer, rebrowse_interval="1s") as session:
        await peer.prune("BESS003")
        await until(lambda: told(caplog.records, "opcua_records_gone"))
        await peer.request(PLACE)
        assert (await next_record(session)).place == PLACE
        await peer.order("grow")
        with pytest.raises(LinkError, match=r"BESS003 of flow batteries was made anew on the server"):
            await next_record(session)
    (entry,) = told(caplog.records, "opcua_records_gone")
    assert (entry.flow, entry.count, entry.first_place) == ("batteries", 1, "BESS003")


async def made_anew(peer, session):
    """Takes a record away and puts it back at once: the session hears of it, and ends."""
    coming = asyncio.create_task(next_record(session))
    await until(lambda: all(each.watched.lived for each in session._handles))
    await peer.prune("BESS003")
    await peer.order("grow")
    with pytest.raises(LinkError, match=r"BESS003 of flow batteries was made anew on the server"):
        await coming


async def test_a_record_that_is_made_anew_in_one_go_is_met_by_a_new_session(peer):
    """There is no moment in which it could be missed in the tree; the server says that what was watched is not there any more."""
    async with opened(peer, rebrowse_interval="1h") as session:
        await made_anew(peer, session)


async def test_what_is_listed_by_node_ids_is_met_anew_too(peer):
    """Its names never change, and its nodes can be others all the same."""
    flow = read_site()["flows"]["batteries"]
    base = f"ns=ems;s={ASSETS}/{{place}}"
    flow["records"] = {
        "places": [PLACE, "BESS003"],
        "key": "reference",
        "fields": {"reference": f"{base}/AssetReference"},
    }
    flow["submit"] = {
        name: f"{base}/Registration/{node}" for name, node in (("request", "Request"), ("sequence", "RequestSeq"))
    }
    flow["submit"]["when"] = "request"
    flow["outcome"] = {"state": f"{base}/Registration/State"}
    context = peer.context(rebrowse_interval="1h")._replace(selections=[selection_of("batteries", flow)])
    async with opened_with(context) as session:
        await made_anew(peer, session)


async def test_a_record_to_which_nodes_are_added_one_by_one_ends_one_session(peer):
    """Somebody who adds them by hand takes seconds for each: a session for each of them would be a link that is down."""
    await peer.grow(NEW, 101, without=["ExportMPAN", "Name"])
    async with opened(peer, rebrowse_interval="1h") as session:
        growing, path = session._lookout._growing, f"{ASSETS}/{NEW}"
        await peer.order("grow", variables=[{"path": f"{path}/Name", "type": "String", "value": "Battery"}])
        await until(lambda: any(looks > 3 for _, looks in growing.values()))
        await peer.request(PLACE)
        assert (await next_record(session)).place == PLACE
        mpan = {"path": f"{path}/ExportMPAN", "type": "String", "value": "1310000000040"}
        await peer.order("grow", variables=[mpan])
        with pytest.raises(LinkError, match=r"BESS101 of flow batteries has got nodes that it lacked"):
            await next_record(session)


async def test_a_record_that_grows_no_further_is_met_by_a_new_session(peer):
    """What it still lacks it may lack for good."""
    await peer.grow(NEW, 101, without=["ExportMPAN", "Name"])
    async with opened(peer, rebrowse_interval="1h") as session:
        await peer.order("grow", variables=[{"path": f"{ASSETS}/{NEW}/Name", "type": "String", "value": "Battery"}])
        with pytest.raises(LinkError, match=r"BESS101 of flow batteries has got nodes that it lacked"):
            await next_record(session)


async def test_of_a_record_that_lacks_a_node_nothing_else_is_asked_for_again(peer, monkeypatch):
    """Thousands of records may lack the same node for good: at each look the server is asked for that, and for nothing that is known."""
    await peer.grow(NEW, 101, without=["ExportMPAN"])
    translated, read, looks = [], [], []
    async with opened(peer, rebrowse_interval="1h") as session:
        link, look = session._link, session._lookout._look
        translate, plain_read = link.translate, link.read
        roots = {each.root for each in session._places.values()}

        async def translating(paths):
            translated.extend(names for start, names in paths if start in roots)
            return await translate(paths)

        async def reading_of(nodes):
            read.extend(nodes)
            return await plain_read(nodes)

        async def looking(indexes, selection, named):
            await look(indexes, selection, named)
            looks.extend([selection.flow] if selection.flow == "batteries" else ())

        monkeypatch.setattr(session._lookout, "_look", looking)
        monkeypatch.setattr(link, "translate", translating)
        monkeypatch.setattr(link, "read", reading_of)
        session._lookout.stir()
        await until(lambda: looks)
    assert [names[-1][1] for names in translated] == ["ExportMPAN"]
    assert not read


async def test_a_flow_that_cannot_be_looked_at_is_in_no_other_flows_way(peer, monkeypatch, caplog):
    """Two records of one name below it, say: what is added for others is found all the same."""
    find_roots, site = lookout.find_roots, read_site()
    site["flows"] = {"failing": site["flows"]["batteries"], **site["flows"]}

    async def failing(link, indexes, selection):
        if selection.flow == "failing":
            raise LinkError("two nodes have one name")
        return await find_roots(link, indexes, selection)

    async with opened_with(peer.context(rebrowse_interval="1h")._replace(selections=selections_of(site))) as session:
        monkeypatch.setattr(lookout, "find_roots", failing)
        await peer.grow(NEW, 101)
        await peer.request(NEW)
        record = await next_record(session)
    assert (record.flow, record.place) == ("batteries", NEW)
    (entry,) = told(caplog.records, "opcua_look_failed")
    assert (entry.flow, entry.reason) == ("failing", "two nodes have one name")


async def test_a_server_that_cannot_be_looked_at_keeps_its_session(peer, monkeypatch, caplog):
    """What stands still works; the reason is told once."""
    looks = []

    async def failing(*_args, **_given):
        looks.append(1)
        raise LinkError("two nodes have one name")

    async with opened(peer, rebrowse_interval="1s") as session:
        monkeypatch.setattr(lookout, "find_roots", failing)
        session._lookout.stir()
        await until(lambda: len(looks) == 2)  # each of both flows
        session._lookout.stir()
        await until(lambda: len(looks) == 4)
        await peer.request(PLACE)
        assert (await next_record(session)).place == PLACE
    entries = told(caplog.records, "opcua_look_failed")
    assert [entry.flow for entry in entries] == list(read_site()["flows"])
    assert {entry.reason for entry in entries} == {"two nodes have one name"}
