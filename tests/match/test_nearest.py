"""What is nearest to a content or to an entry, held against every pair measured one by one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simsearch.encode.fingerprint import AllSignals, ContentFingerprint
from simsearch.errors import BadRequest
from simsearch.index.rescore import exact_cosines
from simsearch.match.nearest import DistanceLimits, NearestEntries, compare, find_nearest
from simsearch.types import (
    Band,
    Bits,
    Content,
    EntryState,
    Evidence,
    Fingerprint,
    HammingRule,
    HashContent,
    Policy,
    Signal,
    TextContent,
    Vectors,
)
from tests.fakes import FakeTextEncoder, encoders, near, unit_of
from tests.match.fakes import World, fingerprinter

STRICT = Policy(hamming=(HammingRule(Signal.PDQ, block=0),))
"""By which nothing would be hit."""


def bits(*set_bits: int) -> Bits:
    """(n, 32): rows with the first so many bits set, so that distances are differences."""
    flat = np.zeros((len(set_bits), 256), np.uint8)
    for row, count in zip(flat, set_bits, strict=True):
        row[:count] = 1
    return np.packbits(flat, axis=1)


def pdq(set_bits: int) -> HashContent:
    return HashContent(Signal.PDQ, bits(set_bits).tobytes())


def found(
    world: World,
    content: Content,
    *states: EntryState,
    limit: int = 100,
    limits: DistanceLimits | None = None,
    prose: FakeTextEncoder | None = None,
) -> NearestEntries:
    [asked] = fingerprinter(encoders(prose)).query([content], AllSignals())
    assert isinstance(asked, ContentFingerprint)
    banks = list(world.banks.values())
    return find_nearest(
        asked, content, world.view(), banks, states, limit=limit, limits=limits or DistanceLimits()
    )


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(st.integers(0, 130), min_size=1, max_size=12),
    asked=st.integers(0, 60),
    most=st.integers(0, 120),
    limit=st.integers(1, 6),
)
def test_the_nearest_are_those_of_every_distance(
    rows: list[int], asked: int, most: int, limit: int
) -> None:
    """In two banks, whatever their thresholds; ties by key, and what is cut is said."""
    world = World()
    world.bank("one", STRICT)
    world.bank("two", STRICT)
    for key, count in enumerate(rows, start=1):
        world.ban(key, "one" if key % 2 else "two", Fingerprint(bits={Signal.PDQ: bits(count)}))
    expected = sorted(
        (abs(count - asked), key) for key, count in enumerate(rows, 1) if abs(count - asked) <= most
    )
    nearest = found(world, pdq(asked), limit=limit, limits=DistanceLimits.of(None, most))
    assert [(n.evidence[0].hamming, n.entry.key) for n in nearest.found] == expected[:limit]
    assert nearest.truncated is (len(expected) > limit)
    assert {n.bank for n in nearest.found} <= {"one", "two"}
    assert all(n.evidence[0].threshold is None for n in nearest.found)


def test_one_scale_for_every_signal() -> None:
    """An equal digest, then what is nearer by its own measure; an entry counts by its best row."""
    base = unit_of("x")
    prose = FakeTextEncoder(placed={"some few words": base})
    world = World()
    world.bank("one", STRICT)
    [asked] = fingerprinter(encoders(prose)).query([TextContent("some few words")], AllSignals())
    assert isinstance(asked, ContentFingerprint)
    row = asked.fingerprint.bits[Signal.MINHASH].copy()
    row[0, 0] ^= 0xFF  # 8 bits of 256: as near as a cosine of 1 - 8 / 128
    digests = dict(asked.fingerprint.digests)

    def vectors(*cosines: float) -> Fingerprint:
        rows: Vectors = np.stack([near(base, cosine) for cosine in cosines])
        return Fingerprint(vectors={prose.space.id: rows})

    world.ban(1, "one", vectors(0.6))
    world.ban(2, "one", Fingerprint(bits={Signal.MINHASH: row}))
    world.ban(3, "one", vectors(0.55, 0.99))
    world.ban(4, "one", Fingerprint(digests=digests))
    world.ban(5, "one", vectors(0.4))
    nearest = found(world, TextContent("some few words"), prose=prose)
    assert [n.entry.key for n in nearest.found] == [4, 3, 2, 1]
    assert nearest.found[1].evidence[0].cosine == pytest.approx(0.99, abs=1e-4)
    assert nearest.found[1].evidence[0].rows == 2


def test_states_are_chosen_and_what_is_gone_by_now_is_left_out() -> None:
    """The view may be older than a retraction, which counts."""
    world = World()
    world.bank("one", STRICT)
    for key, state in enumerate((EntryState.ACTIVE, EntryState.DRAFT, EntryState.RETRACTED), 1):
        world.ban(key, "one", Fingerprint(bits={Signal.PDQ: bits(key)}))
        world._cards[key] = replace(world._cards[key], state=state)
    assert [n.entry.key for n in found(world, pdq(0)).found] == [1, 2]
    assert [n.entry.key for n in found(world, pdq(0), EntryState.DRAFT).found] == [2]


def test_more_near_rows_than_a_search_gives_are_told() -> None:
    world = World(rows_max=3)
    world.bank("one", STRICT)
    for key in range(1, 6):
        world.ban(key, "one", Fingerprint(bits={Signal.PDQ: bits(key)}))
    nearest = found(world, pdq(0))
    assert nearest.truncated
    assert [n.entry.key for n in nearest.found] == [1, 2, 3]


def test_reach_has_bounds() -> None:
    assert DistanceLimits.of(None, None) == DistanceLimits()
    assert DistanceLimits.of(0.2, 0) == DistanceLimits(0.2, 0, 0)
    for cosine, hamming in ((0.19, None), (1.01, None), (float("nan"), None), (None, 121)):
        with pytest.raises(BadRequest):
            DistanceLimits.of(cosine, hamming)


# ---------------------------------------------------------------- two entries


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), ones=st.integers(1, 30), others=st.integers(1, 30))
def test_two_entries_are_as_near_as_their_best_pair(seed: int, ones: int, others: int) -> None:
    """Of every pair of rows, exactly."""
    rng = np.random.default_rng(seed)

    def print_of(rows: int) -> Fingerprint:
        vectors = rng.normal(size=(rows, 8)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return Fingerprint(
            bits={Signal.PDQ: rng.integers(0, 256, (rows, 32), np.uint8)}, vectors={"s": vectors}
        )

    one, other = print_of(ones), print_of(others)
    pairs = [(i, j) for i in range(ones) for j in range(others)]
    a, b = one.bits[Signal.PDQ], other.bits[Signal.PDQ]
    hamming = min(int(np.unpackbits(a[i] ^ b[j]).sum()) for i, j in pairs)
    left, right = (np.stack(rows) for rows in zip(
        *((one.vectors["s"][i], other.vectors["s"][j]) for i, j in pairs), strict=True
    ))  # fmt: skip
    cosine = float(exact_cosines(left, right).max())
    assert set(compare(one, other)) == {
        Evidence("pdq", Band.NONE, hamming=hamming),
        Evidence("s", Band.NONE, cosine=cosine),
    }


def test_only_what_both_have_is_compared() -> None:
    """Digests by equality, and nothing where nothing is shared."""
    sha = {Signal.SHA256: (b"a" * 32, b"b" * 32)}
    one = Fingerprint(digests=sha, bits={Signal.PDQ: bits(1)})
    other = Fingerprint(
        digests={Signal.SHA256: (b"b" * 32,), Signal.MD5: (b"c" * 16,)},
        bits={Signal.MINHASH: bits(1)},
    )
    assert compare(one, other) == (Evidence("sha256", Band.NONE),)
    assert compare(Fingerprint(bits={Signal.PDQ: bits(1)}), other) == ()
