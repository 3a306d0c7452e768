"""The clusters that every test here runs against: the embedded broker and Apache Kafka, each started once.

`SLUICE_TEST_KAFKA=host:port` (and `SLUICE_TEST_KAFKA_SASL=host:port`) names a running cluster to use instead.
"""

import itertools
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import pytest

from broker.client import Admin, Settings, TopicPartition
from tests.acceptance.kafka import java
from tests.acceptance.kafka.apache import ADMIN, ApacheKafka
from tests.acceptance.kafka.embedded import EmbeddedBroker

GIVEN = os.environ.get("SLUICE_TEST_KAFKA", "")


class Node(Protocol):
    """What the tests need of a cluster of one node."""

    name: str

    @property
    def bootstrap(self) -> str: ...

    @property
    def sasl_bootstrap(self) -> str: ...

    def kill(self) -> None: ...

    def start(self) -> object: ...


@dataclass
class GivenCluster:
    """A cluster that somebody else runs; it can't be restarted from here."""

    bootstrap: str
    sasl_bootstrap: str
    name: str = "given"

    def kill(self) -> None:
        raise AssertionError("this cluster can't be restarted from here")

    def start(self) -> None:
        raise AssertionError("never killed")


@pytest.fixture(scope="session")
def embedded() -> Iterator[EmbeddedBroker]:
    broker = EmbeddedBroker().start()
    yield broker
    broker.stop()


@pytest.fixture(scope="session")
def apache() -> Iterator[ApacheKafka]:
    if not java.installed():
        pytest.skip("java and mvn are not installed")
    kafka = ApacheKafka().start()
    yield kafka
    kafka.stop()


@pytest.fixture(scope="session")
def given() -> GivenCluster:
    return GivenCluster(GIVEN, os.environ.get("SLUICE_TEST_KAFKA_SASL", ""))


@pytest.fixture(params=["given"] if GIVEN else ["embedded", "apache"])
def cluster(request: pytest.FixtureRequest) -> Node:
    """One test per cluster. The clusters themselves are the session's, whatever the order of the tests."""
    node: Node = request.getfixturevalue(request.param)
    return node


@pytest.fixture
def settings(cluster: Node) -> Settings:
    return Settings(bootstrap=cluster.bootstrap)


@pytest.fixture
def admin(settings: Settings) -> Iterator[Admin]:
    with Admin(settings) as opened:
        yield opened


_numbers = itertools.count(1)


@pytest.fixture
def name() -> Callable[[str], str]:
    """A name that no other test uses, with this word in it."""
    return lambda word: f"{word}-{next(_numbers)}-{secrets.token_hex(3)}"


@pytest.fixture
def topic(admin: Admin, name: Callable[[str], str]) -> Callable[..., str]:
    """Makes a topic: `topic(partitions=3, **configs)` with dots of config names written as underscores."""

    def make(partitions: int = 1, **configs: str) -> str:
        made = name("topic")
        admin.create_topic(made, partitions, 1, {key.replace("_", "."): value for key, value in configs.items()})
        deadline = time.monotonic() + 60
        while made not in admin.topics([made]):  # Kafka's brokers hear of a topic after its making was acknowledged
            assert time.monotonic() < deadline, f"{made} did not appear"
            time.sleep(0.02)
        places = [TopicPartition(made, index) for index in range(partitions)]
        while any(each.error for each in admin.offsets(places).values()):  # and their leaders a little later still
            assert time.monotonic() < deadline, f"{made} has no leaders"
            time.sleep(0.02)
        return made

    return make


@pytest.fixture
def kcat() -> str:
    path = shutil.which("kcat")
    if path is None:
        pytest.skip("kcat is not installed")
    return path


__all__ = ["ADMIN"]
