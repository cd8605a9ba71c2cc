"""What a message's payload holds: JSON with members by name or JMESPath, CSV with one row, or plain text. Pure."""

import csv
import io
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from adapters.mqtt.codec import Unreadable, find, parse, text_of
from adapters.mqtt.config import Csv, Format, Scalar
from bridge.api import Quality, Reading

MOST_ID: Final = 200
WHOLE: Final = ""  # the name of a plain payload's only member
_EXPRESSION: Final = re.compile(r"[\[\]*|(){}&@`'\"?=<>!,]")  # with one of these a name is JMESPath
_USUAL: Final = frozenset({str, int, bool})  # neither absent nor no number
_HINT: Final = 'a member whose own name has such letters is written in double quotes, such as "kw (max)"'


class Source:
    """Where a field comes from: a placeholder of the topic, the steps of a member's path, or a compiled JMESPath expression."""

    __slots__ = ("expression", "placeholder", "steps", "text")

    def __init__(
        self, text: str, *, placeholder: str = "", steps: tuple[str, ...] = (), expression: Any = None
    ) -> None:
        self.text = text
        self.placeholder = placeholder
        self.steps = steps
        self.expression = expression

    @classmethod
    def of(cls, text: str, given: Format = Format.JSON) -> "Source":
        """From the site file's own spelling, compiled once. Raises `ValueError` that says what would be right."""
        if text.startswith("$"):
            return cls(text, placeholder=text[1:])
        if given is not Format.JSON:
            return cls(text, steps=(text,))
        if _EXPRESSION.search(text):
            return cls(text, expression=_compiled(text))
        if not all(text.split(".")):
            raise ValueError("must be a member's name, a path such as meter.mpan, or a JMESPath expression")
        return cls(text, steps=tuple(text.split(".")))

    def find(self, body: Any) -> Any:
        """The value; None when there is nothing. Raises `Unreadable` when the expression does not fit what the payload holds."""
        if self.expression is None:
            return find(body, self.steps)
        try:
            return self.expression.search(body)
        except (
            ValueError,
            TypeError,
            ArithmeticError,
            RecursionError,
        ) as error:  # the library's errors are ValueErrors
            raise Unreadable(f"{self.text} cannot be worked out ({_why(error)})") from None


def _compiled(text: str) -> Any:
    """A JMESPath expression. The library looks for functions and counts their arguments only when it calls them; here that is done at start."""
    from jmespath import compile as parsed  # noqa: PLC0415 - only where a site uses an expression
    from jmespath import exceptions, functions  # noqa: PLC0415

    try:
        expression = parsed(text)
    except exceptions.ParseError as error:
        place = f"at character {error.lex_position + 1}" if error.lex_position is not None else "at its end"
        raise ValueError(f"`{text}` is no JMESPath expression: it cannot be read {place}; {_HINT}") from None
    except exceptions.JMESPathError:
        raise ValueError(f"`{text}` is no JMESPath expression; {_HINT}") from None
    table = functions.Functions.FUNCTION_TABLE
    for name, arguments in _calls(expression.parsed):
        if name not in table:
            raise ValueError(
                f"`{text}`: JMESPath has no function {name}; known are {', '.join(sorted(table))}; {_HINT}"
            )
        signature = table[name]["signature"]
        more = bool(signature) and signature[-1].get("variadic")
        if arguments < len(signature) or (arguments > len(signature) and not more):
            raise ValueError(f"`{text}`: {name} takes {len(signature)} argument(s), not {arguments}")
    return expression


def _calls(node: Any) -> Iterator[tuple[str, int]]:
    """Every function that an expression's tree calls, with the number of its arguments."""
    if not isinstance(node, dict):
        return
    if node.get("type") == "function_expression":
        yield node["value"], len(node["children"])
    for child in node.get("children", ()):
        yield from _calls(child)


def _why(error: Exception) -> str:
    """The library's own text quotes the peer's values; this one does not."""
    function, kind = getattr(error, "function_name", ""), getattr(error, "actual_type", "")
    return f"{function}() was given {kind}" if function and kind else type(error).__name__


