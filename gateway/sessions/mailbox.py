"""A persistent session's messages: what its device hasn't finished yet, whether it is connected or not.

Every message of QoS 1 or 2 that the session takes becomes an entry with a number, in delivery order, and is in one of
four places; each of them is older than the next:

    pending   in memory, given to the connected session (queued there, or in flight), or in flight when it went away
    front     in memory, to be given next
    shelf     in the store only (see `shelf`), loaded chunk by chunk as the session gets through what is before it
    tail      in memory, taken while something waits before it

A device that is away has, once the store's local copy has caught up, everything on the shelf: some bytes per chunk,
whatever passes by. Coming back it loads what its own queue holds, a chunk at a time.

The store. `unstored` are the entries that no record has yet; a checkpoint writes them in chunks. A message finished
between two checkpoints costs no write. A chunk with finished entries is `stale` and written anew without them, or
removed. An entry of QoS 2 is stored by itself with its packet id before it is sent and stays as `done` until a
checkpoint has passed its offset: so neither a lost packet id nor a replay from the checkpoint makes a duplicate.

Bounds. What waits is at most `limit` entries and, with what is pending, `limit_bytes` of payload (always at least one
message). Beyond, `overflow` decides: `oldest` (the oldest waiting one goes) or `newest` (the new one isn't taken).

Pure: knows neither log nor clock; its `Keeper` does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from typing import Any

from gateway.policy import Policy, Rights
from gateway.ports import InFlight, Message, Receipt, Session, SessionState, Subscription
from gateway.sessions.entries import Chunk, Entry, Origin
from gateway.sessions.keeper import EXPIRED, FULL, GONE, Keeper
from gateway.sessions.shelf import Shelf

AHEAD = 512  # entries given and not finished at which nothing more is taken from what waits
LOW = 256  # and at which it goes on


class Mailbox:
    """See the module. Stands for its session in the fan-out."""

    __slots__ = (
        *("_feeding", "_keeper", "chunks", "claim", "client_id", "disconnected_at", "dropped", "due", "expired"),
        *("expiry", "front", "gone", "gone_chunks", "hidden", "inbound", "limit", "limit_bytes", "loading", "missing"),
        *("next_number", "overflow", "own", "owner", "pending", "protocol", "replayed", "rewritten", "rights"),
        "session",
        *("shelf", "size", "stale", "subscriptions", "tail", "unstored", "username"),
    )

    def __init__(self, client_id: str, owner: str, rights: Rights, *, limit: int, keeper: Keeper) -> None:
        self.client_id = client_id
        self.owner = owner
        self.username = ""
        self.own: Policy | None = None
        self.rights = rights
        self.claim = 0
        self.limit = limit
        self.limit_bytes = 8 << 20
        self.overflow = "oldest"
        self.expiry = 0
        self.protocol = 4
        self.session: Session | None = None
        self.disconnected_at: float | None = None
        self.subscriptions: dict[str, Subscription] = {}
        self.inbound: dict[int, Receipt[Any]] = {}
        self.pending: dict[Message, Entry] = {}
        self.front: dict[int, Entry] = {}
        self.shelf = Shelf()
        self.tail: dict[int, Entry] = {}
        self.size = 0  # bytes in memory
        self.unstored: dict[int, Entry] = {}
        self.due: dict[int, Entry] = {}  # to be stored as singles
        self.chunks: dict[int, Chunk] = {}  # records whose entries are in memory
        self.stale: dict[int, Chunk] = {}
        self.gone: list[int] = []  # singles to be removed once a checkpoint has passed them
        self.gone_chunks: list[int] = []
        self.rewritten: dict[int, bytes] = {}  # chunks on the shelf, less what singles speak for, to be stored
        self.hidden: set[int] = set()  # what singles say of entries that are on the shelf
        self.replayed: set[Origin] | None = None  # origins stored before a restart
        self.next_number = 1
        self.loading = False
        self.dropped = 0
        self.expired = 0
        self.missing = 0  # payloads that were not in the log any more
        self._keeper = keeper
        self._feeding = False

    # --- the fan-out's side

    @property
    def state(self) -> Mailbox:
        """Where rights are looked up, as with a session."""
        return self

    @property
    def waiting(self) -> int:
        """Entries that no session was given."""
        return len(self.front) + self.shelf.count + len(self.tail)

    @property
    def bytes(self) -> int:
        """Payload of everything unfinished; never too little."""
        return self.size + self.shelf.size

    @property
    def distance(self) -> int:
        """See `gateway.ports.Session`."""
        if self.session is None:
            return 2
        return 1 if self.front or self.tail or self.shelf.count else self.session.distance

    def deliver(self, message: Message, qos: int, retain: bool, identifiers: tuple[int, ...] = ()) -> bool:
        """Take a message; never says no (`overflow` decides what becomes of one too many)."""
        if self.replayed is not None and message.origin in self.replayed:
            return True
        session = self.session
        if qos == 0:
            return session is None or session.deliver(message, 0, retain, identifiers)
        waits = session is None or bool(self.front or self.tail or self.shelf.count)
        if waits and self.overflow == "newest" and self._full(len(message.payload)):
            self.dropped += 1
            self._keeper.dropped(self, message, FULL)
            return True
        entry = self._taken(message, qos, retain, identifiers)
        if waits or session is None or not self._give(session, entry):
            self.tail[entry.number] = entry
            self.bound()
        return True

    def offer(self, message: Message, qos: int, retain: bool, identifiers: tuple[int, ...]) -> bool:
        """Deliver if the connected session has room now; False: nothing was taken."""
        session = self.session
        if session is None or self.waiting:
            return False
        if qos == 0:
            return session.deliver(message, 0, retain, identifiers)
        if not session.room:
            return False
        entry = self._taken(message.copy(), qos, retain, identifiers)  # what is kept of it on the way goes with it
        if self._give(session, entry):
            return True
        self.leave(entry)
        return False

    def feed(self) -> None:
        """Give what waits, as far as the session has room."""
        if self._feeding:  # what is given may be finished at once: expired, too large for this client
            return
        self._feeding = True
        try:
            while len(self.pending) < AHEAD:
                session, source = self.session, self.front or self.tail
                if session is None:
                    break
                if not self.front and self.shelf.count:
                    self._keeper.wanted(self)
                    break
                if not source:
                    break
                entry = next(iter(source.values()))
                if not self._give(session, entry):
                    break
                source.pop(entry.number, None)
        finally:
            self._feeding = False

    def _taken(self, message: Message, qos: int, retain: bool, identifiers: tuple[int, ...]) -> Entry:
        number = self.next_number
        self.next_number = number + 1
        entry = self.unstored[number] = Entry(message, qos, retain, identifiers, number=number)
        self.size += entry.size
        self._keeper.touched(self)
        return entry

    def _give(self, session: Session, entry: Entry) -> bool:
        message = entry.message
        if message in self.pending:  # given by two share groups, say
            message = entry.message = message.copy()
        self.pending[message] = entry
        if session.deliver(message, entry.qos, entry.retain, entry.identifiers):
            return True
        self.pending.pop(message, None)
        return False

    def _full(self, more: int) -> bool:
        waiting = self.waiting
        if waiting < self.limit and (not waiting or self.bytes + more <= self.limit_bytes):
            return False
        return not self.purge(self._keeper.now()) or self._full(more)

    def bound(self) -> None:
        """Let go what is too much."""
        while (waiting := self.waiting) > self.limit or (waiting > 1 and self.bytes > self.limit_bytes):
            if not self.purge(self._keeper.now()):
                self.dropped += 1
                self._drop_oldest(FULL)

    def _drop_oldest(self, why: str) -> None:
        source = self.front or (None if self.shelf.count else self.tail)
        if source is not None:
            entry = next(iter(source.values()))
            del source[entry.number]
            self.leave(entry)
            self._keeper.dropped(self, entry.message, why)
            return
        place = self.shelf.first()
        assert place is not None
        if self.shelf.drop() is not None:
            self._remove_chunk(place.number)
        self._keeper.dropped_unseen(self, place.number, place.skip, 1, why)

    def purge(self, now: float) -> int:
        """Drop what has expired at the beginning of what waits; how many."""
        purged = 0
        while True:
            source = self.front or (None if self.shelf.count else self.tail)
            if source:
                at = next(iter(source.values())).message.expires_at
                if at is None or at > now:
                    break
                self._drop_oldest(EXPIRED)
                purged += 1
            elif self.shelf.expired(now):
                place = self.shelf.take()
                self._remove_chunk(place.number)
                self._keeper.dropped_unseen(self, place.number, place.skip, place.count, EXPIRED)
                purged += place.count
            else:
                break
        self.expired += purged
        return purged

    def _remove_chunk(self, number: int) -> None:
        self.rewritten.pop(number, None)
        self.gone_chunks.append(number)
        self._keeper.touched(self)

    def leave(self, entry: Entry) -> None:
        """The entry is finished with, in whatever way; it is in no place any more."""
        self.unstored.pop(entry.number, None)
        self.due.pop(entry.number, None)
        self.size -= entry.size
        chunk = entry.chunk
        if chunk is not None and chunk.entries.pop(entry.number, None) is not None:
            chunk.stale = True
            self.stale[chunk.number] = chunk
            self._keeper.touched(self)
        if entry.single:
            self.gone.append(entry.number)
            self._keeper.touched(self)

    # --- the session's side

    def finished(self, message: Message | None, packet_id: int) -> Entry | None:
        """The device has it (or will never get it). The entry, when its end must be stored at once (QoS 2)."""
        entry = self.pending.get(message) if message is not None else None
        if entry is None:
            entry = next((each for each in self.pending.values() if each.packet_id == packet_id and packet_id), None)
            if entry is None:
                return None
        del self.pending[entry.message]
        self.leave(entry)
        entry.done = entry.qos == 2 and entry.single
        if len(self.pending) <= LOW and self.waiting:
            self.feed()
        return entry if entry.done else None

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
        """The device is back; what was in flight goes to its session, the rest when it asks (`feed`)."""
        self.session = session
        self.disconnected_at = None
        state = SessionState(subscriptions=list(self.subscriptions.values()), inbound=dict(self.inbound))
        state.outbound = [
            InFlight(entry.packet_id, entry.message, entry.qos, entry.retain, entry.identifiers, entry.released)
            for entry in self.pending.values()
        ]
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
                if not entry.single and entry.chunk is not None and not entry.chunk.under_way:
                    self.due[entry.number] = entry
        given = {entry.number: entry for entry in self.pending.values() if not entry.packet_id}
        self.front = {**given, **self.front}
        self.pending = {entry.message: entry for entry in self.pending.values() if entry.packet_id}
        self._keeper.touched(self)
        self.bound()
        self.tidy()

    # --- the store's side

    def loaded(self, number: int, entries: Sequence[Entry], lost: Set[int]) -> None:
        """The chunk of this number, with all its entries; the payloads of those `lost` are not to be had any more."""
        self.loading = False
        place = self.shelf.first()
        if place is not None and place.number == number:
            self.shelf.take()
            rewritten = self.rewritten.pop(number, None) is not None
            visible = [each for each in entries if each.number not in self.hidden]
            wanted = {each.number: each for each in visible[place.skip :]}
            for each in [each for each in wanted.values() if each.number in lost]:
                del wanted[each.number]
                self.missing += 1
                self._keeper.dropped(self, each.message, GONE)
            chunk = self.chunks[number] = Chunk(number, wanted)
            for each in wanted.values():
                each.chunk = chunk
                each.packet_id, each.released = 0, False  # the local copy may have it as it was under way
                self.size += each.size
            if rewritten or len(wanted) < len(entries) or not wanted:
                chunk.stale = True
                self.stale[number] = chunk
                self._keeper.touched(self)
            self.front.update(wanted)
        self.feed()
        self.tidy()

    def read_back(self, number: int) -> None:
        """The local copy has seen a chunk that was written."""
        chunk = self.chunks.get(number)
        if chunk is not None:
            chunk.unread -= 1
            self.tidy()

    def tidy(self) -> None:
        """Put on the shelf what the local copy has and no session will get soon."""
        if self.session is None:
            while self.front and self._shelve(next(reversed(self.front.values())), self.front):
                pass
        if self.session is None or self.shelf.count:
            while self.tail and self._shelve(next(iter(self.tail.values())), self.tail):
                pass

    def _shelve(self, entry: Entry, source: dict[int, Entry]) -> bool:
        """Put the whole chunk of an entry on the shelf, if all of it is in this place and stored as it is."""
        chunk = entry.chunk
        if chunk is None or chunk.stale or chunk.unread > 0 or not chunk.entries.keys() <= source.keys():
            return False
        expires = 0.0
        ends = [each.message.expires_at for each in chunk.entries.values()]
        if None not in ends:
            expires = max(end for end in ends if end is not None)
        size = 0
        for number, each in chunk.entries.items():
            del source[number]
            size += each.size
        self.size -= size
        self.shelf.put(chunk.number, len(chunk.entries), size, expires)
        del self.chunks[chunk.number]
        return True

    def met(self, origins: Iterable[Origin | None]) -> None:
        """Messages with these origins are stored already; delivery may come by them again."""
        if self.replayed is None:
            self.replayed = set()
        self.replayed.update(origin for origin in origins if origin is not None)
