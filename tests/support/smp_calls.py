"""Calls of our client to the scripted server of `smp_server`, and what their answers mean by the default profile."""

from contextlib import asynccontextmanager

import smp_server as smp

from bridge.market.client import ClientSettings, SmpClient
from bridge.platform import AnswerClass, classify
from bridge.profile import load_profile

CLASSES = {key: AnswerClass(word.value) for key, word in load_profile("default").answer_classes.items()}
BODY = b'{"a":1}'


@asynccontextmanager
async def client(directory, server, *, host="localhost", **settings):
    ca = directory / "ca.pem"
    ca.write_bytes(server.authority.pem)
    values = {"base_url": server.url(host), "ca_file": str(ca), "connect_s": 5.0, "answer_s": 5.0, **settings}
    async with SmpClient(ClientSettings(**values), clock=smp.CLOCK) as made:
        yield made


async def post(made, *, method="POST", body=BODY, **headers):
    return await made.post("/api", method=method, headers={"X-Token": "secret-token", **headers}, body=body)


async def begun(made, *, method="POST", body=BODY, **headers):
    """The facts of a call whose bytes are handed over at once, as those of the quiet path are; None where that cannot be."""
    found = made.begin("/api", method=method, headers={"X-Token": "secret-token", **headers}, body=body)
    return None if found is None else await made.finish(found)


async def one(directory, *steps, settings=None, host="localhost", **server):
    """The facts of one call to a server with this script, and their class."""
    async with smp.smp_server(*steps, **server) as peer, client(directory, peer, host=host, **(settings or {})) as made:
        found = await post(made)
    return found, classify(found, CLASSES)
