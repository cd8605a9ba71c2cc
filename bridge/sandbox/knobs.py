"""What a tester can turn: how the sandbox misbehaves, from now on or for the next calls."""

from collections.abc import Mapping
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

Seconds: TypeAlias = Annotated[float, Field(ge=0, le=3600)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_assignment=True)


class Refusal(_Strict):
    """The error that the sandbox names for one reference."""

    code: str = "VALIDATION_ERROR"
    message: str = "refused by the sandbox"
    field: str = ""


class Fault(_Strict):
    """What happens to the next call of this operation instead of, or after, its processing.

    `operation` is asset.create, unit.create, transaction.status, authenticate or `*`. With `process`, the call is worked as usual first. `drop` closes the
    connection without an answer. `size` makes a body of that many bytes, sent in pieces. `names` are references that a 400 names in its error list.
    """

    operation: str = "*"
    status: Annotated[int, Field(ge=100, le=599)] = 500
    headers: dict[str, str] = {}
    body: str = ""
    content_type: str = "application/json"
    size: Annotated[int, Field(ge=0, le=2**31)] = 0
    process: bool = False
    drop: bool = False
    names: list[str] = []


class Knobs(_Strict):
    """How the sandbox behaves. Everything can be changed while it runs.

    `returns`: push them `return_delay_s` after the acceptance, hold them until released, or never send any; a result accepted under `hold` is held
    whatever the knob says a moment later. `return_early`: push before the Create is answered. `return_twice`: push each one again.
    `shuffle`: held returns are released, and items listed, in an order drawn from the seed. `resign`: a repeated push is signed anew, with its new time.
    `batch`: with `partial`, items without errors are registered; with `atomic`, one bad item refuses all. `recognises_repeats`: a message id seen before
    gets its first transaction again. `wrong_signature` and `wrong_key` spoil what the sandbox signs; `unknown_word` replaces the next results' status words.
    `registered` are assets (reference: id) that came by another way before: units may align to them, and a Create of them is refused.
    `most_per_minute` is how many calls one account may make in a minute before it gets 429 with Retry-After (0: no limit).
    """

    refuse: dict[str, Refusal] = {}
    registered: dict[str, str] = {}
    answer_delay_s: Seconds = 0.0
    return_delay_s: Seconds = 0.05
    retry_delay_s: Seconds = 0.5
    retries: Annotated[int, Field(ge=0, le=1000)] = 20
    returns: Literal["push", "hold", "never"] = "push"
    return_early: bool = False
    return_twice: bool = False
    shuffle: bool = False
    resign: bool = False
    batch: Literal["partial", "atomic"] = "partial"
    recognises_repeats: bool = False
    sign_answers: bool = True
    wrong_signature: bool = False
    wrong_key: bool = False
    unknown_word: str = ""
    most_per_minute: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    token_life_s: Annotated[float, Field(gt=0, le=86400)] = 3600.0
    warn: dict[str, str] = {}
    faults: list[Fault] = []

    def change(self, values: Mapping[str, object]) -> None:
        """Set these knobs; raises pydantic's ValidationError and changes nothing when one is unknown or wrong."""
        checked = type(self).model_validate({**self.model_dump(), **values})
        for name in values:
            setattr(self, name, getattr(checked, name))

    def next_fault(self, operation: str) -> Fault | None:
        """Take the first fault that is meant for this operation."""
        for index, fault in enumerate(self.faults):
            if fault.operation in {operation, "*"}:
                return self.faults.pop(index)
        return None
