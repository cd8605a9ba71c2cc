"""TEST and LIVE of one participant on one site, in one host: nothing of one reaches the other, whichever door is tried."""

import asyncio
import json
from contextlib import asynccontextmanager

import aiohttp
import pytest
from people import beside, note, token, unpacked
from quick_yaml import read_yaml, write_yaml
from routes import MATRIX
from service import ASSETS, CLOCK, PARTICIPANT, linked, prepared, until_words

from bridge.cli.evidence import _export
from bridge.clock import SystemClock
from bridge.envelope import Algorithm
from bridge.journal.export_plan import Scope
from bridge.journal.keys import KeySide
from bridge.keys import load_signer, new_key, public_jwks, write_private
from bridge.material import host_signer, problems_of
from bridge.sandbox import Knobs, Sandbox, SandboxOptions, SandboxParticipant
from bridge.web.roles import Role

LIVE = "acme-live"
FLOWS = {"trialflow": {**ASSETS, "participant": PARTICIPANT}, "liveflow": {**ASSETS, "participant": LIVE}}
# What belongs to one alone: names, places, and what was registered there; long words, for ids, keys and signatures hold any short one now and then. The references and transaction ids are the same on both sides, on purpose.
WORDS = {
    PARTICIPANT: ["acme-test", "trialflow", "TRIAL-PLACE-1", "Yard of the trial", '"TEST"', "ACME-T"],
    LIVE: ["acme-live", "liveflow", "LIVE-PLACE-1", "Yard that counts", '"LIVE"', "ACME-L"],
}
OTHER = {PARTICIPANT: LIVE, LIVE: PARTICIPANT}
READ = (
    "/metrics", "/health/ready", "/api/v1/latency", "/api/v1/whoami", "/api/v1/submissions", "/api/v1/submissions?limit=1000", "/api/v1/alarms",
    "/api/v1/holds", "/api/v1/approvals?all=1", "/api/v1/tokens", "/", "/submissions", "/submissions?site=north", "/connections", "/api/v1/connections",
)  # fmt: skip


@asynccontextmanager
async def side_by_side(directory):
    """One host with both entries, and a stand-in for SMP in each environment, which draw the same transaction ids and name their keys alike."""
    async with prepared(directory, flows=FLOWS, knobs=Knobs(returns="hold"), entry={"four_eyes": True}) as made:
        keys = directory / "keys"
        write_private(keys / "live.pem", new_key(Algorithm.ES256))
        write_private(keys / "host.pem", new_key(Algorithm.ES256))
        account = SandboxParticipant(
            name=LIVE, user="acme-l", password="of-the-live-account", sender="ACME-L", jwks=public_jwks([load_signer(keys / "live.pem")]),
        )  # fmt: skip
        options = SandboxOptions(
            profile=made.sandbox_profile, participants=[account], environment="LIVE", knobs=Knobs(returns="hold"),
            return_ca=made.sandbox._options.return_ca,
        )  # fmt: skip
        async with Sandbox(options, clock=CLOCK) as live:
            for name, data in {
                "live.jwks.json": json.dumps(live.jwks()).encode(),
                "live-ca.pem": live.ca_pem,
                "live-password": b"of-the-live-account",
            }.items():
                (keys / name).write_bytes(data)
                (keys / name).chmod(0o600)
            second_entry(directory / "config/bridge.yaml", live.base_url)
            made.live = live
            await made.start()
            made.set_urls = lambda swapped=False: set_urls(made, swapped=swapped)
            made.set_urls()
            try:
                yield made
            finally:
                await made.stop()


def second_entry(path, url, **changes):
    document = read_yaml(path)
    document["host_key"] = "../keys/host.pem"
    document["participants"][LIVE] = {
        **document["participants"][PARTICIPANT], "sender": "ACME-L", "environment": "LIVE", "base_url": url, "username": "acme-l",
        "password": {"file": "../keys/live-password"}, "signing_key": "../keys/live.pem", "smp_jwks": "../keys/live.jwks.json", "ca": "../keys/live-ca.pem",
        **changes,
    }  # fmt: skip
    write_yaml(path, document)


def set_urls(made, *, swapped):
    for sandbox, name in ((made.sandbox, PARTICIPANT), (made.live, LIVE)):
        path = made.sandbox_profile.return_path.replace("{participant}", OTHER[name] if swapped else name)
        sandbox.set_return_url(name, f"https://127.0.0.1:{made.running.returns_port}{path}")


async def submissions(made):
    found = await made.read(lambda journal: journal.submissions(limit=100))
    return {view.participant: view for view in found}


async def until(condition, within_s=20):
    async with asyncio.timeout(within_s):
        while not await condition():
            await asyncio.sleep(0.03)


async def released(sandbox):
    """Its return is pushed, as soon as its call was accepted."""
    while not await sandbox.release():
        await asyncio.sleep(0.01)


def strangers_words(text, participant):
    return [word for word in WORDS[OTHER[participant]] if word in text]


