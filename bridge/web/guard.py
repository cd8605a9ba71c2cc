"""What stands before every route of the admin listener: who asks, whether the role may, and that no other web site asks in their name."""

import ipaddress
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web

from bridge.errors import BridgeError, JournalFull, JournalUnusable, NotPossible
from bridge.metrics import Metrics
from bridge.secret import Secret
from bridge.web.markup import sign_in_page, wrong_page
from bridge.web.roles import NOBODY, READING, Person, Role
from bridge.web.tokens import Believer, TokenRefused, Unwelcome

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
PERSON: Final = web.RequestKey("smp_bridge_person", Person)
SIGN_IN: Final = "/sign-in"
API: Final = "/api/v1/"
_SAFE: Final = frozenset({"GET", "HEAD"})
_BEARER: Final = "bearer "
HEADERS: Final = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # not `no-referrer`: a form would then be sent with the origin `null`, which is nobody's
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Server": "smp-bridge",  # else aiohttp tells its own and Python's version
}
_WORDS: Final = {
    404: "there is nothing at this address",
    405: "this address is asked in another way",
    413: "this is more than is taken at once",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One route and who may take it. `open` is for everybody, with or without a token: the way to sign in and nothing else."""

    method: str
    path: str
    handler: Handler
    roles: frozenset[Role] = READING
    open: bool = False


class BadRequest(BridgeError):
    """Answer 400: the caller has to ask differently."""


class NotHere(BridgeError):
    """Answer 404: there is no such thing, or none that is this person's business; the two look alike."""


class Guard:
    """The middleware. `without_token` lets anybody on this machine read; `secure` says that the listener speaks TLS."""

    def __init__(self, believer: Believer, metrics: Metrics, *, without_token: bool, secure: bool) -> None:
        self._believer = believer
        self._metrics = metrics
        self._without_token = without_token
        self._secure = secure
        self._routes: dict[tuple[str, str], Route] = {}

    def serve(self, routes: list[Route]) -> web.Application:
        """An application of these routes, and of nothing beside them."""

        @web.middleware
        async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await self._answer(request, handler)

        app = web.Application(middlewares=[middleware], client_max_size=1024 * 1024)
        app.on_response_prepare.append(_dressed)
        for route in routes:
            app.router.add_route(route.method, route.path, route.handler)
            self._routes[route.method, route.path] = route
        return app

    def cookie(self, request: web.Request) -> str:
        """The cookie's name. Cookies know no ports, so that hosts beside each other on one machine each need their own."""
        _, _, port = request.host.rpartition(":")
        name = f"smp_bridge_{port if port.isdigit() else 'admin'}"
        return f"__Host-{name}" if self._secure else name

    @property
    def secure(self) -> bool:
        """Whether the listener speaks TLS."""
        return self._secure

    def own_page(self, request: web.Request) -> bool:
        """Whether a browser sent this from a page of ours: browsers name the page's origin with each form, and no page can choose what they name."""
        try:
            said = urlsplit(request.headers.get("Origin", ""))
        except ValueError:  # what is no address is nobody's
            return False
        return said.scheme == ("https" if self._secure else "http") and said.netloc == request.host

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await self._let_in(request, handler)
        except TokenRefused as refused:
            self.refused(refused.reason)
            return self._stranger(request)
        except NotHere as error:
            return self._wrong(request, error, 404)
        except BadRequest as error:
            return self._wrong(request, error, 400)
        except NotPossible as error:
            return self._wrong(request, error, 409)
        except (JournalFull, JournalUnusable) as error:
            return self._wrong(request, error, 503)
        except web.HTTPError as error:  # the router's, and of a body that is too large
            words = _WORDS.get(error.status, error.reason)
            response = self._wrong(request, BridgeError(words), error.status)
            if "Allow" in error.headers:
                response.headers["Allow"] = error.headers["Allow"]
            return response

    async def _let_in(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        resource = request.match_info.route.resource
        route = self._routes.get((request.match_info.route.method, resource.canonical if resource else ""))
        if route is not None and route.open:
            return await handler(request)
        person, by_cookie = await self._who(request)
        request[PERSON] = person
        if route is None:  # only who may come in hears what there is
            return await handler(request)
        if any("\0" in text for text in (request.path, *request.query.values())):
            raise NotHere("no name here holds a NUL")  # which PostgreSQL takes for a failure of its own
        if person.role not in route.roles or (not person.token and request.method not in _SAFE):
            self.refused(Unwelcome.ROLE)
            if not person.token:
                return self._stranger(request)
            return self._wrong(request, BridgeError(f"the role {person.role.value} may not do this"), 403)
        if by_cookie and request.method not in _SAFE and not self.own_page(request):
            self.refused(Unwelcome.ORIGIN)
            return self._wrong(request, BridgeError("this did not come from a page of this host"), 403)
        return await handler(request)

    async def _who(self, request: web.Request) -> tuple[Person, bool]:
        """The person, and whether a cookie said so. Raises `TokenRefused`."""
        given = request.headers.getall("Authorization", [])
        if given:
            if len(given) != 1 or not given[0].lower().startswith(_BEARER):
                raise TokenRefused(Unwelcome.MALFORMED)
            return await self._believer.person(Secret(given[0][len(_BEARER) :].strip())), False
        cookie = request.cookies.get(self.cookie(request), "")
        if cookie:
            return await self._believer.person(Secret(cookie)), True
        # A name that leads here by a stranger's name server is not ours: such a page could read what it gets.
        if self._without_token and _is_loopback(_asked_for(request)):
            return NOBODY, False
        raise TokenRefused(Unwelcome.MISSING)

    def refused(self, reason: Unwelcome) -> None:
        """Count it. Nothing else is kept of a stranger."""
        self.count(reason.value)

    def count(self, reason: str) -> None:
        """A request or a connection was refused for this one reason."""
        self._metrics.admin_refused.labels(reason).inc()

    def malformed(self) -> web.Response:
        """The answer to what is no HTTP request at all."""
        self.count("bad_http")
        response = told(BridgeError("this is no request of HTTP"), 400)
        response.headers.update(HEADERS)
        return response

    def _stranger(self, request: web.Request) -> web.StreamResponse:
        if _wants_a_page(request):
            return web.Response(status=303, headers={"Location": SIGN_IN})
        response = told(BridgeError("a token that counts here is needed"), 401)
        response.headers["WWW-Authenticate"] = "Bearer"
        return response

    def _wrong(self, request: web.Request, error: BridgeError, status: int) -> web.Response:
        """What is wrong, as a page for a browser and as JSON for a program."""
        if not _wants_a_page(request):
            return told(error, status)
        person = request.get(PERSON)
        return sign_in_page(str(error), status=status) if person is None else wrong_page(person, error, status)


async def _dressed(_: web.Request, response: web.StreamResponse) -> None:
    """Each answer has our headers, also those that the library makes."""
    response.headers.update({name: text for name, text in HEADERS.items() if name not in response.headers})
    response.headers["Server"] = HEADERS["Server"]


def _wants_a_page(request: web.Request) -> bool:
    """Whether a person looks at the answer: a browser that was led here, or sends a form."""
    return "text/html" in request.headers.get("Accept", "") and (
        request.method == "GET" or not request.path.startswith(API)
    )


def told(error: BridgeError, status: int) -> web.Response:
    """An error of ours as JSON."""
    body = {"error": str(error), "hint": error.hint} if error.hint else {"error": str(error)}
    return web.json_response(body, status=status)


def _asked_for(request: web.Request) -> str:
    """The name by which the caller came here, '' for what is none."""
    try:
        return request.url.host or ""
    except ValueError:
        return ""


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
