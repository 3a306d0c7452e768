"""Sessions: who holds which client id, what outlives a connection, wills.

A client id belongs to the principal that first used it: another principal can neither take the connection over nor
read the session. Persistent sessions have a `Mailbox`, which stays in the fan-out while the device is away. Sessions
with a will, persistent or not, have a record in `__sluice_sessions`, so that the will of a gateway that died is fired.

Checkpoints. Every second, what mailboxes hold unfinished is written to `__sluice_inbox`, and once that is durable, how
far the delivery had come is written beside. After a crash the gateway reads the mailboxes and delivers again from the
checkpoint: at least once for QoS 1; QoS 2 entries remember their origin, see `mailbox`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from broker.client import TopicPartition
from gateway import contract
from gateway.asking import Gate, TopicAnswers
from gateway.contract import INBOX, SESSIONS, MalformedRecord, StoredSession, mark_key, parse_mark_key
from gateway.counters import Counters
from gateway.mailbox import Entry, Mailbox, decode_entry, encode_entry, inbox_key, parse_inbox_key
from gateway.mqtt.fanout import Fanout
from gateway.policy import Policy, Rights
from gateway.ports import (
    OFFLINE_FOR_EVER,
    Ending,
    Limits,
    Opened,
    Receipt,
    Refused,
    Session,
    Subscription,
    Will,
    settled,
)
from gateway.receipts import again_if_failed, answer, over, refused
from gateway.registry import Registry
from gateway.ticks import Ticks
from gateway.uplink import Uplinks, properties_object, properties_of

log = logging.getLogger("gateway.sessions")

CHECKPOINT_KEY = "$checkpoint/"
CHECKPOINT_INTERVAL = 1.0
CHECKPOINT_PATIENCE = 1.5  # seconds, when stopping
TAKEN_OVER = 0x8E
UNAVAILABLE = 0x88
NOT_AUTHORIZED = 0x87


class Connection:
    """The engine's part of a connected session (`Session.state`)."""

    __slots__ = (
        "asked",
        "expired",
        "feed",
        "gate",
        "known",
        "last",
        "mailbox",
        "overflowed",
        "own",
        "principal",
        "rights",
        "since",
        "will",
    )

    def __init__(self, principal: str, rights: Rights, since: float, will: Will | None) -> None:
        self.principal = principal
        self.rights = rights
        self.since = since
        self.will = will
        self.own: Policy | None = None
        self.asked: TopicAnswers | None = None  # where topic plugins decide
        self.gate: Gate | None = None
        self.last: Receipt[Any] | None = None  # the newest run that waited for their answers
        self.mailbox: Mailbox | None = None
        self.feed: list[Any] | None = None  # retained messages still to be given
        self.expired = 0  # messages on their way to it, since it connected
        self.overflowed = 0  # for want of room
        self.known: dict[str, bool] = {}  # filters of a SUBSCRIBE under way: had before


