"""After a restart: what an earlier run of this gateway left, taken up again, unless another gateway has it by now."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace

from broker.client import TopicPartition
from gateway import contract
from gateway.contract import SHARE_KEY, MalformedRecord, Presence, StoredSession, parse_mark_key
from gateway.moving.arrivals import CHECKPOINT_KEY, Positions, left_by, read_positions
from gateway.moving.moves import Moves
from gateway.moving.shares import Shares
from gateway.mqtt.fanout import Fanout
from gateway.peers.claims import Claims
from gateway.peers.presence import PresenceBook
from gateway.ports import settled
from gateway.publishing.wills import Wills, will_of
from gateway.sessions.inbox import Inbox
from gateway.sessions.sessions import Sessions

log = logging.getLogger("gateway.restoring")


class Restoring:
    """`restore` once, `replayed` when delivery has come to where the earlier run was."""

    def __init__(
        self,
        *,
        gateway: str,
        sessions: Sessions,
        moves: Moves,
        inbox: Inbox,
        shares: Shares,
        fanout: Fanout,
        wills: Wills,
        claims: Claims,
        book: PresenceBook,
        clock: Callable[[], float],
    ) -> None:
        self._gateway = gateway
        self._sessions = sessions
        self._moves = moves
        self._inbox = inbox
        self._shares = shares
        self._fanout = fanout
        self._wills = wills
        self._claims = claims
        self._book = book
        self._clock = clock

    def restore(
        self, rows: Mapping[bytes, bytes], inbox: Iterable[tuple[bytes, bytes]]
    ) -> tuple[dict[TopicPartition, int], float]:
        """Where delivery goes on, and since when topics that are not named are to be read (empty and 0: there is
        nothing to go on with). `rows` are those of `__sluice_sessions`."""
        found: dict[str, StoredSession] = {}
        positions: dict[TopicPartition, int] = {}
        behind: dict[str, dict[TopicPartition, int]] = {}
        at = 0.0
        marks: dict[str, set[int]] = {}
        for key, value in rows.items():
            name = key.decode("utf-8", "replace")
            if name.startswith(CHECKPOINT_KEY):
                if name == CHECKPOINT_KEY + self._gateway:
                    given = json.loads(value)
                    at = float(given["at"])
                    positions = read_positions(given["positions"])
                    behind = {each: read_positions(places) for each, places in given.get("behind", {}).items()}
                continue
            if (mark := parse_mark_key(key)) is not None:
                marks.setdefault(mark[0], set()).add(mark[1])
                continue
            try:
                found[name] = contract.decode(StoredSession, value)
            except MalformedRecord as error:
                log.error("the session of %r is unreadable and left out: %s", name, error)
        now = self._clock()
        shared = [record for name, record in found.items() if name.startswith(SHARE_KEY)]
        for name, record in found.items():
            if not name.startswith(SHARE_KEY):
                self._restore(record, now, positions, behind.get(name))
        self._shares.restore(shared, lambda name: positions | behind.get(name, {}))
        for client_id, packet_ids in marks.items():
            mailbox = self._sessions.mailboxes.get(client_id)
            for packet_id in packet_ids:
                if mailbox is not None:
                    mailbox.inbound[packet_id] = settled()
                elif client_id not in found:
                    self._sessions.records.unmark(client_id, packet_id)
        self._inbox.restore(inbox, self._sessions.mailboxes, found.__contains__, positions)
        self._say_offline(now, found)
        return positions, at

    def _restore(self, record: StoredSession, now: float, positions: Positions, behind: Positions | None) -> None:
        """`behind`: an earlier run had let go of it, from there on, and that may not be stored."""
        sessions, client_id = self._sessions, record.client_id
        holder = self._claims.holders.get(client_id)
        if holder is not None and holder.gateway == self._gateway:
            if record.keeper != self._gateway or record.released or behind:
                if record.keeper == self._gateway and behind and not record.free:
                    self._moves.pass_on(left_by(record, positions | behind))
                self._moves.arrivals.resume(client_id, holder)
                return
        elif record.keeper != self._gateway or record.free:
            return
        elif holder is not None:  # who claimed it meanwhile waits for this gateway to let go
            self._moves.pass_on(left_by(record, positions | (behind or {})))
            return
        elif record.taker:  # and claimed by nobody: it has ended
            return
        elif not record.expiry and self._claims.latest.get(client_id, self._gateway) != self._gateway:
            sessions.records.erase(client_id)  # its device has been elsewhere since
            return
        will = will_of(record.will)
        if not record.expiry:
            if will is not None:  # its gateway died: the will is due
                self._wills.fire(client_id, record.owner, will, record.owner)
            sessions.records.erase(client_id)
            return
        mailbox = sessions.records.mailbox_of(record, now)
        sessions.mailboxes[client_id] = mailbox
        for each in mailbox.subscriptions.values():
            # the rules may have changed meanwhile: every delivery is asked for
            self._fanout.subscribe(mailbox, replace(each, check=True))  # type: ignore[arg-type]  # stands for its session
        if will is not None:
            due = record.will_at if record.will_at is not None else now + min(will.delay, record.expiry)
            self._wills.due[client_id] = (due, will, record.owner)
        if holder is None:  # written by a release that knew no claims
            self._book.claim(
                Presence(
                    client_id=client_id,
                    online=False,
                    since=mailbox.disconnected_at or now,
                    gateway=self._gateway,
                    protocol=record.protocol,
                    principal=record.owner,
                    clean=False,
                )
            )
        else:
            mailbox.claim = holder.epoch
        if record.connected:
            sessions.records.write(sessions.records.of_mailbox(mailbox))

    def _say_offline(self, now: float, found: Collection[str]) -> None:
        """`found`: sessions of which there is a record. What was claimed for one of which there is none is nobody's."""
        for client_id, holder in self._claims.holders.items():
            known = self._book.last.get(client_id)
            if holder.gateway != self._gateway or known is None or client_id.startswith(SHARE_KEY):
                continue
            clean = known.clean or client_id not in found
            if holder.online:
                reason = "the gateway was started again"
                self._book.note(replace(known, online=False, since=now, reason=reason, clean=clean))
            elif clean:
                self._book.note(replace(known, clean=True))

    def replayed(self) -> None:
        """Delivery has come to where the earlier run was: nothing is met twice any more."""
        for mailbox in self._sessions.mailboxes.values():
            mailbox.replayed = None
            if mailbox.gone:
                self._inbox.touched(mailbox)
