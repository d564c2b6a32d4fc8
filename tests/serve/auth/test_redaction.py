"""Scores that a caller may not see: on the wire, in a client, and on a screen."""

from __future__ import annotations

import pytest

from simsearch.cli.common.output import hit_words, result_json
from simsearch.errors import NewerFormat
from simsearch.serve.auth.redaction import without_scores
from simsearch.types import Band, Evidence, Hit, MatchResult, Region
from simsearch.v1 import match_pb2
from simsearch.wire import result_from, result_to

EVIDENCE = (
    Evidence("copyclip@1/2/3", Band.REVIEW, cosine=0.91, threshold=0.86, rows=2),
    Evidence("pdq", Band.LOG, hamming=40, threshold=48.0, rows=3, region=Region(0, 0, 0.5, 1)),
    Evidence("sha256", Band.BLOCK),
)
HIT = Hit("scams", 7, Band.BLOCK, EVIDENCE, ("coin",), "partner", "case-1", capped=True)
RESULT = MatchResult(Band.BLOCK, (HIT,), True, True, (), "bank-9", 9, {"encode": 1.0})


def redacted() -> MatchResult:
    message = result_to(RESULT)
    without_scores(message)
    return result_from(match_pb2.MatchResult.FromString(message.SerializeToString()))


def test_a_client_reads_what_is_left() -> None:
    """Signal and band of each evidence, and that the rest is withheld: not "identical"."""
    assert redacted() == MatchResult(
        Band.BLOCK,
        (
            Hit(
                "scams",
                7,
                Band.BLOCK,
                tuple(Evidence(e.signal, e.band, rows=0, withheld=True) for e in EVIDENCE),
                labels=("coin",),
                capped=True,
            ),
        ),
        truncated=True,
        complete=True,
        signals=(),
        snapshot="bank-9",
        seq=9,
        stage_ms={"encode": 1.0},
    )


def test_what_is_withheld_survives_the_wire() -> None:
    """Sent on by a service that was given it, it is still withheld."""
    assert result_from(result_to(redacted())) == redacted()


def test_a_measure_of_a_newer_server_is_not_taken_for_withheld() -> None:
    """A field that this client does not know is a reason to update it."""
    message = result_to(RESULT)
    message.hits[0].evidence[0].ClearField("cosine")
    with pytest.raises(NewerFormat):
        result_from(message)


def test_every_outcome_of_a_batch_and_of_a_stream_is_redacted() -> None:
    """However deep the hits lie; errors between them stay."""
    batch = match_pb2.BatchMatchResponse()
    stream = match_pb2.StreamMatchResponse()
    for _ in range(3):
        batch.items.add().result.CopyFrom(result_to(RESULT))
        batch.items.add().error.message = "no image"
        stream.answers.add(id=5).result.CopyFrom(result_to(RESULT))
    for response in (batch, stream):
        without_scores(response)
    results = [i.result for i in batch.items if i.HasField("result")]
    results += [a.result for a in stream.answers]
    assert len(results) == 6
    assert {e.WhichOneof("measure") for r in results for h in r.hits for e in h.evidence} == {
        "withheld"
    }
    assert [i.error.message for i in batch.items if i.HasField("error")] == ["no image"] * 3


def test_a_person_reads_that_it_was_not_granted() -> None:
    """And no number, of a threshold neither."""
    words = hit_words(redacted().hits[0])
    assert "pdq LOG (score not granted)" in words
    assert "identical" not in words
    assert not any(number in words for number in ("0.9", "0.86", "40", "48"))


def test_a_program_reads_it_too() -> None:
    evidence = result_json(redacted())["hits"][0]["evidence"]
    assert evidence[1] == {"signal": "pdq", "band": "LOG", "withheld": True}
