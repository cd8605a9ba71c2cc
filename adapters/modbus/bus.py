"""The connection under one or several links: a device of its own, or a line or gateway that several units share. One request at a time."""

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple
from weakref import WeakKeyDictionary

from pymodbus.client.base import ModbusBaseClient
from pymodbus.exceptions import ConnectionException, ModbusException
from pymodbus.pdu import ModbusPDU

from adapters.modbus.config import Framing, ModbusOptions, Parity, Serial
from adapters.modbus.transport import Garbled, allow, certificate_of, client_of, context_of
from adapters.modbus.turns import Gone, Seat, Turns, Unit
from bridge.api import (
    Certified,
    Clock,
    LinkError,
    LinkRefused,
    OnExpired,
    PeerCertificate,
    has_expired,
    shown,
    unseen,
    without_dates,
)

log = logging.getLogger(__name__)

NEAR_S: Final = 5.0  # so long an opening waits until its unit may be asked again, rather than fail
_SILENCE_CHARACTERS: Final = 3.5  # between RTU frames (Modbus over serial line V1.02, 2.5.1.1),
_FAST_BAUD: Final = 19200
_FAST_SILENCE_S: Final = 0.00175  # and this at higher speeds
_NOBODY: Final = frozenset({10, 11})  # a gateway says that the unit behind it does not answer
_HINTS: Final = {
    True: "is the device switched on, and are host and port right?",
    False: "is the line there and ours to open, and does nobody else have it open?",
}


class _Settings(NamedTuple):
    """What all users of one connection have to agree on."""

    framing: Framing
    tls: object
    serial: Serial | None


class Member(NamedTuple):
    """One link on a bus: its place in the turn, its options, how it is told that the connection has ended, and of the certificate that the device showed."""

    seat: Seat
    options: ModbusOptions
    lost: Callable[[str], object]
    certified: Certified


