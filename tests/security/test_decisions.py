"""Every action at the admin listener is an event that says who, why, by which token and in which role; and who agreed, where two are wanted."""

import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest
import pytest_asyncio
from admin_world import LIVE, TEST, admin_world
from routes import MATRIX

from bridge.journal.access import Action, Wanted
from bridge.journal.keys import KeyRecord, KeySide, KeyState
from bridge.journal.people import Decision, Scope
from bridge.submission import SubmissionState
from bridge.web.roles import Role

pytestmark = pytest.mark.asyncio(loop_scope="module")
O, A, K = Role.OPERATOR, Role.APPROVER, Role.CUSTODIAN
ROOT = Decision(by="root", reason="before the test")
WHY, SEEN = "the help desk said so", "I looked at it"
NUMBERS = itertools.count(1)


@dataclass(frozen=True, kw_only=True)
class Case:
    """What one call meets: the last parts of its path, what its body says beside the reason, and under which subject its event stands."""

    subject: str
    path: dict = field(default_factory=dict)
    body: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """The event's kind, what has to be there before, the role that acts, and under which name the event carries the reason."""

    kind: str
    prepare: Callable[..., Awaitable[Case]]
    role: Role = O
    reason: str = "reason"


async def in_doubt(world, participant=TEST):
    submission = await world.in_doubt(participant, f"D{next(NUMBERS)}")
    return Case(subject=submission, path={"id": submission})


async def in_doubt_to_resend(world):
    return await on_page(world, in_doubt, Action.RESEND)


async def in_doubt_to_cancel(world):
    return await on_page(world, in_doubt, Action.CANCEL)


async def paused_to_retry(world):
    return await on_page(world, paused, Action.RETRY)


async def on_page(world, prepare, action):
    case = await prepare(world)
    return Case(subject=case.subject, path={**case.path, "action": action.value})


async def known(world, participant=TEST):
    key = f"D{next(NUMBERS)}"
    submission = await world.in_doubt(participant, key)
    outcomes = [{"reference": key, "outcome": "registered", "asset_id": "A-1"}]
    return Case(subject=submission, path={"id": submission}, body={"outcomes": outcomes})


async def paused(world, participant=TEST):
    submission = await world.in_doubt(participant, f"D{next(NUMBERS)}", SubmissionState.RETRY_WAIT)
    return Case(subject=submission, path={"id": submission})


async def an_alarm(world):
    subject = f"alarm-{next(NUMBERS)}"
    await world.journal.alarm("CONFLICT", participant=TEST, subject=subject, text="a test")
    [alarm] = [view for view in await world.journal.alarms(participant=TEST) if view.subject == subject]
    return Case(subject=f"alarm/{alarm.id}", path={"id": alarm.id})


async def held(world, *, before=True):
    stands = any(view.name == "south" for view in await world.journal.holds())
    if before and not stands:
        await world.journal.hold(Scope.SITE, "south", ROOT)
    if stands and not before:
        await world.journal.release_hold(Scope.SITE, "south", ROOT)
    return Case(subject="site:south", body={"scope": "site", "name": "south"})


async def not_held(world):
    return await held(world, before=False)


async def asked(world):
    case = await in_doubt(world)
    wanted = Wanted(action=Action.CANCEL, submission=case.subject)
    later_ns = world.clock.wall_ns() + 3600 * 10**9
    number = await world.journal.ask_approval(wanted, ROOT, expires_ns=later_ns)
    return Case(subject=case.subject, path={"id": number})


async def a_next_key(world, participant=TEST):
    kid = f"K{next(NUMBERS)}"
    record = KeyRecord(
        participant=participant, side=KeySide.THEIRS, kid=kid, alg="ES256", state=KeyState.NEXT, jwk="{}", place="imported"
    )  # fmt: skip
    await world.journal.add_key(record, ROOT)
    return Case(subject=f"key:theirs:{kid}", path={"id": participant}, body={"side": "theirs", "kid": kid})


async def a_new_profile(world):
    for profile in ("default 1 a", f"default 2 {next(NUMBERS)}"):
        await world.journal.introduce_profile(TEST, profile, four_eyes=True)
    return Case(subject=f"profile:{TEST}", path={"id": TEST})


