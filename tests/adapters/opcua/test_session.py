"""Sessions against a node-opcua server that misbehaves on order."""

import asyncio
import os
import signal
from datetime import UTC, datetime

import pytest
from opcua_peer import ASSETS, PLACES, UNIT, Peer
from opcua_session import PLACE, WITHIN_S, next_record, opened, reading, told
from opcua_site import options_of, outcome_writes, read_site, selection_of
from recorded import Recorded

from adapters.opcua import ADAPTER
from adapters.opcua.channel import GuardedClient
from adapters.opcua.library import ua
from adapters.opcua.link import Link, Monitored
from adapters.opcua.requests import monitored_item
from bridge.api import Address, Code, LinkError, OutcomeField, Quality, Record, SessionContext, Write

pytestmark = pytest.mark.asyncio(loop_scope="module")

BASE = f"{ASSETS}/{PLACE}"
REGISTRATION = f"{BASE}/Registration"


# requests


async def test_a_request_before_the_session_comes_once(peer):
    """What was asked before anybody connected is returned once, with the sequence as its request."""
    await peer.request(PLACE)
    async with opened(peer) as session:
        first = await next_record(session)
        await peer.request("BESS002")
        second = await next_record(session)
    assert (first.place, first.request) == (PLACE, "1")
    assert (second.place, second.request) == ("BESS002", "1")


async def test_a_repeated_request_comes_again_with_its_new_sequence(peer):
    """Each rise of the sequence while the request stands is a new record; the same state is not returned twice."""
    async with opened(peer) as session:
        await peer.request(PLACE)
        assert (await next_record(session)).request == "1"
        await peer.set(f"{REGISTRATION}/RequestSeq", 2)
        assert (await next_record(session)).request == "2"


async def test_a_request_taken_back_and_raised_again_under_the_same_sequence_comes_again(peer):
    """Zero arms the trigger anew; whether the repeat is new is the core's decision."""
    async with opened(peer) as session:
        await peer.request(PLACE)
        await next_record(session)
        await peer.set(f"{REGISTRATION}/Request", 0)
        await peer.request("BESS002")  # seen later than the zero: both travel in order
        assert (await next_record(session)).place == "BESS002"
        await peer.set(f"{REGISTRATION}/Request", 1)
        again = await next_record(session)
    assert (again.place, again.request) == (PLACE, "1")


async def test_a_sequence_that_moves_once_is_read_again(peer):
    """The record is read between two equal sequences; the second attempt is whole."""
    async with opened(peer) as session:
        await peer.order("tear", read=f"{BASE}/Name", bump=f"{REGISTRATION}/RequestSeq", times=1)
        await peer.request(PLACE)
        record = await next_record(session)
    assert not record.problem
    assert record.request == "2"


async def test_a_sequence_that_keeps_moving_makes_a_torn_record(peer):
    """After three attempts the record is returned with its problem, to be refused and not used."""
    async with opened(peer) as session:
        await peer.order("tear", read=f"{BASE}/Name", bump=f"{REGISTRATION}/RequestSeq", times=1000)
        await peer.request(PLACE)
        record = await next_record(session)
    assert "sequence moved" in record.problem
    assert not record.fields
    assert int(record.request) >= 4


async def test_values_of_bad_and_uncertain_quality_stay_what_they_are(peer):
    """A Bad value has no content and names its status; an Uncertain one keeps both; the others are good."""
    await peer.order("set", path=f"{BASE}/ImportMPAN", status="BadSensorFailure")
    await peer.order("set", path=f"{BASE}/MaxExport_kW", status="UncertainLastUsableValue")
    await peer.request(PLACE)
    async with opened(peer) as session:
        fields = (await next_record(session)).fields
    assert (fields["import_mpan"].quality, fields["import_mpan"].value) == (Quality.BAD, None)
    assert fields["import_mpan"].detail == "BadSensorFailure"
    assert (fields["export_kw"].quality, fields["export_kw"].value) == (Quality.UNCERTAIN, 49500)
    assert fields["export_kw"].detail == "UncertainLastUsableValue"
    others = {name: field for name, field in fields.items() if name not in {"import_mpan", "export_kw"}}
    assert {field.quality for field in others.values()} == {Quality.GOOD}


async def test_a_null_value_is_absent(peer):
    """The EMS does not have it: a default may stand in for it."""
    await peer.set(f"{BASE}/ExportMPAN", None)
    await peer.request(PLACE)
    async with opened(peer) as session:
        found = (await next_record(session)).fields["export_mpan"]
    assert found.absent
    assert (found.quality, found.value) == (Quality.GOOD, None)


async def test_a_trigger_of_bad_quality_asks_for_nothing_until_it_is_good(peer):
    """Neither a bad request nor a bad sequence is acted upon; the record comes once both are good."""
    async with opened(peer) as session:
        await peer.order("set", path=f"{REGISTRATION}/RequestSeq", status="BadWaitingForInitialData")
        await peer.set(f"{REGISTRATION}/Request", 1)
        await peer.request("BESS002")
        assert (await next_record(session)).place == "BESS002"
        await peer.set(f"{REGISTRATION}/RequestSeq", 5, status="Good")
        record = await next_record(session)
    assert (record.place, record.request) == (PLACE, "5")


