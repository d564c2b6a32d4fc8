"""Content to signals, on both sides of the comparison, with fake encoders and real hashes."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simsearch.encode.digests import hash_bytes, text_sha256
from simsearch.encode.encoders.precomputed import check_vectors
from simsearch.encode.fingerprint import (
    AllSignals,
    ContentFingerprint,
    ContentLimits,
    Fingerprinter,
    Outcome,
    Wanted,
    merge,
)
from simsearch.encode.image.pdq import pdq_dihedral, pdq_of
from simsearch.encode.image.picture import ImageLimits
from simsearch.encode.registry import EncoderSet
from simsearch.encode.text import minhash
from simsearch.encode.text.forms.older_form import older_form
from simsearch.encode.text.forms.text_forms import forms_of, normalised
from simsearch.encode.text.windows import TextLimits, windows_of
from simsearch.errors import BadVector, LimitExceeded, SimsearchError
from simsearch.types import (
    BITS_BYTES,
    Bits,
    Content,
    Fingerprint,
    HashContent,
    ImageContent,
    Modality,
    Signal,
    SignalState,
    Space,
    TextContent,
    VectorContent,
)
from tests.encode.pictures import landscape, opened, saved
from tests.fakes import (
    DIM,
    PICTURES,
    PROSE,
    FakeImageEncoder,
    FakeTextEncoder,
    encoders,
    unit_of,
)

PNG = saved(landscape(1, (64, 64)), "PNG")
OTHER_PNG = saved(landscape(2, (64, 64)), "PNG")
PLAIN_PNG = saved(landscape(1, (64, 64)).point(lambda _: 128), "PNG")
WORDS = "Send one coin to this address, get two back!"
LONG = " ".join(f"word{n} stands here" for n in range(40))

EVERYTHING: Wanted = {
    ("pdq", None),
    ("minhash", None),
    (PICTURES.id, Modality.IMAGE),
    (PICTURES.id, Modality.TEXT),
    (PROSE.id, Modality.TEXT),
}


def all_encoders() -> EncoderSet:
    return encoders(FakeTextEncoder(), FakeImageEncoder(), FakeTextEncoder(PICTURES))


def fingerprinter(loaded: EncoderSet | None = None) -> Fingerprinter:
    return Fingerprinter(loaded or all_encoders(), ContentLimits())


def taken(outcome: Outcome) -> ContentFingerprint:
    assert isinstance(outcome, ContentFingerprint), outcome
    return outcome


def ban(content: Content, loaded: EncoderSet | None = None) -> ContentFingerprint:
    return taken(fingerprinter(loaded).ban([content])[0])


def _ban_of_all(content: Content) -> ContentFingerprint:
    return taken(fingerprinter(None).ban([content], wanted=AllSignals())[0])


def query(
    content: Content, wanted: Wanted = EVERYTHING, loaded: EncoderSet | None = None
) -> ContentFingerprint:
    return taken(fingerprinter(loaded).query([content], wanted)[0])


def states(made: ContentFingerprint) -> dict[str, SignalState]:
    found = {r.signal: r.state for r in made.reports}
    assert len(found) == len(made.reports), "a signal is reported once"
    return found


SEARCHED = SignalState.SEARCHED

# ---------------------------------------------------------------- the two sides


def test_a_banned_image_stores_one_row_of_each_signal() -> None:
    """Digests of its bytes, the upright PDQ, one vector; every signal reported."""
    made = ban(ImageContent(PNG))
    assert made.modality is Modality.IMAGE
    assert made.fingerprint.digests == {
        Signal.SHA256: (hashlib.sha256(PNG).digest(),),
        Signal.MD5: (hashlib.md5(PNG).digest(),),
    }
    upright = pdq_of(opened(PNG))
    assert upright is not None
    assert made.fingerprint.bits[Signal.PDQ].tolist() == upright.tolist()
    assert made.fingerprint.rows() == {"sha256": 1, "md5": 1, "pdq": 1, PICTURES.id: 1}
    assert states(made) == dict.fromkeys(["sha256", "md5", "pdq", PICTURES.id], SEARCHED)


def test_a_queried_image_asks_with_all_its_rotations_and_flips() -> None:
    """Eight rows of PDQ, the upright one first: what is stored is among them."""
    made = query(ImageContent(PNG))
    eight = pdq_dihedral(opened(PNG))
    assert eight is not None
    assert made.fingerprint.bits[Signal.PDQ].tolist() == eight.tolist()
    assert made.fingerprint.rows() == {"sha256": 1, "md5": 1, "pdq": 8, PICTURES.id: 1}
    stored = ban(ImageContent(PNG)).fingerprint
    assert stored.bits[Signal.PDQ][0].tolist() == eight[0].tolist()
    assert stored.vectors[PICTURES.id].tolist() == made.fingerprint.vectors[PICTURES.id].tolist()


def test_a_banned_text_is_stored_in_spaces_of_texts_only() -> None:
    """A space of images holds no texts, although it could embed them."""
    captions = FakeTextEncoder(PICTURES)
    made = ban(TextContent(WORDS), encoders(FakeTextEncoder(), FakeImageEncoder(), captions))
    assert made.modality is Modality.TEXT
    digests = ["text_light_sha256", "text_strong_sha256"]
    rows = made.fingerprint.rows()
    assert rows.pop("minhash1024") == 2  # as it is, and without vowels
    assert rows == dict.fromkeys([*digests, PROSE.id], 1)
    assert captions.asked == []
    assert states(made) == dict.fromkeys([*digests, "minhash1024", PROSE.id], SEARCHED)


def test_a_queried_text_asks_wherever_a_bank_allows() -> None:
    """In spaces of images too, where that is wanted for texts; not where for images alone."""
    everywhere = query(TextContent(WORDS)).fingerprint
    assert set(everywhere.vectors) == {PROSE.id, PICTURES.id}
    images_only = query(TextContent(WORDS), {(PICTURES.id, Modality.IMAGE)}).fingerprint
    assert set(images_only.vectors) == set()


def test_texts_are_compared_in_their_normal_form() -> None:
    """Case, spacing and signs do not tell copies apart: hashes and vectors are of one form."""
    prose = FakeTextEncoder()
    one = ban(TextContent(WORDS), encoders(prose)).fingerprint
    other = ban(TextContent(f"  {WORDS.upper()}\n"), encoders(prose)).fingerprint
    assert one.digests == other.digests
    assert one.vectors[PROSE.id].tolist() == other.vectors[PROSE.id].tolist()
    assert prose.asked == [[normalised(WORDS)]] * 2


def test_a_long_text_gives_a_row_per_window() -> None:
    """The same windows for the embedding on both sides; one digest of each form for all."""
    windows = forms_of(LONG, TextLimits()).windows()
    assert len(windows) > 2
    for made in (ban(TextContent(LONG)), query(TextContent(LONG))):
        found = made.fingerprint
        assert found.vectors[PROSE.id].tolist() == [unit_of(w).tolist() for w in windows]
        assert len(found.digests[Signal.TEXT_LIGHT_SHA256]) == 1
        assert len(found.digests[Signal.TEXT_STRONG_SHA256]) == 1


def test_windows_of_a_batch_go_back_to_their_own_text() -> None:
    """All windows are encoded in one call, and none ends up with a neighbour."""
    prose = FakeTextEncoder()
    contents: list[Content] = [
        TextContent(WORDS),
        TextContent(LONG),
        ImageContent(PNG),
        TextContent("hello you"),
    ]
    made = fingerprinter(encoders(prose)).ban(contents)
    windows = [
        forms_of(c.text, TextLimits()).windows() for c in contents if isinstance(c, TextContent)
    ]
    assert prose.asked == [[w for each in windows for w in each]]
    texts = [taken(made[i]).fingerprint.vectors[PROSE.id] for i in (0, 1, 3)]
    assert [t.tolist() for t in texts] == [[unit_of(w).tolist() for w in each] for each in windows]


# ---------------------------------------------------------------- what is wanted


@pytest.mark.parametrize("content", [ImageContent(PNG), TextContent(WORDS)])
def test_what_nobody_wants_is_not_computed(content: Content) -> None:
    """Digests cost nothing and are always there; everything else waits to be wanted."""
    prose, pictures, captions = FakeTextEncoder(), FakeImageEncoder(), FakeTextEncoder(PICTURES)
    made = query(content, set(), encoders(prose, pictures, captions))
    assert made.fingerprint.bits == {}
    assert made.fingerprint.vectors == {}
    assert set(states(made)) <= {"sha256", "md5", "text_light_sha256", "text_strong_sha256"}
    assert (prose.asked, captions.asked, pictures.prepared, pictures.asked) == ([], [], 0, [])


def test_signals_of_the_older_form_are_computed_where_they_are_wanted() -> None:
    """Of a ban and of a query alike: they cost several times the new ones."""
    older = {"text_sha256", "minhash"}
    for wanted in ({("text_sha256", None), ("minhash", None)}, AllSignals()):
        [banned] = fingerprinter(None).ban([TextContent(LONG)], wanted=wanted)
        for made in (taken(banned), query(TextContent(LONG), wanted)):
            assert older < made.fingerprint.rows().keys()
            normal = older_form(LONG)
            expected = minhash.minhash_of(windows_of(normal)).tolist()
            assert made.fingerprint.bits[Signal.MINHASH].tolist() == expected
            assert made.fingerprint.digests[Signal.TEXT_SHA256] == (text_sha256(normal),)
    assert older.isdisjoint(ban(TextContent(LONG)).fingerprint.rows())


def test_a_space_of_the_older_form_is_asked_in_its_form() -> None:
    """The rows of before are of the weights that are there, and of texts in the older form: both
    spaces are of one encoder, and each gets its own windows."""
    prose = FakeTextEncoder(Space("prose", "a" * 64, "strong2-9tok", 8))
    both = encoders(prose)
    spaces = [e.space.id for e in both.with_older if e.space]
    assert spaces == ["prose@aaaaaaaaaaaa/strong2-9tok/8", "prose@aaaaaaaaaaaa/strong1-9tok/8"]
    assert [e.name for e in both] == ["prose"]
    drawn = "World War III ⠓⠁⠞⠑"
    made = query(TextContent(drawn), {(space, Modality.TEXT) for space in spaces}, both)
    assert prose.asked == [[normalised(drawn)], [older_form(drawn)]]
    rows = [made.fingerprint.vectors[space].tolist() for space in spaces]
    assert rows == [[unit_of(normalised(drawn)).tolist()], [unit_of(older_form(drawn)).tolist()]]
    assert set(ban(TextContent(drawn), both).fingerprint.vectors) == {spaces[0]}


def test_a_ban_wants_everything() -> None:
    """A bank may get a rule tomorrow for a signal that nobody asks about today."""
    prose, pictures = FakeTextEncoder(), FakeImageEncoder()
    fingerprinter(encoders(prose, pictures)).ban([ImageContent(PNG), TextContent(WORDS)])
    assert pictures.asked == [1]
    assert len(prose.asked) == 1


# ---------------------------------------------------------------- reports


def test_what_is_too_plain_is_reported_and_has_no_rows() -> None:
    """An even grey has no PDQ, three letters no MinHash: said, and nothing invented."""
    for make in (_ban_of_all, query):
        image, words = make(ImageContent(PLAIN_PNG)), make(TextContent("abc"))
        assert states(image)["pdq"] is SignalState.LOW_INFORMATION
        assert states(words)["minhash"] is SignalState.LOW_INFORMATION
        assert image.fingerprint.bits == words.fingerprint.bits == {}
        assert all(r.detail for m in (image, words) for r in m.reports if r.state is not SEARCHED)


@pytest.mark.parametrize(
    ("content", "name"), [(ImageContent(PNG), "pictures"), (TextContent(WORDS), "prose")]
)
def test_an_encoder_that_is_off_is_a_warning_to_who_bans(content: Content, name: str) -> None:
    """The entry will lack a signal, so the ban says which and why. A query says nothing here:
    whether that matters is for its banks' rules to tell."""
    off = encoders(prose_off="no weights", pictures_off="no weights")
    missing = [r for r in ban(content, off).reports if r.state is SignalState.UNAVAILABLE]
    assert [(r.signal, r.detail) for r in missing] == [(name, "no weights")]
    assert SignalState.UNAVAILABLE not in states(query(content, loaded=off)).values()


