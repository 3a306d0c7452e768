"""SCRAM against the RFC's own example, and against everything a peer may get wrong."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable
from typing import Any

import pytest

from broker.cluster import scram
from broker.cluster.metadata import ScramCredential
from tests.unit.broker.cluster.scram_client import ScramClient

KEPT = {name: scram.credential("pencil", name) for name in scram.MECHANISMS}


def exchange(mechanism: str) -> scram.Exchange:
    def find(user: str, wanted: str) -> ScramCredential | None:
        return KEPT[wanted] if user == "al,i=ce" else None

    return scram.Exchange(mechanism, find, scram.Decoys(b"s" * 32))


ESCAPED = "al=2Ci=3Dce"


@pytest.mark.parametrize("mechanism", sorted(scram.MECHANISMS))
def test_the_right_password_signs_in_and_the_server_proves_itself(mechanism: str) -> None:
    client, server = ScramClient(ESCAPED, "pencil", mechanism), exchange(mechanism)
    done = server.final(client.final(server.first(client.first())))
    assert done.user == "al,i=ce"
    assert done.message == b"v=" + base64.b64encode(client.verifier)


@pytest.mark.parametrize(("user", "password"), [(ESCAPED, "pencils"), ("nobody", "pencil"), (ESCAPED, "")])
def test_a_wrong_password_and_an_unknown_user_fail_alike(user: str, password: str) -> None:
    client, server = ScramClient(user, password, "SCRAM-SHA-256"), exchange("SCRAM-SHA-256")
    with pytest.raises(scram.AuthenticationFailed) as failure:
        server.final(client.final(server.first(client.first())))
    assert "invalid credentials" in str(failure.value)


def test_an_unknown_user_costs_what_a_wrong_password_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same hashes and the same comparison in constant time, in the same order: the time tells nothing."""
    work: list[str] = []

    def counted(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            work.append(name)
            return real(*arguments)

        return call

    messages = {}
    for user in (ESCAPED, "nobody"):
        client, server = ScramClient(user, "wrong", "SCRAM-SHA-256"), exchange("SCRAM-SHA-256")
        messages[user] = (server, client.first(), client)
    done = {}
    for user, (server, first, client) in messages.items():
        with monkeypatch.context() as watched:
            watched.setattr(scram.hmac, "digest", counted("digest", hmac.digest))
            watched.setattr(scram.hmac, "compare_digest", counted("compare", hmac.compare_digest))
            asked = server.first(first)
        final = client.final(asked)
        with monkeypatch.context() as watched:
            watched.setattr(scram.hmac, "digest", counted("digest", hmac.digest))
            watched.setattr(scram.hmac, "compare_digest", counted("compare", hmac.compare_digest))
            with pytest.raises(scram.AuthenticationFailed):
                server.final(final)
        done[user], work[:] = list(work), []
    assert done[ESCAPED] == done["nobody"]
    assert done[ESCAPED].count("compare") == 1


def test_an_unknown_user_always_gets_the_same_salt() -> None:
    salts = {exchange("SCRAM-SHA-512").first(b"n,,n=ghost,r=x").split(b",")[1] for _ in range(3)}
    assert len(salts) == 1


def test_the_example_of_rfc_7677_passes() -> None:
    salt = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
    salted = hashlib.pbkdf2_hmac("sha256", b"pencil", salt, 4096)
    kept = scram.from_salted_password(salted, salt, "SCRAM-SHA-256", 4096)
    server = scram.Exchange(
        "SCRAM-SHA-256", lambda user, _: kept, scram.Decoys(), nonce=lambda: "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    )
    assert server.first(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO") == (
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    )
    done = server.final(
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    )
    assert done.message == b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"n,,",
        b"n,,n=alice",
        b"p=tls-unique,,n=alice,r=x",
        b"n,,m=ext,n=alice,r=x",
        b"\xff\xfe",
        b"n,,n=a=41,r=x",
        b"n,a=bob,n=alice,r=x",
    ],
)
def test_a_malformed_first_message_is_refused(message: bytes) -> None:
    with pytest.raises(scram.AuthenticationFailed):
        exchange("SCRAM-SHA-256").first(message)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.replace(b"r=clientnonce", b"r=xlientnonce"),
        lambda m: m.replace(b",p=", b"x,p="),
        lambda m: m[:-6],
        lambda m: b"",
    ],
)
def test_a_tampered_final_message_is_refused(change) -> None:  # type: ignore[no-untyped-def]  # a lambda of bytes
    client, server = ScramClient(ESCAPED, "pencil", "SCRAM-SHA-256"), exchange("SCRAM-SHA-256")
    message = change(client.final(server.first(client.first())))
    with pytest.raises(scram.AuthenticationFailed):
        server.final(message)


def test_a_client_that_repeats_its_nonce_as_old_librdkafka_does_signs_in_as_at_kafka() -> None:
    client, server = ScramClient(ESCAPED, "pencil", "SCRAM-SHA-256"), exchange("SCRAM-SHA-256")
    first = server.first(client.first())
    sent = first.decode().split(",")[0].removeprefix("r=")
    assert server.final(client.final(first, nonce=f"clientnonce{sent}")).user == "al,i=ce"


def test_a_proof_over_another_nonce_than_the_servers_is_refused() -> None:
    client, server = ScramClient(ESCAPED, "pencil", "SCRAM-SHA-256"), exchange("SCRAM-SHA-256")
    with pytest.raises(scram.AuthenticationFailed):
        server.final(client.final(server.first(client.first()), nonce="clientnonce"))


def test_a_nonce_of_another_exchange_is_refused() -> None:
    client, server = ScramClient(ESCAPED, "pencil", "SCRAM-SHA-256"), exchange("SCRAM-SHA-256")
    replayed = client.final(server.first(client.first()))
    other = exchange("SCRAM-SHA-256")
    other.first(client.first())
    with pytest.raises(scram.AuthenticationFailed):
        other.final(replayed)


def test_a_final_message_without_a_first_is_refused() -> None:
    with pytest.raises(scram.AuthenticationFailed):
        exchange("SCRAM-SHA-256").final(b"c=biws,r=x,p=eA==")
