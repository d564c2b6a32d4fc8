"""Opinions in partners' shapes: byte for byte, with nobody's name in them, and the rest counted."""

from __future__ import annotations

import csv
import io
import json
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from simsearch.errors import BadRequest
from simsearch.lists.opinions.opined_entries import (
    COLUMNS,
    Consensus,
    EntryWithOpinions,
    OpinionsWritten,
    consensus_of,
)
from simsearch.lists.opinions.partner_formats import (
    FOREIGN_ID,
    NO_CONSENSUS,
    NO_HASH,
    NO_REASON,
    NO_SOURCE_ID,
    NOT_EXPRESSIBLE,
    OTHER_SOURCE,
    OpinionFormat,
    opinion_format_named,
    write_opinions,
)
from simsearch.types import (
    Change,
    ChangeKind,
    Entry,
    EntryState,
    Fingerprint,
    Opinion,
    OpinionDraft,
    OpinionKind,
    Signal,
)

TX, NCMEC, STOPNCII = OpinionFormat.THREATEXCHANGE, OpinionFormat.NCMEC, OpinionFormat.STOPNCII
T, F, L, D, N, O = OpinionKind  # noqa: E741  # in the order of the enum
PRINTS = Fingerprint(
    digests={Signal.MD5: (bytes.fromhex("9e107d9d372bb6826bd81d3542a419d6"),)},
    bits={Signal.PDQ: np.full((1, 32), 0xF8, np.uint8)},
)


def opined(
    key: int,
    *kinds: OpinionKind,
    source: str,
    ids: tuple[str, ...] = (),
    fingerprints: Fingerprint = PRINTS,
) -> EntryWithOpinions:
    """Each kind held by somebody else."""
    added = Change(1, ChangeKind.ENTRY_ADDED, 1, key, "importer", "a list", 1)
    labels = ("nude", "scam; poster")
    entry = Entry(
        key, 1, EntryState.ACTIVE, labels, source, (*ids, "")[0], "", {}, added, aliases=ids[1:]
    )
    opinions = tuple(
        Opinion(
            OpinionDraft(kind, "größe\r\nseen", b"\x02" * 32, "case-9"),
            Change(
                10 * key + n, ChangeKind.OPINION_GIVEN, 1, key, f"person-{n}", "why",
                1_700_000_000_000_000 + n,
            ),
        )
        for n, kind in enumerate(kinds)
    )  # fmt: skip
    return EntryWithOpinions("tx", entry, fingerprints, opinions, opinions)


def written(
    format: OpinionFormat, *entries: EntryWithOpinions, **given: object
) -> tuple[str, OpinionsWritten]:
    file = io.BytesIO()
    done = write_opinions(entries, file, format, **given)  # type: ignore[arg-type]
    return file.getvalue().decode(), done


# ---------------------------------------------------------------- what is held


@pytest.mark.parametrize(
    ("kinds", "consensus"),
    [
        ([], None), ([D, N, O], None), ([T], Consensus.RIGHT), ([F], Consensus.WRONG),
        ([T, F], Consensus.UNSURE), ([L, F], Consensus.UNSURE), ([T, T, F], Consensus.RIGHT),
        ([T, F, F, N], Consensus.WRONG), ([L], Consensus.MISLABELLED), ([L, T], Consensus.RIGHT),
        ([L, L, T, F], Consensus.MISLABELLED),
    ],
)  # fmt: skip
def test_most_people_decide(kinds: list[OpinionKind], consensus: Consensus | None) -> None:
    """Of those who say whether it matched what it should; a wrong label is rightly matched."""
    assert consensus_of(opined(1, *kinds, source="")) is consensus


def test_only_opinions_that_stand_decide() -> None:
    entry = opined(1, T, F, F, source="")
    assert consensus_of(replace(entry, standing=entry.opinions[:1])) is Consensus.RIGHT


# ---------------------------------------------------------------- partners

