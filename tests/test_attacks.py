"""The attack suites: statistics that keep to their half, attacks that are always the same, and a
small run from pictures to the figures."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from benchmarks import image_attacks, text_attacks
from benchmarks.attacks.descriptors import Cosine, Digest, Hamming, held_at, of_the_whole
from benchmarks.attacks.edits import CHARACTER, TEXT_ATTACKS, TextAttack
from benchmarks.attacks.judging import house
from benchmarks.attacks.measuring import column_beside, column_of
from benchmarks.attacks.photographs import Cast, Photograph, cast, is_held_out, photographs_of
from benchmarks.attacks.pictures import ATTACKS, Attack
from benchmarks.attacks.posts import Posts, are_rewordings
from benchmarks.attacks.remembering import remembered
from benchmarks.attacks.statistics import (
    FalsePositives,
    allowed_of,
    cut,
    halves,
    is_supported,
    mean_recall,
    wilson,
)
from benchmarks.attacks.systems import System, set_thresholds
from simsearch.encode.fingerprint import ContentFingerprint
from simsearch.encode.registry import EncoderSet
from simsearch.errors import BadConfig, SpaceUnavailable
from simsearch.types import (
    WHOLE_PICTURE,
    Fingerprint,
    ImageContent,
    Modality,
    PicturePart,
    Region,
    Signal,
)
from tests.encode.pictures import landscape, saved
from tests.fakes import PICTURES, PROSE, FakeImageEncoder, FakeTextEncoder, encoders

SIZE = (120, 90)
COSINE = Cosine("cosine", PICTURES.id, Modality.IMAGE)
OTHER = Cosine("other", PROSE.id, Modality.IMAGE)
PDQ = held_at(Hamming("pdq", Signal.PDQ), 31)

PLAIN = "I really think that those people should never come back here again"
FILLER = ["somebody wrote this about the weather", "and that was about dinner last night"]


def photograph(seed: int) -> Photograph:
    return Photograph(f"{seed}.png", "made", saved(landscape(seed, SIZE), "PNG"))


def players(banked: int = 5, negatives: int = 8) -> Cast:
    made = [photograph(seed) for seed in range(banked + negatives + 2)]
    return Cast(made[:banked], made[banked:-2], made[-2:])


def attacks(*names: str) -> list[Attack]:
    return [attack for attack in ATTACKS if attack.name in names]


# ---------------------------------------------------------------- statistics


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(0, 10, 0.0, 0.2775), (8, 10, 0.4902, 0.9433), (10, 10, 0.7225, 1.0), (0, 0, 0.0, 1.0)],
)
def test_the_interval_of_a_share_is_wilsons(
    successes: int, trials: int, low: float, high: float
) -> None:
    """Values from the formula in Wilson's paper, by hand."""
    assert wilson(successes, trials) == pytest.approx((low, high), abs=5e-5)


def test_false_positives_have_exact_bounds() -> None:
    """None of 2,995 negatives bounds the rate near 1e-3: both sides, so a little above."""
    none = FalsePositives(0, 2995)
    assert (none.rate, none.bounds[0]) == (0.0, 0.0)
    assert none.bounds[1] == pytest.approx(1 - 0.025 ** (1 / 2995), abs=1e-9)


def test_halves_share_no_negative_and_lose_none() -> None:
    """What sets a threshold is never counted."""
    both = halves(101, seed=4)
    assert set(both.setting) | set(both.reporting) == set(range(101))
    assert not set(both.setting) & set(both.reporting)
    assert np.array_equal(halves(101, seed=4).setting, both.setting)
    assert not np.array_equal(halves(101, seed=5).setting, both.setting)


@pytest.mark.parametrize(
    ("fpr", "negatives", "allowed", "supported"),
    [(1e-3, 999, 0, False), (1e-3, 1000, 1, True), (1e-4, 9999, 0, False), (0.1, 30, 3, True)],
)
def test_a_rate_needs_as_many_negatives_as_it_has_zeros(
    fpr: float, negatives: int, allowed: int, supported: bool
) -> None:
    """A rate that grants not one of the negatives is not measured by them."""
    assert (allowed_of(fpr, negatives), is_supported(fpr, negatives)) == (allowed, supported)


