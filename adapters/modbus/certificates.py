"""The files that protect a link, for `smp-bridge certificates doctor`. Pure."""

from collections.abc import Sequence
from typing import Any

from bridge.api import CertificateRole, CertificateUse


def certificates(options: Any) -> Sequence[CertificateUse]:
    """The authority that vouches for the device and, where the device asks for one, this host's own certificate."""
    tls = options.tls
    if tls is None:
        if options.serial is not None:
            return []
        text = "no `tls:`: whoever reaches this network can read and write the device; keep it in a segment of its own"
        return [CertificateUse(path="tls", role=CertificateRole.TLS_CLIENT, warning=text)]
    if tls.ca is None and tls.certificate is None:
        return []
    return [
        CertificateUse(
            path="tls",
            role=CertificateRole.TLS_CLIENT,
            certificate=tls.certificate,
            private_key=tls.private_key,
            trusted=(tls.ca,) if tls.ca is not None else (),
        )
    ]
