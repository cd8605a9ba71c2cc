"""The admin listener: who comes in, what each role may, and that a second person is a second person."""

import base64
import hmac
import json
import re

import aiohttp
import jwt
import pytest
import pytest_asyncio
from admin import value
from admin_world import BOTH, LIVE, TEST, admin_world
from routes import EVERYBODY, MATRIX, STRANGER

from bridge.envelope import Algorithm
from bridge.errors import NotPossible
from bridge.journal.keys import KeyRecord, KeySide, KeyState
from bridge.journal.people import Decision
from bridge.keys import KeySigner, new_key
from bridge.web import operators
from bridge.web.roles import Role

pytestmark = pytest.mark.asyncio(loop_scope="module")
V, O, A, K, U = Role.VIEWER, Role.OPERATOR, Role.APPROVER, Role.CUSTODIAN, Role.AUDITOR


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory):
    async with admin_world(tmp_path_factory.mktemp("admin")) as made:
        yield made


def concrete(path):
    return path.replace("{id}", "999").replace("{action}", "resend")


async def status(world, method, path, headers=None, **more):
    return (await world.ask(method, path, headers, **more))[0]


# ------------------------------------------------------------------------------------------------------------ the matrix


async def test_every_route_has_a_row(world):
    """The application serves exactly the routes of the matrix."""
    app = world.listener.application()
    served = {(route.method, route.resource.canonical) for route in app.router.routes()}
    assert served == set(MATRIX)


@pytest.mark.parametrize("role", Role)
async def test_the_matrix(world, role):
    """With each role each route is open or closed (403) as its row says."""
    headers = await world.bearer(role)
    found = {}
    for method, path in MATRIX:
        found[method, path] = await status(
            world, method, concrete(path), headers, body={"reason": "a test"} if method == "POST" else None
        )
    wrong = {
        route: code for route, code in found.items()
        if MATRIX[route] is not STRANGER and (code in (401, 403)) == (role in MATRIX[route])
    }  # fmt: skip
    assert wrong == {}


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE"])
async def test_nothing_without_a_token(world, method):
    """Neither a route, nor that there is none, nor which methods it has; only the form that takes a token is shown."""
    for _, path in MATRIX:
        code = await status(world, method, concrete(path))
        taken = MATRIX.get((method, path)) is STRANGER
        assert (code != 401) if taken else (code == 401), (method, path, code)
    assert await status(world, method, "/api/v1/nothing") == 401


