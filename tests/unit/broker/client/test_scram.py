"""SCRAM against the RFCs' own examples, and against servers that lie."""

import base64

import pytest

from broker.client.administration.scram import ScramClient, plain
from broker.client.errors import AuthenticationFailed

# RFC 7677, section 3
FIRST = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
CHALLENGE = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
FINAL = b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
OUTCOME = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


def client() -> ScramClient:
    return ScramClient("SCRAM-SHA-256", "user", "pencil", nonce=lambda: "rOprNGfwEbeRWgbNEkqO")


def test_the_exchange_is_that_of_rfc_7677() -> None:
    exchange = client()
    assert exchange.first() == FIRST
    assert exchange.final(CHALLENGE) == FINAL
    exchange.verify(OUTCOME)


@pytest.mark.parametrize("outcome", [b"e=invalid-proof", b"v=" + base64.b64encode(b"x" * 32), b"v=!", b""])
def test_a_server_that_doesnt_know_the_password_is_refused(outcome: bytes) -> None:
    exchange = client()
    exchange.final(CHALLENGE)
    with pytest.raises(AuthenticationFailed):
        exchange.verify(outcome)


@pytest.mark.parametrize(
    "challenge",
    [
        b"r=another,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
        b"r=rOprNGfwEbeRWgbNEkqO,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
        b"r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=1",
        b"r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=99999999",
        b"r=rOprNGfwEbeRWgbNEkqOx,s=***,i=4096",
        b"e=unknown-user",
        b"\xff",
    ],
)
def test_a_challenge_that_cant_be_trusted_is_refused(challenge: bytes) -> None:
    with pytest.raises(AuthenticationFailed):
        client().final(challenge)


def test_names_are_escaped() -> None:
    exchange = ScramClient("SCRAM-SHA-512", "a=b,c", "p", nonce=lambda: "n")
    assert exchange.first() == b"n,,n=a=3Db=2Cc,r=n"
    assert plain("u", "p") == b"\0u\0p"