@settings(max_examples=40)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=20), st.integers(0, 22))
def test_a_cut_lets_no_more_pass_than_are_allowed(values: list[int], allowed: int) -> None:
    """And no value lower than it would do."""
    closest = np.array(values, np.float64)
    at = cut(closest, allowed)
    assert (closest > at).sum() <= allowed
    lower = closest[closest < at]
    assert len(lower) == 0 or (closest > lower.max()).sum() > allowed


def test_the_interval_of_a_mean_goes_by_entries() -> None:
    """Copies of one entry stand and fall together, so attacks add no certainty."""
    one = np.array([[True, False] * 10])
    assert mean_recall(one) == mean_recall(np.repeat(one, 50, axis=0))
    assert mean_recall(one).value == 0.5
    assert mean_recall(one).low < 0.4 < 0.6 < mean_recall(one).high


closest_values = st.lists(
    st.tuples(st.integers(-50, 0), st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=40
)


@settings(max_examples=40)
@given(closest_values, st.sampled_from([0.0, 0.05, 0.2, 0.5]))
def test_the_parts_of_a_system_share_its_false_positives(
    values: list[tuple[int, int, int]], fpr: float
) -> None:
    """Together they hit no more than are granted, unless the fixed part alone does already; then
    the others add none."""
    columns = np.array(values, np.float64).T
    closest = {"pdq": columns[0], "cosine": columns[1] / 20, "other": columns[2] / 20}
    found = set_thresholds(System("all", (COSINE, PDQ, OTHER)), closest, fpr)
    hits = int(found.found(closest).sum())
    assert hits <= max(found.granted, found.by_fixed)
    assert found.at["pdq"] == -31
    assert found.is_over == (int((closest["pdq"] >= -31).sum()) > found.granted)


def test_what_one_part_has_used_up_is_not_there_for_the_next() -> None:
    """Four of ten are granted: two to each, where each has its own."""
    rising = np.arange(10) / 10
    closest = {"cosine": rising, "other": rising[::-1]}
    found = set_thresholds(System("both", (COSINE, OTHER)), closest, 0.4)
    assert found.false_positives(closest).hits == found.granted == 4
    assert [found.at[name] for name in ("cosine", "other")] == pytest.approx([0.70001] * 2)


# ---------------------------------------------------------------- descriptors


def test_the_closest_rows_count() -> None:
    """A query of several rows, an entry of several rows; who lacks the signal is close to
    nothing."""
    rows = np.zeros((3, 32), np.uint8)
    rows[1, 0], rows[2, :4] = 0b111, 255
    bank = [Fingerprint(bits={Signal.PDQ: rows[[2, 2]]}), Fingerprint()]
    asked = [Fingerprint(bits={Signal.PDQ: rows[[0, 2]]}), Fingerprint(bits={Signal.PDQ: rows[:2]})]
    each_way = Hamming("pdq", Signal.PDQ)
    assert each_way.closeness(asked, bank).tolist() == [[0, -math.inf], [-29, -math.inf]]
    upright = replace(each_way, upright=True)
    assert upright.closeness(asked, bank)[:, 0].tolist() == [-32, -32]
    assert each_way.closeness(bank, asked)[0].tolist() == [0, -29]


def test_a_descriptor_of_the_whole_sees_no_parts() -> None:
    """Rows of regions are left out, and the whole may have none."""
    rows = np.arange(3, dtype=np.uint8)[:, np.newaxis].repeat(32, axis=1)
    part_of_row = {"pdq": np.array([0, 1, 1], np.uint8), "toy": np.array([1], np.uint8)}
    vectors = {"toy": np.ones((1, 2), np.float32), "other": np.ones((1, 2), np.float32)}
    asked = ContentFingerprint(
        Fingerprint(bits={Signal.PDQ: rows}, vectors=vectors),
        Modality.IMAGE,
        parts=(WHOLE_PICTURE, PicturePart(region=Region(0, 0, 0.5, 1))),
        part_of_row=part_of_row,
    )
    kept = of_the_whole(asked)
    assert kept.bits[Signal.PDQ].tolist() == [[0] * 32]
    assert [len(kept.vectors[space]) for space in ("toy", "other")] == [0, 1]
    bank = [Fingerprint(bits={Signal.PDQ: rows[2:]}, vectors=vectors)]
    of_parts, of_whole = (Hamming("pdq", Signal.PDQ, whole=whole) for whole in (False, True))
    assert of_parts.closeness([asked.fingerprint], bank).tolist() == [[0]]
    assert of_whole.closeness([kept], bank)[0, 0] < -31
    nothing = Cosine("toy", "toy", Modality.IMAGE, whole=True).closeness([kept], bank)
    assert nothing.tolist() == [[-math.inf]]


def test_a_threshold_just_above_a_pair_lets_it_not_pass() -> None:
    """In the steps of each measure; what nothing can pass is no rule."""
    assert COSINE.above(0.51234) == 0.51235
    assert PDQ.above(-40.0) == -39
    assert (COSINE.rule(COSINE.above(1.0)), PDQ.rule(PDQ.above(0.0))) == (None, None)
    assert Digest("digests", Signal.MD5).above(1.0) == 1.0


# ---------------------------------------------------------------- attacks


def test_there_are_enough_attacks_and_each_has_a_name() -> None:
    """Twenty were asked for, of pictures; a name appears once."""
    for suite in (ATTACKS, TEXT_ATTACKS):
        names = [attack.name for attack in suite]
        assert len(set(names)) == len(names) >= 20


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_an_attack_on_a_picture_is_always_the_same(attack: Attack) -> None:
    """For one seed and number, byte for byte; the picture given stays as it was."""
    picture = landscape(0, SIZE)
    before = picture.tobytes()
    props = [landscape(1, SIZE), landscape(2, (64, 80))]
    file = attack.file(picture, 3, seed=7, props=props)
    assert attack.file(picture, 3, seed=7, props=props) == file
    assert picture.tobytes() == before
    made = attack.make(picture, attack.rng(3, 7), props)
    assert made.mode == "RGB"
    assert made.size != SIZE or made.tobytes() != before


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("half_size", (60, 45)),
        ("thumbnail", (96, 72)),
        ("crop_10", (108, 81)),
        ("crop_30_corner", (84, 63)),
        ("rotate_90", (90, 120)),
        ("border", (142, 112)),
        ("meme", (120, 112)),
        ("screenshot", (360, 720)),
        ("collage", (466, 466)),
        ("side_by_side", (216, 90)),
    ],
)
def test_an_attacked_picture_has_the_size_it_should(name: str, size: tuple[int, int]) -> None:
    """Of a picture of 120 × 90."""
    [attack] = attacks(name)
    assert attack.make(landscape(0, SIZE), attack.rng(0, 0), [landscape(1, SIZE)]).size == size


