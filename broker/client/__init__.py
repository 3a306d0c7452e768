"""The seam: everything that gateway and console know of a Kafka cluster, the embedded broker's or anybody
else's.

    settings = Settings.from_env()
    with admin(settings) as cluster: cluster.topics()
    producer(settings).send("orders", b"...", key=b"42")
    run_consumer(["orders"], "billing", handle)

Errors are `ClientError`s (see `errors`), every wait has a deadline, and nothing outside this package imports
a Kafka client library.
"""

from collections.abc import Mapping
from typing import Any

from broker.client import deadletter, errors, ledger, records
from broker.client.administration import types
from broker.client.administration.admin import Admin, AsyncAdmin
from broker.client.capability import Ability, Capabilities
from broker.client.consuming import BEGINNING, END, Consumer
from broker.client.delays import Delays
from broker.client.errors import ClientError
from broker.client.outgoing import Failure, PlacedAt
from broker.client.policy import DeadLetterTopic, Expired, Ladder, Order, Reject, Retry
from broker.client.producing import Batch, Producer
from broker.client.records import Delivered, Record, TopicPartition
from broker.client.running import Progress, run_consumer
from broker.client.settings import Settings, SettingsError
from broker.client.sharing import ShareConsumer, SharedRecord, Verdict
from broker.client.writing.encoding import EncodedHeaders
from broker.client.writing.writer import Writer

__all__ = [
    "BEGINNING",
    "END",
    "Ability",
    "Admin",
    "AsyncAdmin",
    "Batch",
    "Capabilities",
    "ClientError",
    "Consumer",
    "DeadLetterTopic",
    "Delays",
    "Delivered",
    "EncodedHeaders",
    "Expired",
    "Failure",
    "Ladder",
    "Order",
    "PlacedAt",
    "Producer",
    "Progress",
    "Record",
    "Reject",
    "Retry",
    "Settings",
    "SettingsError",
    "ShareConsumer",
    "SharedRecord",
    "TopicPartition",
    "Verdict",
    "Writer",
    "admin",
    "async_admin",
    "capabilities",
    "consumer",
    "deadletter",
    "errors",
    "ledger",
    "producer",
    "records",
    "run_consumer",
    "share_consumer",
    "types",
]


def admin(settings: Settings | None = None, *, timeout: float = 15.0) -> Admin:
    """The admin for code that blocks; may be shared between threads."""
    return Admin(settings or Settings.from_env(), timeout=timeout)


def async_admin(settings: Settings | None = None, *, timeout: float = 15.0) -> AsyncAdmin:
    """The admin for an event loop."""
    return AsyncAdmin(settings or Settings.from_env(), timeout=timeout)


def capabilities(settings: Settings | None = None, *, timeout: float = 15.0) -> Capabilities:
    """Probe the cluster; blocks. For an event loop: `await AsyncAdmin.probe()`."""
    chosen = settings or Settings.from_env()
    with Admin(chosen, timeout=timeout) as cluster:
        return cluster.probe()


def producer(settings: Settings | None = None, *, transactional_id: str | None = None, **options: Any) -> Producer:
    """A producer (idempotent, acks=all); with a transactional id, a transactional one. Options: see
    `Producer`."""
    return Producer(settings or Settings.from_env(), transactional_id=transactional_id, **options)


def consumer(settings: Settings | None = None, group: str | None = None, **options: Any) -> Consumer:
    """A member of `group`, or without one a plain reader. Options: see `Consumer`."""
    return Consumer(settings or Settings.from_env(), group, **options)


def share_consumer(
    group: str, settings: Settings | None = None, *, overrides: Mapping[str, Any] | None = None
) -> ShareConsumer:
    """A member of a share group (queue semantics)."""
    return ShareConsumer(settings or Settings.from_env(), group, overrides=overrides)
