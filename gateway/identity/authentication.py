"""Who a connection is: bans, passwords, certificates, tokens, plugins, and anonymous use where it is allowed.

The order: a ban keeps anybody out; a certificate whose subject is a device's is that device; a user name must be a
device's, with its password (a JWT where these are configured, and then plugins, may speak for names the registry
doesn't know); no credential at all is anonymous, which a listener allows or not. A wrong credential is refused
everywhere, also where anonymous use is allowed. Nothing here touches a session of the claimed client id.

Guessing is slowed down by address and name together, so that nobody can lock a device out from elsewhere.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from typing import Any, Protocol

from gateway import passwords
from gateway.config import Settings
from gateway.contract import Credential, Device, DeviceLimits
from gateway.counters import Counters
from gateway.mqtt import scram
from gateway.policy import unfit
from gateway.ports import OFFLINE_FOR_EVER, Challenge, ConnectRequest, Identity, Limits, Receipt, Refused, settled
from gateway.registry import Registry
from gateway.why import Why

log = logging.getLogger("gateway.authentication")

CLIENT_ID_INVALID = 0x85
BAD_CREDENTIALS = 0x86
NOT_AUTHORIZED = 0x87
BANNED = 0x8A
BAD_METHOD = 0x8C
SERVER_MOVED = 0x9D
RATE_EXCEEDED = 0x9F
FREE_GUESSES = 5
GUESS_INTERVAL = 1.0  # seconds, doubling per further failure
LONGEST_WAIT = 60.0
REMEMBERED = 10_000
NO_LIMITS = DeviceLimits()  # of a device's own


class Verifier(Protocol):
    """Another way to know somebody: JWT, plugins."""

    async def verify(self, request: ConnectRequest) -> Identity | None:
        """Who it is, or None when this verifier doesn't know them; raises Refused when it knows better."""