class Sessions:
    """All sessions of this gateway, connected or not."""

    def __init__(
        self,
        *,
        gateway: str,
        registry: Registry,
        fanout: Fanout,
        ticks: Callable[[], Ticks],
        uplinks: Uplinks,
        counters: Counters,
        clock: Callable[[], float],
        positions: Callable[[], Mapping[TopicPartition, int]],
    ) -> None:
        self.live: dict[str, Session] = {}
        self.mailboxes: dict[str, Mailbox] = {}
        self._gateway = gateway
        self._registry = registry
        self._fanout = fanout
        self._ticks = ticks
        self._uplinks = uplinks
        self._counters = counters
        self._clock = clock
        self._positions = positions
        self._touched: dict[str, Mailbox] = {}
        self._wills: dict[str, tuple[float, Will, str]] = {}
        self._checkpointing = asyncio.Lock()
        self._marks: dict[str, set[int]] = {}
        self._checkpointed: dict[TopicPartition, int] = {}
        self._tasks: list[asyncio.Task[None]] = []

    # --- connecting

    def open(self, session: Session) -> Receipt[Opened]:
        client_id, request, principal = session.client_id, session.request, session.identity.name
        own = session.identity.detail if isinstance(session.identity.detail, Policy) else None
        rights = self._registry.rights(principal, client_id, own)
        if request.will is not None and (request.will.topic[:1] == "$" or not rights.may_publish(request.will.topic)):
            self._counters.denied += 1
            return refused(Refused(NOT_AUTHORIZED, "not authorised to publish the will"))
        current = self.live.get(client_id)
        mailbox = self.mailboxes.get(client_id)
        owner = current.state.principal if current is not None else mailbox.owner if mailbox is not None else principal
        if owner != principal:
            return refused(Refused(NOT_AUTHORIZED, "the client id is another principal's"))
        if current is not None:
            current.close(TAKEN_OVER, "session taken over")
        connection = Connection(principal, rights, self._clock(), request.will)
        connection.own = own
        session.state = connection
        self.live[client_id] = session
        self._counters.connects += 1
        mailbox = self.mailboxes.get(client_id)
        delayed = self._wills.pop(client_id, None)
        if mailbox is not None and request.clean_start:
            self.discard(mailbox)
            mailbox = None
            if delayed is not None:  # the session ended: 3.1.3.2.2
                self._fire(client_id, principal, delayed[1], delayed[2])
        opened = Opened(present=False)
        if mailbox is not None:
            doubtful = any(receipt.failure is not None for receipt in mailbox.inbound.values())
            if doubtful:
                # a transaction failed: what the log says is true, and known once the lane works again
                self.live.pop(client_id)
                return refused(Refused(UNAVAILABLE, "the session is being recovered"))
            opened = Opened(present=True, state=mailbox.attach(session))
        elif session.durable:
            mailbox = self._mailbox(client_id, principal, rights, session.identity.limits)
            mailbox.session = session
        if mailbox is None and request.will is None:
            return settled(opened)
        if mailbox is not None:
            connection.mailbox = mailbox
            mailbox.rights = rights
            mailbox.own = own
            mailbox.username = session.identity.username or ""
            mailbox.expiry = _expiry(session)
            mailbox.protocol = request.protocol
            mailbox.limit = session.identity.limits.queue
        return answer(self.store(session), opened)

    def _mailbox(self, client_id: str, owner: str, rights: Rights, limits: Limits) -> Mailbox:
        mailbox = Mailbox(client_id, owner, rights, limit=limits.queue, touched=self._touch)
        mailbox.limit_bytes = limits.queue_bytes
        self.mailboxes[client_id] = mailbox
        return mailbox

    def closed(self, session: Session, ending: Ending) -> None:
        client_id, connection = session.client_id, session.state
        if self.live.get(client_id) is session:
            del self.live[client_id]
        mailbox = connection.mailbox
        connection.feed = None
        if mailbox is None:
            self._fanout.drop(connection.gate or session, [each.filter for each in ending.state.subscriptions])
        else:
            mailbox.expiry = ending.session_expiry
            mailbox.detach(ending.state, self._clock())
            if not ending.session_expiry:
                self.discard(mailbox)
                mailbox = None
        will = connection.will
        if will is not None and not ending.will:
            will = None
        username = session.identity.username or ""
        if will is not None:
            delay = min(will.delay, ending.session_expiry) if mailbox is not None else 0
            if delay:
                self._wills[client_id] = (self._clock() + delay, will, username)
            else:
                self._fire(client_id, connection.principal, will, username)
        if mailbox is not None:
            self.store_mailbox(mailbox, None)
        elif connection.will is not None:
            self._ticks().write(SESSIONS, None, client_id.encode())

    def discard(self, mailbox: Mailbox) -> None:
        """End a persistent session and forget all it had."""
        self._fanout.drop(mailbox, list(mailbox.subscriptions))  # type: ignore[arg-type]  # stands for its session
        self.mailboxes.pop(mailbox.client_id, None)
        self._touched.pop(mailbox.client_id, None)
        ticks = self._ticks()
        for entry in mailbox.pending.values():
            if entry.number:
                ticks.write(INBOX, None, inbox_key(mailbox.client_id, entry.number))
        for number in mailbox.gone:
            ticks.write(INBOX, None, inbox_key(mailbox.client_id, number))
        for packet_id in mailbox.inbound:
            ticks.write(SESSIONS, None, mark_key(mailbox.client_id, packet_id))
        ticks.write(SESSIONS, None, mailbox.client_id.encode())

    # --- subscriptions

    def subscriber(self, session: Session) -> Any:
        """Who stands in the fan-out for this session."""
        mailbox = session.state.mailbox
        if mailbox is not None:
            return mailbox
        return session.state.gate or session

    def remember(self, session: Session, subscriptions: Sequence[Subscription]) -> None:
        """A persistent session's subscriptions, to be durable before the SUBACK."""
        mailbox = session.state.mailbox
        if mailbox is not None:
            mailbox.subscriptions.update({each.filter: each for each in subscriptions})
            self.store(session)

    def forget(self, session: Session, filters: Sequence[str]) -> Receipt[Any]:
        mailbox = session.state.mailbox
        if mailbox is None:
            return settled()
        for each in filters:
            mailbox.subscriptions.pop(each, None)
        return self.store(session)

    # --- QoS 2 from devices

    def release(self, session: Session, packet_id: int) -> Receipt[Any]:
        """Forget a packet id's mark, durably."""
        if session.state.mailbox is None:
            return settled()
        return self._unmark(session.client_id, packet_id)

    def _unmark(self, client_id: str, packet_id: int) -> Receipt[Any]:
        receipt = self._ticks().write(SESSIONS, None, mark_key(client_id, packet_id))
        # a mark that stays would make the next message of this packet id a repetition
        again_if_failed(receipt, lambda: self._unmark(client_id, packet_id))
        return receipt

    def mark(self, client_id: str, packet_id: int, *, there: bool) -> None:
        """The log says whether a packet id is marked."""
        if there:
            self._marks.setdefault(client_id, set()).add(packet_id)
        elif client_id in self._marks:
            self._marks[client_id].discard(packet_id)
            if not self._marks[client_id]:
                del self._marks[client_id]

    # --- wills

    def _fire(self, client_id: str, principal: str, will: Will, username: str) -> None:
        if not self._registry.rights(principal, client_id).may_publish(will.topic):
            self._counters.denied += 1
            log.info("the will of %s is not published: its topic is not allowed any more", client_id)
            return
        self._uplinks.publish_will(will, client_id, username)

    def sweep(self) -> None:
        """Once a second: wills that are due, sessions that expired."""
        now = self._clock()
        for client_id, (due, will, username) in list(self._wills.items()):
            if due <= now:
                del self._wills[client_id]
                mailbox = self.mailboxes.get(client_id)
                self._fire(client_id, mailbox.owner if mailbox is not None else username, will, username)
                if mailbox is not None:
                    self.store_mailbox(mailbox, None)
        for mailbox in list(self.mailboxes.values()):
            at = mailbox.disconnected_at
            if at is not None and mailbox.expiry != OFFLINE_FOR_EVER and now >= at + mailbox.expiry:
                found = self._wills.pop(mailbox.client_id, None)
                if found is not None:
                    self._fire(mailbox.client_id, mailbox.owner, found[1], found[2])
                self.discard(mailbox)

    # --- records

    def store(self, session: Session) -> Receipt[Any]:
        """Write a connected session's record."""
        mailbox = session.state.mailbox
        if mailbox is not None:
            return self.store_mailbox(mailbox, session.state.will)
        record = StoredSession(
            client_id=session.client_id,
            owner=session.state.principal,
            gateway=self._gateway,
            expiry=0,
            protocol=session.request.protocol,
            connected=True,
            will=_will_object(session.state.will),
        )
        return self._ticks().write(SESSIONS, contract.encode(record), session.client_id.encode())

    def store_mailbox(self, mailbox: Mailbox, will: Will | None) -> Receipt[Any]:
        """Write a persistent session's record. `will` is the connected session's."""
        due = self._wills.get(mailbox.client_id)
        record = StoredSession(
            client_id=mailbox.client_id,
            owner=mailbox.owner,
            gateway=self._gateway,
            expiry=mailbox.expiry,
            protocol=mailbox.protocol,
            subscriptions=tuple(asdict(each) for each in mailbox.subscriptions.values()),
            connected=mailbox.session is not None,
            disconnected_at=mailbox.disconnected_at,
            will=_will_object(due[1] if due is not None else will),
            will_at=due[0] if due is not None else None,
            own=asdict(mailbox.own) if mailbox.own is not None else None,
        )
        return self._ticks().write(SESSIONS, contract.encode(record), mailbox.client_id.encode())

    def store_entry(self, mailbox: Mailbox, entry: Entry) -> Receipt[Any]:
        """Write one mailbox entry now."""
        mailbox.unstored.pop(entry.message, None)
        key = inbox_key(mailbox.client_id, mailbox.number(entry))
        return self._ticks().write(INBOX, encode_entry(entry), key)

    def _touch(self, mailbox: Mailbox) -> None:
        self._touched[mailbox.client_id] = mailbox

    async def checkpoint(self) -> None:
        """Make what the mailboxes hold durable, then how far delivery had come."""
        async with self._checkpointing:
            await self._checkpoint()

    async def _checkpoint(self) -> None:
        positions, began = dict(self._positions()), self._clock()
        touched, self._touched = self._touched, {}
        if not touched and positions == self._checkpointed:
            return
        ticks = self._ticks()
        stored: list[Receipt[Any]] = []
        gone: list[tuple[str, int]] = []
        for mailbox in touched.values():
            stored += [self.store_entry(mailbox, entry) for entry in list(mailbox.unstored.values())]
            gone += [(mailbox.client_id, number) for number in mailbox.gone]
            mailbox.gone = []
        for receipt in dict.fromkeys(stored):
            await over(receipt)
            if receipt.failure is not None:
                for mailbox in touched.values():
                    mailbox.unstored.update(mailbox.pending)
                    self._touch(mailbox)
                return
        value = {
            "v": contract.VERSION,
            "at": began,
            "positions": [[key.topic, key.partition, at] for key, at in positions.items()],
        }
        written = ticks.write(SESSIONS, json.dumps(value).encode(), (CHECKPOINT_KEY + self._gateway).encode())
        await over(written)
        if written.failure is None:
            self._checkpointed = positions
        for client_id, number in gone:
            ticks.write(INBOX, None, inbox_key(client_id, number))

    # --- after a restart

    def restore(
        self, sessions: Mapping[bytes, bytes], inbox: Mapping[bytes, bytes]
    ) -> tuple[dict[TopicPartition, int], float]:
        """Take up what an earlier run of this gateway left; where delivery goes on, and since when topics that are not
        named are to be read (empty and 0: there is nothing to go on with)."""
        found = {}
        now = self._clock()
        positions: dict[TopicPartition, int] = {}
        at = 0.0
        marks: dict[str, set[int]] = {}
        for key, value in sessions.items():
            name = key.decode("utf-8", "replace")
            if name.startswith(CHECKPOINT_KEY):
                if name == CHECKPOINT_KEY + self._gateway:
                    given = json.loads(value)
                    at = float(given["at"])
                    positions = {TopicPartition(topic, index): offset for topic, index, offset in given["positions"]}
                continue
            if (mark := parse_mark_key(key)) is not None:
                marks.setdefault(mark[0], set()).add(mark[1])
                continue
            try:
                found[name] = contract.decode(StoredSession, value)
            except MalformedRecord as error:
                log.error("the session of %r is unreadable and left out: %s", name, error)
        for record in found.values():
            if record.gateway == self._gateway:
                self._restore_session(record, now)
        self._restore_marks(marks)
        for key in sorted(inbox):
            try:
                client_id, number = parse_inbox_key(key)
                mailbox = self.mailboxes.get(client_id)
                if mailbox is None:
                    if client_id not in found:
                        self._ticks().write(INBOX, None, key)
                    continue
                mailbox.restored(number, *decode_entry(inbox[key]))
            except MalformedRecord as error:
                log.error("%s: left out", error)
        self._checkpointed = positions
        return (positions, at) if self.mailboxes or self._registry.downlinks else ({}, 0.0)

    def replayed(self) -> None:
        """Delivery has come to where the earlier run was: nothing is met twice any more."""
        for mailbox in self.mailboxes.values():
            mailbox.replayed = None
            if mailbox.gone:
                self._touch(mailbox)

    def _restore_marks(self, marks: Mapping[str, set[int]]) -> None:
        for client_id, packet_ids in marks.items():
            mailbox = self.mailboxes.get(client_id)
            for packet_id in packet_ids:
                if mailbox is not None:
                    mailbox.inbound[packet_id] = settled()
                else:
                    self._ticks().write(SESSIONS, None, mark_key(client_id, packet_id))

    def _restore_session(self, record: StoredSession, now: float) -> None:
        will = _will_of(record.will)
        if not record.expiry:
            if will is not None:  # its gateway died: the will is due
                self._fire(record.client_id, record.owner, will, record.owner)
            self._ticks().write(SESSIONS, None, record.client_id.encode())
            return
        own = contract.policy_of(record.own)
        rights = self._registry.rights(record.owner, record.client_id, own)
        mailbox = self._mailbox(record.client_id, record.owner, rights, Limits())
        mailbox.username = record.owner
        mailbox.own = own
        mailbox.expiry = record.expiry
        mailbox.protocol = record.protocol
        mailbox.disconnected_at = now if record.connected else record.disconnected_at or now
        for each in record.subscriptions:
            subscription = Subscription(**each)
            mailbox.subscriptions[subscription.filter] = subscription
            # the rules may have changed meanwhile: every delivery is asked for
            self._fanout.subscribe(mailbox, replace(subscription, check=True))  # type: ignore[arg-type]  # stands for its session
        if will is not None:
            due = record.will_at if record.will_at is not None else now + min(will.delay, record.expiry)
            self._wills[record.client_id] = (due, will, record.owner)
        if record.connected:
            self.store_mailbox(mailbox, None)

    async def recover(
        self, lanes_ready: Callable[[], Awaitable[None]], caught_up: Callable[[], Awaitable[None]]
    ) -> None:
        """Take the marks of sessions in doubt from the log, when it can be relied on again."""
        doubtful = [
            mailbox
            for mailbox in self.mailboxes.values()
            if mailbox.session is None and any(each.failure is not None for each in mailbox.inbound.values())
        ]
        if not doubtful:
            return
        await lanes_ready()
        await caught_up()
        for mailbox in doubtful:
            if mailbox.session is None:
                mailbox.inbound = {packet_id: settled() for packet_id in self._marks.get(mailbox.client_id, ())}

    # --- running

    def start(self) -> None:
        self._tasks = [asyncio.get_running_loop().create_task(self._run())]

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(CHECKPOINT_INTERVAL)
            self.sweep()
            try:
                await self.checkpoint()
            except Exception:
                log.exception("a checkpoint failed; the next one makes up for it")

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        with contextlib.suppress(TimeoutError):  # with the broker away it never ends, and what it saves is a shortcut
            await asyncio.wait_for(self.checkpoint(), CHECKPOINT_PATIENCE)


def _expiry(session: Session) -> int:
    return int(getattr(session, "session_expiry", session.request.session_expiry))  # as granted


def _will_object(will: Will | None) -> dict[str, Any] | None:
    if will is None:
        return None
    found = asdict(will)
    found["payload"] = will.payload.hex()
    found["properties"] = properties_object(will.properties)
    return found


def _will_of(found: dict[str, Any] | None) -> Will | None:
    if found is None:
        return None
    will = Will(**{**found, "payload": bytes.fromhex(found["payload"]), "properties": None})
    return replace(will, properties=properties_of(found["properties"]))
