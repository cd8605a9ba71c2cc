"""HTML of the pages: tables, forms and notes without scripts. Every text is escaped, but for `Markup` of our own."""

from collections.abc import Collection, Mapping, Sequence
from html import escape
from typing import Final
from urllib.parse import urlencode

from aiohttp import web

from bridge.clock import iso_ms
from bridge.errors import BridgeError
from bridge.journal.access import ApprovalView
from bridge.journal.port import AlarmView, SubmissionView
from bridge.submission import SubmissionState
from bridge.web.connections import Contact, EmsLink, SmpLink
from bridge.web.roles import Person, Role
from bridge.web.style import POLICY, STYLE

_SHORT: Final = 40  # characters; a longer name may be broken anywhere


class Markup(str):
    """HTML of ours, which is not escaped again."""

    __slots__ = ()


Row = Sequence[str]


def approvals(person: Person, views: Sequence[ApprovalView]) -> list[Row]:
    """Requests for a second person, with the forms that this one may use."""
    rows: list[Row] = []
    for view in views:
        forms = []
        if person.role is Role.APPROVER:
            forms.append(form(f"/approvals/{view.id}/approve", "approve"))
        if person.role in (Role.APPROVER, Role.OPERATOR, Role.CUSTODIAN):
            forms.append(form(f"/approvals/{view.id}/refuse", "refuse"))
        rows.append(
            (
                str(view.id), view.action.value, link(view.subject) if view.action.of_submission else name(view.subject), view.asked_by, view.reason,
                moment(view.expires_ns), Markup("".join(forms)),
            )
        )  # fmt: skip
    return rows and [("no", "action", "about", "asked by", "reason", "until (UTC)", ""), *rows]


def alarms(person: Person, views: Sequence[AlarmView], theirs: Collection[int]) -> list[Row]:
    """Alarms, with a form to acknowledge those of `theirs` that nobody knows of yet."""
    rows: list[Row] = []
    for view in views:
        known = f"{view.acked_by or 'its operator'}: {view.note}".removesuffix(": ") if view.acked_ns else ""
        ask = (
            form(f"/alarms/{view.id}/ack", "acknowledge")
            if person.role is Role.OPERATOR and view.id in theirs and not known
            else ""
        )
        where = [part for part in (view.participant, view.site, view.subject) if part]
        rows.append(
            (name(view.code), _places(where), moment(view.raised_ns), view.text, view.runbook, Markup(ask) or known)
        )
    return rows and [("alarm", "place", "since (UTC)", "what", "do", "known by"), *rows]


def _places(parts: Sequence[str]) -> Markup:
    return Markup(" ".join(name(part) for part in parts) or "the host")


def reached(ems: Sequence[EmsLink], smp: Sequence[SmpLink]) -> str:
    """One line of how many are reached."""
    counted = ", ".join(
        f"{sum(link.contact.up is True for link in links)} of {len(links)} {what}"
        for links, what in ((ems, "EMS links are open"), (smp, "SMP connections answer"))
        if links
    )
    line = f'<a href="/connections">Connections</a>: {counted or "this process has none"}'
    wrong = any(link.contact.up is not True for link in ems) or any(
        link.contact.up is False or link.paused for link in smp
    )
    return f'<p class="{"wrong" if wrong else "said"}">{line}</p>'


def ems_links(links: Sequence[EmsLink]) -> list[Row]:
    """The links to EMSs."""
    words = {True: "open", False: "down", None: "not open yet"}
    rows: list[Row] = [
        (
            name(f"{link.site}/{link.adapter}"), words[link.contact.up], *_since(link.contact),
            "-" if link.age_s is None else f"{link.age_s:.0f} s ago",
        )
        for link in links
    ]  # fmt: skip
    return rows and [("link", "state", "since (UTC)", "last error", "at (UTC)", "last reading"), *rows]


def smp_links(links: Sequence[SmpLink]) -> list[Row]:
    """The ways to SMP."""
    words = {True: "answers", False: "gives no good answer", None: "no call yet"}
    rows: list[Row] = [
        (
            name(link.participant), words[link.contact.up], *_since(link.contact), _moment(link.contact.tried_ns),
            link.paused or "no",
        )
        for link in links
    ]  # fmt: skip
    return rows and [
        ("participant", "state", "since (UTC)", "last error", "at (UTC)", "last call (UTC)", "paused"), *rows,
    ]  # fmt: skip


def _since(contact: Contact) -> tuple[str, str, str]:
    """Since when it stands so, the last error, and when that was."""
    return _moment(contact.since_ns), contact.error or "-", _moment(contact.error_ns)


def _moment(wall_ns: int) -> str:
    return moment(wall_ns) if wall_ns else "-"


def submissions(views: Sequence[SubmissionView]) -> list[Row]:
    """Submissions, each a link to its own page."""
    rows: list[Row] = [
        (
            link(view.id),
            name(view.state.value),
            _stamped(view, "received"),
            _stamped(view, "sent"),
            name(view.participant),
            name(f"{view.site}/{view.flow}"),
            str(view.items),
            name(view.transaction_id),
        )
        for view in views
    ]
    return rows and [
        ("submission", "state", "received (UTC)", "sent (UTC)", "participant", "flow", "items", "transaction"),
        *rows,
    ]


def _stamped(view: SubmissionView, hop: str) -> str:
    stamp = view.stamps.get(hop)
    return moment(stamp.wall_ns) if stamp is not None else "-"


