"""What no single model can see: placeholders that do not fit each other, topics outside `writable:`, messages that would be read as another kind. Pure."""

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from adapters.mqtt.config import MessageSubmit, MqttOptions, MqttOutcome, MqttRecords, MqttWord
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
        found += _outcome(options, selection, heard)
    if options.status_topic is not None:
        status = template(options.status_topic)
        found += [
            Problem(path="adapter.status_topic", text=f"is also a {other.what} of the flow {other.flow}; name another")
            for other in heard
            if other.topic.overlaps(status)
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
        yield _Heard(selection.flow, "registration", template(selection.records.each))
        if isinstance(selection.submit, MessageSubmit):
            yield _Heard(selection.flow, "request", template(selection.submit.topic))


def _records(selection: Selection) -> Iterator[Problem]:
    records, path = selection.records, f"flows.{selection.flow}.records"
    assert isinstance(records, MqttRecords)
    names = template(records.each).names
    for name, source in records.fields.items():
        if source.startswith("$") and source[1:] not in names:
            known = ", ".join(f"${each}" for each in names)
            yield Problem(path=f"{path}.fields.{name}", text=f"{source} is no placeholder of `each`; known are {known}")


def _submit(selection: Selection, heard: Sequence[_Heard]) -> Iterator[Problem]:
    submit, path = selection.submit, f"flows.{selection.flow}.submit.topic"
    if not isinstance(submit, MessageSubmit):
        return
    topic, each = template(submit.topic), template(selection.records.each)
    if set(topic.names) != set(each.names):
        yield Problem(path=path, text=f"must have the placeholders of `each`: {_braced(each.names)}")
    for other in heard:
        if other.what == "registration" and other.topic.overlaps(topic):
            text = f"could be a registration of the flow {other.flow} ({other.topic.text}); requests need topics of their own"
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


def _braced(names: Sequence[str]) -> str:
    return ", ".join(f"{{{name}}}" for name in names)
