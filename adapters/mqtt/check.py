"""What no single model can see: placeholders that do not fit each other, topics outside `writable:`, messages that would be read as another kind. Pure."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

from adapters.mqtt.config import Format, MessageSubmit, MqttOptions, MqttOutcome, MqttRecords, MqttWord, Version
from adapters.mqtt.payload import Source
from adapters.mqtt.topics import Template, pattern, template
from bridge.api import OutcomeField, Problem, Selection

_REQUEST: Final = OutcomeField.REQUEST.value


class _Heard(NamedTuple):
    """A topic that is subscribed to."""

    flow: str
    what: str
    topic: Template


def check(options: Any, selections: Sequence[Selection]) -> Sequence[Problem]:
    """Every problem of one connection's flows, laid side by side."""
    assert isinstance(options, MqttOptions)
    found: list[Problem] = []
    heard = list(_heard(selections))
    for selection in selections:
        found += _records(selection)
        found += _submit(selection, heard)
        found += _share(options, selection, selections)
        found += _outcome(options, selection, heard)
    found += _mixed(selections)
    if options.status_topic is not None:
        status = template(options.status_topic)
        taken = [(f"a {other.what}", other.flow, other.topic) for other in heard]
        taken += [("an outcome", one.flow, template(one.outcome.topic)) for one in selections]
        found += [
            Problem(path="adapter.status_topic", text=f"is also {what} of the flow {flow}; name another")
            for what, flow, topic in taken
            if topic.overlaps(status)
        ]
    return found


def check_word(options: Any, selections: Sequence[Selection], word: Any) -> Sequence[Problem]:
    """The topic of the alarm word is writable, and nobody else's."""
    assert isinstance(options, MqttOptions)
    assert isinstance(word, MqttWord)
    topic, path = template(word.topic), "alarms.word.topic"
    found = []
    if not options.may_write(word.topic):
        text = f'is outside `writable:` of its adapter; add "{word.topic}" there, or name another topic'
        found.append(Problem(path=path, text=text))
    taken = [(f"a {other.what} of the flow {other.flow}", other.topic) for other in _heard(selections)]
    taken += [(f"an outcome of the flow {one.flow}", template(one.outcome.topic)) for one in selections]
    if options.status_topic is not None:
        taken.append(("the `status_topic`", template(options.status_topic)))
    found += [
        Problem(path=path, text=f"could be {what} ({other.text}); give the word a topic of its own")
        for what, other in taken
        if other.overlaps(topic)
    ]
    return found


def _heard(selections: Sequence[Selection]) -> Iterator[_Heard]:
    for selection in selections:
        for topic in _told(selection.records):
            yield _Heard(selection.flow, "registration", topic)
        if isinstance(selection.submit, MessageSubmit):
            yield _Heard(selection.flow, "request", template(selection.submit.topic))


def _told(records: MqttRecords, but: Sequence[str] = ()) -> Iterator[Template]:
    """The topics of a flow's registrations, without those of the fields `but`; what is no topic is told elsewhere."""
    if records.format is not Format.PLAIN:
        yield template(records.each)
        return
    for name, text in records.fields.items():
        with suppress(ValueError):
            if not text.startswith("$") and name not in but:
                yield template(f"{records.each}/{text}")


def _records(selection: Selection) -> Iterator[Problem]:
    records, path = selection.records, f"flows.{selection.flow}.records"
    assert isinstance(records, MqttRecords)
    names = template(records.each).names
    for name, source in records.fields.items():
        if source.startswith("$") and source[1:] not in names:
            known = ", ".join(f"${each}" for each in names)
            yield Problem(path=f"{path}.fields.{name}", text=f"{source} is no placeholder of `each`; known are {known}")
        elif not source.startswith("$"):
            text = _source(source, records)
            if text:
                yield Problem(path=f"{path}.fields.{name}", text=text)
    if records.format is Format.PLAIN:
        yield from _plain(records, path)
    elif records.optional:
        text = "belongs to `format: plain`; of other formats a value that is missing is absent"
        yield Problem(path=f"{path}.optional", text=text)


def _plain(records: MqttRecords, path: str) -> Iterator[Problem]:
    for name in records.optional:
        if records.fields.get(name, "$").startswith("$"):
            known = ", ".join(field for field, source in records.fields.items() if not source.startswith("$"))
            yield Problem(
                path=f"{path}.optional", text=f"{name} is no field with a topic of its own; known are {known}"
            )
    own = {name for name, source in records.fields.items() if not source.startswith("$")}
    if own <= set(records.optional):
        text = "at least one field must have a topic that is not in `optional`: without one nothing says that a record is there"
        yield Problem(path=f"{path}.fields", text=text)


def _source(text: str, written: MqttRecords | MessageSubmit) -> str:
    """What is wrong with the spelling of where a value is; '' for nothing."""
    try:
        if written.format is Format.PLAIN:
            if template(text).names:
                return "must be a topic below `each`, without placeholders"
        elif written.format is Format.JSON:
            Source.of(text)
        elif written.csv is not None and written.csv.columns is not None and text not in written.csv.columns:
            return f"{text} is none of `csv.columns`; known are {', '.join(written.csv.columns)}"
    except ValueError as error:
        return str(error)
    return ""


