"""Which records of sessions stand: whose a session is, is settled by the order of its records in the log.

Theory. A claim says who wants a session, `__sluice_sessions` says who has it. All records of one session are in one
partition, so every gateway reads them in the same order, and judges them by the same rules:

- Who takes a session up writes that first, naming the record that stood when it looked (its digest). That stands only
  if the named record still does: a compare-and-set. Of several who take the same session one succeeds, and each finds
  out by reading its own record back, before it does anything with the session.
- Anything else that is written of a session stands if the session is the writer's, or nobody's yet. What comes late,
  of one that lost the session or let go of it, changes nothing for any reader.
- A deletion always stands, and after it whatever comes next.

A record that doesn't stand is the newest of its key nevertheless, until the owner, who reads it too, writes its own
again (`Moves.stored`), or who takes the session from a dead owner writes one; the local copies of all gateways keep
what stands. Should a gateway without a copy start in these moments, and the log have been compacted meanwhile, it
believes the wrong record until the owner's next. Pure.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

from gateway.contract import StoredSession

NOTHING = ""  # the digest of no record


def digest(value: bytes | None) -> str:
    """What names a record's value in `base`."""
    return NOTHING if value is None else hashlib.blake2b(value, digest_size=8).hexdigest()


def taking(
    record: StoredSession | None, value: bytes | None, client_id: str, gateway: str, epoch: int
) -> StoredSession:
    """The record with which a gateway takes a session up, given the one that stands (`value`) and what that says, with
    the positions it was left at (None: there is none)."""
    if record is None:
        record = StoredSession(client_id=client_id, owner="", gateway=gateway, expiry=0)
    return replace(record, released=True, taker=gateway, taken=epoch, base=digest(value))


class Ownership:
    """`stands` for every record of a session, in the order of the log."""

    def __init__(self) -> None:
        self._whole = False
        self._standing: dict[bytes, tuple[str, str]] = {}  # owner, digest of the record
        self._doubtful: dict[bytes, int] = {}  # claims of records from before `started`, until the next that stands
        self._names: dict[str, str] = {}

    def started(self) -> None:
        """Everything that was in the log has been read: from now on nothing is missing because it was compacted."""
        self._whole = True

    def owner(self, key: bytes) -> str:
        """The gateway whose this session is, or was when it let go; empty: there is none."""
        known = self._standing.get(key)
        return "" if known is None else known[0]

    def stands(self, key: bytes, value: bytes | None) -> bool:
        """Whether this record counts. One that is unreadable does: whoever needs it complains."""
        if value is None:
            self._standing.pop(key, None)
            self._doubtful.pop(key, None)
            return True
        try:
            found = json.loads(value)
            gateway, taker, base = str(found["gateway"]), str(found.get("taker", "")), str(found.get("base", ""))
            epoch = int(found.get("taken" if taker else "claim", 0))
        except (ValueError, TypeError, KeyError, AttributeError):
            self._standing.pop(key, None)
            return True
        known = self._standing.get(key)
        if known is None:
            good = not taker or base == NOTHING or not self._whole
        else:
            good = base == known[1] if taker else gateway == known[0] or self._missed(key, epoch)
        if good:
            owner = taker or gateway
            self._standing[key] = (self._names.setdefault(owner, owner), digest(value))
            if self._whole:
                self._doubtful.pop(key, None)
            else:
                self._doubtful[key] = epoch
        return good

    def _missed(self, key: bytes, claim: int) -> bool:
        """Whether an owner by this claim shows that how it came to be it was compacted away."""
        return self._whole and key in self._doubtful and claim > self._doubtful[key]
