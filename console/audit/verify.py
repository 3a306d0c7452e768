"""Walks the audit chain from its first entry and says where it is broken."""

from dataclasses import dataclass

from console.audit.models import GENESIS, Entry, Head


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    entries: int
    broken_at: int | None  # the id of the first entry that doesn't fit; None when the chain holds
    reason: str


def verify() -> Verdict:
    previous, count = GENESIS, 0
    for entry in Entry.objects.order_by("id").iterator(chunk_size=1000):
        count += 1
        if entry.previous != previous:
            return Verdict(entries=count, broken_at=entry.pk, reason="an entry before it is missing")
        if entry.computed_hash() != entry.hash:
            return Verdict(entries=count, broken_at=entry.pk, reason="its content was altered")
        previous = entry.hash
    head = Head.objects.filter(pk=1).first()
    if head and (head.hash, head.length) != (previous, count):
        return Verdict(entries=count, broken_at=None, reason="entries at the end are missing")
    return Verdict(entries=count, broken_at=None, reason="")
