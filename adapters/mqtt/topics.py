"""Topics as templates with named levels, and the patterns of `writable:`. Pure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

MOST_BYTES: Final = 65_535  # MQTT's own limit of a topic
_NAME: Final = re.compile(r"\{([a-z][a-z0-9_]*)\}")
_FORBIDDEN: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Template:
    """A topic in which a whole level may be a named placeholder: `acme/asset/{asset}/registration`. A level is (text, name); one of them is empty."""

    text: str
    levels: tuple[tuple[str, str], ...]
    names: tuple[str, ...] = field(init=False)
    """The placeholders in their order."""
    _fixed: tuple[tuple[int, str], ...] = field(init=False, repr=False, compare=False)
    _named: tuple[tuple[int, str], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        numbered = list(enumerate(self.levels))
        object.__setattr__(self, "names", tuple(name for _, name in self.levels if name))
        object.__setattr__(self, "_fixed", tuple((at, text) for at, (text, name) in numbered if not name))
        object.__setattr__(self, "_named", tuple((at, name) for at, (_, name) in numbered if name))

    @property
    def filter(self) -> str:
        """What is subscribed to: every placeholder is a `+`."""
        return "/".join("+" if name else text for text, name in self.levels)

    def match(self, topic: Sequence[str]) -> dict[str, str] | None:
        """The placeholders' values in a topic's levels; None when it is another topic. An empty level is never a value."""
        if len(topic) != len(self.levels):
            return None
        for at, text in self._fixed:
            if topic[at] != text:
                return None
        values = {name: topic[at] for at, name in self._named}
        return values if all(values.values()) else None

    def fill(self, values: Mapping[str, str]) -> str:
        """The topic with these values."""
        return "/".join(values[name] if name else text for text, name in self.levels)

    def overlaps(self, other: "Template") -> bool:
        """Whether some topic fits both."""
        return len(self.levels) == len(other.levels) and all(
            mine[1] or theirs[1] or mine[0] == theirs[0] for mine, theirs in zip(self.levels, other.levels, strict=True)
        )


@lru_cache(maxsize=1024)
def template(text: str) -> Template:
    """Parse a topic template. Raises `ValueError` that says what would be right."""
    levels: list[tuple[str, str]] = []
    for level in _levels(text):
        found = _NAME.fullmatch(level)
        if found is None and ("{" in level or "}" in level):
            raise ValueError(
                f"the level `{level}` must be a placeholder as a whole, such as {{asset}} (a-z, 0-9, _), or have no braces"
            )
        if "+" in level or "#" in level:
            raise ValueError(f"the level `{level}` must not hold a wildcard; give it a name, such as {{asset}}")
        if found is not None and found[1] in {name for _, name in levels}:
            raise ValueError(f"the placeholder {level} stands here twice; each needs a name of its own")
        levels.append(("", found[1]) if found else (level, ""))
    return Template(text, tuple(levels))


@dataclass(frozen=True, slots=True)
class Pattern:
    """An MQTT topic filter: `+` is one level, a last `#` is all that follow."""

    levels: tuple[str, ...]

    def covers(self, topic: Template) -> bool:
        """Whether every topic of this template fits."""
        return self._fits([text if text or not name else None for text, name in topic.levels])

    def allows(self, topic: str) -> bool:
        """Whether this topic fits."""
        return self._fits(topic.split("/"))

    def _fits(self, topic: Sequence[str | None]) -> bool:
        """None is a level of any value. Wildcards never reach the broker's own topics, which begin with `$`."""
        first = topic[0]
        if self.levels[0] in {"+", "#"} and first is not None and first.startswith("$"):
            return False
        for index, level in enumerate(self.levels):
            if level == "#":
                return True
            if index >= len(topic) or (level != "+" and level != topic[index]):
                return False
        return len(topic) == len(self.levels)


@lru_cache(maxsize=1024)
def pattern(text: str) -> Pattern:
    """Parse a topic filter. Raises `ValueError` that says what would be right."""
    levels = _levels(text)
    for index, level in enumerate(levels):
        if "{" in level or "}" in level:
            raise ValueError(f"the level `{level}` must be `+` here, which stands for one level of any name")
        if level != "+" and "+" in level:
            raise ValueError(f"the level `{level}` must be `+` alone")
        if "#" in level and (level != "#" or index + 1 < len(levels)):
            raise ValueError("`#` must be the last level, and alone in it")
    return Pattern(tuple(levels))


def plain(text: str) -> str:
    """Check a topic without placeholders or wildcards. Raises `ValueError`."""
    if template(text).names:
        raise ValueError("must be one topic, without placeholders")
    return text


def _levels(text: str) -> list[str]:
    if not text or len(text.encode("utf-8", "surrogatepass")) > MOST_BYTES:
        raise ValueError(f"a topic has 1 to {MOST_BYTES} bytes")
    if _FORBIDDEN.search(text):
        raise ValueError("a topic must not hold control characters")
    if text.startswith("$"):
        raise ValueError(
            "topics that begin with `$` are the broker's own; a shared subscription is written `share: GROUP`"
        )
    return text.split("/")
