"""Shared subscriptions (`$share/<group>/<filter>`) whose members are connected to several gateways.

Theory. Every gateway reads every record, so who gives a shared message to a member only has to be settled, not sent
around. The partitions of all topics fall into `BUCKETS`; each bucket of a share group belongs to one gateway that has
members, and only that gateway gives the bucket's messages to one of *its* members. Which one is computed from the names
of the gateways that say (in their status records) that they have members. A bucket is claimed, let go of and taken from
a dead gateway just as a session is (`claims`, `arrivals`), with the positions delivery had: a message goes to exactly
one member, whoever comes and goes. Messages spread over members as partitions spread over gateways.

What a member with a session of its own took is that session's. What a member without one took and has not acknowledged
is given to another when its connection ends, and holds back the positions that its gateway leaves behind: should the
gateway die, it is delivered again, at least once.
"""

from __future__ import annotations

import asyncio
import logging
import time
import zlib
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from broker.client import TopicPartition
from gateway.contract import SHARE_KEY, Presence, StoredSession
from gateway.moving.arrivals import Arrivals, Cluster, left_by, positions_list
from gateway.mqtt.fanout import Fanout
from gateway.mqtt.topics import split_share
from gateway.peers.claims import Claims, Denied, Heard, Overwritten, Taken, Won
from gateway.peers.membership import Gateways
from gateway.peers.presence import PresenceBook
from gateway.ports import OFFLINE_FOR_EVER, Message, Opened, Receipt, Refused, Session, Subscription, settled
from gateway.receipts import over, refused
from gateway.sessions.mailbox import Mailbox
from gateway.sessions.records import SessionRecords
from gateway.why import Why

log = logging.getLogger("gateway.shares")

BUCKETS = 8
PRINCIPAL = "\x00share"  # no name that anybody can have
INTERVAL = 0.5
JOIN_PATIENCE = 20.0
ORPHANED = 30.0  # seconds after which a dead gateway's group without members is forgotten
MOST_LEFT = 10_000  # messages that members left and no other has room for; beyond, the oldest is dropped
Positions = dict[TopicPartition, int]


def bucket_of(topic: str, partition: int) -> int:
    return (zlib.crc32(topic.encode()) + partition) % BUCKETS


def keeper(share_filter: str, bucket: int, gateways: Iterable[str]) -> str:
    """Whose a bucket is, given the gateways with members."""
    ordered = sorted(set(gateways))
    return ordered[(zlib.crc32(share_filter.encode()) + bucket) % len(ordered)]


def share_id(share_filter: str, bucket: int) -> str:
    """What stands for a bucket among the client ids that are claimed."""
    return f"{SHARE_KEY}{bucket}/{share_filter}"


def parse_share_id(text: str) -> tuple[str, int]:
    """(share filter, bucket)."""
    bucket, _, share_filter = text[len(SHARE_KEY) :].partition("/")
    return share_filter, int(bucket)


def _id_of(share_filter: str, message: Message) -> str:
    """Of the bucket that the group's copy of a message belongs to."""
    return share_id(share_filter, bucket_of(message.origin[0], message.origin[1]))


def _at_most(places: Positions, message: Message) -> None:
    """Let delivery go on at this message, or before."""
    topic, partition, offset = message.origin
    place = TopicPartition(topic, partition)
    places[place] = min(offset, places.get(place, offset))


class Bucket:
    """One bucket of one share group, on its way here or here. Takes the place of a mailbox in `missed`."""

    __slots__ = ("_fanout", "client_id", "dropped", "epoch", "filter", "frozen", "held", "limit", "number", "open")

    def __init__(self, client_id: str, fanout: Fanout) -> None:
        self.client_id = client_id
        self.filter, self.number = parse_share_id(client_id)
        self.epoch = 0
        self.open = False
        self.held: deque[Message] | None = None
        self.frozen: Positions | None = None  # where delivery was when the last member here left
        self.limit = 10_000
        self.dropped = 0
        self._fanout = fanout

    @property
    def state(self) -> Bucket:
        return self

    @property
    def rights(self) -> Bucket:
        return self

    def may_receive(self, _: str) -> bool:
        """The members' rights are asked."""
        return True

    @property
    def subscriptions(self) -> Mapping[str, Subscription]:
        plain = split_share(self.filter)[1]
        return {plain: Subscription(filter=plain, qos=2)}

    def deliver(self, message: Message, qos: int, retain: bool, identifiers: tuple[int, ...] = ()) -> bool:
        if message.origin is not None and bucket_of(message.origin[0], message.origin[1]) == self.number:
            self._fanout.deliver_to_group(self.filter, message.copy())
        return True

    def begin(self) -> None:
        """From now on messages are held."""
        self.held = deque(maxlen=self.limit)

    def enter(self) -> None:
        """What was missed is delivered: what was held follows, and everything from now on."""
        held, self.held = self.held or deque(), None
        self.open = True
        for message in held:
            self._fanout.deliver_to_group(self.filter, message.copy())


