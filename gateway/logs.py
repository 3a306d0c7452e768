"""The log: one line per event, whatever is in it. `text` is key=value pairs, `json` an object, by `SLUICE_LOG_FORMAT`.

What a line is about goes in as `extra={"event": "refused", "address": …}`; lines without an event have their message
alone. Line breaks and control characters never get out, so that nobody can write lines of their own into it.
"""

from __future__ import annotations

import json
import logging
import re
from datetime import UTC, datetime
from typing import Any

FORMATS = ("text", "json")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_PLAIN = re.compile(r"[A-Za-z0-9_.:/@%+,\[\]()$#*-]+")


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """What a line says, in order: when, how bad, who, what, and the event's own fields."""
    at = datetime.fromtimestamp(record.created, UTC)
    found: dict[str, Any] = {
        "time": f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z",
        "level": record.levelname.lower(),
        "logger": record.name,
    }
    own = {name: value for name, value in vars(record).items() if name not in _STANDARD}
    if "event" in own:
        found["event"] = own.pop("event")
    found["message"] = record.getMessage()
    found |= own
    if record.exc_info:
        found["trace"] = logging.Formatter().formatException(record.exc_info)
    return found


class JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(fields_of(record), ensure_ascii=True, default=str, separators=(",", ":"))


class KeyValueLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return " ".join(f"{name}={_word(value)}" for name, value in fields_of(record).items())


def _word(value: Any) -> str:
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=True)


def set_up(level: str, form: str) -> None:
    """Log to stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if form == "json" else KeyValueLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)
