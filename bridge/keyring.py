"""A participant's keys in use: what its configuration names, in the states that the journal holds. They change while the host runs."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from bridge.clock import Clock
from bridge.config import Participant
from bridge.config.references import open_to_others
from bridge.envelope import Algorithm, PublicKey, Refusal
from bridge.envelope.keys import Rotating, Signer
from bridge.errors import ConfigError, Problem
from bridge.hsm import SCHEME
from bridge.journal.keys import KeyReader, KeyRecord, KeySide, KeyState
from bridge.keys import certified_as, load_signer, public_from_jwk, public_jwk
from bridge.material import open_hsm, participant_keys

GRACE_S: Final = (
    7 * 86_400.0
)  # as long as a return is taken late (DOMAIN 3): what was signed with the former key is still under way
CONFIGURED: Final = "configured"
IMPORTED: Final = "imported"


@dataclass(frozen=True, slots=True)
class _Held:
    """A public key, and what its record says."""

    key: PublicKey
    record: KeyRecord | None

    def at(self, now_ns: int) -> PublicKey:
        """The key as it may be used now."""
        barred = self._barred(now_ns)
        return self.key if barred is None else replace(self.key, barred=barred)

    def _barred(self, now_ns: int) -> Refusal | None:
        record = self.record
        if record is not None and record.state is KeyState.REVOKED:
            return Refusal.KEY_REVOKED
        if record is not None and record.state is KeyState.RETIRING and now_ns >= record.until_ns:
            return Refusal.KEY_RETIRED
        ends = self.key.expires_ns, record.expires_ns if record is not None else 0
        return Refusal.KEY_EXPIRED if any(0 < end <= now_ns for end in ends) else None


class KeyRing(Mapping[str, PublicKey]):
    """SMP's public keys by kid, each as it may be used at the moment it is asked for, and `signer`, the key of ours that signs.

    Other threads look keys up and sign meanwhile: a change is one assignment.
    """

    def __init__(self, entry: Participant, clock: Clock) -> None:
        """As the configuration has it. Raises `ConfigError` where its keys cannot be used."""
        self._entry = entry
        self._clock = clock
        self._configured = participant_keys(entry)
        self.agreed = self._configured.agreed
        self.signer = Rotating(self._configured.signer)
        self.records: Sequence[KeyRecord] = ()
        self._held: Mapping[str, _Held] = {}
        self._ours: Sequence[KeyRecord] = ()
        self.take(())

    def __getitem__(self, kid: str) -> PublicKey:
        """One key; `barred` says why nothing of it is taken any more. Raises `KeyError`."""
        return self._held[kid].at(self._clock.wall_ns())

    def __iter__(self) -> Iterator[str]:
        """The key ids."""
        return iter(self._held)

    def __len__(self) -> int:
        """How many are known, those that may not be used any more too."""
        return len(self._held)

    def configured(self) -> list[KeyRecord]:
        """What the configuration names, for the journal to know."""
        signer, name = self._configured.signer, self._entry.name
        ours = record_of(name, KeySide.OURS, signer, signer.public_jwk(), place=place_of(self._entry))
        theirs = [
            record_of(name, KeySide.THEIRS, key, public_jwk(key.key, kid=kid, alg=key.alg), place=CONFIGURED, expires_ns=key.expires_ns)
            for kid, key in self._configured.smp.items()
        ]  # fmt: skip
        return [ours, *theirs]

    def take(self, records: Sequence[KeyRecord]) -> None:
        """Use the keys as these records say. Blocking: reads the private key that signs from now on.

        Raises `ConfigError` when that cannot be used; then the keys of SMP are changed all the same and the former key signs on, unless it was revoked.
        """
        theirs = {record.kid: record for record in records if record.side is KeySide.THEIRS}
        held = {kid: _Held(key, theirs.get(kid)) for kid, key in self._configured.smp.items()}
        for kid, record in theirs.items():
            if kid not in held and record.place == IMPORTED:
                held[kid] = _Held(public_from_jwk(Path(f"key {kid}"), json.loads(record.jwk)), record)
        self._held = held
        self.records = records
        ours = [record for record in records if record.side is KeySide.OURS]
        self.signer.withdrawn = frozenset(record.kid for record in ours if record.state is KeyState.REVOKED)
        active = next((record for record in ours if record.state is KeyState.ACTIVE), None)
        if active is not None and active.kid != self.signer.kid:
            self.signer.current = self._signer_of(active)

    def ours(self) -> list[Mapping[str, object]]:
        """Our public keys that SMP should know, as JWKs: the one that signs, the next one, and those that retire."""
        return shown(self.records, self._clock.wall_ns()) or [self._configured.signer.public_jwk()]

    def theirs(self) -> list[PublicKey]:
        """SMP's keys that are taken now."""
        return [key for kid in sorted(self) if (key := self[kid]).barred is None]

    def _signer_of(self, record: KeyRecord) -> Signer:
        if record.kid == self._configured.signer.kid:
            return self._configured.signer
        return open_signer(self._entry, record)


