"""When certificates and keys end: shown as a metric, and alarmed 60, 30 and 7 days before (DOMAIN 7). Nothing is stopped by it."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

from cryptography import x509

from bridge.clock import Clock
from bridge.config import Config, SiteConfig
from bridge.errors import JournalFull
from bridge.journal.keys import KeySide, KeyState
from bridge.journal.port import Journal
from bridge.keyring import KeyRing
from bridge.metrics import Metrics

LOOK_S: Final = 3600.0
_DAY_NS: Final = 86_400 * 10**9
_LEVELS: Final = ((0, "EXPIRED"), (7, "EXPIRES_7"), (30, "EXPIRES_30"), (60, "EXPIRES_60"))  # days left, at most
CODES: Final = frozenset(code for _, code in _LEVELS)
_SUFFIXES: Final = frozenset({".der", ".pem", ".crt", ".cer"})


class Ending(NamedTuple):
    """One certificate or key with its end (UTC ns). `what` is its place in the configuration, `name` its file or key id."""

    participant: str
    site: str
    what: str
    name: str
    ends_ns: int

    def code(self, now_ns: int) -> str:
        """The alarm that is due, '' for none."""
        left_ns = self.ends_ns - now_ns
        return next((code for days, code in _LEVELS if left_ns <= days * _DAY_NS), "")

    def text(self, now_ns: int) -> str:
        """What it says; the same for a whole level, so that an hourly look writes nothing."""
        when = datetime.fromtimestamp(self.ends_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%MZ")
        return f"{self.what}: {self.name} {'ended' if self.ends_ns <= now_ns else 'ends'} on {when}"


Alarm = tuple[str, str, str, str]  # code, participant, site, subject


class ExpiryWatch:
    """Looks at the start, each hour, and when keys changed. A process that works the field looks after its sites' files, the market side after the rest."""

    def __init__(
        self, endings: Callable[[], list[Ending]], *, journal: Journal, metrics: Metrics, clock: Clock, market: bool, field: bool
    ) -> None:  # fmt: skip
        self._endings = endings
        self._journal = journal
        self._metrics = metrics
        self._clock = clock
        self._mine = {"": market, "site": field}
        self._standing: set[Alarm] | None = None
        self.again = asyncio.Event()

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            self.again.clear()
            await self.look()
            try:
                async with asyncio.timeout(LOOK_S):
                    await self.again.wait()
            except TimeoutError:
                continue

    async def look(self) -> None:
        """Read every file once, show it, and write only what changed; while the journal is full, at a later look."""
        found, now_ns = await asyncio.to_thread(self._endings), self._clock.wall_ns()
        self._metrics.expiry.clear()
        wanted: dict[Alarm, str] = {}
        for one in found:
            self._metrics.expiry.labels(one.participant, one.site, one.what, one.name).set(one.ends_ns / 1e9)
            code = one.code(now_ns)
            if code:
                wanted[code, one.participant, one.site, f"{one.what} {one.name}"] = one.text(now_ns)
        try:
            await self._tell(wanted)
        except JournalFull:
            self._standing = None

    async def _tell(self, wanted: Mapping[Alarm, str]) -> None:
        if self._standing is None:
            rows = [row for row in await self._journal.alarms() if row.code in CODES]
            rows = [row for row in rows if self._mine["site" if row.site else ""]]
            self._standing = {(row.code, row.participant, row.site, row.subject) for row in rows}
        for alarm in self._standing - set(wanted):
            await self._write(alarm, "", clear=True)
        for alarm in set(wanted) - self._standing:
            await self._write(alarm, wanted[alarm], clear=False)
        self._standing = set(wanted)

    async def _write(self, alarm: Alarm, text: str, *, clear: bool) -> None:
        code, participant, site, subject = alarm
        await self._journal.alarm(code, participant=participant, site=site, subject=subject, text=text, clear=clear)


