"""How values look, and that nobody's text becomes a formula, a script or a zero."""

from types import SimpleNamespace

import pytest

from console.lists import neutral
from console.messages.display import preview, shown
from console.templatetags.sluice import exact, in_words, num, rate, size, span, span_ms


@pytest.mark.parametrize(
    ("form", "value", "text"),
    [
        (num, None, "–"),
        (num, 0, "0"),
        (num, 1234567, "1,234,567"),
        (exact, 0.25, "0.25"),
        (exact, 5.0, "5"),
        (exact, 1_000_000.5, "1,000,000.5"),
        (rate, None, "–"),
        (rate, 0.0, "0"),
        (rate, 0.42, "0.4"),
        (rate, 1240.4, "1,240"),
        (size, None, "–"),
        (size, 0, "0 B"),
        (size, 1536, "1.5 KiB"),
        (size, 200 * 1024**3, "200 GiB"),
        (span, None, "–"),
        (span, 4.9, "4 s"),
        (span, 72, "1 min 12 s"),
        (span, 90061, "1 d 1 h"),
        (span_ms, -1, "no limit"),
        (span_ms, 604800000, "7 days"),
    ],
)
def test_values_look_so(form: object, value: object, text: str) -> None:
    assert form(value) == text  # type: ignore[operator]  # one of the filters


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_a_csv_cell_is_never_a_formula(start: str) -> None:
    assert neutral(f"{start}cmd|' /C calc'!A0") == f"'{start}cmd|' /C calc'!A0"
    assert neutral(-5) == -5
    assert neutral(None) == ""


def test_bytes_are_shown_as_what_they_are() -> None:
    assert shown(None).kind == "null"
    assert shown(b"").kind == "empty"
    assert shown(b'{"a":1}').text == '{\n  "a": 1\n}'
    assert shown(b"{not json").kind == "text"
    dump = shown(b"\xff\x00AB")
    assert dump.kind == "binary"
    assert dump.text.startswith("00000000  ff 00 41 42")
    assert dump.text.endswith("..AB")
    assert shown(b"x" * 100_000).cut


def test_a_preview_is_one_line_and_short() -> None:
    assert preview(b"a\n  b\tc") == "a b c"
    assert len(preview(b"x" * 10_000)) == 240
    assert preview(bytes(range(128, 200))).startswith("80 81 82")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("retention.ms", "604800000", "(7 days)"),
        ("retention.ms", "-1", "(no limit)"),
        ("flush.ms", str(2**63 - 1), "(no limit)"),
        ("file.delete.delay.ms", "60000", "(1 min 0 s)"),
        ("segment.bytes", "1073741824", "(1.0 GiB)"),
        ("compression.gzip.level", "-1", ""),
        ("local.retention.bytes", "-2", ""),
        ("cleanup.policy", "delete", ""),
    ],
)
def test_a_configured_number_is_said_in_words_too(name: str, value: str, words: str) -> None:
    assert in_words(SimpleNamespace(name=name, value=value)) == words