def moment(wall_ns: int) -> Markup:
    """A UTC time, on one line."""
    text = iso_ms(wall_ns)
    return Markup(f'<time datetime="{text}">{text[:19].replace("T", " ")}</time>')


def which(said: Mapping[str, str], participants: Sequence[str], sites: Sequence[str]) -> str:
    """The form that narrows the list of submissions, filled in with what was said."""
    states = [state.value for state in SubmissionState]
    fields = [
        _choice("state", "State", states, said),
        _choice("participant", "Participant", participants, said) if len(participants) > 1 else "",
        _choice("site", "Site", sites, said),
        *(
            f'<label>{word}<input name="{name}" value="{escape(said.get(name, ""))}" placeholder="2026-11-01T08:00" size="16"></label>'
            for name, word in (("since", "Since (UTC)"), ("until", "Until (UTC)"))
        ),
    ]
    return f'<form method="get" action="/submissions">{"".join(fields)}<button>Show</button></form>'


def _choice(name: str, word: str, values: Sequence[str], said: Mapping[str, str]) -> str:
    chosen = said.get(name, "")
    known = [*values] if not chosen or chosen in values else [chosen, *values]
    options = "".join(f"<option{' selected' if value == chosen else ''}>{escape(value)}</option>" for value in known)
    return f'<label>{word}<select name="{name}"><option value="">any</option>{options}</select></label>'


def way(path: str, said: Mapping[str, str], word: str) -> str:
    """A link to a page with these words in its query."""
    return f'<a href="{escape(path + "?" + urlencode(said))}">{escape(word)}</a>'


def name(text: str) -> Markup:
    """A name, an id or a word of state: not broken at its hyphens, which a reader would take for parts of a sentence; a very long one is, so that the table stays on the screen."""
    return Markup(f'<span class="{"id" if len(text) <= _SHORT else "long"}">{escape(text)}</span>')


def link(submission: str) -> Markup:
    """To the page of a submission."""
    return Markup(f'<a href="/submissions/{escape(submission)}">{name(submission)}</a>')


def form(action: str, word: str) -> str:
    """One button, which asks for a reason."""
    return (
        f'<form method="post" action="{escape(action)}"><label>Reason<input name="reason" required maxlength="500"></label>'
        f"<button>{escape(word.capitalize())}</button></form>"
    )


def section(title: str, rows: Sequence[Row], none: str) -> str:
    """A heading with a table, or with the sentence that there is none."""
    body = table(rows) if rows else f"<p>{escape(none)}</p>"
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def table(rows: Sequence[Row]) -> str:
    """A table whose first row is its header."""
    head, *rest = rows
    labels = [f'<td data-label="{escape(cell)}">' for cell in head]
    lines = "".join(
        f"<tr>{''.join(f'{label}{_cell(cell)}</td>' for label, cell in zip(labels, row, strict=True))}</tr>"
        for row in rest
    )
    return f'<div class="scroll"><table><thead><tr>{"".join(f"<th scope=col>{_cell(cell)}</th>" for cell in head)}</tr></thead><tbody>{lines}</tbody></table></div>'


def _cell(text: str) -> str:
    if isinstance(text, Markup):
        return text
    return f'<span class="long">{escape(text)}</span>' if len(text) > _SHORT else escape(text)


def note(said: str, wrong: str) -> str:
    """What went wrong, or what was done; nothing for neither."""
    return (
        f'<p class="wrong" role="alert">{escape(wrong)}</p>'
        if wrong
        else f'<p class="said" role="status">{escape(said)}</p>'
        if said
        else ""
    )


def sign_in_page(wrong: str = "", *, status: int = 200) -> web.Response:
    """The form that takes a token."""
    body = (
        f'<main class="sign-in"><h1>smp-bridge</h1>{note("", wrong)}'
        '<form method="post" action="/sign-in"><label>Token<input type="password" name="token" autocomplete="current-password" required autofocus></label>'
        "<button>Sign in</button></form><p>A token is made on the host: <code>smp-bridge token new --role viewer --participant NAME --by NAME</code></p></main>"
    )
    return _html(body, status)


def page(person: Person, body: str, *, status: int = 200) -> web.Response:
    """A page for somebody who came in."""
    names = "all participants" if person.participants is None else ", ".join(sorted(person.participants))
    if person.token:
        who = f"<span>{escape(person.name)}, {escape(person.role.value)} for {escape(names)}</span>"
        way = '<form method="post" action="/sign-out"><button class="plain">Sign out</button></form>'
    else:
        who, way = "<span>Reading without a token</span>", '<a href="/sign-in">Sign in</a>'
    return _html(f"<header><h1>smp-bridge</h1>{who}{way}</header><main>{body}</main>", status)


def wrong_page(person: Person, error: BridgeError, status: int) -> web.Response:
    """What went wrong, and the way back."""
    return page(person, f'<p><a href="/">Back</a></p>{note("", in_full(error))}', status=status)


def in_full(error: BridgeError) -> str:
    """An error with its hint."""
    return f"{error}. {error.hint}" if error.hint else str(error)


def _html(body: str, status: int) -> web.Response:
    text = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>smp-bridge</title>'
        f'<meta name="viewport" content="width=device-width,initial-scale=1"><style>{STYLE}</style></head><body>{body}</body></html>'
    )
    return web.Response(text=text, status=status, content_type="text/html", headers={"Content-Security-Policy": POLICY})