def test_an_image_encoder_without_a_text_side_is_not_off() -> None:
    """It lacks nothing that a banned text would have stored."""
    made = ban(TextContent(WORDS), encoders(FakeTextEncoder(), FakeImageEncoder()))
    assert set(states(made).values()) == {SEARCHED}


# ---------------------------------------------------------------- ready signals


@pytest.mark.parametrize("name", ["pictures", PICTURES.id])
def test_a_ready_vector_is_taken_by_name_or_space(name: str) -> None:
    """It lands under the id of its space, as rows of the space's own kind."""
    rows = np.stack([unit_of("a"), unit_of("b")])
    for make in (ban, query):
        made = make(VectorContent(name, rows))
        assert made.modality is Modality.IMAGE
        assert made.fingerprint.rows() == {PICTURES.id: 2}
        np.testing.assert_allclose(made.fingerprint.vectors[PICTURES.id], rows, atol=1e-6)
        assert states(made) == {PICTURES.id: SEARCHED}


@pytest.mark.parametrize("modality", list(Modality))
def test_a_ready_vector_asks_as_what_its_caller_made_it_of(modality: Modality) -> None:
    """A text embedded for a space of images meets the rules for texts."""
    made = query(VectorContent("pictures", unit_of("a")[np.newaxis], modality))
    assert made.modality is modality