def _submit(selection: Selection, heard: Sequence[_Heard]) -> Iterator[Problem]:
    submit, path = selection.submit, f"flows.{selection.flow}.submit"
    if not isinstance(submit, MessageSubmit):
        return
    topic, each = template(submit.topic), template(selection.records.each)
    if set(topic.names) != set(each.names):
        yield Problem(path=f"{path}.topic", text=f"must have the placeholders of `each`: {_braced(each.names)}")
    for other in heard:
        if other.what == "registration" and other.topic.overlaps(topic):
            text = f"could be a registration of the flow {other.flow} ({other.topic.text}); requests need topics of their own"
            yield Problem(path=f"{path}.topic", text=text)
    yield from _asked(submit, path)


def _asked(submit: MessageSubmit, path: str) -> Iterator[Problem]:
    """What a request holds."""
    if submit.format is Format.PLAIN:
        if submit.id is not None or submit.where:
            what = "id" if submit.id is not None else "where"
            yield Problem(
                path=f"{path}.{what}", text="must not stand here: of `format: plain` the whole payload is the id"
            )
        return
    if submit.id is None:
        yield Problem(path=f"{path}.id", text="must say where the request's id is, such as `id: reqId`")
    for what, source in (("id", submit.id), *((f"where.{name}", name) for name in submit.where)):
        text = _source(source, submit) if source is not None else ""
        if text:
            yield Problem(path=f"{path}.{what}", text=text)
    for name, wanted in submit.where.items():
        if submit.format is Format.CSV and wanted is not None and not isinstance(wanted, str):
            text = f'must be text in quotes, such as "{wanted}": every cell of CSV is text'
            yield Problem(path=f"{path}.where.{name}", text=text)


def _share(options: MqttOptions, selection: Selection, selections: Sequence[Selection]) -> Iterator[Problem]:
    """A shared subscription is one that the broker knows, and all flows that hear a request hear it once."""
    submit, path = selection.submit, f"flows.{selection.flow}.submit.share"
    if not isinstance(submit, MessageSubmit) or submit.share is None:
        return
    if options.version is not Version.V5:
        yield Problem(path=path, text='belongs to MQTT 5; set `version: "5"` of the adapter, or leave it out')
    for other in selections:
        differs = isinstance(other.submit, MessageSubmit) and other.submit.share != submit.share
        if differs and template(other.submit.topic).overlaps(template(submit.topic)):
            text = (
                f"must be the same as of the flow {other.flow}, which hears the same topic: a request would come twice"
            )
            yield Problem(path=path, text=text)


def _outcome(options: MqttOptions, selection: Selection, heard: Sequence[_Heard]) -> Iterator[Problem]:
    outcome, path = selection.outcome, f"flows.{selection.flow}.outcome"
    assert isinstance(outcome, MqttOutcome)
    topic, names = template(outcome.topic), template(selection.records.each).names
    strange = [name for name in topic.names if name not in names]
    if strange:
        text = f"{_braced(strange)} is no placeholder of `each`; known are {_braced(names)}"
        yield Problem(path=f"{path}.topic", text=text)
    missing = [name for name in names if name not in topic.names]
    asked = isinstance(selection.submit, MessageSubmit) and _REQUEST in outcome.payload.values()
    if missing and not asked:
        text = f"lacks {_braced(missing)}, so nobody could tell whose outcome it is; add it to the topic"
        yield Problem(path=f"{path}.topic", text=text)
    if _REQUEST in outcome.payload.values() and not isinstance(selection.submit, MessageSubmit):
        yield Problem(path=f"{path}.payload", text=f"{_REQUEST} belongs to `when: message`; nobody requests here")
    if not any(pattern(text).covers(topic) for text in options.writable):
        yield Problem(
            path=f"{path}.topic",
            text=f'is outside `writable:` of its adapter; add "{topic.filter}" there, or name another topic',
        )
    for other in heard:
        if other.topic.overlaps(topic):
            text = f"could be a {other.what} of the flow {other.flow} ({other.topic.text}); the host would hear itself"
            yield Problem(path=f"{path}.topic", text=text)


def _mixed(selections: Sequence[Selection]) -> Iterator[Problem]:
    """Two flows with the same records that publish on one topic: nobody could tell which of them an outcome is of, and a retained one hides the other's."""
    for number, selection in enumerate(selections):
        for other in selections[:number]:
            topics = template(selection.outcome.topic), template(other.outcome.topic)
            same = _holds(selection.records, other.records) or _holds(other.records, selection.records)
            if same and topics[0].overlaps(topics[1]) and not _apart(selection, other):
                text = f"could be an outcome of the flow {other.flow} ({topics[1].text}), which has the same records; give each flow a topic of its own"
                yield Problem(path=f"flows.{selection.flow}.outcome.topic", text=text)


def _holds(one: MqttRecords, other: MqttRecords) -> bool:
    """Whether what makes a record of the one may make one of the other, too: all that the other's needs is heard for the one."""
    heard = list(_told(one))
    return all(any(topic.overlaps(each) for each in heard) for topic in _told(other, but=other.optional))


def _apart(one: Selection, other: Selection) -> bool:
    """Whether their outcomes carry request ids, and no request is one of both."""
    if not all(
        isinstance(each.submit, MessageSubmit) and _REQUEST in each.outcome.payload.values() for each in (one, other)
    ):
        return False
    return one.submit.where != other.submit.where or not template(one.submit.topic).overlaps(
        template(other.submit.topic)
    )


def _braced(names: Sequence[str]) -> str:
    return ", ".join(f"{{{name}}}" for name in names)
