"""Which EMSs and which SMPs this process reaches, since when, and what went wrong last: as far as it is somebody's business."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from bridge.clock import iso_ms
from bridge.measure.reach import Reach
from bridge.web.roles import THE_HOSTS, Person, Territory


@dataclass(frozen=True, slots=True, kw_only=True)
class Contact:
    """How a peer stood at one moment; see `Reach`."""

    up: bool | None
    since_ns: int
    tried_ns: int
    error: str
    error_ns: int

    @classmethod
    def of(cls, reach: Reach) -> "Contact":
        """As it stands now."""
        return cls(
            up=reach.up,
            since_ns=reach.since_ns,
            tried_ns=reach.tried_ns,
            error=reach.error,
            error_ns=reach.error_ns,
        )

    def told(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "up": self.up,
            "since": iso_ms(self.since_ns) if self.since_ns else None,
            "last_error": self.error or None,
            "last_error_at": iso_ms(self.error_ns) if self.error_ns else None,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class EmsLink:
    """The link of one adapter; `age_s` is that of its last good reading, None before the first."""

    site: str
    adapter: str
    contact: Contact
    age_s: float | None

    def told(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "site": self.site,
            "adapter": self.adapter,
            **self.contact.told(),
            "last_good_reading_age_s": self.age_s,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class SmpLink:
    """One participant's way to SMP; `paused` says why nothing is sent at the moment, though it may be reached."""

    participant: str
    contact: Contact
    paused: str

    def told(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "participant": self.participant,
            **self.contact.told(),
            "last_call": iso_ms(self.contact.tried_ns) if self.contact.tried_ns else None,
            "paused": self.paused or None,
        }


def theirs(
    territory: Territory, person: Person, ems: Sequence[EmsLink], smp: Sequence[SmpLink]
) -> tuple[list[EmsLink], list[SmpLink]]:
    """What somebody may see of them. An error of a link may speak of any flow that it carries, so it takes them all to read it."""
    return [_read(territory, person, link) for link in ems if territory.shows_link(person, link.site, link.adapter)], [
        link for link in smp if person.sees(link.participant)
    ]


def _read(territory: Territory, person: Person, link: EmsLink) -> EmsLink:
    whole = person.sees_all(territory.adapters.get((link.site, link.adapter), frozenset()))
    return link if whole or not link.contact.error else replace(link, contact=replace(link.contact, error=THE_HOSTS))
