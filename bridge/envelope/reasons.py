"""Why a message was refused: one reason each, for our own counters and logs only."""

import enum

from bridge.errors import BridgeError


class Refusal(enum.Enum):
    """The one reason; its value is stable text."""

    NO_SIGNATURE = "no_signature"
    TWO_SIGNATURES = "two_signatures"
    TOO_LARGE = "too_large"
    MALFORMED = "malformed"
    BASE64URL = "base64url"
    HEADER_NOT_JSON = "header_not_json"
    DUPLICATE_MEMBER = "duplicate_member"
    EXTRA_MEMBER = "extra_member"
    ALG_MISSING = "alg_missing"
    ALG_NOT_ALLOWED = "alg_not_allowed"
    ALG_MISMATCH = "alg_mismatch"
    KID_MISSING = "kid_missing"
    KID_MALFORMED = "kid_malformed"
    KID_UNKNOWN = "kid_unknown"
    EMBEDDED_KEY = "embedded_key"
    CRIT = "crit"
    B64 = "b64"
    KEY_USE = "key_use"
    SIGNATURE_LENGTH = "signature_length"
    PAYLOAD_MISSING = "payload_missing"
    PAYLOAD_PRESENT = "payload_present"
    BAD_SIGNATURE = "bad_signature"
    KEY_REVOKED = "key_revoked"
    KEY_RETIRED = "key_retired"
    KEY_EXPIRED = "key_expired"
    HEADER_MISSING = "header_missing"
    HEADER_TWICE = "header_twice"
    BASE64 = "base64"
    DATE_MALFORMED = "date_malformed"
    CONTENT_HASH = "content_hash"
    CERTIFICATE_MALFORMED = "certificate_malformed"
    CERTIFICATE_UNKNOWN = "certificate_unknown"
    CERTIFICATE_KEY = "certificate_key"
    CERTIFICATE_USE = "certificate_use"
    CERTIFICATE_NOT_CHAINED = "certificate_not_chained"
    CERTIFICATE_NOT_YET_VALID = "certificate_not_yet_valid"
    CERTIFICATE_EXPIRED = "certificate_expired"


class SignatureRefused(BridgeError):
    """The message is not authentic; the sender learns only that (DOMAIN 9).

    `kid` names the key where the signature is good and the key may not be used any more: somebody holds its private half.
    """

    def __init__(self, reason: Refusal, *, kid: str = "") -> None:
        super().__init__(reason.value)
        self.reason = reason
        self.kid = kid
