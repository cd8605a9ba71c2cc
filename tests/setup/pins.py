"""The lock: `locks/*.txt`, what each set of packages is made of, and how its lines are read."""

import re
from dataclasses import dataclass
from pathlib import Path

from packaging.markers import Marker
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCKS = ROOT / "locks"
PYPROJECT = ROOT / "pyproject.toml"
EXTRAS = ("serial", "postgres", "tracing", "hsm")
# Each set: the extras and groups of pyproject.toml that it holds (with the project's own dependencies, but for `build`), and the sets that are always installed with it, whose lines it does not repeat.
SETS = {
    "runtime": ((), (), ()),
    **{extra: ((extra,), (), ("runtime",)) for extra in EXTRAS},
    "demo": (("demo", "sandbox"), (), ("runtime",)),
    "build": ((), ("build",), ()),
    "dev": ((*EXTRAS, "demo", "sandbox"), ("dev",), ("runtime", *EXTRAS, "demo", "build")),
}
_HEAD = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)(?:\s*;\s*([^\\]+?))?\s*(?:\\|$)")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})(?=\s|$)")


@dataclass(frozen=True)
class Pin:
    """One package at one version, for the interpreters of `marker` ('' for all), and the SHA-256 of each file that may be taken for it."""

    name: str
    version: str
    marker: str
    hashes: tuple[str, ...]

    def holds(self, environment):
        """Whether it is for this interpreter."""
        return not self.marker or Marker(self.marker).evaluate(environment)

    def lines(self):
        """As pip reads it."""
        head = f"{self.name}=={self.version}" + (f" ; {self.marker}" if self.marker else "")
        return " \\\n".join([head, *(f"    --hash=sha256:{digest}" for digest in self.hashes)]) + "\n"


def read_pins(text):
    """The pins of a lock. Raises `ValueError` for a line that is none."""
    pins = []
    for block in re.sub(r"\\\n\s*", "\\\\ ", text).splitlines():
        if not block.strip() or block.startswith("#"):
            continue
        head = _HEAD.match(block)
        rest = _HASH.sub("", block[head.end() :]).replace("\\", "").strip() if head else block
        if head is None or rest:
            raise ValueError(f"this is no pin with hashes: {block[:100]}")
        pins.append(Pin(canonicalize_name(head[1]), head[2], head[3] or "", tuple(_HASH.findall(block))))
    return pins


def pins_of(name, *, alone=False):
    """The pins of a set with those of the sets that it stands on; with `alone` only what its own file says."""
    names = [name] if alone else [*SETS[name][2], name]
    return [pin for each in names for pin in read_pins((LOCKS / f"{each}.txt").read_text())]
