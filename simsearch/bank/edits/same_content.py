"""Content identity check: whether submitted content is the content that an entry bans.

Used before an entry is extended: signals of another item would ban that item, too, under the first
one's reason and actor.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from simsearch.errors import ContentMismatch
from simsearch.types import BINARY, BITS_BYTES, Bits, Fingerprint, Signal

IDENTITIES = (Signal.SHA256, Signal.TEXT_LIGHT_SHA256, Signal.TEXT_SHA256)
"""Digests that prove identity. Not MD5, for which collisions can be constructed."""

SAME_BITS_MAX = 10
"""Bits of 256 (of 1,024 four times as many) that PDQ or MinHash may differ where an entry has no
digest: a third of the 31 at which PDQ calls two images a match."""


def check_contents(
    key: int, stored: Fingerprint, contents: Sequence[Fingerprint], *, partial: bool
) -> None:
    """Raises ContentMismatch unless every one of `contents` is banned by the entry whose
    fingerprint is `stored` and, without `partial`, unless they are all that it bans.

    Content without a digest is a ready vector or hash, which the caller is trusted for.
    """
    submitted = [content for content in contents if _digests(content)]
    for number, content in enumerate(contents, 1):
        if _digests(content) and not _is_banned_by(stored, content):
            raise ContentMismatch(
                f"content {number} of {len(contents)} is not what entry {key} bans: give the same "
                "file or text as then, or ban this one by an entry of its own"
            )
    if submitted and not partial and (lost := _lost(stored, submitted)):
        raise ContentMismatch(
            f"entry {key} bans {lost} more of this kind of content than were given: give all of "
            "them in one call, or say that the others are lost (partial)"
        )


def _digests(fingerprint: Fingerprint) -> set[tuple[Signal, bytes]]:
    return {(s, value) for s in IDENTITIES for value in fingerprint.digests.get(s, ())}


def _is_banned_by(stored: Fingerprint, content: Fingerprint) -> bool:
    own_digests = _digests(stored)
    if own_digests:
        return bool(own_digests & _digests(content))
    return any(
        bool(_are_near(content.bits[s], stored.bits[s]).any())
        for s in BINARY
        if s in content.bits and s in stored.bits
    )


def _lost(stored: Fingerprint, contents: Sequence[Fingerprint]) -> int:
    """How many of the entry's digests (or PDQ and MinHash rows where it has none) are missing from
    `contents`. Only signals that these have are counted: an image need not come with a text."""
    own_digests = _digests(stored)
    given = {digest for content in contents for digest in _digests(content)}
    if own_digests:
        signals = {signal for signal, _ in given}
        return sum(signal in signals for signal, _ in own_digests - given)
    return sum(
        int((~_are_near(stored.bits[s], np.vstack(rows)).any(axis=1)).sum())
        for s in BINARY
        if s in stored.bits and (rows := [c.bits[s] for c in contents if s in c.bits])
    )


def _are_near(some: Bits, others: Bits) -> np.ndarray:
    """(len(some), len(others)) bool."""
    apart = np.bitwise_count(some[:, np.newaxis] ^ others[np.newaxis])
    most = SAME_BITS_MAX * some.shape[1] // BITS_BYTES
    near: np.ndarray = apart.sum(axis=2, dtype=np.int64) <= most
    return near
