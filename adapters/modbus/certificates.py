"""The files that protect a link, for `smp-bridge certificates doctor`. Pure."""

from collections.abc import Sequence
from typing import Any, Final

from bridge.api import CertificateUse, tls_certificates

_OPEN: Final = "no `tls:`: whoever reaches this network can read and write the device; keep it in a segment of its own"


def certificates(options: Any) -> Sequence[CertificateUse]:
    """The authority that vouches for the device and, where the device asks for one, this host's own certificate; a serial line has neither."""
    return [] if options.serial is not None else tls_certificates(options.tls, _OPEN)
