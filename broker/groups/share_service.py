"""`ctx.broker.shares`: share partitions in their shell, with the log they read and the dead letters they write."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from broker.api.registry import Broker
from broker.cluster.config_names import GROUP, RESET_BY_DURATION
from broker.groups.dead_letters import DeadLetters
from broker.groups.ports import StateUnwritable
from broker.groups.share_coordinator import Place, ShareCoordinator
from broker.groups.share_expiry import expired, may_expire, without
from broker.groups.share_partition import Acquired, Cause, ShareLimits, Span
from broker.groups.share_sessions import ShareSession, ShareSessions
from broker.groups.shell import Shell, StateTopic
from broker.log.failures import LogError
from broker.wire import batch
from broker.wire.batch import Batch
from broker.wire.errors import ErrorCode

if TYPE_CHECKING:
    from broker.log.partition import Partition, Slice

logger = logging.getLogger(__name__)

STATE_TOPIC = "__share_group_state"
RENEWING = "share.renew.acknowledge.enable"
_TRIES = 8
_READ = 1 << 20
"""Bytes, or one batch, read for a hand-out: a member asks for 50 MiB and takes 500 records. Doubled while what was read
held nothing for it."""


@dataclass(slots=True)
class Handed:
    """What one partition gives to a fetch."""

    topic: bytes
    index: int
    error: ErrorCode = ErrorCode.NONE
    records: list[Any] = field(default_factory=list)
    acquired: list[Acquired] = field(default_factory=list)
    size: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchBounds:
    """How much a fetch wants."""

    max_bytes: int
    max_records: int
    strict: bool


class ShareService(Shell[ShareCoordinator]):
    """Share partitions as handlers ask them."""

    def __init__(self, broker: Broker) -> None:
        self.sessions = ShareSessions()
        self._waiting: dict[Place, set[asyncio.Event]] = {}
        log = StateTopic(broker, STATE_TOPIC)
        self.dead_letters = DeadLetters(broker)
        super().__init__(
            broker,
            "shares",
            log,
            lambda: ShareCoordinator(log=log, limits=self.limits, graves=self.dead_letters, freed=self._freed),
        )

    # -- settings -----------------------------------------------------------------------------------------------------

    def _overrides(self, group: str) -> Mapping[str, str]:
        return self._broker.metadata.image.configs_of("group", group)

    def limits(self, group: str) -> ShareLimits:
        """The group's limits, from its configs."""
        group_set, broker_set, default = self._overrides(group), self._broker.groups.configs.broker(), ShareLimits()
        if not group_set and not broker_set:
            return default

        def number(name: str, otherwise: int) -> int:
            return int(group_set.get(f"share.{name}", broker_set.get(f"group.share.{name}", otherwise)))

        return ShareLimits(
            delivery_count=number("delivery.count.limit", default.delivery_count),
            lock_ms=number("record.lock.duration.ms", default.lock_ms),
            max_locks=number("partition.max.record.locks", default.max_locks),
        )

    def reads_committed(self, group: str) -> bool:
        """Whether the group is kept from records of open and aborted transactions."""
        return self._overrides(group).get("share.isolation.level") == "read_committed"

    def renews(self, group: str) -> bool:
        """Whether the group's members may renew their locks (KIP-1222)."""
        allowed: bool = GROUP.value(RENEWING, self._overrides(group).get(RENEWING))
        return allowed

    # -- members ------------------------------------------------------------------------------------------------------

    def member_gone(self, group: str, member: str) -> None:
        """The member left the group, fell silent, or closed its session: what it had is free again."""
        self.sessions.end(group, member)
        try:
            self.step(lambda coordinator, now: coordinator.release_member(group, member, now))
        except StateUnwritable:
            logger.warning("shares: what %s of group %s had is freed when its locks run out", member, group)

    def connection_gone(self, session: ShareSession) -> None:
        """The session's connection closed."""
        if self.sessions.end(session.group, session.member, session.owner):
            self.member_gone(session.group, session.member)
            self._broker.groups.step(lambda groups, now: groups.share_cut_off(session.group, session.member, now))

    def topic_deleted(self, name: str, topic_id: bytes) -> None:
        """A topic is gone, and every group's place in it."""
        try:
            self.step(lambda coordinator, now: coordinator.topic_deleted(topic_id, now))
        except StateUnwritable:
            logger.warning("shares: state of deleted topic %s could not be removed", name)

    # -- waiting ------------------------------------------------------------------------------------------------------

    def _freed(self, place: Place) -> None:
        for event in self._waiting.get(place, ()):
            event.set()

    def watch(self, place: Place, event: asyncio.Event) -> None:
        """Set the event when records of the place may have become free."""
        self._waiting.setdefault(place, set()).add(event)

    def unwatch(self, place: Place, event: asyncio.Event) -> None:
        """No more."""
        events = self._waiting.get(place)
        if events is not None:
            events.discard(event)
            if not events:
                del self._waiting[place]

    # -- fetching -----------------------------------------------------------------------------------------------------

    def hand_out(self, session: ShareSession, bounds: FetchBounds) -> list[Handed]:
        """Acquire for the session's member what is free, within the bounds."""
        results: list[Handed] = []
        left_bytes, left_records = bounds.max_bytes, bounds.max_records
        for topic, index in session.rotated():
            place = Place(session.group, topic, index)
            others = bool(results)
            try:
                handed = self._hand_out_of(place, session.member, left_bytes, left_records, bounds.strict, others)
            except StateUnwritable:
                handed = Handed(topic, index, ErrorCode.KAFKA_STORAGE_ERROR)
            except LogError:
                logger.exception("shares: %s can't be read", place)
                handed = Handed(topic, index, ErrorCode.KAFKA_STORAGE_ERROR)
            if handed.error is ErrorCode.NONE and not handed.acquired:
                continue
            results.append(handed)
            left_bytes -= handed.size
            left_records -= sum(a.last - a.first + 1 for a in handed.acquired)
            limit = self.limits(session.group).delivery_count
            if left_bytes <= 0 or left_records <= 0 or any(a.count >= limit for a in handed.acquired):
                break
        return results

    def _hand_out_of(
        self, place: Place, member: str, max_bytes: int, max_records: int, strict: bool, others: bool
    ) -> Handed:
        handed = Handed(place.topic, place.index)
        partition = self.log_of(place)
        if partition is None:
            handed.error = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            return handed
        self.begun(place, partition)
        committed = self.reads_committed(place.group)
        for attempt in range(_TRIES):
            offset = self.coordinator.next_offset(place)
            end = partition.last_stable_offset if committed else partition.high_watermark
            if offset is None or offset >= end:
                break
            found = partition.read(offset, min(max_bytes, _READ << attempt), committed=committed)
            raw = b"".join(found.buffers)
            batches = batch.split(raw)
            spans = [
                Span(one.base_offset, one.last_offset, deliverable)
                for one, deliverable in zip(batches, _deliverable(batches, found), strict=True)
            ]
            if not spans:
                break
            acquired = self.step(
                lambda coordinator, now: coordinator.acquire(
                    place,
                    member,
                    offset,  # noqa: B023 — asked at once
                    spans,  # noqa: B023 — asked at once
                    max_records=max_records,
                    strict=strict,
                    others=others,
                    now=now,
                )
            )
            batches = [one for one in batches if _overlaps(one, acquired)]
            if acquired and may_expire(b"".join(one.data for one in batches), batches):
                acquired = self._without_expired(place, member, batches, acquired)
            if acquired:
                handed.acquired = acquired
                handed.records = [one.data for one in batches if _overlaps(one, acquired)]
                handed.size = sum(len(data) for data in handed.records)
                break
            if self.coordinator.next_offset(place) == offset:
                break
        return handed

    def _without_expired(
        self, place: Place, member: str, batches: list[Batch], acquired: list[Acquired]
    ) -> list[Acquired]:
        late = expired(batches, acquired, self._broker.clock.now())
        if late:
            self.step(lambda coordinator, now: coordinator.give_up(place, member, late, Cause.EXPIRED, now))
        return without(acquired, late)

    def log_of(self, place: Place) -> Partition | None:
        """The partition's log."""
        topic = self._broker.topics.by_id(place.topic)
        return None if topic is None else self._broker.topics.partition(topic.name, place.index)

    def begun(self, place: Place, partition: Partition) -> None:
        """Make sure the group has a place there, and none before the log's start."""
        known = self.coordinator.partition(place)
        if known is None:
            start = self._first_offset(place.group, partition)
            self.step(lambda coordinator, now: coordinator.begin(place, start, now))
        elif known.start < partition.log_start_offset:
            self.step(lambda coordinator, now: coordinator.log_starts_at(place, partition.log_start_offset, now))

    def _first_offset(self, group: str, partition: Partition) -> int:
        reset = self._overrides(group).get("share.auto.offset.reset", "latest")
        if reset == "earliest":
            return partition.log_start_offset
        duration = RESET_BY_DURATION.fullmatch(reset)
        if duration is not None:
            days, hours, minutes, seconds = (int(part or 0) for part in duration.groups())
            back = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
            hit = partition.offset_for_time(self._broker.clock.now() - back * 1000)
            return partition.high_watermark if hit is None else hit.offset
        return partition.high_watermark


def _overlaps(one: Batch, acquired: list[Acquired]) -> bool:
    return any(a.first <= one.last_offset and one.base_offset <= a.last for a in acquired)


def _deliverable(batches: list[Batch], found: Slice) -> list[bool]:
    """Which batches hold records for applications: no markers, and nothing of an aborted transaction."""
    aborted = sorted(found.aborted or (), key=lambda a: a.first_offset)
    active: set[int] = set()
    result = []
    for one in batches:
        while aborted and aborted[0].first_offset <= one.last_offset:
            active.add(aborted.pop(0).producer_id)
        if one.control:
            if one.producer_id in active and not batch.parse_marker(one).commit:
                active.discard(one.producer_id)
            result.append(False)
        else:
            result.append(not (one.transactional and one.producer_id in active))
    return result


def make(broker: Broker) -> ShareService:
    """The share service of this broker."""
    return ShareService(broker)