TX_GOLDEN = """{"data": [
 {"descriptor_id": "9001", "reactions": "HELPFUL,SAW_THIS_TOO", "category": "POSITIVE_CLASS"},
 {"descriptor_id": "9002", "reactions": "HELPFUL,SAW_THIS_TOO", "category": "POSITIVE_CLASS"},
 {"descriptor_id": "447", "reactions": "NOT_HELPFUL,DISAGREE_WITH_TAGS", "category": \
"NEGATIVE_CLASS"},
 {"descriptor_id": "448", "reactions": "HELPFUL,SAW_THIS_TOO,DISAGREE_WITH_TAGS", "category": \
"POSITIVE_CLASS"},
 {"descriptor_id": "449", "reactions": "SAW_THIS_TOO", "category": "INVESTIGATION_SEED"}]}
"""


def test_threatexchange_gets_reactions_to_descriptors() -> None:
    """To those of an indicator, and not to the indicator itself."""
    text, done = written(
        TX,
        opined(1, T, source="threatexchange", ids=("446", "9001", "9002")),
        opined(2, F, source="threatexchange", ids=("447",)),
        opined(3, L, source="threatexchange", ids=("448",)),
        opined(4, T, F, source="threatexchange", ids=("449",)),
    )
    assert text == TX_GOLDEN
    assert json.loads(text)["data"]
    assert done == OpinionsWritten(4, 5, {})


NCMEC_GOLDEN = """<?xml version="1.0" encoding="UTF-8"?>
<requests>
  <put path="entries/42/image1/MD5/feedback"><feedbackSubmission \
xmlns="https://hashsharing.ncmec.org/hashsharing/v2"><affirmative/></feedbackSubmission></put>
  <put path="entries/42/image1/PDQ/feedback"><feedbackSubmission \
xmlns="https://hashsharing.ncmec.org/hashsharing/v2"><affirmative/></feedbackSubmission></put>
  <put path="entries/43/a-%2F%26%22b/MD5/feedback"><feedbackSubmission \
xmlns="https://hashsharing.ncmec.org/hashsharing/v2"><negative><reasonIds><guid>01&amp;02</guid>\
</reasonIds></negative></feedbackSubmission></put>
</requests>
"""


def test_ncmec_gets_votes_on_fingerprints() -> None:
    """One for each kind that the entry has; a negative one with a reason."""
    md5 = Fingerprint(digests=PRINTS.digests)
    text, done = written(
        NCMEC,
        opined(1, T, source="ncmec", ids=("42-image1",)),
        opined(2, F, source="ncmec", ids=('43-a-/&"b',), fingerprints=md5),
        reason_guids={"MD5": "01&02"},
    )
    assert text == NCMEC_GOLDEN
    puts = ET.fromstring(text)
    guid = puts[2][0].find(".//{https://hashsharing.ncmec.org/hashsharing/v2}guid")
    assert guid is not None
    assert guid.text == "01&02"
    assert done == OpinionsWritten(2, 3, {})


STOPNCII_GOLDEN = """{"count": 4, "hashFeedbacks": [
 {"hashValue": "%(pdq)s", "feedbackValue": "Blocked", "tags": ["nude", "scam; poster"], \
"caseNumbers": ["27664732", "27664733"]},
 {"hashValue": "9e107d9d372bb6826bd81d3542a419d6", "feedbackValue": "Blocked", \
"tags": ["nude", "scam; poster"], "caseNumbers": ["27664732", "27664733"]},
 {"hashValue": "%(pdq)s", "feedbackValue": "NotBlocked", "tags": [], "caseNumbers": ["5"]},
 {"hashValue": "%(pdq)s", "feedbackValue": "PendingReview", "tags": [], "caseNumbers": ["6"]}]}
""" % {"pdq": "f8" * 32}  # noqa: UP031  # the text is full of braces


def test_stopncii_gets_feedback_on_hashes_with_their_cases() -> None:
    pdq = Fingerprint(bits=PRINTS.bits)
    text, done = written(
        STOPNCII,
        opined(1, T, source="stopncii", ids=("27664732", "27664733")),
        opined(2, F, source="stopncii", ids=("5",), fingerprints=pdq),
        opined(3, T, F, source="stopncii", ids=("6",), fingerprints=pdq),
    )
    assert text == STOPNCII_GOLDEN
    assert json.loads(text)["count"] == 4
    assert done == OpinionsWritten(3, 4, {})


