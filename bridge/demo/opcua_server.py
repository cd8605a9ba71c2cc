"""An OPC UA server for the simulated EMS: encrypted, with a user and a password, for one known client certificate alone."""

import asyncio
import hmac
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, Self

import asyncua
import asyncua.crypto.permission_rules
import asyncua.crypto.uacrypto
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from bridge.demo.opcua_keys import KeyFiles

# The library's annotations hold neither its own re-exports nor its generated types.
_asyncua: Any = asyncua
_permission_rules: Any = asyncua.crypto.permission_rules
ua: Final[Any] = _asyncua.ua

OBJECTS: Final = ua.NodeId(ua.ObjectIds.ObjectsFolder)
_READ: Final = ua.AccessLevel.CurrentRead.mask
_WRITE: Final = ua.AccessLevel.CurrentWrite.mask


class Login(NamedTuple):
    """Whom the server lets in."""

    user: str
    password: str
    certificate: x509.Certificate


class Variable(NamedTuple):
    """One variable of a folder: its type by name, its first value, and whether a client may write it. A list is an array of that length."""

    name: str
    type: str
    value: object
    writable: bool = False


class _OneUser:
    """asyncua's user manager for one user on one certificate, who may write what is writable and nothing else."""

    def __init__(self, login: Login) -> None:
        self._login = login
        self._certificate = login.certificate.public_bytes(Encoding.DER)

    def get_user(
        self, _iserver: Any, username: str | None = None, password: str | None = None, certificate: bytes | None = None
    ) -> Any:
        """The user, or None for anybody else."""
        known = (
            certificate == self._certificate
            and username == self._login.user
            and hmac.compare_digest((password or "").encode(), self._login.password.encode())
        )
        return _permission_rules.User(role=_permission_rules.UserRole.User, name=username) if known else None


class OpcUaServer:
    """Entered as an async context manager; nodes are added between `prepare` and entering. Left, no connection, session or task stays."""

    def __init__(self, *, name: str, application_uri: str, host: str, port: int) -> None:
        self.host = host
        self.port = port
        self.index = 0
        self._name = name
        self._application_uri = application_uri
        self._server: Any = None

    async def prepare(self, namespace: str, keys: KeyFiles, login: Login) -> None:
        """Build the standard nodes (this takes some two seconds) and the security; `index` is then the namespace's."""
        log = logging.getLogger("asyncua")
        # It would write over the demo's view, and shows whole requests; a level that was set stays.
        if log.level == logging.NOTSET:
            log.setLevel(logging.CRITICAL + 1)
        server = _asyncua.Server(user_manager=_OneUser(login))
        await server.init()
        server.disable_clock()  # its clock task would hold up closing by a second
        server.set_server_name(self._name)
        await server.set_application_uri(self._application_uri)
        server.set_endpoint(f"opc.tcp://{self.host}:{self.port}/")
        server.set_security_policy([ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt])
        server.set_identity_tokens([ua.UserNameIdentityToken])
        await server.load_certificate(keys.certificate)
        await server.load_private_key(keys.private_key)

        async def validate(certificate: x509.Certificate, _description: Any) -> None:
            if certificate != login.certificate:
                raise ua.UaStatusCodeError(ua.StatusCodes.BadCertificateUntrusted)

        server.iserver.certificate_validator = validate
        self.index = int(await server.register_namespace(namespace))
        self._server = server

    async def __aenter__(self) -> Self:
        await self._server.start()
        self.port = int(self._server.bserver.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        """The library leaves the sessions of lost connections to time out, and their tasks running: end them all."""
        connections = list(self._server.bserver.clients)
        for session in list(self._server.iserver._external_sessions.values()):  # noqa: SLF001 - there is no public list
            await session.close_session(True)
        await self._server.stop()
        tasks = [task for each in connections for task in (each._task, each._activation_watchdog_task) if task]  # noqa: SLF001 - nor of these
        if tasks:
            await asyncio.wait(tasks)
        closing = list(self._server.bserver.closing_tasks)
        if closing:
            await asyncio.wait(closing)

    def node(self, path: str) -> Any:
        """The node id of a path below Objects."""
        return ua.NodeId(path, self.index)

    async def add(self, folders: Sequence[tuple[str, Sequence[Variable]]]) -> None:
        """Add folders by their path below Objects, parents first, each with its variables; in one go, for the library is slow one by one."""
        items = []
        for path, variables in folders:
            items.append(self._folder(path))
            items += [self._variable(path, variable) for variable in variables]
        for result in await self._server.iserver.isession.add_nodes(items):
            result.StatusCode.check()

    async def put(self, path: str, type_name: str, value: object) -> None:
        """Set a variable as the EMS itself does, with its own time."""
        content = ua.DataValue(_variant(type_name, value), SourceTimestamp=datetime.now(UTC))
        await self._server.iserver.write_attribute_value(self.node(path), content)

    def get(self, path: str) -> Any:
        """A variable's value."""
        return self._server.iserver.read_attribute_value(self.node(path)).Value.Value

    def watch(self, path: str, changed: Callable[[Any], Awaitable[None]]) -> None:
        """Call `changed` with each value that is written into a variable, by whomever."""

        async def written(_handle: int, value: Any) -> None:
            await changed(value.Value.Value)

        status, _ = self._server.iserver.aspace.add_datachange_callback(self.node(path), ua.AttributeIds.Value, written)
        status.check()

    def _folder(self, path: str) -> Any:
        item = self._item(path, ua.ObjectIds.Organizes, ua.ObjectIds.FolderType)
        item.NodeClass = ua.NodeClass.Object
        item.NodeAttributes = ua.ObjectAttributes(DisplayName=ua.LocalizedText(item.BrowseName.Name))
        return item

    def _variable(self, folder: str, variable: Variable) -> Any:
        item = self._item(f"{folder}/{variable.name}", ua.ObjectIds.HasComponent, ua.ObjectIds.BaseDataVariableType)
        item.NodeClass = ua.NodeClass.Variable
        access = _READ | (_WRITE if variable.writable else 0)
        attributes = ua.VariableAttributes(
            DisplayName=ua.LocalizedText(variable.name),
            Value=_variant(variable.type, variable.value),
            DataType=ua.NodeId(ua.VariantType[variable.type].value),
            ValueRank=ua.ValueRank.Scalar,
            AccessLevel=access,
            UserAccessLevel=access,
        )
        if isinstance(variable.value, list):
            attributes.ValueRank = ua.ValueRank.OneDimension
            attributes.ArrayDimensions = [len(variable.value)]
        item.NodeAttributes = attributes
        return item

    def _item(self, path: str, reference: int, kind: int) -> Any:
        parent, _, name = path.rpartition("/")
        item = ua.AddNodesItem()
        item.RequestedNewNodeId = self.node(path)
        item.BrowseName = ua.QualifiedName(name, self.index)
        item.ParentNodeId = self.node(parent) if parent else OBJECTS
        item.ReferenceTypeId = ua.NodeId(reference)
        item.TypeDefinition = ua.NodeId(kind)
        return item


def _variant(type_name: str, value: object) -> Any:
    return ua.Variant(value, ua.VariantType[type_name], is_array=isinstance(value, list))
