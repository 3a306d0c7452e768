"""A flood of bad connections is no flood of log lines."""

from __future__ import annotations

import logging

import pytest

from broker.server.complaints import Complaints


def test_so_many_lines_a_second_and_the_rest_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    complaints = Complaints(logging.getLogger("test.complaints"), lambda: now[0], burst=3)
    for number in range(100):
        complaints.say("bad frame", str(number))
    complaints.say("other", "x")
    now[0] = 1.5
    complaints.say("bad frame", "late")
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        "bad frame: 0",
        "bad frame: 1",
        "bad frame: 2",
        "other: x",
        "bad frame: 97 more of the kind",
        "bad frame: late",
    ]
