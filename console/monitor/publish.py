"""Writes the picture to `__sluice_metrics`: a keyframe every few seconds, deltas between."""

import contextlib
import secrets
import time

from console import kafka
from console.snapshot import frames
from console.snapshot.picture import Picture
from console.snapshot.tail import METRICS_TOPIC

KEYFRAME_SECONDS = 10.0
SETTINGS = {
    "cleanup.policy": "delete",
    "retention.ms": "600000",
    "segment.ms": "300000",
    "retention.bytes": "268435456",
}


class Publisher:
    def __init__(self) -> None:
        self._epoch = secrets.token_hex(6)
        self._sequence = 0
        self._last: Picture | None = None
        self._keyframe_due = 0.0
        self._ready = False

    def publish(self, picture: Picture) -> None:
        """Raises ClientError; the next picture is a keyframe then, since readers may have missed this one."""
        if not self._ready:
            self._make_topic()
        now = time.monotonic()
        if self._last is None or now >= self._keyframe_due:
            records = list(frames.keyframe(picture, self._epoch, self._sequence))
            self._keyframe_due = now + KEYFRAME_SECONDS
        else:
            records = [frames.delta(self._last, picture, self._epoch, self._sequence)]
        self._last = None
        for record in records:
            kafka.send(METRICS_TOPIC, record, partition=0, timeout=5.0)
        self._last = picture
        self._sequence += 1

    def _make_topic(self) -> None:
        if METRICS_TOPIC not in kafka.admin().topics([METRICS_TOPIC]):
            with contextlib.suppress(kafka.errors.TopicExists):
                kafka.admin().create_topic(METRICS_TOPIC, 1, -1, SETTINGS)
        self._ready = True
