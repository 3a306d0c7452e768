"""Our ACL decisions against those of Kafka's own StandardAuthorizer: generated sets and requests, no disagreement."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator

import pytest

from broker.cluster.acls import (
    OPERATIONS_OF,
    Acl,
    AclIndex,
    Operation,
    PatternType,
    Permission,
    ResourceType,
    authorize,
    authorize_by_resource_type,
)
from tests.acceptance.kafka import java

SETS = 700
ASKED_OF_A_SET = 80
NAMES = ("a", "ab", "abc", "b", "ba", "*", "orders", "ord", "orders.dlq")
PRINCIPALS = ("User:alice", "User:bob", "User:*", "User:root", "Group:alice")
HOSTS = ("*", "10.0.0.1", "10.0.0.2")
TYPES = (ResourceType.TOPIC, ResourceType.GROUP, ResourceType.TRANSACTIONAL_ID, ResourceType.CLUSTER)


def generated(chance: random.Random) -> Acl:
    kind = chance.choice((ResourceType.TOPIC, ResourceType.TOPIC, *TYPES))
    pattern = chance.choice((PatternType.LITERAL, PatternType.PREFIXED))
    return Acl(
        resource_type=kind,
        pattern_type=PatternType.LITERAL if kind == ResourceType.CLUSTER else pattern,
        name="kafka-cluster" if kind == ResourceType.CLUSTER else chance.choice(NAMES),
        principal=chance.choice(PRINCIPALS),
        host=chance.choice(HOSTS),
        operation=chance.choice((Operation.ALL, *OPERATIONS_OF[kind])),
        permission=chance.choice((Permission.ALLOW, Permission.ALLOW, Permission.DENY)),
    )


def questions(seed: int) -> Iterator[tuple[str, bool | None]]:
    """Lines for the oracle, and for those it answers what we say."""
    chance = random.Random(seed)
    for _ in range(SETS):
        allow_if_none = chance.random() < 0.2
        acls = list(dict.fromkeys(generated(chance) for _ in range(chance.choice((0, 1, 2, 4, 8, 16)))))
        yield f"acls\t{str(allow_if_none).lower()}", None
        for one in acls:
            fields = (one.resource_type.name, one.pattern_type.name, one.name, one.principal, one.host)
            yield "\t".join(("acl", *fields, one.operation.name, one.permission.name)), None
        index = AclIndex(acls)
        for _ in range(ASKED_OF_A_SET):
            principal = chance.choice(("User:alice", "User:bob", "User:root", "Group:alice"))
            host, kind = chance.choice(HOSTS[1:]), chance.choice(TYPES)
            operation = chance.choice(OPERATIONS_OF[kind])
            name = "kafka-cluster" if kind == ResourceType.CLUSTER else chance.choice(NAMES)
            peer = {"principal": principal, "host": host, "operation": operation, "resource_type": kind}
            if chance.random() < 0.1 and kind != ResourceType.CLUSTER:
                ours = authorize_by_resource_type(
                    acls, **peer, super_users=("User:root",), allow_if_no_acl=allow_if_none
                )  # type: ignore[arg-type]  # fields by name
                yield f"any\t{principal}\t{host}\t{operation.name}\t{kind.name}", ours
                continue
            decision = authorize(
                index.about(kind, name),
                **peer,  # type: ignore[arg-type]  # fields by name
                name=name,
                super_users=("User:root",),
                allow_if_no_acl=allow_if_none,
            )
            yield f"ask\t{principal}\t{host}\t{operation.name}\t{kind.name}\t{name}", decision.allowed


@pytest.mark.skipif(not java.installed(), reason="java and mvn are not installed")
def test_fifty_thousand_decisions_are_kafkas() -> None:
    asked = list(questions(seed=20261121))
    answered = [(line, ours) for line, ours in asked if ours is not None]
    assert len(answered) >= 50_000
    program, *rest = java.command("sluice.tests.Decisions")
    outcome = subprocess.run(
        [program, "-Dorg.slf4j.simpleLogger.defaultLogLevel=off", *rest],
        input="\n".join(line for line, _ in asked),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stderr[-4000:]
    theirs = [answer == "1" for answer in outcome.stdout.strip()]
    assert len(theirs) == len(answered)
    disagreements = [(line, ours) for (line, ours), kafkas in zip(answered, theirs, strict=True) if ours != kafkas]
    assert not disagreements, disagreements[:10]
    assert 0.1 < sum(theirs) / len(theirs) < 0.9
