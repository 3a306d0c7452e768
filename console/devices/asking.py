"""Asking the gateway that holds a client's session what it knows: subscriptions, and what waits for the client.

The question is a record of `__sluice_control`, the answer one of `__sluice_tap`; nothing is kept and nothing changes,
so looking is enough of a permission. Whoever holds no such session says nothing: no answer in time means that nobody
holds it, or that its gateway is away.
"""

import queue
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from console import kafka
from console.live.tap import Reader
from console.messages import queries as messages
from gateway import contract

ANSWER_SECONDS = 2.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    filter: str
    qos: int
    marks: Sequence[str]  # its options, in MQTT's words


@dataclass(frozen=True, slots=True, kw_only=True)
class Oldest:
    """The message that has waited longest. `place`: its topic, partition and offset in the log, if it is there.
    `since`: when it was stored, None if that can't be read."""

    mqtt_topic: str
    place: tuple[str, int, int] | None
    since: datetime | None

    @property
    def age(self) -> float | None:
        return None if self.since is None else max(0.0, time.time() - self.since.timestamp())


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    gateway: str
    at: datetime
    connected: bool
    subscriptions: Sequence[Subscription]
    left_out: int
    queued: int
    in_flight: int
    oldest: Oldest | None


def session(client_id: str) -> Session | None:
    """None: nobody answered in time. Raises ClientError and SettingsError."""
    name = "tell/" + secrets.token_hex(12)
    answers: queue.SimpleQueue[contract.TapReport] = queue.SimpleQueue()
    reader = Reader(lambda key, report: answers.put(report) if key == name else None)
    reader.start()
    try:
        question = contract.Control(verb="tell", client_id=client_id, at=time.time(), tap=name)
        kafka.send(contract.CONTROL, contract.encode(question), client_id.encode(), timeout=ANSWER_SECONDS)
        return _session(answers.get(timeout=ANSWER_SECONDS))
    except queue.Empty:
        return None
    finally:
        reader.stop()


def _session(report: contract.TapReport) -> Session:
    row = report.rows[0]
    found = row.get("oldest")
    return Session(
        gateway=report.gateway,
        at=datetime.fromtimestamp(report.at, UTC),
        connected=report.connected,
        subscriptions=[
            Subscription(filter=str(each["filter"]), qos=int(each["qos"]), marks=_marks(each))
            for each in row["subscriptions"]
        ],
        left_out=int(row["left_out"]),
        queued=int(row["queued"]),
        in_flight=int(row["in_flight"]),
        oldest=None if found is None else _oldest(found),
    )


def _marks(each: dict[str, object]) -> list[str]:
    named = {"no_local": "No Local", "retain_as_published": "Retain As Published"}
    marks = [text for name, text in named.items() if each.get(name)]
    return marks + ([f"id {each['identifier']}"] if each.get("identifier") else [])


def _oldest(found: dict[str, object]) -> Oldest:
    place, since = None, None
    if isinstance(origin := found.get("origin"), list):
        place = (str(origin[0]), int(origin[1]), int(origin[2]))
        record = messages.one(*place)
        if record is not None and record.timestamp >= 0:
            since = datetime.fromtimestamp(record.timestamp / 1000, UTC)
    return Oldest(mqtt_topic=str(found["topic"]), place=place, since=since)