class Bus:
    """One connection, used once: whoever comes after its end makes a new one."""

    def __init__(self, options: ModbusOptions, clock: Clock) -> None:
        self._clock = clock
        self._certificate: PeerCertificate | None = None
        self.settings = settings_of(options)
        self._options = options
        self._loop = asyncio.get_running_loop()
        self._turns = Turns(self._loop)
        self._members: list[Member] = []
        self._units: dict[int, Unit] = {}
        self._silent: set[int] = set()
        self._client: ModbusBaseClient | None = None
        self._opening = asyncio.Lock()
        self._open = False
        self._opened_at = 0.0
        self._resting = False
        self._free_at = 0.0
        self._rest_s = 0.0
        self._others_poll_s: dict[int, float | None] = {}
        self._why: OSError | None = None
        self.ended = False

    @property
    def client(self) -> ModbusBaseClient:
        """The library's client; there is one once `open` was called."""
        assert self._client is not None
        return self._client

    def unit(self, number: int) -> Unit:
        """What is known of this unit."""
        return self._units.setdefault(number, Unit())

    def join(self, options: ModbusOptions, lost: Callable[[str], object], certified: Certified = unseen) -> Member:
        """One more link. Raises `LinkRefused` when the connection stands with other settings."""
        if self._members and settings_of(options) != self.settings:
            raise LinkRefused(
                f"{options.where} is in use with other settings by an adapter with unit {self._members[0].options.unit}",
                hint="what shares a connection needs the same `serial`, `framing` and `tls`",
            )
        member = Member(Seat(self.unit(options.unit), options.poll), options, lost, certified)
        self._members.append(member)
        self._turns.seats.append(member.seat)
        self._settle()
        return member

    def leave(self, member: Member) -> None:
        """One link less; the last one closes the connection."""
        if member not in self._members:
            return
        self._members.remove(member)
        self._turns.leave(member.seat)
        self._settle()
        if not self._members:
            self._end()
        elif all(other.options.unit in self._silent for other in self._members):
            self.fail("no unit answers any more")  # the connection itself may be dead, and nobody else would find out

    def _settle(self) -> None:
        """What follows from who is here: the shortest poll of the others for each unit, and how long the line rests after an answer: as long as the one needs that needs it longest."""
        units = {member.options.unit for member in self._members}
        polls = [(member.options.unit, member.options.poll) for member in self._members]
        self._others_poll_s = {unit: min((poll for of, poll in polls if of != unit), default=None) for unit in units}
        rest = max((member.options.pause_between_requests for member in self._members), default=0.0)
        self._rest_s = rest if self.settings.serial is None else max(rest, silence_s(self.settings.serial))

    async def open(self, member: Member) -> None:
        """Connect, unless the connection stands already. Raises `LinkError` when nobody is there, `LinkRefused` when TLS cannot come about."""
        options = member.options
        wait = member.seat.unit.shut_until - self._loop.time()
        if wait > NEAR_S:
            raise LinkError(
                f"{options.where} unit {options.unit}: no answer, {member.seat.unit.in_a_row} times in a row; "
                f"asked again in {wait:.0f} s, so that the others here keep their pace"
            )
        async with self._opening:
            if not self._open:
                try:
                    await self._connect(options)
                    self._open = True
                finally:
                    if not self._open:
                        self._shut()
            elif self._certificate is not None:
                member.certified(self._certificate)
        await asyncio.sleep(self._opened_at + options.pause_after_connect - self._loop.time())

    async def exchange(self, member: Member, send: Callable[[], Awaitable[ModbusPDU]]) -> ModbusPDU:
        """One request and its answer, when it is this link's turn. Raises `Gone` when the link has ended meanwhile, or what the library raises."""
        await self._turns.take(member.seat)
        try:
            if member not in self._members:
                raise Gone
            await self._ready(member)
            return await self._timed(member, send)
        finally:
            self._turns.give()

    async def rest(self, member: Member) -> None:
        """Between two polls: close the connection unless somebody waits for it; the next request opens it again. Raises `Gone`."""
        await self._turns.take(member.seat)
        alone = not any(seat.waiting for seat in self._turns.seats)
        if alone and all(other.options.close_after_poll for other in self._members):
            self._resting = True
            self._shut()
        self._turns.give()

    async def _timed(self, member: Member, send: Callable[[], Awaitable[ModbusPDU]]) -> ModbusPDU:
        options, unit = member.options, member.seat.unit
        began = self._loop.time()
        allow(self.client, options.timeout)
        unit.counts.requests += 1
        cancelled = _cancellations()
        try:
            answer = await send()
        except asyncio.CancelledError:
            self._free_at = began + options.timeout  # its answer may still come, in the midst of another's
            raise
        except (ConnectionException, OSError):
            self.fail("the connection broke")
            raise
        except Garbled:
            self._silent.clear()
            unit.fell_silent(self._loop.time(), options.timeout)
            raise
        except ModbusException:
            unit.fell_silent(self._loop.time(), options.timeout)
            self._silent.add(options.unit)
            raise
        if _cancellations() > cancelled:
            raise asyncio.CancelledError  # it came with the answer: Python 3.11's `wait_for`, in the library, keeps it to itself then
        now = self._loop.time()
        self._silent.clear()
        unit.counts.line_s += now - began
        self._free_at = max(self._free_at, now + self._rest_s)
        if answer.isError() and answer.exception_code in _NOBODY:
            unit.fell_silent(now, options.timeout)
            return answer
        unit.answered(now, now - began, self._others_poll_s.get(options.unit))
        unit.counts.exceptions += answer.isError()
        return answer

    async def _ready(self, member: Member) -> None:
        """Connected, and the pause since the last answer is over. Raises `Gone`."""
        if self._resting:
            try:
                await self._connect(member.options)
            except LinkError as error:
                self.fail("could not be opened again for the next poll")
                raise Gone from error
            self._resting = False
        pause = self._free_at - self._loop.time()
        if pause > 0:
            await asyncio.sleep(pause)

    async def _connect(self, options: ModbusOptions) -> None:
        if self._client is None:
            self._client = await client_of(options, self._traced, self._failed)
        allow(self._client, options.timeout)
        self._why, waived = None, False
        connected = await self._dial()
        if not connected and self._waives(options):
            connected = waived = await self._again_without_dates()
        if not connected:
            if isinstance(self._why, ssl.SSLError):
                raise LinkRefused(
                    f"{options.where}: no TLS: {self._why.reason or self._why}", hint="smp-bridge certificates doctor"
                )
            raise LinkError(
                f"{options.where}: no connection within {options.timeout:g} s", hint=_HINTS[options.serial is None]
            )
        if options.tls is not None:
            self._look_at_certificate(options.tls.on_expired_certificate, waived=waived)
        self._opened_at = self._loop.time()
        if self._resting:
            await asyncio.sleep(options.pause_after_connect)
        elif options.serial is not None or options.framing is Framing.RTU:
            # RTU frames have no number: a late answer to a request of our last session would be taken for the answer to our first.
            await asyncio.sleep(max((other.options.timeout for other in self._members), default=0.0))

    async def _dial(self) -> bool:
        cancelled = _cancellations()
        connected = bool(await self.client.connect())
        if _cancellations() > cancelled:
            raise asyncio.CancelledError  # it came with the connection, and the library keeps it to itself, as with an answer
        return connected

    def _waives(self, options: ModbusOptions) -> bool:
        """Whether this connection failed over the end of a certificate alone, and the site says that this is no reason."""
        keeps = options.tls is not None and options.tls.on_expired_certificate is OnExpired.KEEP
        return keeps and has_expired(self._why)

    async def _again_without_dates(self) -> bool:
        context = context_of(self.client)
        assert context is not None
        self._why = None
        with without_dates(context):
            return await self._dial()

    def _look_at_certificate(self, policy: OnExpired, *, waived: bool) -> None:
        """Raises `LinkRefused` where dates were waived and it is not valid yet."""
        self._certificate = shown(certificate_of(self.client), policy, self._clock.wall_ns(), waived=waived)
        for member in self._members:
            member.certified(self._certificate)

    def fail(self, text: str) -> None:
        """End the connection; every link on it is told."""
        members, self._members = self._members, []
        self._end()
        for member in members:
            self._turns.leave(member.seat)
            member.lost(text)

    def _end(self) -> None:
        self.ended = True
        self._shut()
        shared = _shared()
        if shared.get(self._options.shared_place) is self:
            del shared[self._options.shared_place]

    def _shut(self) -> None:
        if self._client is not None:
            self._client.close()

    def _failed(self, error: OSError) -> None:
        self._why = error

    def _traced(self, connected: bool) -> None:  # noqa: FBT001 - the library's own form
        if not connected and not self._resting:
            self.fail("the device closed the connection")


