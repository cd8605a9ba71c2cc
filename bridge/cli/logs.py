"""Log lines as JSON on standard error: a constant event name and its fields. Never payloads, keys or tokens."""

import enum
import json
import logging
from typing import Final

from bridge.clock import iso_ms

_STANDARD: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
MAX_FIELD: Final = 1000


class LogLevel(enum.Enum):
    """The least level that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class JsonFormatter(logging.Formatter):
    """One line per event; control characters of peers cannot break the line."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one JSON object."""
        line: dict[str, object] = {
            "at": iso_ms(int(record.created * 1e9)),
            "level": record.levelname.lower(),
            "event": record.getMessage()[:MAX_FIELD],
            "logger": record.name,
        }
        for name, value in record.__dict__.items():
            if name not in _STANDARD:
                line[name] = (
                    value
                    if isinstance(value, int | float | bool | list | dict) or value is None
                    else str(value)[:MAX_FIELD]
                )
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)[-8000:]
        return json.dumps(line, default=str)


def set_up(level: str) -> None:
    """Send our own events and others' warnings to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("bridge").setLevel(level.upper())
    logging.getLogger("adapters").setLevel(level.upper())
    quiet()


def quiet() -> None:
    """These libraries log every lost link with a traceback or a frame dump; our own events say it once."""
    for noisy in ("asyncua", "pymodbus", "pymodbus.logging", "aiohttp.access", "transitions", "amqtt"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
