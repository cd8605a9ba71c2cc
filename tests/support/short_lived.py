"""Server certificates of one authority that have ended, are good, or have another flaw besides; and a TLS server that shows one."""

import asyncio
import ssl
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import trustme

NOW = datetime.now(UTC)
HOST = "127.0.0.1"


def certificate(authority, *names, begins=-timedelta(days=2), ends=-timedelta(days=1)):
    """A key and certificate that by default ended yesterday."""
    return authority.issue_cert(*(names or (HOST,)), not_before=NOW + begins, not_after=NOW + ends)


def flaws(authority):
    """Certificates that a host must not take, by what is wrong with them apart from their end."""
    return {
        "another authority": certificate(trustme.CA()),
        "another host": certificate(authority, "other.example"),
        "another host and not ended": certificate(authority, "other.example", ends=timedelta(days=1)),
        "not yet valid": certificate(authority, begins=timedelta(days=1), ends=timedelta(days=2)),
        "no server's": _clients(authority),
    }


def _clients(authority):
    """An ended certificate that may only be a client's."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    import ipaddress

    above = x509.load_pem_x509_certificate(authority.cert_pem.bytes())
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST))])
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "client")]))
        .issuer_name(above.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(days=2))
        .not_valid_after(NOW - timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=True)
        .sign(authority._private_key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return trustme.LeafCert(private, made.public_bytes(serialization.Encoding.PEM), [])


@asynccontextmanager
async def tls_server(shown):
    """Shows this certificate to whoever comes, and says nothing; its port and how many got through."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    shown.configure_cert(context)
    passed = []

    async def serve(reader, writer):
        passed.append(await reader.read(1))
        writer.close()

    server = await asyncio.start_server(serve, HOST, 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1], passed
