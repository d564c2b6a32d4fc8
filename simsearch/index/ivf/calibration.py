"""Score calibration: the error of scores computed from codes, relative to exact cosines."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

GATE_SDS = 3.5
"""How many standard deviations below its mean the score of a match may lie and still be re-ranked.
Chosen: of normally distributed errors 2 in 10,000 lie lower."""


BIAS_COSINE = 0.9
"""The cosine at which `bias` is stated. Codes shrink scores by one factor, so that the bias is
proportional to the cosine."""


@dataclass(frozen=True)
class Calibration:
    """Score minus exact cosine of near pairs: `bias` is its mean at a cosine of .9, `sd` the
    standard deviation around the line through that point and the origin."""

    bias: float
    sd: float

    def gate(self, floors: NDArray[np.float64]) -> NDArray[np.float64]:
        """The lowest score at which a row may still have a cosine at its floor."""
        cosines = np.maximum(floors, -1.0)
        return cosines * (1 + self.bias / BIAS_COSINE) - GATE_SDS * self.sd
