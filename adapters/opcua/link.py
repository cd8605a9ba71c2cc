"""One OPC UA connection: opened with a certificate check, services cut to the server's limits, the library's errors translated."""

import asyncio
import logging
import struct
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

from cryptography import x509

from adapters.opcua.config import Mode, OpcUaOptions, Policy, Security
from adapters.opcua.library import Client, security_policies, ua, uacrypto
from adapters.opcua.requests import browse_description, browse_path, monitored_item, supertype_description
from adapters.opcua.trust import Identity, check_server, load_identity, load_trusted, load_user, parse_der
from adapters.opcua.words import hint_for, is_refusal, printable
from bridge.api import Clock, LinkError, LinkRefused

log = logging.getLogger("adapters.opcua")

Item = TypeVar("Item")
Result = TypeVar("Result")
NodeAttribute: TypeAlias = tuple[Any, int]

_LIBRARY_LOG: Final = "asyncua"
# A dead link is noticed within two of these: one to the next probe, one for its answer.
PROBE_S: Final = 3.0
SESSION_TIMEOUT_MS: Final = 30_000
CLOSE_S: Final = 2.0
_MODES: Final = {
    Mode.SIGN: ua.MessageSecurityMode.Sign,
    Mode.SIGN_AND_ENCRYPT: ua.MessageSecurityMode.SignAndEncrypt,
}
_POLICIES: Final = {
    Policy.BASIC256SHA256: security_policies.SecurityPolicyBasic256Sha256,
    Policy.AES128: security_policies.SecurityPolicyAes128Sha256RsaOaep,
    Policy.AES256: security_policies.SecurityPolicyAes256Sha256RsaPss,
}
_USERS: Final = {
    ua.UserTokenType.Anonymous: "anonymous users",
    ua.UserTokenType.UserName: "users with a password",
    ua.UserTokenType.Certificate: "users with a certificate",
    ua.UserTokenType.IssuedToken: "users with a token of another service",
}
_TOO_MUCH: Final = frozenset(
    {
        ua.StatusCodes.BadTooManyOperations,
        ua.StatusCodes.BadResponseTooLarge,
        ua.StatusCodes.BadRequestTooLarge,
        ua.StatusCodes.BadEncodingLimitsExceeded,
        ua.StatusCodes.BadTcpMessageTooLarge,
    }
)
_NO_FILTER: Final = frozenset(
    {
        ua.StatusCodes.BadMonitoredItemFilterUnsupported,
        ua.StatusCodes.BadMonitoredItemFilterInvalid,
        ua.StatusCodes.BadFilterNotAllowed,
        ua.StatusCodes.BadDeadbandFilterInvalid,
    }
)
# Service, our own limit per request, and the node where the server states its limit (OPC 10000-5, OperationLimitsType).
_LIMITS: Final = {
    "read": (1000, 11705),
    "write": (500, 11707),
    "call": (100, 11709),
    "browse": (200, 11710),
    "translate": (500, 11712),
    "monitor": (500, 11714),
}


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """The one place where the library's errors become ours."""
    try:
        yield
    except (LinkError, asyncio.CancelledError):
        raise
    except ua.UaStatusCodeError as error:
        name = status_name(error.code)
        kind = LinkRefused if is_refusal(name) else LinkError
        raise kind(f"{doing}: the server answered {name}", hint=hint_for(name)) from error
    except TimeoutError as error:
        raise LinkError(f"{doing}: no answer in time") from error
    except (OSError, ua.UaError, ValueError, TypeError, KeyError, EOFError, struct.error) as error:
        raise LinkError(f"{doing}: {type(error).__name__}: {printable(error)}") from error


def status_name(code: int) -> str:
    """The name of a status code, without the flags in its lower half."""
    name = ua.StatusCode(code & 0xFFFF0000).name
    return str(name) if name else f"0x{code:08X}"


