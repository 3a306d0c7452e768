"""Publishing without a session: the engine's side of `gateway.http.port.Door`.

A visitor stands for a session in the uplink, so that routes, keys, headers, retained messages, de-duplication, delayed
topics and counters are the same as for a PUBLISH. There is no claim to a client id: what records name is the client id
that a registered device is bound to, or else the principal's name; anonymous visitors are `$http`. Policies, bans and
client ids reserved for others apply to that name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

from gateway.counters import Counters
from gateway.http.port import Publication, Visitor
from gateway.identity.asking import TopicAnswers
from gateway.identity.plugins import PluginHost
from gateway.policy import Policy
from gateway.ports import Challenge, ConnectRequest, Fate, Identity, NotAcknowledged, Receipt, Refused, settled
from gateway.publishing.target import Target
from gateway.publishing.uplinks import Uplinks
from gateway.receipts import follow, gather, refused
from gateway.registry import Registry
from gateway.sessions.connected import Connection
from gateway.storage.ticks import Ticks
from gateway.visiting.allowances import Allowance, Allowances
from gateway.why import Why

ANONYMOUS = "$http"
CLIENT_ID_INVALID = 0x85
NOT_AUTHORIZED = 0x87
UNAVAILABLE = 0x88
BANNED = 0x8A
RETAIN_NOT_SUPPORTED = 0x9A


class Engine(Protocol):
    """What of the engine is used."""

    @property
    def epoch(self) -> int: ...
    @property
    def counters(self) -> Counters: ...
    @property
    def registry(self) -> Registry: ...
    @property
    def uplinks(self) -> Uplinks: ...
    @property
    def plugins(self) -> PluginHost | None: ...
    def authenticate(self, request: ConnectRequest) -> Receipt[Identity | Challenge]: ...


class Visitors:
    """Implements `Door`. `held`: the gateway's lease is."""

    def __init__(
        self,
        engine: Engine,
        *,
        ticks: Callable[[], Ticks],
        held: Callable[[], bool],
        clock: Callable[[], float],
    ) -> None:
        self._engine = engine
        self._ticks = ticks
        self._held = held
        self._clock = clock
        self._allowances = Allowances()

    @property
    def available(self) -> bool:
        ticks = self._ticks()
        return self._held() and not ticks.away and not ticks.stalled

    # --- who it is

    def visit(self, knock: ConnectRequest) -> Receipt[Visitor]:
        epoch = self._engine.epoch  # what changes while the password is looked at is asked for again
        request = replace(knock, client_id=self._client_id(self._claimed(knock)))
        receipt: Receipt[Visitor] = Receipt()
        found = self._engine.authenticate(request)
        if found.settled:
            self._admit(request, found, receipt, epoch)
        else:
            gather([found], lambda: self._admit(request, found, receipt, epoch))
        return receipt

    def still_holds(self, visitor: Visitor) -> bool:
        expires = visitor.identity.expires_at
        return visitor.epoch == self._engine.epoch and (expires is None or expires > self._clock())

    def _claimed(self, knock: ConnectRequest) -> str:
        """The principal that the request seems to be from."""
        if knock.username:
            return knock.username
        subject = knock.peer.certificate_subject
        device = self._engine.registry.by_subject(subject) if subject and not knock.password else None
        return device.name if device is not None else ""

    def _client_id(self, principal: str) -> str:
        device = self._engine.registry.devices.get(principal)
        return (device.client_id if device is not None else "") or principal or ANONYMOUS

    def _admit(self, request: ConnectRequest, found: Receipt[Any], receipt: Receipt[Visitor], epoch: int) -> None:
        if found.failure is not None:
            receipt.fail(found.failure)
            return
        identity, registry = found.value, self._engine.registry
        assert isinstance(identity, Identity)
        client_id = self._client_id(identity.name)
        if client_id != request.client_id:  # a token or a certificate said who it is
            holder = registry.holder(client_id)
            if holder is not None and holder != identity.name:
                receipt.fail(
                    Refused(CLIENT_ID_INVALID, "the client id belongs to another device", why=Why.CLIENT_ID_TAKEN)
                )
                return
            address = request.peer.address.rpartition(":")[0].strip("[]")
            if registry.banned(client_id, identity.name, address, self._clock()) is not None:
                receipt.fail(Refused(BANNED, "banned", why=Why.BANNED))
                return
        own = identity.detail if isinstance(identity.detail, Policy) else None
        rights = registry.rights(identity.name, client_id, own)
        state = Connection(identity.name, rights, self._clock(), None)
        plugins = self._engine.plugins
        if plugins is not None and plugins.filters_topics:
            seen = plugins.session(replace(request, client_id=client_id))
            state.asked = TopicAnswers(lambda action, topic: plugins.may(seen, action, topic))
        receipt.settle(Visitor(client_id, identity, state, epoch))

    # --- what they publish

    def publish(self, visitor: Visitor, publication: Publication, payload: bytes) -> Receipt[Fate]:
        uplinks = self._engine.uplinks
        if not self.available:
            return refused(Refused(UNAVAILABLE, "the broker is away or behind; nothing was stored", after=1.0))
        target = uplinks.target(visitor, publication.topic)
        asked = visitor.state.asked
        if not target.refused and asked is not None:
            answer = asked.get("publish", target.mqtt_topic)
            if answer is None:
                receipt: Receipt[Fate] = Receipt()
                known = asked.known("publish", target.mqtt_topic)
                gather([known], lambda: follow(self.publish(visitor, publication, payload), receipt))
                return receipt
            if not answer:
                target.refused = NOT_AUTHORIZED
        if target.refused:
            uplinks.refuse(target)
            return refused(Refused(target.refused, f"not allowed to publish to {publication.topic}"))
        limits = visitor.identity.limits
        if publication.retain and not limits.retain:
            return refused(Refused(RETAIN_NOT_SUPPORTED, "retained messages are not supported"))
        try:
            allowance = self._allowances.take(visitor.client_id, limits, len(payload), self._clock())
        except Refused as refusal:
            return refused(refusal)
        return self._store(visitor, target, publication, payload, allowance)

    def _store(
        self, visitor: Visitor, target: Target, publication: Publication, payload: bytes, allowance: Allowance
    ) -> Receipt[Fate]:
        flags = publication.qos << 1 | publication.retain
        window = target.route.deduplicate if target.route is not None else 0.0
        self._engine.counters.received_http += 1
        tick = self._engine.uplinks.publish(visitor, [(target, payload, flags, 0, publication.properties)])
        if not publication.qos:
            allowance.under_way -= 1
            if target.fate is not None and target.fate.outcome == "dropped":
                return refused(Refused(UNAVAILABLE, "the broker is behind; nothing was stored", after=1.0))
            return settled(replace(target.fate or Fate(outcome="accepted"), window=window))
        receipt: Receipt[Fate] = Receipt()

        def stored() -> None:
            allowance.under_way -= 1
            if tick.failed_for(visitor):
                receipt.fail(NotAcknowledged(str(tick.failure or "the outcome is unknown")))
            else:
                receipt.settle(replace(target.fate or Fate(), window=window))

        gather([tick], stored)
        return receipt