async def test_source_times_are_the_servers(peer):
    """The source's own time travels to the nanosecond clock of the bridge."""
    await peer.set(f"{BASE}/Name", "North", source="2026-11-23T10:00:00.123Z")
    async with opened(peer) as session:
        found = await reading(session, "name")
    moment = datetime(2026, 11, 23, 10, 0, 0, 123000, tzinfo=UTC)
    assert found.source_ns == int(moment.timestamp()) * 1_000_000_000 + 123_000_000


async def test_a_unit_brings_its_list(peer):
    """An array of strings arrives as a tuple."""
    registration = f"{UNIT}/Registration"
    await peer.set(f"{registration}/RequestSeq", 9)
    await peer.set(f"{registration}/Request", 1)
    async with opened(peer) as session:
        record = await next_record(session)
    assert (record.flow, record.place) == ("unit", "UNIT01")
    assert record.fields["assets"].value == ("REF1", "REF2")


# the server's tree


async def test_an_unknown_namespace_is_named(peer):
    """The operator reads which URI is missing and which there are."""
    with pytest.raises(LinkError, match=r"no namespace urn:nobody; it has .*urn:acme:ems"):
        async with opened(peer, namespaces={"ems": "urn:nobody"}):
            pass


async def test_a_path_that_exists_nowhere_is_refused_at_opening(peer):
    """A mistake in the site's file shows when the session opens, with the path as written."""
    site = read_site()
    site["flows"]["batteries"]["records"]["fields"]["name"] = "Nmae"
    context = peer.context()._replace(selections=[selection_of("batteries", site["flows"]["batteries"])])
    with pytest.raises(LinkError, match=r"flow batteries: no record has ems:Nmae") as raised:
        await open_and_close(context)
    assert "compare" in raised.value.hint


async def test_an_each_that_matches_nothing_is_refused_at_opening(peer):
    """A wrong folder is told by its segment."""
    site = read_site()
    site["flows"]["batteries"]["records"]["each"] = "Objects/ems:EMS/ems:Nowhere/*"
    context = peer.context()._replace(selections=[selection_of("batteries", site["flows"]["batteries"])])
    with pytest.raises(LinkError, match=r"nothing on the server matches ems:Nowhere"):
        await open_and_close(context)


async def test_namespaces_may_be_numbered_anew_at_each_start(peer):
    """Prefixes are looked up by URI at each open."""
    for before in ([], ["urn:other:a", "urn:other:b"]):
        await peer.fresh(**({"namespaces": [*before, "urn:acme:ems"]} if before else {}))
        async with opened(peer) as session:
            assert (await reading(session, "reference")).value == "REF1"


@pytest.mark.serves(namespaces=["urn:other:a", "urn:other:b", "urn:acme:ems"])
async def test_node_ids_are_found_again_when_namespaces_are_numbered_anew(peer):
    """Their namespace is a URI, as that of a path."""
    async with asyncio.timeout(WITHIN_S), ADAPTER.open(by_node_ids(peer)) as session:
        assert (await reading(session, "reference", "BESS003")).value == "REF3"


LIMITS = {
    "maxNodesPerRead": 5,
    "maxNodesPerWrite": 2,
    "maxNodesPerBrowse": 1,
    "maxNodesPerTranslateBrowsePathsToNodeIds": 3,
    "maxMonitoredItemsPerCall": 2,
    "maxNodesPerMethodCall": 1,
}


@pytest.mark.serves(limits=LIMITS)
async def test_limits_of_the_server_are_kept(peer):
    """A server that takes five nodes a call gets five, none of its services more than it says, and everything still works."""
    for place in (PLACE, "BESS002"):
        await peer.request(place)
    async with asyncio.timeout(WITHIN_S), ADAPTER.open(by_method(peer)) as session:
        records: list[Record] = []
        while len(records) < 2:
            records += [record for arrival in await session.receive() for record in arrival.records]
        assert {record.problem for record in records} == {""}
        assert {field.quality for record in records for field in record.fields.values()} == {Quality.GOOD}
        written = await session.write(outcome_writes("batteries", PLACE))
    assert {entry.error for entry in written} == {""}
    await open_and_close(of_each(peer, "Objects/ems:EMS/*/*"))  # three folders are browsed
    assert (await peer.order("stats"))["largest"] == {
        "nodesToRead": 5,  # the limits themselves are the first five nodes
        "nodesToWrite": 2,
        "nodesToBrowse": 1,
        "browsePaths": 3,
        "itemsToCreate": 2,
        "methodsToCall": 1,
    }


@pytest.mark.serves(limits=LIMITS)
async def test_states_are_written_after_everything_else(peer):
    """An EMS that reacts to a state finds the rest of the outcome in place, also where the server takes two writes at a time."""
    async with opened(peer) as session:
        written = await session.write([*outcome_writes("batteries", PLACE), *outcome_writes("batteries", "BESS002")])
    assert [entry.address.name for entry in written][:2] == [OutcomeField.STATE, OutcomeField.TRANSACTION_ID]
    paths = [path.rpartition("/")[2] for path, _ in (await peer.order("stats"))["writes"]]
    assert paths[-2:] == ["State", "State"]
    assert "State" not in paths[:-2]


