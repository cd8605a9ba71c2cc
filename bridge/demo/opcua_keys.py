"""Certificates of a simulated OPC UA EMS and of the bridge that may talk to it: self-signed, as they are on most plants."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from bridge.certificates import Wish, new_key, self_signed, write_pair

LIFE_DAYS: Final = 365
_RSA_BITS: Final = 2048  # the most that Basic256Sha256 asks of everybody


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFiles:
    """Where a certificate and its private key stand, both PEM, the key readable by its owner alone."""

    certificate: Path
    private_key: Path


def make_pair(directory: Path, name: str, application_uri: str, *, hosts: tuple[str, ...] = ()) -> KeyFiles:
    """A self-signed application certificate (OPC 10000-6, 6.2.2) with its key in `directory`. Blocking: a key takes some 0.1 s."""
    files = KeyFiles(certificate=directory / f"{name}.crt.pem", private_key=directory / f"{name}.key.pem")
    key = new_key(_RSA_BITS)
    wish = Wish(name=name, application_uri=application_uri, hosts=hosts, bits=_RSA_BITS)
    write_pair(files.certificate, files.private_key, self_signed(wish, key, now=datetime.now(UTC), days=LIFE_DAYS), key)
    return files
