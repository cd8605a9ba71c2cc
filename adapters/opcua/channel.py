"""The library's client, armed: which endpoint is taken, whom we believe to be the server, and who we are to it."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from cryptography import x509

from adapters.opcua.config import Mode, OpcUaOptions, Policy, Security
from adapters.opcua.library import Client, security_policies, ua
from adapters.opcua.trust import Identity, check_server, load_identity, load_trusted, load_user, parse_der
from adapters.opcua.words import hint_for, printable
from bridge.api import Certified, Clock, LinkRefused, unseen

_SCHEME: Final = "opc.tcp:"
_NOTHING: Final = ua.MessageSecurityMode.None_
_MODES: Final = {
    Mode.SIGN: ua.MessageSecurityMode.Sign,
    Mode.SIGN_AND_ENCRYPT: ua.MessageSecurityMode.SignAndEncrypt,
}
_POLICIES: Final = {
    Policy.BASIC256SHA256: security_policies.SecurityPolicyBasic256Sha256,
    Policy.AES128: security_policies.SecurityPolicyAes128Sha256RsaOaep,
    Policy.AES256: security_policies.SecurityPolicyAes256Sha256RsaPss,
    Policy.NONE: security_policies.SecurityPolicyNone,
}
_USERS: Final = {
    ua.UserTokenType.Anonymous: "anonymous users",
    ua.UserTokenType.UserName: "users with a password",
    ua.UserTokenType.Certificate: "users with a certificate",
    ua.UserTokenType.IssuedToken: "users with a token of another service",
}


class GuardedClient(Client):  # type: ignore[misc]  # the library is untyped here
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


async def secure(client: Any, options: OpcUaOptions, clock: Clock, certified: Certified = unseen) -> None:
    """Ask the server who it is, check that against the trust list, and only then prepare the secured connection. Raises `LinkRefused`.

    `certified` is told of the certificate with which the session is really made.
    """
    security = options.security
    identity = await asyncio.to_thread(load_identity, security, options.application_uri, clock.wall_ns())
    trusted = await asyncio.to_thread(load_trusted, security)
    endpoint = _choose(await client.connect_and_get_server_endpoints(), security)
    own, *above = parse_der(endpoint.ServerCertificate or b"")
    policy = security.on_expired_certificate
    check_server(own, endpoint.Server.ApplicationUri, trusted, clock.wall_ns(), above, policy)

    async def validate(certificate: x509.Certificate, server: Any) -> None:
        """The library's hook, called before the session is activated: the discovery that came before was not authenticated."""
        certified(check_server(certificate, server.ApplicationUri, trusted, clock.wall_ns(), above, policy))

    client.certificate_validator = validate
    await _arm(client, security, identity, own, clock)


async def look_for_offer(client: Any, security: Security) -> None:
    """Ask a server that did not let us in what it offers. Raises `LinkRefused` where that is something else."""
    _choose(await client.connect_and_get_server_endpoints(), security)


async def _arm(
    client: Any, security: Security, identity: Identity, server_certificate: x509.Certificate, clock: Clock
) -> None:
    client.application_uri = identity.application_uri
    if security.user is not None and security.password is not None:
        client.set_user(security.user)
        client.set_password(security.password.reveal())
    user = await asyncio.to_thread(load_user, security, clock.wall_ns())
    if user is not None:
        client.user_certificate, client.user_private_key = user.certificate, user.private_key
    # The library's own way would read the key once more and prove it, and all records of all sites would wait for that (see `trust.py`).
    policy = _POLICIES[security.policy](
        server_certificate, identity.certificate, identity.private_key, _MODES[security.mode]
    )
    client.security_policy = policy
    client.uaclient.set_security(policy)


def _choose(endpoints: Sequence[Any], security: Security) -> Any:
    bare = security.policy is Policy.NONE
    policy, mode = _POLICIES[security.policy].URI, _NOTHING if bare else _MODES[security.mode]
    # A server may offer the same over HTTPS, under another certificate.
    endpoints = [each for each in endpoints if str(each.EndpointUrl or _SCHEME).lower().startswith(_SCHEME)]
    for endpoint in endpoints:
        if endpoint.SecurityPolicyUri == policy and endpoint.SecurityMode == mode:
            return endpoint
    offered = sorted(
        {f"{str(each.SecurityPolicyUri).rpartition('#')[2]}/{each.SecurityMode.name.rstrip('_')}" for each in endpoints}
    )
    wanted = security.policy.value if bare else f"{security.policy.value}/{security.mode.value}"
    raise LinkRefused(
        f"the server does not offer {wanted}; it offers {printable(', '.join(offered)) or 'nothing over opc.tcp'}",
        hint="choose one of these in `security:`, or have the EMS enable the one you want",
    )
