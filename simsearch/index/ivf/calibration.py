"""What is known of an index's codes: how far a score taken from them lies from the cosine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

GATE_SDS = 3.5
"""How many standard deviations below the mean a match's score may lie and still be looked at:
of normally distributed errors 2 in 10,000 lie lower."""


BIAS_COSINE = 0.9
"""The cosine at which `bias` is measured. Codes shrink every score by the same factor, so that
the bias of a row further away is smaller, and of a copy larger."""


@dataclass(frozen=True)
class Calibration:
    """Score minus exact cosine of near pairs: its mean at a cosine of .9, and the standard
    deviation around the line that goes through it and through no error at a right angle."""

    bias: float
    sd: float

    def gate(self, floors: NDArray[np.float64]) -> NDArray[np.float64]:
        """The lowest score at which a row may still have a cosine at its floor."""
        cosines = np.maximum(floors, -1.0)  # no floor is lower
        return cosines * (1 + self.bias / BIAS_COSINE) - GATE_SDS * self.sd
