"""What the platform says, both ways: answers, status answers, returns; and our acknowledgement of a return."""

from collections.abc import Mapping
from typing import Any, Final

import orjson

from bridge.profile import MessageKind, ProfileSpec, ReturnResult, StatusWord
from bridge.wire.errors import CreatedCodec, ErrorCodec
from bridge.wire.message import MessageCodec
from bridge.wire.parts import Draft, Parts, finished, follow, plant, reader, writer
from bridge.wire.scalars import (
    TIME_READERS,
    TIME_WRITERS,
    read_integer,
    read_text,
    word_reader,
    word_writer,
)
from bridge.wire.values import (
    Acknowledgement,
    BatchReturn,
    CreateAnswer,
    ItemError,
    MessageMeta,
    Rendered,
    StatusAnswer,
    Unreadable,
)

_LONGEST_WORD: Final = 80


class Replies:
    """The platform's messages of one profile."""

    def __init__(self, spec: ProfileSpec, message: MessageCodec) -> None:
        self._spec = spec
        self._message = message
        self._errors = ErrorCodec(spec.errors, longest=spec.limits.error_text)
        self._created = CreatedCodec(spec.created)
        self._time_in, self._time_out = TIME_READERS[spec.message.time], TIME_WRITERS[spec.message.time]
        self._status_in, self._status_out = (
            word_reader(spec.status_answer.words),
            word_writer(spec.status_answer.words),
        )
        self._result_in, self._result_out = word_reader(spec.batch_return.words), word_writer(spec.batch_return.words)
        sections = {"answer": spec.answer, "status": spec.status_answer, "return": spec.batch_return}
        self._read = {name: _readers(section) for name, section in sections.items()}
        self._write = {name: _writers(section) for name, section in sections.items()}

    # the answer to a Create ------------------------------------------------------------------------------------------

    def read_answer(self, headers: Mapping[str, str], body: object, protected: Mapping[str, object]) -> CreateAnswer:
        """The immediate answer; never raises. Header names are lower case."""
        parts, read = Parts(headers, body, protected), self._read["answer"]
        transaction_id, problem = self._id(read["transaction_id"](parts))
        return CreateAnswer(
            transaction_id=transaction_id,
            status=read_text(read["status"](parts))[:_LONGEST_WORD],
            received_ns=self._time_in(read["received_at"](parts)),
            errors=self._errors.read(read["errors"](parts)),
            problem=problem,
        )

    def render_answer(self, answer: CreateAnswer) -> Rendered:
        """The immediate answer as the platform gives it."""
        draft, write = Draft(), self._write["answer"]
        write["transaction_id"](draft, answer.transaction_id or None)
        write["status"](draft, answer.status or None)
        write["received_at"](draft, self._time(answer.received_ns))
        write["errors"](draft, self._errors.write(answer.errors) if answer.errors else None)
        return finished(draft)

    def _id(self, found: object) -> tuple[str, str]:
        """A transaction id and '', or '' and why it cannot be used. It is opaque, so only its size and its letters are looked at."""
        transaction_id = read_text(found)
        if not transaction_id:
            return "", "the answer holds no transaction id"
        if len(transaction_id) > self._spec.limits.transaction_id:
            return "", "the transaction id is too long"
        if not transaction_id.isascii() or not transaction_id.isprintable() or transaction_id != transaction_id.strip():
            return "", "the transaction id holds letters that an id cannot hold"
        return transaction_id, ""

    # the answer to a status call -------------------------------------------------------------------------------------

    def read_status(self, headers: Mapping[str, str], body: object, protected: Mapping[str, object]) -> StatusAnswer:
        """A status answer; never raises. A word that the profile does not map is UNKNOWN and kept in `word`."""
        parts, read = Parts(headers, body, protected), self._read["status"]
        word = read["status"](parts)
        return StatusAnswer(
            status=self._status_in(word) or StatusWord.UNKNOWN,
            word=read_text(word)[:_LONGEST_WORD],
            transaction_id=read_text(read["transaction_id"](parts)),
            submitted_ns=self._time_in(read["submitted_at"](parts)),
            updated_ns=self._time_in(read["updated_at"](parts)),
            total=read_integer(read["total"](parts)),
            succeeded=read_integer(read["succeeded"](parts)),
            failed=read_integer(read["failed"](parts)),
            created=self._created.read(read["created"](parts)),
            errors=self._errors.read(read["errors"](parts)),
        )

    def render_status_answer(self, answer: StatusAnswer) -> Rendered:
        """A status answer as the platform gives it; `word` is used where `status` is UNKNOWN."""
        draft, write = Draft(), self._write["status"]
        unknown = answer.status is StatusWord.UNKNOWN and answer.word
        write["status"](draft, answer.word if unknown else self._status_out(answer.status))
        write["transaction_id"](draft, answer.transaction_id or None)
        write["submitted_at"](draft, self._time(answer.submitted_ns))
        write["updated_at"](draft, self._time(answer.updated_ns))
        for name in ("total", "succeeded", "failed"):
            write[name](draft, getattr(answer, name))
        write["created"](draft, self._created.write(answer.created) if answer.created else None)
        write["errors"](draft, self._errors.write(answer.errors) if answer.errors else None)
        return finished(draft)

    # a return --------------------------------------------------------------------------------------------------------

    def read_meta(
        self, headers: Mapping[str, str], body: object, protected: Mapping[str, object]
    ) -> MessageMeta | None:
        """The members of a pushed message, whatever its kind; None when it is no message at all."""
        if not isinstance(body, dict | list):
            return None
        return self._message.read(Parts(headers, body, protected), MessageKind.RETURN)

    def is_return(self, meta: MessageMeta) -> bool:
        """Whether a pushed message is a return by its type."""
        return meta.kind is MessageKind.RETURN

    def without_timestamp(self, body: object) -> object:
        """The body without the message's own timestamp, for comparing a message with its re-signed retry."""
        return self._message.without_timestamp(body)

    def read_return(self, headers: Mapping[str, str], body: object, protected: Mapping[str, object]) -> BatchReturn:
        """A return; an error list without a result word means ERRORS. Raises `Unreadable` when it is no object or names no transaction in any way."""
        parts, read = Parts(headers, body, protected), self._read["return"]
        meta = self.read_meta(headers, body, protected)
        if meta is None:
            raise Unreadable("the return is neither an object nor a list")
        word = read["result"](parts)
        errors = self._errors.read(read["errors"](parts))
        transaction_id, _ = self._id(read["transaction_id"](parts))
        in_reply_to = read_text(read["in_reply_to"](parts))
        if not (transaction_id or in_reply_to or meta.correlation_id):
            raise Unreadable("the return names no transaction, message or correlation id")
        return BatchReturn(
            meta=meta,
            transaction_id=transaction_id,
            operation=self._message.read_kind(read["transaction_type"](parts)),
            in_reply_to=in_reply_to,
            **self._result(word, errors),
            completed_ns=self._time_in(read["completed_at"](parts)),
            total=read_integer(read["total"](parts)),
            succeeded=read_integer(read["succeeded"](parts)),
            created=self._created.read(read["created"](parts)),
            errors=errors,
        )

    def _result(self, word: object, errors: tuple[ItemError, ...]) -> dict[str, Any]:
        result = self._result_in(word)
        if result is None and not read_text(word) and any(not error.warning for error in errors):
            result = ReturnResult.ERRORS
        return {"result": result, "unknown_word": "" if result else read_text(word)[:_LONGEST_WORD]}

    def render_return(self, answer: BatchReturn) -> Rendered:
        """A return as the platform pushes it."""
        draft, write = Draft(), self._write["return"]
        self._message.write(draft, MessageKind.RETURN, answer.meta)
        write["transaction_id"](draft, answer.transaction_id or None)
        write["transaction_type"](draft, self._message.kind_word(answer.operation))
        write["in_reply_to"](draft, answer.in_reply_to or None)
        word = answer.unknown_word or None
        write["result"](draft, word if answer.result is None else self._result_out(answer.result))
        write["completed_at"](draft, self._time(answer.completed_ns))
        write["total"](draft, answer.total)
        write["succeeded"](draft, answer.succeeded)
        write["created"](draft, self._created.write(answer.created) if answer.created else None)
        write["errors"](draft, self._errors.write(answer.errors) if answer.errors else None)
        return finished(draft)

    # our acknowledgement ---------------------------------------------------------------------------------------------

    def render_ack(self, message_id: str, received_ns: int, *, duplicate: bool) -> tuple[int, bytes]:
        """Status and body of our 2xx to a return; a duplicate gets the first receipt again."""
        ack, body = self._spec.ack, None
        values = (
            (ack.message_id, message_id),
            (ack.received_at, self._time_out(received_ns)),
            (ack.state, ack.state_word),
        )
        for path, value in values:
            if path is not None:
                body = plant(body, path, value)
        return ack.duplicate_status if duplicate else ack.status, orjson.dumps(body or {})

    def read_ack(self, body: bytes) -> Acknowledgement:
        """An acknowledgement; never raises."""
        ack = self._spec.ack
        try:
            content = orjson.loads(body)
        except orjson.JSONDecodeError:
            content = None
        found = [
            None if path is None else follow(content, path) for path in (ack.message_id, ack.received_at, ack.state)
        ]
        return Acknowledgement(
            message_id=read_text(found[0]), received_ns=self._time_in(found[1]), state=read_text(found[2])
        )

    def _time(self, wall_ns: int | None) -> str | int | None:
        return None if wall_ns is None else self._time_out(wall_ns)


def _readers(section: Any) -> dict[str, Any]:
    return {name: reader(places) for name, places in section if isinstance(places, tuple)}


def _writers(section: Any) -> dict[str, Any]:
    return {name: writer(places) for name, places in section if isinstance(places, tuple)}
