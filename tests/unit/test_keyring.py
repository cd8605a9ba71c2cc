"""Keys as they may be used at a moment: by state, grace time and expiry; the gate refuses each withdrawn one for its own reason."""

import json
from types import SimpleNamespace

import pytest

from bridge.envelope import Algorithm, Refusal, SignatureForm, SignatureRefused, sign, verify
from bridge.errors import ConfigError
from bridge.journal.keys import KeyRecord, KeySide, KeyState
from bridge.keyring import KeyRing, shown
from bridge.keys import KeySigner, load_jwks, load_signer, new_key, public_jwks, write_private

S = 10**9
FORM = SignatureForm.JWS_COMPACT


class Clock:
    def __init__(self):
        self.ns = 1_795_000_000 * S

    def wall_ns(self):
        return self.ns


@pytest.fixture
def made(tmp_path):
    """A ring of one key of ours and one of SMP's, and SMP's signer."""
    write_private(tmp_path / "ours.pem", new_key(Algorithm.ES256))
    smp = KeySigner("S1", Algorithm.ES256, new_key(Algorithm.ES256))
    (tmp_path / "smp.jwks").write_text(json.dumps(public_jwks([smp])))
    options = SimpleNamespace(
        signing_key=tmp_path / "ours.pem",
        hsm=None,
        signing_kid=None,
        signing_algorithm=None,
        signing_password=None,
        smp_jwks=tmp_path / "smp.jwks",
        smp_certificate=None,
        signing_certificate=None,
    )
    profile = SimpleNamespace(name="p", spec=SimpleNamespace(signature=SimpleNamespace(algorithms=["ES256"])))
    clock = Clock()
    ring = KeyRing(SimpleNamespace(name="acme", options=options, profile=profile), clock)
    return SimpleNamespace(ring=ring, smp=smp, clock=clock, directory=tmp_path)


def record(signer, state, side=KeySide.THEIRS, place="configured", **more):
    return KeyRecord(
        participant="acme", side=side, kid=signer.kid, alg=signer.alg.value, state=state, jwk=json.dumps(signer.public_jwk()),
        place=str(place), **more,
    )  # fmt: skip


def verdict(made, signer=None):
    """What the gate says to a message of this signer, None for good."""
    try:
        verify(FORM, sign(FORM, b"{}", signer or made.smp, {}).body, [], made.ring)
    except SignatureRefused as error:
        return error.reason, error.kid
    return None


def test_each_state_has_its_verdict(made):
    """next, active and retiring verify; at the end of the grace time, at its expiry and once revoked a key does not, each for its own reason."""
    assert verdict(made) is None
    end = made.clock.ns + 5 * S
    for state, more, expected in (
        (KeyState.NEXT, {}, None),
        (KeyState.RETIRING, {"until_ns": end}, None),
        (KeyState.REVOKED, {}, (Refusal.KEY_REVOKED, "S1")),
        (KeyState.ACTIVE, {"expires_ns": end}, None),
    ):
        made.ring.take([record(made.smp, state, **more)])
        assert verdict(made) == expected, state
    made.clock.ns = end
    assert verdict(made) == (Refusal.KEY_EXPIRED, "S1")
    made.ring.take([record(made.smp, KeyState.RETIRING, until_ns=end)])
    assert verdict(made) == (Refusal.KEY_RETIRED, "S1")


def test_only_the_owner_of_a_withdrawn_key_is_told_apart(made):
    """Somebody who only names a revoked key gets the reason of any bad signature, and raises no alarm."""
    made.ring.take([record(made.smp, KeyState.REVOKED)])
    stranger = KeySigner("S1", Algorithm.ES256, new_key(Algorithm.ES256))
    assert verdict(made, stranger) == (Refusal.BAD_SIGNATURE, "")


def test_a_jwk_may_say_when_it_ends(made):
    """`exp` of a JWK counts like the journal's own date; what is no time is refused with its file."""
    file = made.directory / "smp.jwks"
    jwk = {**made.smp.public_jwk(), "exp": made.clock.ns // S + 10}
    file.write_text(json.dumps({"keys": [jwk]}))
    ring = made.ring = KeyRing(made.ring._entry, made.clock)
    assert verdict(made) is None
    made.clock.ns += 10 * S
    assert verdict(made) == (Refusal.KEY_EXPIRED, "S1")
    assert [one.expires_ns for one in ring.configured() if one.side is KeySide.THEIRS] == [jwk["exp"] * S]
    for wrong in (True, "soon", -1, 1e15):
        file.write_text(json.dumps({"keys": [{**jwk, "exp": wrong}]}))
        with pytest.raises(ConfigError, match="has an `exp` that is no time"):
            load_jwks(file)


def test_imported_keys_live_in_the_journal_and_configured_ones_in_their_file(made):
    """An imported key verifies without a file; a key that was taken out of the configured file does not, whatever the journal remembers."""
    other = KeySigner("S2", Algorithm.ES256, new_key(Algorithm.ES256))
    made.ring.take([record(other, KeyState.NEXT, place="imported")])
    assert verdict(made, other) is None
    assert [key.kid for key in made.ring.theirs()] == ["S1", "S2"]
    made.ring.take([record(other, KeyState.ACTIVE)])
    assert verdict(made, other) == (Refusal.KID_UNKNOWN, "")


def test_the_active_key_signs_and_must_be_the_one_that_was_promised(made):
    """Another key in its file, or a file that others can read, is an error, and the former key signs on; SMP's keys are changed all the same."""
    first = made.ring.signer.kid
    path = made.directory / "second.pem"
    write_private(path, new_key(Algorithm.ES256))
    second = load_signer(path)
    mine = [record(made.ring.signer.current, KeyState.RETIRING, KeySide.OURS, until_ns=made.clock.ns + S)]
    mine += [record(second, KeyState.ACTIVE, KeySide.OURS, path)]
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        made.ring.take([*mine, record(made.smp, KeyState.REVOKED)])
    assert made.ring.signer.kid == first
    assert verdict(made) == (Refusal.KEY_REVOKED, "S1")
    write_private(path, new_key(Algorithm.ES256))
    with pytest.raises(ConfigError, match="is another key than"):
        made.ring.take(mine)
    path.unlink()
    write_private(path, second._key)
    made.ring.take(mine)
    assert made.ring.signer.kid == second.kid
    assert [key["kid"] for key in made.ring.ours()] == [second.kid, first]
    assert [key["kid"] for key in shown(made.ring.records, made.clock.ns + S)] == [second.kid]
