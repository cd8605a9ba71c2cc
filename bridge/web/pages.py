"""The pages for a browser: sign in with a token, see what stands, decide. Plain HTML without scripts; every text in it is escaped."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from html import escape
from typing import Final

from aiohttp import web

from bridge.clock import Clock, iso_ms
from bridge.errors import NotPossible
from bridge.journal.access import Action
from bridge.secret import Secret
from bridge.submission import SubmissionState
from bridge.web import markup as html
from bridge.web.connections import EmsLink, SmpLink
from bridge.web.guard import PERSON, BadRequest, Guard, NotHere
from bridge.web.listed import WORDS, Listed
from bridge.web.markup import Row
from bridge.web.operators import Operators
from bridge.web.roles import Person, Role
from bridge.web.tokens import Believer, TokenRefused

Connections = Callable[[Person], tuple[Sequence[EmsLink], Sequence[SmpLink]]]
_S = SubmissionState
_SHOWN: Final = 50
_DIGITS: Final = 15
FORM_S: Final = 10.0
# What a person can decide of a submission in this state, besides a confirmation, which needs the API or the command line.
_CHOICES: Final = {
    _S.IN_DOUBT: (Action.RESEND, Action.CANCEL),
    _S.UNRESOLVED: (Action.RESEND, Action.CANCEL),
    _S.SET_ASIDE: (Action.RETRY, Action.CANCEL),
    _S.RETRY_WAIT: (Action.RETRY, Action.CANCEL),
    _S.WAITING: (Action.CANCEL,),
}


class Pages:
    """The handlers."""

    def __init__(
        self, operators: Operators, guard: Guard, believer: Believer, clock: Clock, connections: Connections
    ) -> None:
        self._operators = operators
        self._guard = guard
        self._believer = believer
        self._clock = clock
        self._connections = connections

    # signing in ------------------------------------------------------------------------------------------------------

    async def sign_in(self, _: web.Request) -> web.Response:
        """The form."""
        return html.sign_in_page()

    async def signed_in(self, request: web.Request) -> web.Response:
        """The token becomes a cookie that no script and no other site can use."""
        if not self._guard.own_page(request):
            return html.sign_in_page("This form did not come from this host. Please try again here.", status=403)
        given = (await _field(request, "token")).strip()
        try:
            person = await self._believer.person(Secret(given))
        except TokenRefused as refused:
            self._guard.refused(refused.reason)
            return html.sign_in_page(
                "This token does not count here: it is not this host's, or its time is over.", status=401
            )
        response = web.Response(status=303, headers={"Location": "/"})
        response.set_cookie(
            self._guard.cookie(request),
            given,
            max_age=max((person.expires_ns - self._clock.wall_ns()) // 1_000_000_000, 1),
            path="/",
            secure=self._guard.secure,
            httponly=True,
            samesite="Strict",
        )
        return response

    async def sign_out(self, request: web.Request) -> web.Response:
        """Forget the cookie. The token itself still counts, wherever else it is kept."""
        response = web.Response(status=303, headers={"Location": "/sign-in"})
        if self._guard.own_page(request):
            response.del_cookie(
                self._guard.cookie(request), path="/", secure=self._guard.secure, httponly=True, samesite="Strict"
            )
        return response

    # reading ---------------------------------------------------------------------------------------------------------

    async def home(self, request: web.Request) -> web.Response:
        """What stands now."""
        person = request[PERSON]
        approvals = await self._operators.approvals(person)
        alarms, theirs = await self._operators.standing(person, limit=_SHOWN + 1)
        holds = await self._operators.holds(person)
        submissions, _ = await self._operators.submissions(person, limit=_SHOWN)
        held: list[Row] = [
            (f"{hold.scope.value} {hold.name}", html.moment(hold.held_ns), hold.by, hold.reason) for hold in holds
        ]
        parts = [
            html.reached(*self._connections(person)),
            html.section("Waits for a second person", html.approvals(person, approvals), "Nothing does."),
            html.section("Alarms", html.alarms(person, alarms[:_SHOWN], theirs), "None stands."),
            f"<p>These are the newest {_SHOWN}; <code>smp-bridge alarms list</code> has more.</p>"
            if alarms[_SHOWN:]
            else "",
            html.section("Held", held and [("what", "since (UTC)", "by", "reason"), *held], "Nothing is held."),
            html.section("Submissions", html.submissions(submissions), "There is none yet."),
            '<p><a href="/submissions">All submissions</a>: older ones, and by state, participant, site and time</p>',
        ]
        return html.page(person, "".join(parts))

    async def connections(self, request: web.Request) -> web.Response:
        """Whether each EMS and each SMP is reached, since when, and what went wrong last."""
        person = request[PERSON]
        ems, smp = self._connections(person)
        parts = [
            '<p><a href="/">Back</a></p>',
            html.section("Links to EMSs", html.ems_links(ems), "This process has none."),
            html.section("Connections to SMP", html.smp_links(smp), "This process has none."),
        ]
        return html.page(person, "".join(parts))

    async def submissions(self, request: web.Request) -> web.Response:
        """The list, by what the form at its head says, in pages that stay whole while new ones come."""
        person, query = request[PERSON], {word: request.query.get(word, "") for word in WORDS}
        views, more = await self._operators.submissions(person, Listed.of(query), limit=_SHOWN)
        said = {word: text for word, text in query.items() if text}
        ways = []
        if "before" in said:
            first = {word: text for word, text in said.items() if word != "before"}
            ways.append(html.way("/submissions", first, "Newest"))
        if more:
            ways.append(html.way("/submissions", {**said, "before": views[-1].id}, "Older"))
        parts = [
            '<p><a href="/">Back</a></p><h2>Submissions</h2>',
            html.which(query, *self._operators.places(person)),
            html.table(html.submissions(views)) if views else "<p>There is none of these.</p>",
            f"<nav>{''.join(ways)}</nav>",
        ]
        return html.page(person, "".join(parts))

    async def submission(self, request: web.Request) -> web.Response:
        """One submission, and what can be decided of it."""
        return await self._submission_page(request, request.match_info["id"])

    async def _submission_page(
        self, request: web.Request, submission: str, *, said: str = "", wrong: str = "", status: int = 200
    ) -> web.Response:
        person = request[PERSON]
        view, items, events = await self._operators.submission(person, submission)
        facts: list[Row] = [
            ("state", "participant", "flow", "transaction", "moved here by"),
            (
                html.name(view.state.value),
                html.name(view.participant),
                html.name(f"{view.site}/{view.flow}"),
                html.name(view.transaction_id or "-"),
                view.reason or "-",
            ),
        ]
        choices = _CHOICES.get(view.state, ()) if person.role is Role.OPERATOR else ()
        forms = [html.form(f"/submissions/{view.id}/{action.value}", action.value) for action in choices]
        shown: list[Row] = [("reference", "outcome", "asset id", "errors")]
        shown += [
            (
                html.name(item.key),
                item.state.value,
                html.name(item.asset_id),
                "; ".join(f"{note.code} {note.text}" for note in item.errors),
            )
            for item in items
        ]
        happened: list[Row] = [("at", "event", "by", "reason")]
        happened += [
            (
                html.name(iso_ms(event.at_ns)),
                event.kind,
                str(event.data.get("by", "")),
                str(event.data.get("reason", "")),
            )
            for event in events
        ]
        parts = [
            f'<p><a href="/">Back</a></p><h2>{escape(view.id)}</h2>', html.note(said, wrong), html.table(facts),
            *(["<h2>Decide</h2>", *forms] if forms else []),
            html.section("Items", shown, ""), html.section("What happened", happened, ""),
        ]  # fmt: skip
        return html.page(person, "".join(parts), status=status)

    # deciding --------------------------------------------------------------------------------------------------------

    async def wish(self, request: web.Request) -> web.Response:
        """Resend, cancel or retry; with four eyes a second person is asked."""
        submission = request.match_info["id"]
        try:
            action = Action(request.match_info["action"])
        except ValueError:
            raise NotHere("there is no such action") from None
        if not action.of_submission:
            raise NotHere("there is no such action of a submission")
        if action is Action.CONFIRM:
            raise BadRequest(
                "a confirmation needs the outcome of each item: use the API, or `smp-bridge submissions resolve --confirm`"
            )
        try:
            wanted = await self._operators.wanted(request[PERSON], action, submission)
            done = await self._operators.wish(request[PERSON], wanted, await _field(request, "reason"))
        except (BadRequest, NotPossible) as error:
            return await self._submission_page(request, submission, wrong=html.in_full(error), status=409)
        said = f"Request {done.approval} waits for a second person." if done.approval else f"Done: {done.goes_on}."
        return await self._submission_page(request, submission, said=said)

    async def acknowledge(self, request: web.Request) -> web.Response:
        """Somebody knows of an alarm."""
        return await self._decided(
            request, lambda number, reason: self._operators.acknowledge(request[PERSON], number, reason)
        )

    async def approve(self, request: web.Request) -> web.Response:
        """The second person agrees."""
        return await self._decided(
            request, lambda number, reason: self._operators.approve(request[PERSON], number, reason)
        )

    async def refuse(self, request: web.Request) -> web.Response:
        """They do not, or the first one takes it back."""
        return await self._decided(
            request, lambda number, reason: self._operators.refuse(request[PERSON], number, reason)
        )

    async def _decided(self, request: web.Request, act: Callable[[int, str], Awaitable[object]]) -> web.Response:
        text = request.match_info["id"]
        if not text.isdecimal() or not text.isascii() or len(text) > _DIGITS:
            raise NotHere("there is no such number")
        try:
            await act(int(text), await _field(request, "reason"))
        except (BadRequest, NotPossible) as error:
            return html.wrong_page(request[PERSON], error, 409)
        return web.Response(status=303, headers={"Location": "/"})


async def _field(request: web.Request, name: str) -> str:
    """A field of a form of ours, '' without it. Raises `BadRequest` for what no form of ours sends, or sends too slowly."""
    if request.content_type != "application/x-www-form-urlencoded":
        raise BadRequest("send the form as application/x-www-form-urlencoded")
    try:
        async with asyncio.timeout(FORM_S):
            given = (await request.post()).get(name, "")
    except TimeoutError:
        raise BadRequest(f"the form did not come within {FORM_S:g} s") from None
    except (LookupError, ValueError):  # a character set that there is not, or bytes that are none of it
        raise BadRequest("the form is not UTF-8") from None
    return given if isinstance(given, str) else ""
