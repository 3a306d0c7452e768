"""Who is connected, told to the other gateways and to the console: `__sluice_presence`.

A claim (see `claims`) is written at once, and all else that is said of a client follows in batches, as updates of the
claim they name: an update whose claim was replaced meanwhile isn't written. Own records are known again by a header, so
that reading them back costs no decoding. The gateway's own status, with its counters, is a record beside the clients'.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from gateway import contract
from gateway.contract import GATEWAY_KEY, PRESENCE, GatewayStatus, MalformedRecord, Presence
from gateway.peers.claims import Claims, Heard, Won
from gateway.ports import Receipt
from gateway.receipts import again_if_failed
from gateway.storage.ticks import Headers

log = logging.getLogger("gateway.presence")

INTERVAL = 0.1
STATUS_INTERVAL = 2.0
TOKEN = "sluice.token"  # noqa: S105 - a record header's name

Write = Callable[[str, bytes | None, bytes | None, Headers | None], Receipt[Any]]


class PresenceBook:
    """Collects changes; `start` writes them out regularly. `last` is what was said last of this gateway's clients."""

    def __init__(
        self, gateway: str, claims: Claims, write: Write, status: Callable[[], GatewayStatus], *, started: float
    ) -> None:
        self.last: dict[str, Presence] = {}
        self._gateway = gateway
        self._claims = claims
        self._write = write
        self._status = status
        self._prefix = f"{gateway}/{started:.6f}/"
        self._numbers = itertools.count(1)
        self._sent: dict[bytes, Presence] = {}
        self._changed: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    # --- writing

    def claim(self, presence: Presence, *, fresh: bool = False, adopts: int | None = None) -> str:
        """Claim a client id, now; the claim's token."""
        return self.claim_durably(presence, fresh=fresh, adopts=adopts)[0]

    def claim_durably(
        self, presence: Presence, *, fresh: bool = False, adopts: int | None = None
    ) -> tuple[str, Receipt[Any]]:
        """Claim a client id, now: the claim's token, and a receipt that settles when every later claim is newer."""
        token = f"{self._prefix}{next(self._numbers)}"
        claim = contract.revised(presence, token=token, epoch=0, adopts=adopts, fresh=fresh)
        self._claims.claiming(presence.client_id, token, None if presence.clean else presence.principal)
        if adopts is None:
            self.last[presence.client_id] = claim
            self._changed.discard(presence.client_id)
        receipt = self._put(claim)
        if not presence.clean:
            again_if_failed(receipt, lambda: self._claims.failed(token))
        return token, receipt

    def note(self, presence: Presence) -> None:
        """Say this of a client with the next batch."""
        self.last[presence.client_id] = presence
        self._changed.add(presence.client_id)

    def amend(self, client_id: str, **fields: Any) -> None:
        """Say what was said last, with these fields changed."""
        known = self.last.get(client_id)
        if known is not None:
            self.note(replace(known, **fields))

    def repeat(self, client_id: str) -> None:
        """Say it again: another record stands in its place."""
        if client_id in self.last:
            self._changed.add(client_id)

    def forget(self, client_id: str) -> None:
        """The client is another gateway's."""
        self.last.pop(client_id, None)
        self._changed.discard(client_id)

    def _put(self, presence: Presence) -> Receipt[Any]:
        mark = presence.token.encode()
        self._sent[mark] = presence
        receipt = self._write(
            PRESENCE, contract.encode(presence, sparse=True), presence.client_id.encode(), [(TOKEN, mark)]
        )
        again_if_failed(receipt, lambda: self._sent.pop(mark, None))
        return receipt

    def flush(self) -> None:
        """Write what changed, save for clients whose claim hasn't been read back yet."""
        changed, self._changed = self._changed, set()
        for client_id in changed:
            if self._claims.unheard(client_id):
                self._changed.add(client_id)
                continue
            presence, holder = self.last.get(client_id), self._claims.holders.get(client_id)
            if presence is None or holder is None or holder.gateway != self._gateway:
                self.last.pop(client_id, None)
                continue
            token = f"{self._prefix}{next(self._numbers)}"
            self._put(contract.revised(presence, token=token, epoch=holder.epoch, adopts=None, fresh=False))
            if presence.clean and not presence.online:
                del self.last[client_id]

    def write_status(self) -> None:
        status = self._status()
        self._write(PRESENCE, contract.encode(status), (GATEWAY_KEY + status.gateway).encode(), None)

    # --- reading

    def hear(
        self, client_id: str, value: bytes | None, headers: Sequence[tuple[str, bytes | None]], offset: int
    ) -> tuple[bytes | None, Heard | None]:
        """One record of a client; what to keep of it (a claim with its epoch filled in), and what it means.

        Raises MalformedRecord."""
        presence = None
        for name, mark in headers:
            if name == TOKEN and mark is not None:
                presence = self._sent.pop(mark, None)
        if presence is not None:
            client_id = presence.client_id  # one text for all who keep it
        elif value is not None:
            presence = contract.decode(Presence, value)
            if self._task is None and presence.gateway == self._gateway:
                self.last[client_id] = presence  # an earlier run's
        heard = self._claims.hear(client_id, presence, offset)
        if isinstance(heard, Won) and presence is not None and presence.adopts is not None and not presence.clean:
            self.last.setdefault(client_id, presence)  # what becomes of it is this gateway's to say
        if value is not None and presence is not None and not presence.epoch:
            more = f',"epoch":{offset},"token":{json.dumps(presence.token or "-")}}}'
            value = value.rstrip()[:-1] + more.encode()  # of two equal names the later counts
        return value, heard

    # --- running

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        since = STATUS_INTERVAL
        while True:
            if self._changed:
                self.flush()
            if since >= STATUS_INTERVAL:
                since = 0.0
                self.write_status()
            await asyncio.sleep(INTERVAL)
            since += INTERVAL

    def stop(self) -> None:
        """Write the last changes and the status."""
        if self._task is not None:
            self._task.cancel()
        self.flush()
        self.write_status()


def decode_status(value: bytes) -> GatewayStatus | None:
    """A gateway's own record; None when it is unreadable."""
    try:
        return contract.decode(GatewayStatus, value)
    except MalformedRecord as error:
        log.warning("a gateway's status is unreadable: %s", error)
        return None
