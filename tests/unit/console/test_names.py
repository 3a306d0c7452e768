"""Names in addresses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from console.names import NameConverter

converter = NameConverter()


@given(st.text(st.characters(codec="utf-8", exclude_categories=("Cs",))))
def test_every_name_comes_back_as_it_was(name: str) -> None:
    written = converter.to_url(name)
    assert "/" not in written
    assert written.strip(".")
    assert converter.to_python(written) == name


@pytest.mark.parametrize("written", ["~2f", "~", "a~41", "~FF", "~2E~"])
def test_a_name_is_written_in_one_way_only(written: str) -> None:
    if written == "~":
        assert converter.to_python(written) == ""
    else:
        with pytest.raises(ValueError, match=r".*"):
            converter.to_python(written)