async def test_a_browser_is_led_to_the_form(world):
    """A page that needs a token sends there, where it is typed hidden; an API call hears 401 alone."""
    async with world.http.get("/", headers={"Accept": "text/html"}, allow_redirects=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (303, "/sign-in")
    async with world.http.get("/sign-in") as answer:
        [field] = re.findall(r'<input[^>]* name="token"[^>]*>', await answer.text())
        assert 'type="password"' in field
    async with world.http.get("/api/v1/whoami") as answer:
        assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Bearer")


# ---------------------------------------------------------------------------------------------------------------- tokens


def forged(claims, key, alg="ES256", **header):
    return jwt.encode(claims, key, algorithm=alg, headers={"kid": "host-1", "typ": "smp-bridge-admin+jwt", **header})


def confused(claims, public):
    """A token whose HMAC secret is the public key, made by hand: the library refuses to help."""
    header = {"alg": "HS256", "typ": "smp-bridge-admin+jwt", "kid": "host-1"}
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, claims)]
    signature = hmac.digest(public.encode(), b".".join(parts), "sha256")
    return b".".join([*parts, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()


async def test_only_a_token_of_this_host_counts(world):
    """Another key, another algorithm, none, another type or audience, a claim or a letter changed, one that the journal never heard of: all 401."""
    good, id_ = await world.token(U)
    claims = jwt.decode(good, options={"verify_signature": False})
    assert claims["jti"] == id_
    head, payload, signature = good.split(".")
    stronger = base64.urlsafe_b64encode(json.dumps({**claims, "role": "operator"}).encode()).rstrip(b"=").decode()
    own, other = world.signer._key, new_key(Algorithm.ES256)
    public = json.dumps(world.signer.public_jwk())
    stranger = KeySigner("host-1", Algorithm.ES256, other)
    bad = {
        "another key": (await world.token(U, signer=stranger))[0],
        "a changed role": f"{head}.{stronger}.{signature}",
        "no signature": f"{head}.{payload}.",
        "alg none": jwt.encode(
            claims, None, algorithm="none", headers={"kid": "host-1", "typ": "smp-bridge-admin+jwt"}
        ),
        "alg HS256 with the public key": confused(claims, public),
        "another type": forged(claims, own, typ="JWT"),
        "another kid": forged(claims, own, kid="host-2"),
        "crit": forged(claims, own, crit=["exp"]),
        "another audience": forged({**claims, "aud": "smp"}, own),
        "more than the journal says": forged({**claims, "role": "operator"}, own),
        "other participants": forged({**claims, "participants": ["acme-live"]}, own),
        "no id": forged({name: claim for name, claim in claims.items() if name != "jti"}, own),
        "not noted": (await world.token(U, note=False))[0],
        "evidence head": "smp-bridge head 1",
        "long": good + "A" * 5000,
        "empty": "",
    }
    assert await status(world, "GET", "/api/v1/whoami", {"Authorization": f"Bearer {good}"}) == 200
    for what, token in bad.items():
        assert await status(world, "GET", "/api/v1/whoami", {"Authorization": f"Bearer {token}"}) == 401, what
    assert await status(world, "GET", "/api/v1/whoami", {"Authorization": f"Basic {good}"}) == 401
    assert await status(world, "GET", f"/api/v1/whoami?token={good}") == 401


async def test_a_revoked_token_counts_no_more_at_once(world):
    """From the next request on, wherever it was revoked; so does one whose time is over."""
    token, id_ = await world.token(V)
    headers = {"Authorization": f"Bearer {token}"}
    assert await status(world, "GET", "/api/v1/whoami", headers) == 200
    await world.journal.revoke_token(id_, Decision(by="root", reason="left the company"))
    assert await status(world, "GET", "/api/v1/whoami", headers) == 401
    short = await world.bearer(V, days=1)
    assert await status(world, "GET", "/api/v1/whoami", short) == 200
    world.clock.ns += 86_400 * 10**9
    assert await status(world, "GET", "/api/v1/whoami", short) == 401


@pytest.mark.parametrize("many", [40, 105])
async def test_a_token_for_many_participants(world, many):
    """As many as a token may name: it counts, and a browser keeps it with its cookie's name."""
    names = [f"participant-{number:03}-live" for number in range(many)]
    token, _ = await world.token(V, "Ann", names)
    code, told = await world.ask("GET", "/api/v1/whoami", {"Authorization": f"Bearer {token}"})
    assert (code, told["participants"]) == (200, names)
    http, _, cookie, _ = await signed_in(world, V, "Ann", names)
    await http.close()
    assert len(cookie.split(";")[0]) <= 4096


async def test_a_token_that_would_count_nowhere_is_not_made(world):
    """Whoever makes it hears what to do instead."""
    before = len(await world.journal.tokens())
    with pytest.raises(NotPossible, match="150 participants") as refused:
        await world.token(V, "Ann", [f"participant-{number:03}-live" for number in range(150)], note=False)
    assert "--all" in refused.value.hint
    assert len(await world.journal.tokens()) == before


async def test_refusals_are_counted_by_their_reason(world):
    """The caller hears 401 or 403; the metric says why."""
    stranger = KeySigner("host-1", Algorithm.ES256, new_key(Algorithm.ES256))
    revoked, id_ = await world.token(V)
    await world.journal.revoke_token(id_, Decision(by="root", reason="lost"))
    tokens = {
        "malformed": "nonsense",
        "signature": (await world.token(V, signer=stranger))[0],
        "unknown": (await world.token(V, note=False))[0],
        "expired": (await world.token(V, days=0))[0],
        "revoked": revoked,
        "role": (await world.token(V))[0],
        "missing": "",
    }

    def counted(reason):
        return value(world.metrics.render().decode(), "smp_bridge_admin_refused_total", reason=reason) or 0

    for reason, token in tokens.items():
        before = counted(reason)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        await status(world, "POST", "/api/v1/holds", headers, body={"reason": "x"})
        assert counted(reason) == before + 1, reason


# ---------------------------------------------------------------------------------------------------- without a token


async def test_reading_without_a_token_where_that_is_configured(tmp_path):
    """Anybody on this machine reads and changes nothing; a page of elsewhere that leads here by its own name does not."""
    async with admin_world(tmp_path, without_token=True) as made:
        submission = await made.in_doubt(TEST)
        reading = {route for route, roles in MATRIX.items() if route[0] == "GET" and roles is EVERYBODY}
        for method, path in reading:
            assert await status(made, method, concrete(path)) in (200, 404), path
        for method, path in set(MATRIX) - reading:
            if MATRIX[method, path] is not STRANGER:
                assert await status(made, method, concrete(path), body={"reason": "x"}) == 401, path
        assert await status(made, "GET", "/metrics", {"Host": "rebound.example:9464"}) == 401
        assert await status(made, "GET", "/metrics", {"Authorization": "Bearer nonsense"}) == 401
        assert await made.kinds(submission) == [k for k in await made.kinds(submission) if not k.startswith("resend")]


# -------------------------------------------------------------------------------------------------------------- deciding


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"reason": ""},
        {"reason": "  "},
        {"reason": "x" * 501},
        {"reason": "a\u0007b"},
        {"reason": 7},
        ["reason"],
        {"reason": "x", "by": "Bob"},
    ],
)
async def test_nothing_is_decided_without_a_reason(world, body):
    """And nobody names another person in their own place."""
    headers = await world.bearer(O)
    submission = await world.in_doubt(TEST, f"R{hash(str(body))}")
    code, told = await world.ask("POST", f"/api/v1/submissions/{submission}/resend", headers, body)
    assert (code, bool(told["error"])) == (400, True)
    assert "resend" not in await world.kinds(submission)


