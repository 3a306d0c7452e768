"""The service: a member of the group `__sluice_delay`, and a worker for each partition that the group gives it.

The member reads nothing: its partitions are paused, it only tells the group that this process lives. The group's
generation is no fence by itself (the workers' transactional ids are), so a worker that is slow to end does no harm. The
member is static (`group.instance.id`, kept in the folder): a service killed and started again has its partitions back
at once instead of after the session's time-out.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import secrets
import sqlite3
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from broker.client import Admin, Consumer, Settings, TopicPartition
from broker.client.administration.types import NewTopic, Topic
from broker.client.delaying import (
    DELAY_CONFIG,
    DELAY_DEAD_LETTERS,
    DELAY_PARTITIONS,
    DELAY_QUERIES,
    DELAY_TOPIC,
    DELAYS,
)
from broker.client.errors import ClientError, TopicExists
from broker.delay.config import Config
from broker.delay.connections import ClusterConnections
from broker.delay.entry import UnreadableEntry
from broker.delay.store import DELETE_RETENTION_MS
from broker.delay.targets import Targets
from broker.delay.worker import ForeignCopy, RecordsRefused, Tally, Worker

log = logging.getLogger("broker.delay.service")

GROUP = "__sluice_delay"
SESSION_SECONDS = 10.0
BACK_OFF_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0)
END_SECONDS = 3.0
LARGEST = str(64 << 20)
"""A pending delivery and a dead letter are larger than the record they hold."""


class FolderInUse(Exception):
    """Another delay service holds the folder."""


@dataclass(slots=True, eq=False)
class Charge:
    """A partition in this process's charge: the thread, and the worker it runs at the moment."""

    partition: int
    tally: Tally = field(default_factory=Tally)
    stop: threading.Event = field(default_factory=threading.Event)
    worker: Worker | None = None
    thread: threading.Thread | None = None
    trouble: str = "starting"

    @property
    def ready(self) -> bool:
        return self.worker is not None and self.worker.ready


