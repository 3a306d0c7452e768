"""The sending half of a session: window, packet ids, queue, topic aliases, PUBLISH frames.

A message of QoS 1 or 2 goes out when the window (the smaller of the client's Receive Maximum and `Limits.window`) has
room, nothing waits before it and the link takes data; else it waits in a bounded queue; else `deliver` says no. QoS 0
never waits: behind a full link it is dropped and counted. Sent again after a reconnect are exactly the messages whose
acknowledgement is missing, in their order, with their packet ids and DUP (MQTT-4.4.0-1).

Made when the first message or state arrives: devices that only publish don't pay for it.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from gateway.mqtt import packets
from gateway.mqtt import properties as p
from gateway.mqtt.errors import PeerError, Reason
from gateway.mqtt.surroundings import Link, Moment
from gateway.ports import Engine, InFlight, Message, Receipt, Session, SessionState

_EMPTY_PROPERTIES: Final = b"\x00"
LONGEST: Final = 0xFFFFFFFF  # seconds that a Message Expiry Interval can say


def publish_frame(
    message: Message, first: int, packet_id: int, fields: bytes | None, topic: bytes | None = None
) -> bytes:
    """A PUBLISH. `fields` are the encoded properties (None: not MQTT 5); `topic` empty when an alias stands for it."""
    if topic is None:
        topic = message.topic.encode()
    head = len(topic).to_bytes(2, "big") + topic
    if first & 0x06:
        head += packet_id.to_bytes(2, "big")
    if fields is not None:
        head += p.varint(len(fields)) + fields if fields else _EMPTY_PROPERTIES
    payload = message.payload
    return b"".join((bytes((first,)), p.varint(len(head) + len(payload)), head, payload))


class Sender:
    """See the module. `window`, `largest` (0: no limit) and `aliases` are what the client granted."""

    __slots__ = (
        "_again",
        "_aliases",
        "_aliases_max",
        "_engine",
        "_in_flight",
        "_largest",
        "_last_id",
        "_limit",
        "_limit_bytes",
        "_link",
        "_moment",
        "_outbox",
        "_queue",
        "_queue_bytes",
        "_said_no",
        "_session",
        "_v5",
        "_window",
        "dropped_messages",
        "sent_messages",
    )

    def __init__(
        self, session: Session, engine: Engine, link: Link, moment: Moment, *, window: int, largest: int, aliases: int
    ) -> None:
        self._session = session
        self._engine = engine
        self._link = link
        self._moment = moment
        self._v5 = session.request.protocol == 5
        self._window = window
        self._largest = largest
        self._aliases_max = aliases
        self._aliases: dict[str, int] | None = None
        self._limit = session.identity.limits.queue
        self._limit_bytes = session.identity.limits.queue_bytes
        self._last_id = 0
        self._in_flight: dict[int, InFlight] = {}
        self._queue: deque[InFlight] = deque()
        self._queue_bytes = 0
        self._outbox: deque[tuple[Receipt[Any] | None, bytes]] = deque()
        self._again = 0  # of the queue: in flight since an earlier connection, to be sent again
        self._said_no = False
        self.dropped_messages = 0
        self.sent_messages = 0

    def divert(self, link: Link) -> None:
        self._link = link

    @property
    def in_flight(self) -> int:
        return len(self._in_flight)

    @property
    def waiting(self) -> int:
        return len(self._queue) - self._again

    @property
    def room(self) -> int:
        return max(0, self._limit - len(self._queue)) if self._queue_bytes < self._limit_bytes else 0

    @property
    def takes_at_once(self) -> bool:
        """Whether a message would leave now."""
        return not self._queue and len(self._in_flight) < self._window and self._link.writable

    # -- messages in -----------------------------------------------------------------------------------------------

    def deliver(self, message: Message, qos: int, retain: bool, identifiers: tuple[int, ...]) -> bool:
        if qos == 0:
            if not self._link.writable:
                self.dropped_messages += 1
                return True
            frame = self._frame_qos0(message, retain, identifiers)
            if frame is None:
                return True
            self.sent_messages += 1
            if self._outbox:
                self._outbox.append((None, frame))
            else:
                self._link.write(frame)
            return True
        entry = InFlight(0, message, qos, retain, identifiers)
        if self._queue or len(self._in_flight) >= self._window or not self._link.writable:
            if not self.room:
                self._said_no = True
                return False
            self._queue.append(entry)
            self._queue_bytes += len(message.payload)
            return True
        self._send(entry)
        return True

    def restore(self, state: SessionState) -> None:
        """Take over what an earlier connection of this session left; `pump` sends it."""
        for entry in state.outbound:
            self._in_flight[entry.packet_id] = entry
            self._last_id = entry.packet_id
            self._queue.append(entry)
        self._again = len(self._queue)
        for message, qos, retain, identifiers in state.queue:
            self._queue.append(InFlight(0, message, qos, retain, identifiers))
            self._queue_bytes += len(message.payload)

    def save(self, state: SessionState) -> None:
        """Put what is unfinished into the state."""
        state.outbound = list(self._in_flight.values())
        state.queue = [
            (entry.message, entry.qos, entry.retain, entry.identifiers)
            for entry in self._queue
            if entry.packet_id == 0 and entry.message is not None
        ]

    def pump(self) -> None:
        """Send what waits, as far as window and link allow."""
        queue = self._queue
        while queue and self._link.writable:
            entry = queue[0]
            if entry.packet_id:  # of an earlier connection: it is in flight already
                if len(self._in_flight) - self._again >= self._window:
                    break
                queue.popleft()
                self._again -= 1
                self._send_again(entry)
                continue
            if len(self._in_flight) >= self._window:
                break
            queue.popleft()
            assert entry.message is not None
            self._queue_bytes -= len(entry.message.payload)
            self._send(entry)
        if self._said_no and len(queue) <= self._limit // 2:
            self._said_no = False
            self._engine.wants(self._session)

    # -- acknowledgements in ---------------------------------------------------------------------------------------

    def acknowledged(self, packet_id: int, code: int) -> bool:
        """PUBACK; whether it was waited for."""
        entry = self._in_flight.get(packet_id)
        if entry is None:
            return False  # of an earlier connection, or unknown: nothing to do (4.3.2)
        if entry.qos != 1:
            raise PeerError("PUBACK for a QoS 2 message")
        del self._in_flight[packet_id]
        self._engine.finished(self._session, packet_id, entry.message, code)
        if self._queue or self._said_no:
            self.pump()
        return True

    def received(self, packet_id: int, code: int) -> bool:
        """PUBREC; whether it was waited for."""
        entry = self._in_flight.get(packet_id)
        protocol = self._session.request.protocol
        if entry is None:
            if code < 0x80:
                missing = Reason.PACKET_IDENTIFIER_NOT_FOUND
                self._link.write(packets.encode_acknowledgement(p.PUBREL, packet_id, missing, protocol))
            return False
        if entry.qos != 2:
            raise PeerError("PUBREC for a QoS 1 message")
        if code >= 0x80:
            del self._in_flight[packet_id]
            self._engine.finished(self._session, packet_id, entry.message, code)
            self.pump()
            return True
        again = entry.released
        receipt: Receipt[Any] | None = None
        if not entry.released:
            entry.released = True
            receipt = self._engine.received(self._session, packet_id, entry.message)
        self._write(receipt, packets.encode_acknowledgement(p.PUBREL, packet_id, 0, protocol))
        return not again

    def completed(self, packet_id: int, code: int) -> bool:
        """PUBCOMP; whether it was waited for."""
        entry = self._in_flight.get(packet_id)
        if entry is None:
            return False
        if entry.qos != 2 or not entry.released:
            raise PeerError("PUBCOMP before PUBREC")
        del self._in_flight[packet_id]
        self._engine.finished(self._session, packet_id, entry.message, code)
        if self._queue or self._said_no:
            self.pump()
        return True

    # -- frames out ------------------------------------------------------------------------------------------------

    def _frame_qos0(self, message: Message, retain: bool, identifiers: tuple[int, ...]) -> bytes | None:
        """The frame every QoS 0 subscriber of one dialect gets is made once."""
        if identifiers or self._aliases_max or message.expires_at is not None:
            return self._frame(message, 0x30 | retain, 0, identifiers)
        key = (4 if self._v5 else 0) | retain
        frames = message.frames
        if frames is None:
            frames = message.frames = {}
        frame = frames.get(key)
        if frame is None:
            frame = self._frame(message, 0x30 | retain, 0, ())
            if frame is None:
                return None
            frames[key] = frame
        if self._largest and len(frame) > self._largest:
            self._drop(message, "too large")
            return None
        return frame

    def _frame(
        self, message: Message, first: int, packet_id: int, identifiers: tuple[int, ...], *, alias: bool = True
    ) -> bytes | None:
        """A frame for this client; None when it may not be sent (expired, larger than the client takes)."""
        left: int | None = None
        if message.expires_at is not None:
            seconds = message.expires_at - self._moment.wall
            if seconds <= 0 and not first & 0x08:  # what is in flight already is completed (4.3.3)
                self._drop(message, "expired")
                return None
            left = min(LONGEST, max(1, round(seconds)))
        if not self._v5:
            frame = publish_frame(message, first, packet_id, None)
        else:
            fields = packets.message_fields(message.properties, left) if message.properties is not None else b""
            if message.properties is None and left is not None:
                fields = bytes((p.MESSAGE_EXPIRY,)) + left.to_bytes(4, "big")
            for identifier in identifiers:
                fields += bytes((p.SUBSCRIPTION_IDENTIFIER,)) + p.varint(identifier)
            topic: bytes | None = None
            extra = b""
            if self._aliases_max and alias:
                topic, extra = self._alias(message.topic)
                fields += extra
            frame = publish_frame(message, first, packet_id, fields, topic)
            if self._largest and len(frame) > self._largest and topic is None and extra:
                assert self._aliases is not None
                del self._aliases[message.topic]  # the client isn't told of it
                return self._frame(message, first, packet_id, identifiers, alias=False)
        if self._largest and len(frame) > self._largest:
            self._drop(message, "too large")
            return None
        return frame

    def _patched(self, message: Message, first: int, packet_id: int) -> bytes | None:
        """As `_frame`; all clients of one dialect get the same frame with another packet id."""
        key = first << 1 | self._v5
        frames = message.frames
        if frames is None:
            frames = message.frames = {}
        parts = frames.get(key)
        if parts is None:
            fields = None
            if self._v5:
                fields = packets.message_fields(message.properties, None) if message.properties is not None else b""
            frame = publish_frame(message, first, 0, fields)
            # the packet id is behind the fixed header (one byte, and a length of up to four) and the topic
            at = 2
            while frame[at - 1] & 0x80:
                at += 1
            at += 2 + len(message.topic.encode())
            parts = frames[key] = frame[:at], frame[at + 2 :]
        head, tail = parts
        if self._largest and len(head) + 2 + len(tail) > self._largest:
            self._drop(message, "too large")
            return None
        return bytes(head + packet_id.to_bytes(2, "big") + tail)

    def _alias(self, topic: str) -> tuple[bytes | None, bytes]:
        """The first topics get an alias each (3.3.2.3.4): (what stands for the topic, alias property)."""
        if self._aliases is None:
            self._aliases = {}
        number = self._aliases.get(topic)
        if number is not None:
            return b"", bytes((p.TOPIC_ALIAS,)) + number.to_bytes(2, "big")
        if len(self._aliases) >= self._aliases_max:
            return None, b""
        number = self._aliases[topic] = len(self._aliases) + 1
        return None, bytes((p.TOPIC_ALIAS,)) + number.to_bytes(2, "big")

    def _drop(self, message: Message, why: str) -> None:
        self.dropped_messages += 1
        self._engine.dropped(self._session, message, why)

    def _send(self, entry: InFlight) -> None:
        message = entry.message
        assert message is not None
        packet_id = self._next_id()
        first = 0x30 | entry.qos << 1 | entry.retain
        if entry.identifiers or self._aliases_max or message.expires_at is not None:
            frame = self._frame(message, first, packet_id, entry.identifiers)
        else:
            frame = self._patched(message, first, packet_id)
        if frame is None:
            return
        entry.packet_id = packet_id
        self._in_flight[packet_id] = entry
        self.sent_messages += 1
        receipt = self._engine.sending(self._session, packet_id, message, entry.qos)
        self._write(receipt, frame)

    def _send_again(self, entry: InFlight) -> None:
        if entry.released or entry.message is None:
            protocol = self._session.request.protocol
            frame = packets.encode_acknowledgement(p.PUBREL, entry.packet_id, 0, protocol)
            self._write(None, frame)
            return
        first = 0x38 | entry.qos << 1 | entry.retain
        again = self._frame(entry.message, first, entry.packet_id, entry.identifiers)
        if again is None:
            del self._in_flight[entry.packet_id]
        else:
            self._write(None, again)

    def _write(self, receipt: Receipt[Any] | None, frame: bytes) -> None:
        if receipt is not None and not receipt.settled:
            self._outbox.append((receipt, frame))
            receipt.waiters.append(self)
        elif self._outbox:
            self._outbox.append((None, frame))
        else:
            self._link.write(frame)

    def receipt_settled(self, receipt: Receipt[Any]) -> None:
        """The engine has made packet ids durable: their messages may leave."""
        outbox = self._outbox
        while outbox and (outbox[0][0] is None or outbox[0][0].settled):
            waited, frame = outbox.popleft()
            if waited is not None and waited.failed_for(self):
                self._session.close(Reason.UNSPECIFIED, "session state could not be saved")
                return
            self._link.write(frame)

    def _next_id(self) -> int:
        """A packet id that isn't in flight. The window is below 65,535, so there is one."""
        packet_id = self._last_id
        while True:
            packet_id = packet_id % 0xFFFF + 1
            if packet_id not in self._in_flight:
                self._last_id = packet_id
                return packet_id
