"""Only what was banned may extend an entry; whoever errs is told, and nothing is guessed."""

from __future__ import annotations

import numpy as np
import pytest

from simsearch.bank.edits.same_content import SAME_BITS_MAX, check_contents
from simsearch.errors import ContentMismatch
from simsearch.types import Bits, Fingerprint, Signal
from tests.bank.worlds import SPACE, bits, sha, unit

HASH = bits(1, 1)


def image(name: str, pdq: Bits | None = None) -> Fingerprint:
    digests = {Signal.SHA256: (sha(name),), Signal.MD5: (b"same for all....",)}
    return Fingerprint(digests, {} if pdq is None else {Signal.PDQ: pdq})


def words(name: str) -> Fingerprint:
    return Fingerprint({Signal.TEXT_SHA256: (sha(name),)})


READY = Fingerprint(vectors={SPACE: unit(1, 4, 1)})
READY_HASH = Fingerprint(bits={Signal.PDQ: bits(1, 9)})


def joined(*parts: Fingerprint) -> Fingerprint:
    digests: dict[Signal, tuple[bytes, ...]] = {}
    for part in parts:
        for signal, values in part.digests.items():
            digests[signal] = (*digests.get(signal, ()), *values)
    return Fingerprint(digests)


def flipped(pdq: Bits, count: int) -> Bits:
    loose = np.unpackbits(pdq, axis=1)
    loose[:, :count] ^= 1
    return np.packbits(loose, axis=1)


ACCEPTED = {
    "the same file": (image("a"), [image("a")]),
    "the same text": (words("a"), [words("a")]),
    "one of a kind, of two kinds": (joined(image("a"), words("b")), [image("a")]),
    "all of two": (joined(image("a"), image("b")), [image("b"), image("a")]),
    "a vector, vouched for": (image("a"), [READY]),
    "a hash, vouched for": (image("a"), [READY_HASH]),
    "a vector beside the file": (image("a"), [READY, image("a")]),
    "near the only hash": (Fingerprint(bits={Signal.PDQ: HASH}), [image("a", HASH)]),
    "as far as may be": (
        Fingerprint(bits={Signal.PDQ: HASH}),
        [image("a", flipped(HASH, SAME_BITS_MAX))],
    ),
    "banned by MD5 and PDQ": (
        Fingerprint({Signal.MD5: (bytes(16),)}, {Signal.PDQ: HASH}),
        [image("a", HASH)],
    ),
}
REFUSED = {
    "another file": (image("a"), [image("b")], "content 1 of 1 is not what entry 7 bans"),
    "another text": (words("a"), [words("b")], "content 1"),
    "a text of an image": (image("a"), [words("a")], "content 1"),
    "another beside the right one": (image("a"), [image("a"), image("b")], "content 2 of 2"),
    "near, where digests are known": (image("a", HASH), [image("b", HASH)], "content 1"),
    "one bit too far": (
        Fingerprint(bits={Signal.PDQ: HASH}),
        [image("a", flipped(HASH, SAME_BITS_MAX + 1))],
        "content 1",
    ),
    "nothing to compare": (READY, [image("a", HASH)], "content 1"),
    "an image without PDQ": (Fingerprint(bits={Signal.PDQ: HASH}), [image("a")], "content 1"),
    "equal in MD5 alone": (
        Fingerprint({Signal.MD5: (b"same for all....",)}),
        [image("a", HASH)],
        "content 1",
    ),
    "one of two": (joined(image("a"), image("b")), [image("a")], "entry 7 bans 1 more"),
    "one of two hashes": (
        Fingerprint(bits={Signal.PDQ: np.vstack([HASH, bits(1, 2)])}),
        [image("a", HASH)],
        "entry 7 bans 1 more",
    ),
}


@pytest.mark.parametrize(("stored", "contents"), ACCEPTED.values(), ids=ACCEPTED.keys())
def test_what_was_banned_may_extend(stored: Fingerprint, contents: list[Fingerprint]) -> None:
    """By digest, or by nearness where the entry has none, or on the caller's word."""
    check_contents(7, stored, contents, partial=False)


@pytest.mark.parametrize(("stored", "contents", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_anything_else_may_not(
    stored: Fingerprint, contents: list[Fingerprint], words: str
) -> None:
    """One wrong content of many is enough; so is one that is missing."""
    with pytest.raises(ContentMismatch, match=words):
        check_contents(7, stored, contents, partial=False)


def test_lost_contents_may_be_left_out_on_request_and_wrong_ones_never() -> None:
    """`partial` is about contents that are missing."""
    stored = joined(image("a"), image("b"))
    check_contents(7, stored, [image("a")], partial=True)
    with pytest.raises(ContentMismatch, match="content 1"):
        check_contents(7, stored, [image("c")], partial=True)