class Service:
    """See the module. `run` blocks."""

    def __init__(self, config: Config, settings: Settings) -> None:
        """Raises FolderInUse."""
        self._config = config
        self._settings = settings
        self._admin = Admin(self._settings)
        self._connections = ClusterConnections(settings, self._admin)
        self._targets = Targets(self._admin)
        self._held, self._instance = _hold(config.folder)
        self.charges: dict[int, Charge] = {}
        self._ending: list[threading.Thread] = []
        self._member = False

    def run(self, stop: threading.Event, *, prepared: Callable[[], None]) -> None:
        """Serve until told to stop; `prepared` is called once the topics are there."""
        attempt = 0
        while not stop.is_set():
            try:
                self._prepare()
                prepared()
                break
            except ClientError as error:
                log.info("waiting for the cluster: %s", error)
                stop.wait(BACK_OFF_SECONDS[min(attempt, len(BACK_OFF_SECONDS) - 1)])
                attempt += 1
        try:
            while not stop.is_set():
                try:
                    self._belong(stop)
                except ClientError as error:
                    log.warning("not a member of the group: %s", error)
                    stop.wait(1.0)
        finally:
            self._release(list(self.charges))
            self._admin.close()
            self._held.close()

    def path(self, partition: int) -> Path:
        """The local copy of a partition."""
        return self._config.folder / f"pending-{partition}.sqlite3"

    @property
    def settings(self) -> Settings:
        return self._settings

    @property
    def admin(self) -> Admin:
        return self._admin

    def ailments(self) -> dict[str, str]:
        """What keeps this process from delivering; empty: nothing."""
        if not self._member:
            return {"service": "not a member of the group yet"}
        return {
            f"partition {charge.partition}": charge.trouble
            for charge in list(self.charges.values())
            if not charge.ready
        }

    # --- topics

    def _prepare(self) -> None:
        """Make the topics that are missing; raises ClientError. The topic is given the partitions that were asked for
        by name; it is left with those it has otherwise."""
        found = self._admin.topics()
        mine = found.get(DELAY_TOPIC)
        partitions = self._config.partitions or DELAY_PARTITIONS
        if mine is not None and len(mine.partitions) < self._config.partitions:
            self._admin.add_partitions(DELAY_TOPIC, partitions)
        elif mine is not None:
            partitions = len(mine.partitions)
        outcomes = self._admin.create_topics([new for new in topics(partitions) if new.name not in found])
        for name, error in outcomes.items():
            if error is not None and not isinstance(error, TopicExists):
                log.error("topic %s can't be made: %s", name, error)
                raise error

    def _identities(self, partition: int) -> dict[str, str]:
        """The ids of the topics that a partition needs; raises ClientError while one is missing."""
        found = self._admin.topics([DELAY_TOPIC, DELAYS, DELAY_DEAD_LETTERS])
        if len(found) < 3:
            self._prepare()
            raise ClientError("the service's topics are being made")
        held: Topic = found[DELAYS]
        if len(held.partitions) <= partition:
            self._admin.add_partitions(DELAYS, len(found[DELAY_TOPIC].partitions))
            raise ClientError(f"{DELAYS} is being given more partitions")
        return {name: topic.id for name, topic in found.items()}

    # --- ownership

    def _belong(self, stop: threading.Event) -> None:
        member = Consumer(
            self._settings,
            GROUP,
            instance=self._instance,
            session_timeout=SESSION_SECONDS,
            queue_kbytes=64,
            overrides={"fetch.message.max.bytes": 1024, "topic.metadata.refresh.interval.ms": 5000},
        )
        try:
            member.subscribe([DELAY_TOPIC], assigned=self._assigned, revoked=self._revoked, lost=self._revoked)
            while not stop.is_set():
                try:
                    member.poll(1, 0.2)
                except ClientError as error:
                    if member.fatal is not None:
                        raise
                    log.info("the group: %s", error)
                    stop.wait(0.2)
                assigned = member.assignment()
                if assigned:
                    member.pause(assigned)
        finally:
            self._member = False
            self._release(list(self.charges))
            identity = member.member_id()
            member.close()
            # a static member doesn't leave by closing; told to stop, it leaves, so that others need not wait for it
            if stop.is_set() and identity:
                with contextlib.suppress(ClientError):
                    self._admin.remove_members(GROUP, [identity])

    def _assigned(self, partitions: list[TopicPartition]) -> None:
        self._member = True
        for _, partition in partitions:
            if partition not in self.charges:
                charge = self.charges[partition] = Charge(partition)
                charge.thread = threading.Thread(
                    target=self._keep, args=(charge,), name=f"delay-{partition}", daemon=True
                )
                charge.thread.start()

    def _revoked(self, partitions: list[TopicPartition]) -> None:
        self._release([partition for _, partition in partitions])

    def _release(self, partitions: Iterable[int]) -> None:
        charges = [self.charges.pop(partition) for partition in partitions if partition in self.charges]
        for charge in charges:
            charge.stop.set()
        for charge in charges:
            assert charge.thread is not None
            charge.thread.join(END_SECONDS)
            if charge.thread.is_alive():  # waits for an answer of the cluster; the next owner fences it
                self._ending.append(charge.thread)
        self._ending = [thread for thread in self._ending if thread.is_alive()]

    def _keep(self, charge: Charge) -> None:
        """The thread of one partition: a worker, and another when it ended in doubt."""
        attempt = 0
        for thread in self._ending:  # two threads must not hold one copy
            while thread.is_alive() and thread.name == threading.current_thread().name and not charge.stop.is_set():
                thread.join(0.2)
        while not charge.stop.is_set():
            path = self.path(charge.partition)
            try:
                charge.worker = Worker(
                    self._connections,
                    charge.partition,
                    path=path,
                    topics=self._identities(charge.partition),
                    targets=self._targets,
                    tally=charge.tally,
                    stop=charge.stop,
                )
                charge.worker.run()
                attempt = 0
                continue
            except ForeignCopy as error:
                charge.trouble = f"the local copy is thrown away: {error}"
                _remove(path)
            except sqlite3.OperationalError as error:
                charge.trouble = f"{path}: {error}"
            except sqlite3.DatabaseError as error:
                charge.trouble = f"{path}: {error}"
                _remove(path)
            except (ClientError, RecordsRefused, UnreadableEntry, OSError) as error:
                charge.trouble = str(error)
            if charge.worker is not None and charge.worker.served:
                attempt = 0
            charge.worker = None
            delay = BACK_OFF_SECONDS[min(attempt, len(BACK_OFF_SECONDS) - 1)]
            attempt += 1
            log.warning("partition %d: %s; again in %g s", charge.partition, charge.trouble, delay)
            charge.stop.wait(delay)


def topics(partitions: int) -> list[NewTopic]:
    """The service's topics as they are made."""
    compacted = {
        "cleanup.policy": "compact",
        "delete.retention.ms": str(DELETE_RETENTION_MS),
        "min.cleanable.dirty.ratio": "0.3",
        "segment.bytes": str(64 << 20),
        "max.message.bytes": LARGEST,
    }
    return [
        NewTopic(name=DELAY_TOPIC, partitions=partitions, configs=DELAY_CONFIG),
        NewTopic(name=DELAYS, partitions=partitions, configs=compacted),
        NewTopic(name=DELAY_DEAD_LETTERS, partitions=1, configs={"max.message.bytes": LARGEST}),
        NewTopic(name=DELAY_QUERIES, partitions=1, configs={"retention.ms": "600000", "segment.ms": "600000"}),
    ]


def _hold(folder: Path) -> tuple[IO[str], str]:
    """Lock the folder for this process; the lock's file holds the group's name for it. Raises FolderInUse."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    held = os.fdopen(os.open(folder / "instance", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+")
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        held.close()
        raise FolderInUse(f"{folder} is in use by another delay service: set SLUICE_DATA") from error
    instance = held.read().strip()
    if not instance:
        instance = f"delay-{secrets.token_hex(8)}"
        held.write(instance)
        held.flush()
        os.fsync(held.fileno())
    return held, instance


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
