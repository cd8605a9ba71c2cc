"""The verbs of a flow's `payload:`: how each field of an item comes from a record. `bridge.mapping` compiles them."""

import string
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, Final, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BeforeValidator, Field, field_validator, model_validator

from bridge.api import Options

ITEM: Final = "$item"
EPOCH_FORMATS: Final = ("epoch_s", "epoch_ms")


class NumberText(Options):
    """How numbers stand in text: `{decimal: ","}`, with `thousands` where groups of three are parted."""

    decimal: Literal[".", ","]
    thousands: Literal["", ".", ",", " ", "'"] = ""

    @model_validator(mode="after")
    def _differ(self) -> Self:
        if self.decimal == self.thousands:
            raise ValueError("`decimal` and `thousands` must differ")
        return self


def _exact(value: object) -> object:
    """A float as the decimal that was written, so that 0.1 means 0.1."""
    return repr(value) if isinstance(value, float) else value


Exact = Annotated[Decimal, BeforeValidator(_exact), Field(allow_inf_nan=False)]


class Rule(Options):
    """Where one field comes from and what is done to it, in this order: from, default, number, map, scale, offset, round, format.

    Exactly one source: `from` (a field of the record, or `$item`), `const`, `each` with `item` (a list made of the elements of a field), or `format` whose template
    names fields. `default` stands in where the EMS has nothing (missing, null or empty text), never for a bad value; `default: null` leaves the field out.
    `format` is a text template (`"{}"` is the value, `"{name}"` another field) or a date-time pattern (`%d.%m.%Y`, `epoch_s`, `epoch_ms`); a pattern without
    a zone needs `zone` (IANA name); of the hour that happens twice the `fold` one is meant.
    """

    source: Annotated[str | None, Field(alias="from", min_length=1)] = None
    const: Any = None
    map: Annotated[Mapping[Any, Any] | None, Field(min_length=1)] = None
    scale: Exact | None = None
    offset: Exact | None = None
    round: Annotated[int | None, Field(ge=0, le=9)] = None
    format: Annotated[str | None, Field(min_length=1, max_length=200)] = None
    zone: str | None = None
    fold: Literal["earlier", "later"] = "earlier"
    default: Any = None
    number: NumberText | None = None
    each: Annotated[str | None, Field(min_length=1)] = None
    item: "Payload | None" = None

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, value: object) -> object:
        """`assetReference: reference` is short for `{from: reference}`."""
        if isinstance(value, str):
            return {"from": value}
        if isinstance(value, Mapping | Rule):
            return value
        raise ValueError(
            "must be a field of the record, or a mapping such as {const: VALUE} or {from: FIELD, map: {…}}"
        )

    @property
    def has_default(self) -> bool:
        """Whether `default` was written at all (null counts)."""
        return "default" in self.model_fields_set

    @property
    def has_const(self) -> bool:
        """Whether `const` was written."""
        return "const" in self.model_fields_set

    def template(self) -> tuple[tuple[str, str | None, str], ...]:
        """The `format` as (text before, field name or None at the end, format specification)."""
        return tuple((text, name, spec or "") for text, name, spec, _ in string.Formatter().parse(self.format or ""))

    def fields(self) -> tuple[str, ...]:
        """The fields of the record that this rule reads at its own level (not inside `item`)."""
        names = [name for name in (self.source, self.each) if name]
        if self.is_template:
            names += [name for _, name, _ in self.template() if name]
        return tuple(name for name in names if name != ITEM and not name.startswith(f"{ITEM}."))

    @property
    def is_template(self) -> bool:
        """Whether `format` is a text template rather than a date-time pattern."""
        return self.format is not None and self.format not in EPOCH_FORMATS and "%" not in self.format

    @field_validator("format")
    @classmethod
    def _readable(cls, text: str | None) -> str | None:
        if text is None or text in EPOCH_FORMATS or "%" in text:
            return text
        for _, name, _, conversion in string.Formatter().parse(text):
            if conversion or (name is not None and not name.replace("_", "a").replace("$", "a").isalnum() and name):
                raise ValueError("may name fields as {name} or the value as {}, nothing more")
        return text

    @field_validator("zone")
    @classmethod
    def _known_zone(cls, name: str | None) -> str | None:
        if name is not None:
            try:
                ZoneInfo(name)
            except (ZoneInfoNotFoundError, ValueError, OSError):
                raise ValueError("is not a time zone; write an IANA name such as Europe/London or UTC") from None
        return name

    @field_validator("map")
    @classmethod
    def _scalars(cls, words: Mapping[Any, Any] | None) -> Mapping[Any, Any] | None:
        if words is not None and not all(isinstance(word, str | int | float | bool) for word in words.values()):
            raise ValueError("must map each value of the EMS to one word, number or boolean")
        return words

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        named = self.is_template and any(name for _, name, _ in self.template())
        sources = [self.source is not None, self.has_const, self.each is not None]
        if sum(sources) > 1 or (sum(sources) == 0 and not named):
            raise ValueError("needs exactly one of `from`, `const`, `each` (or a `format` that names fields)")
        if (self.each is None) != (self.item is None):
            raise ValueError("`each` (the list field) and `item` (what to make of each element) belong together")
        others = {"map", "scale", "offset", "round", "format", "number", "zone", "fold"} & self.model_fields_set
        if others and (self.has_const or self.each is not None):
            raise ValueError(f"`{min(others)}` has nothing to work on here: it belongs to `from`")
        if named and others - {"format"}:
            raise ValueError(f"`{min(others - {'format'})}` cannot work beside a `format` that names fields")
        if self.has_default and self.has_const:
            raise ValueError("`default` has no use beside `const`")
        if self.zone is not None and (self.format is None or self.is_template):
            raise ValueError("`zone` belongs to a date-time `format`")
        return self


Payload = Mapping[str, Rule]
Rule.model_rebuild()
