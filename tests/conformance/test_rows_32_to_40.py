"""DOMAIN 9, rows 32 to 40: what a hostile text, disk, clock, flood or SMP may do, and what it must not."""

import asyncio

import pytest
import smp_server
from end_point import ACME, FORMS, listening, signer
from outbound_rig import LOGIN, market

from bridge.envelope import PublicKey
from bridge.market.flood import BURST, MOST_SOURCES, PER_S, Flood, Flooded
from bridge.sandbox.pki import Authority

NS = 1_000_000_000
ALARMS = "SELECT code FROM alarms WHERE cleared_ns = 0 ORDER BY code"


# row 35 ------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def verified(monkeypatch):
    """The kid of each costly call."""
    calls, real = [], PublicKey.verify

    def verify(key, signing_input, signature):
        calls.append(key.kid)
        return real(key, signing_input, signature)

    monkeypatch.setattr(PublicKey, "verify", verify)
    return calls


async def test_row_35_verify_is_called_once(smp, verified):
    """Row 35: "bad signature v. other participant's key": "each path calls verify exactly once"; so does a good message."""
    draft, good = await smp.accepted()
    assert verified == ["smp-1"]
    await smp.unauthentic("bad_signature", good.but(tail=smp.seal(smp.draft()).tail))
    assert verified == ["smp-1"] * 2
    await smp.unauthentic("bad_signature", smp.seal(draft, signer(kid="smp-1")))
    assert verified == ["smp-1"] * 3
    assert (await smp.post(good))[0] == 200
    assert verified == ["smp-1"] * 4
    await smp.unauthentic("kid_unknown", smp.seal(draft, signer(kid="other-1")))
    assert verified == ["smp-1"] * 4


# row 36 ------------------------------------------------------------------------------------------------------------------


class HandClock:
    """A monotonic clock that moves when it is told to."""

    def __init__(self):
        self.ns = NS

    def __call__(self):
        return self.ns


async def flooded(smp, forged, number, statuses):
    """Send so many; how often each status came."""
    body, tokens = forged.sent()
    answers = await asyncio.gather(*(smp.send(body, tokens) for _ in range(number)))
    found = [status for status, _, _ in answers]
    assert {status: found.count(status) for status in set(found)} == statuses
    return [headers for status, headers, _ in answers if status == 429]


@pytest.mark.parametrize("form", FORMS)
async def test_row_36_a_flood_of_bad_signatures(tmp_path, verified, form):
    """Row 36: "429 after a limit per source; cheap checks run before the RSA verify": counted, told once, no more verified."""
    clock = HandClock()
    async with listening(tmp_path, profile=form, limits={"flood": Flood(clock)}) as smp:
        draft, good = await smp.accepted()
        forged = smp.seal(draft, signer(kid="smp-1"))
        verified.clear()
        before, counted = smp.effects(), smp.refusals()
        refused = await flooded(smp, forged, BURST + 40, {401: BURST, 429: 40})
        assert {headers["Retry-After"] for headers in refused} == {"1"}
        assert smp.new_refusals(counted) == {"bad_signature": BURST, "flood": 40}
        assert len(verified) == BURST
        assert smp.effects() == {**before, "alarms": ["FLOOD"]}
        assert smp.rows("SELECT count FROM alarms") == [1]
        await smp.unauthentic("kid_unknown", smp.seal(draft, signer(kid="other-1")))
        await smp.refused(429, "flood", *good.sent())
        clock.ns += int(NS / PER_S)
        assert (await smp.post(good))[0] == 200
        clock.ns += 60 * NS
        await flooded(smp, forged, BURST + 1, {401: BURST, 429: 1})
        assert smp.rows("SELECT count FROM alarms") == [2]


async def test_row_36_good_messages_are_no_flood(tmp_path):
    """Row 36: a source whose signatures are good is never limited, however fast it sends."""
    async with listening(tmp_path, limits={"flood": Flood(HandClock(), burst=3)}) as smp:
        body, tokens = smp.seal(smp.draft()).sent()
        answers = await asyncio.gather(*(smp.send(body, tokens) for _ in range(40)))
        assert sorted(status for status, _, _ in answers) == [200] * 39 + [202]


def test_row_36_each_source_by_itself():
    """Row 36: "a limit per source": another source is not limited, and a million sources take no more memory than some thousand."""
    flood = Flood(HandClock(), burst=2)
    for _ in range(2):
        flood.charge("192.0.2.1")
    with pytest.raises(Flooded):
        flood.charge("192.0.2.1")
    flood.charge("192.0.2.2")
    for number in range(MOST_SOURCES + 10):
        flood.charge(f"source-{number}")
    assert len(flood._tokens) == MOST_SOURCES


