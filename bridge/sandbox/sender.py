"""Pushes batch returns to the participants' end points, again and again until one is taken."""

import asyncio
import logging
import ssl
from collections.abc import Callable
from random import Random

import aiohttp

from bridge.clock import Clock
from bridge.profile import Profile
from bridge.sandbox.knobs import Knobs
from bridge.sandbox.ledger import Ledger, ReturnEntry
from bridge.sandbox.register import Register, Transaction
from bridge.wire import Rendered, Wire

log = logging.getLogger(__name__)

PUSH_TIMEOUT_S = 30.0


class ReturnSender:
    """Owns the pushes; each transaction's run in a task of the given group."""

    def __init__(
        self,
        *,
        profile: Profile,
        wire: Wire,
        register: Register,
        ledger: Ledger,
        knobs: Knobs,
        clock: Clock,
        random: Random,
        seal: Callable[[Rendered, str], tuple[bytes, dict[str, str]]],
        url_of: Callable[[str], str],
        sender_of: Callable[[str], str],
        environment: str,
        trust: ssl.SSLContext,
    ) -> None:
        self._profile = profile
        self._wire = wire
        self._register = register
        self._ledger = ledger
        self._knobs = knobs
        self._clock = clock
        self._random = random
        self._seal = seal
        self._url_of = url_of
        self._sender_of = sender_of
        self._environment = environment
        self._trust = trust
        self._session: aiohttp.ClientSession | None = None
        self._released = asyncio.Event()
        self._held: list[Transaction] = []

    async def open(self) -> None:
        """Open the client."""
        connector = aiohttp.TCPConnector(ssl=self._trust, limit=16)
        timeout = aiohttp.ClientTimeout(total=PUSH_TIMEOUT_S)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False)

    async def close(self) -> None:
        """Close the client."""
        if self._session is not None:
            await self._session.close()

    async def follow(self, transaction: Transaction) -> None:
        """A transaction's way to its participant, from its acceptance on."""
        if self._knobs.returns != "hold":
            await asyncio.sleep(self._knobs.return_delay_s)
        if self._knobs.returns == "hold":
            self._held.append(transaction)
            return
        transaction.ready.set()
        if self._knobs.returns == "push":
            await self.push(transaction)

    async def release(self) -> int:
        """Let held returns go, in the order that the knobs say; returns how many."""
        held, self._held = self._held, []
        if self._knobs.shuffle:
            self._random.shuffle(held)
        for transaction in held:
            transaction.ready.set()
        async with asyncio.TaskGroup() as group:
            for transaction in held:
                group.create_task(self.push(transaction))
        return len(held)

    async def push(self, transaction: Transaction) -> None:
        """Push one result until it is taken, the tries are over, or there is no address."""
        if not self._url_of(transaction.participant):
            return
        message_id = f"{self._random.getrandbits(128):032x}"
        made = self._message(transaction, message_id)
        for attempt in range(self._knobs.retries + 1):
            if attempt and self._knobs.resign:
                made = self._message(transaction, message_id)
            if await self._post(transaction, message_id, *made):
                break
            await asyncio.sleep(self._knobs.retry_delay_s)
        if self._knobs.return_twice:
            await self._post(transaction, message_id, *self._message(transaction, message_id))

    def _message(self, transaction: Transaction, message_id: str) -> tuple[bytes, dict[str, str]]:
        answer = self._register.result(
            transaction,
            message_id=message_id,
            now_ns=self._clock.wall_ns(),
            environment=self._environment,
            recipient=self._sender_of(transaction.participant),
        )
        rendered = self._wire.render_return(answer)
        body, seals = self._seal(rendered, self._url_of(transaction.participant))
        return body, {"Content-Type": self._profile.return_content_types[0], **rendered.headers, **seals}

    async def _post(self, transaction: Transaction, message_id: str, body: bytes, headers: dict[str, str]) -> bool:
        assert self._session is not None
        entry = ReturnEntry(
            participant=transaction.participant,
            transaction_id=transaction.id,
            message_id=message_id,
            sent_ns=self._clock.mono_ns(),
        )
        self._ledger.returns.append(entry)
        url = self._url_of(transaction.participant)
        try:
            async with self._session.post(url, data=body, headers=headers, allow_redirects=False) as answer:
                await answer.read()
                entry.status = answer.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            entry.problem = f"{type(error).__name__}: {error}"[:200]
        if entry.status // 100 == 2:
            return True
        told = entry.problem or f"answered {entry.status}"
        log.warning("push_failed", extra={"participant": entry.participant, "url": url, "error": told})
        return False


def spoiled(signed: str) -> str:
    """The same text with a letter of its signature changed."""
    marker = signed.rfind('"signature":"')
    at = marker + len('"signature":"') + 10 if marker >= 0 else len(signed) - 20
    return signed[:at] + ("A" if signed[at] != "A" else "B") + signed[at + 1 :]
