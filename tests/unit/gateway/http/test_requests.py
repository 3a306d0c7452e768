"""What the head of a request asks for."""

from __future__ import annotations

import base64
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http.credentials import credentials
from gateway.http.port import Publication
from gateway.http.problems import Problem
from gateway.http.requests import publication, split_target
from gateway.mqtt.errors import Malformed
from gateway.mqtt.properties import text_of
from gateway.mqtt.topics import valid_name
from gateway.ports import PublishProperties


def asked(target: str, *headers: tuple[str, str]) -> Publication:
    path, query = split_target(target.encode())
    return publication(path, query, [(name.lower().encode(), value.encode()) for name, value in headers])


def refused(target: str, *headers: tuple[str, str]) -> str:
    with pytest.raises(Problem) as caught:
        asked(target, *headers)
    assert caught.value.status == 400
    return caught.value.reason


def test_a_bare_request_is_quality_1_and_says_nothing_else() -> None:
    assert asked("/topics/a/b") == Publication(topic="a/b", qos=1, retain=False, properties=None)


@pytest.mark.parametrize(
    ("target", "topic"),
    [
        ("/topics/a%2Fb", "a/b"),
        ("/topics//a//", "/a//"),
        ("/topics/%C3%BCber/25%25", "über/25%"),
        ("/topics/a%3Fb", "a?b"),
        ("http://gateway:8085/topics/a", "a"),
        ("/topics/$delayed/5/a", "$delayed/5/a"),
        ("/topics/%E4%BD%A0", "你"),
    ],
)
def test_the_topic_is_the_path_decoded_once(target: str, topic: str) -> None:
    assert asked(target).topic == topic


@pytest.mark.parametrize(
    "topic",
    ["", "a/+", "#", "a%23", "%2B", "a%00b", "%FF", "%C3", "%0A", "$SYS/x", "%24share/g/t", "%zz", "a%4", "/" * 300],
)
def test_what_is_no_topic_name_is_refused(topic: str) -> None:
    assert refused("/topics/" + topic) == "topic"


@given(st.text(min_size=1, max_size=40))
def test_every_topic_that_mqtt_has_can_be_said(topic: str) -> None:
    try:
        fine = valid_name(text_of(topic.encode())) and not topic.startswith("$")
    except (Malformed, UnicodeEncodeError):
        fine = False
    if fine:
        assert asked("/topics/" + quote(topic, safe="/")).topic == topic
    elif topic.isprintable() and not topic.startswith("$"):
        assert refused("/topics/" + quote(topic, safe="/")) == "topic"


def test_what_mqtt_has_beside_a_payload_comes_from_query_and_headers() -> None:
    correlation = base64.urlsafe_b64encode(b"\xfb\xff\x00").decode().rstrip("=")
    found = asked(
        f"/topics/a?qos=0&retain=true&messageExpiry=60&responseTopic=back%2Fto%2Fme&correlationData={correlation}",
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Sluice-User-Property", "city=Zürich"),
        ("Sluice-User-Property", "sum = 1=1 "),
        ("Sluice-Message-Id", "order-7"),
    )
    assert (found.qos, found.retain, found.message_id) == (0, True, "order-7")
    assert found.properties == PublishProperties(
        message_expiry=60,
        content_type="text/plain; charset=utf-8",
        response_topic="back/to/me",
        correlation_data=b"\xfb\xff\x00",
        user=(("city", "Zürich"), ("sum", "1=1"), ("sluice.message.id", "order-7")),
    )


def test_base64_may_be_of_either_alphabet() -> None:
    for text in ("-_8A", "%2B/8A", "+/8A", "+%2F8A"):
        properties = asked(f"/topics/a?correlationData={text}").properties
        assert properties is not None and properties.correlation_data == b"\xfb\xff\x00"


def test_a_content_type_that_nobody_chose_is_not_taken_for_one() -> None:
    form = ("Content-Type", "application/x-www-form-urlencoded")
    assert asked("/topics/a", form).properties is None
    chosen = asked("/topics/a?contentType=application%2Fx-www-form-urlencoded", form).properties
    assert chosen is not None and chosen.content_type == form[1]


def test_an_idempotency_key_is_a_message_id() -> None:
    for value in ('"8e03978e-40d5"', "8e03978e-40d5"):
        assert asked("/topics/a", ("Idempotency-Key", value)).message_id == "8e03978e-40d5"
    assert asked("/topics/a", ("Idempotency-Key", r'"a\"b\\"')).message_id == 'a"b\\'
    assert refused("/topics/a", ("Idempotency-Key", "a"), ("Sluice-Message-Id", "a")) == "header"


@pytest.mark.parametrize(
    "query",
    [
        "qos=2",
        "qos=",
        "qos=1&qos=1",
        "retain=yes",
        "retian=true",
        "messageExpiry=-1",
        "messageExpiry=4294967296",
        "messageExpiry=1e3",
        "messageExpiry=٣",
        "correlationData=!",
        "novalue",
        "contentType=%FF",
        "&".join(f"a{n}=1" for n in range(30)),
    ],
)
def test_a_query_that_is_not_understood_is_refused_by_name(query: str) -> None:
    assert refused(f"/topics/a?{quote(query, safe='=&%!')}") in ("query", "header")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Sluice-Message-Id", ""),
        ("Sluice-Message-Id", "x" * 256),
        ("Sluice-Message-Id", "a\x01b"),
        ("Sluice-User-Property", "no equals sign"),
        ("Sluice-User-Property", "=value"),
        ("Content-Type", "text/\x7f"),
    ],
)
def test_a_header_that_is_not_understood_is_refused(name: str, value: str) -> None:
    assert refused("/topics/a", (name, value)) == "header"


def test_a_header_that_decides_is_given_once() -> None:
    assert refused("/topics/a", ("Sluice-Message-Id", "a"), ("Sluice-Message-Id", "b")) == "header"


def test_a_password_may_hold_colons_and_any_byte() -> None:
    assert credentials(b"bAsIc " + base64.b64encode("dév:a:b".encode() + b"\xff")) == ("dév", b"a:b\xff")
    assert credentials(None) == (None, None)
