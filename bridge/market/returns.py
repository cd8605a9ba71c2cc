"""What a pushed message must be before it is stored: signed by SMP's key over its raw bytes, well formed, for us, in time. No I/O."""

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import Final

import orjson

from bridge.clock import Stamp
from bridge.envelope import PublicKey, Signer, Verified, certified, gate, parse_strict, sign, verify
from bridge.envelope.certified import Agreed
from bridge.envelope.keys import blocks
from bridge.errors import BridgeError
from bridge.journal.port import ReturnMessage
from bridge.market.calls import Identity
from bridge.market.echoes import Echoes
from bridge.market.flood import Flood
from bridge.profile import FreshnessMode, Profile
from bridge.profile.model import Freshness as FreshnessRule
from bridge.wire import BatchReturn, MessageMeta, Unreadable, Wire

MOST_ID: Final = 400  # characters; an index of PostgreSQL takes no key of more than about 2,700 bytes


class Freshness(enum.Enum):
    """How old a return's own timestamp is."""

    FRESH = "fresh"
    LATE = "late"


class MessageRefused(BridgeError):
    """A validly signed message that is not for us or not fresh; `status` is what the sender gets, `reason` stays here."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A message that may be stored."""

    message: ReturnMessage
    freshness: Freshness


class ReturnReader:
    """Reads what is pushed to one participant's URL."""

    def __init__(
        self, *, identity: Identity, profile: Profile, keys: Mapping[str, PublicKey], signer: Signer | None = None,
        agreed: Agreed | None = None, return_url: str = "", echoes: Echoes | None = None,
    ) -> None:  # fmt: skip
        """Where the profile has messages carry a certificate, `agreed` says which ones are taken, and `return_url` is the address that SMP signs. `echoes` are the secrets that a message must not carry on into what is shown of it."""
        self._echoes = echoes or Echoes()
        self._identity = identity
        self._profile = profile
        self._wire = Wire(profile)
        self._keys = keys
        self._signer = signer if profile.spec.signature.sign_acks else None
        self._agreed = agreed
        self._target = certified.Target("POST", return_url)
        self.signature_headers = profile.signature_headers
        self.content_types = profile.return_content_types
        self.max_body_bytes = profile.limits.max_answer_bytes
        self.path = profile.return_path.replace("{participant}", identity.participant)

    def read(
        self,
        body: bytes,
        tokens: Sequence[Sequence[str]],
        headers: Mapping[str, str],
        received: Stamp,
        *,
        flood: Flood,
        source: str,
    ) -> Received:
        """Check one message of this source and say what to store. `tokens` are all values of each of the `signature_headers`.

        Raises `SignatureRefused` (401), `Flooded` (429), `BodyRefused` (400) or `MessageRefused` (its own status); header names are lower case.
        """
        verified = self._verified(body, tokens, received, partial(flood.charge, source))
        flood.refund(source)
        content = parse_strict(verified.payload)
        meta = self._wire.read_meta(headers, content, verified.protected)
        if meta is None or not meta.message_id:
            raise MessageRefused(400, "no_message_id")
        if len(meta.message_id) > MOST_ID:
            raise MessageRefused(400, "message_id_too_long")
        for check in RECIPIENT_CHECKS:
            check(meta, self._identity)
        freshness = self._fresh([meta.timestamp_ns, *self._signed(verified)], received)
        # The id and the meaning tell repeats apart, also after a restart: they are taken as they came.
        parts = (
            self._echoes.among(headers),
            self._echoes.without(content, verified.payload),
            self._echoes.among(verified.protected),
        )
        said = self._wire.read_meta(*parts) or meta
        unknown = self._unknown(said)
        read = None if unknown else self._read(*parts)
        message = ReturnMessage(
            participant=self._identity.participant,
            message_id=meta.message_id,
            transaction_id=(read.transaction_id or "") if read else "",
            correlation_id=(_ours(read.in_reply_to) if read else "") or _ours(said.correlation_id),
            content=self._meaning(content, meta),
            body=body,
            headers=headers,
            kid=verified.kid,
            late=freshness is Freshness.LATE,
            received=received,
            quarantined="" if read else (unknown or "it names no transaction, message or correlation id"),
            checks=self._checks(),
        )
        return Received(message=message, freshness=freshness)

    def _checks(self) -> str:
        """The names of the checks that a message has passed which is read to here, in their order."""
        signed: tuple[Sequence[Callable[..., None]], ...] = (
            (gate.HEADER_CHECKS, gate.KEY_CHECKS, gate.SIGNATURE_CHECKS)
            if self._agreed is None
            else (certified.CERTIFICATE_CHECKS, certified.PROOF_CHECKS)
        )
        times = () if self._profile.freshness.mode is FreshnessMode.OFF else TIME_CHECKS
        passed = ["form", *_names(*signed), "json", "message_id", *_names(RECIPIENT_CHECKS, times)]
        return " ".join(passed)

    def _verified(
        self, body: bytes, tokens: Sequence[Sequence[str]], received: Stamp, charge: Callable[[], None]
    ) -> Verified:
        if self._agreed is None:
            return verify(self._profile.signature_form, body, tokens[0], self._keys, charge)
        return certified.verify(
            self._target, body, certified.Fields(*tokens), agreed=self._agreed, keys=self._keys,
            now_ns=received.wall_ns, charge=charge,
        )  # fmt: skip

    @staticmethod
    def _signed(verified: Verified) -> list[int]:
        """When it was signed, where its form of signature says so: a time like the message's own."""
        return [] if verified.signed_ns is None else [verified.signed_ns]

    def _unknown(self, meta: MessageMeta) -> str:
        """Why a message cannot be read as a return: another kind, or another schema than the profile's ('' where it can)."""
        if not self._wire.is_return(meta):
            return f"not a return that the profile knows: {_shown(meta.operation) or 'no type'}"
        known = str(self._profile.spec.message.version)
        if meta.schema_version not in {"", known}:
            return f"schema {_shown(meta.schema_version)} is not the profile's {known}"
        return ""

    def _read(self, headers: Mapping[str, str], content: object, protected: Mapping[str, object]) -> BatchReturn | None:
        try:
            return self._wire.read_return(headers, content, protected)
        except Unreadable:
            return None

    def _fresh(self, times: Sequence[int | None], received: Stamp) -> Freshness:
        """DESIGN, "freshness": `event` takes what the replay store still covers and flags it late; `attempt` takes the window both ways."""
        freshness = self._profile.freshness
        if freshness.mode is FreshnessMode.OFF:
            return Freshness.FRESH
        for at_ns in times:
            for check in TIME_CHECKS:
                check(at_ns, received, freshness)
        window_ns = int(freshness.window_s * 1e9)
        late = any(at_ns is not None and received.wall_ns - at_ns > window_ns for at_ns in times)
        return Freshness.LATE if late else Freshness.FRESH

    def _meaning(self, content: object, meta: MessageMeta) -> bytes:
        """A digest of the message without its own timestamp: a re-signed retry is the same message (DOMAIN 9 row 17)."""
        bare = self._wire.without_timestamp(content)
        ids = [meta.message_id, meta.operation, meta.sender, meta.recipient, meta.environment, meta.correlation_id]
        return sha256(orjson.dumps([bare, ids], option=orjson.OPT_SORT_KEYS)).digest()

    @property
    def blocks(self) -> bool:
        """Whether a receipt may take milliseconds to sign."""
        return self._signer is not None and blocks(self._signer)

    @property
    def participant(self) -> str:
        """Whose URL this is."""
        return self._identity.participant

    def receipt(
        self, message_id: str, received_ns: int, *, duplicate: bool, quarantined: bool = False
    ) -> tuple[int, bytes, dict[str, str]]:
        """What tells SMP that we have it: status, body and headers, signed where the profile has `sign_acks`.

        Raises `RetryLater` while what signs is away.
        """
        status, body = self._wire.render_ack(message_id, received_ns, duplicate=duplicate)
        if quarantined and not duplicate and self._profile.spec.ack.quarantine_status == 422:
            status = 422  # the profile tells SMP that we do not know this kind of message; it is stored all the same
        headers = {"Content-Type": self._profile.ack_content_type}
        if self._signer is None:
            return status, body, headers
        signed = sign(self._profile.signature_form, body, self._signer, {})
        if signed.token is not None:
            headers[self._profile.signature_header] = signed.token
        return status, signed.body, headers


