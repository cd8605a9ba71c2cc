"""One OPC UA connection: opened with a certificate check, services cut to the server's limits, the library's errors translated."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from adapters.opcua.channel import GuardedClient, look_for_offer, secure
from adapters.opcua.config import OpcUaOptions, Policy
from adapters.opcua.errors import status_name, translated
from adapters.opcua.library import ua
from adapters.opcua.parts import LIMITS, Parts
from adapters.opcua.requests import Asked, browse_description, browse_paths, monitored_item, supertype_description
from adapters.opcua.words import printable
from bridge.api import Certified, Clock, LinkError, unseen

log = logging.getLogger("adapters.opcua")

NodeAttribute: TypeAlias = tuple[Any, int]

_NO_ENCODING: Final = ua.QualifiedName()  # one for all: the library would make one for each node of each request
_LIBRARY_LOG: Final = "asyncua"
# A dead link is noticed within two of these: one to the next probe, one for its answer.
PROBE_S: Final = 3.0
SESSION_TIMEOUT_MS: Final = 30_000
CLOSE_S: Final = 2.0
MOST_REFERENCES: Final = (
    200  # in one answer to a browse: it is decoded in one step, in which nothing else goes on in this process
)
_NOT_OFFERED: Final = frozenset({ua.StatusCodes.BadSecurityModeRejected, ua.StatusCodes.BadSecurityPolicyRejected})
_NO_FILTER: Final = frozenset(
    {
        ua.StatusCodes.BadMonitoredItemFilterUnsupported,
        ua.StatusCodes.BadMonitoredItemFilterInvalid,
        ua.StatusCodes.BadFilterNotAllowed,
        ua.StatusCodes.BadDeadbandFilterInvalid,
    }
)


class Subscribed(NamedTuple):
    """A subscription as the server made it: its id, its publishing interval (s), and how many of those may pass without a word."""

    id: int
    interval_s: float
    keep_alive_count: int

    @property
    def quiet_s(self) -> float:
        """The longest time without a word."""
        return self.interval_s * self.keep_alive_count


class Monitored(NamedTuple):
    """What became of one watched node: its status code, and how often (s) and how deep the server really samples it."""

    code: int
    sampling_s: float
    queue: int


class Link:
    """Services of one client object, which serves one connection and is never used again."""

    def __init__(self, options: OpcUaOptions, clock: Clock, url: str = "", certified: Certified = unseen) -> None:
        # The library shows whole requests, a password among them, and tracebacks of what is translated here; a level that was set stays.
        library_log = logging.getLogger(_LIBRARY_LOG)
        if library_log.level == logging.NOTSET:
            library_log.setLevel(logging.CRITICAL + 1)
        self._options = options
        self._clock = clock
        self._certified = certified
        self.url = url or options.url
        self._told: Callable[[str], None] | None = None
        self._broken = ""
        self._parts = Parts(options.timeout)
        client = GuardedClient(self.url, timeout=options.timeout, watchdog_intervall=PROBE_S)
        client.name = client.description = "smp-bridge"
        client.product_uri = "urn:smp-bridge"
        client.session_timeout = SESSION_TIMEOUT_MS
        self._client = client

    def listen(self, lost: Callable[[str], None]) -> None:
        """`lost` is called with the reason when the connection or the subscription ends, at once if it has ended already."""
        self._told = lost
        if self._broken:
            lost(self._broken)

    def _lost(self, reason: str) -> None:
        self._broken = self._broken or reason
        if self._told is not None:
            self._told(reason)

    async def open(self) -> None:
        """Connect and learn the server's limits. Raises `LinkError` or `LinkRefused`."""
        with translated(f"connecting to {self.url}"):
            if self._options.security.policy is not Policy.NONE:
                await secure(self._client, self._options, self._clock, self._certified)

            async def connection_lost(error: Exception) -> None:
                self._lost(f"the connection broke: {type(error).__name__}: {printable(error)}")

            self._client.connection_lost_callback = connection_lost
            await self._connect()
            await self._learn_limits()
        if self._options.security.policy is Policy.NONE:
            log.warning("opcua_link_not_protected", extra={"url": self.url})

    async def _connect(self) -> None:
        try:
            await self._client.connect()
        except ua.UaStatusCodeError as error:
            if self._options.security.policy is Policy.NONE and error.code in _NOT_OFFERED:
                await look_for_offer(self._client, self._options.security)
            raise

    async def close(self) -> None:
        """Say good-bye where that is quick, then make sure that neither a socket nor a task of the library stays."""
        protocol = self._client.uaclient.protocol
        try:
            async with asyncio.timeout(CLOSE_S):
                with translated("closing"):
                    await self._client.disconnect()
        except (TimeoutError, LinkError) as error:
            log.debug("opcua_close_failed", extra={"error": printable(error)})
        finally:
            if protocol is not None and protocol.transport is not None:
                protocol.transport.abort()

    def abort(self) -> None:
        """Break the connection at once; every call that waits fails."""
        protocol = self._client.uaclient.protocol
        if protocol is not None and protocol.transport is not None:
            protocol.transport.abort()

    async def read(self, nodes: Sequence[NodeAttribute]) -> list[Any]:
        """One DataValue for each (node id, attribute), with the source's time."""

        async def call(part: Sequence[NodeAttribute]) -> list[Any]:
            parameters = ua.ReadParameters()
            parameters.MaxAge = 0
            parameters.TimestampsToReturn = ua.TimestampsToReturn.Source
            parameters.NodesToRead = [
                ua.ReadValueId(NodeId=node, AttributeId=attribute, DataEncoding=_NO_ENCODING)
                for node, attribute in part
            ]
            return list(await self._client.uaclient.session.read(parameters))

        return await self._parts.run("read", nodes, call)

    async def read_values(self, nodes: Sequence[Any]) -> list[Any]:
        """One DataValue for each node's value."""
        return await self.read([(node, ua.AttributeIds.Value) for node in nodes])

    async def write(self, values: Sequence[tuple[Any, Any]]) -> list[int]:
        """One status code for each (node id, Variant). Nothing but the value is sent: many servers refuse a status or a time."""

        async def call(part: Sequence[tuple[Any, Any]]) -> list[int]:
            parameters = ua.WriteParameters()
            parameters.NodesToWrite = [
                ua.WriteValue(
                    NodeId=node, AttributeId=ua.AttributeIds.Value, Value=ua.DataValue(variant, StatusCode=None)
                )
                for node, variant in part
            ]
            return [status.value for status in await self._client.uaclient.session.write(parameters)]

        return await self._parts.run("write", values, call)

    async def call(self, requests: Sequence[Any]) -> list[Any]:
        """One CallMethodResult for each CallMethodRequest."""

        async def call(part: Sequence[Any]) -> list[Any]:
            return list(await self._client.uaclient.session.call(list(part)))

        return await self._parts.run("call", requests, call)

    async def browse(self, nodes: Sequence[Any]) -> list[list[Any]]:
        """The children (ReferenceDescriptions, forward hierarchical) of each node."""

        async def call(part: Sequence[Any]) -> list[list[Any]]:
            results = await self._browse(part)
            found = [await self._all_references(result) for result in results if not _postponed(result)]
            for index, result in enumerate(results):
                if _postponed(result):
                    found.insert(index, await self._all_references(await self._browse_alone(part[index])))
            return found

        return await self._parts.run("browse", nodes, call)

    async def _browse_alone(self, node: Any) -> Any:
        """In one answer where the server has no continuation point even for one node alone."""
        (result,) = await self._browse([node])
        if _postponed(result):
            (result,) = await self._browse([node], most=0)
        return result

    async def _browse(self, nodes: Sequence[Any], most: int | None = None) -> list[Any]:
        """At most so many references of each node, 0: as many as the server gives."""
        parameters = ua.BrowseParameters()
        parameters.View.Timestamp = ua.get_win_epoch()
        parameters.RequestedMaxReferencesPerNode = MOST_REFERENCES if most is None else most
        parameters.NodesToBrowse = [browse_description(node) for node in nodes]
        return list(await self._client.uaclient.session.browse(parameters))

    async def supertypes(self, data_types: Sequence[Any]) -> list[Any | None]:
        """The data type that each of these was derived from, None where the server does not say."""

        async def call(part: Sequence[Any]) -> list[Any | None]:
            parameters = ua.BrowseParameters()
            parameters.View.Timestamp = ua.get_win_epoch()
            parameters.RequestedMaxReferencesPerNode = 1
            parameters.NodesToBrowse = [supertype_description(node) for node in part]
            results = await self._client.uaclient.session.browse(parameters)
            return [result.References[0].NodeId if result.References else None for result in results]

        return await self._parts.run("browse", data_types, call)

    async def translate(self, paths: Sequence[tuple[Any, Sequence[tuple[int, str]]]]) -> list[Any | None]:
        """The node at the end of each (start, ((namespace index, browse name), …)), None where there is none."""

        async def call(part: Sequence[tuple[Any, Sequence[tuple[int, str]]]]) -> list[Any | None]:
            asked = browse_paths(part)
            results = await self._client.uaclient.session.translate_browsepaths_to_nodeids(asked)
            return [
                result.Targets[0].TargetId if result.StatusCode.is_good() and result.Targets else None
                for result in results
            ]

        return await self._parts.run("translate", paths, call)

    async def subscribe(
        self, keep_alive_s: float, callback: Callable[[Any], Awaitable[None]], *, more: bool = False
    ) -> Subscribed | None:
        """Create a subscription whose publish responses go to `callback`, awaited one by one. With `more`, None where the server allows no more of them."""
        interval_s = self._options.publishing_interval
        parameters = ua.CreateSubscriptionParameters()
        parameters.RequestedPublishingInterval = interval_s * 1000
        parameters.RequestedMaxKeepAliveCount = max(1, round(keep_alive_s / interval_s))
        parameters.RequestedLifetimeCount = 10 * parameters.RequestedMaxKeepAliveCount
        parameters.MaxNotificationsPerPublish = 10_000
        parameters.PublishingEnabled = True
        session = self._client.uaclient.session
        with translated("subscribing"):
            try:
                result = await session.create_subscription(parameters, callback)
            except ua.UaStatusCodeError:
                if more:
                    return None
                raise
        if not more:
            # The library ends its publish loop without a word when the server has no subscription any more.
            loop = getattr(session, "_publish_task", None)
            if loop is not None:
                loop.add_done_callback(lambda _: self._lost("the server has ended the subscription"))
        return Subscribed(
            result.SubscriptionId, result.RevisedPublishingInterval / 1000, result.RevisedMaxKeepAliveCount
        )

    async def unsubscribe(self, subscription: int) -> None:
        """Give a subscription back."""
        with translated("unsubscribing"):
            await self._client.uaclient.session.delete_subscriptions([subscription])

    async def monitor(self, subscription: int, watched: Sequence[Asked]) -> list[Monitored]:
        """Asked the values of these nodes. A server that has no deadbands for a node watches it without."""

        async def call(part: Sequence[Asked]) -> list[Monitored]:
            parameters = ua.CreateMonitoredItemsParameters()
            parameters.SubscriptionId = subscription
            parameters.TimestampsToReturn = ua.TimestampsToReturn.Source
            parameters.ItemsToCreate = [monitored_item(each) for each in part]
            results = await self._client.uaclient.session.create_monitored_items(parameters)
            return [
                Monitored(each.StatusCode.value, each.RevisedSamplingInterval / 1000, each.RevisedQueueSize)
                for each in results
            ]

        found = await self._parts.run("monitor", watched, call)
        again = [index for index, made in enumerate(found) if watched[index].deadband and made.code in _NO_FILTER]
        plain = await self._parts.run("monitor", [watched[index]._replace(deadband=0.0) for index in again], call)
        for index, made in zip(again, plain, strict=True):
            found[index] = made
        return found

    async def _learn_limits(self) -> None:
        nodes = [ua.NodeId(node) for _, node in LIMITS.values()]
        values = [
            *await self.read_values(nodes[:5]),
            *await self.read_values(nodes[5:]),
        ]  # some take five, and say so there
        for service, value in zip(LIMITS, values, strict=True):
            if value.Value is not None and value.StatusCode.is_good():
                self._parts.learn(service, value.Value.Value)

    async def _all_references(self, result: Any) -> list[Any]:
        """All pages; raises `LinkError` where a page is missing, for what is left out would be taken as not there."""
        references = list(result.References or ())
        while result.ContinuationPoint:
            parameters = ua.BrowseNextParameters()
            parameters.ReleaseContinuationPoints = False  # the library's own word is that the rest is not wanted
            parameters.ContinuationPoints = [result.ContinuationPoint]
            (result,) = await self._client.uaclient.session.browse_next(parameters)
            if result.StatusCode.value & 0x80000000:
                raise LinkError(f"browsing: the server answered {status_name(result.StatusCode.value)} for the rest")
            references.extend(result.References or ())
        if _postponed(result):
            raise LinkError("browsing: the server has no continuation point even for one node alone")
        return references


def _postponed(result: Any) -> bool:
    """A server that keeps too few continuation points for all nodes of a request wants to be asked again for the rest (OPC 10000-4, 5.9.2)."""
    return bool(result.StatusCode.value == ua.StatusCodes.BadNoContinuationPoints)
