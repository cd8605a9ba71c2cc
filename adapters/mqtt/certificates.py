"""Which files protect a link to a broker, for `smp-bridge certificates doctor`. Pure."""

from collections.abc import Sequence
from typing import Any, Final

from bridge.api import CertificateUse, tls_certificates

_OPEN: Final = "no `tls:`: whoever reaches this network can read and change what travels, the password too"


def certificates(options: Any) -> Sequence[CertificateUse]:
    """The authority that vouches for the broker and, where the broker asks for one, this host's own certificate."""
    return tls_certificates(options.tls, _OPEN)
