"""The checker of histories catches each sin."""

import pytest

from tests.acceptance.gateway.device import Publisher
from tests.acceptance.kafka.history import History, Place, Transaction
from tests.acceptance.kafka.torment import device_problems


def sound() -> History:
    history = History()
    for number in range(4):
        place = ("t", 0, number)
        history.acknowledged[f"w-{number}"] = place
        history.observe(place, f"w-{number}")
        history.committed_reads.append((place, f"w-{number}"))
    history.observe(("t", 0, 4), "x-0")
    history.transactions = [Transaction(["w-1", "w-2"], "committed"), Transaction(["x-0"], "aborted")]
    history.offsets_acknowledged["g"], history.offsets_attempted["g"], history.offsets_found["g"] = 3, 5, 4
    return history


def test_a_sound_history_has_no_problems() -> None:
    assert sound().problems() == []


def test_a_lost_acknowledged_value_is_found() -> None:
    history = sound()
    del history.observed["t", 0, 2]
    assert any(problem.startswith("lost") for problem in history.problems())


def test_a_value_at_two_offsets_is_found() -> None:
    history = sound()
    history.observe(("t", 0, 9), "w-3")
    assert any(problem.startswith("doubled") for problem in history.problems())


def test_an_offset_with_two_values_is_found() -> None:
    history = sound()
    history.observe(("t", 0, 1), "w-7")
    assert any("held" in problem for problem in history.problems())


def test_swapped_offsets_are_found() -> None:
    history = sound()
    history.observed["t", 0, 1], history.observed["t", 0, 2] = "w-2", "w-1"
    kinds = {problem.split(":")[0] for problem in history.problems()}
    assert {"lost", "reordered"} <= kinds


def test_a_refused_value_that_is_there_is_found() -> None:
    history = sound()
    history.refused.add("x-0")
    assert any(problem.startswith("invented") for problem in history.problems())


@pytest.mark.parametrize(
    ("transaction", "problem"),
    [
        (Transaction(["w-1"], "aborted"), "aborted and read"),
        (Transaction(["w-1", "x-0"], "committed"), "committed and not read"),
        (Transaction(["w-1", "x-0"], "unknown"), "torn"),
    ],
)
def test_transactions_that_are_not_atomic_are_found(transaction: Transaction, problem: str) -> None:
    history = sound()
    history.transactions.append(transaction)
    assert any(each.startswith(problem) for each in history.problems())


def test_a_record_read_twice_by_committed_readers_is_found() -> None:
    history = sound()
    history.committed_reads.append((("t", 0, 0), "w-0"))
    assert any("committed readers" in problem for problem in history.problems())


@pytest.mark.parametrize("found", [2, 6])
def test_group_offsets_that_went_back_or_ahead_are_found(found: int) -> None:
    history = sound()
    history.offsets_found["g"] = found
    assert any(problem.startswith("offset of g") for problem in history.problems())


def devices() -> tuple[list[Publisher], list[tuple[Place, str]]]:
    once, exact = Publisher(0, "once", qos=1), Publisher(0, "exact", qos=2)
    once.acknowledged = [b"once/0", b"once/1"]
    exact.acknowledged = [b"exact/0", b"exact/1"]
    values = ["once/0", "exact/0", "once/1", "once/0", "exact/1"]
    return [once, exact], [(("m", 0, offset), value) for offset, value in enumerate(values)]


def test_a_qos_1_message_may_come_twice() -> None:
    assert device_problems(*devices()) == []


def test_a_lost_message_a_doubled_one_and_one_out_of_order_are_found() -> None:
    publishers, records = devices()
    assert any(problem.startswith("lost") for problem in device_problems(publishers, records[:4]))
    again = [*records, (("m", 1, 0), "exact/1")]
    assert any(problem.startswith("doubled") for problem in device_problems(publishers, again))
    swapped = [(place, {"exact/0": "exact/1", "exact/1": "exact/0"}.get(value, value)) for place, value in records]
    assert any(problem.startswith("reordered") for problem in device_problems(publishers, swapped))
    publishers[0].disorder = 1
    assert any("out of order" in problem for problem in device_problems(publishers, records))