async def undecided(made, http, made_tokens, found):
    """On both sides a request that waits for a second person, and an alarm; the path's id of each route, by participant."""
    standing = {}
    for name, view in found.items():
        headers, about = {"Authorization": f"Bearer {made_tokens[name, Role.OPERATOR][1]}"}, WORDS[name][3]
        async with http.post(
            f"/api/v1/submissions/{view.id}/cancel", headers=headers, json={"reason": about}
        ) as answer:
            assert answer.status == 202
            approval = (await answer.json())["approval"]
        await beside(made, lambda j, name=name, about=about: j.alarm("CONFLICT", participant=name, text=about))
        [alarm] = [
            row.id for row in await made.read(lambda j, name=name: j.alarms(participant=name)) if row.text == about
        ]
        [kid] = [row.kid for row in await made.read(lambda j, name=name: j.keys(name)) if row.side is KeySide.OURS]
        standing[name] = {
            "submissions": view.id,
            "approvals": approval,
            "alarms": alarm,
            "participants": name,
            "kid": kid,
        }
    return standing


async def nothing_is_decided_by_strangers(made, http, made_tokens, standing):
    """With each role, each POST that names a thing, at the other's: 404 as if it were not there (403 where the role may not at all), and nothing has changed."""
    routes = [(path, roles) for (method, path), roles in MATRIX.items() if method == "POST" and "{id}" in path]
    assert {path.removeprefix("/api/v1").split("/")[1] for path, _ in routes} == standing[LIVE].keys() - {"kid"}
    before = await everything(made, standing)
    for (name, role), (_, text) in made_tokens.items():
        theirs = standing[OTHER[name]]
        for path, roles in routes:
            thing = path.removeprefix("/api/v1").split("/")[1]
            for action in ("resend", "cancel", "retry") if "{action}" in path else ("",):
                asked = path.format(id=theirs[thing], action=action)
                status = await posted(http, asked, text, theirs["kid"])
                assert status == (404 if role in roles else 403), (name, role, asked)
    assert await everything(made, standing) == before
    for name, mine in standing.items():  # the same calls by those whose it is: they were there to be decided
        for role, asked in (
            (Role.APPROVER, f"/api/v1/approvals/{mine['approvals']}/refuse"),
            (Role.OPERATOR, f"/api/v1/alarms/{mine['alarms']}/ack"),
        ):
            assert await posted(http, asked, made_tokens[name, role][1], "") == 200, (name, asked)


async def posted(http, path, token, kid):
    """The status of a decision, asked for as the route wants it."""
    headers, body = {"Authorization": f"Bearer {token}"}, {"reason": "mine now"}
    if path.endswith("/confirm"):
        body["outcomes"] = [{"reference": "BESS00001", "outcome": "unknown"}]
    if "/keys/" in path:
        body |= {"side": "ours", "kid": kid}
    how = {"json": body} if path.startswith("/api/") else {"data": body}
    async with http.post(path, headers=headers, allow_redirects=False, **how) as answer:
        return answer.status


async def everything(made, standing):
    """All that a decision could change, of both."""

    async def ask(journal):
        subjects = []
        for mine in standing.values():
            name, kid = mine["participants"], mine["kid"]
            subjects += [
                mine["submissions"],
                f"alarm/{mine['alarms']}",
                f"keys:{name}",
                f"key:ours:{kid}",
                f"profile:{name}",
            ]
        return [
            await journal.submissions(limit=100),
            await journal.approvals(now_ns=0, open_only=False),
            await journal.alarms(open_only=False),
            await journal.holds(standing_only=False),
            *[await journal.keys(name) for name in standing],
            *[await journal.events(subject) for subject in subjects],
        ]

    return await made.read(ask)