async def test_four_eyes(world):
    """Where the participant wants it, an operator's wish waits for an approver with another name; then it is done."""
    submission = await world.in_doubt(LIVE, "F1")
    ann, same = await world.bearer(O, "Ann"), await world.bearer(A, "ann")
    bob = await world.bearer(A, "Bob", [LIVE])
    code, told = await world.ask("POST", f"/api/v1/submissions/{submission}/resend", ann, {"reason": "lost"})
    assert (code, told["done"]) == (202, False)
    number = told["approval"]
    assert "resend" not in await world.kinds(submission)
    [shown] = [row for row in (await world.ask("GET", "/api/v1/approvals", bob))[1]["approvals"] if row["id"] == number]
    assert (shown["asked_by"], shown["action"], shown["subject"]) == ("Ann", "resend", submission)
    path = f"/api/v1/approvals/{number}"
    assert (await world.ask("POST", f"{path}/approve", same, {"reason": "fine"}))[0] == 409
    assert (await world.ask("POST", f"{path}/refuse", await world.bearer(O, "Cid"), {"reason": "no"}))[0] == 400
    assert "resend" not in await world.kinds(submission)
    assert (await world.ask("POST", f"{path}/approve", bob, {"reason": "seen"})) == (
        200,
        {"done": True, "goes_on": submission},
    )
    assert (await world.ask("POST", f"{path}/approve", bob, {"reason": "again"}))[0] == 409
    assert (await world.kinds(submission))[-3:] == ["approval.asked", "approval.done", "resend"]


async def test_a_changed_profile_is_accepted_by_two_people(world):
    """Where four eyes are wanted. Nobody lets it go on by a release; another participant's people see nothing of it."""
    ann, bob = await world.bearer(O, "Ann"), await world.bearer(A, "Bob")
    path = f"/api/v1/participants/{LIVE}/profile/accept"
    why = {"reason": "the new paths of spring"}
    assert await status(world, "POST", path, ann, body=why) == 409
    for profile in ("default 1 a", "default 2 b"):
        await world.journal.introduce_profile(LIVE, profile, four_eyes=True)
    held = (await world.ask("GET", "/api/v1/holds", ann))[1]["holds"]
    assert [(hold["scope"], hold["name"]) for hold in held if hold["scope"] == "profile"] == [("profile", LIVE)]
    stranger = await world.bearer(O, "Tim", [TEST])
    assert "profile" not in [hold["scope"] for hold in (await world.ask("GET", "/api/v1/holds", stranger))[1]["holds"]]
    assert await status(world, "POST", path, stranger, body=why) == 404
    release = {"scope": "profile", "name": LIVE, "reason": "quick"}
    assert await status(world, "POST", "/api/v1/holds/release", ann, body=release) == 400
    assert await status(world, "POST", "/api/v1/holds", ann, body=release) == 400
    code, told = await world.ask("POST", path, ann, why)
    assert (code, told["done"]) == (202, False)
    page = (await world.ask("GET", "/", bob))[1]
    assert f"profile:{LIVE}" in page
    assert f"/submissions/profile:{LIVE}" not in page  # where there is no page
    approve = f"/api/v1/approvals/{told['approval']}/approve"
    assert await status(world, "POST", approve, await world.bearer(A, "ann"), body={"reason": "fine"}) == 409
    assert await world.ask("POST", approve, bob, {"reason": "read it"}) == (
        200,
        {"done": True, "goes_on": "default 2 b"},
    )
    assert "profile" not in [hold["scope"] for hold in (await world.ask("GET", "/api/v1/holds", ann))[1]["holds"]]
    told = await world.kinds(f"profile:{LIVE}")
    assert told[-5:] == ["hold", "approval.asked", "approval.done", "release", "profile.accepted"]


