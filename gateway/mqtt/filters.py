"""SUBSCRIBE and UNSUBSCRIBE of a session, from their bytes to their answers.

One packet may name two thousand filters. They are decoded and checked a few at a time (`Engine.work`); the engine is
asked once all are, so that a malformed one ends the connection with nothing granted. The session isn't read from
meanwhile: what is behind such a packet takes effect after it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

from gateway.chores import STEP
from gateway.mqtt import packets
from gateway.mqtt.errors import Malformed, PeerError, Reason
from gateway.mqtt.pacing import SUBSCRIBING
from gateway.mqtt.topics import MAX_BYTES, MAX_LEVELS, split_share, valid_filter
from gateway.ports import Receipt, Subscription

if TYPE_CHECKING:
    from gateway.mqtt.session import Session

LEVELS_EACH: Final = 16  # topic levels that a subscription may have, averaged over as many as the device may have
BYTES_EACH: Final = 128  # and characters
LONG: Final = 1_000  # characters of a filter that is a step of its own: each of them is looked at
MOST_SHARED: Final = 20  # shared subscriptions of a session: each is eight parts that gateways have to share out


def subscribe(session: Session, body: bytes) -> None:
    """Take a SUBSCRIBE. Raises PeerError, or ends the connection later for what is wrong with it."""
    _work(session, _subscribing(session, packets.decode_subscribe(body, session.request.protocol)))


def unsubscribe(session: Session, body: bytes) -> None:
    """Likewise an UNSUBSCRIBE."""
    _work(session, _unsubscribing(session, packets.decode_unsubscribe(body, session.request.protocol)))


def added(session: Session, subscriptions: Iterable[Subscription]) -> None:
    """The session has these from now on."""
    if session.subscriptions is None:
        session.subscriptions = {}
    known = session.subscriptions
    for each in subscriptions:
        name = each.filter
        if name not in known:
            session._levels += name.count("/") + 1
            session._length += len(name)
        known[name] = each


def removed(session: Session, filters: Iterable[str]) -> None:
    """It has none with these filters any more."""
    known = session.subscriptions or {}
    for name in filters:
        if known.pop(name, None) is not None:
            session._levels -= name.count("/") + 1
            session._length -= len(name)


def _work(session: Session, steps: Iterator[None]) -> None:
    session.hold(SUBSCRIBING)
    session._engine.work(session, _until_closed(session, steps))


def _until_closed(session: Session, steps: Iterator[None]) -> Iterator[None]:
    try:
        for _ in steps:
            yield
            if session.closed:
                return
    except PeerError as error:
        session._failed(error)


def _subscribing(session: Session, packet: packets.Subscribe) -> Iterator[None]:
    known = session.subscriptions or {}
    limits = session.identity.limits
    limit, qos = limits.subscriptions, limits.qos
    levels = limit * LEVELS_EACH + MAX_LEVELS - session._levels
    length = limit * BYTES_EACH + MAX_BYTES - session._length
    shared: int | None = None  # that it may have more, once it asks for one
    wanted: list[Subscription] = []
    codes: list[int] = []
    new: set[str] = set()
    for number, (name, options) in enumerate(packet.filters, 1):
        if number % STEP == 0 or len(name) > LONG:
            yield
        group, plain = split_share(name)
        if name not in known and name not in new:
            deep = name.count("/") + 1
            if group is not None and shared is None:
                shared = MOST_SHARED - sum(each.startswith("$share/") for each in known)
            if limit and (
                len(known) + len(new) >= limit
                or levels < deep <= MAX_LEVELS
                or length < len(name)
                or (group is not None and not shared)
            ):
                codes.append(Reason.QUOTA_EXCEEDED)
                continue
            levels -= deep
            length -= len(name)
            if group is not None and shared:
                shared -= 1
            new.add(name)
        if group is not None and options & 4:
            raise PeerError("No Local on a shared subscription")  # MQTT-3.8.3-4
        if not valid_filter(plain):
            if session.request.protocol != 5 or "\x00" in name or not name:
                raise Malformed("not a topic filter")
            raise PeerError("not a topic filter", Reason.TOPIC_FILTER_INVALID)
        codes.append(-1)
        wanted.append(
            Subscription(
                filter=name,
                qos=min(options & 3, qos),
                no_local=bool(options & 4),
                retain_as_published=bool(options & 8),
                retain_handling=options >> 4 & 3,
                identifier=packet.identifier,
            )
        )
    _wait(session._engine.subscribe(session, wanted), _SubscribeReply(session, packet.packet_id, codes, wanted))


def _unsubscribing(session: Session, packet: packets.Unsubscribe) -> Iterator[None]:
    filters: list[str] = []
    for name in packet.filters:
        if not valid_filter(split_share(name)[1]):
            raise Malformed("not a topic filter")
        filters.append(name)
        if len(filters) % STEP == 0 or len(name) > LONG:
            yield
    _wait(session._engine.unsubscribe(session, filters), _UnsubscribeReply(session, packet.packet_id, filters))


def _wait(receipt: Receipt[Any], waiter: _SubscribeReply | _UnsubscribeReply) -> None:
    if receipt.settled:
        waiter.receipt_settled(receipt)
    else:
        receipt.waiters.append(waiter)


class _SubscribeReply:
    """Answers one SUBSCRIBE when the engine has: at once, so that nobody sees a subscription half there."""

    __slots__ = ("_codes", "_packet_id", "_session", "_wanted")

    def __init__(self, session: Session, packet_id: int, codes: list[int], wanted: list[Subscription]) -> None:
        self._session = session
        self._packet_id = packet_id
        self._codes = codes  # -1: the engine's answer goes here
        self._wanted = wanted

    def receipt_settled(self, receipt: Receipt[list[int]]) -> None:
        session = self._session
        if session.closed:
            return
        if receipt.failure is not None or receipt.value is None:
            session.close(Reason.UNSPECIFIED, str(receipt.failure or "no answer to SUBSCRIBE"))
            return
        granted = [entry for entry, code in zip(self._wanted, receipt.value, strict=True) if code < 0x80]
        added(session, granted)
        answers = iter(receipt.value)
        codes = [next(answers) if code < 0 else code for code in self._codes]
        if session.identity.limits.conceal_denied:
            codes = [Reason.UNSPECIFIED if code == Reason.NOT_AUTHORIZED else code for code in codes]
        session.answer(packets.encode_suback(self._packet_id, codes, session.request.protocol))
        if not session.closed:
            session._engine.subscribed(session, granted)
            session.let_go(SUBSCRIBING)


class _UnsubscribeReply:
    """Answers one UNSUBSCRIBE when the engine has."""

    __slots__ = ("_filters", "_packet_id", "_session")

    def __init__(self, session: Session, packet_id: int, filters: list[str]) -> None:
        self._session = session
        self._packet_id = packet_id
        self._filters = filters

    def receipt_settled(self, receipt: Receipt[list[int]]) -> None:
        session = self._session
        if session.closed:
            return
        if receipt.failure is not None or receipt.value is None:
            session.close(Reason.UNSPECIFIED, str(receipt.failure or "no answer to UNSUBSCRIBE"))
            return
        removed(session, self._filters)
        session.answer(packets.encode_unsuback(self._packet_id, receipt.value, session.request.protocol))
        if not session.closed:
            session.let_go(SUBSCRIBING)
