"""Where one device's messages with one MQTT topic go, and the headers that all of them have.

`$delayed/<seconds>/<topic>` is the topic of a message for later: rights, route, key and headers are those of
`<topic>`, and the record goes to `sluice.delay` with its target and time in headers. Its retain flag is not kept.
"""

from __future__ import annotations

from broker.client import EncodedHeaders
from broker.client.delaying import MAX_DELAY_MS
from broker.client.records import DELIVER_AFTER, DELIVER_TOPIC, MESSAGE_ID
from gateway import contract
from gateway.ports import Fate
from gateway.publishing.traffic import DEFAULT_ROUTE, Row
from gateway.routes import Placed, Uplink

DELAYED = "$delayed/"
LONGEST_DELAY = MAX_DELAY_MS // 1000


class Target:
    """Where one device's messages with one MQTT topic go. `place` None: to be rendered per message."""

    __slots__ = (
        "client_id",
        "delay",
        "fate",
        "headers",
        "heard",
        "heard_at",
        "key",
        "mqtt_topic",
        "plain",
        "prefix",
        "refused",
        "route",
        "route_name",
        "rows",
        "topic",
        "username",
    )

    def __init__(self, mqtt_topic: str, client_id: str, username: str, prefix: str = "") -> None:
        self.refused = 0
        self.mqtt_topic = mqtt_topic
        self.client_id = client_id
        self.username = username
        self.prefix = prefix  # what its messages are counted under
        self.route_name = DEFAULT_ROUTE
        self.rows: tuple[Row, Row] | None = None  # what its messages are counted in
        self.route: Uplink | None = None
        self.delay = b""  # of a message for later: what `sluice.deliver.after` says
        self.topic = ""
        self.key: bytes | None = None
        self.headers: list[EncodedHeaders | None] = [None] * 8
        self.plain = False  # its records say of the message what the message itself says, and nothing else
        self.heard = False  # whether somebody here had subscribed, when the subscriptions were at version `heard_at`
        self.heard_at = -1
        self.fate: Fate | None = None  # of the newest message that was not simply stored


def later(topic: str) -> tuple[bytes, str] | None:
    """What `$delayed/<seconds>/<topic>` means: the delay as a header has it, and the topic; None: nothing."""
    _, seconds, inner = [*topic.split("/", 2), "", ""][:3]
    if not inner or not (seconds.isascii() and seconds.isdigit()) or len(seconds) > 9 or int(seconds) > LONGEST_DELAY:
        return None
    return f"{int(seconds)}s".encode(), inner


def headers_of(target: Target, flags: int, place: Placed | None) -> list[tuple[str, bytes | str | None]]:
    """contracts.md's headers of one kind of message, then the route's own."""
    found: list[tuple[str, bytes | str | None]] = [
        (contract.H_TOPIC, target.mqtt_topic.encode()),
        (contract.H_CLIENT, target.client_id.encode()),
    ]
    if target.username:
        found.append((contract.H_USERNAME, target.username.encode()))
    found.append((contract.H_QOS, b"%d" % (flags >> 1 & 3)))
    if flags & 1:
        found.append((contract.H_RETAIN, b"1"))
    if place is not None:
        found += [(name, text.encode()) for name, text in place.headers]
        if place.message_id:
            found.append((MESSAGE_ID, place.message_id.encode()))
        if target.delay:
            found += [(DELIVER_TOPIC, place.topic.encode()), (DELIVER_AFTER, target.delay)]
    elif target.route is None and target.headers[0] is not None:
        plain = 3 + bool(target.username)
        found += target.headers[0][plain:]  # what the route added
    return found