async def keys_of(world, participant):
    """Two keys of ours, one that signs and one that is next."""
    grace_ns, now = 10**15, Decision(by="root", reason="first keys")
    records = [
        KeyRecord(participant=participant, side=KeySide.OURS, kid=kid, alg="ES256", state=KeyState.NEXT, jwk="{}", place=f"{kid}.pem")
        for kid in ("old", "new")
    ]  # fmt: skip
    await world.journal.add_key(records[0], now)
    await world.journal.rotate_keys(participant, KeySide.OURS, "old", grace_ns, now)
    await world.journal.add_key(records[1], now)


async def states_of(world, participant, headers):
    found = (await world.ask("GET", f"/api/v1/participants/{participant}/keys", headers))[1]["keys"]
    return {key["kid"]: key["state"] for key in found}


async def test_keys_change_by_a_custodian_and_a_second_person(world):
    """At once where two eyes are enough; where four are wanted the key that signs stays until an approver with another name agrees."""
    kay, bob = await world.bearer(K, "Kay"), await world.bearer(A, "Bob")
    body = {"side": "ours", "reason": "the yearly change"}
    for name in BOTH:
        await keys_of(world, name)
    assert await world.ask("POST", f"/api/v1/participants/{TEST}/keys/rotate", kay, body) == (
        200,
        {"done": True, "active": "new"},
    )
    assert await states_of(world, TEST, kay) == {"old": "retiring", "new": "active"}
    code, told = await world.ask("POST", f"/api/v1/participants/{LIVE}/keys/rotate", kay, body)
    assert (code, told["done"]) == (202, False)
    assert await states_of(world, LIVE, kay) == {"old": "active", "new": "next"}
    path = f"/api/v1/approvals/{told['approval']}/approve"
    assert await status(world, "POST", path, await world.bearer(A, "KAY"), body={"reason": "fine"}) == 409
    assert await world.ask("POST", path, bob, {"reason": "seen"}) == (200, {"done": True, "goes_on": "new"})
    assert await states_of(world, LIVE, kay) == {"old": "retiring", "new": "active"}
    assert {"approval.asked", "approval.done"} <= set(await world.kinds(f"keys:{LIVE}"))
    revoke = {**body, "kid": "old"}
    assert await status(world, "POST", f"/api/v1/participants/{TEST}/keys/revoke", kay, body=revoke) == 200
    assert await states_of(world, TEST, kay) == {"old": "revoked", "new": "active"}
    for wrong in ({**revoke, "kid": ""}, {**revoke, "side": "mine"}, {**revoke, "kid": 7}):
        assert await status(world, "POST", f"/api/v1/participants/{TEST}/keys/revoke", kay, body=wrong) == 400
    only = await world.bearer(K, "Kay", [LIVE])
    assert await status(world, "POST", f"/api/v1/participants/{TEST}/keys/rotate", only, body=body) == 404
    assert await status(world, "GET", f"/api/v1/participants/{TEST}/keys", only) == 404
    assert (
        await status(
            world, "POST", f"/api/v1/participants/{LIVE}/keys/revoke", only, body={**revoke, "kid": "unheard-of"}
        )
        == 409
    )


