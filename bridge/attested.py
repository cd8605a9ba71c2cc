"""What holds for a participant's calls while this process runs, as evidence: versions, profile, mapping, keys and certificates. Public halves only, never a secret."""

import re
from contextlib import suppress
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from bridge.config import Config, Participant
from bridge.config.load import HOST_FILE
from bridge.keyring import KeyRing
from bridge.keys import public_jwk

_FORM: Final = "smp-bridge facts 1"
_CERTIFICATE: Final = re.compile(r"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----")


def facts_of(config: Config, entry: Participant, keys: KeyRing) -> dict[str, Any]:
    """The facts of one participant; the same configuration and files give the same."""
    options, profile = entry.options, entry.profile
    returns = config.host.listeners.returns
    return {
        "form": _FORM,
        "version": version("smp-bridge"),
        "participant": entry.name,
        "sender": options.sender,
        "recipient": options.recipient,
        "environment": options.environment.value,
        "base_url": options.base_url,
        "profile": {"name": profile.name, "version": profile.version, "hash": profile.hash},
        "host": {"sha256": _digest(config.directory / HOST_FILE)},
        "mapping": _mapping(config, entry.name),
        "keys": {
            "ours": keys.ours(),
            "theirs": [public_jwk(key.key, kid=key.kid, alg=key.alg) for key in keys.theirs()],
        },
        "certificates": {
            "ca": _certificates(options.ca),
            "client": _certificates(options.client_certificate),
            "signing": _certificates(options.signing_certificate),
            "smp": _certificates(options.smp_certificate.ca if options.smp_certificate else None),
            "returns": _certificates(returns.certificate if returns else None),
            "returns_client_ca": _certificates(returns.client_ca if returns else None),
        },
        "agreed": _agreed(entry),
        "tls_minimum": profile.spec.transport.tls_minimum,
        "clock": {
            "source": config.host.clock.source,
            "alarm_at_s": config.host.clock.alarm_at,
            "hold_at_s": config.host.clock.hold_at,
        },
    }


def _mapping(config: Config, participant: str) -> dict[str, dict[str, Any]]:
    """For each site with a flow of this participant the SHA-256 of its file, and the names of those flows."""
    found = {}
    for site in config.sites.values():
        flows = sorted(flow.name for flow in site.flows.values() if flow.participant == participant)
        if flows:
            found[site.name] = {"sha256": _digest(site.file), "flows": flows}
    return found


def _agreed(entry: Participant) -> dict[str, list[str]]:
    """Which certificates of SMP's are taken, where its messages carry one."""
    wanted = entry.options.smp_certificate
    return {} if wanted is None else {"subjects": wanted.subjects, "thumbprints": wanted.thumbprints}


def _digest(file: Path) -> str:
    with suppress(OSError):
        return sha256(file.read_bytes()).hexdigest()
    return ""


def _certificates(file: Path | None) -> list[str]:
    """The certificates of a PEM file, in its order; a private key beside them is left alone."""
    if file is None:
        return []
    with suppress(OSError):
        return _CERTIFICATE.findall(file.read_text(encoding="ascii", errors="replace"))
    return []
