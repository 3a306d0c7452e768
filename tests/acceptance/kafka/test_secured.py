"""TLS, clients' certificates and signed tokens, as clients of other houses and the seam use them."""

import asyncio
import base64
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import aiokafka
import aiokafka.abc
import confluent_kafka
import kafka
import kafka.net.sasl.oauth
import pytest

from broker.client import Admin, Consumer, Producer, Settings, TopicPartition, errors, types
from broker.wire.errors import ErrorCode
from tests.acceptance.kafka import java
from tests.acceptance.kafka.apache import ApacheKafka
from tests.acceptance.kafka.conftest import ADMIN, GIVEN, Node
from tests.acceptance.kafka.embedded import EmbeddedBroker
from tests.acceptance.kafka.test_writer import write, writing
from tests.integration.broker.issuers import CLIENT
from tests.integration.broker.wire_client import Connection

pytestmark = pytest.mark.skipif(bool(GIVEN), reason="a cluster that somebody else runs has keys of its own")

Started = ApacheKafka | EmbeddedBroker


@pytest.fixture
def secured(cluster: Node) -> Started:
    assert isinstance(cluster, ApacheKafka | EmbeddedBroker)
    return cluster


@pytest.fixture
def may(admin: Admin) -> Iterator[Callable[[str, str], None]]:
    """Lets a principal do everything with a topic and any group, within the test."""
    given: set[str] = set()

    def allow(principal: str, topic: str) -> None:
        given.add(principal)
        admin.create_acls(
            [
                types.Acl(
                    resource=resource,
                    name=name,
                    pattern=types.Pattern.LITERAL,
                    principal=principal,
                    host="*",
                    operation=types.Operation.ALL,
                    permission=types.Permission.ALLOW,
                )
                for resource, name in ((types.ResourceType.TOPIC, topic), (types.ResourceType.GROUP, "*"))
            ]
        )
        deadline = time.monotonic() + 60
        while not admin.acls(types.AclFilter(principal=principal)):
            assert time.monotonic() < deadline
            time.sleep(0.02)

    yield allow
    admin.delete_acls([types.AclFilter(principal=principal) for principal in given])


def certified(secured: Started, pair: str = "client") -> Settings:
    """The seam's settings of one that shows a certificate."""
    certificate, key = getattr(secured.keys, pair)
    return Settings(
        bootstrap=secured.addresses["SSL"],
        security="SSL",
        tls_ca=str(secured.keys.ca),
        tls_certificate=str(certificate),
        tls_key=str(key),
    )


def with_password(secured: Started, password: str = ADMIN[1]) -> Settings:
    return Settings(
        bootstrap=secured.addresses["SASL_SSL"],
        security="SASL_SSL",
        mechanism="SCRAM-SHA-512" if secured.name == "embedded" else "PLAIN",
        username=ADMIN[0],
        password=password,
        tls_ca=str(secured.keys.ca),
    )


def written_and_read(settings: Settings, topic: str) -> bytes | None:
    producer = Producer(settings)
    try:
        place = producer.send(topic, b"hello")
    finally:
        producer.close()
    consumer = Consumer(settings)
    try:
        consumer.assign({TopicPartition(topic, 0): place.offset})
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            for record in consumer.poll(1, 0.2):
                return record.value
        return None
    finally:
        consumer.close()


def test_a_client_is_who_its_certificate_says(
    secured: Started, topic: Callable[..., str], may: Callable[[str, str], None]
) -> None:
    made, other = topic(1), topic(1)
    may(CLIENT, made)
    assert written_and_read(certified(secured), made) == b"hello"
    with Admin(certified(secured)) as admin:
        assert set(admin.topics()) == {made}, "what it may not see is not there for it"
    with pytest.raises(errors.ClientError):
        written_and_read(certified(secured), other)


def test_nobody_gets_in_without_a_certificate_of_the_authority(secured: Started) -> None:
    nameless = Settings(bootstrap=secured.addresses["SSL"], security="SSL", tls_ca=str(secured.keys.ca))
    for settings in (nameless, certified(secured, "stranger")):
        with pytest.raises(errors.ClientError), Admin(settings, timeout=2) as admin:
            admin.cluster()


def test_a_server_that_the_authority_does_not_know_is_not_trusted(secured: Started) -> None:
    stranger = secured.keys.stranger[0]
    settings = Settings(bootstrap=secured.addresses["SASL_SSL"], security="SSL", tls_ca=str(stranger))
    with pytest.raises(errors.ClientError), Admin(settings, timeout=2) as admin:
        admin.cluster()


def test_a_password_goes_through_tls(secured: Started, topic: Callable[..., str]) -> None:
    made = topic(1)
    assert written_and_read(with_password(secured), made) == b"hello"
    with pytest.raises(errors.AuthenticationFailed), Admin(with_password(secured, "wrong"), timeout=30) as admin:
        admin.cluster()


async def test_the_event_loop_writes_with_a_certificate_and_with_a_password_where_it_may(
    secured: Started, topic: Callable[..., str], may: Callable[[str, str], None]
) -> None:
    made, other = topic(1), topic(1)
    may(CLIENT, made)
    for settings in (certified(secured), with_password(secured)):
        async with writing(settings) as writer:
            assert not await write(writer, [(made, b"x" * 300_000, b"k", None, None, -1)])
    async with writing(certified(secured)) as writer:
        kept_out = await write(writer, [(other, b"x", b"k", None, None, -1), (made, b"y", b"k", None, None, -1)])
        assert [(each.topic, type(each.error), each.unknown) for each in kept_out] == [
            (other, errors.NotAuthorized, False)
        ]
    async with writing(with_password(secured, "wrong"), delivery_timeout=1.0) as writer:
        assert (await write(writer, [(made, b"y", b"k", None, None, -1)]))[0].unknown
        assert isinstance(writer.last_error, errors.AuthenticationFailed)


