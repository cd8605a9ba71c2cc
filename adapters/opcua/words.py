"""Words for operators: a peer's own text made harmless, and what to do about the status codes that mean a refusal."""

from collections.abc import Mapping
from typing import Final

_TEXT_LIMIT: Final = 200
_REFUSALS: Final = ("BadUser", "BadIdentity", "BadCertificate", "BadSecurity", "BadNoValidCertificates")
_HINTS: Final[Mapping[str, str]] = {
    "BadUserAccessDenied": "check `user` and `password`, and that the EMS lets this user in",
    "BadIdentityTokenRejected": "check `user` and `password`, or let the EMS trust `user_certificate`",
    "BadIdentityTokenInvalid": "check `user` and `password`, or let the EMS trust `user_certificate`",
    "BadCertificateUntrusted": "let the EMS trust this host's certificate",
    "BadCertificateUriInvalid": "the application URI in this host's certificate must be `application_uri`",
    "BadCertificateTimeInvalid": "renew this host's certificate, or set the clocks right",
    "BadSecurityChecksFailed": "let the EMS trust this host's certificate; many servers say no more than this",
    "BadSecurityModeRejected": "choose a `policy` and `mode` that the EMS offers",
    "BadSecurityPolicyRejected": "choose a `policy` and `mode` that the EMS offers",
}


def printable(text: object) -> str:
    """A peer's text, fit for a log line: one line, capped."""
    return "".join(letter if letter.isprintable() else " " for letter in str(text))[:_TEXT_LIMIT]


def is_refusal(status: str) -> bool:
    """Whether a status code says that this host, as it is configured, is not let in."""
    return status.startswith(_REFUSALS)


def hint_for(status: str) -> str:
    """What an operator may try; '' where the code says enough."""
    return _HINTS.get(status, "")