def _cancellations() -> int:
    """How often the running task was asked to end."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


def settings_of(options: ModbusOptions) -> _Settings:
    """What has to be the same for all that share a connection; a line may have several names."""
    serial = options.serial
    line = None if serial is None else serial.model_copy(update={"device": serial.device.resolve()})
    return _Settings(options.framing, options.tls, line)


def silence_s(serial: Serial) -> float:
    """How long a line is silent between two RTU frames, in seconds."""
    if serial.baudrate > _FAST_BAUD:
        return _FAST_SILENCE_S
    bits = 1 + serial.data_bits + (serial.parity is not Parity.NONE) + serial.stop_bits
    return _SILENCE_CHARACTERS * bits / serial.baudrate


def bus_of(options: ModbusOptions, clock: Clock) -> Bus:
    """The connection for these options: the one that stands where it is shared, otherwise a new one."""
    if not options.shares:
        return Bus(options, clock)
    shared = _shared()
    found = shared.get(options.shared_place)
    if found is None:
        found = shared[options.shared_place] = Bus(options, clock)
    return found


_Buses = dict[tuple[str, int], Bus]
_SHARED: "Final[WeakKeyDictionary[asyncio.AbstractEventLoop, _Buses]]" = WeakKeyDictionary()


def _shared() -> _Buses:
    """The shared connections of this loop. They are the process's, not a session's: adapters know nothing of each other."""
    return _SHARED.setdefault(asyncio.get_running_loop(), {})
