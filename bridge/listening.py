"""What our listeners share: TLS whose certificate can be read anew, and which sockets this machine alone reaches."""

import ipaddress
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Final

from bridge.clock import SystemClock
from bridge.errors import BridgeError
from bridge.peers import load_own

_REFUSED: Final = int(ssl.AlertDescription.ALERT_DESCRIPTION_HANDSHAKE_FAILURE)


def server_context(certificate: Path, private_key: Path, client_ca: Path | None) -> ssl.SSLContext:
    """TLS 1.2 or newer for our own listener; with `client_ca`, callers must show a certificate of that authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    load_own(context, certificate, private_key)
    if client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(client_ca)
    return context


def both(
    first: Callable[[], None], context: ssl.SSLContext, certificate: Path, private_key: Path
) -> Callable[[], None]:
    """A reload that does the first one, and then this certificate's."""

    def reload() -> None:
        first()
        renew_certificate(context, certificate, private_key)

    return reload


def is_loopback(passed: socket.socket) -> bool:
    """Whether only this machine reaches a listening socket."""
    if passed.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    return ipaddress.ip_address(passed.getsockname()[0]).is_loopback


def renew_certificate(
    context: ssl.SSLContext, certificate: Path, private_key: Path, client_ca: Path | None = None
) -> None:
    """New handshakes show and ask for what the files hold now; connections that stand are left alone. Raises `BridgeError`, and the old ones stay.

    A context keeps one certificate for each kind of key, so that a new one of another kind would stand beside the old one: handshakes are turned to a
    context of their own, before they choose. A handshake that resumes a session shows and asks for nothing: where callers must show a certificate, one
    from before is refused, or a caller of a former authority would come back for ever (a client drops a session that was refused, RFC 8446 section 6.2).
    """
    try:
        fresh = server_context(certificate, private_key, client_ca)
    except OSError as error:  # ssl.SSLError is one
        raise BridgeError(
            f"the certificate {certificate}{f' or the authority {client_ca}' if client_ca else ''} cannot be used: {error.strerror or error}",
            hint="put a certificate and its own key there and reload again; the former pair is still shown",
        ) from error

    renewed_s = SystemClock.here().wall_ns() // 1_000_000_000  # the machine's own, by which OpenSSL dates its sessions

    def turn(tls: ssl.SSLObject, name: str | None, asked: ssl.SSLContext) -> int | None:
        del name, asked
        tls.context = fresh
        session = tls.session if client_ca is not None and tls.session_reused else None
        return _REFUSED if session is not None and session.time <= renewed_s else None

    context.sni_callback = turn
