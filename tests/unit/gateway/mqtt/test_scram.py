from __future__ import annotations

import base64
import hashlib
import hmac

import pytest

from gateway.mqtt.scram import Credential, Exchange, ScramFailed, credential

# RFC 7677, section 3
USER, PASSWORD = "user", "pencil"
SALT = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
FIRST = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
NONCE = b"%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
CHALLENGE = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
FINAL = b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
PROOF = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


def find(name: str) -> Credential | None:
    return credential(PASSWORD, algorithm="sha256", salt=SALT) if name == USER else None


def begun(first: bytes = FIRST, method: str = "SCRAM-SHA-256") -> tuple[Exchange, bytes]:
    exchange = Exchange()
    return exchange, exchange.first(first, method=method, find=find, nonce=NONCE, secret=b"secret")


def test_the_rfcs_own_exchange_comes_out() -> None:
    exchange, challenge = begun()
    assert challenge == CHALLENGE
    assert exchange.final(FINAL) == PROOF
    assert exchange.username == USER


def answer(first_bare: bytes, challenge: bytes, password: str, algorithm: str = "sha256") -> bytes:
    """What a client would send."""
    fields = dict(part.split(b"=", 1) for part in challenge.split(b","))
    salted = hashlib.pbkdf2_hmac(algorithm, password.encode(), base64.b64decode(fields[b"s"]), int(fields[b"i"]))
    key = hmac.digest(salted, b"Client Key", algorithm)
    without = b"c=biws,r=" + fields[b"r"]
    signed = b",".join((first_bare, challenge, without))
    signature = hmac.digest(hashlib.new(algorithm, key).digest(), signed, algorithm)
    return without + b",p=" + base64.b64encode(bytes(a ^ b for a, b in zip(key, signature, strict=True)))


def test_a_wrong_password_and_an_unknown_user_fail_alike() -> None:
    wrong, challenge = begun()
    with pytest.raises(ScramFailed, match="invalid-proof"):
        wrong.final(answer(FIRST[3:], challenge, "pen"))
    unknown_first = FIRST.replace(b"user", b"nobody")
    unknown, made_up = begun(unknown_first)
    assert made_up.count(b",") == challenge.count(b",") and made_up != challenge
    assert begun(unknown_first)[1] == made_up, "the made-up salt stays the same"
    with pytest.raises(ScramFailed, match="invalid-proof"):
        unknown.final(answer(unknown_first[3:], made_up, PASSWORD))


def test_a_credential_of_another_hash_does_not_serve() -> None:
    exchange, challenge = begun(method="SCRAM-SHA-512")
    with pytest.raises(ScramFailed, match="invalid-proof"):
        exchange.final(answer(FIRST[3:], challenge, PASSWORD, "sha512"))


def test_an_exchange_has_one_attempt() -> None:
    exchange, _ = begun()
    with pytest.raises(ScramFailed):
        exchange.final(FINAL.replace(b"p=d", b"p=e"))
    with pytest.raises(ScramFailed):
        exchange.final(FINAL)


def test_commas_and_equal_signs_in_names_are_spelled_out() -> None:
    assert begun(b"n,,n=a=2Cb=3Dc,r=rOprNGfwEbeRWgbNEkqO")[0].username == "a,b=c"


@pytest.mark.parametrize(
    "first",
    [
        b"",
        b"n,,",
        b"p=tls-unique,,n=user,r=rOprNGfwEbeRWgbNEkqO",
        b"n,a=other,n=user,r=rOprNGfwEbeRWgbNEkqO",
        b"n,,n=us=er,r=rOprNGfwEbeRWgbNEkqO",
        b"n,,n=,r=rOprNGfwEbeRWgbNEkqO",
        b"n,,n=user,r=short",
        b"n,,m=x,n=user,r=rOprNGfwEbeRWgbNEkqO",
        b"n,,n=\xff,r=rOprNGfwEbeRWgbNEkqO",
    ],
)
def test_a_malformed_first_message_fails(first: bytes) -> None:
    with pytest.raises(ScramFailed):
        begun(first)


@pytest.mark.parametrize(
    "final",
    [
        b"",
        FINAL.rpartition(b",p=")[0],
        FINAL.replace(b"c=biws", b"c=eSws"),
        FINAL.replace(b"r=rOpr", b"r=xOpr"),
        FINAL.replace(b",p=dHzb", b",p=!"),
        FINAL[:-20] + b"=",
    ],
)
def test_a_malformed_final_message_fails(final: bytes) -> None:
    exchange, _ = begun()
    with pytest.raises(ScramFailed):
        exchange.final(final)
