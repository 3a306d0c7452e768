"""How a handler is registered, and what it is given.

A handler answers one API key for a range of versions::

    @handles(12, min=0, max=4)
    async def heartbeat(ctx: Context, header: RequestHeader, request: Any) -> Any:
        return struct("HeartbeatResponse")(error_code=...)

`request` is the decoded request (`broker.wire.codec`), the return value the response message; the connection encodes
it in the request's version. Three kinds of handler, told apart by what they return:

* `async def`: runs in a task of its own (asyncio.timeout and friends work).
* `def` that returns the response: the cheapest; for whatever needs no waiting (Heartbeat).
* `def` that returns a `Later` (or an `asyncio.Future`) of the response: for hot paths that wait, without a task
  (Produce, Fetch). A `Later` is completed without a turn of the event loop.

A response may also be `Encoded`: the body's buffers in the request's version, encoded already.

Returning `None` sends nothing (Produce with acks=0).

A connection runs its requests one at a time and in order, as Kafka does, except that handlers registered with
`pipelined=True` may start while earlier pipelined ones still wait. Responses always leave in request order.
Authentication has been checked before a handler is called (but for `before_authentication=True`); authorisation is the
handler's first business: `ctx.allows(Operation.READ, ResourceType.GROUP, name)`.

A handler that raises is our bug: it is logged with its traceback and answered with UNKNOWN_SERVER_ERROR where the
response has a top-level error code, else the connection closes. A handler may raise `Disconnect(reason)` to close.

Nothing is registered at import time: each module's `Api` values are collected by `table()`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

from broker.cluster.acls import CLUSTER_NAME, Operation, ResourceType

if TYPE_CHECKING:
    from broker.api.fetch_sessions import FetchSessions
    from broker.cluster.credentials import Credentials
    from broker.cluster.metadata import Metadata
    from broker.cluster.topics import Topics
    from broker.config import Config, Listener
    from broker.log.partition import Partition
    from broker.log.store import Store
    from broker.server.commit import Commit
    from broker.server.condition import Condition
    from broker.server.meter import Meter
    from broker.server.quotas import Quotas
    from broker.server.waiting import Waiting
    from broker.wire.codec import Buffer
    from broker.wire.framing import RequestHeader

Handle = Callable[["Context", "RequestHeader", Any], Any]

ANONYMOUS = "User:ANONYMOUS"


class Disconnect(Exception):
    """The peer must go: the reason is logged and the connection closed without an answer."""


class Encoded:
    """A response body that is encoded already, as buffers to be written one after another."""

    __slots__ = ("buffers",)

    def __init__(self, buffers: Sequence[Buffer]) -> None:
        self.buffers = buffers


class Later:
    """A response that comes later: completed once, told to the connection at once."""

    __slots__ = ("_then", "done", "value")

    def __init__(self) -> None:
        self.done = False
        self.value: Any = None
        self._then: Callable[[Any], None] | None = None

    def complete(self, value: Any) -> None:
        """Give the response. A second one is our own mistake and raises RuntimeError."""
        if self.done:
            raise RuntimeError("the response was completed before")
        self.done = True
        self.value = value
        if self._then is not None:
            self._then(value)

    def then(self, call: Callable[[Any], None]) -> None:
        """Call back with the response: now if it is there, else when it comes."""
        if self.done:
            call(self.value)
        else:
            self._then = call


class Clock(Protocol):
    """Time as the shells hand it down."""

    def now(self) -> int:
        """Milliseconds since the epoch."""

    def monotonic(self) -> float:
        """Seconds that never go back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """A registered handler."""

    key: int
    min: int
    max: int
    handle: Handle
    pipelined: bool = False
    before_authentication: bool = False
    decode: Callable[[RequestHeader, memoryview], Any] | None = None
    """Decodes the request's body in place of the general decoder; raises Malformed."""
    advertised_min: int | None = None
    """What ApiVersions says instead of `min` (Produce: 0, though 0 to 2 are refused)."""


def handles(
    key: int,
    *,
    min: int,
    max: int,
    pipelined: bool = False,
    before_authentication: bool = False,
    advertised_min: int | None = None,
    decode: Callable[[RequestHeader, memoryview], Any] | None = None,
) -> Callable[[Handle], Api]:
    """Turn a function into the `Api` that answers `key` for versions `min` to `max`."""

    def registered(handle: Handle) -> Api:
        return Api(
            key=key,
            min=min,
            max=max,
            handle=handle,
            pipelined=pipelined,
            before_authentication=before_authentication,
            advertised_min=advertised_min,
            decode=decode,
        )

    return registered


class DuplicateApi(Exception):
    """Two handlers claim one API key."""


def table(modules: Iterable[ModuleType]) -> dict[int, Api]:
    """Every `Api` defined in the modules, by key."""
    found: dict[int, Api] = {}
    for module in modules:
        for value in vars(module).values():
            if isinstance(value, Api) and found.setdefault(value.key, value) is not value:
                raise DuplicateApi(f"API key {value.key} is claimed twice, lastly by {module.__name__}")
    return found


@dataclass(slots=True, kw_only=True)
class Broker:
    """Everything a handler may lean on; built once in `broker.__main__` and passed down.

    `groups`, `transactions` and `shares` are the coordinators (`broker.groups`, `broker.transactions`); they are given
    this object at construction and must be started (replayed) before the listeners open.
    """

    config: Config
    clock: Clock
    store: Store
    commit: Commit
    metadata: Metadata
    topics: Topics
    waiting: Waiting
    quotas: Quotas
    meter: Meter
    fetch_sessions: FetchSessions
    credentials: Credentials
    metadata_partition: Partition
    condition: Condition
    apis: dict[int, Api] = field(default_factory=dict)
    advertised: list[Any] = field(default_factory=list)
    """The ApiVersions entries of `apis`."""
    groups: Any = None
    transactions: Any = None
    shares: Any = None
    node_id: int = 1

    def partition(self, topic: str, index: int) -> Partition | None:
        """The open partition log, or None when there is no such topic or index."""
        return self.topics.partition(topic, index)


@dataclass(slots=True, kw_only=True)
class Context:
    """One connection as handlers see it. `principal` changes when the peer authenticates."""

    broker: Broker
    listener: Listener
    address: str
    """The peer's host, as ACL host rules see it."""
    port: int = 0
    principal: str = ANONYMOUS
    authenticated: bool = False
    session_expires: float | None = None
    """Monotonic seconds at which a token's life ends (KIP-368); None for never."""
    sasl: Any = None
    """The SASL exchange under way, if any."""
    software_name: str = ""
    software_version: str = ""
    connection: Any = None
    followed: Any = None
    """The partitions a client without fetch sessions follows."""
    local_address: tuple[str, int] = ("127.0.0.1", 0)
    """The address of ours that the peer reached."""

    @property
    def super_user(self) -> bool:
        return self.principal in self.broker.config.super_users

    def allows(self, operation: Operation, resource_type: ResourceType, name: str = CLUSTER_NAME) -> bool:
        """Whether this connection's principal may do `operation` on the resource.

        Internal topics (`__*`) are denied to everybody but super-users, always.
        """
        return self.broker.metadata.authorizer.allows(
            principal=self.principal,
            host=self.address,
            operation=operation,
            resource_type=resource_type,
            name=name,
        )
