"""The receiving half of a session: frames out of bytes, PUBLISH on its own tight path.

Theory of operation
-------------------
`receive` gets what one read brought. Complete frames are taken straight out of it; an incomplete one is kept, with the
number of bytes it needs, so that a frame that drips in is looked at once it is whole and never copied again and again.

A run of PUBLISH frames becomes one list of items for one `Engine.publish` and one entry of the FIFO of
`acknowledging`. Everything that isn't a PUBLISH ends the run first: packets take effect in their order.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, Final

from gateway.mqtt import packets
from gateway.mqtt import properties as p
from gateway.mqtt.acknowledging import Acknowledging
from gateway.mqtt.errors import Malformed, PeerError, Reason, TooLarge
from gateway.mqtt.pacing import AHEAD, CONGESTED, CROWDED, IN_FLIGHT, SUBSCRIBING
from gateway.mqtt.surroundings import Link, Moment, Settings
from gateway.mqtt.topics import valid_name
from gateway.ports import (
    Engine,
    PublishItem,
    PublishProperties,
    Receipt,
    Target,
    settled,
)

_CACHED_TOPICS: Final = 512
_CACHED_TOPIC_BYTES: Final = 256
MOST_IDLE: Final = 64
MOST_AHEAD: Final = 16_384  # bytes that are read beyond a SUBSCRIBE under way, and one read more


class Receiver(Acknowledging):
    """Base of `session.Session`; see the module."""

    __slots__ = (
        "_aliases",
        "_epoch",
        "_idle",
        "_max_packet",
        "_settings",
        "_targets",
        "other_packets",
        "received_messages",
        "refused_messages",
    )

    def __init__(self, engine: Engine, link: Link, settings: Settings, moment: Moment) -> None:
        super().__init__(engine, link, moment)
        self._settings = settings
        self._max_packet = settings.first_packet
        self._epoch = -1
        self._idle = 0  # packets of one read that are no message and acknowledge none, or what they were worth
        self._targets: dict[bytes, Target] | None = None
        self._aliases: dict[int, bytes] | None = None
        self.received_messages = 0
        self.other_packets = 0  # received, and no PUBLISH
        self.refused_messages = 0

    # -- what Session adds -----------------------------------------------------------------------------------------

    @abstractmethod
    def _packet(self, first: int, body: bytes) -> None: ...

    @abstractmethod
    def _failed(self, error: PeerError) -> None: ...

    # -- bytes in --------------------------------------------------------------------------------------------------

    def receive(self, chunk: bytes) -> None:
        """What one read brought."""
        if self.closed:
            return
        self.heard = self._moment.monotonic
        rest = self._rest
        if rest is not None:
            rest += chunk
            if self._held:
                if len(rest) >= MOST_AHEAD and self._held == SUBSCRIBING:
                    self.hold(AHEAD)
                return
            if len(rest) < self._need:
                return
            chunk = bytes(rest)
            self._rest = None
        elif self._held:
            self._keep(chunk, 0, 0)
            return
        if self._engine.congested and self.connected:
            self.hold(CONGESTED)
            self._keep(chunk, 0, 0)
            return
        self._take(chunk)

    def _keep(self, data: bytes, position: int, need: int) -> None:
        self._rest = bytearray(data[position:] if position else data)
        self._need = need

    def _take(self, data: bytes) -> None:
        """Take every complete frame."""
        engine = self._engine
        if self._epoch != engine.epoch:
            self._epoch = engine.epoch
            self._targets = None
        targets = self._targets
        if targets is None:
            targets = {}
        v5 = self.connected and self.request.protocol == 5
        largest = self._max_packet
        items: list[PublishItem] = []
        acks: list[bytes] = []
        ones = 0  # how many of the acks are PUBACKs that count as in flight
        twos: list[int] = []
        position, end, need = 0, len(data), 0
        self._idle = 0
        failure: PeerError | None = None
        try:
            if not self.connected and data[0] & 0xF0 != 0x10:
                self._check_first(data[0])
            while position + 2 <= end:
                first = data[position]
                length = data[position + 1]
                body = position + 2
                if length > 127:
                    length, body = _long_length(data, position, end)
                    if length < 0:
                        break
                if length > largest:
                    raise TooLarge(f"a packet of {length} bytes, {largest} are allowed")
                stop = body + length
                if stop > end:
                    need = stop - position
                    break
                if first & 0xF0 != 0x30 or not self.connected:
                    if items or acks:
                        run = items, acks, ones, twos
                        items, acks, ones, twos = [], [], 0, []
                        self._submit(*run)
                        if self.closed:
                            return
                    self.other_packets += 1
                    self._packet(first, data[body:stop])
                    position = stop
                    if self.closed:
                        return
                    if self._idle >= MOST_IDLE and position < end and not self._held:
                        self.hold(CROWDED)
                        engine.work(self, self._later())  # type: ignore[arg-type]
                    if self._held:
                        break
                    if largest != self._max_packet:  # the CONNECT was answered at once
                        largest = self._max_packet
                        v5 = self.connected and self.request.protocol == 5
                    continue
                # PUBLISH: the hot path. Anything odd leaves it by an exception or a helper.
                start = body + 2
                here = start + (data[body] << 8 | data[body + 1]) if length > 1 else end + 1
                topic = data[start:here]
                packet_id = 0
                behind = here
                qos = first & 0x06
                if qos:
                    behind = here + 2
                    if behind > stop:
                        raise Malformed("PUBLISH is cut short")
                    packet_id = data[here] << 8 | data[here + 1]
                    if packet_id == 0:
                        raise PeerError("packet identifier 0")
                elif here > stop:
                    raise Malformed("PUBLISH is cut short")
                properties: PublishProperties | None = None
                if v5:
                    if behind < stop and data[behind] == 0 and topic:
                        behind += 1
                    else:
                        topic, properties, behind = self._publish_extras(data, topic, behind, stop)
                target = targets.get(topic)
                if target is None:
                    target = self._resolve(topic, targets)
                began, position = position, stop
                if qos == 0:
                    if first & 0x08:
                        raise Malformed("DUP with QoS 0")
                    if target.refused:
                        self._refuse(target, 0, 0)
                    else:
                        items.append((target, data[behind:stop], first & 0x0F, 0, properties))
                        if properties is None and data.startswith(data[began:behind], stop):
                            position = _alike_zero(data, began, behind, stop, items)
                elif qos == 0x02:
                    if not target.refused:
                        items.append((target, data[behind:stop], first & 0x0F, packet_id, properties))
                        acks.append(b"\x40\x02" + data[here : here + 2])
                        ones += 1
                        if behind <= here + 3 and data.startswith(data[began:here], stop):  # no properties
                            position = _alike_one(data, began, here, behind, stop, items, acks)
                            ones += (position - stop) // (stop - began)
                    else:
                        acks.append(self._refuse(target, packet_id, 1))
                elif qos == 0x04:
                    if packet_id in twos or (self.inbound is not None and packet_id in self.inbound):
                        run = items, acks, ones, twos
                        items, acks, ones, twos = [], [], 0, []
                        self._submit(*run)
                        if not self.closed:
                            self._answer_again(packet_id)
                    elif not target.refused:
                        items.append((target, data[behind:stop], first & 0x0F, packet_id, properties))
                        acks.append(b"\x50\x02" + data[here : here + 2])
                        twos.append(packet_id)
                    else:
                        acks.append(self._refuse(target, packet_id, 2))
                else:
                    raise Malformed("QoS 3")
                if self.closed:
                    return
        except PeerError as error:
            failure = error
        if items or acks:  # what came before an error counts
            try:
                self._submit(items, acks, ones, twos)
            except PeerError as error:
                failure = error
        if self.closed:
            return
        if failure is not None:
            self._failed(failure)
            return
        if targets and self._targets is None and self._epoch == engine.epoch:
            self._targets = targets
        if position < end:
            self._keep(data, position, need)

    def _later(self) -> Iterator[None]:
        """What is left of a read that holds many packets of no use to anybody, in turn with everybody else's work."""
        yield
        self.let_go(CROWDED)

    def _check_first(self, byte: int) -> None:
        if not self._may_authenticate(byte):
            raise Malformed("the first packet is not CONNECT")

    @abstractmethod
    def _may_authenticate(self, byte: int) -> bool: ...

    def _resolve(self, raw: bytes, targets: dict[bytes, Target]) -> Target:
        """A topic not seen lately: check its form, ask the engine, remember."""
        topic = p.text_of(raw)
        if not valid_name(topic):
            raise PeerError("not a topic name", Reason.TOPIC_NAME_INVALID)
        target = self._engine.target(self, topic)  # type: ignore[arg-type]  # Session, our only subclass, is one
        if len(raw) <= _CACHED_TOPIC_BYTES:
            if len(targets) >= _CACHED_TOPICS:
                targets.clear()
            targets[raw] = target
        return target

    def _publish_extras(
        self, data: bytes, topic: bytes, position: int, stop: int
    ) -> tuple[bytes, PublishProperties | None, int]:
        """An MQTT 5 PUBLISH with properties or without a topic: (topic, what travels on, start of the payload)."""
        found, position = p.read_properties(data, position, stop, p.PUBLISH)
        if p.SUBSCRIPTION_IDENTIFIER in found:
            raise PeerError("a client can't set subscription identifiers")
        alias = found.pop(p.TOPIC_ALIAS, None)
        if alias is not None:
            if alias > self.identity.limits.topic_aliases:
                raise PeerError("topic alias out of range", Reason.TOPIC_ALIAS_INVALID)
            if topic:
                if self._aliases is None:
                    self._aliases = {}
                self._aliases[alias] = topic
            elif self._aliases is None or alias not in self._aliases:
                raise PeerError("topic alias not set", Reason.PROTOCOL_ERROR)
            else:
                topic = self._aliases[alias]
        elif not topic:
            raise PeerError("PUBLISH without a topic")
        if found.get(p.PAYLOAD_FORMAT) == 1:
            try:
                data[position:stop].decode()
            except UnicodeDecodeError:
                raise PeerError("the payload is not UTF-8", Reason.PAYLOAD_FORMAT_INVALID) from None
        return topic, packets.publish_properties(found), position

    # -- to the engine ---------------------------------------------------------------------------------------------

    def _refuse(self, target: Target, packet_id: int, qos: int) -> bytes:
        """Count a refused message; its acknowledgement, or the end of the connection (MQTT 3, if so configured)."""
        self.refused_messages += 1
        self._engine.refuse(self, target)  # type: ignore[arg-type]
        if self.request.protocol != 5 and self.identity.limits.close_when_denied:
            raise PeerError("not authorised to publish", Reason.NOT_AUTHORIZED)
        if qos == 0:
            return b""
        kind = p.PUBACK if qos == 1 else p.PUBREC
        if qos == 2 and self.request.protocol != 5:
            if self.inbound is None:
                self.inbound = {}
            self.inbound[packet_id] = settled()
        return packets.encode_acknowledgement(kind, packet_id, target.refused, self.request.protocol)

    def _submit(self, items: list[PublishItem], acks: list[bytes], ones: int, twos: list[int]) -> None:
        """Give a run of messages to the engine, and queue its acknowledgements."""
        receipt: Receipt[Any]
        if items:
            limits = self.identity.limits
            self.received_messages += len(items)
            self._in_flight += ones
            held = self._in_flight
            if self.request.protocol == 5:
                if twos or self.inbound:
                    held = self._unacknowledged + len(twos)
                if held > limits.in_flight:
                    self._in_flight -= ones
                    raise PeerError("more in flight than Receive Maximum", Reason.RECEIVE_MAXIMUM_EXCEEDED)
            else:
                if twos or self.inbound:
                    held = self._owed + len(acks)
                if held >= limits.in_flight:
                    self.hold(IN_FLIGHT)
            if limits.messages_rate or limits.bytes_rate:
                self._meter(items)
            receipt = self._engine.publish(self, items)  # type: ignore[arg-type]
            if twos:
                if self.inbound is None:
                    self.inbound = {}
                for packet_id in twos:
                    self.inbound[packet_id] = receipt
            if self._engine.congested:
                self.hold(CONGESTED)
        elif acks:
            receipt = self._fifo[-1][0] if self._fifo else settled()
        else:
            return
        if acks:
            self._queue(receipt, acks, ones)