@pytest.mark.serves(twice=[BASE])
async def test_a_node_that_is_reached_over_two_references_is_one_place(peer):
    """Some servers both organise and contain a folder."""
    await peer.request(PLACE)
    async with opened(peer) as session:
        assert (await next_record(session)).place == PLACE


async def test_a_folder_with_nothing_in_it_is_no_trouble(peer):
    """The server answers for it with a list of nothing, as it does for a variable below which another glob looks."""
    async with asyncio.timeout(WITHIN_S), ADAPTER.open(of_each(peer, "Objects/ems:EMS/*/*")) as session:
        assert set(session.places("batteries")) == {*(f"Assets/{place}" for place in PLACES), "Units/UNIT01"}
    with pytest.raises(LinkError, match=r"nothing on the server matches ems:\*"):
        await open_and_close(of_each(peer, "Objects/ems:EMS/ems:Spare/*"))


@pytest.mark.serves(capabilities={"maxBrowseContinuationPoints": 1})
async def test_a_server_that_answers_in_pages_is_browsed_whole(peer, monkeypatch):
    """One reference a page, and one page that may be open: what the server postpones is asked for again."""
    monkeypatch.setattr("adapters.opcua.link.MOST_REFERENCES", 1)
    async with asyncio.timeout(WITHIN_S), ADAPTER.open(of_each(peer, "Objects/ems:EMS/*/*")) as session:
        assert set(session.places("batteries")) == {*(f"Assets/{place}" for place in PLACES), "Units/UNIT01"}
    assert (await peer.order("stats"))["pages"] >= 4


async def test_a_server_that_keeps_no_page_open_gives_all_in_one_answer(peer, monkeypatch):
    """What it postpones for every node is asked for without a bound."""
    browse = Link._browse

    async def unpaged(link, nodes, most=None):
        if most != 0:
            postponed = ua.StatusCode(ua.StatusCodes.BadNoContinuationPoints)
            return [ua.BrowseResult(StatusCode=postponed) for _ in nodes]
        return await browse(link, nodes, most)

    monkeypatch.setattr(Link, "_browse", unpaged)
    async with asyncio.timeout(WITHIN_S), ADAPTER.open(of_each(peer, "Objects/ems:EMS/ems:Assets/*")) as session:
        assert set(session.places("batteries")) == set(PLACES)


def of_each(peer: Peer, each: str) -> SessionContext:
    flow = read_site()["flows"]["batteries"]
    flow["records"]["each"] = each
    return peer.context()._replace(selections=[selection_of("batteries", flow)])


@pytest.mark.serves(capabilities={"maxMonitoredItems": 2})
async def test_what_the_server_does_not_watch_is_polled(peer, caplog):
    """Triggers beyond the server's limit of watched variables are told in the log, read at each opening, and asked for from then on."""
    await peer.request("BESS003")
    async with opened(peer, poll_interval="50ms") as session:
        record = await next_record(session)
        assert record.place == "BESS003"
        await peer.request("BESS002")
        assert (await next_record(session)).place == "BESS002"
        assert len((await peer.order("stats"))["subscriptions"]) == 1
        await peer.request("BESS001")  # one that is watched
        assert (await next_record(session)).place == "BESS001"
    (entry,) = told(caplog.records, "opcua_nodes_polled")
    assert (entry.count, entry.status) == (6, "BadTooManyMonitoredItems")


@pytest.mark.serves(capabilities={"maxMonitoredItemsPerSubscription": 2})
async def test_what_one_subscription_does_not_take_goes_into_another(peer, caplog):
    """Many servers keep few variables in each; nothing is polled for it, and each subscription tells its changes."""
    async with opened(peer) as session:
        assert len((await peer.order("stats"))["subscriptions"]) == 5  # eight variables and the tree
        for place in ("BESS003", "BESS001"):
            await peer.request(place)
            assert (await next_record(session)).place == place
    assert not told(caplog.records, "opcua_nodes_polled")


@pytest.mark.serves(capabilities={"maxMonitoredItemsPerSubscription": 2, "maxSubscriptionsPerSession": 2})
async def test_a_server_with_few_subscriptions_is_polled_for_the_rest(peer, caplog):
    """The status is that of the variables, for they are what is not watched."""
    async with opened(peer, poll_interval="50ms") as session:
        await peer.request("BESS003")
        assert (await next_record(session)).place == "BESS003"
    (entry,) = told(caplog.records, "opcua_nodes_polled")
    assert (entry.count, entry.status) == (4, "BadTooManyMonitoredItems")