@pytest.mark.timeout(180)
async def test_nothing_of_one_reaches_the_other(tmp_path):
    """The same references, transaction ids and key ids on both sides, and yet each has its own outcome, page, figure and export."""
    async with side_by_side(tmp_path) as made:
        ems = await linked(made)
        ems.put("TRIAL-PLACE-1", reference="BESS00001", name="Yard of the trial", kw=5)
        ems.put("LIVE-PLACE-1", reference="BESS00001", name="Yard that counts", kw=7)
        ems.request("trialflow", "TRIAL-PLACE-1")
        ems.request("liveflow", "LIVE-PLACE-1")

        async def awaited():
            found = await submissions(made)
            return {view.state.value for view in found.values()} == {"AWAITING_RETURN"} and len(found) == 2

        await until(awaited)
        found = await submissions(made)
        assert (
            found[PARTICIPANT].transaction_id == found[LIVE].transaction_id
        )  # so nothing but the entry tells them apart

        # keys and paths: what one SMP signed is no news on the other's path, though key id and transaction id are known there
        made.set_urls(swapped=True)
        async with asyncio.TaskGroup() as group:
            pushes = [group.create_task(released(sandbox)) for sandbox in (made.sandbox, made.live)]

            async def refused():
                return all(any(row.status == 401 for row in box.ledger.returns) for box in (made.sandbox, made.live))

            await until(refused)
            assert all(row.status in (0, 401) for box in (made.sandbox, made.live) for row in box.ledger.returns)
            events = {name: await made.read(lambda j, v=view: j.events(v.id)) for name, view in found.items()}
            assert not [event for rows in events.values() for event in rows if "return" in event.kind]
            made.set_urls()
            del pushes
        await until_words(ems, ["TRIAL-PLACE-1", "LIVE-PLACE-1"], {3: 2})
        found = await submissions(made)
        assert {view.state.value for view in found.values()} == {"CONFIRMED"}

        # accounts and tokens of SMP: neither SMP ever saw the other's
        for box in (made.sandbox, made.live):
            assert [row for row in box.ledger.requests if row.status >= 400] == []
            assert box.ledger.requests

        # the admin API, pages and metric labels, with each role
        made_tokens = {(name, role): await token(made, role, name) for name in WORDS for role in Role}
        await note(made, *(view for view, _ in made_tokens.values()))
        url = f"http://127.0.0.1:{made.running.admin_port}"
        async with aiohttp.ClientSession(url) as http:
            standing = await undecided(made, http, made_tokens, found)
            await nothing_is_decided_by_strangers(made, http, made_tokens, standing)
        async with aiohttp.ClientSession() as http:
            for (name, role), (_, text) in made_tokens.items():
                headers = {"Authorization": f"Bearer {text}"}
                mine, theirs = found[name], found[OTHER[name]]
                seen = ""
                for path in (*READ, f"/api/v1/submissions/{mine.id}", f"/submissions/{mine.id}"):
                    async with http.get(url + path, headers=headers) as answer:
                        body = await answer.text()
                        assert strangers_words(body, name) == [], (name, role, path)
                        assert theirs.id not in body, (name, role, path)
                        seen += body
                assert all(word in seen for word in WORDS[name][:2]), (name, role)
                for path in (
                    f"/api/v1/submissions/{theirs.id}",
                    f"/submissions/{theirs.id}",
                    f"/api/v1/submissions?participant={OTHER[name]}",
                    f"/api/v1/submissions?before={theirs.id}",
                    f"/submissions?before={theirs.id}",
                    f"/api/v1/submissions/{mine.id}%2F..%2F{theirs.id}",
                ):
                    async with http.get(url + path, headers=headers) as answer:
                        assert (
                            answer.status,
                            strangers_words((await answer.text()).replace(OTHER[name], ""), name),
                        ) == (404, [])
                if role is Role.OPERATOR:
                    asks = [
                        (f"/api/v1/submissions/{theirs.id}/{action}", {"reason": "mine now"})
                        for action in ("resend", "cancel", "retry", "confirm")
                    ]
                    asks += [
                        ("/api/v1/holds", {"reason": "x", "scope": scope, "name": what})
                        for scope, what in (
                            ("participant", OTHER[name]),
                            ("site", "north"),
                            ("environment", "LIVE" if name == PARTICIPANT else "TEST"),
                            ("host", ""),
                        )
                    ]
                    for path, body in asks:
                        async with http.post(url + path, headers=headers, json=body) as answer:
                            assert answer.status == 404, (path, body)
        assert await made.read(lambda journal: journal.holds()) == []

        # exports
        await made.stop()
        config = made.config()
        for name in WORDS:
            out = tmp_path / f"{name}.zip"
            await _export(
                config, Scope(participant=name, from_ns=0, to_ns=SystemClock.here().wall_ns()), host_signer(config), out
            )
            text = unpacked(out)
            assert (strangers_words(text, name), found[OTHER[name]].id in text) == ([], False)
            assert WORDS[name][0] in text
            assert WORDS[name][3] in text


async def test_test_and_live_share_no_signing_key(tmp_path):
    """One key in both environments would let what was signed for one be shown to the other: `check` and the start refuse it."""
    async with prepared(tmp_path) as made:
        keys = tmp_path / "keys"
        for name in ("host.pem", "live.pem"):
            write_private(keys / name, new_key(Algorithm.ES256))
        (keys / "live-password").write_text("x")
        (keys / "live-password").chmod(0o600)
        (keys / "copy.pem").write_bytes((keys / "acme.pem").read_bytes())
        (keys / "copy.pem").chmod(0o600)
        for name in ("jwks.json", "ca.pem"):
            (keys / f"live{'.' if name[0] == 'j' else '-'}{name}").write_bytes(
                (keys / f"smp{'.' if name[0] == 'j' else '-'}{name}").read_bytes()
            )
        path = tmp_path / "config/bridge.yaml"
        second_entry(path, "https://smp.example")
        assert problems_of(made.config()) == []
        second_entry(path, "https://smp.example", signing_key="../keys/copy.pem")
        [problem] = problems_of(made.config())
        assert f"is the key of {PARTICIPANT} in TEST too" in problem.text
        second_entry(path, "https://smp.example", signing_key="../keys/copy.pem", environment="TEST")
        assert problems_of(made.config()) == []
