"""Follows `__sluice_metrics` into this process's picture, for as long as the process lives.

Starts at the newest keyframe (the monitor writes one every few seconds) and reads on. When the broker can't be
reached it tries again with back-off; the picture grows old meanwhile, and the pages say so.
"""

import logging
import threading
import time

from console import kafka
from console.snapshot import held
from console.snapshot.frames import Assembler, Notice, UnknownVersion
from console.snapshot.picture import Topic

log = logging.getLogger("sluice.snapshot")

METRICS_TOPIC = "__sluice_metrics"
LOOK_BACK_MS = 30_000
PLACE = kafka.TopicPartition(METRICS_TOPIC, 0)


class Tail:
    def __init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="metrics-tail", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(5)

    def _run(self) -> None:
        wait = 0.5
        said = ""
        while not self._stop.is_set():
            try:
                self._follow()
            except (kafka.ClientError, kafka.SettingsError) as error:
                if str(error) != said:
                    log.warning("metrics can't be read: %s", error)
                    said = str(error)
            except Exception:
                log.exception("the metrics tail failed and starts again")
            self._stop.wait(wait)
            wait = min(wait * 1.2, 4.0)

    def _follow(self) -> None:
        start = self._position()
        reader = kafka.consumer(queue_kbytes=8192, fetch_wait=0.2)
        assembler = Assembler()
        quiet_since = time.monotonic()
        try:
            reader.assign({PLACE: start})
            while not self._stop.is_set():
                records = reader.poll(200, 0.5)
                for record in records:
                    if record.value is not None:
                        self._take(assembler, record.value)
                if records:
                    quiet_since = time.monotonic()
                elif time.monotonic() - quiet_since > 15:
                    return  # the topic may have been made anew: look for it again
        finally:
            reader.close()

    def _position(self) -> int:
        since = int(time.time() * 1000) - LOOK_BACK_MS
        found = kafka.admin().offsets([PLACE], since)[PLACE]
        if found.error:
            raise kafka.ClientError(f"{METRICS_TOPIC}: {found.error}")
        return found.offset if found.offset >= 0 else kafka.END

    def _take(self, assembler: Assembler, data: bytes) -> None:
        try:
            news = assembler.feed(data)
        except (UnknownVersion, KeyError, TypeError, ValueError) as error:
            log.error("a metrics record can't be read: %s", error)
            return
        if isinstance(news, Notice):
            follow(news)
        elif news is not None:
            held.replace_with(news)


def follow(notice: Notice) -> None:
    """Lays another console's change over the picture."""
    if notice.what == "topic" and notice.verb == "deleted":
        held.forget_topic(notice.name)
    elif notice.what == "topic" and notice.verb == "created":
        held.put_topic(Topic(name=notice.name))
    elif notice.what == "group" and notice.verb == "deleted":
        held.forget_group(notice.name)
