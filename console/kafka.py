"""The console's one door to the cluster: the only module that imports `broker.client`.

One admin and one producer per process, made on first use and made anew when the embedded broker moved to another
address. Everything here blocks: call it from views' threads, actions and tasks, never while a list renders, and never
inside a database transaction.
"""

import os
import threading
from dataclasses import replace
from typing import Any

from django.conf import settings as django_settings
from django.db import transaction

from broker.client import (
    BEGINNING,
    END,
    Admin,
    Capabilities,
    ClientError,
    Consumer,
    Delays,
    Delivered,
    Failure,
    Producer,
    Record,
    Settings,
    SettingsError,
    TopicPartition,
    deadletter,
    errors,
    records,
    types,
)
from broker.client.errors import ClusterError, TimedOut, Unreachable, UnsupportedByCluster

__all__ = [
    "BEGINNING",
    "END",
    "Admin",
    "Capabilities",
    "ClientError",
    "ClusterError",
    "Consumer",
    "Delays",
    "Delivered",
    "Failure",
    "Producer",
    "Record",
    "Settings",
    "SettingsError",
    "TimedOut",
    "TopicPartition",
    "Unreachable",
    "UnsupportedByCluster",
    "admin",
    "consumer",
    "deadletter",
    "delays",
    "errors",
    "forget_connections",
    "producer",
    "reason",
    "records",
    "send",
    "settings",
    "transactional_producer",
    "types",
]

ADMIN_TIMEOUT = 8.0
DELAYS_TIMEOUT = 1.5


class InTransaction(RuntimeError):
    """A broker call was about to be made while a database transaction was open: it would hold the database's lock."""


_lock = threading.RLock()
_send_lock = threading.Lock()
_admin: tuple[Settings, Admin] | None = None
_producer: tuple[Settings, Producer] | None = None
_delays: tuple[Settings, Delays] | None = None


def settings(client_id: str = "sluice-console") -> Settings:
    """Where the cluster is now; raises SettingsError."""
    environ = {
        **os.environ,
        "SLUICE_DATA": str(django_settings.SLUICE.data),
        "SLUICE_KAFKA": django_settings.SLUICE.kafka,
    }
    return Settings.from_env(environ, client_id=client_id)


def admin() -> Admin:
    """The admin of this process."""
    global _admin
    _refuse_in_transaction()
    wanted = settings()
    with _lock:
        if _admin is None or _admin[0] != wanted:
            old, _admin = _admin, (wanted, Admin(wanted, timeout=ADMIN_TIMEOUT))
            if old is not None:
                old[1].close()
        return _admin[1]


def producer() -> Producer:
    """The producer of this process; hold no more than one call at a time on it (see `send`)."""
    global _producer
    _refuse_in_transaction()
    wanted = settings()
    with _lock:
        if _producer is None or _producer[0] != wanted or _producer[1].fatal is not None:
            _producer = (wanted, Producer(wanted, delivery_timeout=10.0))
        return _producer[1]


def send(
    topic: str,
    value: bytes | None,
    key: bytes | None = None,
    headers: Any = None,
    partition: int = -1,
    *,
    timeout: float = 10.0,
) -> Delivered:
    """Writes one record and waits for its acknowledgement; safe from any thread."""
    with _send_lock:
        return producer().send(topic, value, key, headers, partition, timeout=timeout)


def delays() -> Delays:
    """Asks the delay service, for this process."""
    global _delays
    _refuse_in_transaction()
    wanted = settings()
    with _lock:
        if _delays is None or _delays[0] != wanted:
            old, _delays = _delays, (wanted, Delays(wanted, timeout=DELAYS_TIMEOUT))
            if old is not None:
                old[1].close()
        return _delays[1]


def consumer(group: str | None = None, **options: Any) -> Consumer:
    """A new consumer; the caller closes it. Without a group it only reads where it is told to."""
    _refuse_in_transaction()
    return Consumer(replace(settings(), client_id="sluice-console"), group, **options)


def transactional_producer(transactional_id: str) -> Producer:
    """A new producer that writes in transactions; the caller closes it."""
    _refuse_in_transaction()
    return Producer(settings(), transactional_id=transactional_id, delivery_timeout=30.0)


def reason(error: ClientError) -> str:
    """What to tell a person about a refusal: the broker's words, else Kafka's name of the error."""
    if isinstance(error, ClusterError):
        return error.message or error.name
    return str(error)


def forget_connections() -> None:
    """Lets go of what this process holds, for tests and for a broker that was replaced."""
    global _admin, _producer, _delays
    with _lock:
        if _admin is not None:
            _admin[1].close()
        if _producer is not None:
            _producer[1].close(0.5)
        if _delays is not None:
            _delays[1].close()
        _admin = _producer = _delays = None


def _refuse_in_transaction() -> None:
    connection = transaction.get_connection()
    if connection.in_atomic_block and not getattr(connection, "broker_calls_are_a_test", False):
        raise InTransaction("broker calls are made outside database transactions")
