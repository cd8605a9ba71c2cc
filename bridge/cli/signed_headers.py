"""`smp-bridge jws sign-headers|verify-headers`: the form `dip-headers` by hand, with the very gate of the end point."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, TypeAlias

import typer
from pydantic import ValidationError

from bridge.clock import SystemClock
from bridge.config.host import SmpCertificate
from bridge.envelope import Algorithm, SignatureRefused, certified
from bridge.errors import BridgeError
from bridge.keys import certify, load_authorities, load_signer
from bridge.material import agreed_by
from bridge.profile import Profile, load_profile

ProfileOption: TypeAlias = Annotated[
    str, typer.Option(help="The profile that names the headers: a shipped one, or a file.")
]
UrlOption: TypeAlias = Annotated[str, typer.Option(help="The whole address that is called; it is signed.")]
MethodOption: TypeAlias = Annotated[str, typer.Option(help="The method of the call; it is signed.")]
AtOption: TypeAlias = Annotated[str, typer.Option(help="The moment, such as 2026-11-23T10:00:00Z; now when not given.")]


def sign_headers(
    key: Annotated[Path, typer.Option(help="Private key (PEM or JWK).")],
    certificate: Annotated[Path, typer.Option(help="Its certificate (PEM).")],
    url: UrlOption,
    payload: Annotated[str, typer.Argument(help="File with the exact bytes to sign; - reads standard input.")] = "-",
    method: MethodOption = "POST",
    profile: ProfileOption = "dip-like",
    at: AtOption = "",
) -> None:
    """Sign a call with exactly these bytes and print its headers, a line each (profiles with the form dip-headers)."""
    chosen = _profile(profile)
    allowed = [Algorithm(alg) for alg in chosen.spec.signature.algorithms]
    signer = certify(load_signer(key, alg=_fitting(allowed)), certificate)
    target, encoding = certified.Target(method, url), chosen.spec.signature.certificate_as
    values = certified.sign(target, _bytes(payload), signer, at_ns=_moment_ns(at), encoding=encoding)
    for name, value in zip(chosen.signature_headers, values, strict=True):
        print(f"{name}: {value}")


def verify_headers(
    ca: Annotated[Path, typer.Option(help="The pinned authority, or several (PEM).")],
    url: UrlOption,
    message: Annotated[
        str, typer.Argument(help="File with header lines, an empty line and the exact body; - reads standard input.")
    ] = "-",
    subject: Annotated[list[str] | None, typer.Option(help="An agreed subject (RFC 4514); may be given again.")] = None,
    thumbprint: Annotated[
        list[str] | None, typer.Option(help="An agreed SHA-256 thumbprint; may be given again.")
    ] = None,
    method: MethodOption = "POST",
    profile: ProfileOption = "dip-like",
    at: AtOption = "",
) -> None:
    """Verify a call's headers over its body: exit 0 and print the body, or exit 1 and print the one reason. Freshness and recipient are not checked."""
    chosen = _profile(profile)
    try:
        wanted = SmpCertificate(ca=ca, subjects=subject or [], thumbprints=thumbprint or [])
    except ValidationError as error:
        raise typer.BadParameter(
            "; ".join(each["msg"].removeprefix("Value error, ") for each in error.errors())
        ) from None
    headers, body = _split(_bytes(message))
    fields = certified.Fields(
        *([value for given, value in headers if given == name.lower()] for name in chosen.signature_headers)
    )
    try:
        verified = certified.verify(
            certified.Target(method, url), body, fields, agreed=agreed_by(wanted, chosen, load_authorities(ca)), keys={}, now_ns=_moment_ns(at)
        )  # fmt: skip
    except SignatureRefused as refused:
        print(refused.reason.value, file=sys.stderr)
        raise typer.Exit(1) from None
    sys.stdout.buffer.write(verified.payload)
    sys.stdout.buffer.flush()


def _profile(named: str) -> Profile:
    chosen = load_profile(named)
    if not chosen.signature_form.certified:
        form = chosen.signature_form.value
        raise typer.BadParameter(
            f"the profile {chosen.name} signs by {form}; use `smp-bridge jws sign` or `jws verify`"
        )
    return chosen


def _fitting(allowed: list[Algorithm]) -> Algorithm | None:
    """The algorithm of an RSA key, which its file does not tell; None where the profile takes other keys too."""
    return allowed[0] if len(allowed) == 1 else None


def _split(message: bytes) -> tuple[list[tuple[str, str]], bytes]:
    """Header lines with lower-case names, and the body after the first empty line."""
    breaks = [(at, gap) for gap in (b"\r\n\r\n", b"\n\n") if (at := message.find(gap)) >= 0]
    if not breaks:
        raise BridgeError(
            "there is no empty line between headers and body",
            hint="first the header lines, then an empty line, then the exact body",
        )
    at, gap = min(breaks)
    lines = message[:at].decode("latin-1").splitlines()
    pairs = [line.partition(":") for line in lines if ":" in line]
    return [(name.strip().lower(), value.strip()) for name, _, value in pairs], message[at + len(gap) :]


def _moment_ns(text: str) -> int:
    if not text:
        return SystemClock.here().wall_ns()
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise typer.BadParameter("--at must be a time with a zone, such as 2026-11-23T10:00:00Z")
    return int(found.astimezone(UTC).timestamp() * 1000) * 1_000_000


def _bytes(source: str) -> bytes:
    if source == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(source).read_bytes()
    except OSError as error:
        raise BridgeError(f"{source}: {error.strerror}") from error