# A device's stream is mostly frames that begin alike: the same flags, length and topic. What follows a PUBLISH and
# begins as it does needs no second look at any of that.


def _alike_zero(data: bytes, began: int, behind: int, stop: int, items: list[PublishItem]) -> int:
    """Take the frames from `stop` on that are like the one before them, which was of QoS 0, began at `began` and had
    its payload at `behind`; gives where they end."""
    head, ahead, size = data[began:behind], behind - began, stop - began
    target, _, flags, _, _ = items[-1]
    last = len(data) - size
    while stop <= last and data.startswith(head, stop):
        items.append((target, data[stop + ahead : stop + size], flags, 0, None))
        stop += size
    return stop


def _alike_one(
    data: bytes, began: int, here: int, behind: int, stop: int, items: list[PublishItem], acks: list[bytes]
) -> int:
    """The same for QoS 1; the one before had its packet identifier at `here` and no properties."""
    head, ahead, size = data[began:here], behind - began, stop - began
    to_id, to_properties = here - began, behind - 1 - began
    with_properties = behind == here + 3  # it says that there are none
    target, _, flags, _, _ = items[-1]
    last = len(data) - size
    while stop <= last and data.startswith(head, stop):
        packet_id = data[stop + to_id : stop + to_id + 2]
        if packet_id == b"\0\0" or (with_properties and data[stop + to_properties]):
            break  # not so alike
        items.append((target, data[stop + ahead : stop + size], flags, packet_id[0] << 8 | packet_id[1], None))
        acks.append(b"\x40\x02" + packet_id)
        stop += size
    return stop


def _long_length(data: bytes, position: int, end: int) -> tuple[int, int]:
    """A remaining length of two to four bytes: (length, start of the body), length -1 while it is incomplete."""
    length = data[position + 1] & 0x7F
    shift = 7
    body = position + 2
    while body < end:
        byte = data[body]
        body += 1
        length |= (byte & 0x7F) << shift
        if byte < 0x80:
            return length, body
        shift += 7
        if shift > 21:
            raise Malformed("a remaining length of more than four bytes")
    return -1, body
