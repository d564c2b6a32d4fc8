"""Policies: a bank's thresholds for each signal and space."""

from __future__ import annotations

from dataclasses import dataclass

from simsearch.types.signals import Band, Modality, Signal


@dataclass(frozen=True)
class CosineRule:
    """Cosine at or above which a band applies; None: the band is not used."""

    space: str
    query: Modality
    block: float | None = None
    review: float | None = None
    log: float | None = None


@dataclass(frozen=True)
class HammingRule:
    """Hamming distance in bits at or below which a band applies; None: the band is not used."""

    signal: Signal
    block: int | None = None
    review: int | None = None
    log: int | None = None


@dataclass(frozen=True)
class DigestRule:
    """The band of an equal digest."""

    signal: Signal
    band: Band


@dataclass(frozen=True)
class Policy:
    """The rules of one bank. `two_descriptors`: BLOCK needs two independent signals."""

    cosine: tuple[CosineRule, ...] = ()
    hamming: tuple[HammingRule, ...] = ()
    digests: tuple[DigestRule, ...] = ()
    two_descriptors: bool = False