# Every POST of the matrix, and the event that it makes. A route without a row fails the test.
EVENTS = {
    "/api/v1/submissions/{id}/resend": [Row("resend", in_doubt)],
    "/api/v1/submissions/{id}/confirm": [Row("CONFIRMED", known)],
    "/api/v1/submissions/{id}/cancel": [Row("CANCELLED", in_doubt)],
    "/api/v1/submissions/{id}/retry": [Row("retry", paused)],
    "/api/v1/alarms/{id}/ack": [Row("alarm.acknowledged", an_alarm, reason="note")],
    "/api/v1/holds": [Row("hold", not_held)],
    "/api/v1/holds/release": [Row("release", held)],
    "/api/v1/approvals/{id}/approve": [Row("approval.done", asked, A)],
    "/api/v1/approvals/{id}/refuse": [Row("approval.refused", asked, A)],
    "/api/v1/participants/{id}/keys/rotate": [Row("key.active", a_next_key, K)],
    "/api/v1/participants/{id}/keys/revoke": [Row("key.revoked", a_next_key, K)],
    "/api/v1/participants/{id}/profile/accept": [Row("profile.accepted", a_new_profile)],
    "/submissions/{id}/{action}": [
        Row("resend", in_doubt_to_resend), Row("CANCELLED", in_doubt_to_cancel), Row("retry", paused_to_retry)
    ],
    "/alarms/{id}/ack": [Row("alarm.acknowledged", an_alarm, reason="note")],
    "/approvals/{id}/approve": [Row("approval.done", asked, A)],
    "/approvals/{id}/refuse": [Row("approval.refused", asked, A)],
}  # fmt: skip
# They decide nothing: the browser gets or forgets a token that was given out before, which is an event of its own.
NO_EVENT = {"/sign-in", "/sign-out"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory):
    async with admin_world(tmp_path_factory.mktemp("decisions")) as made:
        yield made


async def post(world, path, headers, body):
    """A page takes a form, the API JSON."""
    if path.startswith("/api/"):
        return await world.ask("POST", path, headers, body)
    return await world.ask("POST", path, headers, data=body)


async def events_since(world, subject, before):
    return [(event.kind, event.data) for event in (await world.journal.events(subject))[before:]]


async def test_every_route_that_decides_has_a_row():
    """The table names each POST of the matrix, and none beside them."""
    assert {path for method, path in MATRIX if method == "POST"} == set(EVENTS) | NO_EVENT


@pytest.mark.parametrize(
    ("path", "row"), [(path, row) for path, rows in EVENTS.items() for row in rows],
    ids=lambda value: value if isinstance(value, str) else value.kind,
)  # fmt: skip
async def test_each_action_is_an_event_with_who_and_why(world, path, row):
    """Over HTTP: the event of this kind has the token's name, id and role, and the reason that was given."""
    token, id_ = await world.token(row.role, "Ann Smith", [TEST])
    case = await row.prepare(world)
    before = len(await world.journal.events(case.subject))
    code, told = await post(
        world, path.format(**case.path), {"Authorization": f"Bearer {token}"}, {"reason": WHY, **case.body}
    )
    assert code in (200, 303), told
    said = [data for kind, data in await events_since(world, case.subject, before) if kind == row.kind]
    assert [(data["by"], data[row.reason], data["token"], data["role"]) for data in said] == [
        ("Ann Smith", WHY, id_, row.role.value)
    ]


@pytest.mark.parametrize(
    ("path", "prepare", "role", "kind"),
    [
        ("/api/v1/submissions/{id}/confirm", known, O, "CONFIRMED"),
        ("/api/v1/submissions/{id}/retry", paused, O, "retry"),
        ("/api/v1/participants/{id}/keys/rotate", a_next_key, K, "key.active"),
        ("/api/v1/participants/{id}/keys/revoke", a_next_key, K, "key.revoked"),
    ],
)
async def test_a_second_person_stands_in_the_events_too(world, path, prepare, role, kind):
    """Where four eyes are wanted: asked for, approved and done, each with names, reasons, tokens and roles, and nothing before the second person's word."""
    first, asking = await world.token(role, "Ann Smith", [LIVE])
    second, approving = await world.token(A, "Bob Jones", [LIVE])
    case = await prepare(world, LIVE)
    requests = f"keys:{LIVE}" if role is K else case.subject
    before, before_requests = [len(await world.journal.events(subject)) for subject in (case.subject, requests)]
    code, told = await post(
        world, path.format(**case.path), {"Authorization": f"Bearer {first}"}, {"reason": WHY, **case.body}
    )
    assert (code, told["done"]) == (202, False)
    assert kind not in [name for name, _ in await events_since(world, case.subject, before)]
    approve = f"/api/v1/approvals/{told['approval']}/approve"
    assert (await post(world, approve, {"Authorization": f"Bearer {second}"}, {"reason": SEEN}))[0] == 200
    said = dict(await events_since(world, requests, before_requests)) | dict(
        await events_since(world, case.subject, before)
    )
    by_ann = {"by": "Ann Smith", "reason": WHY}
    assert said["approval.asked"].items() >= {**by_ann, "token": asking, "role": role.value}.items()
    assert said["approval.done"].items() >= {
        "by": "Bob Jones", "reason": SEEN, "token": approving, "role": A.value, "asked_by": "Ann Smith",
    }.items()  # fmt: skip
    assert said[kind].items() >= {**by_ann, "approved_by": "Bob Jones", "approved_because": SEEN}.items()
