"""What a server makes of subscriptions and watched variables, where none of our peers can be made to do it; without a server."""

import asyncio
from types import SimpleNamespace

from opcua_site import context_of, options_of, read_site
from recorded import Recorded

from adapters.opcua.library import ua
from adapters.opcua.link import Link, Monitored, Subscribed
from adapters.opcua.requests import Asked
from adapters.opcua.subscriptions import Subscriptions

OPTIONS = options_of(read_site(), url="opc.tcp://127.0.0.1:1", security={"policy": "None"}, publishing_interval="20ms")


def asked(count: int, deadband: float = 0.0) -> list[Asked]:
    return [Asked(number, ua.NodeId(f"V{number}", 2), 0.01, 10, deadband) for number in range(count)]


class Slowing:
    """A link whose server takes one variable in each subscription and makes them as slow as it likes."""

    url = "opc.tcp://127.0.0.1:1"

    def __init__(self, *intervals_s: float) -> None:
        self.intervals_s = list(intervals_s)

    async def subscribe(self, _keep_alive_s, _callback, *, more=False):
        if not self.intervals_s:
            assert more
            return None
        return Subscribed(len(self.intervals_s), self.intervals_s.pop(0), 10)

    async def monitor(self, _subscription, watched):
        full = Monitored(ua.StatusCodes.BadTooManyMonitoredItems, 0.0, 0)
        return [Monitored(0, 0.01, 10), *[full] * (len(watched) - 1)]


async def test_the_slowest_subscription_is_told_of_its_link(caplog):
    """Each time that one is slower than those before; the log names site, adapter and server."""
    recorded = Recorded()
    context = context_of(OPTIONS, [])._replace(intervals=recorded)
    subscriptions = Subscriptions(Slowing(0.05, 0.02, 0.1, 0.1), context, print, print)
    await subscriptions.open()
    assert recorded.said == {"publishing": (0.02, 0.05), "keep_alive": (2.0, 0.5)}
    await subscriptions.watch(asked(2))
    assert recorded.said["publishing"] == (0.02, 0.05)
    await subscriptions.watch(asked(2))
    assert recorded.said == {"publishing": (0.02, 0.1), "keep_alive": (2.0, 1.0)}
    told = [entry for entry in caplog.records if entry.message == "opcua_interval_revised"]
    assert [(entry.asked_ms, entry.given_ms) for entry in told] == [(20.0, 50.0), (20.0, 100.0)]
    assert {(entry.site, entry.adapter, entry.url) for entry in told} == {("test", "ems", Slowing.url)}


async def test_a_server_that_keeps_the_interval_is_not_warned_of(caplog):
    """The warning means something only while it is rare."""
    recorded = Recorded()
    subscriptions = Subscriptions(Slowing(0.02), context_of(OPTIONS, [])._replace(intervals=recorded), print, print)
    await subscriptions.open()
    assert recorded.said["publishing"] == (0.02, 0.02)
    assert not caplog.records


class NoFilters:
    """A session of the library whose server knows no deadbands."""

    def __init__(self) -> None:
        self.requests: list[list[bool]] = []

    async def create_monitored_items(self, parameters):
        filtered = [
            isinstance(item.RequestedParameters.Filter, ua.DataChangeFilter) for item in parameters.ItemsToCreate
        ]
        self.requests.append(filtered)
        refused = ua.StatusCode(ua.StatusCodes.BadMonitoredItemFilterUnsupported)
        return [
            ua.MonitoredItemCreateResult(
                StatusCode=refused if each else ua.StatusCode(0), RevisedSamplingInterval=10.0, RevisedQueueSize=10
            )
            for each in filtered
        ]


async def test_what_the_server_does_not_filter_is_watched_without(caplog):
    """Those alone that were refused for their deadband, and each in its own place of the answer."""
    context = context_of(OPTIONS, [])
    link, session = Link(OPTIONS, context.clock), NoFilters()
    link._client = SimpleNamespace(uaclient=SimpleNamespace(session=session))
    plain, filtered = asked(1), asked(2, deadband=5.0)
    made = await link.monitor(1, [filtered[0], *plain, filtered[1]])
    assert made == [Monitored(0, 0.01, 10)] * 3
    assert session.requests == [[True, False, True], [False, False]]


async def test_one_subscription_that_the_server_ends_is_a_lost_link():
    """Others may go on beside it, so that the library's loop does, too: its own last word is all that tells."""
    lost: list[str] = []
    subscriptions = Subscriptions(Slowing(0.05), context_of(OPTIONS, []), lambda _: None, lost.append)
    await subscriptions.open()
    ended = ua.StatusChangeNotification(Status=ua.StatusCode(ua.StatusCodes.BadTimeout))
    message = ua.NotificationMessage(SequenceNumber=1, NotificationData=[ended])
    await subscriptions._published(ua.PublishResult(SubscriptionId=1, NotificationMessage=message))
    assert lost == ["the subscription ended: BadTimeout"]


async def test_who_reads_what_changed_goes_before_the_next_publish_request():
    """The library asks for the next one when this returns; by then the read request has left, and the server answers it first."""
    changed, order = asyncio.Event(), []
    subscriptions = Subscriptions(Slowing(0.05), context_of(OPTIONS, []), lambda _: changed.set(), order.append)
    await subscriptions.open()

    async def read():
        await changed.wait()
        order.append("read")

    reading = asyncio.create_task(read())
    await asyncio.sleep(0)
    item = ua.MonitoredItemNotification(ClientHandle=0, Value=ua.DataValue(ua.Variant(1)))
    told = ua.DataChangeNotification(MonitoredItems=[item])
    message = ua.NotificationMessage(SequenceNumber=1, NotificationData=[told])
    await subscriptions._published(ua.PublishResult(SubscriptionId=1, NotificationMessage=message))
    order.append("publish")
    await reading
    assert order == ["read", "publish"]
