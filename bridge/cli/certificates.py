"""`smp-bridge certificates`: make this host's certificate for an EMS."""

from pathlib import Path
from typing import Annotated

import typer
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from bridge.certificates import Wish, new_key, request, self_signed, wall_time, write_pair
from bridge.clock import SystemClock
from bridge.errors import BridgeError

app = typer.Typer(no_args_is_help=True, help="Make this host's certificate for an EMS.")


@app.command("new")
def new(
    out: Annotated[Path, typer.Option(help="Where, without an ending: OUT.crt.pem and OUT.key.pem are written.")],
    uri: Annotated[
        str, typer.Option(help="The application URI that names this host, such as urn:acme:smp-bridge:ipswich.")
    ],
    name: Annotated[str, typer.Option(help="The common name; smp-bridge and the last part of OUT if not given.")] = "",
    host: Annotated[list[str] | None, typer.Option(help="A DNS name or address of this host; may be repeated.")] = None,
    days: Annotated[int, typer.Option(help="How long it is valid.", min=1, max=7300)] = 730,
    bits: Annotated[int, typer.Option(help="Length of the RSA key: 2048, 3072 or 4096.")] = 3072,
    csr: Annotated[
        bool, typer.Option("--csr", help="Write OUT.csr.pem for an authority to sign, and no certificate.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there already.")] = False,
) -> None:
    """Make a key and a self-signed certificate for this host, with the application URI that OPC UA asks for.

    Name both files in the adapter's `security:`, and let the EMS trust the certificate. The same files serve as a user's certificate.
    """
    wish = Wish(name=name or f"smp-bridge {out.name}", application_uri=uri, hosts=tuple(host or ()), bits=bits)
    if flaws := wish.flaws():
        raise BridgeError("\n".join(flaws))
    key_file = out.with_name(f"{out.name}.key.pem")
    file = out.with_name(f"{out.name}.csr.pem" if csr else f"{out.name}.crt.pem")
    for each in (file, key_file):
        if each.exists() and not force:
            raise BridgeError(
                f"{each} is there already",
                hint="name another OUT, or say --force to replace it; the EMS must then trust the new one",
            )
    out.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = new_key(bits)
    now = wall_time(SystemClock.here().wall_ns())
    made = request(wish, key) if csr else self_signed(wish, key, now=now, days=days)
    write_pair(file, key_file, made, key)
    _tell(wish, made, file, key_file)


def _tell(wish: Wish, made: x509.Certificate | x509.CertificateSigningRequest, file: Path, key_file: Path) -> None:
    print(f"application URI     {wish.application_uri}")
    if isinstance(made, x509.Certificate):
        print(f"valid until         {made.not_valid_after_utc:%Y-%m-%d}")
        print(f"SHA-1 thumbprint    {made.fingerprint(hashes.SHA1()).hex()}")  # noqa: S303 - what OPC UA tools show
        print(f"SHA-256 thumbprint  {made.fingerprint(hashes.SHA256()).hex()}")
        print(f"certificate written to {file}: give it to the EMS's administrator, and name it as `certificate:`")
    else:
        print(f"request written to {file}: let the authority sign it with all its extensions, above all the URI")
    print(f"private key written to {key_file}: name it as `private_key:`; it never leaves this host")
