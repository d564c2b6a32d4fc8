"""Policies on a command line: one threshold at a time, or a whole one from JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simsearch.cli.banks.policy_text import _set_threshold, policy_rows, read_policy
from simsearch.cli.common.output import plain
from simsearch.errors import BadPolicy
from simsearch.types import (
    Band,
    CosineRule,
    DigestRule,
    HammingRule,
    Modality,
    Policy,
    Signal,
)
from simsearch.v1 import bank_pb2, policy_pb2
from simsearch.wire import policy_from, policy_to

CLIP = "copyclip@1f2e3d4c5b6a/squash128-bilinear/256"
SPACES = {"copyclip": CLIP, "minilm": "minilm@0a0b0c0d0e0f/strong1/384"}

BASE = Policy(
    cosine=(CosineRule(CLIP, Modality.IMAGE, review=0.86, log=0.8),),
    hamming=(HammingRule(Signal.PDQ, block=31, review=38),),
    digests=(DigestRule(Signal.MD5, Band.REVIEW),),
)


def changed(*written: str, base: Policy = BASE) -> Policy:
    policy = policy_to(base)
    for one in written:
        _set_threshold(policy, one, SPACES)
    return policy_from(policy, str)


def cosine(*written: str) -> tuple[CosineRule, ...]:
    return changed(*written).cosine


# ---------------------------------------------------------------- --threshold


def test_a_threshold_is_set_and_the_rest_stays() -> None:
    """One band of one rule; every other rule and band is as it was."""
    assert changed("pdq.block=20") == Policy(
        BASE.cosine, (HammingRule(Signal.PDQ, block=20, review=38),), BASE.digests
    )
    assert cosine("copyclip.review=0.9") == (CosineRule(CLIP, Modality.IMAGE, None, 0.9, 0.8),)


def test_several_thresholds_are_set_one_after_another() -> None:
    """Each sees what the one before it left."""
    assert changed("pdq.log=50", "pdq.log=45", "pdq.review=").hamming == (
        HammingRule(Signal.PDQ, block=31, log=45),
    )


def test_an_empty_value_drops_the_band() -> None:
    """Zero does not: it is a threshold."""
    assert cosine("copyclip.log=") == (CosineRule(CLIP, Modality.IMAGE, review=0.86),)
    assert changed("pdq.block=0").hamming == (HammingRule(Signal.PDQ, block=0, review=38),)
    assert cosine("copyclip.log=0") == (CosineRule(CLIP, Modality.IMAGE, review=0.86, log=0.0),)


def test_dropping_the_last_band_drops_the_rule() -> None:
    """A rule without a threshold is no policy; dropping what was never there is no change."""
    assert changed("pdq.block=", "pdq.review=").hamming == ()
    assert cosine("copyclip.review=", "copyclip.log=") == ()
    assert changed("minhash.log=") == BASE


@pytest.mark.parametrize("name", ["copyclip", "copyclip:image", CLIP, f"{CLIP}:image"])
def test_a_space_goes_by_its_encoder_or_its_id(name: str) -> None:
    """With or without the kind of query, where there is only one rule."""
    assert cosine(f"{name}.block=0.99") == (CosineRule(CLIP, Modality.IMAGE, 0.99, 0.86, 0.8),)


def test_a_new_rule_is_added_for_what_has_none() -> None:
    """Bits by their signal, vectors by space and kind of query."""
    assert changed("minhash.review=72").hamming[1] == HammingRule(Signal.MINHASH, review=72)
    assert cosine("minilm:text.review=0.85")[1] == CosineRule(
        SPACES["minilm"], Modality.TEXT, review=0.85
    )


def test_a_text_is_let_into_a_space_of_images() -> None:
    """The cross-modal rule is a rule of its own: the one for images stays."""
    assert cosine("copyclip:text.review=0.3") == (
        *BASE.cosine,
        CosineRule(CLIP, Modality.TEXT, review=0.3),
    )
    both = changed("copyclip:text.review=0.3", "copyclip:text.log=0.2", "copyclip:image.log=0.7")
    assert both.cosine == (
        CosineRule(CLIP, Modality.IMAGE, review=0.86, log=0.7),
        CosineRule(CLIP, Modality.TEXT, review=0.3, log=0.2),
    )


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("", "write SIGNAL.BAND=VALUE"),
        ("pdq", "write SIGNAL.BAND=VALUE"),
        ("pdq.block", "write SIGNAL.BAND=VALUE"),
        ("pdq=31", "write SIGNAL.BAND=VALUE"),
        ("pdq.none=31", "write SIGNAL.BAND=VALUE"),
        ("pdq.BLOCK=31", "write SIGNAL.BAND=VALUE"),
        ("pdq.block=near", "'near' is no threshold"),
        ("pdq.block=31.5", "'31.5' is no threshold"),
        ("pdq.block=99999999999", "'99999999999' is no threshold"),
        ("copyclip.review=high", "'high' is no threshold"),
        ("minilm.review=0.85", "write minilm:image or minilm:text"),
        ("copyclip:video.review=0.3", "write copyclip:image or copyclip:text"),
        ("copyclip:.review=0.3", "write copyclip:image or copyclip:text"),
    ],
)
def test_a_malformed_threshold_is_refused(written: str, words: str) -> None:
    """What was written, and how to write it; nothing is taken for something near it."""
    with pytest.raises(BadPolicy) as refused:
        changed(written)
    assert words in refused.value.message
    assert refused.value.message.startswith("'")


def test_a_threshold_that_could_mean_two_rules_is_refused() -> None:
    """With rules for images and for texts, the kind must be said."""
    with pytest.raises(BadPolicy, match="write copyclip:image or copyclip:text"):
        changed("copyclip:text.review=0.3", "copyclip.review=0.9")


# ---------------------------------------------------------------- --policy

cosines = st.one_of(st.none(), st.floats(-1, 1))
distances = st.one_of(st.none(), st.integers(0, 256))
policies = st.builds(
    Policy,
    cosine=st.lists(
        st.builds(
            CosineRule,
            space=st.sampled_from([CLIP, "größe@1/x/2"]),
            query=st.sampled_from(Modality),
            block=cosines,
            review=cosines,
            log=cosines,
        ),
        max_size=2,
    ).map(tuple),
    hamming=st.lists(
        st.builds(
            HammingRule,
            signal=st.sampled_from([Signal.PDQ, Signal.MINHASH]),
            block=distances,
            review=distances,
            log=distances,
        ),
        max_size=2,
    ).map(tuple),
    digests=st.lists(
        st.builds(
            DigestRule,
            signal=st.sampled_from([Signal.SHA256, Signal.MD5, Signal.TEXT_SHA256]),
            band=st.sampled_from([Band.LOG, Band.REVIEW, Band.BLOCK]),
        ),
        max_size=2,
    ).map(tuple),
    two_descriptors=st.booleans(),
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(policies, st.booleans())
def test_what_bank_get_prints_reads_back_equal(
    tmp_path: Path, policy: Policy, whole_bank: bool
) -> None:
    """`bank get --json` into a file, and `--policy` of that file: the same policy, be it the
    whole bank or its policy alone."""
    sent = policy_to(policy)
    shown = plain(bank_pb2.Bank(name="spam", policy=sent) if whole_bank else sent)
    path = tmp_path / "policy.json"
    path.write_text(json.dumps(shown), encoding="utf-8")
    assert read_policy(path) == (sent, "")


def test_a_policy_may_spell_enums_as_protobuf_does(tmp_path: Path) -> None:
    """JSON that another tool made from the proto is read as well."""
    path = tmp_path / "policy.json"
    rule = {"signal": "HASH_SIGNAL_MD5", "band": "BAND_LOG"}
    path.write_text(json.dumps({"digests": [rule], "twoDescriptors": True}), encoding="utf-8")
    expected = Policy(digests=(DigestRule(Signal.MD5, Band.LOG),), two_descriptors=True)
    assert read_policy(path)[0] == policy_to(expected)


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        "policy",
        7,
        {"policy": None},
        {"cosine": None},
        {"cosine": 3},
        {"cosine": [3]},
        {"cosine": ["query"]},
        {"digests": [{"signal": 3, "band": "LOG"}]},
        {"digests": [{"signal": "CRC32", "band": "LOG"}]},
        {"digests": [{"signal": "MD5", "band": "LOUD"}]},
        {"hamming": [{"signal": "PDQ", "block": "near"}]},
        {"hamming": [{"signal": "PDQ", "block": 31.5}]},
        {"treshold": 1},
    ],
)
def test_json_that_is_no_policy_is_refused(tmp_path: Path, value: Any) -> None:
    """Whatever its shape, the file is named and nothing half-read is sent."""
    path = tmp_path / "policy.json"
    path.write_text(json.dumps(value), encoding="utf-8")
    with pytest.raises(BadPolicy) as refused:
        read_policy(path)
    assert refused.value.message.startswith(f"{path} is no policy: ")


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe"])
def test_a_file_that_is_no_json_is_refused(tmp_path: Path, data: bytes) -> None:
    """Broken JSON and another encoding name the file."""
    path = tmp_path / "policy.json"
    path.write_bytes(data)
    with pytest.raises(BadPolicy, match=r"policy\.json is no policy: "):
        read_policy(path)


def test_a_missing_policy_file_is_refused(tmp_path: Path) -> None:
    """By its path and what the system said."""
    with pytest.raises(BadPolicy, match=r"^cannot read .*: No such file or directory$"):
        read_policy(tmp_path / "none.json")


# ---------------------------------------------------------------- in words


def test_a_policy_is_shown_with_the_direction_of_each_scale() -> None:
    """Cosines from below, distances from above, digests by equality; unused bands are blank."""
    rows = policy_rows(policy_to(BASE))
    assert rows == [
        (f"{CLIP} (image)", "", "≥ 0.86", "≥ 0.8"),
        ("pdq (bits)", "≤ 31", "≤ 38", ""),
        ("md5", "", "equal", ""),
    ]
    assert policy_rows(policy_pb2.Policy()) == []