# row 37 ------------------------------------------------------------------------------------------------------------------


async def test_row_37_time_jumps_back(smp):
    """Row 37: "time jumps back 10 min": "replay store still holds; no re-acceptance": the replay is a duplicate or out of the window."""
    ours = await smp.submission("BESS001")
    _, message = await smp.accepted()
    before, told = smp.effects(), smp.told()
    smp.clock.at_ns -= 600 * NS
    await smp.unauthentic("from_the_future", message)
    smp.clock.at_ns += 400 * NS
    assert (await smp.post(message))[0] == 200
    assert (smp.effects(), smp.told(), await smp.state(ours)) == (before, told, "CONFIRMED")


@pytest.mark.parametrize("mode", ["attempt", "event"])
async def test_row_37_a_clock_that_comes_back(tmp_path, mode):
    """Row 37: what was refused as too old and comes into the window again by a clock set back is still known as a replay."""
    async with listening(tmp_path, freshness={"mode": mode}) as smp:
        _, message = await smp.accepted()
        smp.clock.at_ns += 8 * 86400 * NS
        await smp.unauthentic("too_old", message)
        smp.clock.at_ns -= 8 * 86400 * NS
        assert (await smp.post(message))[0] == 200
        assert (smp.rows("SELECT count(*) FROM returns"), smp.told()[ACME]) == ([1], 1)


# row 39 ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_row_39_a_redirect_is_never_followed(tmp_path, status):
    """Row 39: "SMP redirects 302 to another host": "never follow, never send token; WAITING, circuit open"."""
    async with smp_server.smp_server(rest=smp_server.answer()) as other:
        step = smp_server.answer(f"{status} Moved", Location=other.url() + "/take")
        async with market(tmp_path, step) as rig:
            await rig.submit("BESS001")
            async with asyncio.timeout(5):
                while not rig.pace.circuit_open:
                    await asyncio.sleep(0.01)
                while await rig.alarms() != ["CIRCUIT_OPEN"]:
                    await asyncio.sleep(0.01)
            await rig.until("WAITING")
            assert len(rig.creates) == 1
        assert (other.connections, other.script.requests) == (0, [])


async def test_row_39_a_login_that_is_redirected(tmp_path):
    """Row 39: user and password go nowhere else either."""
    async with smp_server.smp_server(rest=smp_server.answer()) as other:
        login = smp_server.answer("307 Moved", Location=other.url() + LOGIN)
        async with market(tmp_path, login=login) as rig:
            await rig.submit("BESS001")
            async with asyncio.timeout(5):
                while not rig.peer.script.on(LOGIN):
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            assert rig.creates == []
        assert (other.connections, other.script.requests) == (0, [])


class Shifted:
    """The clock of an authority that issues its certificates so many days off."""

    def __init__(self, days):
        self.days = days

    def wall_ns(self):
        return smp_server.CLOCK.wall_ns() + self.days * 86400 * NS


@pytest.mark.parametrize("what", ["expired", "not yet valid", "another host's", "another authority's"])
async def test_row_39_a_certificate_that_is_not_good(tmp_path, what):
    """Row 39: "expired SMP certificate, wrong host name": RETRY_WAIT, and not one byte of a call leaves."""
    authority = Authority("authority", clock=smp_server.CLOCK)
    issuer = authority if what != "another authority's" else Authority("stranger", clock=smp_server.CLOCK)
    issuer._clock = Shifted({"expired": -60, "not yet valid": 60}.get(what, 0))
    context = smp_server.server_context(
        issuer, hosts=("other.example",) if what == "another host's" else ("localhost",)
    )
    async with (
        smp_server.smp_server(authority=authority, context=context) as peer,
        market(tmp_path, url=peer.url(), peer_options={"authority": authority}) as rig,
    ):
        await rig.submit("BESS001")
        await rig.until("RETRY_WAIT")
        assert peer.script.requests == []


BODIES = {"1 GB": smp_server.gigabyte, "HTML": smp_server.answer("200 OK", "<html><body>Sign in</body></html>")}


@pytest.mark.parametrize("what", BODIES)
async def test_row_39_an_answer_that_is_none(tmp_path, what):
    """Row 39: "1 GB or HTML as 2xx: IN_DOUBT; body capped"."""
    async with market(tmp_path, BODIES[what], settings={"max_answer_bytes": 200_000}) as rig:
        await rig.submit("BESS001")
        await rig.until("IN_DOUBT")
        assert (len(rig.creates), await rig.alarms()) == (1, ["IN_DOUBT"])
