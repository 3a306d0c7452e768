"""From CONNECT to CONNACK, and re-authentication: the conversations in which the engine says who the peer is.

Reading is held while the engine is asked, so a peer can't make us work ahead of its authentication. An existing
session of the same client id is touched by `Engine.open` alone, which comes after authentication.
"""

from __future__ import annotations

import base64
import dataclasses
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gateway.mqtt import packets
from gateway.mqtt import properties as p
from gateway.mqtt.errors import ConnectRejected, Malformed, PeerError, Reason, connack_code
from gateway.mqtt.pacing import HANDSHAKE
from gateway.mqtt.properties import Properties
from gateway.mqtt.topics import valid_name
from gateway.ports import (
    OFFLINE_FOR_EVER,
    Challenge,
    ConnectRequest,
    Ending,
    Identity,
    Opened,
    Receipt,
    Refused,
    SessionState,
    Will,
)

if TYPE_CHECKING:
    from gateway.mqtt.session import Session

_MAX_ROUNDS = 8  # of challenge and answer
_LARGEST_PACKET = 268_435_455  # the protocol itself has none larger


class Handshake:
    """One CONNECT on its way to CONNACK. `dialect` is what a refusal is spoken in; `silent`: close without one."""

    __slots__ = ("_exchange", "_packet", "_rounds", "_session", "_step", "challenged", "dialect", "silent")

    def __init__(self, session: Session) -> None:
        self._session = session
        self._packet: packets.Connect | None = None
        self._exchange: Any = None
        self._rounds = 0
        self._step: Callable[[Any], None] = self._authenticated
        self.challenged = False
        self.dialect = 0  # not known yet
        self.silent = False

    def packet(self, first: int, body: bytes) -> None:
        if first & 0xF0 == 0x10 and self._packet is None:
            packet = packets.decode_connect(body)
            if first != 0x10 and packet.protocol != 3:  # 3.1 leaves the flags open
                raise Malformed("reserved header flags")
            self._connect(packet)
        elif first == 0xF0 and self.challenged:
            self._answered(packets.decode_auth(body))
        else:
            raise Malformed("the first packet is not CONNECT")

    def refuse(self, code: int, reason: str, server_reference: str) -> bool:
        """Write a refusing CONNACK if the peer got as far as saying its dialect; whether there was one."""
        if not self.dialect or self.silent:
            return False
        found: Properties = {}
        if self.dialect == 5:
            session = self._session
            told = session._settings.reason_strings and code != Reason.BAD_AUTHENTICATION_METHOD  # that says it all
            if reason and told and session._problem_information:
                found[p.REASON_STRING] = reason
            if server_reference:
                found[p.SERVER_REFERENCE] = server_reference
            code = connack_code(code)
        frame = packets.encode_connack(self.dialect, False, code, found)
        if found and not self._session._fits(frame):  # MQTT-3.2.2-19
            frame = packets.encode_connack(self.dialect, False, code)
        self._session._link.write(frame)
        return True

    def _connect(self, packet: packets.Connect) -> None:
        session = self._session
        self._packet = packet
        self.dialect = packet.protocol
        assigned = not packet.client_id
        client_id = packet.client_id
        if assigned:
            if packet.protocol == 3 or (packet.protocol == 4 and not packet.clean_start):
                raise _rejected(packet, "a client identifier is needed", Reason.CLIENT_IDENTIFIER_NOT_VALID)
            client_id = "auto-" + base64.b32encode(os.urandom(15)).decode().lower()
        session.client_id = client_id
        expiry = OFFLINE_FOR_EVER if packet.protocol != 5 and not packet.clean_start else 0
        if packet.protocol == 5:
            session._granted = {
                key: packet.properties[key]
                for key in (p.RECEIVE_MAXIMUM, p.MAXIMUM_PACKET_SIZE, p.TOPIC_ALIAS_MAXIMUM, p.REQUEST_PROBLEM)
                if key in packet.properties
            } or None
            expiry = packet.properties.get(p.SESSION_EXPIRY, 0)
        session.request = ConnectRequest(
            client_id=client_id,
            assigned=assigned,
            protocol=packet.protocol,
            clean_start=packet.clean_start,
            keep_alive=packet.keep_alive,
            session_expiry=expiry,
            username=packet.username,
            password=packet.password,
            will=_will(packet),
            peer=session.peer,
            authentication_method=packet.properties.get(p.AUTHENTICATION_METHOD),
            authentication_data=packet.properties.get(p.AUTHENTICATION_DATA),
            user=tuple(packet.properties.get(p.USER_PROPERTY, ())),
        )
        self._ask(session._engine.authenticate(session.request), self._authenticated)

    def _ask(self, receipt: Receipt[Any], step: Callable[[Any], None]) -> None:
        self._step = step
        if receipt.settled:
            self.receipt_settled(receipt)
        else:
            self._session.hold(HANDSHAKE)
            receipt.waiters.append(self)

    def receipt_settled(self, receipt: Receipt[Any]) -> None:
        session = self._session
        failure = receipt.failure
        if session.closed:
            if failure is None and isinstance(receipt.value, Opened):
                self._abandoned(receipt.value)
        elif isinstance(failure, Refused):
            session.blamed, session.why = f"refused-0x{failure.code:02x}", failure.why
            session.close(failure.code, failure.reason, server_reference=failure.server_reference)
        elif failure is not None:
            session.close(Reason.SERVER_UNAVAILABLE, str(failure))
        else:
            try:
                self._step(receipt.value)
            except PeerError as error:
                session._failed(error)

    def _abandoned(self, opened: Opened) -> None:
        """The connection ended while its session was being opened: give the state back as it came."""
        session = self._session
        state = opened.state or SessionState()
        ending = Ending(will=False, reason=session.ended, session_expiry=session._expiry, state=state)
        session._engine.closed(session, ending)

    def _authenticated(self, outcome: Identity | Challenge) -> None:
        session = self._session
        if isinstance(outcome, Challenge):
            self._rounds += 1
            if self._rounds > _MAX_ROUNDS:
                raise PeerError("too many authentication rounds", Reason.NOT_AUTHORIZED)
            method = session.request.authentication_method or ""
            self._exchange = outcome.exchange
            self.challenged = True
            session.answer(packets.encode_auth(Reason.CONTINUE_AUTHENTICATION, method, outcome.data))
            session.let_go(HANDSHAKE)
            return
        session.identity = outcome
        limits = outcome.limits
        request = session.request
        session._expiry = min(request.session_expiry, limits.session_expiry)
        will = request.will
        if will is not None and will.qos > limits.qos:
            raise _rejected(self._packet, "will QoS not supported", Reason.QOS_NOT_SUPPORTED)
        if will is not None and will.retain and not limits.retain:
            raise _rejected(self._packet, "retained wills are not supported", Reason.RETAIN_NOT_SUPPORTED)
        # the secret is not needed any more, and shall not sit in memory for as long as the connection lives
        if request.password is not None or request.authentication_data is not None:
            session.request = dataclasses.replace(request, password=None, authentication_data=None)
        # it is us now who take time: the session may have to come from another gateway
        session._started = (
            session._moment.monotonic + session._settings.open_timeout - session._settings.connect_timeout
        )
        self._ask(session._engine.open(session), self._opened)

    def _answered(self, packet: packets.Authenticate) -> None:
        session = self._session
        if packet.code != Reason.CONTINUE_AUTHENTICATION:
            raise PeerError("not an answer to the challenge")
        if packet.method != session.request.authentication_method:
            raise PeerError("not the authentication method of CONNECT")
        self.challenged = False
        self._ask(session._engine.answer(self._exchange, packet.data or b""), self._authenticated)

    def _opened(self, opened: Opened) -> None:
        session = self._session
        session._opened = True
        request, limits = session.request, session.identity.limits
        keep_alive = request.keep_alive
        if limits.keep_alive and (keep_alive == 0 or keep_alive > limits.keep_alive):
            keep_alive = limits.keep_alive
        told = keep_alive if request.protocol == 5 else request.keep_alive
        session._keep_alive = told * 1.5
        session._max_packet = limits.packet_size
        session._messages_left, session._bytes_left = limits.messages_rate, limits.bytes_rate
        session._rate_checked = session._moment.monotonic
        session._restore(opened)
        found = self._connack(keep_alive) if request.protocol == 5 else None
        connack = packets.encode_connack(request.protocol, opened.present, 0, found)
        if not session._fits(connack):
            self.silent = True
            raise PeerError("CONNACK is larger than the client takes", Reason.PACKET_TOO_LARGE)
        session._link.write(connack)
        session.connected = True
        session._handshake = None
        if session._sender is not None:
            session._sender.pump()
        session._engine.opened(session)
        session.let_go(HANDSHAKE)

    def _connack(self, keep_alive: int) -> Properties:
        """What an MQTT 5 client is told (3.2.2.3); what equals the default is left out."""
        session, packet = self._session, self._packet
        assert packet is not None
        request, identity = session.request, session.identity
        limits = identity.limits
        found: Properties = {}
        if session._expiry != request.session_expiry:
            found[p.SESSION_EXPIRY] = session._expiry
        if limits.topic_aliases:
            found[p.TOPIC_ALIAS_MAXIMUM] = limits.topic_aliases
        if request.assigned:
            found[p.ASSIGNED_CLIENT_ID] = request.client_id
        if limits.in_flight < 65_535:
            found[p.RECEIVE_MAXIMUM] = min(limits.in_flight, session._settings.receive_maximum)
        if limits.qos < 2:
            found[p.MAXIMUM_QOS] = limits.qos
        if not limits.retain:
            found[p.RETAIN_AVAILABLE] = 0
        if limits.packet_size < _LARGEST_PACKET:
            found[p.MAXIMUM_PACKET_SIZE] = limits.packet_size
        if keep_alive != request.keep_alive:
            found[p.SERVER_KEEP_ALIVE] = keep_alive
        if packet.properties.get(p.REQUEST_RESPONSE) and session._settings.response_information:
            found[p.RESPONSE_INFORMATION] = session._settings.response_information.replace(
                "{client_id}", request.client_id
            )
        if request.authentication_method is not None:
            found[p.AUTHENTICATION_METHOD] = request.authentication_method
            if identity.authentication_data is not None:
                found[p.AUTHENTICATION_DATA] = identity.authentication_data
        return found


