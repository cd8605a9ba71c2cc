"""Site files that `smp-bridge browse` drafted and nobody has finished: every line that still holds a guess or a gap."""

from collections.abc import Collection, Iterator
from typing import Final

from bridge.config import Config
from bridge.config.always import STAND_IN
from bridge.errors import Problem

MARK: Final = STAND_IN
DONE: Final = f"Settle each, and take the word {MARK} out of its line."
_COMMENT: Final = "#"


def left(config: Config, sites: Collection[str] = ()) -> list[Problem]:
    """Every line of these sites (of all, where none is named) that is marked, in the order of the files. Lines that are only a comment hold nothing."""
    wanted = [site for site in config.sites.values() if not sites or site.name in sites]
    return [problem for site in wanted for problem in _marked(str(site.file), site.file.read_text("utf-8"))]


def _marked(file: str, text: str) -> Iterator[Problem]:
    for number, line in enumerate(text.splitlines(), 1):
        column = line.find(MARK)
        if column < 0 or line.lstrip().startswith(_COMMENT):
            continue
        said = line.partition(f"{MARK}:")[2].strip() or "this stands for a value that nobody has given yet"
        what = line.partition(_COMMENT)[0].strip().removeprefix("- ").removesuffix(":")
        yield Problem(file=file, line=number, column=column + 1, path=what, text=f"{MARK}: {said}")