async def test_it_tells_its_intervals_and_how_well_they_are_kept(peer, monkeypatch, caplog):
    """As configured and as the server revised them; a keep-alive measures as many publishing intervals as its count says."""
    monkeypatch.setattr("adapters.opcua.subscriptions.KEEP_ALIVE_S", 0.2)
    recorded = Recorded()
    context = peer.context(publishing_interval="20ms", sampling_interval="50ms")._replace(intervals=recorded)
    async with asyncio.timeout(WITHIN_S), ADAPTER.open(context):
        await recorded.until("keep_alive", 3)
        ((given_ms, keep_alives, _),) = (await peer.order("stats"))["subscriptions"]
    (configured, revised), (_, quiet) = recorded.said["publishing"], recorded.said["keep_alive"]
    assert (configured, recorded.said["keep_alive"][0]) == (0.02, 0.2)
    assert (revised, quiet) == (given_ms / 1000, given_ms / 1000 * keep_alives)
    assert revised > configured  # node-opcua publishes every 50 ms at most
    (warning,) = told(caplog.records, "opcua_interval_revised")
    assert (warning.adapter, warning.asked_ms, warning.given_ms) == ("ems", 20.0, given_ms)
    assert recorded.said["sampling"][0] == 0.05
    assert recorded.said["sampling"][1] > 0
    count = round(quiet / revised)
    assert count > 1
    for spacing in recorded.spacings["keep_alive"]:
        assert spacing / count in recorded.spacings["publishing"]
    assert sorted(recorded.spacings["keep_alive"])[1] >= 0.5 * quiet


async def test_changes_that_the_server_could_not_keep_are_counted_as_lost(peer, monkeypatch, caplog):
    """A queue that was made too short is told at once, its overflow bits are counted, and the newest value stands all the same."""

    def short(asked):
        return monitored_item(asked._replace(queue_size=2))  # as a server does that has no room for more

    monkeypatch.setattr("adapters.opcua.link.monitored_item", short)
    counted: list[int] = []
    context = peer.context(publishing_interval="500ms", sampling_interval="10ms", queue_size=50)
    async with asyncio.timeout(WITHIN_S), ADAPTER.open(context._replace(lost=counted.append)) as session:
        (entry,) = [entry for entry in caplog.records if entry.message == "opcua_queue_too_short"]
        assert entry.given == 2
        assert entry.needed >= 10
        assert not told(caplog.records, "opcua_changes_lost")
        await peer.order("flood", path=f"{REGISTRATION}/RequestSeq", times=40, every=25)
        await peer.set(f"{REGISTRATION}/Request", 1)
        record = await next_record(session)
        assert record.request == "40"
    losses = told(caplog.records, "opcua_changes_lost")
    assert losses
    assert counted == [entry.count for entry in losses]
    assert losses[-1].since_open == sum(counted)


async def test_a_queue_that_is_long_enough_loses_nothing(peer, caplog):
    """The same flood with the queue that the options give."""
    async with opened(peer, publishing_interval="500ms", sampling_interval="10ms", queue_size=50) as session:
        await peer.order("flood", path=f"{REGISTRATION}/RequestSeq", times=40, every=25)
        await peer.set(f"{REGISTRATION}/Request", 1)
        assert (await next_record(session)).request == "40"
    assert not told(caplog.records, "opcua_changes_lost")
    assert not told(caplog.records, "opcua_queue_too_short")


# other ways to records


def by_node_ids(peer: Peer, places=("BESS001", "BESS003"), **changes) -> SessionContext:
    site = read_site()
    flow = site["flows"]["batteries"]
    below = "ns=ems;s=EMS/Assets/{place}/"
    flow["records"]["fields"] = {name: below + path for name, path in flow["records"]["fields"].items()}
    flow["records"] = {**flow["records"], "each": None, "places": list(places)}
    for part in (flow["submit"], flow["outcome"]):
        part.update({name: below + path for name, path in part.items() if name != "when"})
    context = peer.context(writable=["ns=ems;s=EMS/Assets/*/Registration/*"], **changes)
    return context._replace(selections=[selection_of("batteries", flow)])


async def test_records_are_found_by_their_node_ids(peer):
    """Only the places that are named; read, requested and written as those that were browsed."""
    async with asyncio.timeout(WITHIN_S), ADAPTER.open(by_node_ids(peer)) as session:
        assert session.places("batteries") == ["BESS001", "BESS003"]
        await peer.request("BESS002")
        await peer.request("BESS003")
        record = await next_record(session)
        assert (record.place, record.fields["reference"].value, record.request) == ("BESS003", "REF3", "1")
        written = await session.write(outcome_writes("batteries", "BESS003"))
        assert [entry.error for entry in written] == [""] * 5
    assert await peer.value(f"{ASSETS}/BESS003/Registration/State") == 3


async def test_node_ids_that_are_not_there_are_told(peer, caplog):
    """For one place in the log, for all as an error."""
    async with asyncio.timeout(WITHIN_S), ADAPTER.open(by_node_ids(peer, ("BESS001", "BESS999"))) as session:
        assert (await reading(session, "reference", "BESS999")).quality is Quality.BAD
    assert told(caplog.records, "opcua_nodes_missing")
    with pytest.raises(LinkError, match="no record has ns=ems;s=EMS/Assets/{place}/AssetReference"):
        await open_and_close(by_node_ids(peer, ("BESS998", "BESS999")))