class Reauthentication:
    """AUTH 0x19 on a connected session (4.12.1): other packets go on meanwhile; a refusal ends the connection."""

    __slots__ = ("_exchange", "_rounds", "_session")

    def __init__(self, session: Session) -> None:
        self._session = session
        self._exchange: Any = None
        self._rounds = 0

    def start(self, packet: packets.Authenticate) -> None:
        session = self._session
        self._ask(session._engine.reauthenticate(session, packet.method or "", packet.data or b""))

    def answered(self, packet: packets.Authenticate) -> None:
        if self._exchange is None:
            raise PeerError("AUTH while none was asked for")
        exchange, self._exchange = self._exchange, None
        self._ask(self._session._engine.answer(exchange, packet.data or b""))

    def _ask(self, receipt: Receipt[Any]) -> None:
        if receipt.settled:
            self.receipt_settled(receipt)
        else:
            receipt.waiters.append(self)

    def receipt_settled(self, receipt: Receipt[Any]) -> None:
        session = self._session
        if session.closed:
            return
        outcome, failure = receipt.value, receipt.failure
        method = session.request.authentication_method or ""
        if isinstance(failure, Refused):
            session.close(failure.code, failure.reason, server_reference=failure.server_reference)
        elif failure is not None:
            session.close(Reason.UNSPECIFIED, str(failure))
        elif isinstance(outcome, Challenge) and self._rounds < _MAX_ROUNDS:
            self._rounds += 1
            self._exchange = outcome.exchange
            session.answer(packets.encode_auth(Reason.CONTINUE_AUTHENTICATION, method, outcome.data))
        elif isinstance(outcome, Identity) and outcome.name == session.identity.name:
            session.identity = outcome
            session._reauthentication = None
            session.answer(packets.encode_auth(Reason.SUCCESS, method, outcome.authentication_data))
        else:
            session.close(Reason.NOT_AUTHORIZED, "re-authentication failed")


def _rejected(packet: packets.Connect | None, reason: str, code: Reason) -> PeerError:
    return ConnectRejected(reason, code, packet.protocol if packet is not None else 4)


def _will(packet: packets.Connect) -> Will | None:
    if packet.will is None:
        return None
    fields = packet.will
    if not valid_name(fields.topic):
        raise _rejected(packet, "the will topic is not a topic name", Reason.TOPIC_NAME_INVALID)
    return Will(
        topic=fields.topic,
        payload=fields.payload,
        qos=fields.qos,
        retain=fields.retain,
        delay=fields.properties.get(p.WILL_DELAY, 0),
        properties=packets.publish_properties(
            {key: value for key, value in fields.properties.items() if key != p.WILL_DELAY}
        ),
    )
