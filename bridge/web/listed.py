"""Which submissions somebody asks for: the same words in the API's query and in the page's form."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

from bridge.clock import utc_ns
from bridge.submission import SubmissionState
from bridge.web.guard import BadRequest

WORDS: Final = ("participant", "site", "state", "since", "until", "before")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """What is not said narrows nothing. Times are UTC ns of when the host made it; `before` is the last one of the page before."""

    participant: str = ""
    site: str = ""
    state: SubmissionState | None = None
    since_ns: int | None = None
    until_ns: int | None = None
    before: str = ""

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Self:
        """From its words. Raises `BadRequest`."""
        return cls(
            participant=query.get("participant", ""),
            site=query.get("site", ""),
            state=_state(query.get("state", "")),
            since_ns=_time("since", query.get("since", ""), last=False),
            until_ns=_time("until", query.get("until", ""), last=True),
            before=query.get("before", ""),
        )


def _state(word: str) -> SubmissionState | None:
    try:
        return SubmissionState(word) if word else None
    except ValueError:
        raise BadRequest(f"`state` is one of {', '.join(state.value for state in SubmissionState)}") from None


def _time(name: str, text: str, *, last: bool) -> int | None:
    try:
        return utc_ns(text, last=last) if text else None
    except ValueError:
        raise BadRequest(f"`{name}` is a day or a time in UTC, such as 2026-11-01 or 2026-11-01T08:00") from None
