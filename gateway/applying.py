"""What each record of a state topic does to the engine, in the order of the log."""

from __future__ import annotations

import logging
import time

from gateway import contract
from gateway.contract import GATEWAY_KEY, PRESENCE, RETAINED, SESSIONS, SHARE_KEY, Control
from gateway.engine import GatewayEngine
from gateway.moving.arrivals import CHECKPOINT_KEY
from gateway.peers.membership import Gateways
from gateway.peers.presence import decode_status
from gateway.sessions.records import WRITER
from gateway.storage.state import Passed, RecordHeaders

log = logging.getLogger("gateway")


class Applying:
    """`restoring` gathers the records of sessions until they are taken (`taken`): a start reads them all before it acts
    on any."""

    def __init__(self, engine: GatewayEngine, gateways: Gateways) -> None:
        self._engine = engine
        self._gateways = gateways
        self.restoring: dict[bytes, bytes] | None = {}
        self._ownership = engine.cluster.ownership

    def taken(self) -> dict[bytes, bytes]:
        """What was gathered; from now on records are acted on as they come."""
        restoring, self.restoring = self.restoring, None
        assert restoring is not None
        self._ownership.started()
        return restoring

    def apply(self, topic: str, key: bytes, value: bytes | None, headers: RecordHeaders, offset: int) -> bytes | None:
        """One record of a state topic; what the local copy keeps of it. Raises Passed: nothing."""
        if topic == RETAINED:
            self._engine.retained.apply(key, value)
        elif topic == PRESENCE:
            return self._presence(key.decode("utf-8", "replace"), value, headers, offset)
        elif topic == SESSIONS:
            self._session(key, value, headers)
        else:
            change = self._engine.registry.apply(topic, key, value)
            if change is not None:
                self._engine.changed(change)
        return value

    def _presence(self, client_id: str, value: bytes | None, headers: RecordHeaders, offset: int) -> bytes | None:
        shared = client_id.startswith(SHARE_KEY)
        if shared:
            self._engine.shares.known(client_id)
        elif client_id.startswith(GATEWAY_KEY):
            status = decode_status(value) if value is not None else None
            if status is not None:
                self._gateways.heard(status, time.monotonic())
            return value
        kept, heard = self._engine.presence.hear(client_id, value, headers, offset)
        if heard is not None and self.restoring is None:
            (self._engine.shares if shared else self._engine.moves).heard(heard)
        return kept

    def _session(self, key: bytes, value: bytes | None, headers: RecordHeaders) -> None:
        mark, name = contract.parse_mark_key(key), key.decode("utf-8", "replace")
        stands = mark is not None or name.startswith(CHECKPOINT_KEY) or self._ownership.stands(key, value)
        if self.restoring is not None and stands:
            if value is None:
                self.restoring.pop(key, None)
            else:
                self.restoring[key] = value
        if mark is not None:
            self._engine.sessions.mark(*mark, there=value is not None)
        elif self.restoring is None:
            writer = next((mark.decode() for name, mark in headers if name == WRITER and mark is not None), None)
            home = self._engine.shares if name.startswith(SHARE_KEY) else self._engine.moves
            home.stored(name, writer, self._ownership.owner(key))
        if not stands:
            raise Passed

    def control(self, value: bytes) -> None:
        try:
            self._engine.enforcing.control(contract.decode(Control, value))
        except contract.MalformedRecord as error:
            log.error("a control order is unreadable: %s", error)
