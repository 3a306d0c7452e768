"""The picture this process holds, and who wants to hear when it changes.

One writer (the tail's thread) replaces the picture; readers take the reference, so a page sees one picture throughout.
Changes that this or another console announced are laid over it until the monitor has seen them too, or for a few
seconds.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from console.snapshot.picture import Group, Picture, Topic

OVERLAY_SECONDS = 6.0
STALE_AFTER_MS = 5000

_lock = threading.Lock()
_seen = Picture()
_picture = Picture()
_overlays: dict[tuple[str, str], "_Overlay"] = {}
_listeners: list[Callable[[Picture], None]] = []


@dataclass(frozen=True, slots=True, kw_only=True)
class _Overlay:
    row: Topic | Group | None  # None: gone
    until: float


def current() -> Picture:
    """The picture as it is now. No broker call, no database, no lock."""
    return _picture


def age_ms(picture: Picture, now: float) -> int | None:
    """How old the picture is at `now` (epoch seconds); None before the first sample."""
    return max(0, int(now * 1000) - picture.at) if picture.at else None


def is_stale(picture: Picture, now: float) -> bool:
    age = age_ms(picture, now)
    return age is None or age > STALE_AFTER_MS or bool(picture.trouble)


def listen(listener: Callable[[Picture], None]) -> None:
    """Calls `listener` with every new picture, on the writer's thread."""
    _listeners.append(listener)


def replace_with(picture: Picture) -> None:
    """The monitor saw something new."""
    global _seen
    with _lock:
        _seen = picture
        _rebuild()


def put_topic(topic: Topic) -> None:
    """An action made this topic; show it until the monitor does."""
    _lay(("topic", topic.name), topic)


def forget_topic(name: str) -> None:
    _lay(("topic", name), None)


def forget_group(name: str) -> None:
    _lay(("group", name), None)


def _lay(key: tuple[str, str], row: Topic | Group | None) -> None:
    with _lock:
        _overlays[key] = _Overlay(row=row, until=time.monotonic() + OVERLAY_SECONDS)
        _rebuild()


def _rebuild() -> None:
    global _picture
    now = time.monotonic()
    for key, overlay in list(_overlays.items()):
        if overlay.until < now:
            del _overlays[key]
    topics, groups = dict(_seen.topics), dict(_seen.groups)
    for (kind, name), overlay in _overlays.items():
        rows: dict[str, Topic] | dict[str, Group] = topics if kind == "topic" else groups
        if overlay.row is None:
            rows.pop(name, None)
        elif name not in rows:
            rows[name] = overlay.row  # type: ignore[assignment]  # the key's kind says which
    _picture = replace(_seen, topics=topics, groups=groups) if _overlays else _seen
    for listener in _listeners:
        listener(_picture)
