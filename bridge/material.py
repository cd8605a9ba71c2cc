"""The keys and certificates that a configuration names: read, and checked against each other and the profile. Files only, no network."""

import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from cryptography import x509
from pydantic import BaseModel

from bridge.config import Config, Participant
from bridge.config.anchors import AnchorPlace
from bridge.config.host import HsmOptions, SmpCertificate
from bridge.config.references import MISSED
from bridge.config.tree import Loc
from bridge.envelope import Algorithm, PublicKey
from bridge.envelope.certified import Agreed
from bridge.errors import ConfigError, Problem
from bridge.hsm import HsmSigner, Token
from bridge.keys import CHAIN, KeySigner, ShownSigner, certify, load_authorities, load_jwks, load_signer
from bridge.peers import load_own
from bridge.profile import Profile

_UNREAD: Final = "one of the two is no such file, or the key is encrypted"  # where OpenSSL gives no reason of its own
_NAMED: Final = frozenset({"kid", "alg", "use", CHAIN})  # what a key is called and for, not what it is


class ParticipantKeys(NamedTuple):
    """What a participant signs with, SMP's public keys by kid, and where the profile has messages carry a certificate, which of them are taken."""

    signer: ShownSigner
    smp: Mapping[str, PublicKey]
    agreed: Agreed | None = None


def participant_keys(entry: Participant) -> ParticipantKeys:
    """Read a participant's keys; raises `ConfigError` where one cannot be used, or is for an algorithm that the profile does not allow."""
    options, allowed = entry.options, entry.profile.spec.signature.algorithms
    signer = our_signer(entry)
    place = options.hsm.module if options.hsm is not None else options.signing_key
    smp = load_jwks(options.smp_jwks) if options.smp_jwks is not None else {}
    named = [(place, "the key", signer.alg)]
    named += [(options.smp_jwks, f"the key {kid}", key.alg) for kid, key in smp.items()]
    problems = [
        Problem(
            file=str(path),
            text=f"{what} is for {alg.value}, and the profile {entry.profile.name} allows {', '.join(allowed)}",
        )
        for path, what, alg in named
        if alg.value not in allowed
    ]
    if problems:
        raise ConfigError(problems)
    return ParticipantKeys(signer, smp, agreed(entry))


def agreed(entry: Participant) -> Agreed | None:
    """Which certificates of SMP's are taken, where the profile has messages carry one. Raises `ConfigError`."""
    wanted = entry.options.smp_certificate
    return None if wanted is None else agreed_by(wanted, entry.profile, load_authorities(wanted.ca))


def agreed_by(wanted: SmpCertificate, profile: Profile, authorities: Sequence[x509.Certificate]) -> Agreed:
    """What was agreed, by the configuration's words."""
    signature = profile.spec.signature
    return Agreed(
        authorities=authorities,
        subjects=[x509.Name.from_rfc4514_string(subject) for subject in wanted.subjects],
        thumbprints=wanted.thumbprints,
        algorithms=[Algorithm(alg) for alg in signature.algorithms],
        encoding=signature.certificate_as,
    )


def our_signer(entry: Participant) -> ShownSigner:
    """The key of ours that the configuration names, in its file or its token, with its certificate where there is one. Raises `ConfigError`. Blocking."""
    signer = _bare_signer(entry)
    certificate = entry.options.signing_certificate
    return signer if certificate is None else certify(signer, certificate)


def _bare_signer(entry: Participant) -> KeySigner | HsmSigner:
    options = entry.options
    alg = Algorithm(options.signing_algorithm) if options.signing_algorithm else None
    if options.hsm is not None:
        return open_hsm(options.hsm, options.hsm.key, kid=options.signing_kid, alg=alg)
    assert options.signing_key is not None  # the model wants one of the two
    return load_signer(options.signing_key, kid=options.signing_kid, alg=alg, password=options.signing_password)


def open_hsm(options: HsmOptions, label: str, *, kid: str | None, alg: Algorithm | None) -> HsmSigner:
    """The key of this label in a participant's token. Raises `ConfigError`. Blocking."""
    return HsmSigner(Token(options.module, options.token, options.pin), label, kid=kid, alg=alg)


def host_signer(config: Config) -> KeySigner | None:
    """The host's own key, with which it signs evidence; None where none is configured. Raises `ConfigError` with the line that names it."""
    with placed(config, "host_key"):
        return _host_signer(config)


def _host_signer(config: Config) -> KeySigner | None:
    path = config.host.host_key
    if path is None:
        return None
    signer = load_signer(path, password=config.host.host_key_password)
    if signer.alg not in (Algorithm.ES256, Algorithm.EDDSA):
        text = "is an RSA key; the host's own key is EC P-256 or Ed25519 (`smp-bridge keys new --alg ES256`)"
        raise ConfigError([Problem(file=str(path), text=text)])
    used = {
        entry.options.signing_key.resolve(): name
        for name, entry in config.participants.items()
        if entry.options.signing_key is not None
    }
    if path.resolve() in used:
        text = f"is the signing key of participant {used[path.resolve()]}; the host's own key is a key of its own"
        raise ConfigError([Problem(file=str(path), text=text)])
    return signer


def problems_of(config: Config) -> list[Problem]:
    """Everything that is wrong with the files behind a good configuration, each at the line of `bridge.yaml` that names the file."""
    return [_placed(config, path, problem) for path, check in _checks(config) for problem in _tried(check)]


