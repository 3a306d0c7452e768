"""Signing in, ACLs at the door of every API, users and TLS, on real ports."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import ssl
import time
from pathlib import Path
from typing import Any

import pytest

from broker.cluster import scram
from broker.cluster.acls import Acl, Operation, PatternType, Permission, ResourceType
from broker.cluster.metadata import ScramCredential, acl_key
from broker.config import Listener, OAuth, Tls
from broker.wire.codec import struct
from broker.wire.errors import ErrorCode
from tests.integration.broker.issuers import AUDIENCE, CLIENT, ISSUER, Keys, TokenIssuer, written
from tests.integration.broker.wire_client import (
    INTERNAL,
    Connection,
    Running,
    fetch_fields,
    produce,
    settings,
    started,
)


async def allow(running: Running, principal: str, operation: Operation, name: str, **more: Any) -> None:
    granted = Acl(
        resource_type=more.get("kind", ResourceType.TOPIC),
        pattern_type=PatternType.LITERAL,
        name=name,
        principal=principal,
        host="*",
        operation=operation,
        permission=more.get("permission", Permission.ALLOW),
    )
    await running.broker.metadata.change([(acl_key(granted), {})])


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-512"])
async def test_the_internal_user_signs_in_at_its_own_listener_only(running: Running, mechanism: str) -> None:
    inside = await running.connect("INTERNAL")
    assert (await inside.sign_in(INTERNAL.username, INTERNAL.password, mechanism)).error_code == 0
    assert (await inside.call("Metadata", 12, topics=None)).topics
    outside = await running.connect("SASL_PLAINTEXT")
    answer = await outside.sign_in(INTERNAL.username, INTERNAL.password, mechanism)
    assert answer.error_code == ErrorCode.SASL_AUTHENTICATION_FAILED


async def test_a_user_signs_in_and_nobody_else_does(running: Running) -> None:
    await running.add_user("alice", "secret")
    connection = await running.connect("SASL_PLAINTEXT")
    assert (await connection.sign_in("alice", "secret")).error_code == 0
    for user, password in (("alice", "wrong"), ("nobody", "secret"), ("alice", "")):
        other = await running.connect("SASL_PLAINTEXT")
        answer = await other.sign_in(user, password)
        assert answer.error_code == ErrorCode.SASL_AUTHENTICATION_FAILED
        assert await other.closed()
    inside = await running.connect("INTERNAL")
    assert (await inside.sign_in("alice", "secret")).error_code == ErrorCode.SASL_AUTHENTICATION_FAILED


async def test_a_handshake_is_refused_where_it_makes_no_sense(running: Running) -> None:
    plain = await running.connect()
    assert (await plain.call("SaslHandshake", 1, mechanism="PLAIN")).error_code == ErrorCode.ILLEGAL_SASL_STATE
    sasl = await running.connect("SASL_PLAINTEXT")
    answer = await sasl.call("SaslHandshake", 1, mechanism="GSSAPI")
    assert answer.error_code == ErrorCode.UNSUPPORTED_SASL_MECHANISM
    assert set(answer.mechanisms) == {"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"}
    first = await sasl.call("SaslAuthenticate", 2, auth_bytes=b"x")
    assert first.error_code == ErrorCode.ILLEGAL_SASL_STATE


async def test_plain_checks_the_same_password(running: Running) -> None:
    await running.add_user("alice", "secret")
    for password, code in (("secret", 0), ("wrong", ErrorCode.SASL_AUTHENTICATION_FAILED)):
        connection = await running.connect("SASL_PLAINTEXT")
        await connection.call("SaslHandshake", 1, mechanism="PLAIN")
        answer = await connection.call("SaslAuthenticate", 2, auth_bytes=b"\0alice\0" + password.encode())
        assert answer.error_code == code


async def test_plain_costs_the_same_whether_the_user_exists(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    await running.add_user("alice", "secret")
    work: list[tuple[str, int]] = []
    real = scram.matches

    def counted(password: str, kept: ScramCredential, mechanism: str) -> bool:
        work.append((mechanism, kept.iterations))
        return real(password, kept, mechanism)

    monkeypatch.setattr(scram, "matches", counted)
    done = []
    for user in (b"alice", b"nobody"):
        connection = await running.connect("SASL_PLAINTEXT")
        await connection.call("SaslHandshake", 1, mechanism="PLAIN")
        answer = await connection.call("SaslAuthenticate", 2, auth_bytes=b"\0" + user + b"\0wrong")
        assert answer.error_code == ErrorCode.SASL_AUTHENTICATION_FAILED
        assert "Invalid username or password" in answer.error_message
        done.append(list(work))
        work.clear()
    assert done[0] == done[1]
    assert {mechanism for mechanism, _ in done[0]} == set(scram.MECHANISMS)


async def test_plain_is_not_offered_in_the_clear_beyond_loopback(tmp_path: Path) -> None:
    open_wide = Listener(name="WIDE", protocol="SASL_PLAINTEXT", host="0.0.0.0", port=0)
    async with started(settings(tmp_path, listeners=(open_wide,))) as running:
        connection = await running.connect("WIDE")
        answer = await connection.call("SaslHandshake", 1, mechanism="PLAIN")
        assert answer.error_code == ErrorCode.UNSUPPORTED_SASL_MECHANISM
        assert "PLAIN" not in answer.mechanisms


async def test_a_connection_may_sign_in_again_as_itself_and_as_nobody_else(running: Running) -> None:
    await running.add_user("alice", "secret")
    await running.add_user("bob", "secret")
    connection = await running.connect("SASL_PLAINTEXT")
    assert (await connection.sign_in("alice", "secret")).error_code == 0
    assert (await connection.sign_in("alice", "secret")).error_code == 0
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await connection.sign_in("bob", "secret")


async def test_users_are_made_described_and_removed(running: Running) -> None:
    root = await running.root()
    salt = b"s" * 16
    salted = hashlib.pbkdf2_hmac("sha512", b"pw", salt, 8192)
    upsert = struct("AlterUserScramCredentialsRequest.ScramCredentialUpsertion")(
        name="carol", mechanism=2, iterations=8192, salt=salt, salted_password=salted
    )
    weak = struct("AlterUserScramCredentialsRequest.ScramCredentialUpsertion")(
        name="weak", mechanism=2, iterations=10, salt=salt, salted_password=salted
    )
    answer = await root.call("AlterUserScramCredentials", 0, upsertions=[upsert, weak])
    assert {one.user: one.error_code for one in answer.results} == {
        "carol": 0,
        "weak": ErrorCode.UNACCEPTABLE_CREDENTIAL,
    }
    connection = await running.connect("SASL_PLAINTEXT")
    assert (await connection.sign_in("carol", "pw", "SCRAM-SHA-512")).error_code == 0
    shown = await root.call("DescribeUserScramCredentials", 0, users=None)
    assert [(one.user, one.credential_infos[0].iterations) for one in shown.results] == [("carol", 8192)]
    gone = struct("AlterUserScramCredentialsRequest.ScramCredentialDeletion")(name="carol", mechanism=2)
    assert (await root.call("AlterUserScramCredentials", 0, deletions=[gone])).results[0].error_code == 0
    again = await root.call("AlterUserScramCredentials", 0, deletions=[gone])
    assert again.results[0].error_code == ErrorCode.RESOURCE_NOT_FOUND
    late = await running.connect("SASL_PLAINTEXT")
    answer = await late.sign_in("carol", "pw", "SCRAM-SHA-512")
    assert answer.error_code == ErrorCode.SASL_AUTHENTICATION_FAILED


def files_of(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


async def test_passwords_are_kept_nowhere(running: Running, tmp_path: Path) -> None:
    await running.add_user("alice", "very-secret-indeed")
    await running.assembly.broker.metadata.settled()
    assert not [path for path in files_of(tmp_path) if b"very-secret-indeed" in path.read_bytes()]


async def alice(running: Running) -> Connection:
    await running.add_user("alice", "secret")
    connection = await running.connect("SASL_PLAINTEXT")
    assert (await connection.sign_in("alice", "secret")).error_code == 0
    return connection


async def test_acls_decide_over_produce_fetch_and_what_metadata_shows(running: Running) -> None:
    for name in ("open", "closed"):
        await running.broker.topics.create(name, 1)
    connection = await alice(running)
    assert (await produce(connection, "closed", b"x")).error_code == 0, "no ACL yet: nothing is closed"
    await allow(running, "User:alice", Operation.WRITE, "open")
    assert (await produce(connection, "open", b"x")).error_code == 0
    assert (await produce(connection, "closed", b"x")).error_code == ErrorCode.TOPIC_AUTHORIZATION_FAILED
    found = await connection.call("Fetch", 12, **fetch_fields("open", (0, 0)))
    assert found.responses[0].partitions[0].error_code == ErrorCode.TOPIC_AUTHORIZATION_FAILED
    shown = await connection.call("Metadata", 12, topics=None)
    assert [one.name for one in shown.topics] == ["open"]
    wanted = [struct("MetadataRequest.MetadataRequestTopic")(name=name) for name in ("closed", "new")]
    named = await connection.call("Metadata", 12, topics=wanted)
    assert {one.error_code for one in named.topics} == {ErrorCode.TOPIC_AUTHORIZATION_FAILED}
    assert running.broker.topics.get("new") is None


async def test_a_right_taken_away_ends_a_session_that_lives_on_it(running: Running) -> None:
    await running.broker.topics.create("t", 1)
    connection = await alice(running)
    await allow(running, "User:alice", Operation.READ, "t")
    first = await connection.call("Fetch", 12, **fetch_fields("t", (0, 0), session_id=0, session_epoch=0))
    assert first.session_id
    await allow(running, "User:alice", Operation.READ, "t", permission=Permission.DENY)
    assert (await produce(await running.root(), "t", b"x")).error_code == 0
    fields = fetch_fields("t", session_id=first.session_id, session_epoch=1)
    second = await connection.call("Fetch", 12, **{**fields, "topics": []})
    assert second.responses[0].partitions[0].error_code == ErrorCode.TOPIC_AUTHORIZATION_FAILED


DENIED_CALLS: list[tuple[str, int, dict[str, Any], str]] = [
    (
        "DescribeAcls",
        3,
        {"resource_type_filter": 1, "pattern_type_filter": 1, "operation": 1, "permission_type": 1},
        "",
    ),
    ("DescribeUserScramCredentials", 0, {"users": None}, ""),
    ("DescribeClientQuotas", 1, {"components": []}, ""),
    ("ListConfigResources", 1, {"resource_types": []}, ""),
    ("DescribeLogDirs", 4, {"topics": None}, ""),
    ("ElectLeaders", 2, {"topic_partitions": None}, ""),
    ("AlterPartitionReassignments", 0, {"topics": []}, ""),
    ("ListPartitionReassignments", 0, {"topics": None}, ""),
    ("UpdateFeatures", 1, {"feature_updates": []}, ""),
    ("DescribeQuorum", 2, {"topics": []}, ""),
    ("UnregisterBroker", 0, {"broker_id": 1}, ""),
]


@pytest.mark.parametrize(("name", "version", "fields", "_"), DENIED_CALLS, ids=lambda value: str(value)[:30])
async def test_calls_about_the_cluster_need_rights_on_the_cluster(
    running: Running, name: str, version: int, fields: dict[str, Any], _: str
) -> None:
    connection = await alice(running)
    await allow(running, "User:someone", Operation.READ, "t")
    answer = await connection.call(name, version, **fields)
    assert answer.error_code == ErrorCode.CLUSTER_AUTHORIZATION_FAILED
    await allow(running, "User:alice", Operation.ALL, "kafka-cluster", kind=ResourceType.CLUSTER)
    assert (await connection.call(name, version, **fields)).error_code != ErrorCode.CLUSTER_AUTHORIZATION_FAILED


async def test_acls_are_made_described_and_removed_through_the_apis(running: Running) -> None:
    root = await running.root()

    def creation(**changes: Any) -> Any:
        usual = {
            "resource_type": 2,
            "resource_name": "orders",
            "resource_pattern_type": 3,
            "principal": "User:bob",
            "host": "*",
            "operation": 3,
            "permission_type": 3,
        }
        return struct("CreateAclsRequest.AclCreation")(**{**usual, **changes})

    answer = await root.call(
        "CreateAcls",
        3,
        creations=[
            creation(),
            creation(resource_name="or", resource_pattern_type=4),
            creation(principal="bob"),
            creation(operation=12),
            creation(resource_type=4),
            creation(host="everywhere"),
            creation(resource_name=""),
        ],
    )
    assert [one.error_code for one in answer.results] == [0, 0] + [ErrorCode.INVALID_REQUEST] * 5
    shown = await root.call(
        "DescribeAcls",
        3,
        resource_type_filter=2,
        resource_name_filter="orders",
        pattern_type_filter=2,
        principal_filter=None,
        host_filter=None,
        operation=1,
        permission_type=1,
    )
    assert sorted(one.resource_name for one in shown.resources) == ["or", "orders"]
    every = struct("DeleteAclsRequest.DeleteAclsFilter")(
        resource_type_filter=1,
        resource_name_filter=None,
        pattern_type_filter=1,
        principal_filter="User:bob",
        host_filter=None,
        operation=1,
        permission_type=1,
    )
    deleted = await root.call("DeleteAcls", 3, filters=[every])
    assert len(deleted.filter_results[0].matching_acls) == 2
    assert len(running.broker.metadata.image.acls) == 0


# --- tokens and certificates


class Tlsed(Keys):
    """Keys, and settings with SSL and SASL_SSL listeners that use them."""

    def __init__(self, folder: Path, *, demand: bool) -> None:
        super().__init__(folder)
        tls = Tls(certificate=self.server[0], key=self.server[1], client_ca=self.ca if demand else None)
        listeners = tuple(Listener(name=name, protocol=name, host="127.0.0.1", port=0) for name in ("SSL", "SASL_SSL"))
        self.config = settings(folder / "data", listeners=listeners, tls=tls)


async def test_tls_listeners_serve_and_reload_their_certificate_without_dropping_anybody(tmp_path: Path) -> None:
    tls = Tlsed(tmp_path, demand=False)
    async with started(tls.config) as running:
        old = await running.connect("SSL", tls.context())
        assert (await old.call("Metadata", 12, topics=None)).brokers[0].port == running.port("SSL")
        before = old.writer.get_extra_info("peercert")["serialNumber"]
        fresh = written(tmp_path / "fresh", "server", tls.issuer)
        for there, new in zip(tls.server, fresh, strict=True):
            there.write_bytes(new.read_bytes())
        assert running.assembly.server.certificates is not None
        running.assembly.server.certificates.reload_if_changed()
        new_connection = await running.connect("SSL", tls.context())
        assert new_connection.writer.get_extra_info("peercert")["serialNumber"] != before
        assert (await old.call("Metadata", 12, topics=None)).cluster_id


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["certificate first", "key first"])
async def test_a_key_and_its_certificate_may_be_replaced_one_after_the_other(
    tmp_path: Path, order: tuple[int, int]
) -> None:
    tls = Tlsed(tmp_path, demand=False)
    async with started(tls.config) as running:
        certificates = running.assembly.server.certificates
        assert certificates is not None

        async def shown() -> str:
            connection = await running.connect("SSL", tls.context())
            assert (await connection.call("ApiVersions", 0)).api_keys
            return str(connection.writer.get_extra_info("peercert")["serialNumber"])

        before = await shown()
        fresh = written(tmp_path / "fresh", "server", tls.issuer)
        for which, reloaded in zip(order, (False, True), strict=True):
            tls.server[which].write_bytes(fresh[which].read_bytes())
            assert certificates.reload_if_changed() == reloaded
            assert (await shown() == before) == (not reloaded)


async def test_a_clients_certificate_is_its_name_and_none_is_no_entry(tmp_path: Path) -> None:
    tls = Tlsed(tmp_path, demand=True)
    async with started(tls.config) as running:
        await running.broker.topics.create("t", 1)
        await allow(running, CLIENT, Operation.WRITE, "t")
        named = await running.connect("SSL", tls.context(tls.client))
        assert (await produce(named, "t", b"x")).error_code == 0
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            nameless = await running.connect("SSL", tls.context())
            await nameless.call("ApiVersions", 0)


async def test_scram_over_tls(tmp_path: Path) -> None:
    tls = Tlsed(tmp_path, demand=False)
    async with started(tls.config) as running:
        await running.add_user("alice", "secret")
        connection = await running.connect("SASL_SSL", tls.context())
        assert (await connection.sign_in("alice", "secret")).error_code == 0
        assert (await connection.call("Metadata", 12, topics=None)).cluster_id


async def test_plaintext_on_a_tls_port_is_cut_off(tmp_path: Path) -> None:
    tls = Tlsed(tmp_path, demand=False)
    async with started(tls.config) as running:
        wrong = await running.connect("SSL")
        wrong.writer.write(b"\x00\x00\x00\x0a" + b"\x00\x12\x00\x00\x00\x00\x00\x01\xff\xff")
        assert await wrong.closed()
        right = await running.connect("SSL", tls.context())
        assert (await right.call("ApiVersions", 0)).api_keys


async def bearer(running: Running, token: str) -> tuple[Connection, Any]:
    connection = await running.connect("SASL_PLAINTEXT")
    return connection, await connection.bear(token)


async def test_signed_tokens_sign_in_and_doubtful_ones_do_not(tmp_path: Path) -> None:
    issuer = TokenIssuer(tmp_path / "jwks.json")
    oauth = OAuth(jwks=issuer.path, issuer=ISSUER, audience=AUDIENCE)
    config = settings(tmp_path / "data", oauth=oauth, mechanisms=("OAUTHBEARER",))
    async with started(config) as running:
        connection, answer = await bearer(running, issuer.token())
        assert answer.error_code == 0
        assert 0 < answer.session_lifetime_ms <= 60_000
        assert (await connection.call("Metadata", 12, topics=None)).cluster_id
        header = base64.urlsafe_b64encode(b'{"alg":"none"}').decode().rstrip("=")
        doubtful = [
            issuer.token(exp=time.time() - 5),
            issuer.token(iss="https://evil.example"),
            issuer.token(aud="other"),
            issuer.token(sub=""),
            issuer.token()[:-4] + "AAAA",
            f"{header}.{issuer.token().split('.')[1]}.",
            "rubbish",
        ]
        old = issuer.token()
        for token in doubtful:
            assert (await bearer(running, token))[1].error_code == ErrorCode.SASL_AUTHENTICATION_FAILED, token
        issuer.rotate("two-is-longer")
        assert (await bearer(running, issuer.token()))[1].error_code == 0
        assert (await bearer(running, old))[1].error_code == ErrorCode.SASL_AUTHENTICATION_FAILED


async def test_a_token_that_ends_ends_the_session(tmp_path: Path) -> None:
    issuer = TokenIssuer(tmp_path / "jwks.json")
    config = settings(tmp_path / "data", oauth=OAuth(jwks=issuer.path), mechanisms=("OAUTHBEARER",))
    async with started(config) as running:
        connection, answer = await bearer(running, issuer.token(exp=time.time() + 2.5))
        assert answer.error_code == 0
        deadline = time.monotonic() + 60
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            while time.monotonic() < deadline:
                await connection.call("Metadata", 12, topics=[])
                await asyncio.sleep(0.1)


def test_a_credential_is_never_equal_for_two_users_of_one_password() -> None:
    assert scram.credential("x", "SCRAM-SHA-256") != scram.credential("x", "SCRAM-SHA-256")