def by_method(peer: Peer, sequence="Objects/ems:EMS/ems:Register($place)", **changes) -> SessionContext:
    site = read_site()
    flow = site["flows"]["batteries"]
    flow["submit"]["sequence"] = sequence
    context = peer.context(methods=["Objects/ems:EMS/*"], **changes)
    return context._replace(selections=[selection_of("batteries", flow)])


@pytest.mark.parametrize("changes", [{}, {"watch": "polling", "poll_interval": "20ms"}], ids=["told", "polled"])
async def test_a_method_numbers_the_requests(peer, changes):
    """`Register(assetName)` of the EMS, called once for each request that is raised, and again only after it was taken back."""
    async with asyncio.timeout(WITHIN_S), ADAPTER.open(by_method(peer, **changes)) as session:
        await peer.request("BESS002")
        record = await next_record(session)
        assert (record.place, record.request, record.problem) == ("BESS002", "1", "")
        assert record.fields["reference"].value == "REF2"
        assert (await peer.order("stats"))["calls"] == [["BESS002"]]
        await peer.set(f"{ASSETS}/BESS002/Registration/Request", 0)
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(next_record(session))
            await asyncio.sleep(0.5)  # the request was seen to be taken back
            await peer.request("BESS002")
        assert (waiting.result().place, waiting.result().request) == ("BESS002", "2")
    async with asyncio.timeout(WITHIN_S), ADAPTER.open(by_method(peer, **changes)) as session:
        assert (await next_record(session)).request == "2"


async def test_a_request_is_numbered_again_after_a_cut(peer):
    """Nobody knows what became of the call: the next session asks again, and whether the number is new is the core's decision."""
    async with asyncio.timeout(WITHIN_S), ADAPTER.open(by_method(peer)) as session:
        await peer.request("BESS002")
        assert (await next_record(session)).request == "1"
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(ends(session))
            await peer.order("drop")
        assert isinstance(waiting.result(), LinkError)
    await peer.set(f"{ASSETS}/BESS002/Registration/RequestSeq", 2)
    async with asyncio.timeout(WITHIN_S), ADAPTER.open(by_method(peer)) as session:
        record = await next_record(session)
        assert (record.place, record.request, record.fields["reference"].value) == ("BESS002", "2", "REF2")
    assert (await peer.order("stats"))["calls"] == [["BESS002"], ["BESS002"]]


async def test_an_argument_may_be_a_field(peer):
    """Its value as the method's own type."""
    await peer.request("BESS003")
    async with (
        asyncio.timeout(WITHIN_S),
        ADAPTER.open(by_method(peer, "Objects/ems:EMS/ems:Count(export_kw)")) as session,
    ):
        record = await next_record(session)
    assert (record.request, record.problem) == ("49500", "")


async def test_a_record_that_keeps_moving_while_it_is_numbered_is_torn(peer):
    """It is read before and after the call until both are equal; the method is called once all the same."""
    async with asyncio.timeout(WITHIN_S), ADAPTER.open(by_method(peer)) as session:
        await peer.order("tear", read=f"{BASE}/Name", bump=f"{BASE}/MaxExport_kW", times=1000)
        await peer.request(PLACE)
        record = await next_record(session)
    assert (record.request, dict(record.fields)) == ("1", {})
    assert record.problem.startswith("a field moved in each of three attempts")
    assert (await peer.order("stats"))["calls"] == [[PLACE]]


async def test_a_method_that_refuses_is_the_records_problem(peer):
    """With the method and the status; the session goes on."""
    await peer.request("BESS001")
    async with (
        asyncio.timeout(WITHIN_S),
        ADAPTER.open(by_method(peer, "Objects/ems:EMS/ems:Register(name)")) as session,
    ):
        record = await next_record(session)
        assert record.problem == "Objects/ems:EMS/ems:Register: the server answered BadNoEntryExists"
        assert (await reading(session, "reference")).value == "REF1"
    async with (
        asyncio.timeout(WITHIN_S),
        ADAPTER.open(by_method(peer, "Objects/ems:EMS/ems:Register(export_kw)")) as session,
    ):
        assert "export_kw does not fit the type String" in (await next_record(session)).problem


async def test_a_method_that_is_not_there_or_takes_other_arguments_is_told_at_opening(peer):
    """With what it takes."""
    with pytest.raises(LinkError, match="the server has no method Objects/ems:EMS/ems:Enrol"):
        await open_and_close(by_method(peer, "Objects/ems:EMS/ems:Enrol($place)"))
    with pytest.raises(LinkError, match=r"takes 1 arguments \(assetName\), and 2 are given"):
        await open_and_close(by_method(peer, "Objects/ems:EMS/ems:Register($place, name)"))


# polling


async def test_polling_finds_requests_without_any_subscription(peer):
    """For a server whose subscriptions cannot be had or trusted; what was asked before is found at once."""
    recorded = Recorded()
    context = peer.context(watch="polling", poll_interval="50ms")._replace(intervals=recorded)
    async with asyncio.timeout(WITHIN_S), ADAPTER.open(context) as session:
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(next_record(session))
            await recorded.until("poll", 5)
            await peer.request("BESS002")
        assert (waiting.result().place, waiting.result().request) == ("BESS002", "1")
        await peer.request("BESS003")
        assert (await next_record(session)).place == "BESS003"
        assert (await peer.order("stats"))["subscriptions"] == []
    assert recorded.said["poll"] == (0.05, None)
    assert sum(recorded.spacings["poll"][:5]) >= 4 * 0.05  # on a grid: only the first may have been late
    assert "publishing" not in recorded.said


