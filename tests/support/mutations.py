"""Messages made from valid ones by chance, from a seed: what a stranger without SMP's key may send, and what SMP itself might sign by mistake."""

import base64
import json
import random
from contextlib import suppress

from certificates import ROLES, Headed, b64, digest
from cryptography import x509
from end_point import Envelope

from bridge.envelope.base64url import decode, encode

WORDS = [
    b"", b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\r\n", b"null", b"{}", b"[]", b'""', b"-1", b"1e999", b"NaN", b"9" * 400, b"[" * 200,
    b'{"a":' * 40, b"\\ud800", b"../../dev/null", b"' OR 1=1 --", b"<script>", b"=cmd()", b"\x1b[2J", "\u202e".encode(), b"." * 9,
]  # fmt: skip
MEDIA = ["text/xml", "", "application/json; charset=utf-16", "multipart/form-data", "application/json;" * 50, "*/*"]
PATHS = [
    "/",
    "//",
    "/%2e%2e/",
    "/v1/returns",
    "/v1/returns/ACME-TEST",
    "/v1/returns/acme-test/",
    "/metrics",
    "/" + "a" * 4000,
]
METHODS = ["GET", "PUT", "TRACE", "OPTIONS", "DELETE", "PATCH", "HEAD", "X"]
HEADERS = [
    {"Content-Encoding": "gzip"}, {"Content-Encoding": "br"}, {"X-Y": "z" * 5000}, {"Expect": "200-maybe"}, {"Cookie": "a=b" * 400},
    {"X-Forwarded-For": "127.0.0.1"}, {"Range": "bytes=0-1"}, {"Upgrade": "h2c"}, {"Accept": "text/html"},
]  # fmt: skip
ALGS = ["none", "None", "HS256", "RS256", "PS256", "ES384", "EdDSA", "", None, 1, [], {"a": 1}, "ES256 "]
KIDS = ["", "smp-2", "../../dev/null", "x" * 10_000, "\x00", None, 1, ["smp-1"], "smp-1 ", "https://127.0.0.1/k"]
MEMBERS = ["jwk", "jku", "x5c", "x5u", "x5t", "crit", "b64", "typ", "cty", "zip", "enc"]


def bytes_changed(draw, data):
    """These bytes with one to three changes; never the same bytes."""
    found = data
    while found == data:
        for _ in range(draw.randint(1, 3)):
            found = _changed(draw, found)
    return found


def _changed(draw, data):
    place, end = sorted((draw.randint(0, len(data)), draw.randint(0, len(data))))
    how = draw.randrange(7)
    if how == 0 and data:
        place = draw.randrange(len(data))
        return data[:place] + bytes([data[place] ^ (1 << draw.randrange(8))]) + data[place + 1 :]
    if how == 1:
        return data[:place] + data[end:]
    if how == 2:
        return data[:place] + draw.choice(WORDS) + data[place:]
    if how == 3:
        return data[:place] + draw.choice(WORDS) + data[end:]
    if how == 4:
        return data[:end] + data[place:end] * draw.randint(1, 3) + data[end:]
    if how == 5:
        return data[:place]
    return data[:place] + draw.randbytes(draw.randint(1, 8)) + data[end:]


def _text_changed(draw, text):
    """A text that fits into a header, or into JSON."""
    return bytes_changed(draw, text.encode()).decode("latin-1").translate(dict.fromkeys([*range(32), 127], "~"))


class Forger:
    """Draws messages that were never signed by SMP's key as they are. `fresh` would settle a submission of ours, `known` was taken already."""

    def __init__(self, draw, smp, fresh, known, stranger):
        self._draw, self._smp, self._fresh, self._known, self._stranger = draw, smp, fresh, known, stranger

    def __call__(self):
        """Body, values of the signature header, and how it is sent."""
        if self._draw.random() < 0.15:  # whole and good, but known, and sent in an odd way: it may be answered 200
            body, tokens = self._known.sent()
            return body, tokens, self._way()
        body, tokens = self._signed_part()
        return body, tokens, self._way() if self._draw.random() < 0.1 else {}

    def _signed_part(self):
        draw, fresh = self._draw, self._fresh
        how = draw.randrange(7)
        if how == 0:
            return fresh.but(payload=bytes_changed(draw, fresh.payload)).sent()
        if how == 1:
            return self._unless_same(fresh.but(tail=_text_changed(draw, fresh.tail)))
        if how == 2:
            return fresh.but(head=encode(bytes_changed(draw, decode(fresh.head)))).sent()
        if how == 3:
            return fresh.but(head=encode(json.dumps(self._header()).encode())).sent()
        if how == 4:
            return self._smp.seal(self._smp.draft(), self._stranger).sent()
        if how == 5:
            return fresh.but(tail=self._known.tail).sent()
        return self._whole()

    def _whole(self):
        """The message as it travels, changed anywhere."""
        body, tokens = self._fresh.sent()
        if tokens and self._draw.random() < 0.5:
            changed = _text_changed(self._draw, tokens[0]).strip()
            return body, [changed, *tokens] if self._draw.random() < 0.2 or changed == tokens[0] else [changed]
        changed = bytes_changed(self._draw, body)
        return (b"", tokens) if _says_the_same(changed, body) else (changed, tokens)

    def _unless_same(self, envelope: Envelope):
        return self._whole() if envelope == self._fresh else envelope.sent()

    def _header(self):
        draw = self._draw
        header = dict(self._fresh.header)
        how = draw.randrange(3)
        if how == 0:
            header["alg"] = draw.choice(ALGS)
        elif how == 1:
            header["kid"] = draw.choice(KIDS)
        else:
            header[draw.choice(MEMBERS)] = draw.choice([None, True, [], ["exp"], {}, "x", 0])
        return header

    def _way(self):
        draw = self._draw
        how = draw.randrange(4)
        if how == 0:
            return {"headers": {"Content-Type": draw.choice(MEDIA)}}
        if how == 1:
            return {"path": draw.choice(PATHS)}
        return {"method": draw.choice(METHODS)} if how == 2 else {"headers": draw.choice(HEADERS)}


DATES = [
    "2026-11-23T10:00:00Z",
    "2026-13-01T00:00:00.000Z",
    "9999-12-31T23:59:59.999Z",
    "0001-01-01T00:00:00.000Z",
    "1795000000",
    "",
]


class HeadedForger(Forger):
    """The same for messages that are signed in headers, with a certificate beside them."""

    def _signed_part(self):
        draw, fresh = self._draw, self._fresh
        how = draw.randrange(8)
        if how == 0:
            return fresh.but(body=bytes_changed(draw, fresh.body)).sent()
        if how == 1:
            body = bytes_changed(draw, fresh.body)
            return fresh.but(body=body, digest=digest(body)).sent()
        if how == 2:
            return fresh.but(signature=self._known.value("signature")).sent()
        if how == 3:
            draft = self._smp.draft()
            made = Headed.made(fresh.names, draft.payload, self._stranger, at_ns=self._smp.clock.at_ns)
            return (made if draw.random() < 0.5 else made.but(certificate=fresh.value("certificate"))).sent()
        role = draw.choice(ROLES)
        value = fresh.value(role)
        if how == 4:
            return fresh.but(
                **{role: draw.choice([None, "", [value, value], [value, "x"], (value * 20)[:20_000]])}
            ).sent()
        if how == 5:
            return self._other(role, _text_changed(draw, value).strip())
        if how == 6:
            return fresh.but(date=draw.choice(DATES)).sent()
        return self._other("certificate", b64(bytes_changed(draw, base64.b64decode(fresh.value("certificate")))))

    def _other(self, role, value):
        """With another value there, unless it says what it said: blanks around a PEM text are under no signature."""
        same = value == self._fresh.value(role)
        if role == "certificate" and not same:
            with suppress(ValueError):
                found = x509.load_pem_x509_certificate(base64.b64decode(value))
                same = found == x509.load_pem_x509_certificate(base64.b64decode(self._fresh.value(role)))
        return self._fresh.but(**{role: None if same else value}).sent()


def _says_the_same(changed, body):
    """Blanks around and inside a JWS in JSON are under no signature."""
    try:
        return json.loads(changed) == json.loads(body)
    except ValueError:
        return changed.strip() == body.strip()


def generator(seed):
    """What everything is drawn from."""
    return random.Random(seed)
