"""The stand-in's idea of SMP: accounts' records, transactions, and what becomes of each batch. No I/O."""

import asyncio
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from bridge.model import Kind, Operation
from bridge.profile import Profile, ReturnResult, StatusWord
from bridge.sandbox.knobs import Knobs
from bridge.sandbox.ledger import Ledger
from bridge.vocabulary import Vocabulary
from bridge.wire import BatchReturn, ItemError, MessageMeta, StatusAnswer

_LETTERS: Final = string.ascii_letters + string.digits
_ID_LETTERS: Final = 15


@dataclass(slots=True, kw_only=True)
class Transaction:
    """One accepted Create. `ready` is set when its result may be told."""

    id: str
    participant: str
    operation: Operation
    message: MessageMeta
    items: Sequence[Mapping[str, Any]]
    received_ns: int
    created: list[tuple[str, str]] = field(default_factory=list)
    errors: list[ItemError] = field(default_factory=list)
    refused: int = 0
    completed_ns: int = 0
    ready: asyncio.Event = field(default_factory=asyncio.Event)


class Register:
    """Everything that participants registered, by participant."""

    def __init__(
        self, profile: Profile, vocabulary: Vocabulary, knobs: Knobs, ledger: Ledger, *, random: Random, name: str
    ) -> None:
        self._knobs = knobs
        self._ledger = ledger
        self._random = random
        self._name = name
        self._profile = profile
        self._fields = vocabulary.field
        self._assets: dict[tuple[str, str], str] = {}
        self._units: dict[tuple[str, str], str] = {}
        self._messages: dict[tuple[str, str], Transaction] = {}
        self.transactions: dict[str, Transaction] = {}
        words = profile.spec.batch_return.words
        self._says_rejected = ReturnResult.REJECTED in set(words.values())

    def new_id(self, prefix: str) -> str:
        """A Salesforce-like id of 18 case-sensitive characters."""
        return prefix + "".join(self._random.choices(_LETTERS, k=_ID_LETTERS))

    def reference(self, operation: Operation, item: Mapping[str, Any]) -> str:
        """An item's own reference, '' where it has none."""
        return str(item.get(self._fields(operation.kind, "reference"), ""))

    def seen(self, participant: str, message_id: str) -> Transaction | None:
        """The transaction of a message id that was there before."""
        return self._messages.get((participant, message_id))

    def accept(
        self,
        participant: str,
        operation: Operation,
        message: MessageMeta,
        items: Sequence[Mapping[str, Any]],
        received_ns: int,
    ) -> Transaction:
        """Work a Create: every item is registered or refused now, although nobody is told yet."""
        transaction = Transaction(
            id=self.new_id("a0B"),
            participant=participant,
            operation=operation,
            message=message,
            items=items,
            received_ns=received_ns,
        )
        self.transactions[transaction.id] = transaction
        self._messages.setdefault((participant, message.message_id), transaction)
        self._decide(transaction)
        transaction.completed_ns = received_ns
        return transaction

    def _decide(self, transaction: Transaction) -> None:
        errors: list[ItemError] = []
        bad: set[int] = set()
        for index, item in enumerate(transaction.items):
            found = self._errors(transaction, index, item)
            errors += found
            if any(not error.warning for error in found):
                bad.add(index)
        if bad and self._knobs.batch == "atomic":
            bad = set(range(len(transaction.items)))
        transaction.errors = errors
        transaction.refused = len(bad)
        for index, item in enumerate(transaction.items):
            reference = self.reference(transaction.operation, item)
            if index in bad:
                self._ledger.refused(reference)
            else:
                self._create(transaction, reference)
        if self._knobs.shuffle:
            self._random.shuffle(transaction.created)
            self._random.shuffle(transaction.errors)

    def _create(self, transaction: Transaction, reference: str) -> None:
        unit = transaction.operation.kind is Kind.UNIT
        held = self._units if unit else self._assets
        made = self.new_id("a1U" if unit else "a01")
        held.setdefault((transaction.participant, reference), made)
        transaction.created.append((reference, made))
        self._ledger.created(reference, made)

    def _errors(self, transaction: Transaction, index: int, item: Mapping[str, Any]) -> list[ItemError]:
        reference = self.reference(transaction.operation, item)
        found = []
        if not reference:
            found.append(("REFERENCE_MISSING", "a record needs its reference", "", False))
        refusal = self._knobs.refuse.get(reference)
        if refusal is not None:
            found.append((refusal.code, refusal.message, refusal.field, False))
        if transaction.operation.kind is Kind.ASSET and reference in self._knobs.registered:
            found.append(("ALREADY_REGISTERED", f"{reference} is registered already", "", False))
        if reference in self._knobs.warn:
            found.append(("WARNING", self._knobs.warn[reference], "", True))
        if transaction.operation.kind is Kind.UNIT:
            found += [
                ("ASSET_UNKNOWN", f"the asset {name} is not registered", self._fields(Kind.UNIT, "aligned"), False)
                for name in self._unknown_members(transaction.participant, item)
            ]
        return [
            ItemError(code=code, message=text, field=field_, warning=warning, index=index, reference=reference)
            for code, text, field_, warning in found
        ]

    def _unknown_members(self, participant: str, item: Mapping[str, Any]) -> list[str]:
        aligned, by_reference, by_id = (
            self._fields(Kind.UNIT, role) for role in ("aligned", "aligned_reference", "aligned_id")
        )
        before = self._knobs.registered
        ids = {made for (owner, _), made in self._assets.items() if owner == participant} | set(before.values())
        missing = []
        for entry in item.get(aligned, ()):
            reference, asset_id = entry.get(by_reference), entry.get(by_id)
            known = (
                (participant, reference) in self._assets
                or reference in before
                or (reference is None and asset_id in ids)
            )
            if not known:
                missing.append(str(reference or asset_id or "without a name"))
        return missing

    # what the participant is told ------------------------------------------------------------------------------------

    def result(
        self, transaction: Transaction, *, message_id: str, now_ns: int, environment: str, recipient: str
    ) -> BatchReturn:
        """The batch return of a transaction."""
        word = ReturnResult.ERRORS if transaction.refused else ReturnResult.SUCCESS
        if transaction.refused == len(transaction.items) and self._knobs.batch == "atomic" and self._says_rejected:
            word = ReturnResult.REJECTED
        meta = MessageMeta(
            message_id=message_id,
            operation="batch.return",
            timestamp_ns=now_ns,
            environment=environment,
            sender=self._name,
            recipient=recipient,
            correlation_id=transaction.message.correlation_id,
        )
        return BatchReturn(
            meta=meta,
            transaction_id=transaction.id,
            operation=transaction.operation.value,
            in_reply_to=transaction.message.message_id,
            result=None if self._knobs.unknown_word else word,
            unknown_word=self._knobs.unknown_word,
            completed_ns=transaction.completed_ns,
            total=len(transaction.items),
            succeeded=len(transaction.created),
            created=tuple(transaction.created),
            errors=tuple(transaction.errors),
        )

    def status(self, transaction_id: str, participant: str) -> StatusAnswer:
        """The answer to a status call."""
        transaction = self.transactions.get(transaction_id)
        if transaction is None or transaction.participant != participant:
            return StatusAnswer(status=StatusWord.NOT_FOUND, transaction_id=transaction_id)
        if self._knobs.unknown_word:
            return StatusAnswer(status=StatusWord.UNKNOWN, word=self._knobs.unknown_word, transaction_id=transaction_id)
        if not transaction.ready.is_set():
            return StatusAnswer(
                status=StatusWord.PROCESSING, transaction_id=transaction_id, submitted_ns=transaction.received_ns
            )
        return StatusAnswer(
            status=StatusWord.COMPLETED_WITH_ERRORS if transaction.refused else StatusWord.COMPLETED,
            transaction_id=transaction_id,
            submitted_ns=transaction.received_ns,
            updated_ns=transaction.completed_ns,
            total=len(transaction.items),
            succeeded=len(transaction.created),
            failed=transaction.refused,
            created=tuple(transaction.created),
            errors=tuple(transaction.errors),
        )