class _GuardedClient(Client):  # type: ignore[misc]  # the library is untyped here
    """Never shows a password to whoever listens on a link that is only signed, and tells a refusal from a loss."""

    async def open_secure_channel(self, renew: bool = False) -> None:  # noqa: FBT001, FBT002 - the library's signature
        """A server that was just asked for its endpoints and now hangs up does so because of our certificate."""
        try:
            await super().open_secure_channel(renew)
        except ConnectionError as error:
            if renew or self.security_policy.Mode == ua.MessageSecurityMode.None_:
                raise
            raise LinkRefused(
                "the server hung up while the connection was secured", hint=hint_for("BadSecurityChecksFailed")
            ) from error

    def server_policy(self, token_type: Any) -> Any:
        """The server's way to take this kind of user; a kind that it does not take is refused here, for a server says no more than "invalid"."""
        offered = {policy.TokenType for policy in self._policy_ids}
        if offered and token_type not in offered:
            names = ", ".join(sorted(_USERS.get(each, str(each)) for each in offered))
            raise LinkRefused(
                f"the server takes no {_USERS.get(token_type, str(token_type))} here; it takes {names}",
                hint="set `user` and `password`, or `user_certificate` and `user_private_key`, or none of them, to what it takes",
            )
        policy = super().server_policy(token_type)
        unprotected = policy.SecurityPolicyUri in {None, "", security_policies.SecurityPolicyNone.URI}
        encrypted = self.security_policy.Mode == ua.MessageSecurityMode.SignAndEncrypt
        if token_type == ua.UserTokenType.UserName and unprotected and not encrypted:
            raise LinkRefused(
                "the server wants the password in plain text on a link that is not encrypted",
                hint="use `mode: SignAndEncrypt`, or let the server's user token policy encrypt passwords",
            )
        return policy


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

    def __init__(self, options: OpcUaOptions, clock: Clock, url: str = "") -> None:
        # The library shows whole requests, a password among them, and tracebacks of what is translated here; a level that was set stays.
        library_log = logging.getLogger(_LIBRARY_LOG)
        if library_log.level == logging.NOTSET:
            library_log.setLevel(logging.CRITICAL + 1)
        self._options = options
        self._clock = clock
        self.url = url or options.url
        self._told: Callable[[str], None] | None = None
        self._broken = ""
        self._trusted: tuple[x509.Certificate, ...] = ()
        self._limits = {service: ours for service, (ours, _) in _LIMITS.items()}
        client = _GuardedClient(self.url, timeout=options.timeout, watchdog_intervall=PROBE_S)
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
                await self._secure(self._options.security)

            async def connection_lost(error: Exception) -> None:
                self._lost(f"the connection broke: {type(error).__name__}: {printable(error)}")

            self._client.connection_lost_callback = connection_lost
            await self._client.connect()
            await self._learn_limits()
        if self._options.security.policy is Policy.NONE:
            log.warning("opcua_link_not_protected", extra={"url": self.url})

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
            parameters.NodesToRead = [ua.ReadValueId(NodeId=node, AttributeId=attribute) for node, attribute in part]
            return list(await self._client.uaclient.session.read(parameters))

        return await self._chunked("read", nodes, call)

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

        return await self._chunked("write", values, call)

    async def call(self, requests: Sequence[Any]) -> list[Any]:
        """One CallMethodResult for each CallMethodRequest."""

        async def call(part: Sequence[Any]) -> list[Any]:
            return list(await self._client.uaclient.session.call(list(part)))

        return await self._chunked("call", requests, call)

    async def browse(self, nodes: Sequence[Any]) -> list[list[Any]]:
        """The children (ReferenceDescriptions, forward hierarchical) of each node."""

        async def call(part: Sequence[Any]) -> list[list[Any]]:
            results = await self._browse(part)
            found = [await self._all_references(result) for result in results if not _postponed(result)]
            for index, result in enumerate(results):
                if _postponed(result):
                    (alone,) = await self._browse(part[index : index + 1])
                    found.insert(index, await self._all_references(alone))
            return found

        return await self._chunked("browse", nodes, call)

    async def _browse(self, nodes: Sequence[Any]) -> list[Any]:
        parameters = ua.BrowseParameters()
        parameters.View.Timestamp = ua.get_win_epoch()
        parameters.RequestedMaxReferencesPerNode = 0
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

        return await self._chunked("browse", data_types, call)

    async def translate(self, paths: Sequence[tuple[Any, Sequence[tuple[int, str]]]]) -> list[Any | None]:
        """The node at the end of each (start, ((namespace index, browse name), …)), None where there is none."""

        async def call(part: Sequence[tuple[Any, Sequence[tuple[int, str]]]]) -> list[Any | None]:
            asked = [browse_path(start, names) for start, names in part]
            results = await self._client.uaclient.session.translate_browsepaths_to_nodeids(asked)
            return [
                result.Targets[0].TargetId if result.StatusCode.is_good() and result.Targets else None
                for result in results
            ]

        return await self._chunked("translate", paths, call)

    async def subscribe(self, keep_alive_s: float, callback: Callable[[Any], Awaitable[None]]) -> Subscribed:
        """Create a subscription whose publish responses go to `callback`, awaited one by one."""
        interval_s = self._options.publishing_interval
        parameters = ua.CreateSubscriptionParameters()
        parameters.RequestedPublishingInterval = interval_s * 1000
        parameters.RequestedMaxKeepAliveCount = max(1, round(keep_alive_s / interval_s))
        parameters.RequestedLifetimeCount = 10 * parameters.RequestedMaxKeepAliveCount
        parameters.MaxNotificationsPerPublish = 10_000
        parameters.PublishingEnabled = True
        session = self._client.uaclient.session
        with translated("subscribing"):
            result = await session.create_subscription(parameters, callback)
        # The library ends its publish loop without a word when the server has no subscription any more.
        loop = getattr(session, "_publish_task", None)
        if loop is not None:
            loop.add_done_callback(lambda _: self._lost("the server has ended the subscription"))
        if result.RevisedPublishingInterval > interval_s * 1000 * 1.01:
            log.warning(
                "opcua_interval_revised",
                extra={"asked_ms": interval_s * 1000, "given_ms": result.RevisedPublishingInterval},
            )
        return Subscribed(
            result.SubscriptionId, result.RevisedPublishingInterval / 1000, result.RevisedMaxKeepAliveCount
        )

    async def monitor(self, subscription: int, watched: Sequence[tuple[Any, float]]) -> list[Monitored]:
        """Watch the values of these nodes, each with its deadband (0: none), their positions being the client handles.

        A server that has no deadbands for a node watches it without.
        """

        async def call(part: Sequence[tuple[int, Any, float]]) -> list[Monitored]:
            parameters = ua.CreateMonitoredItemsParameters()
            parameters.SubscriptionId = subscription
            parameters.TimestampsToReturn = ua.TimestampsToReturn.Source
            parameters.ItemsToCreate = [self._monitored(*each) for each in part]
            results = await self._client.uaclient.session.create_monitored_items(parameters)
            return [
                Monitored(each.StatusCode.value, each.RevisedSamplingInterval / 1000, each.RevisedQueueSize)
                for each in results
            ]

        asked = [(handle, node, deadband) for handle, (node, deadband) in enumerate(watched)]
        found = await self._chunked("monitor", asked, call)
        again = [each for each, made in zip(asked, found, strict=True) if each[2] and made.code in _NO_FILTER]
        plain = await self._chunked("monitor", [(handle, node, 0.0) for handle, node, _ in again], call)
        for (handle, _, _), made in zip(again, plain, strict=True):
            found[handle] = made
        return found

    def _monitored(self, handle: int, node: Any, deadband: float) -> Any:
        return monitored_item(handle, node, self._options.sampling_interval, self._options.queue_size, deadband)

    async def _secure(self, security: Security) -> None:
        """Ask the server who it is, check that against the trust list, and only then prepare the secured connection."""
        identity = await asyncio.to_thread(
            load_identity, security, self._options.application_uri, self._clock.wall_ns()
        )
        self._trusted = await asyncio.to_thread(load_trusted, security)
        endpoint = _choose(await self._client.connect_and_get_server_endpoints(), security)
        certificate = parse_der(endpoint.ServerCertificate or b"")
        check_server(certificate, endpoint.Server.ApplicationUri, self._trusted, self._clock.wall_ns())
        await self._arm(security, identity, endpoint.ServerCertificate)

    async def _arm(self, security: Security, identity: Identity, server_certificate: bytes) -> None:
        client = self._client
        client.application_uri = identity.application_uri
        client.certificate_validator = self._validate
        if security.user is not None and security.password is not None:
            client.set_user(security.user)
            client.set_password(security.password.reveal())
        user = await asyncio.to_thread(load_user, security, self._clock.wall_ns())
        if user is not None:
            client.user_certificate, client.user_private_key = user.certificate, user.private_key
        await client.set_security(
            _POLICIES[security.policy],
            uacrypto.CertProperties(identity.certificate, "der"),
            uacrypto.CertProperties(identity.private_key, identity.key_form),
            server_certificate=uacrypto.CertProperties(server_certificate, "der"),
            mode=_MODES[security.mode],
        )

    async def _validate(self, certificate: x509.Certificate, server: Any) -> None:
        """The library's hook, called before the session is activated: the discovery that came before was not authenticated."""
        check_server(certificate, server.ApplicationUri, self._trusted, self._clock.wall_ns())

    async def _learn_limits(self) -> None:
        nodes = [ua.NodeId(node) for _, node in _LIMITS.values()]
        values = [
            *await self.read_values(nodes[:5]),
            *await self.read_values(nodes[5:]),
        ]  # some take five, and say so there
        for service, value in zip(_LIMITS, values, strict=True):
            stated = value.Value.Value if value.Value is not None and value.StatusCode.is_good() else 0
            if isinstance(stated, int) and stated > 0:
                self._limits[service] = min(self._limits[service], stated)

    async def _all_references(self, result: Any) -> list[Any]:
        """All pages; raises `LinkError` where a page is missing, for what is left out would be taken as not there."""
        references = list(result.References or ())
        while result.ContinuationPoint:
            parameters = ua.BrowseNextParameters()
            parameters.ContinuationPoints = [result.ContinuationPoint]
            (result,) = await self._client.uaclient.session.browse_next(parameters)
            if result.StatusCode.value & 0x80000000:
                raise LinkError(f"browsing: the server answered {status_name(result.StatusCode.value)} for the rest")
            references.extend(result.References or ())
        if _postponed(result):
            raise LinkError("browsing: the server has no continuation point even for one node alone")
        return references

    async def _chunked(
        self, service: str, items: Sequence[Item], call: Callable[[Sequence[Item]], Awaitable[list[Result]]]
    ) -> list[Result]:
        """Call in parts of at most the server's limit; a server that finds a part too large gets half of it from then on."""
        results: list[Result] = []
        with translated(service):
            while len(results) < len(items):
                size = self._limits[service]
                part = items[len(results) : len(results) + size]
                try:
                    answered = await call(part)
                except ua.UaStatusCodeError as error:
                    if error.code not in _TOO_MUCH or len(part) == 1:
                        raise
                    self._limits[service] = max(1, len(part) // 2)
                    continue
                if len(answered) != len(part):
                    raise LinkError(f"{service}: {len(answered)} results for {len(part)} items")
                results.extend(answered)
        return results


def _postponed(result: Any) -> bool:
    """A server that keeps too few continuation points for all nodes of a request wants to be asked again for the rest (OPC 10000-4, 5.9.2)."""
    return bool(result.StatusCode.value == ua.StatusCodes.BadNoContinuationPoints)


def _choose(endpoints: Sequence[Any], security: Security) -> Any:
    policy, mode = _POLICIES[security.policy].URI, _MODES[security.mode]
    for endpoint in endpoints:
        if endpoint.SecurityPolicyUri == policy and endpoint.SecurityMode == mode:
            return endpoint
    offered = sorted(
        {f"{str(each.SecurityPolicyUri).rpartition('#')[2]}/{each.SecurityMode.name}" for each in endpoints}
    )
    raise LinkRefused(
        f"the server does not offer {security.policy.value}/{security.mode.value}; it offers {printable(', '.join(offered))}",
        hint="choose one of these in `security:`, or have the EMS enable the one you want",
    )
