"""Whom a secured connection trusts, and how we show who we are."""

import ssl

from adapters.mqtt.codec import printable
from adapters.mqtt.config import Tls
from bridge.api import LinkRefused, load_own


def trust(tls: Tls) -> ssl.SSLContext:
    """Certificates and host names are always checked. Raises `LinkRefused` for files that cannot be used."""
    try:
        context = ssl.create_default_context(cafile=None if tls.ca is None else str(tls.ca))
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if tls.certificate is not None:
            load_own(context, tls.certificate, tls.private_key)
    except (ssl.SSLError, OSError, ValueError) as error:
        hint = "are `tls.ca`, `tls.certificate` and `tls.private_key` PEM files that belong together?"
        raise LinkRefused(f"the files of `tls:` cannot be used ({printable(error)})", hint=hint) from error
    return context
