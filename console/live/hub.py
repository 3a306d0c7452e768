"""One hub per process: it hears of every new picture and wakes the sockets that watch.

The picture arrives on the tail's thread; sockets live on the event loop. Each socket has a flag, not a queue: a slow
client finds the flag set once however many pictures went by, and is sent the newest only. Frames that are the same
for everybody are made once per picture. With no socket open, a picture costs one comparison.
"""

import asyncio
import contextlib
import json
from typing import Any

from console import snapshot


class Hub:
    def __init__(self) -> None:
        self._watchers: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}
        self._shared: tuple[int, dict[str, str]] = (0, {})

    def follow(self) -> None:
        snapshot.listen(self.heard)

    def heard(self, _: snapshot.Picture) -> None:
        for event, loop in list(self._watchers.items()):
            with contextlib.suppress(RuntimeError):  # that loop is closing
                loop.call_soon_threadsafe(event.set)

    def join(self) -> asyncio.Event:
        event = asyncio.Event()
        self._watchers[event] = asyncio.get_running_loop()
        return event

    def leave(self, event: asyncio.Event) -> None:
        self._watchers.pop(event, None)

    def __len__(self) -> int:
        return len(self._watchers)

    def cluster_frame(self, picture: snapshot.Picture) -> str:
        """The whole cluster's numbers, serialised once per picture."""
        at, made = self._shared
        if at != id(picture):
            made = {}
            self._shared = (id(picture), made)
        if "cluster" not in made:
            made["cluster"] = json.dumps(picture.live("cluster"), separators=(",", ":"))
        return made["cluster"]


hub = Hub()


def frame(picture: snapshot.Picture, cluster: str, rows: dict[str, Any]) -> str:
    trouble = json.dumps(picture.trouble)
    changed = json.dumps(rows, separators=(",", ":"))
    return f'{{"at":{picture.at},"trouble":{trouble},"cluster":{cluster},"rows":{changed}}}'
