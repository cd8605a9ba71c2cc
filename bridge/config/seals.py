"""What a participant entry has to name for its profile's form of signature: a key set of SMP's, or the certificates that were agreed."""

from collections.abc import Collection, Iterator
from typing import Final

from bridge.config.document import Document
from bridge.config.tree import Loc
from bridge.profile import Profile

_CERTIFIED: Final = {
    "signing_certificate": "the certificate (PEM) of `signing_key`, which each call shows",
    "smp_certificate": "{ca: FILE, subjects: […]} or {ca: FILE, thumbprints: […]}, the authority and the certificates that were agreed with SMP",
    "return_url": "the whole address that SMP pushes this participant's returns to; SMP signs it",
}


def check_seals(document: Document, loc: Loc, profile: Profile, named: Collection[str]) -> None:
    """Every key that the form needs is there, and none that belongs to another form. `named` are the entry's keys that are not null."""
    for text in _missing(profile, named):
        document.wrong(loc, text, at_key=True)
    form = profile.signature_form.value
    for key in _foreign(profile):
        if key in named:
            document.wrong(
                (*loc, key), f"does not belong to the profile {profile.name} ({form}); take it out", at_key=True
            )


def _missing(profile: Profile, named: Collection[str]) -> Iterator[str]:
    if not profile.signature_form.certified:
        if "smp_jwks" not in named:
            yield "`smp_jwks` is missing; add it"
        return
    for key, what in _CERTIFIED.items():
        if key not in named and (key == "signing_certificate" or profile.pushes_returns):
            yield f"`{key}` is missing; add it: {what} (profile {profile.name}, {profile.signature_form.value})"


def _foreign(profile: Profile) -> Collection[str]:
    """Keys that nobody would look at. The address of returns harms nobody."""
    if profile.signature_form.certified:
        return ("smp_jwks",)
    return tuple(key for key in _CERTIFIED if key != "return_url")