def _names(*lists: Sequence[Callable[..., None]]) -> list[str]:
    return [check.__name__.removeprefix("_check_") for checks in lists for check in checks]


def _check_recipient(meta: MessageMeta, mine: Identity) -> None:
    if meta.recipient != mine.sender:
        raise MessageRefused(403, "wrong_recipient")


def _check_sender(meta: MessageMeta, mine: Identity) -> None:
    if meta.sender != mine.recipient:
        raise MessageRefused(403, "wrong_sender")


def _check_environment(meta: MessageMeta, mine: Identity) -> None:
    if meta.environment != mine.environment:
        raise MessageRefused(403, "wrong_environment")


# The signed sender, recipient and environment are those of this participant entry (DOMAIN 9 row 12).
RECIPIENT_CHECKS: Final[Sequence[Callable[[MessageMeta, Identity], None]]] = (
    _check_recipient,
    _check_sender,
    _check_environment,
)


def _check_timestamp(at_ns: int | None, received: Stamp, freshness: FreshnessRule) -> None:
    del received, freshness
    if at_ns is None:
        raise MessageRefused(401, "no_timestamp")


def _check_future(at_ns: int | None, received: Stamp, freshness: FreshnessRule) -> None:
    if at_ns is not None and at_ns - received.wall_ns > int(freshness.window_s * 1e9):
        raise MessageRefused(401, "from_the_future")


def _check_age(at_ns: int | None, received: Stamp, freshness: FreshnessRule) -> None:
    if at_ns is None:
        return
    most_s = freshness.window_s if freshness.mode is FreshnessMode.ATTEMPT else freshness.past_s
    if received.wall_ns - at_ns > max(most_s, freshness.window_s) * 1e9:
        raise MessageRefused(401, "too_old")


# DOMAIN 9 rows 14 and 16, in this order, for each time that a message names.
TIME_CHECKS: Final[Sequence[Callable[[int | None, Stamp, FreshnessRule], None]]] = (
    _check_timestamp,
    _check_future,
    _check_age,
)


def _shown(word: str) -> str:
    """A peer's word on one short line."""
    return "".join(letter if letter.isprintable() else "?" for letter in word[:80])


def _ours(id_: str) -> str:
    """An id that SMP echoes, '' where it cannot be one of ours."""
    return id_ if len(id_) <= MOST_ID else ""
