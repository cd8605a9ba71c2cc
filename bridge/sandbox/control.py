"""The sandbox's control API: a tester turns the knobs and reads the ledger. It listens on loopback and nowhere else."""

import json
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

from aiohttp import web
from joserfc.errors import JoseError
from pydantic import ValidationError

from bridge.sandbox.accounts import Accounts
from bridge.sandbox.knobs import Knobs
from bridge.sandbox.ledger import Ledger
from bridge.sandbox.options import jwks_of

HOST: Final = "127.0.0.1"
_MOST_BYTES: Final = 4 * 1024 * 1024


class Controlled(Protocol):
    """What of a sandbox can be controlled."""

    knobs: Knobs
    ledger: Ledger
    accounts: Accounts

    def rotate_key(self) -> str:
        """Sign with a new key from now on."""

    def set_return_url(self, participant: str, url: str) -> None:
        """Where a participant's returns go from now on; raises KeyError for a participant it does not know."""

    async def release(self) -> int:
        """Push the returns that were held."""

    def jwks(self) -> Any:
        """Its public keys."""


class Control:
    """`GET|PATCH /knobs`, `GET /ledger`, `GET /jwks`, `POST /release|/rotate-key|/expire-tokens`, `PUT /return-url/NAME` (the body is the address), `PUT /jwks/NAME` (its public keys)."""

    def __init__(self, sandbox: Controlled) -> None:
        self._sandbox = sandbox

    def application(self) -> web.Application:
        """The routes, ready to be served."""
        app = web.Application(client_max_size=_MOST_BYTES)
        routes: tuple[tuple[str, str, Callable[[web.Request], Awaitable[web.Response]]], ...] = (
            ("GET", "/knobs", self._knobs),
            ("PATCH", "/knobs", self._turn),
            ("GET", "/ledger", self._ledger),
            ("GET", "/jwks", self._jwks),
            ("POST", "/release", self._release),
            ("POST", "/rotate-key", self._rotate),
            ("POST", "/expire-tokens", self._expire),
            ("PUT", "/return-url/{participant}", self._return_url),
            ("PUT", "/jwks/{participant}", self._know),
        )
        for method, path, handler in routes:
            app.router.add_route(method, path, handler)
        return app

    async def _knobs(self, _: web.Request) -> web.Response:
        return web.json_response(self._sandbox.knobs.model_dump())

    async def _turn(self, request: web.Request) -> web.Response:
        """Change the named knobs; with one wrong, none is changed."""
        try:
            values = json.loads(await request.read())
        except ValueError as error:
            return _wrong(f"the body is not JSON: {error}")
        if not isinstance(values, dict):
            return _wrong('the body must be an object such as {"answer_delay_s": 2}')
        try:
            self._sandbox.knobs.change(values)
        except ValidationError as error:
            return _wrong(*(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()))
        return await self._knobs(request)

    async def _ledger(self, _: web.Request) -> web.Response:
        return web.json_response(self._sandbox.ledger.as_dict())

    async def _jwks(self, _: web.Request) -> web.Response:
        return web.json_response(self._sandbox.jwks())

    async def _release(self, _: web.Request) -> web.Response:
        return web.json_response({"released": await self._sandbox.release()})

    async def _rotate(self, _: web.Request) -> web.Response:
        return web.json_response({"kid": self._sandbox.rotate_key()})

    async def _expire(self, _: web.Request) -> web.Response:
        self._sandbox.accounts.expire()
        return web.json_response({"expired": True})

    async def _return_url(self, request: web.Request) -> web.Response:
        participant, url = request.match_info["participant"], (await request.text()).strip()
        if participant not in self._sandbox.accounts.by_name:
            return _wrong(f"there is no participant {participant}", status=404)
        if url and not url.startswith("https://"):
            return _wrong("the address must begin with https://")
        self._sandbox.set_return_url(participant, url)
        return web.json_response({"participant": participant, "return_url": url})

    async def _know(self, request: web.Request) -> web.Response:
        participant = request.match_info["participant"]
        if participant not in self._sandbox.accounts.by_name:
            return _wrong(f"there is no participant {participant}", status=404)
        try:
            jwks = jwks_of(await request.read())
            self._sandbox.accounts.know(participant, jwks)
        except (ValueError, TypeError, KeyError, JoseError) as error:
            return _wrong(f"the body is no JWK Set of public keys: {error}")
        return web.json_response({"participant": participant, "keys": [key.get("kid") for key in jwks["keys"]]})


def _wrong(*problems: str, status: int = 400) -> web.Response:
    return web.json_response({"problems": list(problems)}, status=status)
