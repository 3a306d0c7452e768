"""What DescribeConfigs says of a group's configs is what the broker goes by."""

from __future__ import annotations

import pytest

from broker.cluster.config_names import BROKER, GROUP, RESET_BY_DURATION, TOPIC
from broker.cluster.configs import InvalidConfig
from broker.groups import dead_letters
from broker.groups.share_coordinator import ShareLimits
from broker.groups.share_service import RENEWING


def test_the_defaults_that_are_shown_are_those_that_hold() -> None:
    limits = ShareLimits()
    for name, value in (
        ("share.delivery.count.limit", limits.delivery_count),
        ("share.record.lock.duration.ms", limits.lock_ms),
        ("share.partition.max.record.locks", limits.max_locks),
    ):
        assert GROUP.value(name, None) == value
        assert BROKER.value(f"group.{name}", None) == value


def test_dead_letters_go_by_the_definitions_of_their_configs() -> None:
    assert GROUP.value(dead_letters.COPY_RECORD, None) is True, "docs/compatibility.md: Kafka's default is false"
    assert GROUP.value(dead_letters.COPY_RECORD, " FALSE ") is False
    assert TOPIC.value(dead_letters.ENABLED, None) is False
    assert BROKER.value(dead_letters.AUTO_CREATE, None) is False
    assert GROUP.value(RENEWING, None) is True


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        ("by_duration:P1D", ("1", None, None, None)),
        ("by_duration:PT1H30M", (None, "1", "30", None)),
        ("by_duration:p2dt3.5s", ("2", None, None, "3")),
    ],
)
def test_a_reset_may_go_back_a_duration(value: str, parts: tuple[str | None, ...]) -> None:
    GROUP.validate({"share.auto.offset.reset": value})
    found = RESET_BY_DURATION.fullmatch(value)
    assert found is not None
    assert found.groups() == parts


@pytest.mark.parametrize("value", ["", "sometime", "by_duration:", "by_duration:P", "by_duration:PT", "by_duration:1H"])
def test_a_reset_that_means_nothing_is_refused(value: str) -> None:
    with pytest.raises(InvalidConfig):
        GROUP.validate({"share.auto.offset.reset": value})
