"""Whether the device at the other end is the right one, and alive."""

from collections.abc import Mapping

from adapters.modbus.config import ModbusOptions
from adapters.modbus.layout import Image
from adapters.modbus.places import Span
from adapters.modbus.wire import span_of
from bridge.api import LinkError


class Watch:
    """Looks at the device's own words in each poll: magic, version, record counts, heartbeat.

    With a heartbeat nothing is believed before it was seen to move once: after a freeze a device still answers with its last values.
    """

    def __init__(self, options: ModbusOptions, counts: Mapping[Span, int]) -> None:
        named = {"magic": options.magic, "version": options.version}
        self._fixed = {name: (span_of(fixed), fixed.value) for name, fixed in named.items() if fixed is not None}
        self._counts = counts
        self._heartbeat = options.heartbeat
        self._beat: int | None = None
        self._beat_ns = 0
        self.alive = options.heartbeat is None

    def spans(self) -> list[Span]:
        """What has to be read at each poll."""
        spans = [span for span, _ in self._fixed.values()] + list(self._counts)
        if self._heartbeat is not None:
            spans.append(span_of(self._heartbeat))
        return spans

    @property
    def vouches(self) -> bool:
        """Whether an answer alone shows that the EMS lives; a heartbeat is the better witness."""
        return self._heartbeat is None

    def moved(self, image: Image, now_ns: int) -> bool:
        """Whether this poll shows a living EMS. Raises `LinkError` for another device, another layout or a stale heartbeat."""
        for name, (span, value) in self._fixed.items():
            if image.word(span) != value:
                raise LinkError(
                    f"{span} ({name}) holds {image.word(span):#06x}, the site file says {value:#06x}",
                    hint="another device, another firmware, or another `address_base`?",
                )
        for span, count in self._counts.items():
            if image.word(span) != count:
                raise LinkError(f"{span} now counts {image.word(span)} records, it was {count}; opening again")
        return self._heartbeat is None or self._beats(
            image.word(span_of(self._heartbeat)), now_ns, self._heartbeat.stale
        )

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
