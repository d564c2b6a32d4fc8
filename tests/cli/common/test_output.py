"""What commands print: every message as plain values, every hit in words."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from simsearch.cli.common.output import (
    evidence_words,
    hit_words,
    plain,
    print_json,
    print_table,
    result_json,
    verdict_name,
)
from simsearch.cli.match.match import _row
from simsearch.errors import BadContent
from simsearch.types import Band, Evidence, Hit, MatchResult, Region, SignalReport, SignalState
from simsearch.v1 import (
    bank_pb2,
    content_pb2,
    error_pb2,
    feedback_pb2,
    index_pb2,
    match_pb2,
    policy_pb2,
    proposal_pb2,
)

MODULES = (
    bank_pb2, content_pb2, error_pb2, feedback_pb2, index_pb2, match_pb2, policy_pb2, proposal_pb2,
)  # fmt: skip
MESSAGES = [
    getattr(module, name) for module in MODULES for name in module.DESCRIPTOR.message_types_by_name
]
SCALARS = {
    "string": "größe",
    "bool": True,
    "bytes": b"\x00\xff",
    "double": 0.5,
    "int32": -3,
    "uint32": 2**32 - 1,
    "uint64": 2**64 - 1,
}
"""A value of each scalar type, by the name of its field type."""


def filled(kind: type[Message]) -> Message:
    """A message with every field set, repeated ones twice; of a oneof the last stays."""
    message = kind()
    for field in message.DESCRIPTOR.fields:
        value = sample(field)
        if field.is_repeated:
            getattr(message, field.name).extend([value, value])
        elif isinstance(value, Message):
            getattr(message, field.name).CopyFrom(value)
        else:
            setattr(message, field.name, value)
    return message


def sample(field: Any) -> Any:
    if field.message_type is not None:
        kind = field.message_type._concrete_class
        return Timestamp(seconds=1) if kind is Timestamp else filled(kind)
    if field.enum_type is not None:
        return field.enum_type.values[-1].number
    names = {
        number: name.removeprefix("TYPE_").lower()
        for name, number in vars(type(field)).items()
        if name.startswith("TYPE_")
    }
    return SCALARS[names[field.type]]


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
def test_every_message_is_printable(kind: type[Message]) -> None:
    """Full or empty, any message of the protos is JSON: each set field under its own name."""
    for message in (kind(), filled(kind)):
        shown = plain(message)
        assert json.loads(json.dumps(shown)) == shown
        unset = {
            f.name
            for f in message.DESCRIPTOR.fields
            if f.has_presence and not message.HasField(f.name)
        }
        assert set(shown) == {f.name for f in message.DESCRIPTOR.fields} - unset


def test_a_bank_is_shown_in_its_own_words() -> None:
    """Numbers stay numbers, enums lose their prefix, times are ISO 8601, unset bands are absent,
    empty ones are shown."""
    bank = bank_pb2.Bank(
        name="spam",
        policy=policy_pb2.Policy(
            cosine=[
                policy_pb2.CosineThresholds(
                    space="toy@1", query=content_pb2.MODALITY_IMAGE, review=0.86
                )
            ],
            hamming=[
                policy_pb2.HammingThresholds(signal=content_pb2.HASH_SIGNAL_PDQ, block=31, log=0)
            ],
            digests=[
                policy_pb2.DigestRule(
                    signal=content_pb2.HASH_SIGNAL_TEXT_SHA256, band=policy_pb2.BAND_BLOCK
                )
            ],
        ),
        create_time=Timestamp(seconds=1_700_000_000),
        etag="v1",
        active_entries=2**60,
    )
    assert plain(bank) == {
        "name": "spam",
        "description": "",
        "policy": {
            "cosine": [{"space": "toy@1", "query": "IMAGE", "review": 0.86}],
            "hamming": [{"signal": "PDQ", "block": 31, "log": 0}],
            "digests": [{"signal": "TEXT_SHA256", "band": "BLOCK"}],
            "two_descriptors": False,
        },
        "create_time": "2023-11-14T22:13:20Z",
        "etag": "v1",
        "active_entries": 2**60,
        "owner": "",
        "kind": "UNSPECIFIED",
        "archived": False,
        "enabled_ratio": 0.0,
        "four_eyes": "UNSPECIFIED",
    }


def test_a_value_of_a_newer_server_is_shown_as_its_number() -> None:
    """An enum value that this release does not know is no reason to show nothing."""
    entry = bank_pb2.Entry(key=1, state=99)  # type: ignore[arg-type]
    assert plain(entry)["state"] == 99


def test_bytes_are_shown_in_hex() -> None:
    """As hashes are written everywhere."""
    assert plain(content_pb2.Hash(value=b"\x01\xff"))["value"] == "01ff"


# ---------------------------------------------------------------- hits in words

PDQ = Evidence("pdq", Band.BLOCK, hamming=14, threshold=31.0)
COSINE = Evidence("copyclip@1f2e3d4c5b6a/squash/256", Band.REVIEW, cosine=0.912344, threshold=0.86)
DIGEST = Evidence("sha256", Band.BLOCK)


@pytest.mark.parametrize(
    ("evidence", "words"),
    [
        (PDQ, "pdq 14 ≤ 31 bits"),
        (Evidence("pdq", Band.BLOCK, hamming=0, threshold=0.0), "pdq 0 ≤ 0 bits"),
        (COSINE, "copyclip cosine 0.91234 ≥ 0.86"),
        (Evidence("toy@1/x/2", Band.LOG, cosine=-0.5, threshold=-1.0), "toy cosine -0.50000 ≥ -1"),
        (Evidence("toy@1/x/2", Band.LOG, cosine=0.0, threshold=0.0), "toy cosine 0.00000 ≥ 0"),
        (DIGEST, "sha256 identical"),
        (
            replace(PDQ, region=Region(0, 0.104, 0.5, 0.897)),
            "pdq 14 ≤ 31 bits in 0-50 % × 10-90 %",
        ),
    ],
)
def test_evidence_says_what_was_measured_against_what(evidence: Evidence, words: str) -> None:
    """The scale is named, its direction visible, its unit last; zero is a number."""
    assert evidence_words(evidence) == words


def test_a_hit_says_which_entry_and_why() -> None:
    """All evidence in its order, and that a BLOCK was held back where it was."""
    assert hit_words(Hit("spam", 17, Band.BLOCK, (DIGEST, PDQ))) == (
        "spam/17 sha256 identical, pdq 14 ≤ 31 bits"
    )
    assert hit_words(Hit("spam", 17, Band.REVIEW, (PDQ,), capped=True)) == (
        "spam/17 pdq 14 ≤ 31 bits (held at REVIEW: one descriptor)"
    )


def result(*hits: Hit, **changes: Any) -> MatchResult:
    fields: dict[str, Any] = {
        "verdict": max((h.band for h in hits), default=Band.NONE),
        "hits": hits,
        "truncated": False,
        "complete": True,
        "signals": (),
        "snapshot": "bank-3",
        "seq": 5,
    }
    return MatchResult(**(fields | changes))


def test_no_hit_is_no_match() -> None:
    """The verdict's name, never an empty word."""
    assert verdict_name(result()) == "NO_MATCH"
    assert verdict_name(result(Hit("spam", 1, Band.LOG, (PDQ,)))) == "LOG"