def test_other_pictures_and_other_seeds_are_attacked_otherwise() -> None:
    """Where an attack draws from chance at all."""
    [attack] = attacks("noise")
    picture = landscape(0, SIZE)
    files = {attack.file(picture, n, seed=s, props=[]) for n, s in ((0, 0), (1, 0), (0, 1))}
    assert len(files) == 3


@pytest.mark.parametrize("attack", TEXT_ATTACKS, ids=lambda attack: attack.name)
def test_an_attack_on_a_text_is_always_the_same_and_changes_it(attack: TextAttack) -> None:
    """For one seed and number."""
    edited = attack.text(PLAIN, 3, seed=7, filler=FILLER)
    assert edited == attack.text(PLAIN, 3, seed=7, filler=FILLER) != PLAIN
    assert edited.strip()


# ---------------------------------------------------------------- who plays which part


def test_one_photograph_in_five_is_held_out_by_its_name() -> None:
    """The rule that training keeps to: the first 8 bytes of the name's SHA-256, modulo 5."""
    names = [f"{n:05}.jpg" for n in range(1000)]
    assert [name for name in names[:12] if is_held_out(name)] == HELD_OUT_OF_12
    assert 170 < sum(map(is_held_out, names)) < 230


HELD_OUT_OF_12 = ["00008.jpg", "00009.jpg"]