class Shares:
    """The share groups with members here."""

    def __init__(
        self,
        *,
        gateway: str,
        gateways: Callable[[], Gateways],
        fanout: Fanout,
        claims: Claims,
        book: PresenceBook,
        records: SessionRecords,
        cluster: Cluster,
        positions: Callable[[], Mapping[TopicPartition, int]],
        clock: Callable[[], float],
        held: Callable[[], bool],
    ) -> None:
        self.arrivals = Arrivals(gateway, self, cluster, monotonic=time.monotonic)
        self._gateway = gateway
        self._gateways = gateways
        self._fanout = fanout
        self._claims = claims
        self._book = book
        self._records = records
        self._cluster = cluster
        self._positions = positions
        self._clock = clock
        self._held = held
        self._here: dict[str, Bucket] = {}
        self._known: set[str] = set()  # every bucket that was ever claimed
        self._unacknowledged: dict[str, dict[Message, str]] = {}  # by client id: share filters, by the object given
        self._left: dict[Message, str] = {}  # what a member left and no other took
        self._orphans: dict[str, float] = {}
        self._joining: list[tuple[float, str, Receipt[Any]]] = []
        self._announced: tuple[str, ...] = ()
        self._task: asyncio.Task[None] | None = None
        fanout.groups = self

    # --- what the fan-out asks

    def admits(self, share_filter: str, message: Message) -> bool:
        """Whether a message is this gateway's to give to a member."""
        if message.origin is None:
            return True  # never in the log: every gateway has its own
        bucket = self._here.get(share_id(share_filter, bucket_of(message.origin[0], message.origin[1])))
        if bucket is None:
            return False
        if bucket.held is not None:
            bucket.held.append(message)
            return False
        return bucket.open

    def gave(self, share_filter: str, session: Any, message: Message, qos: int) -> None:
        if qos and message.origin is not None and not isinstance(session, Mailbox):
            self._unacknowledged.setdefault(session.client_id, {})[message] = share_filter

    def emptied(self, share_filter: str) -> None:
        """The last member here has left."""
        for number in range(BUCKETS):
            bucket = self._here.get(share_id(share_filter, number))
            if bucket is not None and bucket.frozen is None:
                bucket.frozen = dict(self._positions())

    # --- what the engine tells

    def joined(self, share_filters: Sequence[str]) -> Receipt[Any]:
        """Members came; settles when no message from now on can be missed by the groups."""
        self.evaluate()
        receipt: Receipt[Any] = Receipt()
        missing = [each for each in share_filters if not self._served(each)]
        if not missing:
            return settled()
        self._joining.append((time.monotonic() + JOIN_PATIENCE, missing[0], receipt))
        return receipt

    def _served(self, share_filter: str) -> bool:
        """Every bucket is some gateway's."""
        return all(
            each in self._here or self._claims.elsewhere(each) is not None or self.arrivals.inherits(each)
            for each in (share_id(share_filter, number) for number in range(BUCKETS))
        )

    def finished(self, client_id: str, message: Message | None) -> None:
        """A member has it."""
        mine = self._unacknowledged.get(client_id)
        if mine is not None and message is not None:
            mine.pop(message, None)
            if not mine:
                del self._unacknowledged[client_id]

    def closed(self, client_id: str, begun: Collection[Message] = ()) -> None:
        """A member's connection ended: what it had not acknowledged goes to another, but for the messages in `begun`:
        of QoS 2, and sent to it already (MQTT-4.8.2-5)."""
        for message, share_filter in self._unacknowledged.pop(client_id, {}).items():
            if message not in begun and not self._fanout.deliver_to_group(share_filter, message):
                self._left[message] = share_filter
                if len(self._left) > MOST_LEFT:
                    del self._left[next(iter(self._left))]

    def _give_what_is_left(self) -> None:
        """To members that have room by now, or came since. What is no bucket's here is given by another gateway, or its
        group is no more."""
        full: set[str] = set()
        for message, share_filter in list(self._left.items()):
            bucket = self._here.get(_id_of(share_filter, message))
            if bucket is not None and (not bucket.open or share_filter in full):
                continue
            if bucket is None or self._fanout.deliver_to_group(share_filter, message):
                self._left.pop(message, None)
            else:
                full.add(share_filter)

    def behind(self) -> dict[str, Positions]:
        """Buckets whose delivery must go on before this gateway's positions, should another gateway have to."""
        found: dict[str, Positions] = {}
        for mine in (*self._unacknowledged.values(), self._left):
            for message, share_filter in mine.items():
                _at_most(found.setdefault(_id_of(share_filter, message), {}), message)
        return self.arrivals.behind() | found

    # --- whose buckets

    def known(self, client_id: str) -> None:
        """A record of this bucket was read."""
        self._known.add(client_id)

    def evaluate(self) -> None:
        """Claim what should be here."""
        filters = self._fanout.share_filters()
        if filters != self._announced:
            self._announced = filters
            self._book.write_status()  # before the claims: others must know why
        now, gateways = time.monotonic(), self._gateways()
        for share_filter in filters:
            others = gateways.with_members(share_filter, now)
            for number in range(BUCKETS):
                client_id = share_id(share_filter, number)
                bucket = self._here.get(client_id)
                if bucket is not None:
                    self._thaw(bucket, others)
                elif (
                    keeper(share_filter, number, [self._gateway, *others]) == self._gateway
                    and client_id not in self.arrivals
                    and not self._claims.unheard(client_id)
                ):
                    self.arrivals.adopt(client_id, self._book.claim(self._presence(client_id)))
        self._drop_orphans(filters, now)
        self._give_what_is_left()

    def _thaw(self, bucket: Bucket, others: Sequence[str]) -> None:
        if bucket.frozen is None:
            return
        since = self._left_at(bucket) if others else None
        bucket.frozen = None
        if since is not None:
            bucket.open = False
            bucket.held = None
            del self._here[bucket.client_id]
            self.arrivals.adopt(bucket.client_id, self._book.claim(self._presence(bucket.client_id)))
            self._write(bucket, since, released=True)

    def _drop_orphans(self, filters: Sequence[str], now: float) -> None:
        for client_id in list(self._known):
            share_filter, _ = parse_share_id(client_id)
            holder = self._claims.holders.get(client_id)
            if holder is None or holder.gateway != self._gateway or share_filter in filters:
                continue
            if client_id in self.arrivals or self._gateways().with_members(share_filter, now):
                continue
            self._here.pop(client_id, None)
            self._known.discard(client_id)
            self._book.amend(client_id, clean=True)
            self._records.erase(client_id)

    def _forget_orphans_of_the_dead(self, now: float) -> None:
        """Buckets of a gateway that died, whose group has had no member since."""
        gateways = self._gateways()
        for client_id in self._known:
            holder = self._claims.elsewhere(client_id)
            share_filter, _ = parse_share_id(client_id)
            if (
                holder is None
                or gateways.alive(holder.gateway, now)
                or not gateways.cares(client_id)
                or share_filter in self._announced
                or gateways.with_members(share_filter, now)
            ):
                self._orphans.pop(client_id, None)
            elif now - self._orphans.setdefault(client_id, now) > ORPHANED:
                self._orphans.pop(client_id)
                gone = replace(self._presence(client_id), clean=True)
                self._book.claim(gone, adopts=holder.epoch)
                self._records.erase(client_id)

    def restore(self, records: Iterable[StoredSession], since: Callable[[str], Positions]) -> None:
        """What an earlier run of this gateway had: its groups ended with it, unless a member is here again.
        `since`: where it had delivered for a bucket."""
        filters = self._fanout.share_filters()
        for record in records:
            if record.keeper != self._gateway or record.free:
                continue
            elsewhere = self._claims.elsewhere(record.client_id) is not None
            if elsewhere or parse_share_id(record.client_id)[0] in filters:
                self.pass_on(left_by(record, since(record.client_id)))
            else:
                self._records.erase(record.client_id)

    def _presence(self, client_id: str) -> Presence:
        return Presence(
            client_id=client_id,
            online=False,
            since=self._clock(),
            gateway=self._gateway,
            principal=PRINCIPAL,
            clean=False,
        )

    # --- claims

    def heard(self, event: Heard) -> None:
        client_id = event.client_id
        if isinstance(event, Won):
            bucket = self._here.get(client_id)
            if bucket is not None:
                bucket.epoch = event.epoch
            self.arrivals.won(event)
        elif isinstance(event, Denied):
            self.arrivals.denied(client_id, event.token)
        elif isinstance(event, Overwritten):
            self._book.repeat(client_id)
        elif isinstance(event, Taken) and not self._claims.unheard(client_id):
            self._book.forget(client_id)
            bucket = self._here.pop(client_id, None)
            if client_id in self.arrivals or bucket is None:
                self.arrivals.replaced(client_id, event.mine)
            else:
                bucket.epoch = event.mine.epoch
                self._write(bucket, self._left_at(bucket), released=True)
        self._settle_joining()

    def _left_at(self, bucket: Bucket) -> Positions:
        since = dict(bucket.frozen if bucket.frozen is not None else self._positions())
        for message, share_filter in list(self._left.items()):
            if _id_of(share_filter, message) == bucket.client_id:
                _at_most(since, message)
                del self._left[message]
        return since

    def stored(self, client_id: str, writer: str | None, owner: str) -> None:
        """A bucket's record was read, see `Moves.stored`."""
        self.arrivals.landed(client_id)
        bucket = self._here.get(client_id)
        if client_id in self.arrivals:
            self.arrivals.stored(client_id)
        elif bucket is not None and owner not in ("", self._gateway):
            del self._here[client_id]
            holder = self._claims.holders.get(client_id)
            if holder is not None and holder.gateway == self._gateway:
                self.arrivals.resume(client_id, holder)
        elif bucket is not None and writer != self._gateway:
            self._write(bucket)

    def _write(self, bucket: Bucket, since: Positions | None = None, *, released: bool = False) -> None:
        self._records.write(
            StoredSession(
                client_id=bucket.client_id,
                owner=PRINCIPAL,
                gateway=self._gateway,
                expiry=OFFLINE_FOR_EVER,
                claim=bucket.epoch,
                released=released,
                positions=positions_list(since) if since is not None else (),
            )
        )

    # --- for arrivals

    async def rebuild(self, record: StoredSession, since: Positions) -> Any:
        return Bucket(record.client_id, self._fanout)

    def abandoned(self, mailbox: Any) -> None:
        self._here.pop(mailbox.client_id, None)

    def arrived(self, session: Session, mailbox: Any, epoch: int) -> Receipt[Opened]:
        return refused(Refused(0x87, "no client may have this id", why=Why.CLIENT_ID_RESERVED))

    def settled(self, mailbox: Any, epoch: int) -> None:
        bucket: Bucket = mailbox
        bucket.epoch = epoch
        self._write(bucket)
        self._settle_joining()

    def entering(self, bucket: Bucket) -> None:
        """It will be here as soon as what it missed is delivered."""
        self._here[bucket.client_id] = bucket

    def empty(self, client_id: str, epoch: int) -> None:
        """Nobody had it: from now on."""
        bucket = self._here[client_id] = Bucket(client_id, self._fanout)
        bucket.epoch = epoch
        bucket.open = True
        self._write(bucket)
        self._settle_joining()

    def lapsed(self, record: StoredSession, epoch: int) -> None:
        self.empty(record.client_id, epoch)

    def release(self, mailbox: Any, epoch: int) -> None:
        bucket: Bucket = mailbox
        self._here.pop(bucket.client_id, None)
        bucket.epoch = epoch
        self._write(bucket, self._left_at(bucket), released=True)

    def pass_on(self, record: StoredSession) -> None:
        self.arrivals.passing(record)
        self._records.write(record)

    async def take(self, records: list[StoredSession]) -> None:
        for receipt in [self._records.write(each) for each in records]:
            await over(receipt)

    # --- running

    def start(self) -> None:
        self.arrivals.start()
        self._task = asyncio.get_running_loop().create_task(self._run())

    def stop(self) -> None:
        self.arrivals.stop()
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL)
            try:
                if self._held():
                    self.evaluate()
                    self._forget_orphans_of_the_dead(time.monotonic())
                    self._settle_joining()
            except Exception:
                log.exception("share groups could not be looked after")

    def _settle_joining(self) -> None:
        now, still = time.monotonic(), []
        joining, self._joining = self._joining, []
        for until, share_filter, receipt in joining:
            if self._served(share_filter) or now > until:
                receipt.settle()
            else:
                still.append((until, share_filter, receipt))
        self._joining += still
