"""Kafka's own Java clients: a small program under tests/java drives them and checks what they see."""

import subprocess
from collections.abc import Callable

import pytest

from tests.acceptance.kafka import java
from tests.acceptance.kafka.conftest import Node

if not java.installed():
    pytest.skip("java and mvn are not installed", allow_module_level=True)


def run(*arguments: str) -> None:
    command = java.command("sluice.tests.Clients", *arguments)
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
    assert done.stdout.strip().endswith("ok")


def test_every_codec_goes_there_and_back(cluster: Node, topic: Callable[..., str]) -> None:
    run(cluster.bootstrap, "codecs", topic(1))


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_members_of_a_group_share_the_partitions(
    cluster: Node, topic: Callable[..., str], name: Callable[[str], str], protocol: str
) -> None:
    run(cluster.bootstrap, "group", topic(4), name("group"), protocol)


def test_transactions_read_process_and_write_exactly_once(cluster: Node, topic: Callable[..., str]) -> None:
    run(cluster.bootstrap, "transactions", topic(2), topic(2))


def test_every_transaction_has_an_epoch_of_its_own(cluster: Node, topic: Callable[..., str]) -> None:
    """KIP-890: transaction.version 2 is negotiated, EndTxn 5 raises the epoch, the client takes it up."""
    run(cluster.bootstrap, "epochs", topic(1))


def test_the_admin_client_gets_what_it_asks_for(cluster: Node, name: Callable[[str], str]) -> None:
    run(cluster.bootstrap, "admin", name("admin"))


def test_every_call_of_the_admin_client_is_answered(
    cluster: Node, topic: Callable[..., str], name: Callable[[str], str]
) -> None:
    run(cluster.bootstrap, "calls", topic(1), name("calls"))


def test_a_share_group_is_a_queue(cluster: Node, topic: Callable[..., str], name: Callable[[str], str]) -> None:
    run(cluster.bootstrap, "share", topic(1), name("share"))
