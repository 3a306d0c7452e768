"""Which devices are online: `__sluice_presence`, read from its beginning and followed."""

import json
import logging
import threading
from typing import Any

from console import kafka

log = logging.getLogger("sluice.monitor")

TOPIC = "__sluice_presence"


class Presence:
    """`online` is None until the topic has been read to where it ended at the start."""

    def __init__(self) -> None:
        self._online: set[bytes] = set()
        self._complete = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="presence", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(5)

    @property
    def online(self) -> int | None:
        return len(self._online) if self._complete else None

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._follow()
            except (kafka.ClientError, kafka.SettingsError) as error:
                log.info("presence can't be read: %s", error)
            self._complete = False
            self._stop.wait(2)

    def _follow(self) -> None:
        topic = kafka.admin().topics([TOPIC]).get(TOPIC)
        if topic is None:
            return
        places = [kafka.TopicPartition(TOPIC, partition.index) for partition in topic.partitions]
        ends = {
            p: one.offset for p, one in kafka.admin().offsets(places, kafka.types.At.LATEST).items() if not one.error
        }
        starts = {
            p: one.offset for p, one in kafka.admin().offsets(places, kafka.types.At.EARLIEST).items() if not one.error
        }
        behind = {place for place in places if ends.get(place, 0) > starts.get(place, 0)}
        self._online.clear()
        reader = kafka.consumer(queue_kbytes=4096)
        try:
            reader.assign(dict.fromkeys(places, kafka.BEGINNING))
            self._complete = not behind
            quiet = 0
            while not self._stop.is_set():
                records = reader.poll(1000, 0.5)
                for record in records:
                    self._take(record)
                    if record.offset >= ends.get(record.origin, 0) - 1:
                        behind.discard(record.origin)
                quiet = 0 if records else quiet + 1
                if not self._complete and (not behind or quiet > 4):  # compaction may have taken the last offsets
                    self._complete = True
                if quiet and quiet % 60 == 0 and self._made_anew(topic.id):
                    return
        finally:
            reader.close()

    def _take(self, record: Any) -> None:
        key = record.key or b""
        if key.startswith(b"$gateway/"):
            return
        try:
            online = bool(record.value and json.loads(record.value).get("online"))
        except (ValueError, AttributeError):
            log.warning("a presence record can't be read: %r", key)
            return
        if online:
            self._online.add(key)
        else:
            self._online.discard(key)

    def _made_anew(self, known_id: str) -> bool:
        found = kafka.admin().topics([TOPIC]).get(TOPIC)
        return found is None or found.id != known_id
