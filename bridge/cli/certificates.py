"""`smp-bridge certificates`: make this host's certificate for an EMS, and say what is wrong with those of a configuration."""

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Final

import typer
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from bridge.api import CertificateRole, CertificateUse, SessionContext
from bridge.certificates import Wish, new_key, request, self_signed, wall_time, write_pair
from bridge.cli.check import load_here
from bridge.clock import SystemClock
from bridge.config import Config
from bridge.config.site import AdapterConfig
from bridge.doctor import Finding, Verdict, examine
from bridge.errors import BridgeError, ConfigError, LinkError

CONNECT_S: Final = 20.0

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Make this host's certificate for an EMS, and say what is wrong with those of a configuration.",
)


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


@app.command("doctor")
def doctor(
    config: Annotated[Path, typer.Option("--config", help="The directory that holds bridge.yaml and sites/.")] = Path(
        "config"
    ),
    site: Annotated[str, typer.Option(help="Only this site; without it all sites and the host itself.")] = "",
    connect: Annotated[
        bool,
        typer.Option(
            "--connect", help="Also connect to each EMS until both sides know each other; nothing is read or written."
        ),
    ] = False,
) -> None:
    """Say in plain words what is wrong with the certificates and keys of a configuration: URI, dates, chain, key, trust.

    Files are read and nobody is asked, unless --connect is given. Exits 1 when something is wrong, 0 when all is well or only has to be watched.
    """
    found = load_here(config, tolerant=True)
    if site and site in found.left_out:
        raise ConfigError(found.left_out[site])
    if site and site not in found.sites:
        raise BridgeError(f"there is no site {site}", hint=f"the sites are {', '.join(sorted(found.sites))}")
    counts = dict.fromkeys(Verdict, 0)
    now = wall_time(SystemClock.here().wall_ns())
    for title, use in _uses(found, site):
        _count(counts, title, examine(use, now))
    for title, context, adapter in _links(found, site) if connect else ():
        _count(counts, title, [asyncio.run(_meet(context, adapter))])
    # Of a site that is left out nothing can be examined; most likely a file is not there, and that is said here too.
    for problems in () if site else found.left_out.values():
        counts[Verdict.WRONG] += len(problems)
        print(*problems, sep="\n")
    if not any(counts.values()):
        print("no adapter of this configuration has a certificate")
    print(f"{counts[Verdict.WRONG]} wrong, {counts[Verdict.WATCH]} to watch")
    raise typer.Exit(1 if counts[Verdict.WRONG] else 0)


def _uses(config: Config, site: str) -> Iterator[tuple[str, CertificateUse]]:
    """Every use with the place in the configuration where its files are named."""
    for name, item in config.sites.items():
        for adapter in item.adapters.values() if site in {"", name} else ():
            for use in adapter.adapter.certificates(adapter.options) if adapter.adapter.certificates else ():
                yield f"{item.file.name}: adapters.{adapter.name}.{use.path} ({use.role.value})", use
    if site:
        return
    for title, use in _host_uses(config):
        yield f"bridge.yaml: {title} ({use.role.value})", use


def _host_uses(config: Config) -> Iterator[tuple[str, CertificateUse]]:
    for name, entry in config.participants.items():
        options = entry.options
        if options.client_certificate is not None or options.ca is not None:
            yield (
                f"participants.{name}",
                CertificateUse(
                    path=name,
                    role=CertificateRole.TLS_CLIENT,
                    certificate=options.client_certificate,
                    private_key=options.client_key,
                    trusted=(options.ca,) if options.ca is not None else (),
                ),
            )
    returns = config.host.listeners.returns
    if returns is not None:
        yield (
            "listeners.returns",
            CertificateUse(
                path="returns",
                role=CertificateRole.TLS_SERVER,
                certificate=returns.certificate,
                private_key=returns.private_key,
                trusted=(returns.client_ca,) if returns.client_ca is not None else (),
            ),
        )


def _links(config: Config, site: str) -> Iterator[tuple[str, SessionContext, AdapterConfig]]:
    for name, item in config.sites.items():
        for adapter in item.adapters.values() if site in {"", name} else ():
            if adapter.adapter.handshake is not None:
                context = SessionContext(
                    site=name,
                    adapter=adapter.name,
                    options=adapter.options,
                    selections=(),
                    clock=SystemClock.here(),
                    heard=lambda: None,
                )
                yield f"{item.file.name}: adapters.{adapter.name}, connecting", context, adapter


async def _meet(context: SessionContext, adapter: AdapterConfig) -> Finding:
    if adapter.adapter.handshake is None:
        raise TypeError(adapter.name)
    try:
        async with asyncio.timeout(CONNECT_S):
            return Finding(Verdict.OK, "", await adapter.adapter.handshake(context))
    except LinkError as error:
        return Finding(Verdict.WRONG, "", str(error), error.hint)
    except TimeoutError:
        return Finding(
            Verdict.WRONG, "", f"no answer within {CONNECT_S:g} s", "is the EMS there, and the way to it open?"
        )


def _count(counts: dict[Verdict, int], title: str, findings: Sequence[Finding]) -> None:
    print(title)
    for finding in findings:
        counts[finding.verdict] += 1
        print(f"  {finding.verdict.value:5}  {': '.join(filter(None, (finding.file, finding.text)))}")
        if finding.hint:
            print(f"         {finding.hint}")
