"""The states of signing keys: every change is one event with who and why, and no way around the order of states."""

import json

import pytest

from bridge.errors import NotPossible
from bridge.journal.keys import KeyRecord, KeySide, KeyState
from bridge.journal.people import Decision

DAY_NS = 86_400 * 10**9
ADA = Decision(by="Ada", reason="the yearly change")
OURS, THEIRS = KeySide.OURS, KeySide.THEIRS


def key(kid, side=OURS, state=KeyState.NEXT, **more):
    return KeyRecord(
        participant="acme", side=side, kid=kid, alg="ES256", state=state, jwk=json.dumps({"kid": kid}),
        place="/keys/a.pem" if side is OURS else "imported", **more,
    )  # fmt: skip


async def states(kit, side=OURS):
    return {record.kid: record.state.value for record in await kit.journal.keys("acme") if record.side is side}


async def told(kit, kid, side=OURS):
    return [(event.kind, event.data) for event in await kit.journal.events(f"key:{side.value}:{kid}")]


async def test_what_is_configured_is_active_once(kit):
    """Introduced again it changes nothing; another signing key takes the place of the former, which retires for the grace time."""
    first, smp = key("K1"), key("S1", THEIRS)
    for _ in range(2):
        await kit.journal.introduce_keys([first, smp], DAY_NS)
    assert (await states(kit), await states(kit, THEIRS)) == ({"K1": "active"}, {"S1": "active"})
    assert len(await told(kit, "K1")) == 1
    await kit.journal.introduce_keys([key("K2"), key("S2", THEIRS)], DAY_NS)
    assert await states(kit) == {"K1": "retiring", "K2": "active"}
    assert await states(kit, THEIRS) == {"S1": "active", "S2": "active"}
    retiring = next(record for record in await kit.journal.keys("acme") if record.kid == "K1")
    assert retiring.until_ns == retiring.since_ns + DAY_NS
    assert retiring.lives(retiring.until_ns - 1)
    assert not retiring.lives(retiring.until_ns)
    assert (retiring.by, retiring.reason) == ("host", "named by the configuration")
    assert await kit.journal.keys("other") == []


async def test_a_state_outlives_the_configuration(kit):
    """What was revoked stays so although the configuration still names it; a file that moved, or holds another key, is noted."""
    await kit.journal.introduce_keys([key("S1", THEIRS)], DAY_NS)
    await kit.journal.revoke_key("acme", THEIRS, "S1", ADA)
    changed = KeyRecord(
        participant="acme",
        side=THEIRS,
        kid="S1",
        alg="ES256",
        state=KeyState.ACTIVE,
        jwk='{"kid": "S1", "x": 1}',
        place="configured",
    )
    await kit.journal.introduce_keys([changed], DAY_NS)
    (record,) = await kit.journal.keys("acme")
    assert (record.state, record.jwk) == (KeyState.REVOKED, changed.jwk)
    assert [kind for kind, _ in await told(kit, "S1", THEIRS)] == ["key.active", "key.revoked", "key.replaced"]


async def test_a_rotation_is_told_who_and_why(kit):
    """next, active, retiring: each step an event; whoever uses the keys is woken."""
    await kit.journal.introduce_keys([key("K1")], DAY_NS)
    woken = kit.journal.woken("keys:acme")
    await kit.journal.add_key(key("K2", expires_ns=5), Decision(by="Ada", reason="new"))
    assert woken.is_set()
    woken.clear()
    with pytest.raises(NotPossible, match="has expired"):
        await kit.journal.rotate_keys("acme", OURS, "", DAY_NS, ADA)
    assert not woken.is_set()
    await kit.journal.add_key(key("K3"), ADA)
    with pytest.raises(NotPossible, match="several next keys: K2, K3"):
        await kit.journal.rotate_keys("acme", OURS, "", DAY_NS, ADA)
    assert await kit.journal.rotate_keys("acme", OURS, "K3", DAY_NS, ADA) == ("K3", ["K1"])
    assert woken.is_set()
    assert await states(kit) == {"K1": "retiring", "K2": "next", "K3": "active"}
    kind, data = (await told(kit, "K1"))[-1]
    assert kind == "key.retiring"
    assert (data["before"], data["state"], data["by"], data["reason"]) == ("active", "retiring", "Ada", ADA.reason)
    assert data["until_ns"] > 0
    with pytest.raises(NotPossible, match="acme has no next key K1"):
        await kit.journal.rotate_keys("acme", OURS, "K1", DAY_NS, ADA)


async def test_one_key_of_ours_always_signs(kit):
    """The only one cannot be revoked; with a next one it can, which signs in its place at once."""
    await kit.journal.introduce_keys([key("K1")], DAY_NS)
    with pytest.raises(NotPossible, match="K1 is the key that signs for acme"):
        await kit.journal.revoke_key("acme", OURS, "K1", ADA)
    assert await states(kit) == {"K1": "active"}
    await kit.journal.add_key(key("K2"), ADA)
    assert await kit.journal.revoke_key("acme", OURS, "K1", ADA) == "K2"
    assert await states(kit) == {"K1": "revoked", "K2": "active"}
    with pytest.raises(NotPossible, match="revoked already"):
        await kit.journal.revoke_key("acme", OURS, "K1", ADA)
    with pytest.raises(NotPossible, match="has no key K9"):
        await kit.journal.revoke_key("acme", OURS, "K9", ADA)


async def test_a_new_key_is_next_first(kit):
    """Ours cannot be added as active, nothing can be added twice, and each side has its own ids."""
    await kit.journal.introduce_keys([key("K1")], DAY_NS)
    with pytest.raises(NotPossible, match="is `next` first"):
        await kit.journal.add_key(key("K2", state=KeyState.ACTIVE), ADA)
    with pytest.raises(NotPossible, match="known already"):
        await kit.journal.add_key(key("K1"), ADA)
    await kit.journal.add_key(key("K1", THEIRS, KeyState.ACTIVE), ADA)
    assert await states(kit, THEIRS) == {"K1": "active"}


async def test_a_stopped_account_is_released_by_name(kit):
    """The alarm ends, an event says who and why, and whoever logs in is woken; an account that works cannot be released."""
    woken = kit.journal.woken("account:acme")
    with pytest.raises(NotPossible, match="the account of acme is not stopped"):
        await kit.journal.release_account("acme", ADA)
    await kit.journal.alarm("ACCOUNT_STOPPED", participant="acme", text="refused")
    assert not woken.is_set()
    await kit.journal.release_account("acme", ADA)
    assert woken.is_set()
    assert await kit.journal.alarms() == []
    (event,) = await kit.journal.events("account:acme")
    assert (event.kind, event.data) == ("account.released", {"by": "Ada", "reason": ADA.reason})
