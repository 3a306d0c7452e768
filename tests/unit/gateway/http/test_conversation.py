"""One HTTP connection, byte by byte."""

from __future__ import annotations

import base64
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http.problems import problem_of
from gateway.ports import Fate, Limits, NotAcknowledged, Refused
from gateway.receipts import refused
from tests.unit.gateway.http.talking import MemoryDoor, Talk, post


def basic(name: str, password: str) -> str:
    return "Authorization: Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


def test_a_message_is_answered_once_it_is_durable_and_its_body_is_untouched() -> None:
    talk = Talk(MemoryDoor(manual=True))
    talk.say(post("/topics/plant/7", b"\x00\xff 21.5"))
    talk.door.settle()  # who it is
    assert talk.door.published == [("", talk.door.published[0][1], b"\x00\xff 21.5")]
    assert not talk.link.written and not talk.link.reading
    talk.door.settle()  # the append
    status, headers, body = talk.answer()
    assert (status, body) == (200, {"topic": "plant/7", "outcome": "stored"})
    assert headers["content-type"] == "application/json" and "date" in headers
    assert talk.link.closed is None and talk.link.reading


@pytest.mark.parametrize(
    ("fate", "status", "said"),
    [
        (Fate(duplicate=True, window=60.0), 200, {"outcome": "stored", "duplicate": True, "id": "a", "window": 60.0}),
        (Fate(outcome="accepted"), 202, {"outcome": "accepted", "id": "a", "window": 0.0}),
        (Fate(outcome="sampled-out"), 200, {"outcome": "sampled-out", "id": "a", "window": 0.0}),
        (
            Fate(outcome="dead-letter", reason="schema", detail="r: no"),
            202,
            {"outcome": "dead-letter", "reason": "schema", "detail": "r: no", "id": "a", "window": 0.0},
        ),
    ],
    ids=lambda value: value.outcome if isinstance(value, Fate) else "",
)
def test_what_became_of_a_message_is_said(fate: Fate, status: int, said: dict[str, object]) -> None:
    talk = Talk()
    talk.door.fate = fate
    talk.say(post("/topics/t", b"x", "Sluice-Message-Id: a"))
    assert talk.answer()[0] == status
    assert talk.answer()[2] == {"topic": "t", **said}


@pytest.mark.parametrize(
    ("code", "status", "reason"),
    [
        (0x85, 403, "client-id"),
        (0x86, 401, "credentials"),
        (0x87, 403, "denied"),
        (0x88, 503, "unavailable"),
        (0x8A, 403, "banned"),
        (0x90, 400, "topic"),
        (0x96, 429, "rate"),
        (0x9F, 429, "guesses"),
    ],
)
def test_a_refusal_has_a_status_and_says_when_to_come_again(code: int, status: int, reason: str) -> None:
    problem = problem_of(Refused(code, "no", after=1.2, why="disabled"))
    assert (problem.status, problem.reason, problem.why) == (status, reason, "disabled")
    assert dict(problem.headers).get(b"Retry-After") == (b"2" if status in (429, 503) else None)
    assert (b"WWW-Authenticate" in dict(problem.headers)) == (status == 401)


def test_an_unknown_outcome_is_no_success() -> None:
    talk = Talk(MemoryDoor(manual=True))
    talk.say(post("/topics/t", b"x"))
    talk.door.settle()
    talk.door.open[0][0].fail(NotAcknowledged("the producer was rebuilt"))
    status, headers, body = talk.answer()
    assert (status, body["reason"]) == (504, "unknown") and headers["retry-after"] == "1"


def test_what_is_not_durable_in_time_is_unknown_and_a_late_outcome_is_not_listened_to() -> None:
    talk = Talk(MemoryDoor(manual=True), answer=30.0)
    talk.say(post("/topics/t", b"x"))
    talk.door.settle()
    talk.wait(29.0)
    assert not talk.link.written
    talk.wait(2.0)
    assert talk.answer()[0] == 504 and talk.link.closed is True
    talk.door.settle()
    assert talk.statuses() == [504]


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@given(data=st.data())
def test_bytes_may_come_in_any_pieces(chunked: bool, data: st.DataObject) -> None:
    whole = b"".join(
        post(f"/topics/t/{number}", b"body %d" % number * number, basic("dev", "secret"), chunked=chunked)
        for number in range(4)
    )
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=12)))
    talk = Talk(MemoryDoor())
    for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        if end > start:
            talk.say(whole[start:end])
    assert talk.statuses() == [200] * 4
    assert [(topic.topic, body) for _, topic, body in talk.door.published] == [
        (f"t/{number}", b"body %d" % number * number) for number in range(4)
    ]


