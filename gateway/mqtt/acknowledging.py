"""Acknowledgements to the peer, in PUBLISH order.

The FIFO holds (receipt, acknowledgements, how many of them are PUBACKs). Only its head is ever written, so
acknowledgements keep PUBLISH order (MQTT-4.6.0-2, -3) however the receipts settle, and leave in one write per receipt.

Invariant: `_in_flight` is the number of QoS 1 messages whose PUBACK is in the FIFO; with `inbound` (QoS 2 messages
not released) it is what Receive Maximum counts. Packet ids an earlier connection left in `inbound` don't count
(4.9: each connection begins with the whole quota): `_restore_inbound` takes them off beforehand.

MQTT 3 has no Receive Maximum: reading waits there for what we owe the peer (`_owed`), never for its PUBREL, which may
be behind what isn't read. What it doesn't release ends with its packet ids.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from typing import Any

from gateway.mqtt import packets
from gateway.mqtt import properties as p
from gateway.mqtt.errors import Reason
from gateway.mqtt.pacing import IN_FLIGHT, Paced
from gateway.mqtt.surroundings import Link, Moment
from gateway.ports import Engine, NotAcknowledged, Receipt, Refused, settled


class Acknowledging(Paced):
    """Base of `receiver.Receiver`; see the module."""

    __slots__ = ("_engine", "_fifo", "_in_flight", "inbound", "joined_packets")

    def __init__(self, engine: Engine, link: Link, moment: Moment) -> None:
        super().__init__(link, moment)
        self._engine = engine
        self._fifo: deque[tuple[Receipt[Any], list[bytes], int]] | None = None
        self._in_flight = 0
        self.inbound: dict[int, Receipt[Any]] | None = None
        self.joined_packets = 0  # acknowledgements that left in one write with others, less that one

    @abstractmethod
    def close(self, code: int, reason: str = "", *, server_reference: str = "") -> None: ...

    def _restore_inbound(self, inbound: dict[int, Receipt[Any]]) -> None:
        if inbound:
            self.inbound = dict(inbound)
            self._in_flight = -len(inbound)

    @property
    def _unacknowledged(self) -> int:
        return self._in_flight + (len(self.inbound) if self.inbound else 0)

    @property
    def _owed(self) -> int:
        """Acknowledgements that wait for what they acknowledge to be durable."""
        return sum(len(acks) for _, acks, _ in self._fifo) if self._fifo else 0

    def _queue(self, receipt: Receipt[Any], acks: list[bytes], ones: int) -> None:
        """Let these acknowledgements leave once the receipt settled and all before them left."""
        fifo = self._fifo
        if fifo is None:
            fifo = self._fifo = deque()
        if receipt.settled:
            if not fifo and not receipt.failed_for(self):
                self._in_flight -= ones
                if acks:
                    self.joined_packets += len(acks) - 1
                    self._link.write(b"".join(acks))
                if self._held & IN_FLIGHT:
                    self._recheck_in_flight()
                return
            fifo.append((receipt, acks, ones))
            self.receipt_settled(receipt)
        elif fifo and fifo[-1][0] is receipt:
            last = fifo[-1]
            last[1].extend(acks)
            if ones:
                fifo[-1] = (receipt, last[1], last[2] + ones)
        else:
            fifo.append((receipt, acks, ones))
            receipt.waiters.append(self)

    def receipt_settled(self, receipt: Receipt[Any]) -> None:
        """Write the acknowledgements that are due."""
        fifo = self._fifo
        if self.closed or not fifo:
            return
        out: list[bytes] = []
        # wherever it stands: what this peer sends from now on would be stored before that, which it sends again
        failed = receipt if receipt.failed_for(self) else None
        while fifo and fifo[0][0].settled:
            head, acks, ones = fifo[0]
            if head.failure is not None or (head.doubtful is not None and head.failed_for(self)):
                failed = head
                break
            fifo.popleft()
            out += acks
            self._in_flight -= ones
        if out:
            self.joined_packets += len(out) - 1
            self._link.write(b"".join(out))
        if failed is not None:
            self._not_acknowledged(failed)
        elif self._held & IN_FLIGHT:
            self._recheck_in_flight()

    def _not_acknowledged(self, receipt: Receipt[Any]) -> None:
        failure = receipt.failure
        if isinstance(failure, Refused):
            self.close(failure.code, failure.reason)
        else:
            self.close(Reason.UNSPECIFIED, str(failure or NotAcknowledged.__doc__))

    def _answer_again(self, packet_id: int) -> None:
        """PUBREC for a QoS 2 message that came before; it is not published again (MQTT-4.3.3-10)."""
        assert self.inbound is not None
        self._queue(self.inbound[packet_id], [b"\x50\x02" + packet_id.to_bytes(2, "big")], 0)

    def _release(self, packet_id: int) -> bool:
        """PUBREL: PUBCOMP once the packet id's removal is durable. Whether there was one to remove."""
        receipt = self.inbound.pop(packet_id, None) if self.inbound else None
        protocol = self.request.protocol
        if receipt is None:
            code = Reason.PACKET_IDENTIFIER_NOT_FOUND
            ack = packets.encode_acknowledgement(p.PUBCOMP, packet_id, code, protocol)
            self._queue(self._fifo[-1][0] if self._fifo else settled(), [ack], 0)
            return False
        ack = packets.encode_acknowledgement(p.PUBCOMP, packet_id, 0, protocol)
        self._queue(self._engine.release(self, packet_id), [ack], 0)  # type: ignore[arg-type]
        if self._held & IN_FLIGHT:
            self._recheck_in_flight()
        return True

    def _recheck_in_flight(self) -> None:
        if self._owed <= self.identity.limits.in_flight // 2:
            self.let_go(IN_FLIGHT)
