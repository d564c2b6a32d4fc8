"""Wire mapping of policies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from simsearch.errors import (
    BadRequest,
)
from simsearch.types import (
    Band,
    CosineRule,
    DigestRule,
    HammingRule,
    Policy,
)
from simsearch.v1 import policy_pb2
from simsearch.wire.contents import hash_signal
from simsearch.wire.enums import (
    BAND_NUMBERS,
    BANDS,
    HASH_SIGNAL_NUMBERS,
    MODALITIES,
    MODALITY_NUMBERS,
)


def policy_from(message: policy_pb2.Policy, space_id: Callable[[str], str]) -> Policy:
    """A policy as sent; `space_id` turns an encoder's name into the id of its space."""
    return Policy(
        cosine=tuple(_cosine_from(rule, space_id) for rule in message.cosine),
        hamming=tuple(HammingRule(hash_signal(r.signal), **_bands(r)) for r in message.hamming),
        digests=tuple(
            DigestRule(hash_signal(r.signal), _band_from(r.band)) for r in message.digests
        ),
        two_descriptors=message.two_descriptors,
    )


def _cosine_from(rule: policy_pb2.CosineThresholds, space_id: Callable[[str], str]) -> CosineRule:
    modality = MODALITIES.get(rule.query)
    if modality is None:
        raise BadRequest(f"the thresholds for {rule.space!r} name no query: set IMAGE or TEXT")
    return CosineRule(space_id(rule.space), modality, **_bands(rule))


def _band_from(number: int) -> Band:
    if number not in BANDS:
        raise BadRequest(f"there is no band {number}: set LOG, REVIEW or BLOCK")
    return BANDS[number]


def _bands(
    rule: policy_pb2.CosineThresholds | policy_pb2.HammingThresholds,
) -> dict[str, Any]:
    return {band: getattr(rule, band) for band in ("block", "review", "log") if rule.HasField(band)}


def policy_to(policy: Policy) -> policy_pb2.Policy:
    """The message of a policy."""
    return policy_pb2.Policy(
        cosine=[
            policy_pb2.CosineThresholds(
                space=r.space,
                query=MODALITY_NUMBERS[r.query],
                block=r.block,
                review=r.review,
                log=r.log,
            )
            for r in policy.cosine
        ],
        hamming=[
            policy_pb2.HammingThresholds(
                signal=HASH_SIGNAL_NUMBERS[r.signal], block=r.block, review=r.review, log=r.log
            )
            for r in policy.hamming
        ],
        digests=[
            policy_pb2.DigestRule(signal=HASH_SIGNAL_NUMBERS[r.signal], band=BAND_NUMBERS[r.band])
            for r in policy.digests
        ],
        two_descriptors=policy.two_descriptors,
    )