def record_of(
    participant: str, side: KeySide, key: Signer | PublicKey, jwk: Mapping[str, object], *, place: str, expires_ns: int = 0,
    state: KeyState = KeyState.ACTIVE,
) -> KeyRecord:  # fmt: skip
    """What the journal is told of a key."""
    return KeyRecord(
        participant=participant, side=side, kid=key.kid, alg=key.alg.value, state=state, jwk=json.dumps(jwk, sort_keys=True),
        place=place, expires_ns=expires_ns,
    )  # fmt: skip


def shown(records: Sequence[KeyRecord], now_ns: int) -> list[Mapping[str, object]]:
    """The public halves of ours that the other side should know, the active one first."""
    order = [KeyState.ACTIVE, KeyState.NEXT, KeyState.RETIRING]
    mine = [record for record in records if record.side is KeySide.OURS and record.lives(now_ns)]
    return [json.loads(record.jwk) for record in sorted(mine, key=lambda record: order.index(record.state))]


def open_signer(entry: Participant, record: KeyRecord) -> Signer:
    """The private key of a record of ours. Raises `ConfigError` where it cannot be read, is open to others, or is another key. Blocking."""
    if record.place.startswith(SCHEME):
        return _in_token(entry, record)
    path, jwk = Path(record.place), json.loads(record.jwk)
    signer = certified_as(
        load_signer(path, kid=record.kid, alg=Algorithm(record.alg), password=entry.options.signing_password), jwk
    )
    if signer.public_jwk() != jwk:
        raise ConfigError([Problem(file=str(path), text=f"is another key than {record.kid}; put the right file back")])
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    wrong = open_to_others(path, "private key", Path(credentials) if credentials else None)
    if wrong:
        raise ConfigError([Problem(text=wrong)])
    return signer


def place_of(entry: Participant) -> str:
    """Where the configured key of ours is: its file, or `pkcs11:` and its label."""
    options = entry.options
    return f"{SCHEME}{options.hsm.key}" if options.hsm is not None else str(options.signing_key)


def _in_token(entry: Participant, record: KeyRecord) -> Signer:
    if entry.options.hsm is None:
        text = f"the key {record.kid} is in a token ({record.place}), and the entry {entry.name} has no `hsm`; add it"
        raise ConfigError([Problem(text=text)])
    label, jwk = record.place.removeprefix(SCHEME), json.loads(record.jwk)
    signer = certified_as(open_hsm(entry.options.hsm, label, kid=record.kid, alg=Algorithm(record.alg)), jwk)
    if signer.public_jwk() != jwk:
        raise ConfigError([Problem(text=f"{record.place} is another key than {record.kid}; put the right one back")])
    return signer


async def keys_in_use(journal: KeyReader, entry: Participant, clock: Clock) -> KeyRing:
    """A participant's keys in the states that the journal holds. Raises `ConfigError`."""
    ring = KeyRing(entry, clock)
    ring.take(await journal.keys(entry.name))
    return ring
