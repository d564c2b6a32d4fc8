"""Scripts of texts, and the samples of each."""

from __future__ import annotations

from itertools import pairwise

import pytest

from simsearch.encode.text.script_samples import SAMPLES
from simsearch.encode.text.scripts import _BLOCKS, script_of, scripts_of


def test_the_blocks_are_in_order() -> None:
    """Else the search among them finds nothing."""
    for (_, last, _), (first, _, _) in pairwise(_BLOCKS):
        assert last < first


@pytest.mark.parametrize("script", SAMPLES)
def test_every_sample_is_in_its_script(script: str) -> None:
    """All four, but for a word or two of another one."""
    assert len(SAMPLES[script]) == 4
    for text in SAMPLES[script]:
        assert next(iter(scripts_of(text))) == script
        assert scripts_of(text)[script] > 0.9


def test_shares_are_of_letters() -> None:
    """Digits, signs and spaces are of no script."""
    assert scripts_of("12 + 34!") == {}
    assert scripts_of("") == {}
    assert scripts_of("abc 123") == {"Latin": 1.0}
    assert scripts_of("abc где") == {"Latin": 0.5, "Cyrillic": 0.5}
    assert script_of("😀") == ""
    assert script_of("ⴰ") == "Tifinagh"