def test_no_photograph_plays_two_parts(tmp_path: Path) -> None:
    """Equal files are one photograph; small ones and what is no picture are left out; a folder
    that is trained on gives what is held out alone."""
    for seed in range(12):
        saved_at = tmp_path / f"{seed:05}.jpg"
        saved_at.write_bytes(saved(landscape(seed, SIZE), "JPEG"))
    (tmp_path / "twin.jpg").write_bytes((tmp_path / "00000.jpg").read_bytes())
    (tmp_path / "small.png").write_bytes(saved(landscape(0, (40, 40)), "PNG"))
    (tmp_path / "broken.png").write_bytes(b"no picture")
    (tmp_path / "large.png").write_bytes(saved(landscape(0, (900, 600)), "PNG"))
    found = photographs_of([tmp_path], [])
    assert len(found) == 13
    assert max(max(p.picture().size) for p in found) == 512
    assert {p.name for p in photographs_of([], [tmp_path])} >= set(HELD_OUT_OF_12)
    assert all(is_held_out(p.name) for p in photographs_of([], [tmp_path]))
    roles = cast(found, bank=4, negatives=None, seed=1)
    names = [p.name for p in (*roles.banked, *roles.negatives, *roles.props)]
    assert len(names) == len(set(names)) == 13
    with pytest.raises(BadConfig, match="13 photographs"):
        cast(found, bank=300, negatives=None, seed=1)
    with pytest.raises(BadConfig, match="no folder"):
        photographs_of([tmp_path / "absent"], [])


def test_a_rewording_or_a_quotation_is_no_negative() -> None:
    """By words in common, whatever stands around them."""
    banked = ["RT @you: those people should never come back here http://a.b", "I hate snow so much"]
    texts = {
        "she said those people should never come again": True,  # a run of five words
        "I love snow so much": True,  # four words of six
        "people like snow and never hate to come here": False,
        "!!": False,
    }
    assert dict(zip(texts, are_rewordings(list(texts), banked), strict=True)) == texts


# ---------------------------------------------------------------- encoders


@pytest.mark.parametrize(
    ("name", "refusal", "said"),
    [
        ("pdq+", BadConfig, "empty part"),
        ("minilm", BadConfig, "'minilm' encodes texts"),
        ("no-such-model", BadConfig, "'no-such-model' is no model"),
        ("/no/such/model", SpaceUnavailable, "'/no/such/model' is off"),
    ],
)
def test_an_encoder_that_cannot_be_loaded_is_refused_by_name(
    name: str, refusal: type[Exception], said: str
) -> None:
    """Nothing is measured in its place."""
    with pytest.raises(refusal, match=said):
        image_attacks.encoders_of(name)


def test_what_was_encoded_once_is_remembered(tmp_path: Path) -> None:
    """Per call and space; other content is encoded."""
    texts, images = FakeTextEncoder(), FakeImageEncoder()
    for _ in range(2):
        [prose, pictures] = remembered(encoders(texts, images), tmp_path)
        assert prose.text
        assert pictures.image
        assert np.array_equal(prose.text.encode_texts(["a", "b"]), texts.encode_texts(["a", "b"]))
        pictures.image.encode_images([np.zeros((8, 8, 3), np.uint8)])
        prose.text.encode_texts(["ab"])
    assert texts.asked == [["a", "b"], ["a", "b"], ["ab"], ["a", "b"]]
    assert images.asked == [1]


def test_one_encoder_never_gets_what_another_one_gave(tmp_path: Path) -> None:
    """Two spaces, one text."""
    for space in (PROSE, PICTURES):
        asked = FakeTextEncoder(space)
        [encoder] = remembered(encoders(asked), tmp_path)
        assert encoder.text
        encoder.text.encode_texts(["a"])
        assert asked.asked == [["a"]]


# ---------------------------------------------------------------- small runs


def test_who_hits_another_entry_has_not_found_its_own() -> None:
    """A copy of the second, said to be one of the first, hits and is not found."""
    contents = [ImageContent(photograph(seed).data) for seed in (0, 1)]
    with house(contents, ["at"], [PDQ], EncoderSet({})) as banks:
        banks.set_policy("at", set_thresholds(System("pdq", (PDQ,)), {"pdq": np.zeros(1)}, 0.0))
        judged = banks.judge("at", contents[1:], [0])
        assert (judged.found.tolist(), judged.hit.tolist()) == ([False], [True])
        assert not judged.own["pdq"].any()
        assert banks.judge("at", contents, [0, 1]).found.all()
        assert np.argmax(banks.closeness(contents)["pdq"], axis=1).tolist() == [0, 1]


