"""When a ban ends by itself, as lists write it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simsearch.errors import BadRequest
from simsearch.lists.fields import RowDefaults, about_of, format_time

DAY_US = 86_400_000_000


@pytest.mark.parametrize(
    ("written", "time_us"),
    [
        ("", 0),
        ("1970-01-02", DAY_US),
        ("1970-01-02T00:00", DAY_US),
        ("1970-01-02T00:00:00Z", DAY_US),
        ("1970-01-02T01:00+01:00", DAY_US),
        ("1969-12-31", 1),  # long past, and no "never"
    ],
)
def test_a_day_or_a_time(written: str, time_us: int) -> None:
    assert about_of({"expires": written}, RowDefaults()).expires_us == time_us


@pytest.mark.parametrize("written", ["soon", "2027-13-01", "01/02/2027"])
def test_what_is_none_is_refused(written: str) -> None:
    with pytest.raises(BadRequest, match="2027-01-31"):
        about_of({"expires": written}, RowDefaults())


@given(st.integers(1, 2**52))
def test_what_is_written_is_read_again(time_us: int) -> None:
    assert about_of({"expires": format_time(time_us)}, RowDefaults()).expires_us == time_us
