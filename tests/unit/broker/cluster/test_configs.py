"""Config values as Kafka takes and refuses them."""

from __future__ import annotations

import pytest

from broker.cluster.config_names import BROKER, CLIENT_METRICS, GROUP, TOPIC
from broker.cluster.configs import AlterOperation, InvalidConfig


@pytest.mark.parametrize("definitions", [TOPIC, BROKER, GROUP, CLIENT_METRICS], ids=lambda d: d.kind)
def test_every_default_is_valid(definitions) -> None:  # type: ignore[no-untyped-def]  # any definitions
    for definition in definitions.by_name.values():
        definition.parse(definition.default)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("retention.ms", "-2"),
        ("retention.ms", "soon"),
        ("retention.ms", str(2**63)),
        ("segment.bytes", "1"),
        ("cleanup.policy", "compact,shred"),
        ("compression.type", "brotli"),
        ("min.cleanable.dirty.ratio", "1.1"),
        ("preallocate", "maybe"),
        ("compression.gzip.level", "0"),
        ("no.such.config", "1"),
        ("retention.ms", None),
    ],
)
def test_a_bad_value_is_refused_by_name(name: str, value: str | None) -> None:
    with pytest.raises(InvalidConfig, match=name.replace(".", r"\.")):
        TOPIC.validate({name: value})


@pytest.mark.parametrize(("name", "value"), [("retention.ms", "-1"), ("cleanup.policy", "compact, delete")])
def test_kafkas_special_values_are_taken(name: str, value: str) -> None:
    TOPIC.validate({name: value})


def test_incremental_changes_set_delete_append_and_subtract() -> None:
    now = {"retention.ms": "1", "cleanup.policy": "delete"}
    after = TOPIC.altered(
        now,
        [
            ("retention.ms", AlterOperation.DELETE, None),
            ("cleanup.policy", AlterOperation.APPEND, "compact"),
            ("segment.ms", AlterOperation.SET, "60000"),
        ],
    )
    assert after == {"cleanup.policy": "delete,compact", "segment.ms": "60000"}
    assert TOPIC.altered(after, [("cleanup.policy", AlterOperation.SUBTRACT, "delete")])["cleanup.policy"] == "compact"
    assert now["retention.ms"] == "1"


@pytest.mark.parametrize(
    "operation",
    [
        ("retention.ms", AlterOperation.APPEND, "5"),
        ("retention.ms", AlterOperation.SET, None),
        ("retention.ms", 9, "5"),
        ("nothing", AlterOperation.DELETE, None),
    ],
)
def test_a_change_that_makes_no_sense_is_refused(operation: tuple[str, int, str | None]) -> None:
    with pytest.raises(InvalidConfig):
        TOPIC.altered({}, [operation])


def test_one_config_twice_in_a_change_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="duplicate"):
        TOPIC.altered({}, [("retention.ms", 0, "5"), ("retention.ms", 0, "6")])