def test_pdq_finds_what_it_is_known_to_find(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From files to figures: a smaller copy by its bits, a flipped one only if all eight ways are
    asked, a cut one not at all; the matcher says what plain arithmetic says."""
    plan = image_attacks.plan_of("pdq", EncoderSet({}), 31, negatives=4)
    tried = attacks("half_size", "flip", "crop_30")
    cast = players()
    measuring, results = image_attacks.measured(plan, cast, EncoderSet({}), 0, tried)
    pdq, dihedral = (column_beside(part) for part in plan.beside)
    shares = {t.name: (t.recall(pdq).share, t.recall(dihedral).share) for t in results.tried}
    assert shares["unchanged"] == shares["half_size"] == (1.0, 1.0)
    assert shares["flip"] == (0.0, 1.0)
    assert shares["crop_30"] == (0.0, 0.0)
    assert results.tried[0].own["digests"].all()
    assert not any(t.own["digests"].any() for t in results.attacks)
    assert measuring.differing == 0

    run = image_attacks.Run(plan, cast, 4, measuring.prices, results, 0, measuring.regions, {}, 1.0)
    image_attacks.report(run, as_json=True, out=tmp_path)
    figures = json.loads(capsys.readouterr().out)["figures"]
    assert figures["system_mean"] == pytest.approx(2 / 3, abs=1e-4)
    assert (figures["mean_recall_1e3"], figures["mean_recall_1e4"]) == (0.3333, None)
    assert figures["supported"] == {"1e3": False, "1e4": False}
    assert "takes 20,000 in all: no figure is given" in figures["notes"][-2]
    with Image.open(tmp_path / "image_attacks.png") as drawn:
        assert drawn.width > 600


def test_thresholds_do_not_see_the_negatives_that_are_counted() -> None:
    """Whatever those are: a photograph of the bank among them is a false positive and moves
    nothing; the matcher agrees with arithmetic about an embedding, too."""
    loaded = encoders(pictures=FakeImageEncoder())
    plan = image_attacks.plan_of("pictures", loaded, 31, negatives=4)
    cast = players()
    half = halves(len(cast.negatives), 0)
    worse = list(cast.negatives)
    for n in half.reporting:
        worse[n] = cast.banked[0]
    runs = [
        image_attacks.measured(plan, replace(cast, negatives=negatives), loaded, 0, [])[0]
        for negatives in (cast.negatives, worse)
    ]
    at = [{c: dict(p.thresholds.at) for c, p in run.prices.items()} for run in runs]
    assert at[0] == at[1]
    assert [run.exchanged["pictures 1e3"].at["pictures"] for run in runs][1] > 1  # a copy in it
    column = column_of(plan.system, "1e3")
    assert runs[0].prices[column].fpr.hits <= 4
    assert [(p.fpr.hits, p.by_matcher) for p in [runs[1].prices[column]]] == [
        (4, FalsePositives(4, 4))
    ]
    assert [run.differing for run in runs] == [0, 0]


def test_a_small_run_over_texts(capsys: pytest.CaptureFixture[str]) -> None:
    """Every text signal, from posts to figures: what the normal form undoes is found by its
    digest alone."""
    loaded = encoders(FakeTextEncoder())
    texts = Posts(sentences(4), sentences(8)[4:], ["quite another story altogether"], FILLER, {})
    run = text_attacks.measured(text_attacks.plan_of("prose", loaded), texts, loaded, 0, 0.0)
    digest = column_beside(text_attacks.DIGEST)
    shares = {t.name: t.recall(digest).share for t in run.results.tried}
    assert [shares[n] for n in ("unchanged", "cases", "full_width", "zero_width")] == [1.0] * 4
    assert shares["prefix_suffix"] == 0
    assert run.differing == 0
    text_attacks.report(run, as_json=True, out=None)
    figures = json.loads(capsys.readouterr().out)["figures"]
    character = [t for t in run.results.attacks if t.kind == CHARACTER]
    mean = np.mean([t.recall("system 0fp").share for t in character])
    assert figures["text_char_mean"] == pytest.approx(float(mean), abs=1e-4)
    assert not figures["supported"]


def sentences(count: int) -> list[str]:
    story = "the big house on that hill was never sold because nobody wanted to live there"
    rng = np.random.default_rng(0)
    return [" ".join(rng.permutation(story.split())) + f" says {name}" for name in NAMES[:count]]


NAMES = ("anna", "boris", "carla", "dimitri", "emma", "fritz", "greta", "henry")
