"""docs/compatibility.md says what the code does: every API key, its versions, offered or not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from broker.api.table import advertised, handlers
from broker.wire import schema

DOCUMENT = Path(__file__).parents[4] / "docs" / "compatibility.md"
ROW = re.compile(r"^\| (\d+) \| (\w+) \| ([\d–]+) \| ([\w ]+) \| ([^|]*) \|", re.MULTILINE)
ROWS = {
    int(key): (name, versions, status, tests)
    for key, name, versions, status, tests in ROW.findall(DOCUMENT.read_text())
}


@pytest.mark.parametrize("key", sorted(schema.apis()))
def test_the_row_of_an_api_says_what_is_served(key: int) -> None:
    api = handlers().get(key)
    name, versions, status, _ = ROWS[key]
    assert name == schema.api(key).name
    if api is None:
        assert (versions, status) == ("–", "not offered")
    else:
        assert status in ("served", "answered")
        assert versions == (f"{api.min}–{api.max}" if api.min != api.max else str(api.min))


def test_the_tests_a_row_names_exist() -> None:
    root = DOCUMENT.parents[1] / "tests"
    for key, (_, _, _, tests) in ROWS.items():
        for name in filter(None, (part.strip() for part in tests.split(","))):
            assert name == "—" or (root / name).is_dir() or (root / f"{name}.py").is_file(), (key, name)


def test_an_integration_test_that_a_row_names_asks_that_api() -> None:
    root = DOCUMENT.parents[1] / "tests"
    for key, (api, _, _, tests) in ROWS.items():
        for name in (part.strip() for part in tests.split(",")):
            if name.startswith("integration/"):
                path = root / f"{name}.py"
                beside = [each.read_text() for each in path.parent.glob("*_member.py")]
                assert any(api in text for text in (path.read_text(), *beside)), (key, name)


def test_no_version_is_served_that_the_definitions_do_not_have() -> None:
    for key, api in handlers().items():
        known = schema.api(key)
        assert known.min <= api.min <= api.max <= known.max, key


def test_the_advertised_versions_are_sorted_and_unique() -> None:
    keys = [entry.api_key for entry in advertised(handlers().values())]
    assert keys == sorted(set(keys))
