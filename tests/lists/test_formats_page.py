"""The samples in docs/formats.md are what it says they are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from simsearch.lists import Format
from tests.lists.samples import read

PAGE = (Path(__file__).parents[2] / "docs/formats.md").read_text(encoding="utf-8")
SAMPLES = re.findall(r"^```([a-z-]+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(("name", "text"), SAMPLES)
def test_a_sample_is_read_whole(name: str, text: str) -> None:
    """In the format of its own name, told from its content, with nothing refused."""
    got = read(text)
    assert (len(got.bad), bool(got.rows)) == (0, True)
    named = read(text, format=Format(name))
    assert [row.about for row in got.rows] == [row.about for row in named.rows]


def test_every_format_has_its_part_of_the_page() -> None:
    assert set(re.findall(r"^## (\S+)$", PAGE, re.MULTILINE)) >= set(Format) - {"Refused"}
    assert len(SAMPLES) == 9
