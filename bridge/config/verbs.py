"""The verbs of a payload rule as steps from one value to the next, each a closure made once. Pure."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation, localcontext
from typing import Any, Final
from zoneinfo import ZoneInfo

from bridge.config.kinds import CONVERTERS, Convert, WrongValue, shown, to_instant, to_number, wrong_type
from bridge.config.payload import NumberText, Rule
from bridge.model import HostReason

_DIGITS: Final = 40
_EPOCH_DIVISOR: Final = {"epoch_s": 1, "epoch_ms": 1000}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def steps_of(rule: Rule, kind: str) -> tuple[Convert, ...]:
    """The steps of a rule for a target of this type, the conversion to the type last. Each raises `WrongValue`."""
    steps: list[Convert] = []
    if rule.number is not None:
        steps.append(_number_of_text(rule.number))
    if rule.map is not None:
        steps.append(_mapped(rule.map))
    if rule.scale is not None or rule.offset is not None or rule.round is not None:
        steps.append(_arithmetic(rule))
    if rule.format is not None and not (rule.is_template and rule.source is None):
        steps.append(_formatting(rule, kind))
    if kind == "instant" and rule.format in _EPOCH_DIVISOR:
        return tuple(steps)
    return (*steps, CONVERTERS[kind])


def formatted(value: object, spec: str) -> str:
    """One value inside a text template."""
    try:
        return format(value, spec)
    except (ValueError, TypeError, OverflowError):
        raise wrong_type(value, f"a value that `{spec}` can format") from None


def _number_of_text(form: NumberText) -> Convert:
    decimal, thousands = form.decimal, form.thousands

    def step(value: object) -> object:
        if not isinstance(value, str):
            return value
        whole, mark, fraction = value.strip().partition(decimal)
        sign = whole[:1] if whole[:1] in {"-", "+"} else ""
        whole = whole[len(sign) :]
        if thousands and thousands in whole:
            first, *groups = whole.split(thousands)
            whole = first + "".join(groups) if 1 <= len(first) <= 3 and all(len(part) == 3 for part in groups) else ""
        digits = whole + fraction
        if not whole or (mark and not fraction) or not (digits.isascii() and digits.isdigit()):
            raise wrong_type(value, f"a number written with `{decimal}` as its decimal mark")
        if len(digits) > _DIGITS:  # thousands of them take seconds to read
            raise WrongValue(HostReason.NOT_A_NUMBER, f"is {shown(value)}, must have at most {_DIGITS} digits")
        return _plain(Decimal(f"{sign}{whole}.{fraction or 0}"))

    return step


def _mapped(words: Mapping[Any, Any]) -> Convert:
    known = {(isinstance(key, bool), key): word for key, word in words.items()}
    listed = ", ".join(str(key) for key in words)[:200]

    def step(value: object) -> object:
        try:
            return known[isinstance(value, bool), value]
        except (KeyError, TypeError):
            raise WrongValue(
                HostReason.UNMAPPED_VALUE, f"is {shown(value)}, which the `map` does not have; it has {listed}"
            ) from None

    return step


def _arithmetic(rule: Rule) -> Convert:
    """`value * scale + offset`, rounded half away from zero, in decimals so that 66 * 0.1 is 6.6."""
    scale, offset, places = rule.scale, rule.offset, rule.round
    unit = None if places is None else Decimal(1).scaleb(-places)

    def step(value: object) -> object:
        number = to_number(value)
        if scale is None and offset is None and (isinstance(number, int) or (places == 0 and number.is_integer())):
            return number
        with localcontext(prec=_DIGITS):
            try:
                exact = Decimal(number) if isinstance(number, int) else Decimal(repr(number))
                exact = exact * (1 if scale is None else scale) + (offset or 0)
                return _plain(exact if unit is None else exact.quantize(unit, ROUND_HALF_UP))
            except InvalidOperation:
                raise WrongValue(HostReason.NOT_A_NUMBER, f"is {shown(value)}, out of range") from None

    return step


def _plain(number: Decimal) -> int | float:
    return int(number) if number == number.to_integral_value() else float(number)


def _formatting(rule: Rule, kind: str) -> Convert:
    if rule.is_template:
        pieces = rule.template()

        def fill(value: object) -> object:
            return "".join(text + (formatted(value, spec) if name is not None else "") for text, name, spec in pieces)

        return fill
    if rule.format in _EPOCH_DIVISOR:
        return _epoch(_EPOCH_DIVISOR[rule.format])
    return _parsed_time(rule) if kind == "instant" else _written_time(rule)


def _epoch(divisor: int) -> Convert:
    def step(value: object) -> object:
        number = to_number(value)
        try:
            return to_instant(_EPOCH + timedelta(milliseconds=number * 1000 // divisor))
        except OverflowError:
            raise wrong_type(value, "seconds or milliseconds since 1970") from None

    return step


def _parsed_time(rule: Rule) -> Convert:
    """Text to a moment; a pattern without a zone takes `zone`, and of the hour that happens twice the one that `fold` names."""
    pattern, zone = rule.format or "", ZoneInfo(rule.zone) if rule.zone else None
    fold = 1 if rule.fold == "later" else 0

    def step(value: object) -> object:
        if not isinstance(value, str):
            return value
        try:
            moment = datetime.strptime(value.strip(), pattern)  # noqa: DTZ007 - the zone follows
        except ValueError:
            raise wrong_type(value, f"a date-time written as {pattern}") from None
        if moment.tzinfo is not None or zone is None:
            return moment
        local = moment.replace(tzinfo=zone, fold=fold)
        try:
            there = local.astimezone(UTC).astimezone(zone).replace(tzinfo=None) == moment
        except OverflowError:
            raise wrong_type(value, "a date-time between the years 1 and 9999") from None
        if not there:
            raise wrong_type(value, f"a time that exists in {rule.zone} (the clocks skip this one)")
        return local

    return step


def _written_time(rule: Rule) -> Convert:
    """A moment to text, in the zone given, else in UTC."""
    pattern, zone = rule.format or "", ZoneInfo(rule.zone) if rule.zone else UTC

    def step(value: object) -> object:
        if not isinstance(value, datetime) or value.tzinfo is None:
            raise wrong_type(value, "a date-time with a zone")
        try:
            return value.astimezone(zone).strftime(pattern)
        except (OverflowError, ValueError):
            raise wrong_type(value, "a date-time between the years 1 and 9999") from None

    return step
