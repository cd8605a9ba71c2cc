"""`/api/v1/…`: what operators read and do, as JSON. The rules stand in `operators`, who may ask in the table of `admin`."""

from collections.abc import Mapping
from typing import Any, Final

import orjson
from aiohttp import web

from bridge.clock import iso_ms
from bridge.envelope import BodyRefused, parse_strict
from bridge.journal.access import Action, Wanted
from bridge.journal.keys import KeySide
from bridge.journal.people import Scope
from bridge.web.guard import PERSON, BadRequest, NotHere
from bridge.web.listed import WORDS, Listed
from bridge.web.operators import MOST, Operators

_TEXTS: Final = ("reference", "outcome", "asset_id", "error_code", "error_text")
_LONGEST: Final = 1000
_DIGITS: Final = 15


class Api:
    """The handlers."""

    def __init__(self, operators: Operators) -> None:
        self._operators = operators

    async def whoami(self, request: web.Request) -> web.Response:
        """Whose token this is, and what it allows."""
        person = request[PERSON]
        names = None if person.participants is None else sorted(person.participants)
        until = iso_ms(person.expires_ns) if person.expires_ns else None
        return _json(
            {"name": person.name, "role": person.role, "participants": names, "token": person.token, "expires": until}
        )

    async def submissions(self, request: web.Request) -> web.Response:
        """Newest first, by the words of `listed` and `?limit=`; `next` is the `before` of the next page, None at the end."""
        query = _query(request, *WORDS, "limit")
        limit = query.get("limit", "100")
        if not limit.isdecimal() or len(limit) > _DIGITS or not 1 <= int(limit) <= MOST:
            raise BadRequest(f"`limit` is a number from 1 to {MOST}")
        views, more = await self._operators.submissions(request[PERSON], Listed.of(query), limit=int(limit))
        return _json({"submissions": views, "next": views[-1].id if more else None})

    async def submission(self, request: web.Request) -> web.Response:
        """One, with its items and what happened."""
        view, items, events = await self._operators.submission(request[PERSON], request.match_info["id"])
        return _json({"submission": view, "items": items, "events": events})

    async def alarms(self, request: web.Request) -> web.Response:
        """Those that stand."""
        return _json({"alarms": await self._operators.alarms(request[PERSON])})

    async def holds(self, request: web.Request) -> web.Response:
        """What is held."""
        return _json({"holds": await self._operators.holds(request[PERSON])})

    async def approvals(self, request: web.Request) -> web.Response:
        """What waits for a second person; `?all=1`: what became of earlier ones too."""
        every = _query(request, "all").get("all") == "1"
        return _json({"approvals": await self._operators.approvals(request[PERSON], open_only=not every)})

    async def tokens(self, request: web.Request) -> web.Response:
        """Tokens that were given out: never they themselves."""
        return _json({"tokens": await self._operators.tokens(request[PERSON])})

    async def acknowledge(self, request: web.Request) -> web.Response:
        """`{"reason"}`."""
        said = await _body(request, "reason")
        return _json({"alarm": await self._operators.acknowledge(request[PERSON], _number(request), said["reason"])})

    async def hold(self, request: web.Request) -> web.Response:
        """`{"scope", "name", "reason"}`."""
        scope, name, reason = await _scope(request)
        return _json({"held": await self._operators.hold(request[PERSON], scope, name, reason)})

    async def release(self, request: web.Request) -> web.Response:
        """`{"scope", "name", "reason"}`."""
        scope, name, reason = await _scope(request)
        await self._operators.release(request[PERSON], scope, name, reason)
        return _json({"released": True})

    async def resend(self, request: web.Request) -> web.Response:
        """`{"reason", "references": [ … ]}`; without references the whole."""
        return await self._wish(request, Action.RESEND)

    async def confirm(self, request: web.Request) -> web.Response:
        """`{"reason", "outcomes": [{"reference", "outcome", "asset_id", "error_code", "error_text"}]}`."""
        return await self._wish(request, Action.CONFIRM)

    async def cancel(self, request: web.Request) -> web.Response:
        """`{"reason", "references": [ … ]}`; without references the whole."""
        return await self._wish(request, Action.CANCEL)

    async def retry(self, request: web.Request) -> web.Response:
        """`{"reason"}`."""
        return await self._wish(request, Action.RETRY)

    async def keys(self, request: web.Request) -> web.Response:
        """A participant's keys: public halves and states."""
        return _json({"keys": await self._operators.keys(request[PERSON], request.match_info["id"])})

    async def rotate_keys(self, request: web.Request) -> web.Response:
        """`{"reason", "side": "ours"|"theirs", "kid"}`; without `kid` the only next key."""
        return await self._of_keys(request, Action.ROTATE_KEYS)

    async def revoke_key(self, request: web.Request) -> web.Response:
        """`{"reason", "side": "ours"|"theirs", "kid"}`."""
        return await self._of_keys(request, Action.REVOKE_KEY)

    async def accept_profile(self, request: web.Request) -> web.Response:
        """`{"reason"}`: the profile that waits since the start."""
        said = await _body(request, "reason")
        wanted = Wanted(action=Action.ACCEPT_PROFILE, participant=request.match_info["id"])
        done = await self._operators.wish(request[PERSON], wanted, said["reason"])
        if done.approval:
            return _json({"done": False, "approval": done.approval}, status=202)
        return _json({"done": True, "profile": done.goes_on})

    async def approve(self, request: web.Request) -> web.Response:
        """`{"reason"}`."""
        said = await _body(request, "reason")
        goes_on = await self._operators.approve(request[PERSON], _number(request), said["reason"])
        return _json({"done": True, "goes_on": goes_on})

    async def refuse(self, request: web.Request) -> web.Response:
        """`{"reason"}`."""
        said = await _body(request, "reason")
        await self._operators.refuse(request[PERSON], _number(request), said["reason"])
        return _json({"refused": True})

    async def _wish(self, request: web.Request, action: Action) -> web.Response:
        more = {Action.CONFIRM: "outcomes", Action.RETRY: ""}.get(action, "references")
        said = await _body(request, "reason", more)
        person, submission = request[PERSON], request.match_info["id"]
        references, outcomes = said.get("references", []), said.get("outcomes", [])
        if not isinstance(references, list) or not all(isinstance(key, str) for key in references):
            raise BadRequest("`references` is a list of texts")
        wanted = await self._operators.wanted(
            person, action, submission, references=references, outcomes=_outcomes(outcomes)
        )
        done = await self._operators.wish(person, wanted, said["reason"])
        if done.approval:
            return _json({"done": False, "approval": done.approval, "submission": done.goes_on}, status=202)
        return _json({"done": True, "submission": done.goes_on})

    async def _of_keys(self, request: web.Request, action: Action) -> web.Response:
        said = await _body(request, "reason", "side", "kid")
        kid = said.get("kid", "")
        try:
            side = KeySide(said.get("side"))
        except ValueError:
            raise BadRequest("`side` is ours or theirs") from None
        if not isinstance(kid, str) or not kid.isprintable() or (action is Action.REVOKE_KEY and not kid):
            raise BadRequest("`kid` is the id of a key")
        wanted = self._operators.of_keys(action, request.match_info["id"], side, kid)
        done = await self._operators.wish(request[PERSON], wanted, said["reason"])
        if done.approval:
            return _json({"done": False, "approval": done.approval}, status=202)
        return _json({"done": True, "active": done.goes_on})