@given(st.lists(st.one_of(st.binary(max_size=60), st.sampled_from([post("/topics/t", b"x"), b"\r\n\r\n"])), max_size=8))
def test_rubbish_ends_its_own_connection_at_most(pieces: list[bytes]) -> None:
    talk = Talk()
    for piece in pieces:
        talk.say(piece)
    talk.wait(100.0)
    assert talk.conversation.closed and talk.link.closed is not None
    assert all(status in (200, 400, 404, 405, 408, 431, 501) for status in talk.statuses())


def test_mutated_requests_never_break_the_conversation() -> None:
    chance = random.Random(11)
    sample = post("/topics/a/b?qos=1&retain=true", b"payload", basic("dev", "secret"), "Sluice-Message-Id: 7")
    for _ in range(3000):
        broken = bytearray(sample)
        for _ in range(chance.randint(1, 4)):
            place = chance.randrange(len(broken))
            broken[place : place + chance.randint(0, 3)] = chance.randbytes(chance.randint(0, 3))
        talk = Talk().say(bytes(broken))
        talk.wait(100.0)
        assert talk.conversation.closed
        talk.statuses()


# -- who it is --------------------------------------------------------------------------------------------------------


def test_a_credential_is_looked_up_once_for_a_connection_while_nothing_changes() -> None:
    talk = Talk()
    request = post("/topics/t", b"x", basic("dev", "secret"))
    talk.say(request, request)
    assert talk.statuses() == [200, 200] and len(talk.door.knocks) == 1
    talk.say(post("/topics/t", b"x", basic("dev", "wrong")))
    assert talk.statuses()[-1] == 401 and len(talk.door.knocks) == 2
    talk.say(request)
    assert talk.statuses()[-1] == 200 and len(talk.door.knocks) == 3, "a refusal forgets who was there before"
    talk.say(post("/topics/t", b"x"))
    assert talk.door.knocks[-1].username is None and talk.door.published[-1][0] == ""


def test_a_change_in_the_registry_is_in_force_for_the_next_message_even_while_its_body_comes() -> None:
    talk = Talk()
    request = post("/topics/t", b"x", basic("dev", "secret"))
    talk.say(request)
    talk.say(request[:-1])  # known again, the body is not whole
    del talk.door.users["dev"]
    talk.door.epoch += 1
    talk.say(request[-1:])
    assert talk.statuses() == [200, 401] and len(talk.door.published) == 1


def test_a_wrong_password_and_an_unknown_name_are_answered_after_the_same_time() -> None:
    for name, seconds in (("dev", 0.1), ("nobody", 0.0)):
        talk = Talk(MemoryDoor(manual=True), refusing=0.25)
        talk.conversation.receive(post("/topics/t", b"x", basic(name, "wrong")))
        talk.moment.monotonic += seconds  # what the look-up took
        talk.door.settle()
        assert not talk.link.written
        (left,) = talk.link.wakes
        assert seconds + left == pytest.approx(0.25)
        talk.wake()
        status, headers, body = talk.answer()
        assert (status, body["reason"]) == (401, "credentials") and "Basic" in str(headers)
        assert body["detail"] == "unknown user name or wrong password"


@pytest.mark.parametrize(
    "value",
    ["Basic !!!", "Basic bm9jb2xvbg==", "Bearer abc", "Digest x", "Basic /zo=", ""],
    ids=lambda value: value[:8],
)
def test_a_credential_that_is_none_asks_nobody(value: str) -> None:
    talk = Talk()
    talk.say(post("/topics/t", b"x", f"Authorization: {value}" if value else "Authorization: x", "X: y"))
    assert talk.answer()[0] == 401 and not talk.door.knocks


def test_a_bearer_token_is_a_password_without_a_name() -> None:
    talk = Talk()
    talk.say(post("/topics/t", b"x", "Authorization: bearer aa.bb.cc"))
    (knock,) = talk.door.knocks
    assert (knock.username, knock.password) == (None, b"aa.bb.cc") and knock.peer.address == "192.0.2.7:4711"


def test_web_pages_are_not_served() -> None:
    talk = Talk()
    talk.say(post("/topics/t", b"x", "Origin: http://evil.example"))
    assert talk.answer()[0] == 403 and not talk.door.published


# -- limits -----------------------------------------------------------------------------------------------------------