def host_endings(config: Config, rings: Mapping[str, KeyRing]) -> Iterator[Ending]:
    """Keys and certificates of the host and its participants. Blocking."""
    for name, entry in config.participants.items():
        options = entry.options
        for what, file in (
            ("ca", options.ca),
            ("client_certificate", options.client_certificate),
            ("signing_certificate", options.signing_certificate),
            ("smp_certificate.ca", options.smp_certificate.ca if options.smp_certificate else None),
        ):
            yield from _file(name, "", f"participants.{name}.{what}", file)
        if name in rings:
            yield from _keys(name, rings[name])
    returns, postgres = config.host.listeners.returns, config.host.journal.postgres
    if returns is not None:
        yield from _file("", "", "listeners.returns.certificate", returns.certificate)
        yield from _file("", "", "listeners.returns.client_ca", returns.client_ca)
    if postgres is not None:
        yield from _file("", "", "journal.postgres.ca", postgres.ca)
        yield from _file("", "", "journal.postgres.client_certificate", postgres.client_certificate)
    for name, place in config.host.journal.anchors.items():
        if place.post is not None:
            yield from _file("", "", f"journal.anchors.{name}.post.ca", place.post.ca)
        if place.mqtt is not None:
            yield from _file("", "", f"journal.anchors.{name}.mqtt.ca", place.mqtt.ca)
            yield from _file("", "", f"journal.anchors.{name}.mqtt.certificate", place.mqtt.certificate)
    if config.host.tracing is not None:
        yield from _file("", "", "tracing.ca", config.host.tracing.ca)


def site_endings(site: SiteConfig) -> Iterator[Ending]:
    """The certificates that a site's links name: ours, and those of the EMSs and their authorities. Blocking."""
    for adapter in site.adapters.values():
        for use in adapter.adapter.certificates(adapter.options) if adapter.adapter.certificates else ():
            what = f"adapters.{adapter.name}.{use.path}"
            yield from _file("", site.name, what, use.certificate)
            files = list(use.trusted)
            if use.trust is not None and use.trust.is_dir():
                files += sorted(file for file in use.trust.iterdir() if file.suffix.lower() in _SUFFIXES)
            for file in files:
                yield from _file("", site.name, f"{what} (trusted)", file)


def _keys(name: str, ring: KeyRing) -> Iterator[Ending]:
    ours = {
        record.kid: record.expires_ns
        for record in ring.records
        if record.side is KeySide.OURS and _serves(record.state)
    }
    theirs = {key.kid: key.expires_ns for key in ring.values()}
    for record in ring.records:
        if record.side is KeySide.THEIRS and record.kid in theirs:
            ends = [end for end in (theirs[record.kid], record.expires_ns) if end]
            theirs[record.kid] = min(ends, default=0) if _serves(record.state) else 0
    for what, ends_of in (("signing key", ours), ("SMP's key", theirs)):
        for kid, ends_ns in ends_of.items():
            if ends_ns:
                yield Ending(name, "", f"participants.{name}: {what}", kid, ends_ns)
    for taken in ring.agreed.taken() if ring.agreed is not None else ():
        if taken.thumbprint not in theirs:
            ends_ns = taken.until_s * 10**9
            yield Ending(name, "", f"participants.{name}: SMP's certificate", taken.thumbprint, ends_ns)


def _serves(state: KeyState) -> bool:
    return state in (KeyState.NEXT, KeyState.ACTIVE)


def _file(participant: str, site: str, what: str, file: Path | None) -> Iterator[Ending]:
    """The earliest end of a file's certificates; what cannot be read is said by those who use it."""
    if file is None:
        return
    try:
        data = file.read_bytes()
        pem = data.lstrip().startswith(b"-----BEGIN")
        found = x509.load_pem_x509_certificates(data) if pem else [x509.load_der_x509_certificate(data)]
    except (OSError, ValueError):
        return
    ends = min(one.not_valid_after_utc for one in found)
    yield Ending(participant, site, what, file.name, int(ends.timestamp()) * 10**9)
