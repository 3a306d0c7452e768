"""Who may do what: devices, policies, routes and bans, as the compacted topics have them.

Pure: records are applied one by one (`apply`), and each says what it changed; reading topics, keeping the local copy
and disconnecting devices is done by others. A record that can't be understood closes rather than opens: a malformed
device is nobody, a malformed policy allows nothing, a malformed route is left out. Each is remembered in `broken`.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway import contract
from gateway.contract import BANS, DEVICES, POLICIES, ROUTES, Ban, Device
from gateway.policy import UNRESTRICTED, Policy, Rights
from gateway.routes import DEAD_LETTER, Downlink, Table, Uplink

TOPICS = (DEVICES, POLICIES, ROUTES, BANS)


@dataclass(frozen=True, slots=True)
class DeviceChanged:
    """A device was added, changed or removed. `revoked`: what it signed in with is not valid any more."""

    name: str
    revoked: bool


@dataclass(frozen=True, slots=True)
class RightsChanged:
    """Policies changed: rights handed out earlier may be wrong."""


@dataclass(frozen=True, slots=True)
class RoutesChanged:
    """Routes changed: places handed out earlier may be wrong."""


@dataclass(frozen=True, slots=True)
class BanSet:
    """Somebody is banned now."""

    ban: Ban


Change = DeviceChanged | RightsChanged | RoutesChanged | BanSet


class Registry:
    """The newest state of the four topics."""

    def __init__(self) -> None:
        self.devices: dict[str, Device] = {}
        self.policies: dict[str, Policy] = {}
        self.bans: dict[str, Ban] = {}
        self.broken: dict[tuple[str, str], str] = {}
        self.table = Table()
        self.downlinks: dict[str, tuple[Downlink, ...]] = {}
        self.keeps_expired = False  # some route makes dead letters of messages that expire
        self._routes: dict[str, Uplink | Downlink] = {}
        self._subjects: dict[str, str] = {}
        self._client_ids: dict[str, str] = {}

    def apply(self, topic: str, key: bytes, value: bytes | None) -> Change | None:
        """Take one record; None when nothing changed."""
        name = key.decode("utf-8", "replace")
        self.broken.pop((topic, name), None)
        if topic == DEVICES:
            return self._device(name, value)
        if topic == POLICIES:
            return self._policy(name, value)
        if topic == ROUTES:
            return self._route(name, value)
        if topic == BANS:
            return self._ban(name, value)
        raise LookupError(f"{topic} is none of the registry's topics")

    def _device(self, name: str, value: bytes | None) -> Change | None:
        before = self.devices.pop(name, None)
        if before is not None:
            self._subjects.pop(before.subject, None)
            self._client_ids.pop(before.client_id, None)
        device: Device | None = None
        if value is not None:
            try:
                device = contract.decode(Device, value)
                if device.name != name:
                    raise contract.MalformedRecord(f"names {device.name!r}, its key is {name!r}")
            except contract.MalformedRecord as error:
                self.broken[DEVICES, name] = str(error)
                device = None
        if device is not None:
            self.devices[name] = device
            if device.subject:
                self._subjects[device.subject] = name
            if device.client_id:
                self._client_ids[device.client_id] = name
        if before == device:
            return None
        revoked = before is not None and (
            device is None
            or not device.enabled
            or device.credentials != before.credentials
            or device.client_id != before.client_id
            or device.subject != before.subject
        )
        return DeviceChanged(name, revoked)

    def _policy(self, name: str, value: bytes | None) -> Change | None:
        before = self.policies.pop(name, None)
        if value is not None:
            try:
                policy = contract.decode_policy(value)
            except contract.MalformedRecord as error:
                self.broken[POLICIES, name] = str(error)
                policy = Policy(name=name)  # it exists and allows nothing
            self.policies[name] = policy
        return RightsChanged() if before != self.policies.get(name) else None

    def _route(self, name: str, value: bytes | None) -> Change | None:
        self._routes.pop(name, None)
        if value is not None:
            try:
                self._routes[name] = contract.decode_route(value)
            except contract.MalformedRecord as error:
                self.broken[ROUTES, name] = str(error)
        self.table = Table(route for route in self._routes.values() if isinstance(route, Uplink))
        for route_name, wrong in self.table.broken.items():
            self.broken[ROUTES, route_name] = "; ".join(wrong)
        downlinks: dict[str, tuple[Downlink, ...]] = {}
        for route in self._routes.values():
            if isinstance(route, Downlink) and route.enabled:
                downlinks[route.topic] = (*downlinks.get(route.topic, ()), route)
        self.downlinks = downlinks
        self.keeps_expired = any(route.enabled and route.expired == DEAD_LETTER for route in self._routes.values())
        return RoutesChanged()

    def _ban(self, key: str, value: bytes | None) -> Change | None:
        self.bans.pop(key, None)
        if value is None:
            return None
        try:
            ban = contract.decode(Ban, value)
        except contract.MalformedRecord as error:
            self.broken[BANS, key] = str(error)
            kind, _, name = key.partition(":")
            ban = Ban(kind=kind, value=name)  # unreadable, but somebody meant to ban
        self.bans[ban.key] = ban
        return BanSet(ban)

    # --- questions

    def banned(self, client_id: str, username: str, address: str, now: float) -> Ban | None:
        """The ban that keeps this connection out. `address` is the host alone."""
        if not self.bans:
            return None
        for key in (f"client:{client_id}", f"user:{username}", f"address:{address}"):
            found = self.bans.get(key)
            if found is not None and (found.until is None or found.until > now):
                return found
        return None

    def by_subject(self, subject: str) -> Device | None:
        """The device that signs in with a certificate of this subject."""
        name = self._subjects.get(subject)
        return None if name is None else self.devices.get(name)

    def holder(self, client_id: str) -> str | None:
        """The device that a client id is reserved for: the one bound to it, or the one of that name."""
        found = self._client_ids.get(client_id)
        if found is None and client_id in self.devices:
            return client_id
        return found

    def rights(self, principal: str, client_id: str, own: Policy | None = None) -> Rights:
        """What a principal ("" = anonymous) may do now. `own`: a policy that it brought with it (a token's)."""
        device = self.devices.get(principal) if principal else None
        named = device.policies if device is not None else ()
        if not self.policies and not named and own is None:  # a device whose named policy was deleted stays restricted
            return UNRESTRICTED
        applied = [each for each in self.policies.values() if each.everyone or each.name in named]
        if own is not None:
            applied.append(own)
        return Rights(applied, client_id, principal, unrestricted=False)
