"""From PUBLISH to the log: authorise, route, write.

`target` answers once per (session, topic) and is cached by the session until `epoch` changes: with a route whose place
depends on nothing but device and topic, a message then costs one call into the producer with a ready list of headers.
Routes that look into the payload render per message. Refused content goes to the gateway's dead-letter topic, in the
same tick, so that it too is durable before it is acknowledged. A retained message is a second record, in
`__sluice_retained`, keyed by its MQTT topic.
"""

from __future__ import annotations

import base64
import random
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from broker.client import EncodedHeaders, Failure, PlacedAt
from broker.client.delaying import DELAY_TOPIC
from broker.client.records import ERROR_DETAIL, ERROR_REASON, MESSAGE_ID, ORIGIN_TOPIC
from gateway import contract, routes
from gateway.contract import GATEWAY_DEAD_LETTERS, MARK, RETAINED, SESSIONS, RetainedMessage, mark_key
from gateway.counters import Counters
from gateway.headers import headers_from, properties_object
from gateway.ports import Fate, Identity, PublishItem, PublishProperties, Receipt, Will
from gateway.publishing.deduplication import Seen
from gateway.publishing.target import DELAYED, Target, headers_of, later
from gateway.publishing.traffic import Traffic, prefix_of
from gateway.registry import Registry
from gateway.routes import Incoming, Placed, Refusal, Uplink
from gateway.storage.exactly import Both, Gathering, Lanes
from gateway.storage.ticks import Tick, Ticks, Write

NOT_AUTHORIZED = 0x87
TOPIC_NAME_INVALID = 0x90
DROPPED = Fate(outcome="dropped")
SAMPLED_OUT = Fate(outcome="sampled-out")
DUPLICATE = Fate(duplicate=True)


class Publisher(Protocol):
    """Whoever publishes: a session, or somebody without one."""

    @property
    def client_id(self) -> str: ...

    @property
    def identity(self) -> Identity: ...

    @property
    def state(self) -> Any:
        """A `gateway.sessions.connected.Connection`."""


Fresh = Callable[[Target, bytes, int, PublishProperties | None], PlacedAt | None]