async def test_no_key_is_rotated_to_that_cannot_be_read(world):
    """The custodian hears it at once, and the key that signs goes on signing."""
    kay, name = await world.bearer(K, "Kay"), {"side": "theirs", "reason": "x"}
    bad = KeyRecord(
        participant=TEST, side=KeySide.OURS, kid="unreadable", alg="ES256", state=KeyState.NEXT, jwk="{}", place="gone.pem"
    )  # fmt: skip
    await world.journal.add_key(bad, Decision(by="root", reason="a test"))
    before = await states_of(world, TEST, kay)
    code, told = await world.ask(
        "POST", f"/api/v1/participants/{TEST}/keys/rotate", kay, {**name, "side": "ours", "kid": "unreadable"}
    )
    assert (code, "cannot be used" in told["error"]) == (409, True)
    assert await states_of(world, TEST, kay) == before
    await world.journal.revoke_key(TEST, KeySide.OURS, "unreadable", Decision(by="root", reason="a test"))


async def test_a_wish_is_taken_back_or_refused(world):
    """By the one who asked, under whichever token, or by an approver."""
    ann, bob = await world.bearer(O, "Ann"), await world.bearer(A, "Bob")
    for who, key in ((ann, "T1"), (bob, "T2")):
        submission = await world.in_doubt(LIVE, key)
        number = (await world.ask("POST", f"/api/v1/submissions/{submission}/cancel", ann, {"reason": "x"}))[1][
            "approval"
        ]
        assert await status(world, "POST", f"/api/v1/approvals/{number}/refuse", who, body={"reason": "no"}) == 200
        assert (await world.kinds(submission))[-1] == "approval.refused"


async def test_a_confirmation(world):
    """Each item's outcome is named by its reference; a stranger's reference, a double one or a word that is none is refused."""
    ann = await world.bearer(O, "Ann")
    submission = await world.in_doubt(TEST, "C1")
    path = f"/api/v1/submissions/{submission}/confirm"
    good = {"reference": "C1", "outcome": "registered", "asset_id": "asset-9"}
    for outcomes in (
        [],
        [good, good],
        [{**good, "reference": "B"}],
        [{**good, "outcome": "done"}],
        [{"outcome": "refused"}],
        [{**good, "more": "x"}],
        "C1",
    ):
        assert await status(world, "POST", path, ann, body={"reason": "x", "outcomes": outcomes}) in (400, 409), (
            outcomes
        )
    assert await status(world, "POST", path, ann, body={"reason": "x", "outcomes": [good]}) == 200
    [item] = await world.journal.submission_items(submission)
    assert (item.asset_id, item.state.value) == ("asset-9", "registered")


# -------------------------------------------------------------------------------------------------------------- the pages


async def signed_in(world, role, name="Ann", participants=()):
    """A browser's session of its own: its cookies are those that the page set."""
    token, _ = await world.token(role, name, participants)
    http = aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True))
    origin = str(world.http.make_url("/")).rstrip("/")
    async with http.post(
        f"{origin}/sign-in", data={"token": token}, headers={"Origin": origin}, allow_redirects=False
    ) as answer:
        assert (answer.status, answer.headers["Location"]) == (303, "/")
        cookie = answer.headers["Set-Cookie"]
    return http, origin, cookie, token


async def test_signing_in_sets_a_cookie_that_no_script_and_no_other_site_uses(world):
    """HttpOnly, SameSite=Strict, for as long as the token counts; signing out removes it, and no token stands in a page."""
    http, origin, cookie, token = await signed_in(world, V)
    async with http:
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert "Max-Age=86" in cookie
        assert "Path=/" in cookie
        async with http.get(f"{origin}/") as answer:
            page = await answer.text()
            assert (answer.status, "Ann, viewer" in page, token in page) == (200, True, False)
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
            assert (answer.headers["Cache-Control"], answer.headers["X-Frame-Options"]) == ("no-store", "DENY")
        async with http.post(f"{origin}/sign-out", headers={"Origin": origin}, allow_redirects=False):
            pass
        async with http.get(f"{origin}/", headers={"Accept": "text/html"}, allow_redirects=False) as answer:
            assert answer.status == 303


