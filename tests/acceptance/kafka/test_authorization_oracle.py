"""Kafka's own StandardAuthorizer and ours decide the same generated requests: no disagreement."""

import random
import subprocess

import pytest

from broker.cluster.acls import (
    Acl,
    Operation,
    PatternType,
    Permission,
    ResourceType,
    authorize,
    authorize_by_resource_type,
)
from tests.acceptance.kafka import java

if not java.installed():
    pytest.skip("java and mvn are not installed", allow_module_level=True)

SETS, REQUESTS, BY_TYPE = 520, 100, 10
SUPER_USERS = frozenset({"User:root"})
PRINCIPALS = ("User:a", "User:b", "User:ab", "User:root", "Group:a")
HOSTS = ("10.0.0.1", "10.0.0.2", "::1")
NAMES = ("a", "ab", "abc", "b", "ab.c", "kafka-cluster", "größe", "A", "a*")
TYPES = (ResourceType.TOPIC, ResourceType.GROUP, ResourceType.CLUSTER, ResourceType.TRANSACTIONAL_ID, ResourceType.USER)
OPERATIONS = tuple(each for each in Operation if each > Operation.ANY)
REQUESTED = tuple(each for each in OPERATIONS if each != Operation.ALL)


def acl(source: random.Random, types: tuple[ResourceType, ...]) -> Acl:
    prefixed = source.random() < 0.4
    return Acl(
        resource_type=source.choice(types),
        pattern_type=PatternType.PREFIXED if prefixed else PatternType.LITERAL,
        name=source.choice(NAMES if prefixed else (*NAMES, "*", "*")),
        principal=source.choice((*PRINCIPALS, "User:*", "User:*")),
        host=source.choice((*HOSTS[:2], "*", "*", "*")),
        operation=source.choice((*OPERATIONS, Operation.ALL, Operation.READ, Operation.WRITE)),
        permission=source.choice((Permission.ALLOW, Permission.ALLOW, Permission.DENY)),
    )


def test_fifty_thousand_generated_requests_are_decided_alike() -> None:
    source = random.Random(20261121)
    lines: list[str] = []
    ours: list[bool] = []
    questions: list[str] = []

    def ask(line: str, allowed: bool, about: object) -> None:
        lines.append(line)
        ours.append(allowed)
        questions.append(f"{line!r} with {about}")

    for _ in range(SETS):
        lenient = source.random() < 0.3
        # few types and many rules about them, so that rules meet
        types = tuple(source.sample(TYPES, source.randint(1, 2)))
        rules = {acl(source, types) for _ in range(source.choice((0, 1, 2, 4, 8, 16)))}
        lines.append(f"S\t{str(lenient).lower()}")
        for rule in rules:
            values = (rule.resource_type, rule.name, rule.pattern_type, rule.principal, rule.host)
            fields = (*values, rule.operation, rule.permission)
            lines.append("A\t" + "\t".join(str(int(f)) if isinstance(f, int) else f for f in fields))
        for _ in range(REQUESTS):
            kind, operation = source.choice(types), source.choice(REQUESTED)
            name, principal, host = source.choice(NAMES), source.choice(PRINCIPALS), source.choice(HOSTS)
            decision = authorize(
                rules,
                principal=principal,
                host=_canonical(host),
                operation=operation,
                resource_type=kind,
                name=name,
                super_users=SUPER_USERS,
                allow_if_no_acl=lenient,
            )
            ask(f"R\t{int(kind)}\t{name}\t{principal}\t{host}\t{int(operation)}", decision.allowed, (lenient, rules))
        for _ in range(BY_TYPE):
            kind, operation = source.choice(types), source.choice(REQUESTED)
            principal, host = source.choice(PRINCIPALS), source.choice(HOSTS)
            allowed = authorize_by_resource_type(
                rules,
                principal=principal,
                host=_canonical(host),
                operation=operation,
                resource_type=kind,
                super_users=SUPER_USERS,
                allow_if_no_acl=lenient,
            )
            ask(f"T\t{int(kind)}\t{principal}\t{host}\t{int(operation)}", allowed, (lenient, rules))
    done = subprocess.run(
        java.command("sluice.tests.Authorize"),
        input="\n".join(lines) + "\n",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    theirs = [answer == "1" for answer in done.stdout.split()]
    assert len(theirs) == len(ours) >= 50_000
    assert 0.1 < sum(theirs) / len(theirs) < 0.9
    disagreements = [
        f"Kafka says {their}: {question}"
        for their, our, question in zip(theirs, ours, questions, strict=True)
        if their != our
    ]
    assert disagreements == [], f"{len(disagreements)} of {len(ours)}; {disagreements[:5]}"


def _canonical(host: str) -> str:
    """A peer's address as Java writes it."""
    return "0:0:0:0:0:0:0:1" if host == "::1" else host
