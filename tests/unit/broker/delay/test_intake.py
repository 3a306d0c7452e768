"""What a run of records changes: cancellations see what stands before them in the same run."""

from __future__ import annotations

from broker.client.records import Record
from broker.delay.entry import Position
from broker.delay.intake import Intake, take_in

NOW = 1_800_000_000_000


def record(offset: int, key: bytes | None = b"k", **headers: str) -> Record:
    pairs = tuple((f"sluice.{name.replace('_', '.')}", text.encode()) for name, text in headers.items())
    return Record("sluice.delay", 0, offset, NOW, key, b"v", pairs)


def delivery(offset: int, identity: str, key: bytes | None = b"k") -> Record:
    return record(offset, key, deliver_topic="orders", deliver_after="1h", message_id=identity)


def run(*records: Record, stored: dict[int, tuple[bytes | None, str]] | None = None) -> Intake:
    held = stored or {}
    return take_in(
        records,
        Position(next=records[0].offset, topic="t"),
        matching=lambda key, identity: [row for row, found in held.items() if found == (key, identity)],
        holds=held.__contains__,
        refusal=lambda target: None,
    )


def test_a_cancellation_takes_back_what_is_stored_and_what_came_before_it_in_the_run() -> None:
    found = run(delivery(5, "a"), record(6, deliver_cancel="a"), delivery(7, "a"), stored={2: (b"k", "a")})
    assert (list(found.put), found.removed, found.cancelled) == ([7], [2], {6: 2})
    assert found.letters == [] and found.position.next == 8


def test_a_second_cancellation_in_the_run_finds_nothing_more() -> None:
    found = run(record(5, deliver_cancel="a"), record(6, deliver_cancel="a"), stored={2: (b"k", "a")})
    assert (found.removed, found.cancelled) == ([2], {5: 1, 6: 0})
    assert [(letter.offset, why.reason) for letter, why in found.letters] == [(6, "cancel")]
    again = run(record(5, deliver_cancel_row="2"), record(6, deliver_cancel_row="2"), stored={2: (b"k", "a")})
    assert (again.removed, again.cancelled) == ([2], {5: 1, 6: 0})


def test_key_and_id_must_both_be_the_same_and_a_null_key_is_a_key_of_its_own() -> None:
    stored: dict[int, tuple[bytes | None, str]] = {1: (b"k", "a"), 2: (b"other", "a"), 3: (None, "a"), 4: (b"k", "b")}
    assert run(record(9, deliver_cancel="a"), stored=stored).removed == [1]
    assert run(record(9, None, deliver_cancel="a"), stored=stored).removed == [3]
    assert run(record(9, b"", deliver_cancel="a"), stored=stored).removed == []


def test_the_position_passes_over_gaps_of_markers_and_compaction() -> None:
    assert run(delivery(5, "a"), delivery(9, "b")).position.next == 10
