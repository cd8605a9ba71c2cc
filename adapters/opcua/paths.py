"""Browse paths as a site writes them: `Objects/ems:EMS/ems:Assets/*`. Pure."""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final, NamedTuple

ROOT: Final = "Objects"
NAME: Final = "$name"  # behind #: an enumeration's value by its name
_GLOB: Final = frozenset("*?[")


class Segment(NamedTuple):
    """One browse name or glob; `prefix` is a name of the adapter's `namespaces`, '' for namespace 0."""

    prefix: str
    name: str

    @property
    def is_glob(self) -> bool:
        """Whether several nodes may match."""
        return not _GLOB.isdisjoint(self.name)

    def matches(self, name: str) -> bool:
        """Whether a browse name (of the right namespace) is meant."""
        if self.name == "*":
            return True
        return fnmatchcase(name, self.name) if self.is_glob else name == self.name

    def covers(self, other: "Segment") -> bool:
        """Whether everything that `other` can match is matched by this one too."""
        if self.prefix != other.prefix:
            return False
        if self.name in {"*", other.name}:
            return True
        return not other.is_glob and self.matches(other.name)

    def __str__(self) -> str:
        return f"{self.prefix}:{self.name}" if self.prefix else self.name


@dataclass(frozen=True, slots=True)
class BrowsePath:
    """Segments from the Objects folder (absolute) or from a record's node (relative); every one knows its namespace."""

    segments: tuple[Segment, ...]

    @property
    def prefix(self) -> str:
        """The namespace that a bare segment below inherits."""
        return self.segments[-1].prefix if self.segments else ""

    @property
    def prefixes(self) -> frozenset[str]:
        """Every namespace prefix used."""
        return frozenset(segment.prefix for segment in self.segments if segment.prefix)

    @property
    def has_glob(self) -> bool:
        """Whether several nodes may match."""
        return any(segment.is_glob for segment in self.segments)

    def below(self, other: "BrowsePath") -> "BrowsePath":
        """`other`, taken from here."""
        return BrowsePath(self.segments + other.segments)

    def covers(self, other: object) -> bool:
        """Whether everything that `other` can match is matched by this path too; an address of another kind never is."""
        if not isinstance(other, BrowsePath):
            return False
        return len(self.segments) == len(other.segments) and all(
            mine.covers(theirs) for mine, theirs in zip(self.segments, other.segments, strict=True)
        )

    def __str__(self) -> str:
        return "/".join(str(segment) for segment in self.segments)


def absolute(text: str) -> BrowsePath:
    """A path from `Objects`; raises `ValueError` in words for an operator."""
    path = _parse(text, "")
    if path.segments[0] != Segment("", ROOT) or len(path.segments) < 2:
        raise ValueError(f"must begin at {ROOT}, such as {ROOT}/ems:EMS/ems:Assets/*")
    return path


def relative(text: str, parent: BrowsePath) -> BrowsePath:
    """A path below a record's node; a bare segment has its parent's namespace. Raises `ValueError` in words for an operator."""
    path = _parse(text, parent.prefix)
    if path.has_glob:
        raise ValueError("must name one node; * is only allowed in `each` and `writable`")
    return path


def split_member(text: str) -> tuple[str, tuple[str, ...]]:
    """A field's path and, behind `#`, the way into the structure that stands there, `Nameplate#Address.Postcode`, or `$name`. Raises `ValueError`."""
    path, mark, member = text.partition("#")
    names = tuple(member.split(".")) if mark else ()
    if not all(names):
        raise ValueError(
            "behind # stand names of a structure's fields, separated by dots, such as Nameplate#Address.Postcode"
        )
    unknown = [each for each in names if each.startswith("$")]
    if unknown and names != (NAME,):
        raise ValueError(f"behind # stands {unknown[0]}, and only {NAME} alone is known there")
    return path, names


def _parse(text: str, prefix: str) -> BrowsePath:
    segments = []
    for part in text.split("/"):
        segment = _segment(part, prefix)
        prefix = segment.prefix
        segments.append(segment)
    return BrowsePath(tuple(segments))


def _segment(part: str, inherited: str) -> Segment:
    prefix, colon, name = part.partition(":")
    if not colon:
        prefix, name = inherited, part
    if not name or (colon and not prefix):
        raise ValueError("must be browse names separated by /, each as NAME or PREFIX:NAME, none empty")
    return Segment(prefix, name)