@pytest.mark.parametrize(
    "origin", [None, "null", "https://evil.example", "http://127.0.0.1:1", "http://localhost.evil.example"]
)
async def test_no_other_site_acts_in_somebodys_name(world, origin):
    """A form of another site, of none, or of another port of this machine changes nothing, with the cookie or for the sign-in."""
    http, ours, _, token = await signed_in(world, O)
    submission = await world.in_doubt(TEST, f"X{hash(origin)}")
    headers = {"Origin": origin} if origin else {}
    async with http:
        for path, form in (
            (f"/submissions/{submission}/resend", {"reason": "x"}),
            ("/api/v1/holds", {"reason": "x"}),
            ("/sign-in", {"token": token}),
        ):
            async with http.post(f"{ours}{path}", data=form, headers=headers, allow_redirects=False) as answer:
                assert (answer.status, "Set-Cookie" in answer.headers) == (403, False), path
        assert "resend" not in await world.kinds(submission)
        async with http.post(
            f"{ours}/submissions/{submission}/resend", data={"reason": "x"}, headers={"Origin": ours}
        ) as answer:
            assert answer.status == 200
    assert "resend" in await world.kinds(submission)


async def test_each_alarm_that_stands_can_be_acknowledged(world, monkeypatch):
    """Also one that is older than all that a list shows."""
    monkeypatch.setattr(operators, "MOST", 1)
    for subject in ("old", "new"):
        await world.journal.alarm("DRIFT", participant=TEST, subject=subject)
    [old] = [view.id for view in await world.journal.alarms() if view.subject == "old"]
    ann = await world.bearer(O, "Ann", [TEST])
    assert await status(world, "POST", f"/api/v1/alarms/{old}/ack", ann, body={"reason": "seen"}) == 200
    for subject in ("old", "new"):
        await world.journal.alarm("DRIFT", participant=TEST, subject=subject, clear=True)


async def test_a_page_shows_text_as_text(world):
    """What an EMS, SMP or a person wrote is escaped wherever it stands."""
    script = "<script>alert(1)</script>"
    await world.journal.alarm("CONFLICT", participant=TEST, subject=script, text=script)
    ann, bob = await signed_in(world, O, "Ann"), await signed_in(world, A, "Bob <b>")
    submission = await world.in_doubt(LIVE, script)
    async with ann[0], bob[0]:
        form = {"reason": script}
        async with ann[0].post(
            f"{ann[1]}/submissions/{submission}/resend", data=form, headers={"Origin": ann[1]}
        ) as answer:
            assert "waits for a second person" in await answer.text()
        for path in ("/", f"/submissions/{submission}"):
            async with bob[0].get(f"{bob[1]}{path}") as answer:
                page = await answer.text()
                assert "<script" not in page
                assert "<b>" not in page
                assert "&lt;script&gt;" in page


@pytest.mark.parametrize("word", ["rotate-keys", "revoke-key", "accept-profile", "nothing"])
async def test_the_page_of_a_submission_decides_of_nothing_else(world, word):
    """What is an action of keys, of a profile or of nothing is not there, and nothing is asked for."""
    submission = await world.in_doubt(LIVE, f"N-{word}")
    before = await world.kinds(submission)
    asked = await status(
        world, "POST", f"/submissions/{submission}/{word}", await world.bearer(O), data={"reason": "x"}
    )
    assert (asked, await world.kinds(submission)) == (404, before)


async def test_a_second_person_approves_on_the_page(world):
    """The approver's form does it; the one who asked gets told why it does not."""
    submission = await world.in_doubt(LIVE, "P1")
    told = await world.ask(
        "POST", f"/api/v1/submissions/{submission}/resend", await world.bearer(O, "Ann"), {"reason": "lost"}
    )
    path = f"/approvals/{told[1]['approval']}/approve"
    for name, code in (("ann", 409), ("Bob", 303)):
        http, origin, _, _ = await signed_in(world, A, name, BOTH)
        async with (
            http,
            http.post(
                f"{origin}{path}", data={"reason": "seen"}, headers={"Origin": origin}, allow_redirects=False
            ) as answer,
        ):
            assert answer.status == code, await answer.text()
    assert "resend" in await world.kinds(submission)


async def test_a_wrong_token_is_told_on_the_form(world):
    """Without saying what is wrong with it, and without repeating it."""
    origin = str(world.http.make_url("/")).rstrip("/")
    async with world.http.post("/sign-in", data={"token": "not-a-token"}, headers={"Origin": origin}) as answer:
        text = await answer.text()
        assert (answer.status, "does not count here" in text, "not-a-token" in text) == (401, True, False)