def test_kcat_shows_a_certificate(
    secured: Started, topic: Callable[..., str], may: Callable[[str, str], None], kcat: str
) -> None:
    made = topic(1)
    may(CLIENT, made)
    options = {
        "security.protocol": "SSL",
        "ssl.ca.location": secured.keys.ca,
        "ssl.certificate.location": secured.keys.client[0],
        "ssl.key.location": secured.keys.client[1],
    }
    flags = [part for key, value in options.items() for part in ("-X", f"{key}={value}")]
    base = [kcat, "-b", secured.addresses["SSL"], "-t", made, *flags]
    written = subprocess.run([*base, "-P"], input=b"hello\n", capture_output=True, timeout=120, check=False)
    assert written.returncode == 0, written.stderr
    read = subprocess.run([*base, "-C", "-e", "-q", "-o", "beginning"], capture_output=True, timeout=120, check=False)
    assert read.stdout == b"hello\n", read.stderr


async def test_the_clients_for_python_sign_in_with_a_token(
    secured: Started, topic: Callable[..., str], may: Callable[[str, str], None]
) -> None:
    made = topic(1)
    may("User:alice", made)
    address, trusted = secured.addresses["SASL_SSL"], secured.keys.context()

    def told(_: object) -> tuple[str, float]:
        return secured.tokens.token(), time.time() + 60

    producer = confluent_kafka.Producer(
        {
            "bootstrap.servers": address,
            "security.protocol": "SASL_SSL",
            "ssl.ca.location": str(secured.keys.ca),
            "sasl.mechanism": "OAUTHBEARER",
            "oauth_cb": told,
        }
    )
    failed: list[object] = []
    producer.produce(made, b"confluent", on_delivery=lambda error, _: failed.append(error) if error else None)
    assert await asyncio.to_thread(producer.flush, 20) == 0
    assert failed == []

    class Told(aiokafka.abc.AbstractTokenProvider):
        async def token(self) -> str:
            return secured.tokens.token()

    options: dict[str, Any] = {
        "bootstrap_servers": address,
        "security_protocol": "SASL_SSL",
        "ssl_context": trusted,
        "sasl_mechanism": "OAUTHBEARER",
    }
    writer = aiokafka.AIOKafkaProducer(**options, sasl_oauth_token_provider=Told())
    await writer.start()
    try:
        await writer.send_and_wait(made, b"aiokafka")
    finally:
        await writer.stop()

    class ToldAgain(kafka.net.sasl.oauth.AbstractTokenProvider):  # type: ignore[misc]  # the library has no types
        def token(self) -> str:
            return secured.tokens.token()

    def read() -> list[bytes]:
        reader = kafka.KafkaConsumer(
            **options,
            sasl_oauth_token_provider=ToldAgain(),
            auto_offset_reset="earliest",
            consumer_timeout_ms=10_000,
        )
        reader.assign([kafka.TopicPartition(made, 0)])
        reader.seek_to_beginning()
        try:
            return [next(reader).value, next(reader).value]
        finally:
            reader.close()

    assert await asyncio.to_thread(read) == [b"confluent", b"aiokafka"]


async def signed_in(secured: Started, token: str, context: ssl.SSLContext) -> Any:
    """The last answer."""
    host, _, port = secured.addresses["SASL_SSL"].rpartition(":")
    connection = Connection(*await asyncio.open_connection(host, int(port), ssl=context))
    try:
        return await connection.bear(token)
    finally:
        await connection.close()


async def test_a_doubtful_token_lets_nobody_in(secured: Started) -> None:
    tokens, context = secured.tokens, secured.keys.context()
    welcome = await signed_in(secured, tokens.token(), context)
    assert (welcome.error_code, bytes(welcome.auth_bytes)) == (0, b"")
    assert 0 < welcome.session_lifetime_ms <= 60_000, "whoever stays longer must sign in again"
    unsigned = base64.urlsafe_b64encode(b'{"alg":"none"}').decode().rstrip("=")
    claims = tokens.token().split(".")[1]
    for doubtful in (
        tokens.token(exp=time.time() - 5),
        tokens.token(iss="https://evil.example"),
        tokens.token(aud="other"),
        tokens.token(sub=""),
        tokens.token(sub=None),
        tokens.token()[:-6] + "AAAAAA",
        f"{unsigned}.{claims}.",
        f"{unsigned}.{claims}.AAAA",
        "rubbish",
    ):
        refused = await signed_in(secured, doubtful, context)
        assert refused.error_code == ErrorCode.SASL_AUTHENTICATION_FAILED, doubtful


@pytest.mark.skipif(not java.installed(), reason="java and mvn are not installed")
def test_javas_clients_come_with_a_certificate_and_with_a_token(
    secured: Started, topic: Callable[..., str], may: Callable[[str, str], None]
) -> None:
    made = topic(1)
    may(CLIENT, made)
    may("User:alice", made)
    token = secured.folder / "alice.token"
    token.write_text(secured.tokens.token())
    certificate, key = secured.keys.client
    arguments = [secured.addresses["SASL_SSL"], str(secured.keys.ca), str(certificate), str(key), str(token), made]
    command = java.command("sluice.tests.Secured", secured.addresses["SSL"], *arguments)
    command.insert(1, f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls=file:{token}")
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
    assert done.stdout.strip().endswith("ok")
