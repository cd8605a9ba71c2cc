"""`smp-bridge jws`: sign and verify by hand, with the very gate of the end point."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from bridge.cli.signed_headers import sign_headers, verify_headers
from bridge.envelope import Algorithm, Refusal, SignatureForm, SignatureRefused, Verified
from bridge.envelope import sign as sign_bytes
from bridge.envelope.gate import Parts, compact, detached, flattened, verify_parts, verify_with
from bridge.errors import BridgeError
from bridge.keys import load_jwks, load_signer, public_from_jwk

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Sign and verify messages by hand, by the same rules as the end point for returns.",
)


app.command("sign-headers")(sign_headers)
app.command("verify-headers")(verify_headers)


@app.command("sign")
def sign(
    key: Annotated[Path, typer.Option(help="Private key (PEM or JWK).")],
    payload: Annotated[str, typer.Argument(help="File with the exact bytes to sign; - reads standard input.")] = "-",
    form: Annotated[SignatureForm, typer.Option(help="How the signature travels.")] = SignatureForm.JWS_DETACHED,
    kid: Annotated[str | None, typer.Option(help="Key id to name in the header; default the key's thumbprint.")] = None,
    alg: Annotated[Algorithm | None, typer.Option(help="For RSA keys: RS256 instead of PS256.")] = None,
    protected: Annotated[str, typer.Option(help="Further members of the protected header, as a JSON object.")] = "{}",
) -> None:
    """Sign exact bytes and print the token (detached: the header value; flattened and compact: the body to send)."""
    if form.certified:
        raise typer.BadParameter(f"--form {form.value} is no JWS; use `smp-bridge jws sign-headers`")
    try:
        members = json.loads(protected)
    except ValueError:
        raise typer.BadParameter("--protected must be a JSON object") from None
    if not isinstance(members, dict):
        raise typer.BadParameter("--protected must be a JSON object")
    signed = sign_bytes(form, _bytes(payload), load_signer(key, kid=kid, alg=alg), members)
    print(signed.token if signed.token is not None else signed.body.decode("ascii"))


@app.command("verify")
def verify(
    token: Annotated[str, typer.Argument(help="Compact, detached or flattened; - reads it from standard input.")],
    jwks: Annotated[Path | None, typer.Option(help="JWK Set of public keys; the token's kid chooses one.")] = None,
    key: Annotated[
        Path | None, typer.Option(help="One JWK; its kid and the token's are not looked at. Needs --alg.")
    ] = None,
    alg: Annotated[Algorithm | None, typer.Option(help="The one algorithm of --key.")] = None,
    payload: Annotated[Path | None, typer.Option(help="File with the exact bytes that a detached token signs.")] = None,
) -> None:
    """Verify a token: exit 0 and print the payload, or exit 1 and print the one reason. Freshness and recipient are not checked."""
    if (jwks is None) == (key is None) or (key is None) != (alg is None):
        raise typer.BadParameter("give either --jwks FILE, or --key JWK-FILE with --alg ALG")
    try:
        text = _from_stdin() if token == "-" else token  # noqa: S105 - the usual name of standard input
        parts = split(text.strip(), None if payload is None else payload.read_bytes())
        verified = _verify(parts, jwks, key, alg)
    except SignatureRefused as refused:
        print(EXPLAINED.get(refused.reason, refused.reason.value), file=sys.stderr)
        raise typer.Exit(1) from None
    except OSError as error:
        raise BridgeError(f"{error.filename}: {error.strerror}") from error
    sys.stdout.buffer.write(verified.payload)
    sys.stdout.buffer.flush()


EXPLAINED = {
    Refusal.PAYLOAD_MISSING: "payload_missing: the token is detached; name the file it signs with --payload",
    Refusal.PAYLOAD_PRESENT: "payload_present: the token holds its payload; leave --payload out",
}


def split(token: str, payload: bytes | None) -> Parts:
    """Take a token of any of the three forms apart by the gate's own rules; raises `SignatureRefused`. With a payload beside it, it is a detached one."""
    if not token:
        raise SignatureRefused(Refusal.NO_SIGNATURE)
    if token.startswith("{"):
        if payload is not None:
            raise SignatureRefused(Refusal.PAYLOAD_PRESENT)
        return flattened(token.encode())
    if payload is not None:
        return detached(token, payload)
    if ".." in token:
        raise SignatureRefused(Refusal.PAYLOAD_MISSING)
    return compact(token.encode())


def _from_stdin() -> str:
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise SignatureRefused(Refusal.MALFORMED) from error


def _verify(parts: Parts, jwks: Path | None, key: Path | None, alg: Algorithm | None) -> Verified:
    if jwks is not None:
        return verify_parts(parts, load_jwks(jwks))
    assert key is not None
    try:
        entry = json.loads(key.read_bytes())
    except ValueError:
        raise BridgeError(f"{key} is not a JWK", hint="it must hold one key as a JSON object (RFC 7517)") from None
    return verify_with(parts, public_from_jwk(key, entry, need_kid=False, alg=alg))


def _bytes(source: str) -> bytes:
    if source == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(source).read_bytes()
    except OSError as error:
        raise BridgeError(f"{source}: {error.strerror}") from error
