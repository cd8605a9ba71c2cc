"""`smp-bridge keys`: make a signing key, hand out public keys."""

import json
from pathlib import Path
from typing import Annotated

import typer

from bridge.envelope import Algorithm
from bridge.errors import BridgeError
from bridge.keys import load_signer, new_key, write_private

app = typer.Typer(
    no_args_is_help=True, help="Make a participant's signing key, and print public keys as a JWK Set for SMP."
)


@app.command("new")
def new(
    out: Annotated[Path, typer.Option(help="File for the private key (PEM, readable by its owner only).")],
    alg: Annotated[Algorithm, typer.Option(help="The key's one algorithm; ES256 is small and fast.")] = Algorithm.ES256,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there already.")] = False,
) -> None:
    """Make a new private key and print its key id (RFC 7638 thumbprint). Give SMP the public half with `smp-bridge keys jwks`."""
    if out.exists() and not force:
        raise BridgeError(
            f"{out} is there already", hint="name another file, or say --force to replace it; a replaced key is gone"
        )
    out.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(out, new_key(alg))
    signer = load_signer(out, alg=alg)
    print(f"kid {signer.kid}")
    print(f"alg {signer.alg.value}")
    more = f" --alg {alg.value}" if alg is Algorithm.RS256 else ""
    print(f"private key written to {out}; the public half for SMP: smp-bridge keys jwks {out}{more}")
    if more:
        print("the PEM file does not say that it is for RS256: set `signing_algorithm: RS256` at the participant too")


@app.command("jwks")
def jwks(
    keys: Annotated[list[Path], typer.Argument(help="Private key files (PEM or JWK).")],
    alg: Annotated[
        Algorithm | None, typer.Option(help="For RSA keys that are used with RS256 instead of PS256.")
    ] = None,
) -> None:
    """Print the public halves of these keys as a JWK Set (RFC 7517), to be sent to SMP with the pro-forma."""
    print(json.dumps({"keys": [load_signer(path, alg=alg).public_jwk() for path in keys]}, indent=2))
