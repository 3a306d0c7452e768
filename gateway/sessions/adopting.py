"""A mailbox put together again from what the store has of it: after a restart, or when its session comes from another
gateway. Singles are taken before chunks, since they stand for their entries whatever a chunk says."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence

from broker.client import TopicPartition
from gateway.contract import MalformedRecord
from gateway.sessions.entries import (
    Chunk,
    Entry,
    Origin,
    decode_chunk,
    decode_header,
    decode_single,
    parse_key,
    waiting,
    without,
)
from gateway.sessions.mailbox import Mailbox

log = logging.getLogger("gateway.inbox")


def take_up(mailbox: Mailbox, rows: Iterable[tuple[bytes, bytes]], positions: Mapping[TopicPartition, int]) -> None:
    """Take up what the store has of one session, in the order of its keys. `positions` are where delivery will go on:
    what is stored of later records is not to be taken twice."""
    chunks: list[tuple[int, bytes]] = []
    for key, value in rows:
        try:
            _, number, is_chunk = parse_key(key)
            if is_chunk:
                chunks.append((number, value))
                continue
            entry, origin = decode_single(number, value)
            if entry is None:
                take_done(mailbox, number, origin)
            else:
                take_single(mailbox, entry)
        except MalformedRecord as error:
            log.error("%s: left out", error)
    for number, value in chunks:
        try:
            _take_chunk(mailbox, number, value, positions)
        except MalformedRecord as error:
            log.error("%s: left out", error)
    _settle_in(mailbox)


def take_single(mailbox: Mailbox, entry: Entry) -> None:
    """Take a single read from the store, in the order of their numbers."""
    mailbox.next_number = max(mailbox.next_number, entry.number + 1)
    entry.single = True
    mailbox.size += entry.size
    mailbox.hidden.add(entry.number)
    mailbox.met([entry.message.origin])
    if entry.packet_id:
        mailbox.pending[entry.message] = entry
    else:
        mailbox.front[entry.number] = entry


def take_done(mailbox: Mailbox, number: int, origin: Origin | None) -> None:
    """A single says that its entry is done with."""
    mailbox.next_number = max(mailbox.next_number, number + 1)
    mailbox.hidden.add(number)
    mailbox.gone.append(number)
    mailbox.met([origin])


def _take_chunk(mailbox: Mailbox, number: int, value: bytes, positions: Mapping[TopicPartition, int]) -> None:
    header = decode_header(value)
    mailbox.next_number = max(mailbox.next_number, header.top + 1)
    if header.under_way and len(mailbox.shelf):
        # what is older was under way too, though no record says so: it goes first again, and this behind it
        waits = waiting(number, value, mailbox.hidden)
        if waits is None:
            mailbox.gone_chunks.append(number)
            return
        value, header = waits, decode_header(waits)
        mailbox.rewritten[number] = waits
    elif not header.under_way and any(number <= each <= header.top for each in mailbox.hidden):
        # what singles speak for goes before they do
        kept = without(number, value, mailbox.hidden)
        if kept is None:
            mailbox.gone_chunks.append(number)
            return
        if kept is not value:
            value, header = kept, decode_header(kept)
            mailbox.rewritten[number] = kept
    again = any(offset >= positions.get(TopicPartition(topic, at), 0) for topic, at, offset in header.last)
    entries: Sequence[Entry] = ()
    if again or header.under_way:
        entries, _ = decode_chunk(number, value)
        mailbox.met(entry.message.origin for entry in entries)
    if header.under_way:
        _take_under_way(mailbox, number, entries)
    else:
        mailbox.shelf.put(number, header.count, header.size, header.expires)


def _take_under_way(mailbox: Mailbox, number: int, entries: Iterable[Entry]) -> None:
    wanted = {each.number: each for each in entries if each.number not in mailbox.hidden}
    chunk = mailbox.chunks[number] = Chunk(number, wanted, under_way=True)
    for each in wanted.values():
        each.chunk = chunk
        mailbox.pending[each.message] = each
        mailbox.size += each.size
    chunk.stale = True  # what singles speak for goes before they do
    mailbox.stale[number] = chunk


def _settle_in(mailbox: Mailbox) -> None:
    """Everything that the store had is here. Of two entries with one packet id the older was finished: the id would
    not have been used again."""
    pending = sorted(mailbox.pending.values(), key=lambda each: each.number)
    newest = {entry.packet_id: entry for entry in pending}
    mailbox.pending = {}
    for entry in pending:
        if newest[entry.packet_id] is entry:
            mailbox.pending[entry.message] = entry
        else:
            mailbox.leave(entry)
    mailbox.bound()
