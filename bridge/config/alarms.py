"""A site's `alarms:`: when a lost link is an alarm, and where the alarm word goes, by the model of the adapter that carries it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from bridge.api import Adapter, Options, Selection
from bridge.config.document import Document, unknown
from bridge.config.site import AlarmsConfig, AlarmsOptions
from bridge.config.tree import Loc
from bridge.errors import Problem

_HERE: Final[Loc] = ("alarms",)
_ADAPTER: Final[Loc] = ("alarms", "adapter")
_WORD: Final[Loc] = ("alarms", "word")


def read_alarms(
    document: Document,
    adapters: Mapping[str, Adapter],
    options: Mapping[str, Options],
    selections: Sequence[tuple[str, Selection]],
    place: Callable[[Problem, str], None],
) -> AlarmsConfig:
    """The section, or its defaults where there is none or it is wrong. `options` are the adapters' own as far as they can be read; `place` notes what an adapter finds."""
    if document.tree.at(_HERE) is None:
        return AlarmsConfig()
    shell = document.read(AlarmsOptions, _HERE)
    name = document.tree.at(_ADAPTER)
    if (name is None) != (document.tree.at(_WORD) is None):
        document.wrong(
            _HERE, "`adapter` and `word` belong together: the connection, and the address of it that takes the word"
        )
        return AlarmsConfig()
    if shell is None:
        return AlarmsConfig()
    if shell.adapter is None:
        return AlarmsConfig(link_down_after_s=shell.link_down_after)
    word = _word(document, shell.adapter, adapters, options, selections, place)
    return AlarmsConfig(adapter=shell.adapter, word=word, link_down_after_s=shell.link_down_after)


def _word(
    document: Document,
    name: str,
    adapters: Mapping[str, Adapter],
    options: Mapping[str, Options],
    selections: Sequence[tuple[str, Selection]],
    place: Callable[[Problem, str], None],
) -> Options | None:
    offered = document.tree.at(("adapters",))
    names = [str(key) for key in offered] if isinstance(offered, Mapping) else []
    if name not in names:
        document.wrong(_ADAPTER, unknown(name, names, "adapter of this site"))
        return None
    adapter = adapters.get(name)
    if adapter is None:
        return None
    if adapter.word is None:
        document.wrong(_ADAPTER, f"{adapter.protocol} takes no alarm word; name another connection, or leave it out")
        return None
    word = document.read(adapter.word, _WORD)
    known = options.get(name)
    flawed = document.flaw_below(("adapters", name, "writable"))  # else every address would seem to lie outside
    if word is not None and known is not None and adapter.check_word is not None and not flawed:
        mine = [selection for user, selection in selections if user == name]
        for problem in adapter.check_word(known, mine, word):
            place(problem, name)
    return word
