"""Structured log lines, and refusals that can't flood them."""

from __future__ import annotations

import json
import logging
import re

from hypothesis import given
from hypothesis import strategies as st

from gateway.logs import JsonLines, KeyValueLines
from gateway.server.refusals import COLLECTED, Refusals
from gateway.why import Why


def record(message: str, **extra: object) -> logging.LogRecord:
    return logging.getLogger("t").makeRecord("t", logging.WARNING, "f", 1, message, (), None, extra=extra)


@given(st.text(), st.text())
def test_whatever_is_in_an_event_it_is_one_line_that_can_be_read_back(message: str, address: str) -> None:
    line = JsonLines().format(record(message, event="refused", address=address))
    assert "\n" not in line
    assert line.isascii()
    found = json.loads(line)
    assert (found["message"], found["address"], found["event"]) == (message, address, "refused")
    words = KeyValueLines().format(record(message, event="refused", address=address))
    assert "\n" not in words
    assert "\r" not in words
    pairs = dict(re.findall(r'([a-z]+)=("(?:[^"\\]|\\.)*"|\S*)', words))
    word = pairs["address"]
    assert (json.loads(word) if word.startswith('"') else word) == address


def test_an_exception_s_trace_stays_in_its_line() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError as error:
        failed = record("it failed")
        failed.exc_info = (type(error), error, error.__traceback__)
    assert "two\\nlines" in JsonLines().format(failed)
    assert "\n" not in KeyValueLines().format(failed)


class Heard(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def test_refusals_are_logged_a_few_times_and_then_counted() -> None:
    log, heard = logging.Logger("refusals"), Heard()
    log.addHandler(heard)
    refusals = Refusals(log, per_period=3, period=10.0)
    for number in range(100):
        refusals.report("refused-0x86", f"wrong\npassword {number}", "192.0.2.1:1")
    refusals.report("malformed", "x", "192.0.2.2:1")
    assert [vars(each)["event"] for each in heard.records] == ["refused"] * 4
    assert "\n" not in vars(heard.records[0])["detail"]
    refusals.tick(20.0)
    last = vars(heard.records[-1])
    assert (last["event"], last["reason"], last["suppressed"]) == ("refused.suppressed", "refused-0x86", 97)
    assert len(heard.records) == 5
    refusals.report("refused-0x86", "again", "192.0.2.1:1")
    assert len(heard.records) == 6
    assert refusals.by_reason == {"refused-0x86": 101, "malformed": 1}
    assert refusals.total == 102


def test_what_was_closed_is_told_by_who_from_where_and_why_and_bounded() -> None:
    times = iter(range(1, 10_000))
    refusals = Refusals(logging.Logger("refusals"), clock=lambda: next(times))
    for port in range(3):
        of_it = {"client_id": "c", "username": "pump-7", "why": Why.CREDENTIALS}
        refusals.report("refused-0x86", "wrong password", f"192.0.2.1:{port}", **of_it)
    refusals.report("tls", "no certificate", "[2001:db8::1]:99")
    assert refusals.take() == [
        ["refused-0x86", "c", "pump-7", "192.0.2.1", "wrong password", 3, 3, "credentials"],
        ["tls", "", "", "2001:db8::1", "no certificate", 1, 4, ""],
    ]
    assert refusals.take() == []
    for number in range(1000):
        refusals.report("refused-0x86", "x" * 9999, "192.0.2.1:1", client_id=f"{number}" + "y" * 9999)
    rows = refusals.take()
    assert len(rows) == COLLECTED
    assert all(len(text) <= 200 for row in rows for text in row[:5])