class Layout(NamedTuple):
    """How the messages of a topic are read: bytes to a body in which a `Source` finds its value. Raises `Unreadable`."""

    parse: Callable[[bytes], Mapping[str, Any]]

    @classmethod
    def of(cls, given: Format, table: Csv | None, limit: int) -> "Layout":
        """`limit` is `max_payload`, in bytes."""
        if given is Format.CSV:
            own = table or Csv()
            return cls(lambda payload: _row(payload, limit, own))
        if given is Format.PLAIN:
            return cls(lambda payload: {WHOLE: plain(payload, limit)})
        return cls(lambda payload: parse(payload, limit))


def plain(payload: bytes, limit: int) -> str | None:
    """A payload that is one value as text, without white space around it; None when nothing is left. Raises `Unreadable`."""
    return text_of(payload, limit).strip() or None


def _row(payload: bytes, limit: int, table: Csv) -> dict[str, str | None]:
    """A payload that is one row of cells, after a line with the columns' names unless the site file has them. An empty cell is absent."""
    csv.field_size_limit(
        max(limit, csv.field_size_limit())
    )  # the library's own limit is 131,072; `max_payload` is ours
    try:
        lines = csv.reader(io.StringIO(text_of(payload, limit), newline=""), delimiter=table.delimiter, strict=True)
        rows = [row for row in lines if row]
    except csv.Error as error:
        raise Unreadable(f"is not CSV ({error})") from None
    wanted = 2 if table.columns is None else 1
    if len(rows) != wanted:
        what = (
            "the columns' names and one row" if table.columns is None else "one row, as `csv.columns` names the cells"
        )
        raise Unreadable(f"has {len(rows)} line(s), must have {wanted}: {what}")
    columns = [name.strip() for name in rows[0]] if table.columns is None else list(table.columns)
    cells = rows[-1]
    if len(set(columns)) < len(columns):
        raise Unreadable("names a column twice")
    if len(cells) != len(columns):
        raise Unreadable(f"has {len(cells)} cell(s) in its row, must have {len(columns)}, one for each column")
    return {name: cell or None for name, cell in zip(columns, cells, strict=True)}


def reading(body: Mapping[str, Any], source: Source, placeholders: Mapping[str, str]) -> Reading:
    """One field. A member that is missing, null or an empty cell is absent: a flow's `default:` may stand in for it."""
    if source.placeholder:
        return Reading(value=placeholders[source.placeholder])
    try:
        value = source.find(body)
    except Unreadable as error:
        return Reading(value=None, quality=Quality.BAD, detail=str(error))
    if value is None:
        return Reading(value=None, quality=Quality.BAD, detail=f"{source.text} is not there", absent=True)
    if isinstance(value, float) and not math.isfinite(value):
        return Reading(value=None, quality=Quality.BAD, detail=f"{source.text} is not a finite number")
    return Reading(value)


def reader(sources: Mapping[str, Source]) -> Callable[[Mapping[str, Any], Mapping[str, str]], dict[str, Reading]]:
    """All fields of a record, each as `reading` has it, with fewer calls for the usual ones."""
    plan = [
        (name, source.placeholder, source.steps[0] if len(source.steps) == 1 else None, source)
        for name, source in sources.items()
    ]

    def read(body: Mapping[str, Any], placeholders: Mapping[str, str]) -> dict[str, Reading]:
        found = {}
        for name, placeholder, step, source in plan:
            if placeholder:
                found[name] = Reading(placeholders[placeholder])
                continue
            value = None if step is None else body.get(step)
            usual = type(value) in _USUAL or (type(value) is float and math.isfinite(value))
            found[name] = Reading(value) if usual else reading(body, source, placeholders)
        return found

    return read


def request_id(body: Mapping[str, Any], source: Source) -> str:
    """The request's id as text. Raises `Unreadable` when there is none that could be kept and given back."""
    value = source.find(body)
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() <= 64:
        return str(value)
    if not isinstance(value, str) or not value:
        where = f" at {source.text}" if source.text else ""
        raise Unreadable(f"has no request id{where}; must be text or a whole number")
    if len(value) > MOST_ID or not value.isprintable():
        raise Unreadable(f"has a request id that is longer than {MOST_ID} characters or not printable")
    return value


def fits(body: Mapping[str, Any], where: Sequence[tuple[Source, Scalar]]) -> bool:
    """Whether a request holds what `where:` asks. A number is never a text, and true is never 1."""
    return all(_same(source.find(body), wanted) for source, wanted in where)


def _same(value: Any, wanted: Scalar) -> bool:
    return bool(value == wanted) and isinstance(value, bool) == isinstance(wanted, bool)