async def test_polling_ends_with_the_link(peer):
    """A poll that gets no answer is a lost link, as everywhere."""
    async with opened(peer, watch="polling", poll_interval="20ms") as session:
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(ends(session))
            await peer.order("drop")
        assert isinstance(waiting.result(), LinkError)


async def ends(session):
    try:
        await session.receive()
    except LinkError as error:
        return error


async def test_a_server_that_watches_nothing_is_no_use(peer, monkeypatch):
    """Without a single watched trigger nothing would ever be noticed: the session does not open."""

    async def refuse(_link, _subscription, nodes):
        return [Monitored(0x80DB0000, 0.0, 0) for _ in nodes]

    monkeypatch.setattr("adapters.opcua.link.Link.monitor", refuse)
    with pytest.raises(LinkError, match="BadTooManyMonitoredItems for every node"):
        await open_and_close(peer.context())


async def open_and_close(context: SessionContext) -> None:
    async with asyncio.timeout(WITHIN_S), ADAPTER.open(context):
        pass


# writing


async def test_an_outcome_stands_in_the_server_in_its_own_types(peer):
    """Int32, String, String[10], DateTime: each target gets its own type, padded and cut, and reads back as written."""
    lines = tuple(f"line {number}" for number in range(12))
    writes = outcome_writes("batteries", PLACE, state=Code(4, "refused"), code=Code(9999, "MPAN_UNKNOWN"), lines=lines)
    async with opened(peer) as session:
        written = await session.write(writes)
        back = await session.read([write.address for write in writes])
    assert {entry.error for entry in written} == {""}
    assert [found.value for found in back] == [entry.value for entry in written]
    assert await peer.value(f"{REGISTRATION}/State") == 4
    assert await peer.value(f"{REGISTRATION}/TransactionId") == "a0B123"
    assert await peer.value(f"{REGISTRATION}/ErrorCode") == 9999
    assert await peer.value(f"{REGISTRATION}/ErrorText") == list(lines[:10])
    assert await peer.value(f"{REGISTRATION}/LastUpdate") == "2026-11-23T00:00:00.123Z"


async def test_no_error_empties_every_line(peer):
    """What an earlier outcome left in a fixed array is overwritten with empty text."""
    await peer.set(f"{REGISTRATION}/ErrorText", [f"old {number}" for number in range(10)])
    async with opened(peer) as session:
        await session.write(outcome_writes("batteries", PLACE))
    assert await peer.value(f"{REGISTRATION}/ErrorText") == [""] * 10


async def test_a_null_that_stands_in_a_target_reads_back_as_empty(peer):
    """A server may keep an empty text or list as null: what was written is what stands there all the same."""
    await peer.set(f"{REGISTRATION}/TransactionId", None)
    await peer.set(f"{REGISTRATION}/ErrorText", None)
    async with opened(peer) as session:
        assert (await reading(session, OutcomeField.TRANSACTION_ID)).value == ""
        assert (await reading(session, OutcomeField.ERROR_TEXT)).value == ()


async def test_a_refused_write_fails_alone(peer):
    """The server's own status is the error of that one address."""
    await peer.order("refuse", path=f"{REGISTRATION}/ErrorCode", status="BadUserAccessDenied")
    async with opened(peer) as session:
        written = {entry.address.name: entry for entry in await session.write(outcome_writes("batteries", PLACE))}
    assert "BadUserAccessDenied" in written.pop(OutcomeField.ERROR_CODE).error
    assert {entry.error for entry in written.values()} == {""}


async def test_a_node_that_the_server_protects_is_an_error_of_its_address(peer):
    """`writable:` may allow what the server does not: its answer is passed on."""
    site = read_site()
    flow = site["flows"]["batteries"]
    flow["outcome"]["transactionId"] = "Registration/RequestSeq"
    context = peer.context()._replace(selections=[selection_of("batteries", flow)])
    address = Address("batteries", PLACE, OutcomeField.TRANSACTION_ID)
    async with asyncio.timeout(WITHIN_S), ADAPTER.open(context) as session:
        (written,) = await session.write([Write(address=address, value="17")])
    assert "the server answered Bad" in written.error
    assert await peer.value(f"{REGISTRATION}/RequestSeq") == 0


async def test_nothing_outside_writable_is_written(peer):
    """A field is no target, and a target outside the list is refused although the configuration was checked before."""
    async with opened(peer, writable=["Objects/ems:EMS/ems:Assets/*/ems:Registration/ems:S*"]) as session:
        field = Write(address=Address("batteries", PLACE, "export_kw"), value=0)
        refused, *written = await session.write([field, *outcome_writes("batteries", PLACE)])
    assert "outside `writable:`" in refused.error
    errors = {entry.address.name: entry.error for entry in written}
    assert errors.pop(OutcomeField.STATE) == ""
    assert all("outside `writable:`" in error for error in errors.values())
    assert [path for path, _ in (await peer.order("stats"))["writes"]] == [f"{REGISTRATION}/State"]