@contextmanager
def placed(config: Config, section: str) -> Iterator[None]:
    """A `ConfigError` that comes from the files of this part of `bridge.yaml` leaves with the line that names each; of a file that only the service can read with what to do."""
    try:
        yield
    except ConfigError as error:
        hint = error.hint or (MISSED if isinstance(error.__cause__, OSError) else "")
        raise ConfigError([_placed(config, section, problem) for problem in error.problems], hint=hint) from error


def _placed(config: Config, section: str, problem: Problem) -> Problem:
    """A file's problem as one of the setting that names it, below `section` or where the problem says itself."""
    if problem.file == config.host_tree.file:  # a secret that is missing says itself where it is named
        return problem
    own = problem.path.startswith(f"{section}.")
    start: Loc = tuple((problem.path if own else section).split("."))
    loc = _naming(_settings(config, start), start, Path(problem.file)) or start
    parts = ("" if own else problem.path, problem.text)
    return config.host_tree.problem(loc, f"the file {problem.file}: {': '.join(filter(None, parts))}")


def _settings(config: Config, loc: Loc) -> object:
    """What stands at a place of `bridge.yaml`, as its models read it."""
    found: object = config.host
    if loc[0] == "participants" and len(loc) > 1:
        found, loc = config.participants[str(loc[1])].options, loc[2:]
    for part in loc:
        found = found[part] if isinstance(found, Mapping) else getattr(found, str(part), None)
    return found


def _naming(found: object, loc: Loc, file: Path) -> Loc | None:
    """The place of the setting that is this path, if there is one here or below."""
    if isinstance(found, BaseModel):
        found = {name: getattr(found, name) for name in type(found).model_fields}
    if isinstance(found, Mapping):
        below = (_naming(value, (*loc, name), file) for name, value in found.items())
        return next(filter(None, below), None)
    return loc if found == file else None


def _checks(config: Config) -> Iterator[tuple[str, Callable[[], object]]]:
    for name, entry in config.participants.items():
        options = entry.options
        yield f"participants.{name}", lambda entry=entry: participant_keys(entry)  # type: ignore[misc]
        if options.ca is not None:
            yield f"participants.{name}.ca", lambda file=options.ca: _authority(file)  # type: ignore[misc]
        if options.client_certificate is not None and options.client_key is not None:
            pair = (options.client_certificate, options.client_key)
            yield f"participants.{name}.client_certificate", lambda pair=pair: _pair(*pair)  # type: ignore[misc]
    yield "participants", lambda: _apart(config)
    yield "host_key", lambda: _host_signer(config)
    returns = config.host.listeners.returns
    if returns is not None:
        yield "listeners.returns", lambda: _pair(returns.certificate, returns.private_key)
        if returns.client_ca is not None:
            yield "listeners.returns.client_ca", lambda file=returns.client_ca: _authority(file)  # type: ignore[misc]
    admin = config.host.listeners.admin
    if admin.certificate is not None and admin.private_key is not None:
        yield "listeners.admin", lambda: _pair(admin.certificate, admin.private_key)  # type: ignore[arg-type]
    for name, place in config.host.journal.anchors.items():
        yield from _anchor_checks(f"journal.anchors.{name}", place)
    tracing = config.host.tracing
    if tracing is not None and tracing.ca is not None:
        yield "tracing.ca", lambda file=tracing.ca: _authority(file)  # type: ignore[misc]


def _anchor_checks(path: str, place: AnchorPlace) -> Iterator[tuple[str, Callable[[], object]]]:
    if place.post is not None and place.post.ca is not None:
        yield f"{path}.post.ca", lambda file=place.post.ca: _authority(file)  # type: ignore[misc]
    if place.mqtt is not None and place.mqtt.ca is not None:
        yield f"{path}.mqtt.ca", lambda file=place.mqtt.ca: _authority(file)  # type: ignore[misc]
    if place.mqtt is not None and place.mqtt.certificate is not None and place.mqtt.private_key is not None:
        pair = (place.mqtt.certificate, place.mqtt.private_key)
        yield f"{path}.mqtt.certificate", lambda: _pair(*pair)


def _apart(config: Config) -> None:
    """No key signs in two environments: what was signed for TEST could be shown in LIVE. Raises `ConfigError`."""
    seen: dict[tuple[tuple[str, object], ...], tuple[str, str]] = {}
    problems = []
    for name, entry in config.participants.items():
        try:
            jwk = participant_keys(entry).signer.public_jwk()
        except ConfigError:
            continue  # told by its own check
        half = tuple(sorted((part, value) for part, value in jwk.items() if part not in _NAMED))
        environment = entry.options.environment.value
        first, elsewhere = seen.setdefault(half, (name, environment))
        if elsewhere != environment:
            text = f"is the key of {first} in {elsewhere} too; TEST and LIVE never share a key (`smp-bridge keys new`)"
            problems.append(Problem(file=str(entry.options.signing_key), path=f"participants.{name}", text=text))
    if problems:
        raise ConfigError(problems)


def _tried(check: Callable[[], object]) -> Sequence[Problem]:
    try:
        check()
    except ConfigError as error:
        return error.problems
    return ()


def _pair(certificate: Path, private_key: Path) -> None:
    try:
        load_own(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), certificate, private_key)
    except (ssl.SSLError, OSError) as error:
        reason = (getattr(error, "reason", None) or _UNREAD).replace("_", " ").lower()
        text = f"is not a PEM certificate chain whose first certificate belongs to the key {private_key} ({reason})"
        raise ConfigError([Problem(file=str(certificate), text=text)]) from error


def _authority(file: Path) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
    except (ssl.SSLError, OSError) as error:
        raise ConfigError([Problem(file=str(file), text="holds no PEM certificate of an authority")]) from error
