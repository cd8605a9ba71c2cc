"""The whole service with the fault proxy between it and SMP, and the count of what became of every asset."""

import asyncio
import ssl
import time
from contextlib import asynccontextmanager

from fault_table import Row
from service import fill, linked, service

from bridge.sandbox import Knobs
from bridge.sandbox.server import load_pair
from bridge.testing.proxy import FaultProxy

QUICKLY = {"transport": {"connect_s": 1, "answer_s": 2}}
REGISTERED_WORD, REFUSED_WORDS, IN_DOUBT_WORD = 3, (4, 7), 5


def tls_server(authority, *names):
    """A server's context with a certificate of this authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    load_pair(context, authority.server("proxy", list(names or ("localhost", "127.0.0.1"))))
    return context


@asynccontextmanager
async def faulty_smp(directory, *, inside=False, name="127.0.0.1", ready=True, changes=None, **options):
    """A running service whose way to SMP leads through `made.proxy`; with `inside` the proxy ends the TLS and sees the messages.

    `name` is how the service's configuration calls SMP; with `ready` it has a token and an open connection when the test begins.
    """
    kept = {}

    @asynccontextmanager
    async def through(sandbox):
        ends = {}
        if inside:
            trust = ssl.create_default_context(cadata=sandbox.ca_pem.decode())
            ends = {"server_tls": tls_server(sandbox.authority), "client_tls": trust}
        async with FaultProxy("127.0.0.1", int(sandbox.base_url.rpartition(":")[2]), **ends) as proxy:
            kept["proxy"] = proxy
            yield f"https://{name}:{proxy.port}"

    async with service(directory, through=through, changes={**QUICKLY, **(changes or {})}, **options) as made:
        made.proxy = kept["proxy"]
        made.asked = []
        made.site = await linked(made)
        if ready:
            await _warm(made)
        yield made


async def _warm(made):
    """One asset goes all the way, and is not counted."""
    held, made.knobs.returns = made.knobs.returns, "push"
    made.site.put("warm", reference="WARM-1", kw=5)
    made.site.request("assets", "warm")
    await until_word(made, ["warm"], REGISTERED_WORD)
    await made.until_states("CONFIRMED")
    made.knobs.returns = held


def path(made):
    """Where asset calls go, as it stands in the request's first line."""
    return made.sandbox_profile.calls["asset.create"].path.encode()


def ask(made, count=1):
    """Let the EMS ask for so many new assets in one request; returns their places."""
    first = len(made.asked) + 1
    places = fill(made.site, count, first)
    made.asked += places
    made.site.request("assets", *places, sequence=str(first))
    return places


async def until_word(made, places, *wanted, within_s=15.0):
    """Wait until each of these places was told one of these words last."""
    site = made.site
    try:
        await site.until(lambda: all(site.last(place) in wanted for place in places), within_s)
    except TimeoutError:
        raise AssertionError(f"told {[site.last(place) for place in places]}, expected {wanted}") from None


async def until_states(made, *wanted):
    """Wait until the calls are in these states, the one that warmed up apart."""
    await made.until_states("CONFIRMED", *wanted)


async def recovered(made):
    """Seconds until a new asset is registered: the link works again."""
    started = time.monotonic()
    await until_word(made, ask(made), REGISTERED_WORD, within_s=30)
    return time.monotonic() - started


def sent(made, places):
    """How often each of these was in a call that SMP received."""
    references = [made.site.fields[place]["reference"] for place in places]
    calls = made.ledger.of("asset.create")
    return [sum(entry.references.count(reference) for entry in calls) for reference in references]


async def still_in_doubt(made, places):
    """They are in doubt and stay so: a retry would have come by now, for retries come within a quarter of a second."""
    before = sent(made, places)
    await asyncio.sleep(0.6)
    assert sent(made, places) == before
    assert [made.site.last(place) for place in places] == [IN_DOUBT_WORD] * len(places)


def row(made, fault, *, rounds=1, recovery_s=0.0, broken=""):
    """What became of every asset that was asked for so far, by the EMS's own words and the sandbox's own book."""
    words = [made.site.last(place) for place in made.asked]
    creates = [made.ledger.creates(made.site.fields[place]["reference"]) for place in made.asked]
    known = {REGISTERED_WORD, *REFUSED_WORDS, IN_DOUBT_WORD}
    ghosts = sum(word in REFUSED_WORDS and count > 0 for word, count in zip(words, creates, strict=True))
    return Row(
        fault=fault,
        rounds=rounds,
        requested=len(made.asked),
        accepted_once=sum(word == REGISTERED_WORD and count == 1 for word, count in zip(words, creates, strict=True)),
        refused=sum(word in REFUSED_WORDS for word in words),
        in_doubt=words.count(IN_DOUBT_WORD),
        lost=sum(word not in known for word in words),
        twice=sum(count > 1 for count in creates),
        recovery_s=recovery_s,
        broken=broken or (f"{ghosts} created and called refused" if ghosts else ""),
    )


__all__ = [
    "IN_DOUBT_WORD",
    "REGISTERED_WORD",
    "Knobs",
    "ask",
    "faulty_smp",
    "path",
    "recovered",
    "row",
    "sent",
    "still_in_doubt",
    "tls_server",
    "until_states",
    "until_word",
]
