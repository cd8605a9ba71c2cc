"""What a profile's words can mean: the semantic side of every map from a peer's words to ours."""

import enum


class MessageKind(enum.Enum):
    """What a message is. The first three are ours to send; a return and an acknowledgement go the other way."""

    ASSET_CREATE = "asset.create"
    UNIT_CREATE = "unit.create"
    STATUS = "transaction.status"
    RETURN = "batch.return"
    ACK = "ack"


class StatusWord(enum.Enum):
    """What the status of a transaction means. UNKNOWN stands for a word that the profile does not map."""

    RECEIVED = "RECEIVED"
    QUEUED = "QUEUED"
    PROCESSING = "PROCESSING"
    COMPLETED = "COMPLETED"
    COMPLETED_WITH_ERRORS = "COMPLETED_WITH_ERRORS"
    REJECTED = "REJECTED"
    FAILED = "FAILED"
    NOT_FOUND = "NOT_FOUND"
    UNKNOWN = "UNKNOWN"

    @property
    def done(self) -> bool:
        """Whether the transaction has come to its result."""
        return self in {
            StatusWord.COMPLETED,
            StatusWord.COMPLETED_WITH_ERRORS,
            StatusWord.REJECTED,
            StatusWord.FAILED,
        }


class ReturnResult(enum.Enum):
    """The word of a batch return. REJECTED: nothing of it was registered."""

    SUCCESS = "SUCCESS"
    ERRORS = "ERRORS"
    REJECTED = "REJECTED"


class ErrorSeverity(enum.Enum):
    """Whether an entry of an error list refuses its item."""

    ERROR = "ERROR"
    WARNING = "WARNING"


class TimeForm(enum.Enum):
    """How an instant is written: UTC text with milliseconds and Z, the same with +00:00, or milliseconds since 1970 as a number."""

    ISO_MS_Z = "iso_ms_z"
    ISO_MS_OFFSET = "iso_ms_offset"
    EPOCH_MS = "epoch_ms"


class WireType(enum.Enum):
    """How a field of a record is written; `decimal_text` is an exact number inside a string."""

    TEXT = "text"
    INTEGER = "integer"
    NUMBER = "number"
    DECIMAL_TEXT = "decimal_text"
    BOOLEAN = "boolean"
    INSTANT = "instant"
    LIST = "list"


class SignatureForm(enum.Enum):
    """How a message is signed: a JWS in a header beside the exact body, a JWS around it, or plain headers that carry the signer's certificate too."""

    JWS_DETACHED = "jws-detached"
    JWS_FLATTENED = "jws-flattened"
    JWS_COMPACT = "jws-compact"
    DIP_HEADERS = "dip-headers"

    @property
    def certified(self) -> bool:
        """Whether a certificate beside the message says whose key signed it; else it names a key by its `kid`."""
        return self is SignatureForm.DIP_HEADERS


class CertificateForm(enum.Enum):
    """What stands in the certificate's header, in base64: the text of a PEM file, or the bytes (DER)."""

    PEM = "pem"
    DER = "der"


class AnswersSigned(enum.Enum):
    """Whether SMP's answers to our calls must be signed."""

    REQUIRED = "required"
    IF_PRESENT = "if_present"
    NO = "no"


class FreshnessMode(enum.Enum):
    """How the timestamp of an inbound message is judged: of the event (retries may be old), of the attempt, or not at all."""

    EVENT = "event"
    ATTEMPT = "attempt"
    OFF = "off"


class Returns(enum.Enum):
    """How results come: pushed to our end point, asked for, or both."""

    PUSH = "push"
    POLL = "poll"
    BOTH = "both"


class AlignBy(enum.Enum):
    """How a unit names its assets: by our reference, or by the id that SMP gave."""

    REFERENCE = "reference"
    ID = "id"


class Semantics(enum.Enum):
    """Whether a list of errors says something of the items it does not name."""

    ATOMIC = "atomic"
    PARTIAL = "partial"
    UNKNOWN = "unknown"


class AnswerWord(enum.Enum):
    """What an answer lets us do (DOMAIN 5)."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    OUR_FAULT = "our_fault"
    RETRY = "retry"
    UNAUTHORISED = "unauthorised"
    IN_DOUBT = "in_doubt"


class Shape(enum.Enum):
    """How entries stand together: a list, or a map whose keys are the references."""

    LIST = "list"
    MAP = "map"
