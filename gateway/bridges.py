"""Pure: what a bridge to another MQTT broker is, where its messages go, and which definitions can't work.

In: what the upstream publishes under one of `inbound`'s filters comes here as `local_prefix` + its topic. Out: what is
stored here and matches one of `outbound`'s filters goes to the upstream as `remote_prefix` + its topic.

Loops. What came in by a bridge never goes out by the same one (its records carry the bridge's name as client id). What
goes out must not come in again: MQTT 3.1.1 has no "no local", so a definition whose outgoing topics overlap its
incoming filters is refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from gateway.policy import matches, overlaps, well_formed

CLIENT_PREFIX = "$bridge/"
PORTS = {"mqtt": 1883, "mqtts": 8883}
LEAST_KEEP_ALIVE, MOST_KEEP_ALIVE = 5, 3600
MOST_FILTERS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Bridge:
    """One bridge. `password` is sealed for `context`; `ca` is PEM ("" = this machine's own authorities).

    `qos` is asked for and used both ways: 0, or 1 (at least once, through restarts of anybody). 2 is not offered: the
    client library answers PUBREC before a message can be stored. `since` (epoch seconds): messages stored here earlier
    are not sent.
    """

    name: str
    address: str
    client_id: str
    username: str = ""
    password: str = ""
    ca: str = ""
    inbound: tuple[str, ...] = ()
    local_prefix: str = ""
    outbound: tuple[str, ...] = ()
    remote_prefix: str = ""
    qos: int = 1
    keep_alive: int = 60
    enabled: bool = True
    since: float = 0.0

    @property
    def host(self) -> str:
        return urlsplit(self.address).hostname or ""

    @property
    def port(self) -> int:
        parts = urlsplit(self.address)
        return parts.port or PORTS.get(parts.scheme, 0)

    @property
    def tls(self) -> bool:
        return urlsplit(self.address).scheme == "mqtts"

    @property
    def context(self) -> str:
        """What the password is for: it doesn't open for another address, authority or user."""
        return "\x00".join(("bridge", self.name, self.address, self.username, self.ca))

    @property
    def origin(self) -> str:
        """The client id that its records here carry."""
        return CLIENT_PREFIX + self.name

    def local_topic(self, remote: str) -> str | None:
        """Where an incoming message goes here; None: it can't be a topic of a device."""
        topic = self.local_prefix + remote
        if not remote or topic[:1] == "$" or "+" in topic or "#" in topic or "\x00" in topic:
            return None
        return topic

    def remote_topic(self, local: str) -> str | None:
        """Where a stored message goes upstream; None: it doesn't."""
        if any(matches(each, local) for each in self.outbound):
            return self.remote_prefix + local
        return None


def problems(bridge: Bridge) -> list[str]:
    """What keeps a definition from working, for people, each `field: text`; an empty list: nothing."""
    found = [*_address(bridge), *_filters("inbound", bridge.inbound), *_filters("outbound", bridge.outbound)]
    if not bridge.name:
        found.append("name: a bridge needs a name")
    if not bridge.client_id or len(bridge.client_id) > 128 or "\x00" in bridge.client_id:
        found.append("client_id: 1 to 128 characters; upstream keeps the session under it")
    if not bridge.inbound and not bridge.outbound:
        found.append("inbound: nothing goes in or out: name at least one filter")
    for label, prefix in (("local_prefix", bridge.local_prefix), ("remote_prefix", bridge.remote_prefix)):
        if any(character in prefix for character in "+#\x00"):
            found.append(f"{label}: a prefix has no wildcards")
        elif prefix and not prefix.endswith("/"):
            found.append(f"{label}: a prefix ends with /")
    if bridge.local_prefix[:1] == "$":
        found.append("local_prefix: topics that begin with $ are not for messages")
    if bridge.qos not in (0, 1):
        found.append("qos: 0 or 1")
    if not LEAST_KEEP_ALIVE <= bridge.keep_alive <= MOST_KEEP_ALIVE:
        found.append(f"keep_alive: {LEAST_KEEP_ALIVE} to {MOST_KEEP_ALIVE} seconds")
    if bridge.password and not bridge.username:
        found.append("username: a password needs a user name")
    if bridge.ca and not bridge.tls:
        found.append("ca: only an mqtts address uses it")
    found += [
        f"outbound: {bridge.remote_prefix + out!r} goes out and would come in again by {into!r}"
        for out in bridge.outbound
        for into in bridge.inbound
        if overlaps(bridge.remote_prefix + out, into)
    ]
    return found


def _address(bridge: Bridge) -> Iterable[str]:
    try:
        parts = urlsplit(bridge.address)
        port = parts.port
    except ValueError as error:
        yield f"address: {error}"
        return
    if parts.scheme not in PORTS or not parts.hostname or parts.path or parts.query or parts.fragment or port == 0:
        yield "address: mqtt://host:port or mqtts://host:port"
    elif parts.username is not None or parts.password is not None:
        yield "address: user name and password have fields of their own"


def _filters(label: str, filters: tuple[str, ...]) -> Iterable[str]:
    if len(filters) > MOST_FILTERS:
        yield f"{label}: at most {MOST_FILTERS} filters"
    for each in filters[:MOST_FILTERS]:
        if not well_formed(each):
            yield f"{label}: {each!r} is not a topic filter"
        elif each.startswith("$share/") or (label == "outbound" and each[:1] == "$"):
            yield f"{label}: {each!r} can't be bridged"
