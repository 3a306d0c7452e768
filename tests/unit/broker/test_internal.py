"""The internal credential: made once, private, whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker import internal


def test_it_is_made_once_and_readable_by_its_owner_only(tmp_path: Path) -> None:
    made = internal.ensure(tmp_path)
    assert internal.ensure(tmp_path) == made == internal.read(tmp_path)
    assert (tmp_path / internal.FILE_NAME).stat().st_mode & 0o777 == 0o600
    assert made.bootstrap.startswith("127.0.0.1:")
    assert len(made.password) >= 32
    assert made.principal == f"User:{made.username}"


def test_a_file_that_is_not_ours_is_said_to_be_unreadable(tmp_path: Path) -> None:
    (tmp_path / internal.FILE_NAME).write_text("{}")
    with pytest.raises(internal.InternalCredentialUnreadable, match=internal.FILE_NAME):
        internal.read(tmp_path)


def test_nothing_there_is_none(tmp_path: Path) -> None:
    assert internal.read(tmp_path) is None