async def test_text_for_a_number_node_is_an_error_of_its_address(peer):
    """A transaction id that is text does not fit an Int32; nothing else suffers."""
    site = read_site()
    flow = site["flows"]["batteries"]
    flow["outcome"]["transactionId"] = "Registration/ErrorCode"
    del flow["outcome"]["errorCode"]
    context = peer.context()._replace(selections=[selection_of("batteries", flow)])
    async with asyncio.timeout(WITHIN_S), ADAPTER.open(context) as session:
        written = await session.write(
            [
                write
                for write in outcome_writes("batteries", PLACE)
                if write.address.name in {OutcomeField.STATE, OutcomeField.TRANSACTION_ID}
            ]
        )
    assert [entry.error == "" for entry in written] == [True, False]
    assert "String node" in written[1].error


# the link


async def test_a_dropped_connection_ends_the_session_at_once(peer):
    """`receive` and every later call raise `LinkError`."""
    async with opened(peer) as session, asyncio.TaskGroup() as group:
        group.create_task(peer.order("drop"))
        with pytest.raises(LinkError):
            async with asyncio.timeout(3):
                await session.receive()
        with pytest.raises(LinkError):
            await session.read([Address("batteries", PLACE, "reference")])


async def test_a_subscription_that_the_server_ends_ends_the_session(peer):
    """A server that drops subscriptions (a new configuration was loaded) is answered with a new session."""
    async with opened(peer) as session:
        assert (await peer.order("end-subscriptions"))["count"] >= 1
        with pytest.raises(LinkError, match="ended the subscription"):
            async with asyncio.timeout(3):
                await session.receive()


async def test_a_notification_that_never_came_ends_the_session(peer):
    """Its number is missing: what it told is read again after the next connect."""
    async with opened(peer) as session:
        await peer.request(PLACE)
        assert (await next_record(session)).request == "1"
        assert (await peer.order("skip-notification"))["count"] == 1
        await peer.request("BESS002")
        with pytest.raises(LinkError, match=r"notification \d+ was lost: \d+ came"):
            await session.receive()
    async with opened(peer) as session:
        places = {record.place for arrival in await session.receive() for record in arrival.records}
    assert places == {PLACE, "BESS002"}


async def test_a_subscription_that_falls_silent_ends_the_session(peer, monkeypatch):
    """The link lives and reads are answered, but nothing is published: after two missed keep-alives the session ends."""
    monkeypatch.setattr("adapters.opcua.subscriptions.KEEP_ALIVE_S", 0.2)
    async with opened(peer, timeout="1s") as session:
        await peer.mute()
        await peer.request(PLACE)
        with pytest.raises(LinkError, match="silent"):
            await session.receive()


async def test_keep_alives_are_heard(peer, monkeypatch):
    """While nothing changes the values stand: each keep-alive is a sign of health."""
    monkeypatch.setattr("adapters.opcua.subscriptions.KEEP_ALIVE_S", 0.2)
    heard: list[int] = []
    context = peer.context()._replace(heard=lambda: heard.append(1))
    async with asyncio.timeout(WITHIN_S), ADAPTER.open(context) as session:
        await peer.request(PLACE)
        await next_record(session)
        before = len(heard)
        while len(heard) == before:
            await asyncio.sleep(0.05)


async def test_a_frozen_server_ends_the_session(peer):
    """A link that is silent at both ends is noticed by the probe, within ten seconds."""
    async with opened(peer) as session:
        os.kill(peer.pid, signal.SIGSTOP)
        try:
            with pytest.raises(LinkError):
                async with asyncio.timeout(10):
                    await session.receive()
        finally:
            os.kill(peer.pid, signal.SIGCONT)


async def told_to_end(meeting, opening) -> None:
    """`opening` was cancelled in the turn in which `meeting` was met, and ended of it."""
    async with asyncio.timeout(WITHIN_S):
        await asyncio.wait({opening})
        await meeting.wait()
    assert opening.cancelled(), "the cancellation was lost"


async def test_a_cancellation_that_meets_the_connection_is_not_lost(peer, monkeypatch):
    """Python 3.11's `wait_for`, which the library waits in, then returns the connection: what is told to end would open, and stay open."""
    loop, met = asyncio.get_running_loop(), asyncio.Event()
    connect = loop.create_connection

    async def meeting(*args, **named):
        made = await connect(*args, **named)
        opening.cancel()
        met.set()
        return made

    monkeypatch.setattr(loop, "create_connection", meeting)
    opening = asyncio.create_task(open_and_close(peer.context()))
    await told_to_end(met, opening)
    assert (await peer.order("stats"))["sessions"] == 0


async def test_a_cancellation_that_meets_a_failed_connection_is_not_lost(peer, monkeypatch):
    """It counts for more than the failure, after which everything would be tried again."""
    loop, met = asyncio.get_running_loop(), asyncio.Event()

    async def meeting(*_, **__):
        opening.cancel()
        met.set()
        raise ConnectionRefusedError

    monkeypatch.setattr(loop, "create_connection", meeting)
    opening = asyncio.create_task(open_and_close(peer.context()))
    await told_to_end(met, opening)


