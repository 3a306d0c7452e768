"""amqtt's own plugins, unmodified, in the gateway's plugin host."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import jwt
import pytest
from aiohttp import web
from amqtt.contrib.auth_db.managers import UserManager
from amqtt.contrib.auth_db.models import PasswordHasher
from argon2 import PasswordHasher as Argon2

from gateway.identity.jwt import BadTokenSettings, TokenSettings, TokenVerifier
from gateway.identity.plugins import BadPlugins, PluginHost
from gateway.policy import Policy
from gateway.ports import ConnectRequest, Peer, Refused

SECRET = "a shared secret of some length, so that nobody warns"


def request(username: str | None = None, password: str | None = None) -> ConnectRequest:
    return ConnectRequest(
        client_id="c1",
        assigned=False,
        protocol=4,
        clean_start=True,
        keep_alive=60,
        session_expiry=0,
        username=username,
        password=None if password is None else password.encode(),
        will=None,
        peer=Peer(address="127.0.0.1:1234", listener="mqtt://127.0.0.1:1883", transport="tcp"),
    )


async def known(host: PluginHost, username: str, password: str) -> bool:
    return await host.verify(request(username, password)) is not None


async def test_the_password_file_plugin_knows_its_users(tmp_path: Path) -> None:
    file = tmp_path / "passwords"
    file.write_text(f"# users\nalice:{Argon2().hash('right')}\n")
    host = PluginHost({"amqtt.plugins.authentication.FileAuthPlugin": {"password_file": str(file)}})
    assert await known(host, "alice", "right")
    assert not await known(host, "alice", "wrong")
    assert not await known(host, "bob", "right")
    await host.close()


async def test_the_jwt_plugin_knows_whom_a_token_names() -> None:
    host = PluginHost(
        {"amqtt.contrib.jwt.UserAuthJwtPlugin": {"secret_key": SECRET, "user_claim": "username", "algorithm": "HS256"}}
    )
    token = jwt.encode({"username": "alice"}, SECRET, algorithm="HS256")
    assert await known(host, "alice", token)
    assert not await known(host, "bob", token)
    assert not await known(host, "alice", token + "x")
    await host.close()


async def test_the_database_plugin_knows_its_rows(tmp_path: Path) -> None:
    connection = f"sqlite+aiosqlite:///{tmp_path}/users.db"
    host = PluginHost({"amqtt.contrib.auth_db.UserAuthDBPlugin": {"connection": connection, "sync_schema": True}})
    await host.start()
    PasswordHasher(schemes=["argon2"])
    async with UserManager(connection) as users:
        await users.create_user_auth("alice", "right")
    assert await known(host, "alice", "right")
    assert not await known(host, "alice", "wrong")
    assert not await known(host, "bob", "right")
    await host.close()


@pytest.fixture
async def decider() -> AsyncIterator[int]:
    """An HTTP service that lets alice in, and publish to her own topics."""

    async def user(found: web.Request) -> web.Response:
        body = await found.json()
        return web.json_response({"ok": body["username"] == "alice" and body["password"] == "right"})

    async def acl(found: web.Request) -> web.Response:
        body = await found.json()
        return web.json_response({"ok": body["topic"].startswith(f"{body['username']}/") and body["acc"] == 2})

    application = web.Application()
    application.router.add_get("/user", user)
    application.router.add_get("/acl", acl)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield int(runner.addresses[0][1])
    await runner.cleanup()


async def test_the_http_plugins_ask_their_service(decider: int) -> None:
    where = {"host": "127.0.0.1", "port": decider}
    host = PluginHost(
        {
            "amqtt.contrib.http.UserAuthHttpPlugin": {**where, "user_uri": "/user"},
            "amqtt.contrib.http.TopicAuthHttpPlugin": {**where, "topic_uri": "/acl"},
        }
    )
    assert await known(host, "alice", "right")
    assert not await known(host, "alice", "wrong")
    session = host.session(request("alice", "right"))
    assert await host.may(session, "publish", "alice/x")
    assert not await host.may(session, "publish", "bob/x")
    assert not await host.may(session, "subscribe", "alice/x")
    await host.close()


async def test_a_plugin_whose_service_is_gone_says_no() -> None:
    host = PluginHost({"amqtt.contrib.http.UserAuthHttpPlugin": {"host": "127.0.0.1", "port": 1}})
    with pytest.raises(Refused):
        await host.verify(request("alice", "right"))
    await host.close()


async def test_the_acl_plugin_decides_about_topics() -> None:
    host = PluginHost(
        {
            "amqtt.plugins.topic_checking.TopicAccessControlListPlugin": {
                "publish_acl": {"alice": ["a/#"]},
                "acl": {"alice": ["b/+"]},
            }
        }
    )
    assert not host.authenticates and host.filters_topics
    assert await host.verify(request("alice", "right")) is None
    session = host.session(request("alice"))
    answers = [
        await host.may(session, action, topic)
        for action, topic in (("publish", "a/x"), ("publish", "b/1"), ("subscribe", "b/+"), ("subscribe", "c/2"))
    ]
    assert answers == [True, False, True, False]
    await host.close()


async def test_plugins_that_cannot_be_loaded_are_named(tmp_path: Path) -> None:
    for wrong in ({"no.such.Plugin": {}}, {"amqtt.plugins.authentication.FileAuthPlugin": {"no_such_option": 1}}):
        with pytest.raises(BadPlugins):
            PluginHost(wrong)
    file = tmp_path / "plugins.json"
    file.write_text("[1]")
    with pytest.raises(BadPlugins):
        PluginHost.read(file)


# --- the gateway's own tokens


def token(algorithm: str = "HS256", key: str = SECRET, **claims: object) -> str:
    return jwt.encode({"sub": "alice", "exp": 4_000_000_000, **claims}, key, algorithm=algorithm)


async def test_a_token_names_its_holder_its_end_and_its_rights() -> None:
    verifier = TokenVerifier(TokenSettings(key=SECRET, algorithms=("HS256",), audience="gateway", issuer="us"))
    found = await verifier.verify(request(None, token(aud="gateway", iss="us", acl={"publish": ["a/#"]})))
    assert found is not None and found.name == "alice" and found.expires_at == 4_000_000_000
    assert found.detail == Policy(name="token of alice", publish=("a/#",))
    assert await verifier.verify(request("alice", "a password")) is None


@pytest.mark.parametrize(
    "bad",
    [
        token(aud="gateway", iss="us", exp=1),
        token(aud="other", iss="us"),
        token(aud="gateway", iss="other"),
        token(aud="gateway"),
        token(key="another secret, also long enough for this", aud="gateway", iss="us"),
        token("HS512", aud="gateway", iss="us"),
        jwt.encode({"sub": "alice", "exp": 4_000_000_000, "aud": "gateway", "iss": "us"}, "", algorithm="none"),
        jwt.encode({"sub": "alice", "aud": "gateway", "iss": "us"}, SECRET, algorithm="HS256"),
        token(aud="gateway", iss="us", sub="a/+"),
        token(aud="gateway", iss="us", sub=""),
    ],
)
async def test_any_other_token_is_refused(bad: str) -> None:
    verifier = TokenVerifier(TokenSettings(key=SECRET, algorithms=("HS256",), audience="gateway", issuer="us"))
    with pytest.raises(Refused):
        await verifier.verify(request(None, bad))


async def test_a_token_is_nobody_elses() -> None:
    verifier = TokenVerifier(TokenSettings(key=SECRET, algorithms=("HS256",)))
    with pytest.raises(Refused):
        await verifier.verify(request("bob", token()))


async def test_shared_and_public_keys_are_never_mixed(tmp_path: Path) -> None:
    file = tmp_path / "jwt.json"
    for algorithms in (["HS256", "RS256"], ["none"], []):
        await asyncio.to_thread(file.write_text, json.dumps({"key": "k", "algorithms": algorithms}))
        with pytest.raises(BadTokenSettings):
            TokenSettings.read(file)
