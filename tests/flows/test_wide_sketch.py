"""The wide sketch from ban to answer: ready hashes, a snapshot, and edits after it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from index_builders.build.pipeline import BuildOptions, build
from index_builders.build.release import publish, seal
from index_builders.report.progress import silent
from simsearch.index.snapshot.loader import current, open_snapshot
from simsearch.match.policy import MINHASH1024_DEFAULT
from simsearch.types import (
    Band,
    HammingRule,
    HashContent,
    MatchOptions,
    MatchResult,
    Policy,
    Signal,
    TextContent,
)
from tests.flows.world import EDIT, Process

POLICY = Policy(hamming=(HammingRule(Signal.MINHASH1024, **MINHASH1024_DEFAULT),))
BANNED = "this is a long enough sentence that somebody has banned last week"
EDITED = "filler before it: this is a lng enough sentense that sombody has banned last week, yes"
OTHER = "an entirely different remark about gardens, rain and early potatoes"


def _hits(process: Process, text: str) -> list[tuple[int, Band, int | None]]:
    [result] = process.matcher.match([TextContent(text)], MatchOptions(hits_max=10))
    assert isinstance(result, MatchResult)
    return [(hit.entry_key, hit.band, hit.evidence[0].hamming) for hit in result.hits]


def test_ban_ask_retract(tmp_path: Path) -> None:
    process = Process(tmp_path, encoders=())
    try:
        process.store.create_bank("texts", "", POLICY, EDIT)
        first = process.add("texts", TextContent(BANNED))
        ready = np.random.default_rng(0).integers(0, 256, 128, np.uint8).tobytes()
        second = process.add("texts", HashContent(Signal.MINHASH1024, ready))
        assert _hits(process, BANNED) == [(first, Band.REVIEW, 0)]
        [(key, band, bits)] = _hits(process, EDITED)
        assert (key, band) == (first, Band.REVIEW)
        assert bits is not None
        assert 32 < bits <= MINHASH1024_DEFAULT["review"]
        assert _hits(process, OTHER) == []
        [result] = process.matcher.match(
            [HashContent(Signal.MINHASH1024, ready)], MatchOptions(hits_max=10)
        )
        assert isinstance(result, MatchResult)
        assert [hit.entry_key for hit in result.hits] == [second]
        process.retract("texts", first)
        assert _hits(process, BANNED) == []
    finally:
        process.close()


def test_a_snapshot_with_rows_added_and_retracted_after_it(tmp_path: Path) -> None:
    """Its rows are 128 bytes wide; what came and went after it is right, in a new process too."""
    process = Process(tmp_path, encoders=())
    try:
        process.store.create_bank("texts", "", POLICY, EDIT)
        first = process.add("texts", TextContent(BANNED))
        gone = process.add("texts", TextContent(OTHER))
        snapshots = tmp_path / "snapshots"
        publish(snapshots, seal(*build(process.store, snapshots, BuildOptions(), silent)).name, 2)
    finally:
        process.close()
    name = current(snapshots)
    assert name is not None
    rows = open_snapshot(snapshots / name).signals[Signal.MINHASH1024]
    assert rows.bits.shape == (len(rows.keys), 128)
    assert set(rows.keys.tolist()) == {first, gone}
    process = Process(tmp_path, encoders=())
    try:
        assert process.follower.view.snapshot == name
        assert [key for key, *_ in _hits(process, OTHER)] == [gone]
        process.retract("texts", gone)
        later = process.add("texts", TextContent("another remark that came after the snapshot"))
        assert _hits(process, OTHER) == []
        assert [key for key, *_ in _hits(process, EDITED)] == [first]
        assert _hits(process, "another remark that came after the snapshot")[0][0] == later
    finally:
        process.close()