def _outcomes(found: object) -> list[Mapping[str, str]]:
    whole = isinstance(found, list) and all(
        isinstance(line, dict)
        and line.keys() <= set(_TEXTS)
        and all(isinstance(text, str) and len(text) <= _LONGEST and text.isprintable() for text in line.values())
        for line in found
    )
    if not whole:
        raise BadRequest(f"`outcomes` is a list of objects of texts without control characters: {', '.join(_TEXTS)}")
    assert isinstance(found, list)
    return found


async def _body(request: web.Request, *known: str) -> dict[str, Any]:
    """The members of a JSON object, of which `reason` has to be there. Raises `BadRequest`."""
    if request.content_type != "application/json":
        raise BadRequest("send application/json")
    try:
        said = parse_strict(await request.read())
    except BodyRefused as error:
        raise BadRequest(f"the body is not the JSON we take: {error.reason}") from error
    if not isinstance(said, dict) or not isinstance(said.get("reason"), str):
        raise BadRequest("send an object with a `reason`, a text that says why")
    unknown = sorted(said.keys() - set(known) - {""})
    if unknown:
        raise BadRequest(f"unknown here: {', '.join(unknown)[:_LONGEST]}; known are {', '.join(filter(None, known))}")
    return said


async def _scope(request: web.Request) -> tuple[Scope, str, str]:
    said = await _body(request, "scope", "name", "reason")
    try:
        scope = Scope(said.get("scope"))
    except ValueError:
        raise BadRequest("`scope` is participant, environment, site or host") from None
    name = said.get("name", "")
    if not isinstance(name, str):
        raise BadRequest("`name` is a text")
    return scope, name, said["reason"]


def _number(request: web.Request) -> int:
    text = request.match_info["id"]
    if not text.isdecimal() or not text.isascii() or len(text) > _DIGITS:
        raise NotHere("there is no such number")
    return int(text)


def _query(request: web.Request, *known: str) -> dict[str, str]:
    unknown = sorted(set(request.query) - set(known))
    if unknown:
        raise BadRequest(f"unknown here: {', '.join(unknown)[:_LONGEST]}; known are {', '.join(known)}")
    return {name: request.query[name] for name in request.query}


def _json(body: object, *, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(body, default=list), status=status, content_type="application/json")