class Authenticator:
    """Decides CONNECTs."""

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        counters: Counters,
        *,
        clock: Callable[[], float],
        executor: Executor,
        verifiers: Sequence[Verifier] = (),
        short_lived: bool = False,
    ) -> None:
        """`short_lived`: no session outlives its connection."""
        self._settings = settings
        self._registry = registry
        self._counters = counters
        self._clock = clock
        self._executor = executor
        self._verifiers = verifiers
        self._secret = secrets.token_bytes(32)  # what unknown names get as salt
        self._guesses: OrderedDict[tuple[str, str], tuple[int, float]] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()
        self._open: dict[str, bool] = {}  # listeners, and whether they take anybody
        self._usual = Limits(
            session_expiry=0 if short_lived else settings.session_expiry or OFFLINE_FOR_EVER,
            sessions=settings.sessions,
            packet_size=settings.packet_size,
            in_flight=settings.in_flight,
            queue=settings.queue,
            queue_bytes=settings.queue_bytes,
            overflow=settings.overflow,
            keep_alive=settings.keep_alive,
            conceal_denied=settings.conceal_denied,
        )
        self._nobody = Identity(name="", limits=self._usual)

    def authenticate(self, request: ConnectRequest) -> Receipt[Identity | Challenge]:
        receipt: Receipt[Identity | Challenge] = Receipt()
        try:
            if self._settings.moved:
                reference = self._settings.server_reference
                raise Refused(SERVER_MOVED, "the server has moved", server_reference=reference, why=Why.MOVED)
            if request.authentication_method is not None:
                self._not_banned(request)
                method, data = request.authentication_method, request.authentication_data or b""
                return settled(self.begin(request, method, data))
            found = self._decide(request)
            if isinstance(found, Identity):
                self._not_banned(request, found.name)
        except Refused as refusal:
            self._counters.refused_connects += 1
            receipt.fail(refusal)
            return receipt
        if isinstance(found, Identity):
            return settled(found)
        task = asyncio.get_running_loop().create_task(self._later(request, found, receipt))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return receipt

    async def _later(
        self, request: ConnectRequest, device: Device | None, receipt: Receipt[Identity | Challenge]
    ) -> None:
        try:
            identity = await self._slowly(request, device)
            self._not_banned(request, identity.name)
        except Refused as refusal:
            self._counters.refused_connects += 1
            receipt.fail(refusal)
        except Exception:
            log.exception("authentication failed by our own fault")
            receipt.fail(Refused(NOT_AUTHORIZED, "authentication is not possible now", why=Why.UNAVAILABLE))
        else:
            receipt.settle(identity)

    # --- enhanced authentication (SCRAM, RFC 5802)

    def begin(self, request: ConnectRequest, method: str, data: bytes) -> Challenge:
        """The client's first message; raises Refused."""
        algorithm = scram.METHODS.get(method)
        if algorithm is None:
            raise Refused(BAD_METHOD, f"no authentication method {method!r} here", why=Why.METHOD)
        address = request.peer.address.rpartition(":")[0].strip("[]")
        exchange = scram.Exchange()

        def find(username: str) -> scram.Credential | None:
            self._may_guess(address, username)
            device = self._registry.devices.get(username)
            return None if device is None else passwords.scram_of(device.credentials, algorithm)

        try:
            nonce = secrets.token_urlsafe(18).encode()
            challenge = exchange.first(data, method=method, find=find, nonce=nonce, secret=self._secret)
        except scram.ScramFailed as failure:
            raise Refused(NOT_AUTHORIZED, failure.text, why=Why.METHOD) from None
        return Challenge(data=challenge, exchange=(exchange, request))

    def answer(self, exchange: Any, data: bytes) -> Receipt[Identity | Challenge]:
        """The client's last message."""
        receipt: Receipt[Identity | Challenge] = Receipt()
        scramming, request = exchange
        try:
            proof = scramming.final(data)
            device = self._registry.devices.get(scramming.username)
            if device is None:
                raise Refused(NOT_AUTHORIZED, "the device is gone", why=Why.CREDENTIALS)
            self._not_banned(request, device.name)
            receipt.settle(replace(self.identity(device, request), authentication_data=proof))
        except scram.ScramFailed as failure:
            self._failed(request.peer.address.rpartition(":")[0].strip("[]"), scramming.username)
            self._counters.refused_connects += 1
            receipt.fail(Refused(NOT_AUTHORIZED, failure.text, why=Why.CREDENTIALS))
        except Refused as refusal:
            receipt.fail(refusal)
        return receipt

    # --- the decision

    def _not_banned(self, request: ConnectRequest, name: str | None = None) -> None:
        """`name`: who a certificate or token says it is, once that is known."""
        address = request.peer.address.rpartition(":")[0].strip("[]")
        username = (request.username or "") if name is None else name
        ban = self._registry.banned(request.client_id, username, address, self._clock())
        if ban is not None:
            raise Refused(BANNED, "banned" + (f": {ban.reason}" if ban.reason else ""), why=Why.BANNED)

    def _decide(self, request: ConnectRequest) -> Identity | Device | None:
        """An identity at once; or what a slow check is needed for (None: the verifiers decide). Raises Refused."""
        registry, peer = self._registry, request.peer
        address = peer.address.rpartition(":")[0].strip("[]")
        username = request.username or ""
        self._not_banned(request)
        if not request.password and peer.certificate_subject is not None:
            device = registry.by_subject(peer.certificate_subject)
            if device is not None and username in ("", device.name):
                return self.identity(device, request)
        if not request.username and not request.password:
            if self._verifiers:
                return None
            return self._anonymous(request)
        if username or not _token(request.password):  # others' wrong guesses are no reason to keep a token out
            self._may_guess(address, username)
        device = registry.devices.get(username)
        if device is None and self._verifiers:
            return None
        if device is None or request.password is None:
            self._failed(address, username)
            raise Refused(BAD_CREDENTIALS, "unknown user name or wrong password", why=Why.CREDENTIALS)
        slow = [each for each in device.credentials if passwords.slow(each)]
        fast = [each for each in device.credentials if not passwords.slow(each)]
        if any(passwords.verify(each, request.password) for each in fast):
            return self.identity(device, request)
        if not slow:
            if self._verifiers:
                return None
            self._failed(address, username)
            raise Refused(BAD_CREDENTIALS, "unknown user name or wrong password", why=Why.CREDENTIALS)
        return device

    async def _slowly(self, request: ConnectRequest, device: Device | None) -> Identity:
        address = request.peer.address.rpartition(":")[0].strip("[]")
        if device is not None and request.password is not None:
            slow = [each for each in device.credentials if passwords.slow(each)]
            loop = asyncio.get_running_loop()
            if await loop.run_in_executor(self._executor, _any_fits, slow, request.password):
                current = self._registry.devices.get(device.name)
                if current is None or current.credentials != device.credentials:
                    raise Refused(BAD_CREDENTIALS, "the credential was changed", why=Why.CREDENTIAL_CHANGED)
                return self.identity(current, request)
        for verifier in self._verifiers:
            identity = await verifier.verify(request)
            if identity is not None:
                if unfit(identity.name):
                    raise Refused(NOT_AUTHORIZED, "a principal's name can't contain / + # or NUL", why=Why.NAME)
                self._reserved(identity.name, request.client_id)
                known = self._registry.devices.get(identity.name)
                if known is not None and not known.enabled:
                    raise Refused(NOT_AUTHORIZED, "the device is disabled", why=Why.DISABLED)
                return replace(identity, limits=self._limits(known))
        if not request.username and not request.password:
            return self._anonymous(request)
        self._failed(address, request.username or "")
        raise Refused(BAD_CREDENTIALS, "unknown user name or wrong password", why=Why.CREDENTIALS)

    def identity(self, device: Device, request: ConnectRequest) -> Identity:
        """The identity of a device that has proved itself; raises Refused if it may not connect (like this)."""
        if not device.enabled:
            raise Refused(NOT_AUTHORIZED, "the device is disabled", why=Why.DISABLED)
        if unfit(device.name):
            raise Refused(NOT_AUTHORIZED, "a principal's name can't contain / + # or NUL", why=Why.NAME)
        if device.client_id and device.client_id != request.client_id:
            raise Refused(CLIENT_ID_INVALID, "the device has another client id", why=Why.CLIENT_ID_BOUND)
        self._reserved(device.name, request.client_id)
        return Identity(name=device.name, username=device.name, limits=self._limits(device))

    def _reserved(self, principal: str, client_id: str) -> None:
        holder = self._registry.holder(client_id)
        if holder is not None and holder != principal:
            raise Refused(CLIENT_ID_INVALID, "the client id belongs to another device", why=Why.CLIENT_ID_TAKEN)

    def _anonymous(self, request: ConnectRequest) -> Identity:
        listener = request.peer.listener
        open_to_all = self._open.get(listener)
        if open_to_all is None:
            open_to_all = self._open[listener] = self._settings.anonymous_on(listener)
        if not open_to_all:
            raise Refused(BAD_CREDENTIALS, "a user name and a password are needed", why=Why.NO_CREDENTIALS)
        self._reserved("", request.client_id)
        return self._nobody  # one object for all of them

    def _limits(self, device: Device | None) -> Limits:
        limits = self._usual
        if device is None or device.limits == NO_LIMITS:
            return limits  # one object for all of them
        own = device.limits
        return replace(
            limits,
            connections=own.connections or 0,
            sessions=own.sessions or limits.sessions,
            packet_size=own.packet_size or limits.packet_size,
            in_flight=own.in_flight or limits.in_flight,
            queue=own.queue or limits.queue,
            subscriptions=own.subscriptions or limits.subscriptions,
            messages_rate=own.messages_rate or 0.0,
            bytes_rate=own.bytes_rate or 0.0,
        )

    # --- guessing

    def _may_guess(self, address: str, username: str) -> None:
        failures, last = self._guesses.get((address, username), (0, 0.0))
        if failures < FREE_GUESSES:
            return
        pause = min(GUESS_INTERVAL * 2.0 ** (failures - FREE_GUESSES), LONGEST_WAIT)
        left = last + pause - self._clock()
        if left > 0:
            raise Refused(RATE_EXCEEDED, "too many wrong passwords from there; wait", after=left, why=Why.GUESSES)

    def _failed(self, address: str, username: str) -> None:
        failures, last = self._guesses.pop((address, username), (0, 0.0))
        now = self._clock()
        if now - last > LONGEST_WAIT * 2:
            failures = 0
        self._guesses[address, username] = (min(failures + 1, 32), now)
        while len(self._guesses) > REMEMBERED:
            self._guesses.popitem(last=False)


def _token(password: bytes | None) -> bool:
    """Whether it looks like a JSON Web Token, which nobody guesses."""
    return password is not None and password.count(b".") == 2


def _any_fits(credentials: Sequence[Credential], password: bytes) -> bool:
    return any(passwords.verify(each, password) for each in credentials)
