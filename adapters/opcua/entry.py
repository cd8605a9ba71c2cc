"""From a URL and what a person gives at the command line to the options of the adapter. Pure."""

from collections.abc import Mapping
from typing import Any

from adapters.opcua.config import Policy
from bridge.api import Credentials


def options_of(url: str, credentials: Credentials) -> Mapping[str, Any]:
    """See `bridge.api.Browser.options`. Without protection only when that is asked for, and never with a password. Raises `ValueError`."""
    given = credentials
    policy = given.policy or ("Basic256Sha256" if given.certificate is not None else "")
    if not policy:
        raise ValueError(
            "name this host's --certificate and --key and the server's --trust, or say --policy None to look without any protection"
        )
    security: dict[str, Any] = {"policy": policy}
    if policy == Policy.NONE.value:
        others = {
            "--user": given.user, "--password-…": given.password is not None, "--certificate": given.certificate,
            "--key": given.private_key, "--trust": given.trusted, "--mode": given.mode,
        }  # fmt: skip
        if any(others.values()):
            told = ", ".join(name for name, value in others.items() if value)
            raise ValueError(f"under --policy None nothing is protected; leave {told} out, or choose a policy")
        return {"url": url, "security": security}
    security |= {
        "mode": given.mode or None,
        "certificate": given.certificate,
        "private_key": given.private_key,
        "server_certificates": list(given.trusted),
        "user": given.user or None,
        "password": given.password,
    }
    return {"url": url, "security": {key: each for key, each in security.items() if each is not None and each != []}}