def test_a_body_beyond_the_limit_is_refused_before_it_is_read() -> None:
    for request in (post("/topics/t", b"x" * 1001), post("/topics/t", b"x" * 1001, chunked=True)):
        talk = Talk(MemoryDoor())
        talk.say(request)
        assert talk.answer()[0] == 413 and not talk.door.published
    talk = Talk()
    talk.say(post("/topics/t", b"x" * 1000), post("/topics/t", b"x" * 1000, chunked=True))
    assert talk.statuses() == [200, 200]
    talk = Talk()
    talk.say(b"POST /topics/t HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999\r\n\r\n")
    assert talk.answer()[0] == 413 and talk.link.closed is True


def test_who_waits_for_100_is_told_it_only_once_the_body_is_wanted() -> None:
    head = b"POST /topics/t HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n"
    talk = Talk()
    talk.say(head + b"\r\n")
    assert talk.link.written == b"HTTP/1.1 100 \r\n\r\n"
    talk.say(b"abc")
    assert talk.statuses() == [100, 200]
    talk = Talk()
    talk.say(head + basic("dev", "wrong").encode() + b"\r\n\r\n")
    assert talk.statuses() == [401] and talk.link.closed is True


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"POST /topics/t HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 17_000 + b"\r\n\r\n", 431),
        (b"POST /topics/t HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 17_000, 431),
        (b"POST /topics/t HTTP/1.1\r\nHost: x\r\n" + b"A: a\r\n" * 100 + b"\r\n", 431),
        (
            b"POST /topics/t HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (b"POST /topics/t HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"POST /topics/t HTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"\x10\x0e\x00\x04MQTT\x04\x02\x00\x3c\x00\x02d1", 400),
    ],
    ids=["long", "never-ending", "many", "two-lengths", "gzip", "no-host", "tls", "mqtt"],
)
def test_heads_that_are_not_taken(request_: bytes, status: int) -> None:
    talk = Talk()
    talk.say(request_)
    if not talk.link.written:
        talk.wait(6.0)
        assert talk.statuses() == [408]
        return
    assert talk.statuses()[0] == status
    assert not talk.door.knocks


def test_a_head_that_drips_and_a_silent_peer_are_cut_off() -> None:
    talk = Talk(head=5.0)
    for byte in post("/topics/t", b"x")[:40]:
        talk.say(bytes([byte])).wait(0.2)
    assert talk.statuses() == [408] and talk.link.closed is True
    silent = Talk(head=5.0).wait(6.0)
    assert silent.link.closed is not None


def test_a_body_that_drips_is_cut_off() -> None:
    talk = Talk(body=60.0)
    talk.say(post("/topics/t", b"x" * 900)[:-890])
    for _ in range(61):
        talk.wait(1.0)
        if talk.conversation.closed:
            break
        talk.say(b"x")
    assert talk.statuses() == [408] and not talk.door.published


def test_a_kept_connection_may_be_silent_for_a_while() -> None:
    talk = Talk(head=5.0, idle=60.0)
    talk.say(post("/topics/t", b"x")).wait(50.0)
    assert talk.link.closed is None
    talk.say(post("/topics/t", b"x"))
    assert talk.statuses() == [200, 200]
    talk.wait(61.0)
    assert talk.link.closed is False


def test_requests_sent_ahead_wait_unread_and_keep_their_order() -> None:
    talk = Talk(MemoryDoor(manual=True))
    talk.say(b"".join(post(f"/topics/t/{number}", b"x") for number in range(3)))
    assert not talk.link.reading and len(talk.door.open) == 1
    talk.door.settle()
    for number in range(3):
        assert len(talk.door.published) == number + 1 and not talk.link.reading
        talk.door.settle()
    assert [body["topic"] for _, _, body in talk.answers()] == ["t/0", "t/1", "t/2"]
    assert talk.link.reading


def test_a_turn_takes_a_bounded_share_of_a_read() -> None:
    talk = Talk(MemoryDoor())
    talk.door.limits = Limits(packet_size=10_000)
    request = b"POST /topics/t HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 3000
    talk.conversation.receive(request)
    assert talk.link.wakes == [0.0] and not talk.link.reading
    talk.wake()
    talk.say(b"0\r\n\r\n")
    assert talk.statuses() == [200] and talk.door.published[0][2] == b"x" * 3000


