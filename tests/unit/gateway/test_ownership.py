"""Whose a session is: every reader of the log comes to the same owner, whatever was written late."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from gateway.contract import StoredSession, decode, encode
from gateway.sessions.ownership import Ownership, digest, taking

KEY = b"x"


def record(gateway: str, claim: int, **more: object) -> StoredSession:
    return replace(
        StoredSession(client_id="x", owner="", gateway=gateway, expiry=60, claim=claim),
        **more,  # type: ignore[arg-type]  # a test's
    )


def read(*values: bytes | None) -> tuple[list[bool], str]:
    """(which of them stand, whose the session is in the end)."""
    ownership = Ownership()
    ownership.started()
    return [ownership.stands(KEY, each) for each in values], ownership.owner(KEY)


def test_of_two_that_take_one_session_the_first_has_it() -> None:
    released = record("a", 1, released=True)
    value = encode(released)
    b = encode(taking(released, value, "x", "b", 2))
    c = encode(taking(released, value, "x", "c", 3))
    assert read(value, b, c) == ([True, True, False], "b")
    assert read(value, c, b) == ([True, True, False], "c")


def test_what_a_gateway_writes_of_a_session_that_it_lost_changes_nothing() -> None:
    kept = encode(record("a", 1))
    taken = encode(taking(record("a", 1), kept, "x", "b", 2))
    late = encode(record("a", 1, released=True))
    assert read(kept, taken, late, encode(record("b", 2)), late) == ([True, True, False, True, False], "b")


def test_a_session_that_was_let_go_of_meanwhile_is_looked_at_again() -> None:
    kept, released = encode(record("a", 1)), encode(record("a", 1, released=True))
    assert read(kept, released, encode(taking(record("a", 1), kept, "x", "b", 2))) == ([True, True, False], "a")


def test_nobody_takes_what_has_ended() -> None:
    released = encode(record("a", 1, released=True))
    late = encode(taking(decode(StoredSession, released), released, "x", "b", 2))
    assert read(released, None, late) == ([True, True, False], "")


def test_a_reader_of_a_compacted_log_believes_what_is_left() -> None:
    released = encode(record("a", 1, released=True))
    ownership = Ownership()
    assert ownership.stands(KEY, encode(taking(decode(StoredSession, released), released, "x", "b", 2)))
    assert ownership.owner(KEY) == "b"


def test_what_nobody_had_is_the_first_takers() -> None:
    b, c = encode(taking(None, None, "x", "b", 2)), encode(taking(None, None, "x", "c", 3))
    assert read(b, c, encode(record("c", 3)), encode(record("b", 2))) == ([True, False, False, True], "b")


def test_what_is_unreadable_stands_and_is_nobodys() -> None:
    assert read(b"[1]") == ([True], "") and read(b"rubbish", encode(record("a", 1))) == ([True, True], "a")


@given(st.lists(st.tuples(st.sampled_from(("take", "write", "let go", "end")), st.sampled_from("abc"), st.booleans())))
def test_readers_with_a_copy_and_without_agree(moves: list[tuple[str, str, bool]]) -> None:
    """And a session passes from owner to owner only after it was let go of, or by a take that names what stands."""
    log: list[bytes | None] = []
    first = Ownership()
    first.started()
    standing: bytes | None = None
    seen: dict[str, bytes | None] = dict.fromkeys("abc")  # what each gateway has read last
    for number, (kind, name, fresh) in enumerate(moves):
        if fresh:
            seen[name] = standing
        known = seen[name]
        value: bytes | None
        if kind == "take":
            value = encode(taking(decode(StoredSession, known) if known else None, known, "x", name, number))
        else:
            value = None if kind == "end" else encode(record(name, number, released=kind == "let go"))
        owner = first.owner(KEY)
        if first.stands(KEY, value):
            assert value is None or kind == "take" or owner in ("", name)
            assert kind != "take" or digest(known) == digest(standing)
            standing = value
        log.append(value)
    later = Ownership()
    later.started()
    for value in log:
        later.stands(KEY, value)
    assert later.owner(KEY) == first.owner(KEY)


def test_who_missed_how_a_session_came_to_its_owner_believes_the_owner() -> None:
    """It has no copy, and of the owner's records the log had none any more when it started: only one that came late."""
    late, value = encode(record("b", 2, released=True)), encode(record("c", 3))
    ownership = Ownership()
    assert ownership.stands(KEY, late)
    ownership.started()
    assert not ownership.stands(KEY, encode(taking(record("c", 3), value, "x", "d", 5)))
    assert ownership.stands(KEY, encode(record("d", 5))) and ownership.owner(KEY) == "d"
    assert not ownership.stands(KEY, encode(record("e", 6)))
