"""What came out of a service, searched for what must not: every log line, what people are shown, secrets in all their forms, and where in a configuration each was planted."""

import base64
import json
import logging
import re
from collections.abc import Mapping
from contextlib import contextmanager
from urllib.parse import quote

import aiohttp
from pydantic import BaseModel

from bridge.cli.logs import JsonFormatter
from bridge.secret import Secret

LOGGERS = ("", "bridge", "adapters", "aiohttp.access", "asyncio")
# The lives of a whole service (tests/security), and the places whose secrets each plants; together they are all places that there are.
LIVES = {
    "alone": {
        *("HostOptions.host_key_password", "HostOptions.journal.anchors.post.token"),
        *("ParticipantOptions.password", "ParticipantOptions.signing_password"),
    },
    "peers": {
        *("HostOptions.journal.anchors.mqtt.password", "HostOptions.tracing.headers", "ParticipantOptions.password"),
        *("mqtt.password", "opcua.security.password"),
    },
    "backends": {"HostOptions.journal.postgres.password", "ParticipantOptions.hsm.pin", "ParticipantOptions.password"},
}  # fmt: skip


class Heard(logging.Handler):
    """Every line of every logger, as the service writes it and as Python does."""

    def __init__(self):
        super().__init__(logging.DEBUG)
        self.lines, self._json = [], JsonFormatter()

    def emit(self, record):
        self.lines += [self._json.format(record), self.format(record), repr(record.__dict__)]

    @property
    def text(self):
        return "\n".join(self.lines)


@contextmanager
def hearing():
    """Everything is logged, and heard."""
    root, handler = logging.getLogger(), Heard()
    levels = {name: logging.getLogger(name).level for name in LOGGERS}
    root.addHandler(handler)
    for name in levels:
        logging.getLogger(name).setLevel(logging.DEBUG)
    try:
        yield handler
    finally:
        root.removeHandler(handler)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def forms(secret):
    """How a secret could stand somewhere."""
    raw = secret.encode()
    return {
        secret,
        quote(secret, safe=""),
        json.dumps(secret)[1:-1],
        raw.hex(),
        base64.b64encode(raw).decode().rstrip("="),
        base64.urlsafe_b64encode(raw).decode().rstrip("="),
    }


def leaked(planted, out):
    """What was planted, and where it came out: both are texts by what they are."""
    assert all(out.values()), [where for where, text in out.items() if not text]
    return [
        (what, where)
        for what, secret in planted.items()
        for where, text in out.items()
        if any(form in text for form in forms(secret))
    ]


def secrets_of(config):
    """The places of a loaded configuration that hold a secret, named as in LIVES, with all that each holds."""
    held = {}
    models = [(config.host, "HostOptions")]
    models += [(entry.options, "ParticipantOptions") for entry in config.participants.values()]
    models += [(one.options, one.adapter.protocol) for site in config.sites.values() for one in site.adapters.values()]
    for model, name in models:
        for place, text in _held(model, name):
            held.setdefault(place, set()).add(text)
    return held


def _held(value, name):
    if isinstance(value, Secret):
        yield name, value.reveal()
    elif isinstance(value, BaseModel):
        for field in type(value).model_fields:
            yield from _held(getattr(value, field), f"{name}.{field}")
    elif isinstance(value, Mapping | list | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _held(item, name)


def planted_there(life, config, planted):
    """Assert that this configuration has one of the planted secrets at each place of a life."""
    held, texts = secrets_of(config), set(planted.values())
    assert {place for place in LIVES[life] if not held.get(place, set()) & texts} == set()


async def asked(made, good, revoked):
    """What the admin listener says to good and bad tokens."""
    answers = {}
    url = f"http://127.0.0.1:{made.running.admin_port}"
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http:
        for name, value in (("good", good), ("revoked", revoked), ("cut", good[:-9]), ("twice", f"{good} {good}")):
            for path in ("/metrics", "/api/v1/whoami", "/api/v1/submissions", "/api/v1/tokens", "/", f"/{value}"):
                async with http.get(url + path, headers={"Authorization": f"Bearer {value}"}) as answer:
                    answers[f"{name} token at {path[:30]}"] = (
                        re.sub(r"^", "", await answer.text()) + str(answer.headers) or "-"
                    )
            body = {"scope": "site", "name": "none", "reason": "x", value: value}
            async with http.post(
                f"{url}/api/v1/holds", headers={"Authorization": f"Bearer {good}"}, json={**body, "reason": "x"}
            ) as answer:
                assert answer.status == 400
        async with http.post(f"{url}/sign-in", data={"token": revoked}, headers={"Origin": url}) as answer:
            answers["a wrong sign-in"] = await answer.text()
        async with http.post(f"{url}/sign-in", data={"token": good}, headers={"Origin": url}) as answer:
            answers["the page"] = await answer.text()
    return answers


async def shown(made, good, paths):
    """What these paths of the admin listener show to a good token."""
    answers = {}
    url = f"http://127.0.0.1:{made.running.admin_port}"
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {good}"}) as http:
        for path in paths:
            async with http.get(url + path) as answer:
                assert answer.status == 200, path
                answers[path] = await answer.text()
    return answers