def test_who_leaves_answers_unread_is_not_read_from_and_let_go() -> None:
    talk = Talk(stalled=60.0)
    talk.link.writable = False
    talk.conversation.writing_paused()
    talk.say(post("/topics/t", b"x"))
    assert not talk.door.published and not talk.link.reading
    talk.link.writable = True
    talk.conversation.writing_resumed()
    assert talk.statuses() == [200]
    talk.link.writable = False
    talk.conversation.writing_paused()
    talk.wait(61.0)
    assert talk.link.closed is False


# -- beside publishing ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "status", "allow"),
    [
        ("GET /topics/t", 405, "POST"),
        ("PUT /topics/t", 405, "POST"),
        ("OPTIONS /topics/t", 405, "POST"),
        ("POST /healthz", 405, "GET, HEAD"),
        ("GET /", 404, None),
        ("POST /topic/t", 404, None),
        ("POST /topics", 404, None),
        ("GET /healthz", 200, None),
        ("GET http://gateway:8085/healthz", 200, None),
        ("HEAD /healthz", 200, None),
        ("CONNECT gateway:80", 400, None),
        ("POST *", 400, None),
    ],
)
def test_there_is_nothing_else_here(line: str, status: int, allow: str | None) -> None:
    talk = Talk()
    talk.say(f"{line} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    found, headers, _ = talk.answer(line.split()[0].encode())
    assert (found, headers.get("allow")) == (status, allow)
    assert talk.link.closed is None, "the next request is welcome"
    assert not talk.door.knocks


def test_health_says_whether_messages_are_taken() -> None:
    talk = Talk()
    talk.door.available = False
    talk.say(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert talk.answer(b"GET")[0] == 503


def test_an_upgrade_is_not_offered() -> None:
    talk = Talk()
    talk.say(post("/topics/t", b"x", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c"), post("/topics/u", b"y"))
    assert talk.statuses() == [200, 200]


def test_an_old_client_is_answered_and_closed() -> None:
    talk = Talk()
    talk.say(b"POST /topics/t HTTP/1.0\r\nContent-Length: 1\r\n\r\nx")
    assert talk.statuses() == [200] and talk.link.closed is True


def test_a_stopping_server_waits_for_what_is_under_way_and_takes_nothing_new() -> None:
    talk = Talk(MemoryDoor(manual=True))
    talk.say(post("/topics/t", b"x") + post("/topics/t", b"y"))
    talk.door.settle()
    talk.conversation.close(0x8B, "server shutting down")
    assert talk.link.closed is None
    talk.door.settle()
    assert talk.statuses() == [200] and talk.link.closed is True and len(talk.door.published) == 1
    idle = Talk().say(post("/topics/t", b"x"))
    idle.conversation.close(0x8B, "server shutting down")
    assert idle.statuses() == [200] and idle.link.closed is False
    busy = Talk().say(post("/topics/t", b"xyz")[:-2])
    busy.conversation.close(0x8B, "server shutting down")
    assert busy.statuses() == [503]


def test_refusals_are_reported_by_reason() -> None:
    talk = Talk()
    talk.door.denied.add("secret")
    talk.say(post("/topics/secret", b"x"), post("/topics/a%2B", b"x"))
    assert [kind for kind, *_ in talk.reports] == ["http-denied", "http-topic"]
    assert (talk.conversation.refused_messages, talk.conversation.received_messages) == (1, 0)


def test_after_a_refusal_the_next_request_waits() -> None:
    """Mistakes are cheap to make: a peer that makes one after the other would have all of the gateway's time."""
    talk = Talk(refusing=0.25)
    talk.door.denied.add("no")
    talk.conversation.receive(post("/topics/no") * 2 + b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + post("/topics/yes"))
    assert talk.statuses() == [403] and talk.link.wakes == [0.25]
    talk.wake()
    assert talk.statuses() == [403, 403, 404, 200] and talk.moment.monotonic == 100.75
    talk.conversation.receive(post("/topics/no"))
    talk.conversation.close(0x8B, "server shutting down")
    assert talk.statuses()[4:] == [403] and talk.link.closed is not None, "nothing is said that was not asked"


def test_who_guessed_too_often_is_told_so_as_slowly_as_any_other_wrong_guess() -> None:
    talk = Talk(refusing=0.25)
    talk.door.visit = lambda knock: refused(Refused(0x97, "too many wrong guesses", after=2.0))  # type: ignore[method-assign]
    talk.conversation.receive(post("/topics/a", b"x", "Authorization: Basic ZGV2Om5v") * 2)
    assert talk.statuses() == [] and talk.link.wakes == [0.25]
    talk.wake()
    assert talk.statuses() == [429, 429] and talk.moment.monotonic == 100.5
