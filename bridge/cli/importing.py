"""What `smp-bridge keys import` takes: key sets and certificates of SMP's, private keys of ours in files and tokens."""

import json
import os
from pathlib import Path
from typing import Final

from cryptography import x509

from bridge.config import Participant
from bridge.config.references import open_to_others
from bridge.envelope import Algorithm, PublicKey
from bridge.envelope.authority import KeyKind, may_sign
from bridge.envelope.certified import Agreed
from bridge.errors import BridgeError
from bridge.hsm import SCHEME
from bridge.journal.keys import KeyRecord, KeySide, KeyState
from bridge.keyring import IMPORTED, record_of
from bridge.keys import ShownSigner, certificate_key, certify, load_certificates, load_jwks, load_signer, public_jwk
from bridge.material import agreed, open_hsm

_CERTIFICATE: Final = b"-----BEGIN CERTIFICATE-----"
_PRIVATE: Final = b"PRIVATE KEY-----"


def imported(
    entry: Participant, file: Path, certificate: Path | None, state: KeyState, ends_ns: int
) -> list[KeyRecord]:
    """The keys of a file as records, not yet in any journal. `state` is for SMP's; ours are `next`. Raises `BridgeError` with what would be right."""
    certified = entry.profile.signature_form.certified
    if _is_set(file):
        if certified:
            text = f"the profile {entry.profile.name} knows SMP by certificates, and {file} is a JWK Set"
            raise BridgeError(text, hint="import the certificate (PEM) instead")
        return [
            _theirs(entry, key, public_jwk(key.key, kid=key.kid, alg=key.alg), state, ends_ns)
            for key in load_jwks(file).values()
        ]
    if _is_certificate(file):
        known = agreed(entry)
        if known is None:
            text = f"the profile {entry.profile.name} knows SMP by its keys, and {file} is a certificate"
            raise BridgeError(text, hint="import a JWK Set instead; a certificate of ours goes to --certificate")
        return [_certificate(entry, file, one, known, state, ends_ns) for one in load_certificates(file)]
    if certified and certificate is None:
        text = f"a key of ours needs its certificate under the profile {entry.profile.name}"
        raise BridgeError(text, hint="add --certificate FILE")
    if not certified and certificate is not None:
        raise BridgeError(
            f"no certificate is shown under the profile {entry.profile.name}", hint="leave --certificate out"
        )
    signer = _signer(entry, file)
    place = str(file) if str(file).startswith(SCHEME) else str(file.absolute())
    return [ours(entry, signer if certificate is None else certify(signer, certificate), place, ends_ns)]


def ours(entry: Participant, signer: ShownSigner, place: str, ends_ns: int) -> KeyRecord:
    """A next key of ours."""
    jwk = signer.public_jwk()
    return record_of(entry.name, KeySide.OURS, signer, jwk, place=place, expires_ns=ends_ns, state=KeyState.NEXT)


def _theirs(entry: Participant, key: PublicKey, jwk: dict[str, object], state: KeyState, ends_ns: int) -> KeyRecord:
    return record_of(
        entry.name, KeySide.THEIRS, key, jwk, place=IMPORTED, expires_ns=ends_ns or key.expires_ns, state=state
    )


def _certificate(
    entry: Participant, file: Path, one: x509.Certificate, known: Agreed, state: KeyState, ends_ns: int
) -> KeyRecord:
    """A certificate of SMP's; the same rules as for a message's, so that nothing is agreed that would be refused."""
    name = one.subject.rfc4514_string()
    alg = known.algorithm(KeyKind.of(one.public_key()))
    if alg is None:
        allowed = ", ".join(entry.profile.spec.signature.algorithms)
        raise BridgeError(
            f"{file}: the key of {name} fits no algorithm of the profile {entry.profile.name} ({allowed})"
        )
    key, jwk = certificate_key(one, alg)
    if known.window(one, key.kid) is None:
        raise BridgeError(
            f"{file}: {name} was issued by no authority of `smp_certificate.ca`",
            hint="name the authority that issued it, or ask SMP",
        )
    if not may_sign(one):
        raise BridgeError(f"{file}: {name} is not for signing (authority, key usage, or an unknown critical extension)")
    return _theirs(entry, key, jwk, state, ends_ns)


def _signer(entry: Participant, file: Path) -> ShownSigner:
    options = entry.options
    alg = (
        Algorithm(options.signing_algorithm)
        if options.signing_algorithm and entry.profile.signature_form.certified
        else None
    )
    if str(file).startswith(SCHEME):
        if options.hsm is None:
            raise BridgeError(f"the entry {entry.name} has no `hsm`", hint="say in bridge.yaml where its token is")
        return open_hsm(options.hsm, str(file).removeprefix(SCHEME), kid=None, alg=alg)
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    wrong = open_to_others(file.absolute(), "private key", Path(credentials) if credentials else None)
    if wrong:
        raise BridgeError(wrong)
    return load_signer(file, alg=alg, password=options.signing_password)


def _is_set(file: Path) -> bool:
    """Whether a file looks like a JWK Set; a single JWK or PEM is a key of ours."""
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and "keys" in found


def _is_certificate(file: Path) -> bool:
    try:
        content = file.read_bytes()
    except OSError:
        return False
    return _CERTIFICATE in content and _PRIVATE not in content