def test_a_result_in_json_says_everything() -> None:
    """Measures that are not there are absent, not null; times have three decimals."""
    hit = Hit("spam", 17, Band.BLOCK, (DIGEST, PDQ, COSINE), ("scam",), "tips", "t-1")
    report = SignalReport("minhash", SignalState.LOW_INFORMATION, "the text is too short")
    shown = result_json(result(hit, signals=(report,), stage_ms={"encode": 1.23456}))
    assert shown == {
        "verdict": "BLOCK",
        "hits": [
            {
                "bank": "spam",
                "entry_key": 17,
                "band": "BLOCK",
                "capped": False,
                "disputed": False,
                "bank_etag": "",
                "labels": ["scam"],
                "source": "tips",
                "source_id": "t-1",
                "evidence": [
                    {"signal": "sha256", "band": "BLOCK", "rows": 1},
                    {
                        "signal": "pdq",
                        "band": "BLOCK",
                        "rows": 1,
                        "hamming": 14,
                        "threshold": 31.0,
                    },
                    {
                        "signal": COSINE.signal,
                        "band": "REVIEW",
                        "rows": 1,
                        "cosine": 0.912344,
                        "threshold": 0.86,
                    },
                ],
            }
        ],
        "shadow": [],
        "suppressed": [],
        "truncated": False,
        "complete": True,
        "stopped_early": False,
        "signals": [
            {"signal": "minhash", "state": "low_information", "detail": "the text is too short"}
        ],
        "snapshot": "bank-3",
        "seq": 5,
        "stage_ms": {"encode": 1.235},
    }
    assert json.loads(json.dumps(shown)) == shown


def test_a_row_of_the_table_never_hides_what_is_missing() -> None:
    """Truncated and incomplete answers say so beside their verdict; a refusal is a row too."""
    hit = Hit("spam", 1, Band.LOG, (PDQ,))
    assert _row("a.png", result(hit)) == ("a.png", "LOG", "spam/1 pdq 14 ≤ 31 bits")
    assert "truncated" in _row("a.png", result(hit, truncated=True))[2]
    lost = SignalReport("toy@1/x/2", SignalState.UNAVAILABLE, "no encoder for it")
    fine = SignalReport("pdq", SignalState.SEARCHED, "")
    name, verdict, words = _row("a.png", result(complete=False, signals=(fine, lost)))
    assert (name, verdict, words) == ("a.png", "NO_MATCH", "INCOMPLETE: toy: no encoder for it")
    early = result(hit, complete=False, stopped_early=True)
    assert _row("a.png", early)[2].splitlines() == [
        "spam/1 pdq 14 ≤ 31 bits",
        "stopped early: blocked by an equal digest, nothing else was asked",
    ]
    assert _row("a.png", BadContent("broken")) == ("a.png", "BAD_CONTENT", "broken")


# ---------------------------------------------------------------- printing


def test_json_is_for_people_too(capsys: pytest.CaptureFixture[str]) -> None:
    """Indented, one final newline, letters as they are."""
    print_json({"name": "größe"})
    assert capsys.readouterr().out == '{\n  "name": "größe"\n}\n'


def test_a_table_shows_its_cells_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    """What an analyst wrote is no markup, and a line of ordinary length is not cut."""
    print_table(("field", "value"), [("note", "[red]not red[/red] [1]"), ("id", "x" * 100)], "card")
    out = capsys.readouterr().out
    assert "[red]not red[/red] [1]" in out
    assert "x" * 100 in out
    assert out.splitlines()[0].strip() == "card"
    assert "\x1b" not in out
