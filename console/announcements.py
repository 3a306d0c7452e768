"""Telling every console process what an action changed, once done: this one at once, the others through the log."""

import logging
import time

from console import kafka, snapshot
from console.snapshot.frames import notice
from console.snapshot.tail import METRICS_TOPIC

log = logging.getLogger("sluice.console")


def topic_created(topic: snapshot.Topic) -> None:
    snapshot.put_topic(topic)
    _tell("topic", topic.name, "created")


def topic_deleted(name: str) -> None:
    snapshot.forget_topic(name)
    _tell("topic", name, "deleted")


def group_deleted(name: str) -> None:
    snapshot.forget_group(name)
    _tell("group", name, "deleted")


def changed(kind: str, name: str) -> None:
    """Something of it is different; the monitor's next sample says what."""
    _tell(kind, name, "changed")


def _tell(kind: str, name: str, verb: str) -> None:
    """The change is done and on record; that others hear of it a second later must not make it fail."""
    try:
        kafka.send(METRICS_TOPIC, notice(kind, name, verb, int(time.time() * 1000)), partition=0, timeout=2.0)
    except (kafka.ClientError, kafka.SettingsError) as error:
        log.warning("%s %s was %s, but the announcement failed: %s", kind, name, verb, error)
