"""What came with a `kid` that nobody knew: 401 like anything else, kept within bounds, and verified again once the key is known."""

import pytest
from end_point import ACME, FORMS, OTHER, listening, public, signer

from bridge.clock import Stamp
from bridge.market.unknown_keys import LARGEST, Kept, UnknownKeys


@pytest.mark.parametrize("form", FORMS)
async def test_verified_again_after_an_import(tmp_path, form):
    """Signed with a key that is imported later: 401 and nothing stored; then it settles its submission as of when it came. A forgery under that kid does not."""
    new = signer(kid="smp-2")
    async with listening(tmp_path, profile=form) as smp:
        ours = await smp.submission("BESS001")
        good = smp.seal(smp.draft(), new)
        await smp.unauthentic("kid_unknown", good)
        await smp.unauthentic("kid_unknown", good)
        await smp.unauthentic("kid_unknown", smp.seal(smp.draft(), signer(kid="smp-2")))
        came = smp.clock.at_ns
        assert await smp.endpoint.look_again(ACME) == 0
        smp.keys[new.kid] = public(new)
        smp.clock.at_ns += 8 * 86400 * 10**9
        assert await smp.endpoint.look_again(OTHER) == 0
        assert await smp.endpoint.look_again(ACME) == 1
        await smp.settled()
        assert (await smp.state(ours), smp.rows("SELECT received_ns FROM returns")) == ("CONFIRMED", [came])
        assert len(smp.endpoint._unknown) == 0
        assert await smp.endpoint.look_again(ACME) == 0


def kept(number, source="a", size=100):
    return Kept(
        participant=ACME,
        source=source,
        body=b"%d" % number + b"x" * size,
        tokens=(),
        headers={},
        received=Stamp(0, 0, ""),
    )


def test_it_is_bounded():
    """By number and by bytes; who sends most loses his own first; the same bytes are kept once, a large message not at all."""
    waiting = UnknownKeys(most=4, most_bytes=2000)
    waiting.keep(kept(0, "good"))
    for number in range(10):
        waiting.keep(kept(number))
        waiting.keep(kept(number))
    waiting.keep(kept(99, "large", LARGEST))
    assert len(waiting) == 4
    waiting.keep(kept(20, size=1700))
    found = waiting.take(ACME)
    assert [one.source for one in found] == ["good", "a", "a"]
    assert sum(one.size for one in found) <= 2000
    assert (len(waiting), waiting._bytes, dict(waiting._sources)) == (0, 0, {})
