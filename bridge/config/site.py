"""A site's YAML: its adapters and flows. The parts that belong to an adapter are read by the adapter's own models."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field, field_validator

from bridge.api import Adapter, Options, Outcome, OutcomeField, RecordsOptions, Selection
from bridge.config.payload import Payload
from bridge.config.references import Untouched
from bridge.config.values import Duration
from bridge.identifiers import Severity
from bridge.model import UNMAPPED, UNMAPPED_ERROR_CODE, EmsState, HostReason, Operation, Trigger

Later = Annotated[Any, Untouched]
DAY_S: Final = 86_400.0
LINK_DOWN_S: Final = 60.0


class SubmitOptions(Options):
    """The core's own part of `submit:`."""

    when: Trigger


class AlarmsOptions(Options):
    """The core's own part of `alarms:`. `link_down_after`: how long a link may be without a session that lasts before it is an alarm."""

    adapter: str | None = None
    word: Later = None
    link_down_after: Annotated[Duration, Field(ge=1, le=DAY_S)] = LINK_DOWN_S


class SiteOptions(Options):
    """The top of a site file."""

    site: str
    participant: str | None = None
    alarms: Annotated[Later, Field(default_factory=dict)]
    adapters: Annotated[Later, Field(default_factory=dict)]
    flows: Annotated[Later, Field(default_factory=dict)]


def _words(value: object) -> object:
    """Keys as text: an error code of digits is still a word."""
    return {str(key): item for key, item in value.items()} if isinstance(value, Mapping) else value


class FlowOptions(Options):
    """The core's own part of a flow. `max_items` may lower the profile's limit of items in one call."""

    adapter: str
    operation: Operation
    participant: str | None = None
    records: Later
    submit: Later
    outcome: Later
    payload: Later
    states: Annotated[Mapping[str, int], Field(default_factory=dict)]
    error_codes: Annotated[Mapping[str, int], BeforeValidator(_words), Field(default_factory=dict)]
    severities: Annotated[Mapping[str, Severity], Field(default_factory=dict)]
    linger: Duration = 0.0
    deadline: Annotated[Duration, Field(ge=1)] = DAY_S
    latency_budget: Duration = 0.0
    wait_for_registration: Duration = 5.0
    max_items: Annotated[int | None, Field(ge=1)] = None

    @field_validator("states")
    @classmethod
    def _states(cls, words: Mapping[str, int]) -> Mapping[str, int]:
        known = [state.word for state in EmsState]
        for word in words:
            if word not in known:
                raise ValueError(f"`{word}` is not a state word; known are {', '.join(known)}")
        registered = words.get(EmsState.REGISTERED.word)
        for state in EmsState:
            if state is not EmsState.REGISTERED and int(state) == registered and state.word not in words:
                text = f"gives `registered` the number {registered}, which is `{state.word}` as long as that has no other; give both a number"
                raise ValueError(text)
        return words

    def numbers(self) -> Mapping[OutcomeField, Mapping[str, int]]:
        """What may be written as a state and as an error code, by word and by code; `UNMAPPED` is any code of SMP's that has no number."""
        ours = {str(int(reason)): int(reason) for reason in HostReason}
        return {
            OutcomeField.STATE: {state.word: self.states.get(state.word, int(state)) for state in EmsState},
            OutcomeField.ERROR_CODE: {UNMAPPED: UNMAPPED_ERROR_CODE, **ours, **self.error_codes},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterConfig:
    """One connection to an EMS: the adapter and its validated options."""

    name: str
    adapter: Adapter
    options: Options


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowConfig:
    """One flow, checked. `records`, `submit` and `outcome` are instances of the adapter's models; `latency_budget_s` is 0 where none was named."""

    name: str
    site: str
    adapter: str
    participant: str
    operation: Operation
    trigger: Trigger
    records: RecordsOptions
    submit: Options
    outcome: Outcome
    payload: Payload
    states: Mapping[EmsState, int] = field(default_factory=dict)
    error_codes: Mapping[str, int] = field(default_factory=dict)
    severities: Mapping[str, Severity] = field(default_factory=dict)
    linger_s: float = 0.0
    deadline_s: float = DAY_S
    latency_budget_s: float = 0.0
    registration_wait_s: float = 5.0
    max_items: int | None = None

    @property
    def key_field(self) -> str:
        """The record's field whose value is the key."""
        return self.records.key

    def selection(self) -> Selection:
        """The flow as its adapter sees it."""
        return Selection(
            flow=self.name, trigger=self.trigger, records=self.records, submit=self.submit, outcome=self.outcome
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AlarmsConfig:
    """What a site says of alarms. `word` is an instance of the model of `adapter`, None where no word is written."""

    adapter: str = ""
    word: Options | None = None
    link_down_after_s: float = LINK_DOWN_S


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteConfig:
    """One place with an EMS."""

    name: str
    file: Path
    adapters: Mapping[str, AdapterConfig]
    flows: Mapping[str, FlowConfig]
    alarms: AlarmsConfig = AlarmsConfig()