@pytest.mark.parametrize("signal", list(Signal))
def test_a_ready_hash_is_taken_under_its_own_signal(signal: Signal) -> None:
    """One row of bits or one digest; no kind of content is guessed from it."""
    value = bytes(range(hash_bytes(signal)))
    for make in (ban, query):
        made = make(HashContent(signal, value))
        assert made.modality is None
        assert made.fingerprint.rows() == {signal: 1}
        if signal in made.fingerprint.bits:
            assert made.fingerprint.bits[signal].shape == (1, hash_bytes(signal))
            assert made.fingerprint.bits[signal].tobytes() == value
        else:
            assert made.fingerprint.digests == {signal: (value,)}


# ---------------------------------------------------------------- refusals


def refused(outcome: Outcome) -> str:
    """The reason of a refusal, with digests or without; empty for a whole fingerprint."""
    refusal = outcome if isinstance(outcome, SimsearchError) else outcome.refusal
    return refusal.reason if refusal else ""


def test_one_bad_content_never_fails_its_neighbours() -> None:
    """Each has a print or a refusal by name, in the order they came, on both sides."""
    contents: list[Content] = [
        ImageContent(b""),
        TextContent(WORDS),
        ImageContent(b"not an image, whatever it says"),
        TextContent("\u200b "),
        HashContent(Signal.MD5, bytes(15)),
        VectorContent("nowhere", np.ones((1, DIM), np.float32)),
        VectorContent("prose", np.ones((1, DIM - 1), np.float32)),
        ImageContent(PNG),
    ]
    off = encoders(FakeTextEncoder(), pictures_off="no weights")
    with_off = [*contents, VectorContent("pictures", np.ones((1, DIM), np.float32))]
    made = fingerprinter(off)
    for outcomes in (made.ban(with_off), made.query(with_off, EVERYTHING)):
        assert [refused(outcome) for outcome in outcomes] == [
            "EMPTY_CONTENT", "", "BAD_CONTENT", "EMPTY_CONTENT", "BAD_HASH", "UNKNOWN_SPACE",
            "BAD_VECTOR", "", "SPACE_UNAVAILABLE",
        ]  # fmt: skip


