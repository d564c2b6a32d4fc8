"""How far two spaces agree: counted as by hand, bounded as in published tables."""

from __future__ import annotations

import pytest

from simsearch.match.agreement import Agreement, SpaceVerdict, clopper_pearson, space_verdict
from simsearch.types import Band, Evidence, Hit, MatchResult

N, L, R, B = Band


def result(*hits: Hit) -> MatchResult:
    return MatchResult(Band.NONE, hits, False, True, (), "s", 1)


def test_every_content_is_counted_once() -> None:
    """Equal, missed by the new, found by it alone, or in another band."""
    pairs = [(N, N), (R, R), (R, N), (L, N), (N, B), (L, R), (R, L), (R, R)]
    table = Agreement.of(pairs)
    assert (table.judged, table.agree) == (8, 3)
    assert (table.only_old, table.only_new, table.other_band) == (2, 1, 2)
    assert table.interval() == clopper_pearson(3, 8)


def test_an_opinion_is_of_one_space_alone() -> None:
    """The strongest band it gives to any entry, then the closest; other signals do not count."""
    found = result(
        Hit("spam", 1, B, (Evidence("pdq", B, hamming=0), Evidence("old", L, cosine=0.7))),
        Hit("spam", 2, R, (Evidence("old", R, cosine=0.91), Evidence("new", L, cosine=0.75))),
        Hit("spam", 3, R, (Evidence("old", R, cosine=0.95),)),
    )
    assert space_verdict(found, "old") == SpaceVerdict(R, 3, 0.95)
    assert space_verdict(found, "new") == SpaceVerdict(L, 2, 0.75)
    assert space_verdict(found, "third") == SpaceVerdict(N, None, None)


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        (0, 10, 0.0, 0.308497),
        (10, 10, 0.691503, 1.0),
        (5, 10, 0.187086, 0.812914),
        (1, 20, 0.001265, 0.248733),
        (81, 263, 0.252737, 0.367622),
        (29_958, 29_958, 0.999877, 1.0),
        (0, 0, 0.0, 1.0),
    ],
)
def test_the_bounds_are_those_of_clopper_and_pearson(
    successes: int, trials: int, low: float, high: float
) -> None:
    """Against quantiles of the beta distribution, worked out elsewhere."""
    assert clopper_pearson(successes, trials) == pytest.approx((low, high), abs=2e-6)
