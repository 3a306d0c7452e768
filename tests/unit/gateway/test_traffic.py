"""Counting by route and prefix: exact, bounded, and once per run."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway import contract
from gateway.publishing.target import Target
from gateway.publishing.traffic import FIELDS, OTHER, QUIET, Table, Traffic, prefix_of


def target(topic: str, route: str = "r") -> Target:
    made = Target(topic, "c1", "", prefix_of(topic, 2))
    made.route_name = route
    return made


def item(of: Target, payload: bytes) -> tuple[Any, bytes, int, int, None]:
    return (of, payload, 2, 1, None)


TOPICS = st.sampled_from(["a", "a/b", "a/b/c", "a/c", "x/y/z", "x/y/w"])
RUNS = st.lists(st.lists(st.tuples(TOPICS, st.binary(max_size=9)), min_size=1, max_size=8), max_size=20)


@given(RUNS)
def test_every_message_and_byte_of_any_runs_is_counted_once_in_each_table(
    runs: list[list[tuple[str, bytes]]],
) -> None:
    traffic, targets = Traffic(levels=2), {}
    for run in runs:
        for topic, _ in run:
            targets.setdefault(topic, target(topic, route=topic[:1]))
        traffic.published([item(targets[topic], payload) for topic, payload in run])
    expected: dict[str, list[int]] = {}
    for run in runs:
        for topic, payload in run:
            row = expected.setdefault(prefix_of(topic, 2), [0, 0])
            row[0] += 1
            row[1] += len(payload)
    assert {name: row.values()[:2] for name, row in traffic.prefixes.rows.items()} == expected
    assert sum(row.messages for row in traffic.routes.rows.values()) == sum(map(len, runs))


def test_a_table_stays_within_its_limit_and_loses_no_number() -> None:
    table = Table(limit=3)
    for number in range(50):
        table.row(f"p{number}").messages += 1
    assert set(table.rows) == {"p0", "p1", "p2", OTHER}
    assert sum(row.messages for row in table.rows.values()) == 50


def test_quiet_rows_make_room_and_their_numbers_join_the_others() -> None:
    table = Table(limit=2)
    table.row("old").messages += 7
    table.row("busy").messages += 1
    table.changed(0.0)
    table.row("busy").messages += 1
    table.changed(QUIET)
    table.row("busy").messages += 1
    told = table.changed(QUIET + 1)
    assert told["old"] is None
    assert told[OTHER] == [7, 0, 0, 0, 0, 0]
    assert told["busy"] == [3, 0, 0, 0, 0, 0]
    table.row("new").messages += 1
    assert table.changed(QUIET + 2) == {"new": [1, 0, 0, 0, 0, 0]}


def test_a_target_counts_in_another_row_once_its_own_has_made_room_and_in_its_own_once_there_is_room() -> None:
    traffic = Traffic()
    traffic.prefixes = Table(limit=1)
    first, late = target("a/1/x"), target("b/1/x")
    traffic.published([item(first, b"1")])
    traffic.published([item(late, b"22")])  # no room: among the others
    assert traffic.prefixes.changed(0.0)[OTHER] == [1, 2, 0, 0, 0, 0]
    traffic.published([item(late, b"22")])
    assert traffic.prefixes.changed(QUIET + 1) == {OTHER: [3, 5, 0, 0, 0, 0], "a/1": None}
    traffic.published([item(late, b"22")])
    traffic.published([item(first, b"1")])
    assert traffic.prefixes.changed(QUIET + 2) == {"b/1": [1, 2, 0, 0, 0, 0], OTHER: [4, 6, 0, 0, 0, 0]}


def test_only_what_changed_since_the_last_time_is_told() -> None:
    traffic = Traffic()
    one, other = target("a/1/x"), target("b/1/x")
    traffic.published([item(one, b"1"), item(other, b"22")])
    assert set(traffic.prefixes.changed(1.0)) == {"a/1", "b/1"}
    assert traffic.prefixes.changed(2.0) == {}
    traffic.refused(other)
    told = traffic.prefixes.changed(3.0)["b/1"]
    assert told is not None
    assert dict(zip(FIELDS, told, strict=True))["refused"] == 1


def test_a_prefix_is_the_first_levels_and_never_long() -> None:
    assert prefix_of("plant/7/temperature", 2) == "plant/7"
    assert prefix_of("plant/7", 2) == "plant/7"
    assert prefix_of("plant", 2) == "plant"
    assert prefix_of("/a/b", 2) == "/a"
    assert len(prefix_of("x" * 60_000, 2)) <= 120


@given(
    st.builds(
        contract.Presence,
        client_id=st.text(max_size=4),
        online=st.booleans(),
        since=st.sampled_from([0.0, 1.5]),
        gateway=st.just("g"),
        username=st.text(max_size=3),
        protocol=st.sampled_from([3, 4, 5]),
        clean=st.booleans(),
        adopts=st.none() | st.integers(0, 9),
        queued=st.integers(0, 999),
    )
)
def test_what_is_left_out_of_a_record_is_read_as_it_was(presence: contract.Presence) -> None:
    sparse = contract.encode(presence, sparse=True)
    assert contract.decode(contract.Presence, sparse) == presence
    assert json.loads(sparse).items() <= json.loads(contract.encode(presence)).items()


def test_a_record_is_encoded_with_all_that_is_in_it() -> None:
    report = contract.TrafficReport(
        gateway="g", at=1.5, started=1.0, devices={'é"': [1.0, 2]}, routes={"r": None}, prefixes={"p": [1, 2]}
    )
    assert json.loads(contract.encode(report)) == {"v": 1} | json.loads(json.dumps(asdict(report)))
    device = contract.Device(name="d", credentials=(contract.Credential(kind="blake2b", hash="h"),))
    assert contract.decode(contract.Device, contract.encode(device)) == device
