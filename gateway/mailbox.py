"""A persistent session's messages: what its device hasn't finished yet, whether it is connected or not.

Invariants:
- `pending` holds, in delivery order, every QoS 1/2 message taken and not finished. While a session is connected its
  entries are `given` (the session has them, queued or in flight) up to the first that it had no room for; the rest are
  the backlog and follow when it asks.
- The store of entries in `__sluice_inbox` lags behind: `unstored` are entries (and changes of entries) to be written at
  the next checkpoint, `gone` the numbers to be deleted. A message finished between two checkpoints costs no write.
- An entry of QoS 2 is stored with its packet id before it is sent, and stays as `done` until a checkpoint has passed
  its offset: so neither a lost packet id nor a replay from the checkpoint makes a duplicate.

Pure: knows neither log nor clock.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

from gateway.contract import VERSION, MalformedRecord
from gateway.policy import Policy, Rights
from gateway.ports import InFlight, Message, Receipt, Session, SessionState, Subscription
from gateway.uplink import properties_object, properties_of


class Entry:
    """One message in the mailbox. `number` orders entries; 0 while never stored."""

    __slots__ = ("done", "given", "identifiers", "message", "number", "packet_id", "qos", "released", "retain")

    def __init__(
        self, message: Message, qos: int, retain: bool, identifiers: tuple[int, ...], *, number: int = 0
    ) -> None:
        self.message = message
        self.qos = qos
        self.retain = retain
        self.identifiers = identifiers
        self.number = number
        self.packet_id = 0
        self.released = False
        self.given = False
        self.done = False


class Mailbox:
    """See the module. Stands for its session in the fan-out."""

    def __init__(self, client_id: str, owner: str, rights: Rights, *, limit: int, touched: Callable[[Mailbox], None]):
        """`touched` is told when there is something to store."""
        self.client_id = client_id
        self.owner = owner
        self.username = ""
        self.own: Policy | None = None
        self.rights = rights
        self.limit = limit
        self.limit_bytes = 8 << 20
        self.expiry = 0
        self.protocol = 4
        self.session: Session | None = None
        self.disconnected_at: float | None = None
        self.subscriptions: dict[str, Subscription] = {}
        self.pending: dict[Message, Entry] = {}
        self.backlog: dict[Message, Entry] = {}
        self.inbound: dict[int, Receipt[Any]] = {}
        self.unstored: dict[Message, Entry] = {}
        self.gone: list[int] = []
        self.replayed: set[tuple[str, int, int]] | None = None  # origins stored before a restart
        self.next_number = 1
        self.bytes = 0
        self.dropped = 0
        self._touched = touched

    @property
    def queued(self) -> int:
        """Messages that wait for their device."""
        return len(self.backlog)

    # --- the fan-out's side

    @property
    def state(self) -> Mailbox:
        """Where rights are looked up, as with a session."""
        return self

    def deliver(self, message: Message, qos: int, retain: bool, identifiers: tuple[int, ...] = ()) -> bool:
        """Take a message; never says no (what doesn't fit pushes the oldest waiting one out)."""
        if self.replayed is not None and message.origin in self.replayed:
            return True
        session = self.session
        if qos == 0:
            if session is None or self.backlog:
                return session is None or session.deliver(message, 0, retain, identifiers)
            return session.deliver(message, 0, retain, identifiers)
        entry = Entry(message, qos, retain, identifiers)
        self._take(entry)
        if session is None or self.backlog:
            self.backlog[message] = entry
            self._bound()
        else:
            entry.given = True
            if not session.deliver(message, qos, retain, identifiers):
                entry.given = False
                self.backlog[message] = entry
                self._bound()
        return True

    def offer(self, message: Message, qos: int, retain: bool, identifiers: tuple[int, ...]) -> bool:
        """Deliver if the connected session has room now; False: nothing was taken."""
        session = self.session
        if session is None or self.backlog:
            return False
        if qos == 0:
            return session.deliver(message, 0, retain, identifiers)
        if not session.room:
            return False
        # one entry per message object: a retained message may be given twice
        copy = Message(
            message.topic,
            message.payload,
            message.qos,
            message.retain,
            properties=message.properties,
            expires_at=message.expires_at,
            sender=message.sender,
            origin=message.origin,
        )
        entry = Entry(copy, qos, retain, identifiers)
        self._take(entry)
        entry.given = True
        if session.deliver(copy, qos, retain, identifiers):
            return True
        self._drop(entry)
        return False

    def feed(self) -> None:
        """The session has room again."""
        session = self.session
        while self.backlog and session is not None:
            message, entry = next(iter(self.backlog.items()))
            del self.backlog[message]
            entry.given = True
            if not session.deliver(message, entry.qos, entry.retain, entry.identifiers):
                entry.given = False
                self.backlog = {message: entry, **self.backlog}
                return
            session = self.session

    def _take(self, entry: Entry) -> None:
        self.pending[entry.message] = entry
        self.bytes += len(entry.message.payload)
        self.unstored[entry.message] = entry
        self._touched(self)

    def _bound(self) -> None:
        while len(self.backlog) > self.limit or (self.bytes > self.limit_bytes and len(self.backlog) > 1):
            self.dropped += 1
            self._drop(next(iter(self.backlog.values())))

    def _drop(self, entry: Entry) -> None:
        self.backlog.pop(entry.message, None)
        self.unstored.pop(entry.message, None)
        if self.pending.pop(entry.message, None) is not None:
            self.bytes -= len(entry.message.payload)
        if entry.number:
            self.gone.append(entry.number)
            self._touched(self)

    # --- the session's side

    def finished(self, message: Message | None, packet_id: int) -> Entry | None:
        """The device has it (or will never get it). The entry, when its end must be stored at once (QoS 2)."""
        entry = self.pending.get(message) if message is not None else None
        if entry is None:
            entry = next((each for each in self.pending.values() if each.packet_id == packet_id and packet_id), None)
            if entry is None:
                return None
        if entry.qos == 2 and entry.number:
            self.backlog.pop(entry.message, None)
            self.unstored.pop(entry.message, None)
            self.pending.pop(entry.message, None)
            self.bytes -= len(entry.message.payload)
            entry.done = True
            self.gone.append(entry.number)
            self._touched(self)
            return entry
        self._drop(entry)
        return None

    def sent(self, message: Message, packet_id: int) -> Entry | None:
        """It goes out under this packet id; the entry when it must be stored first (QoS 2)."""
        entry = self.pending.get(message)
        if entry is None:
            return None
        entry.packet_id = packet_id
        return entry if entry.qos == 2 else None

    def received(self, message: Message | None, packet_id: int) -> Entry | None:
        """PUBREC; the entry, to be stored."""
        entry = self.pending.get(message) if message is not None else None
        if entry is not None:
            entry.released = True
        return entry

    def attach(self, session: Session) -> SessionState:
        """The device is back: all that waits goes to its session."""
        self.session = session
        self.disconnected_at = None
        state = SessionState(subscriptions=list(self.subscriptions.values()), inbound=dict(self.inbound))
        for entry in self.pending.values():
            entry.given = True
            if entry.packet_id:
                state.outbound.append(
                    InFlight(entry.packet_id, entry.message, entry.qos, entry.retain, entry.identifiers, entry.released)
                )
            else:
                state.queue.append((entry.message, entry.qos, entry.retain, entry.identifiers))
        self.backlog = {}
        return state

    def detach(self, state: SessionState, now: float) -> None:
        """The device is gone; `state` is what its session had."""
        self.session = None
        self.disconnected_at = now
        self.inbound = dict(state.inbound)
        for each in state.outbound:
            entry = self.pending.get(each.message) if each.message is not None else None
            if entry is not None:
                entry.packet_id = each.packet_id
                entry.released = each.released
                if not entry.done:
                    self.unstored[entry.message] = entry
        for entry in self.pending.values():
            entry.given = False
        self.backlog = {entry.message: entry for entry in self.pending.values() if not entry.packet_id}
        self._touched(self)
        self._bound()

    # --- storing

    def number(self, entry: Entry) -> int:
        """The entry's number, given now if it has none."""
        if not entry.number:
            entry.number = self.next_number
            self.next_number += 1
        return entry.number

    def restored(self, number: int, entry: Entry | None, origin: tuple[str, int, int] | None) -> None:
        """Take an entry read from the log; None: done with, only its origin matters. In order of numbers."""
        self.next_number = max(self.next_number, number + 1)
        if origin is not None:
            if self.replayed is None:
                self.replayed = set()
            self.replayed.add(origin)
        if entry is None:
            self.gone.append(number)
            return
        entry.number = number
        self.pending[entry.message] = entry
        self.bytes += len(entry.message.payload)
        if not entry.packet_id:
            self.backlog[entry.message] = entry


# --- records of `__sluice_inbox`: client id NUL number (16 hex digits) → entry


def inbox_key(client_id: str, number: int) -> bytes:
    return f"{client_id}\x00{number:016x}".encode()


def parse_inbox_key(key: bytes) -> tuple[str, int]:
    """(client id, number); raises MalformedRecord."""
    client_id, separator, number = key.decode("utf-8", "replace").rpartition("\x00")
    try:
        if separator:
            return client_id, int(number, 16)
    except ValueError:
        pass
    raise MalformedRecord(f"inbox key {key!r}")


def encode_entry(entry: Entry) -> bytes:
    message = entry.message
    found: dict[str, Any] = {"v": VERSION, "qos": entry.qos}
    if message.origin is not None:
        found["origin"] = list(message.origin)
    if entry.done:
        found["done"] = True
    else:
        found |= {
            "topic": message.topic,
            "payload": base64.b64encode(message.payload).decode(),
            "message_qos": message.qos,
            "retain": entry.retain,
        }
        optional: dict[str, Any] = {
            "packet_id": entry.packet_id,
            "released": entry.released,
            "identifiers": list(entry.identifiers),
            "properties": properties_object(message.properties),
            "expires_at": message.expires_at,
            "sender": message.sender,
        }
        found |= {name: value for name, value in optional.items() if value}
    return json.dumps(found, ensure_ascii=False, separators=(",", ":")).encode()


def decode_entry(value: bytes) -> tuple[Entry | None, tuple[str, int, int] | None]:
    """(entry, or None if it is done; its origin). Raises MalformedRecord."""
    try:
        found = json.loads(value)
        if found.get("v") != VERSION:
            raise MalformedRecord(f"inbox record version {found.get('v')!r}")
        given = found.get("origin")
        origin = None if given is None else (str(given[0]), int(given[1]), int(given[2]))
        if found.get("done"):
            return None, origin
        message = Message(
            found["topic"],
            base64.b64decode(found["payload"]),
            int(found["message_qos"]),
            bool(found["retain"]),
            properties=properties_of(found.get("properties") or {}),
            expires_at=found.get("expires_at"),
            sender=found.get("sender"),
            origin=origin,
        )
        entry = Entry(message, int(found["qos"]), bool(found["retain"]), tuple(found.get("identifiers", ())))
        entry.packet_id = int(found.get("packet_id", 0))
        entry.released = bool(found.get("released", False))
        return entry, origin
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise MalformedRecord(f"inbox record: {error}") from error
