"""Users and ACLs, seen from the outside: who may sign in, and what each client may then do."""

import asyncio
import subprocess
import time
from collections.abc import Callable

import aiokafka
import kafka
import kafka.errors
import pytest

from broker.client import Admin, Consumer, Producer, Settings, TopicPartition, errors, types
from tests.acceptance.kafka.conftest import ADMIN, Node

PASSWORD = "s3cret/with+signs"


def signed_in(cluster: Node, user: str, password: str = PASSWORD, mechanism: str = "SCRAM-SHA-512") -> Settings:
    return Settings(
        bootstrap=cluster.sasl_bootstrap,
        security="SASL_PLAINTEXT",
        mechanism=mechanism,
        username=user,
        password=password,
    )


def refused(consumer: Consumer) -> None:
    """Poll until the cluster's answer is raised."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        consumer.poll(1, 0.1)


def eventually(check: Callable[[], bool], timeout: float = 60) -> None:
    deadline = time.monotonic() + timeout
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def can_sign_in(settings: Settings) -> bool:
    try:
        with Admin(settings, timeout=30) as admin:
            admin.cluster()
    except errors.AuthenticationFailed:
        return False
    return True


def rule(user: str, operation: types.Operation, resource: types.ResourceType, name: str, **more: object) -> types.Acl:
    values: dict[str, object] = {
        "resource": resource,
        "name": name,
        "pattern": types.Pattern.LITERAL,
        "principal": f"User:{user}",
        "host": "*",
        "operation": operation,
        "permission": types.Permission.ALLOW,
    }
    return types.Acl(**(values | more))  # type: ignore[arg-type]


@pytest.fixture
def user(admin: Admin, name: Callable[[str], str], cluster: Node) -> str:
    made = name("user")
    admin.put_user(made, PASSWORD, types.Scram.SHA_512, 4096)
    eventually(lambda: can_sign_in(signed_in(cluster, made)))
    return made


def test_users_are_created_changed_and_deleted(cluster: Node, admin: Admin, name: Callable[[str], str]) -> None:
    made = name("user")
    for mechanism in types.Scram:
        admin.put_user(made, PASSWORD, mechanism, 4096)
    eventually(lambda: len(next((u.credentials for u in admin.users() if u.name == made), ())) == 2)
    assert [user.name for user in admin.users([made, name("nobody")])] == [made]
    for mechanism in types.Scram:
        eventually(lambda each=mechanism: can_sign_in(signed_in(cluster, made, mechanism=each.label)))  # type: ignore[misc]
    assert not can_sign_in(signed_in(cluster, made, "wrong"))
    assert not can_sign_in(signed_in(cluster, name("nobody")))
    admin.put_user(made, "another", types.Scram.SHA_512, 8192)
    eventually(lambda: can_sign_in(signed_in(cluster, made, "another")))
    assert not can_sign_in(signed_in(cluster, made))
    admin.delete_user(made, types.Scram.SHA_512)
    eventually(lambda: not can_sign_in(signed_in(cluster, made, "another")))
    assert can_sign_in(signed_in(cluster, made, mechanism="SCRAM-SHA-256"))
    with pytest.raises(errors.UnknownUser):
        admin.delete_user(made, types.Scram.SHA_512)
    admin.delete_user(made, types.Scram.SHA_256)


def test_the_super_user_signs_in_with_plain_too(cluster: Node) -> None:
    assert can_sign_in(signed_in(cluster, *ADMIN, mechanism="PLAIN"))
    assert not can_sign_in(signed_in(cluster, ADMIN[0], "wrong", mechanism="PLAIN"))


def test_a_user_may_do_what_rules_allow_and_nothing_else(
    cluster: Node, admin: Admin, user: str, topic: Callable[..., str], name: Callable[[str], str]
) -> None:
    made, group = topic(1), name("group")
    mine = signed_in(cluster, user)
    with Admin(mine) as restricted:
        assert made not in restricted.topics()
        with pytest.raises(errors.NotAuthorized):
            restricted.create_topic(name("mine"), 1)
    producer = Producer(mine, delivery_timeout=60)
    with pytest.raises(errors.NotAuthorized):
        producer.send(made, b"x")
    admin.create_acls([rule(user, types.Operation.WRITE, types.ResourceType.TOPIC, made)])
    eventually(lambda: sends(producer, made))
    consumer = Consumer(mine, group)
    consumer.subscribe([made])
    with pytest.raises(errors.NotAuthorized):
        refused(consumer)
    admin.create_acls(
        [
            rule(user, types.Operation.READ, types.ResourceType.TOPIC, made),
            rule(user, types.Operation.READ, types.ResourceType.GROUP, group),
        ]
    )
    eventually(lambda: reads(consumer))
    denial = rule(user, types.Operation.WRITE, types.ResourceType.TOPIC, made[:5], permission=types.Permission.DENY)
    admin.create_acls([types.Acl(**{**_fields(denial), "pattern": types.Pattern.PREFIXED})])
    eventually(lambda: not sends(producer, made))
    everything = types.AclFilter(principal=f"User:{user}")
    # Kafka's brokers hear of a change after it was acknowledged
    eventually(lambda: len(admin.acls(everything)) == 4)
    assert len(admin.delete_acls([everything])) == 4
    eventually(lambda: admin.acls(everything) == ())
    consumer.close()
    producer.close(0)


def _fields(acl: types.Acl) -> dict[str, object]:
    return {name: getattr(acl, name) for name in acl.__slots__}


def sends(producer: Producer, topic: str) -> bool:
    try:
        producer.send(topic, b"x")
    except errors.NotAuthorized:
        return False
    return True


def reads(consumer: Consumer) -> bool:
    try:
        return bool(consumer.poll(1, 0.2))
    except errors.NotAuthorized:
        return False


def test_rules_are_found_by_what_would_match(admin: Admin, name: Callable[[str], str]) -> None:
    prefix = name("finance")
    literal = rule("a", types.Operation.READ, types.ResourceType.TOPIC, f"{prefix}.orders")
    prefixed = rule("b", types.Operation.WRITE, types.ResourceType.TOPIC, prefix, pattern=types.Pattern.PREFIXED)
    anything = rule("c", types.Operation.DESCRIBE, types.ResourceType.TOPIC, "*", host="10.0.0.1")
    other = rule("d", types.Operation.READ, types.ResourceType.GROUP, f"{prefix}.orders")
    rules = [literal, prefixed, anything, other]
    admin.create_acls(rules)

    def found(**query: object) -> set[types.Acl]:
        return set(admin.acls(types.AclFilter(**query))) & set(rules)  # type: ignore[arg-type]

    topic = {"resource": types.ResourceType.TOPIC, "name": f"{prefix}.orders"}
    eventually(lambda: found() == set(rules))
    assert found(**topic, pattern=types.Pattern.LITERAL) == {literal}
    assert found(**topic, pattern=types.Pattern.MATCH) == {literal, prefixed, anything}
    assert found(name=f"{prefix}.orders", pattern=types.Pattern.ANY) == {literal, other}
    assert found(principal="User:b") == {prefixed}
    assert found(host="10.0.0.1") == {anything}
    assert found(operation=types.Operation.READ) == {literal, other}
    for each in rules:
        removed = admin.delete_acls(
            [types.AclFilter(resource=each.resource, name=each.name, pattern=each.pattern, principal=each.principal)]
        )
        assert removed == (each,)


def test_kcat_signs_in(cluster: Node, topic: Callable[..., str], kcat: str) -> None:
    # with PLAIN: the librdkafka 2.0 of Debian's kcat proves a wrong nonce, which Kafka refuses since CVE-2024-56128
    made = topic(1)
    options = {
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "PLAIN",
        "sasl.username": ADMIN[0],
        "sasl.password": ADMIN[1],
    }
    flags = [part for key, value in options.items() for part in ("-X", f"{key}={value}")]
    base = [kcat, "-b", cluster.sasl_bootstrap, "-t", made, *flags]
    written = subprocess.run([*base, "-P"], input=b"hello\n", capture_output=True, timeout=120, check=False)
    assert written.returncode == 0, written.stderr
    read = subprocess.run([*base, "-C", "-e", "-q", "-o", "beginning"], capture_output=True, timeout=120, check=False)
    assert read.stdout == b"hello\n", read.stderr


async def test_aiokafka_and_kafka_python_sign_in(
    cluster: Node, admin: Admin, user: str, topic: Callable[..., str]
) -> None:
    made = topic(1)
    admin.create_acls([rule(user, types.Operation.ALL, types.ResourceType.TOPIC, made)])
    options = {
        "bootstrap_servers": cluster.sasl_bootstrap,
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": user,
        "sasl_plain_password": PASSWORD,
    }
    writer = aiokafka.AIOKafkaProducer(**options)
    await writer.start()
    try:
        await writer.send_and_wait(made, b"hello")
    finally:
        await writer.stop()

    def read() -> list[bytes]:
        reader = kafka.KafkaConsumer(**options, auto_offset_reset="earliest", consumer_timeout_ms=60_000)
        reader.assign([kafka.TopicPartition(made, 0)])
        reader.seek_to_beginning()
        try:
            return [next(reader).value]
        finally:
            reader.close()

    assert await asyncio.to_thread(read) == [b"hello"]
    with pytest.raises(kafka.errors.KafkaError):
        await asyncio.to_thread(
            kafka.KafkaAdminClient, **(options | {"sasl_plain_password": "wrong", "bootstrap_timeout_ms": 2000})
        )
    admin.delete_acls([types.AclFilter(principal=f"User:{user}")])


# Apache Kafka denies nobody its internal topics as such
@pytest.mark.parametrize("cluster", ["embedded"], indirect=True)
def test_internal_topics_are_nobodys_business(cluster: Node, admin: Admin, user: str) -> None:
    admin.create_acls(
        [
            rule(user, types.Operation.ALL, types.ResourceType.TOPIC, "*"),
            rule(user, types.Operation.ALL, types.ResourceType.CLUSTER, "kafka-cluster"),
        ]
    )
    with Admin(signed_in(cluster, user)) as mine:
        assert not [name for name in mine.topics() if name.startswith("__")]
    producer = Producer(signed_in(cluster, user), delivery_timeout=60)
    with pytest.raises(errors.ClientError):
        producer.send("__consumer_offsets", b"x")
    producer.close(0)
    consumer = Consumer(signed_in(cluster, user))
    consumer.assign({TopicPartition("__consumer_offsets", 0): 0})
    with pytest.raises(errors.ClientError):
        refused(consumer)
    consumer.close()
    admin.delete_acls([types.AclFilter(principal=f"User:{user}")])