def test_an_image_that_breaks_while_decoding_is_refused_alone() -> None:
    """Its header was good; decoding finds out, and its neighbour is encoded."""
    pictures = FakeImageEncoder()
    broken = ImageContent(PNG[: len(PNG) // 8])
    made = fingerprinter(encoders(pictures=pictures))
    bad, good = made.query([broken, ImageContent(OTHER_PNG)], {(PICTURES.id, Modality.IMAGE)})
    assert refused(bad) == "BAD_CONTENT"
    assert taken(good).fingerprint.rows()[PICTURES.id] == 1
    assert pictures.asked == [1]


def test_limits_are_those_of_the_configuration() -> None:
    """Bytes, characters and rows: each limit is the one that was set, each refusal named."""
    limits = ContentLimits(ImageLimits(bytes_max=10), TextLimits(chars_max=5), vectors_max=1)
    rows = np.stack([unit_of("a"), unit_of("b")])
    outcomes = Fingerprinter(all_encoders(), limits).ban(
        [ImageContent(PNG), TextContent("six ch"), VectorContent("prose", rows)]
    )
    assert [o.reason for o in outcomes if isinstance(o, SimsearchError)] == [
        "CONTENT_TOO_LARGE",
        "CONTENT_TOO_LARGE",
        "LIMIT_EXCEEDED",
    ]


# ---------------------------------------------------------------- a caller's vectors


def unit_rows(count: int, dtype: type[np.floating]) -> np.ndarray:
    return np.stack([unit_of(f"row {n}") for n in range(count)]).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_unit_vectors_are_taken_and_made_exactly_unit(dtype: type[np.floating]) -> None:
    """float16 rounds a length by some thousandths: taken, and mended to float32 unit rows."""
    given_rows = unit_rows(5, dtype)
    taken_rows = check_vectors(given_rows, DIM, 5)
    assert taken_rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(taken_rows, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(taken_rows, given_rows, atol=2e-3)


@given(st.floats(0.9901, 1.0099))
def test_a_length_within_a_hundredth_of_one_is_one(length: float) -> None:
    """Only the direction counts: what is stored does not depend on the caller's rounding."""
    row = unit_rows(1, np.float32)
    scaled = (row * length).astype(np.float32)
    np.testing.assert_allclose(check_vectors(scaled, DIM, 1), row, atol=1e-6)


def changed(value: float) -> np.ndarray:
    rows = unit_rows(3, np.float32)
    rows[1, 2] = value
    return rows


@pytest.mark.parametrize(
    ("vectors", "refusal", "words"),
    [
        (unit_rows(2, np.float64), BadVector, "float64: send float16 or float32"),
        (np.eye(DIM, dtype=np.int32), BadVector, "int32: send float16 or float32"),
        (np.ones((1, DIM - 1), np.float32), BadVector, "this space takes (n, 8)"),
        (unit_of("a"), BadVector, "shape (8,): this space takes (n, 8)"),
        (unit_rows(2, np.float32)[np.newaxis], BadVector, "this space takes (n, 8)"),
        (np.empty((0, DIM), np.float32), BadVector, "shape (0, 8)"),
        (unit_rows(4, np.float32), LimitExceeded, "4 vectors in one content: 3 at most"),
        (changed(np.nan), BadVector, "NaN or infinity"),
        (changed(np.inf), BadVector, "NaN or infinity"),
        (changed(-np.inf), BadVector, "NaN or infinity"),
        (3 * unit_rows(2, np.float32), BadVector, "length 3: send unit vectors"),
        (np.zeros((1, DIM), np.float32), BadVector, "length 0: send unit vectors"),
        (unit_rows(1, np.float32) * np.float32(1.011), BadVector, "length 1.011"),
        (np.full((1, DIM), 3e38, np.float32), BadVector, "length 8.485e+38"),
    ],
)
def test_vectors_that_cannot_be_used_are_refused(
    vectors: np.ndarray, refusal: type[SimsearchError], words: str
) -> None:
    """Each fault by name, with what to send; one bad row of many is enough."""
    with pytest.raises(refusal) as refused:
        check_vectors(vectors, DIM, 3)
    assert words in refused.value.message


# ---------------------------------------------------------------- one entry of several contents


def made_of(*fingerprints: Fingerprint) -> Fingerprint:
    return merge([ContentFingerprint(f, None) for f in fingerprints])


def bits(*first_bytes: int) -> Bits:
    rows = np.zeros((len(first_bytes), BITS_BYTES), np.uint8)
    rows[:, 0] = first_bytes
    return rows


def test_the_rows_of_several_contents_become_one_entry() -> None:
    """Vectors stand below each other in the order of the contents, each signal by itself."""
    a, b, c = (unit_of(n)[np.newaxis] for n in "abc")
    entry = made_of(
        Fingerprint(vectors={"x": np.vstack([a, b])}),
        Fingerprint(vectors={"y": a}, bits={Signal.PDQ: bits(1)}),
        Fingerprint(vectors={"x": c}, digests={Signal.MD5: (b"m",)}),
    )
    assert entry.rows() == {"md5": 1, "pdq": 1, "x": 3, "y": 1}
    assert entry.vectors["x"].tolist() == np.vstack([a, b, c]).tolist()
    assert entry.vectors["y"].tolist() == a.tolist()


def test_equal_digests_and_bits_are_kept_once() -> None:
    """The same file given twice is one digest and one hash; different ones all stay."""
    entry = made_of(
        Fingerprint(digests={Signal.MD5: (b"a", b"b")}, bits={Signal.PDQ: bits(1, 2)}),
        Fingerprint(digests={Signal.MD5: (b"b", b"c")}, bits={Signal.PDQ: bits(2, 3)}),
    )
    assert entry.digests == {Signal.MD5: (b"a", b"b", b"c")}
    assert sorted(entry.bits[Signal.PDQ][:, 0].tolist()) == [1, 2, 3]
    assert entry.bits[Signal.PDQ].dtype == np.uint8


def test_merging_one_content_changes_nothing() -> None:
    """A single image's entry is that image's fingerprint."""
    made = ban(ImageContent(PNG))
    entry = merge([made])
    assert entry.digests == made.fingerprint.digests
    assert entry.rows() == made.fingerprint.rows()
    assert entry.bits[Signal.PDQ].tolist() == made.fingerprint.bits[Signal.PDQ].tolist()
    assert entry.vectors[PICTURES.id].tolist() == made.fingerprint.vectors[PICTURES.id].tolist()


def test_nothing_merged_is_nothing() -> None:
    """No contents, no signals: whether that is allowed is not decided here."""
    assert merge([]).rows() == {}
