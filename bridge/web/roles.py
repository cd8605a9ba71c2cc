"""Who may do what at the admin listener. Pure: roles, the person behind a request, and which names of the configuration belong to whom."""

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Self

from bridge.config import Config

THE_HOSTS: Final = "the host's own; ask its operator"  # in place of words that may speak of another
HELD: Final = "HOLD"  # the alarm of a hold
_ALARMS: Final = "smp_bridge_alarms"
_HOST_FAMILIES: Final = ("smp_bridge_clock_", "smp_bridge_signing_held")  # of the machine, no participant's


class Role(enum.Enum):
    """What a token allows beyond reading, which each of them may."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    APPROVER = "approver"
    CUSTODIAN = "key-custodian"
    AUDITOR = "auditor"


READING: Final = frozenset(Role)


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Who asks. `participants` None = all of them; `token` is the token's id, '' where none is needed."""

    name: str
    role: Role
    participants: frozenset[str] | None
    token: str = ""
    expires_ns: int = 0

    def sees(self, participant: str) -> bool:
        """Whether this participant's names, data and alarms are this person's business; '' (the host) only is for who sees all."""
        return self.participants is None or participant in self.participants

    def sees_all(self, participants: Iterable[str]) -> bool:
        """Whether everything of a thing that these participants share is."""
        return self.participants is None or (bool(wanted := set(participants)) and wanted <= self.participants)

    def shares(self, participants: Iterable[str]) -> bool:
        """Whether anything of a thing that these participants share is."""
        return self.participants is None or not self.participants.isdisjoint(participants)


NOBODY: Final = Person(
    name="", role=Role.VIEWER, participants=None
)  # reading without a token, where that is configured


@dataclass(frozen=True, slots=True, kw_only=True)
class Territory:
    """Which participant the names of a configuration belong to."""

    environments: Mapping[str, str]
    four_eyes: frozenset[str] = frozenset()
    flows: Mapping[tuple[str, str], str] = field(default_factory=dict)
    adapters: Mapping[tuple[str, str], frozenset[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, config: Config) -> Self:
        """That of this configuration."""
        flows = {
            (site.name, flow.name): flow.participant for site in config.sites.values() for flow in site.flows.values()
        }
        adapters: dict[tuple[str, str], set[str]] = {}
        for site in config.sites.values():
            for flow in site.flows.values():
                adapters.setdefault((site.name, flow.adapter), set()).add(flow.participant)
        return cls(
            environments={name: entry.options.environment.value for name, entry in config.participants.items()},
            four_eyes=frozenset(name for name, entry in config.participants.items() if entry.options.four_eyes),
            flows=flows,
            adapters={where: frozenset(names) for where, names in adapters.items()},
        )

    def at_site(self, site: str) -> set[str]:
        """Every participant with a flow there."""
        return {participant for (name, _), participant in self.flows.items() if name == site}

    def in_environment(self, environment: str) -> set[str]:
        """Every participant entry that speaks to this environment."""
        return {name for name, found in self.environments.items() if found == environment}

    def shows_link(self, person: Person, site: str, adapter: str) -> bool:
        """Whether a link carries anything of theirs: then its health is their business, though others may share it."""
        return person.shares(self.adapters.get((site, adapter), frozenset()))

    def shows_metric(self, person: Person, name: str, labels: Mapping[str, str]) -> bool:
        """Whether a sample is theirs: by its participant, else its site and flow, its link, or its whole site. Sums over the host are for who sees all; that it is held, or one of its own alarms stands, is everybody's."""
        if person.participants is None:
            return True
        if labels.get("participant"):
            return person.sees(labels["participant"])
        site = labels.get("site", "")
        if site and "flow" in labels:
            return person.sees(self.flows.get((site, labels["flow"]), ""))
        if site and "adapter" in labels:
            return self.shows_link(person, site, labels["adapter"])
        if site:
            is_hold = name == _ALARMS and labels["code"] == HELD
            return person.shares(self.at_site(site)) if is_hold else person.sees_all(self.at_site(site))
        if labels.get("environment"):
            return person.shares(self.in_environment(labels["environment"]))
        return name == _ALARMS or name.startswith(_HOST_FAMILIES)