def test_what_is_not_said_is_counted_by_why() -> None:
    """For each partner what it has no words, no id or no hash for."""
    none = Fingerprint(digests={Signal.SHA256: (bytes(32),)})
    for format, source in ((TX, "threatexchange"), (NCMEC, "ncmec"), (STOPNCII, "stopncii")):
        entries = [
            opined(1, T, source="tips line", ids=("7-7",)),
            opined(2, T, source=source),
            opined(3, T, source=source),
            opined(4, N, D, O, source=source, ids=("7-7",)),
            opined(5, L, source=source, ids=("7-7",)),
            opined(6, T, source=source, ids=("7-7",), fingerprints=none),
            opined(7, T, F, source=source, ids=("7-7",)),
            opined(8, F, source=source, ids=("7-7",)),
            opined(9, T, source=source, ids=("x-7",)),
        ]
        text, done = written(format, *entries)
        common = {OTHER_SOURCE: 1, NO_SOURCE_ID: 2, NO_CONSENSUS: 1}
        assert done.left_out == dict(
            Counter(common)
            + {
                TX: Counter(),
                NCMEC: Counter({NOT_EXPRESSIBLE: 2, NO_HASH: 1, NO_REASON: 1, FOREIGN_ID: 1}),
                STOPNCII: Counter({NOT_EXPRESSIBLE: 1, NO_HASH: 1}),
            }[format]
        )
        assert done.entries + sum(done.left_out.values()) == len(entries)
        assert "person-" not in text
        assert "seen" not in text
        assert "case-9" not in text


def test_a_partner_of_another_name_is_named() -> None:
    entry = opined(1, T, source="Our Collab", ids=("9001",))
    assert written(TX, entry)[1].left_out == {OTHER_SOURCE: 1}
    assert written(TX, entry, source="Our Collab")[1].records == 1


@pytest.mark.parametrize("format", [TX, NCMEC, STOPNCII])
def test_nothing_to_say_is_said_in_the_same_shape(format: OpinionFormat) -> None:
    text, done = written(format)
    assert done == OpinionsWritten(0, 0, {})
    if format is NCMEC:
        assert len(ET.fromstring(text)) == 0
    else:
        assert json.loads(text) in ({"data": []}, {"count": 0, "hashFeedbacks": []})


# ---------------------------------------------------------------- everything


def test_jsonl_and_csv_hold_every_opinion_with_all_that_was_said() -> None:
    """The superseded ones, too; line ends and all other signs come back."""
    entry = opined(3, F, T, source="tips", ids=("t-1", "t-2"))
    entry = replace(entry, standing=entry.opinions[1:])
    text, done = written(OpinionFormat.JSONL, entry)
    first, second = map(json.loads, text.splitlines())
    assert list(first) == list(COLUMNS)
    assert first == {
        "bank": "tx", "entry": 3, "kind": "false_positive", "actor": "person-0",
        "time": "2023-11-14T22:13:20+00:00", "reason": "why", "note": "größe\r\nseen",
        "case_id": "case-9", "content_sha256": "02" * 32, "superseded": True, "seq": 30,
        "labels": ["nude", "scam; poster"], "source": "tips", "source_ids": ["t-1", "t-2"],
    }  # fmt: skip
    assert second["superseded"] is False
    assert done == OpinionsWritten(1, 2, {})
    table, _ = written(OpinionFormat.CSV, entry)
    rows = list(csv.DictReader(io.StringIO(table, newline="")))
    assert [row["note"] for row in rows] == ["größe\r\nseen"] * 2
    assert (rows[0]["superseded"], rows[0]["labels"]) == ("true", '["nude", "scam; poster"]')
    assert table.splitlines()[0] == ",".join(COLUMNS)


def test_an_unknown_format_is_refused() -> None:
    assert opinion_format_named("ncmec") is NCMEC
    with pytest.raises(BadRequest, match="choose jsonl, csv"):
        opinion_format_named("xlsx")
