"""Training loss: InfoNCE, which brings the views of a photograph together, and KoLeo.

A trial chose temperature 0.05 and half a KoLeo.
"""

from __future__ import annotations

import torch
from torch.nn import functional


def pair_loss(
    light: torch.Tensor, heavy: torch.Tensor, temperature: float, koleo_share: float
) -> torch.Tensor:
    """The loss of unit vectors, (n, dim) each, row i of both from the same photograph."""
    spread = (koleo(light) + koleo(heavy)) / 2
    return contrast(light, heavy, temperature) + koleo_share * spread


def contrast(light: torch.Tensor, heavy: torch.Tensor, temperature: float) -> torch.Tensor:
    """Symmetric InfoNCE over both kinds of view: each of the 2n views is to find its partner
    among the other 2n - 1 (NT-Xent: Chen et al. 2020, "A simple framework for contrastive
    learning of visual representations", equation 1)."""
    both = torch.cat([light, heavy])
    count = len(light)
    scores = both @ both.T / temperature
    scores = scores.masked_fill(torch.eye(2 * count, dtype=torch.bool, device=both.device), -1e9)
    partners = torch.arange(2 * count, device=both.device).roll(count)
    return functional.cross_entropy(scores, partners)


def koleo(vectors: torch.Tensor) -> torch.Tensor:
    """Minus the mean logarithm of the distance to the nearest other row: small where unit vectors
    fill the sphere evenly (Kozachenko-Leonenko; Sablayrolles et al. 2019, "Spreading vectors for
    similarity search")."""
    with torch.no_grad():
        scores = vectors @ vectors.T
        nearest = scores.fill_diagonal_(-2.0).argmax(dim=1)
    distances = (vectors - vectors[nearest]).square().sum(dim=1).add(1e-6).sqrt()
    return -distances.log().mean()