class Uplinks:
    """The publishing half of the engine."""

    def __init__(
        self,
        ticks: Callable[[], Ticks],
        lanes: Callable[[], Lanes],
        registry: Registry,
        counters: Counters,
        *,
        clock: Callable[[], float],
        wrote: Callable[[str], None],
        reserve: Callable[[str], None] = lambda topic: None,
        dice: Callable[[], float] = random.random,
        traffic: Traffic | None = None,
        seen: Seen | None = None,
    ) -> None:
        """`wrote` hears of every broker topic that a target names, when it is made; `reserve` of those that something
        will be delivered to later, so that they are there then."""
        self._ticks = ticks
        self._lanes = lanes
        self._registry = registry
        self._counters = counters
        self.traffic = Traffic() if traffic is None else traffic
        self._clock = clock
        self._wrote = wrote
        self._reserve = reserve
        self._dice = dice
        self._topics_of: dict[str, set[str]] = {}
        self.listening: Callable[[], tuple[Fresh, PlacedAt] | None] = lambda: None  # see `Delivery`
        self.may_retain: Callable[[str, int], bool] = lambda topic, size: True  # see `RetainedMessages.room`
        self.seen = Seen(counters, clock=clock) if seen is None else seen

    def target(self, session: Publisher, topic: str) -> Target:
        """Never fails: a refusal is a target that says so."""
        username = session.identity.username or ""
        delay = b""
        if topic.startswith(DELAYED):
            found = later(topic)
            if found is None:
                target = self._target(topic, session.client_id, username)
                target.refused = TOPIC_NAME_INVALID
                return target
            delay, topic = found
        target = self._target(topic, session.client_id, username)
        target.delay = delay
        if topic[:1] == "$" or not session.state.rights.may_publish(topic):
            target.refused = NOT_AUTHORIZED
            return target
        route = self._find(target)
        if routes.fixed(route):
            message = Incoming(topic=topic, payload=b"", client_id=session.client_id, username=username)
            place = self._place(route, message)
            if isinstance(place, Placed):
                target.route = None
                target.topic, target.key = place.topic, place.key
                target.plain = not delay and not any(name.startswith(("mqtt.", "sluice.")) for name, _ in place.headers)
                for flags in (0, 2):
                    target.headers[flags] = EncodedHeaders(headers_of(target, flags, place))
                self._wrote(place.topic)
                if target.delay:
                    target.topic = DELAY_TOPIC
                    self._reserve(place.topic)
        return target

    def _target(self, topic: str, client_id: str, username: str) -> Target:
        return Target(topic, client_id, username, prefix_of(topic, self.traffic.levels))

    def _find(self, target: Target) -> Uplink:
        target.route = route = self._registry.table.find(target.mqtt_topic)
        if route is not routes.DEFAULT:
            target.route_name = route.name
        return route

    def refuse(self, target: Target) -> None:
        """One message was kept out."""
        self._counters.denied += 1
        self.traffic.refused(target)

    def publish(self, session: Publisher, items: Sequence[PublishItem]) -> Receipt[Any]:
        """Take a run in order."""
        self._counters.received += len(items)
        self.traffic.published(items)
        if session.state.mailbox is not None and any(item[2] & 4 for item in items):
            return self._publish_exactly(session, items)
        return self._publish(session, items)

    def _publish(self, session: Publisher, items: Sequence[PublishItem]) -> Receipt[Any]:
        ticks, connection = self._ticks(), session.state
        tick = ticks.current(last=connection.published_at)
        connection.published_at = ticks.now()
        tick.runs.append((session, items))
        away = ticks.away
        gather, listening = tick.gathered.append, self.listening()
        fresh, passing = listening or (None, None)
        size = 0
        # of the message before; its flags only if another one like it needs no look
        alike, topic = -1, ""
        before: Target | None = None
        key: bytes | None = None
        headers: EncodedHeaders | list[tuple[str, bytes | str | None]] | None = None
        placed: PlacedAt | None = None
        for target, payload, flags, _, properties in items:
            if flags == alike and target is before and properties is None:
                gather((topic, payload, key, headers, placed, -1))
                size += len(payload)
                continue
            if away and not flags & 6:
                self._counters.dropped_away += 1
                self.traffic.dropped(target)
                target.fate = DROPPED
                continue
            if target.route is not None:
                self._render(ticks, target, payload, flags, properties, tick)
            else:
                headers = target.headers[flags & 7]
                if headers is None:
                    headers = target.headers[flags & 7] = EncodedHeaders(headers_of(target, flags & 7, None))
                if properties is not None:
                    headers = headers + headers_from(properties)
                placed = passing if fresh is None else fresh(target, payload, flags, properties)
                topic, key = target.topic, target.key
                gather((topic, payload, key, headers, placed, -1))
                size += len(payload)
                if properties is None and placed is passing and not flags & 1:
                    alike, before = flags, target
                    continue
            alike = -1
            if flags & 1:
                self._retain(ticks, target, payload, flags, properties, tick)
        tick.size += size
        return tick.receipt

    def _publish_exactly(self, session: Publisher, items: Sequence[PublishItem]) -> Receipt[Any]:
        """A run with QoS 2 messages of a persistent session: each goes into a transaction with its packet id's mark."""
        gathered = Gathering()
        others = []
        for item in items:
            target, payload, flags, packet_id, properties = item
            if not flags & 4:
                others.append(item)
                continue
            self._render(gathered, target, payload, flags, properties)
            if flags & 1:
                self._retain(gathered, target, payload, flags, properties)
            gathered.send(None, SESSIONS, MARK, mark_key(session.client_id, packet_id), None)
        committed = self._lanes().of(session.client_id).add(gathered.writes)
        for topic, message_id, window in gathered.ids:
            self.seen.note(topic, message_id, window, committed)
        parts = [committed, *(each for each in gathered.repeats if not each.settled)]
        if others:
            parts.append(self._publish(session, others))
        return committed if len(parts) == 1 else Both(session, parts).receipt

    def publish_will(self, will: Will, client_id: str, username: str) -> Receipt[Any]:
        """Publish a will; the caller has asked whether it may be."""
        target = self._target(will.topic, client_id, username)
        self._find(target)
        ticks = self._ticks()
        tick = ticks.current()
        flags = will.qos << 1 | will.retain
        self._render(ticks, target, will.payload, flags, will.properties, tick)
        if will.retain:
            self._retain(ticks, target, will.payload, flags, will.properties, tick)
        self._counters.received += 1
        self.traffic.published([(target, will.payload, flags, 0, None)])
        tick.runs.append((None, ()))
        return tick.receipt

    # --- one message off the fast path

    def _place(self, route: Uplink, message: Incoming) -> Placed | Refusal:
        place = routes.place(route, message)
        if isinstance(place, Placed) and place.topic != route.topic:
            topics = self._topics_of.setdefault(route.name, set())
            if place.topic not in topics:
                if len(topics) >= route.max_topics:
                    detail = f"the route has made {route.max_topics} topics, {place.topic!r} would be one more"
                    return Refusal(route=route.name, reason="render", detail=detail)
                topics.add(place.topic)
        return place

    def _render(
        self,
        sink: Ticks | Gathering,
        target: Target,
        payload: bytes,
        flags: int,
        properties: PublishProperties | None,
        tick: Tick | None = None,
    ) -> None:
        """Write one message into the tick, or among what a transaction gathers."""
        send: Callable[..., None] = sink.send
        route = target.route
        if route is None:
            headers = headers_of(target, flags & 7, None)
            if properties is not None:
                headers += headers_from(properties)
            send(tick, target.topic, payload, target.key, headers)
            return
        if route.sample < 1.0 and self._dice() >= route.sample:
            self._counters.sampled_out += 1
            target.fate = SAMPLED_OUT
            return
        message = Incoming(
            topic=target.mqtt_topic,
            payload=payload,
            client_id=target.client_id,
            username=target.username,
            qos=flags >> 1 & 3,
        )
        place = self._place(route, message)
        if isinstance(place, Refusal):
            self._counters.dead_lettered += 1
            self.traffic.dead_lettered(target)
            headers = headers_of(target, flags & 7, None)
            if properties is not None:
                headers += headers_from(properties)
            reason, detail = _slug(place.reason), f"{place.route}: {place.detail}"
            headers += [(ERROR_REASON, reason), (ERROR_DETAIL, detail)]
            target.fate = Fate(outcome="dead-letter", reason=reason, detail=detail)
            send(tick, GATEWAY_DEAD_LETTERS, payload, target.client_id.encode(), headers)
            return
        if route.deduplicate and self._repeated(sink, tick, route, place, properties):
            self._counters.duplicates += 1
            target.fate = DUPLICATE
            return
        self._wrote(place.topic)
        headers = headers_of(target, flags & 7, place)
        if properties is not None:
            headers += headers_from(properties)
        if target.delay:
            self._reserve(place.topic)
        send(tick, DELAY_TOPIC if target.delay else place.topic, payload, place.key, headers)

    def _repeated(
        self,
        sink: Ticks | Gathering,
        tick: Tick | None,
        route: Uplink,
        place: Placed,
        properties: PublishProperties | None,
    ) -> bool:
        """Whether the message's id is stored, or on its way: then the receipt of this one waits for that."""
        message_id = place.message_id or _own_id(properties)
        if not message_id:
            return False
        if isinstance(sink, Gathering) and (place.topic, message_id, route.deduplicate) in sink.ids:
            return True
        earlier = self.seen.earlier(place.topic, message_id, route.deduplicate)
        if isinstance(sink, Gathering):
            if earlier is None:
                sink.ids.append((place.topic, message_id, route.deduplicate))
            else:
                sink.repeats.append(earlier)
            return earlier is not None
        assert tick is not None
        if earlier is None:
            self.seen.note(place.topic, message_id, route.deduplicate, tick.receipt)
        elif earlier is not tick.receipt:
            sink.after(tick, earlier)
        return earlier is not None

    def _retain(
        self,
        sink: Ticks | Gathering,
        target: Target,
        payload: bytes,
        flags: int,
        properties: PublishProperties | None,
        tick: Tick | None = None,
    ) -> None:
        if target.delay:
            return
        send: Callable[..., None] = sink.send
        value = None
        if payload:
            if not self.may_retain(target.mqtt_topic, len(payload)):
                self._counters.unretained += 1
                return
            expires = None
            if properties is not None and properties.message_expiry is not None:
                expires = self._clock() + properties.message_expiry
            value = contract.encode(
                RetainedMessage(
                    topic=target.mqtt_topic,
                    payload=base64.b64encode(payload).decode(),
                    qos=flags >> 1 & 3,
                    client_id=target.client_id,
                    expires_at=expires,
                    properties=properties_object(properties),
                )
            )
        send(tick, RETAINED, value, target.mqtt_topic.encode(), None)

    def refused(self, tick: Tick, failure: Failure) -> Write | None:
        """The log refused this record for good: a device's message becomes a dead letter."""
        if failure.topic == GATEWAY_DEAD_LETTERS or failure.topic.startswith("__"):
            for waiter, _ in tick.runs:
                if waiter is not None:
                    tick.receipt.doubt(waiter)
            return None
        self._counters.dead_lettered += 1
        headers: list[tuple[str, bytes | str | None]] = []
        target: Target | None = None
        for waiter, run in tick.runs:
            for item in run:
                if waiter is not None and item[0].topic == failure.topic and item[1] == failure.value:
                    headers = headers_of(item[0], item[2] & 7, None)
                    target = item[0]
        reason = "size" if type(failure.error).__name__ == "RecordTooLarge" else "rejected"
        if target is not None:
            self.traffic.dead_lettered(target)
            target.fate = Fate(outcome="dead-letter", reason=reason, detail=str(failure.error))
        headers += [(ERROR_REASON, reason), (ERROR_DETAIL, str(failure.error)), (ORIGIN_TOPIC, failure.topic)]
        return GATEWAY_DEAD_LETTERS, failure.value, failure.key, headers


def _slug(reason: str) -> str:
    return "schema" if reason == "json" else reason


def _own_id(properties: PublishProperties | None) -> str:
    """The id that a device gave its message by a user property."""
    if properties is None:
        return ""
    return next((value for name, value in properties.user if name == MESSAGE_ID), "")
