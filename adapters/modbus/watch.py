"""Whether the device at the other end is the right one, and alive."""

from collections.abc import Mapping

from adapters.modbus.config import ModbusOptions
from adapters.modbus.layout import Image, Span
from bridge.api import LinkError


class Watch:
    """Looks at the device's own words in each poll: magic, version, record counts, heartbeat.

    With a heartbeat nothing is believed before it was seen to move once: after a freeze a device still answers with its last values.
    """

    def __init__(self, options: ModbusOptions, counts: Mapping[int, int]) -> None:
        named = {"magic": options.magic, "version": options.version}
        self._fixed = {name: (fixed.at, fixed.value) for name, fixed in named.items() if fixed is not None}
        self._counts = counts
        self._heartbeat = options.heartbeat
        self._beat: int | None = None
        self._beat_ns = 0
        self.alive = options.heartbeat is None

    def spans(self) -> list[Span]:
        """What has to be read at each poll."""
        registers = [at for at, _ in self._fixed.values()] + list(self._counts)
        if self._heartbeat is not None:
            registers.append(self._heartbeat.at)
        return [Span(register, 1) for register in registers]

    @property
    def vouches(self) -> bool:
        """Whether an answer alone shows that the EMS lives; a heartbeat is the better witness."""
        return self._heartbeat is None

    def moved(self, image: Image, now_ns: int) -> bool:
        """Whether this poll shows a living EMS. Raises `LinkError` for another device, another layout or a stale heartbeat."""
        for name, (register, value) in self._fixed.items():
            if image.word(register) != value:
                raise LinkError(
                    f"register {register} ({name}) holds {image.word(register):#06x}, the site file says {value:#06x}",
                    hint="another device, another firmware, or an address base of 1?",
                )
        for register, count in self._counts.items():
            if image.word(register) != count:
                raise LinkError(
                    f"register {register} now counts {image.word(register)} records, it was {count}; opening again"
                )
        return self._heartbeat is None or self._beats(image.word(self._heartbeat.at), now_ns, self._heartbeat.stale)

    def _beats(self, beat: int, now_ns: int, stale_s: float) -> bool:
        if beat != self._beat:
            self.alive = self._beat is not None
            self._beat, self._beat_ns = beat, now_ns
            return self.alive
        if now_ns - self._beat_ns > stale_s * 1e9:
            raise LinkError(
                f"stale heartbeat: it has stood at {beat} for {stale_s:g} s",
                hint="does the program of the EMS still run?",
            )
        return False
