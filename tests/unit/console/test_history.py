"""The history store: what was seen comes back, what wasn't is a gap."""

from pathlib import Path

import pytest

from console.history import Writer, read, store

START = 1_800_000_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.sqlite3"


def test_the_last_minutes_are_kept_second_by_second(path: Path) -> None:
    writer = Writer(path)
    for second in range(300):
        writer.add({"cluster/in": float(second), "cluster/lag": 7.0}, START + second)
    found = read(["cluster/in", "cluster/lag", "cluster/none"], now=START + 300, window=60, path=path)
    assert found.step == 1
    assert found.at == list(range(START + 240, START + 300))
    assert found.values[0] == [float(second) for second in range(240, 300)]
    assert set(found.values[1]) == {7.0}


def test_longer_windows_are_means_of_ten_seconds(path: Path) -> None:
    writer = Writer(path)
    for second in range(200):
        writer.add({"cluster/in": float(second % 10)}, START + second)
    found = read(["cluster/in"], now=START + 200, window=3600, path=path)
    assert found.step == 10
    assert len(found.at) == 19
    assert set(found.values[0]) == {4.5}


def test_what_was_not_seen_is_a_gap_and_never_a_zero(path: Path) -> None:
    writer = Writer(path)
    for second in [*range(10), *range(40, 50)]:
        writer.add({"cluster/in": 5.0}, START + second)
    found = read(["cluster/in"], now=START + 50, window=60, path=path)
    assert found.values[0].count(None) == 1
    assert 0.0 not in found.values[0]


def test_when_there_is_no_room_for_all_those_that_move_are_kept(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "FINE_SERIES", 1)
    writer = Writer(path)
    for second in range(30):
        writer.add({"cluster/in": 1.0, "topic/idle/in": 0.0, "topic/busy/in": float(second)}, START + second)
    found = read(["cluster/in", "topic/idle/in", "topic/busy/in"], now=START + 30, window=60, path=path)
    assert None in found.values[1]
    assert found.values[2][-10:] == [float(second) for second in range(20, 30)]


def test_old_points_are_removed(path: Path) -> None:
    writer = Writer(path)
    writer.add({"cluster/in": 1.0}, START)
    writer.add({"cluster/in": 2.0}, START + 3 * 3600)
    found = read(["cluster/in"], now=START + 3 * 3600, window=600, path=path)
    assert found.values[0] == [2.0]


def test_no_history_yet_is_empty(path: Path) -> None:
    assert read(["cluster/in"], now=START, window=60, path=path).at == []