async def test_a_cancellation_while_the_library_ends_its_tasks_is_not_lost(peer, monkeypatch):
    """It awaits each of them and takes whatever comes of that for the end of the task."""
    met = asyncio.Event()
    end = GuardedClient._cancel_task

    async def meeting(task):
        if task is not None and not task.done() and not met.is_set():
            asyncio.get_running_loop().call_soon(closing.cancel)
            met.set()
        await end(task)

    monkeypatch.setattr(GuardedClient, "_cancel_task", staticmethod(meeting))
    closing = asyncio.create_task(open_and_close(peer.context()))
    await told_to_end(met, closing)


async def test_a_session_that_was_closed_says_so(peer):
    """A call on a session after its end is a `LinkError`, not a surprise of the library."""
    async with opened(peer) as session:
        pass
    with pytest.raises(LinkError, match="closed"):
        await session.read([Address("batteries", PLACE, "reference")])


# when: change


def changing(peer: Peer, deadband=None, **changes) -> SessionContext:
    site = read_site()
    flow = site["flows"]["batteries"]
    flow["submit"] = {"when": "change", "deadband": deadband or {}}
    context = peer.context()
    return context._replace(options=options_of(site, url=peer.url, security=peer.security(), sampling_interval="10ms",
                                               publishing_interval="20ms", **changes),
                            selections=[selection_of("batteries", flow)])  # fmt: skip


async def test_under_change_every_record_comes_once_and_then_when_it_changes(peer):
    """All places first, then the one whose field changed, without a request id; the same content is not returned again."""
    async with asyncio.timeout(WITHIN_S), ADAPTER.open(changing(peer)) as session:
        first: list[Record] = []
        while len(first) < 3:
            first += [record for arrival in await session.receive() for record in arrival.records]
        assert sorted(record.place for record in first) == ["BESS001", "BESS002", "BESS003"]
        assert {record.request for record in first} == {None}
        await peer.set(f"{BASE}/MaxExport_kW", 50000)
        record = await next_record(session)
        assert (record.place, record.fields["export_kw"].value) == (PLACE, 50000)
        await peer.order("set", path=f"{BASE}/MaxExport_kW", status="UncertainNoCommunicationLastUsableValue")
        record = await next_record(session)
        assert record.fields["export_kw"].quality is Quality.UNCERTAIN


@pytest.mark.parametrize("changes", [{}, {"watch": "polling", "poll_interval": "20ms"}], ids=["told", "polled"])
async def test_a_number_must_move_by_more_than_its_deadband(peer, changes):
    """By the server's filter or by our own eyes; what moved meanwhile comes along with the next change that counts."""
    context = changing(peer, {"export_kw": 100, "voltage_kv": 0.5}, **changes)
    async with asyncio.timeout(WITHIN_S), ADAPTER.open(context) as session:
        first: list[Record] = []
        while len(first) < 3:
            first += [record for arrival in await session.receive() for record in arrival.records]
        # A place whose first values came in two parts is read twice: what is told after all of them has seen that, too.
        await peer.set(f"{ASSETS}/BESS003/Name", "Last")
        seen: list[object] = []
        while "Last" not in seen:
            seen += [record.fields["name"].value for arrival in await session.receive() for record in arrival.records]
        await peer.set(f"{BASE}/MaxExport_kW", 49590)
        await asyncio.sleep(0.1)
        await peer.set(f"{ASSETS}/BESS002/Name", "Renamed")
        record = await next_record(session)
        assert (record.place, record.fields["name"].value) == ("BESS002", "Renamed")
        await peer.set(f"{BASE}/MaxExport_kW", 49601)
        record = await next_record(session)
        assert (record.place, record.fields["export_kw"].value) == (PLACE, 49601)


async def test_records_are_read_before_their_fields_are_watched(peer):
    """Watching keeps a server busy; what moves between the two is told by the first notification, and so is not lost."""
    async with asyncio.timeout(WITHIN_S), ADAPTER.open(changing(peer)) as session:
        first: list[Record] = []
        while len(first) < 3:
            first += [record for arrival in await session.receive() for record in arrival.records]
        assert len((await peer.order("stats"))["monitored"]) == 1  # the tree
        await peer.set(f"{ASSETS}/BESS002/Name", "Renamed")
        record = await next_record(session)
        assert (record.place, record.fields["name"].value) == ("BESS002", "Renamed")


async def test_a_server_without_deadbands_is_watched_all_the_same(peer, caplog):
    """A text has none: the server refuses the filter, and tells every change; nothing need be polled."""
    async with asyncio.timeout(WITHIN_S), ADAPTER.open(changing(peer, {"name": 5})) as session:
        first: list[Record] = []
        while len(first) < 3:
            first += [record for arrival in await session.receive() for record in arrival.records]
        await peer.set(f"{BASE}/Name", "Renamed")
        assert (await next_record(session)).fields["name"].value == "Renamed"
    assert not told(caplog.records, "opcua_nodes_polled")
