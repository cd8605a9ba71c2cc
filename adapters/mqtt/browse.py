"""What a broker has: topics, as far as they are heard while we listen. Publishes nothing, and keeps no session."""

import asyncio
from secrets import token_hex
from typing import Any, Final

from adapters.mqtt.codec import printable
from adapters.mqtt.config import MqttOptions
from adapters.mqtt.drafts import MOST_FLOWS, drafts
from adapters.mqtt.link import Heard, Link
from adapters.mqtt.shapes import nameable
from adapters.mqtt.sightings import Kind, Sighting, Sightings
from adapters.mqtt.topics import pattern
from bridge.api import Clock, Search, Seen

COLUMNS: Final = ("TOPIC", "MESSAGES", "RETAINED", "BYTES", "KIND", "FIELDS")
EVERYTHING: Final = "#"
MOST_BYTES: Final = 64 * 1024 * 1024  # of payloads that are taken in


async def browse(options: Any, search: Search, clock: Clock) -> Seen:
    """See `bridge.api.Browser`. `start` is a topic filter; `wait_s` is how long we listen.

    The client id is drawn for this one look and the session is a clean one, so nobody's session is taken over and none is left;
    there is no last will and no status message.
    """
    assert isinstance(options, MqttOptions)
    if search.ranges or search.units:
        raise ValueError("--range and --unit belong to Modbus; of MQTT say which topics with --filter")
    wanted = search.start or EVERYTHING
    try:
        pattern(wanted)
    except ValueError as error:
        raise ValueError(f"--filter {wanted}: {error}") from None
    seen = Sightings(search.most, MOST_BYTES, options.max_payload)
    await _listen(options, clock, wanted, search.wait_s, seen)
    topics = [seen.topics[topic] for topic in sorted(seen.topics)]
    usable = [each for each in topics if each.topic != options.status_topic]
    flows, writable = drafts(usable)
    return Seen(
        said=f"{_said(options)}: {len(topics)} topics, {seen.messages} messages on {printable(wanted)} within {search.wait_s:g} s",
        columns=COLUMNS,
        rows=[_row(each) for each in topics],
        flows=flows,
        adds={"writable": writable} if writable else {},
        notes=_notes(options, search, seen, topics, len(flows)),
    )


async def _listen(options: MqttOptions, clock: Clock, wanted: str, wait_s: float, seen: Sightings) -> None:
    """Take messages in until the time is over or there is enough. Raises `LinkRefused` or `LinkError`."""
    ended = asyncio.Event()

    def take(heard: Heard) -> None:
        if heard.mid:
            link.ack(heard.mid)  # of our own subscription alone: whoever else subscribed gets a copy of his own
        seen.take(heard.topic, heard.payload, retained=heard.retained)
        if seen.full:
            link.pause()
            ended.set()

    silent = options.model_copy(update={"status_topic": None, "session_expiry": 0.0})
    link = Link(silent, f"smp-browse-{token_hex(4)}", heard=take, lost=ended.set, clock=clock)
    try:
        await link.open([wanted])
        try:
            async with asyncio.timeout(wait_s):
                await ended.wait()
        except TimeoutError:
            pass
        link.check()
    finally:
        await link.close()


def _row(sighting: Sighting) -> tuple[object, ...]:
    fields = tuple(name for name in sighting.values if name) if sighting.kind is not Kind.CSV_BARE else ()
    return (
        sighting.topic,
        sighting.count,
        "yes" if sighting.retained else "",
        sighting.size,
        sighting.kind.value,
        fields or "",
    )


def _notes(options: MqttOptions, search: Search, seen: Sightings, topics: list[Sighting], flows: int) -> list[str]:
    notes = []
    if seen.beyond:
        notes.append(
            f"only the first {len(topics)} topics are shown, {seen.beyond} messages were on others; --filter narrows, --most allows more"
        )
    if seen.full:
        notes.append(f"listening ended early: {MOST_BYTES >> 20} MiB of payloads were taken in; --filter narrows")
    if seen.unnamed:
        notes.append(f"{seen.unnamed} messages have a topic that is not UTF-8")
    strange = sum(not nameable(each.topic) for each in topics)
    if strange:
        notes.append(
            f"{strange} of the topics cannot be written as a template (braces, an empty level); they are in no draft"
        )
    if flows == MOST_FLOWS:
        notes.append(f"a draft has at most {MOST_FLOWS} flows; --filter narrows")
    if not topics:
        notes.append(
            f"nothing came within {search.wait_s:g} s; listen longer with --wait, and look whether this user may read the topics: a broker may hide them without a word"
        )
    elif not any(each.retained for each in topics):
        notes.append("nothing was retained, so only what was published meanwhile is shown; --wait listens longer")
    if options.tls is None and options.password is not None:
        notes.append("the password travelled in the clear; use mqtts:// (`tls:`)")
    return notes


def _said(options: MqttOptions) -> str:
    way = ("wss" if options.tls else "ws") if options.websocket else ("TLS" if options.tls else "plain TCP")
    return f"{options.host}:{options.port}, MQTT {options.version.value} over {way}, as {printable(options.user or 'anonymous')}"
