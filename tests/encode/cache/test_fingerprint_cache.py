"""Fingerprint cache: the same fingerprints as without it, computed once, within a bound."""

from __future__ import annotations

import gc
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from simsearch.encode.cache import packing
from simsearch.encode.cache.fingerprint_cache import JOINS_MAX, FingerprintCache
from simsearch.encode.cache.lru import Lru
from simsearch.encode.cache.single_flight import SingleFlight
from simsearch.encode.digests import content_key
from simsearch.encode.fingerprint import (
    ContentFingerprint,
    ContentLimits,
    Fingerprinter,
    Outcome,
    Wanted,
    digests_alone,
)
from simsearch.encode.registry import EncoderSet
from simsearch.encode.text.windows import TextLimits
from simsearch.errors import (
    BadContent,
    BadHash,
    ContentTooLarge,
    DeadlinePassed,
    EmptyContent,
    InternalFault,
    NotReady,
    Overloaded,
    SimsearchError,
)
from simsearch.match.matcher import Matcher
from simsearch.types import (
    NO_CALL,
    Band,
    CallContext,
    Content,
    DigestRule,
    HashContent,
    ImageContent,
    MatchOptions,
    Modality,
    Policy,
    Priority,
    Signal,
    SignalReport,
    SignalState,
    Space,
    TextContent,
    VectorContent,
)
from tests.encode.pictures import landscape, saved
from tests.fakes import PICTURES, PROSE, FakeImageEncoder, FakeTextEncoder, encoders, unit_of
from tests.match.fakes import HITS_MAX, Views, World


def beside(number: int) -> Image.Image:
    """Two pictures in one, different for each number."""
    sheet = Image.new("RGB", (164, 64))
    sheet.paste(landscape(3, (100, 64)).filter(ImageFilter.GaussianBlur(2)), (64, 0))
    sheet.paste(landscape(4, (64, 64)).filter(ImageFilter.GaussianBlur(2)), (0, 0))
    sheet.putpixel((0, 0), (number, 0, 0))
    return sheet


LARGE = 1 << 24
EVERYTHING: frozenset[tuple[str, Modality | None]] = frozenset(
    {
        (Signal.PDQ.value, None),
        (Signal.MINHASH.value, None),
        (PICTURES.id, Modality.IMAGE),
        (PICTURES.id, Modality.TEXT),
        (PROSE.id, Modality.TEXT),
    }
)
PNG = ImageContent(saved(landscape(1, (64, 64)), "PNG"))
OTHER_PNG = ImageContent(saved(landscape(2, (64, 64)), "PNG"))
COLLAGE = ImageContent(saved(beside(0), "PNG"))
BROKEN = ImageContent(b"hello")
HELLO = TextContent("hello")
EMPTY = TextContent(" ")
READY = VectorContent(PROSE.id, unit_of("ready")[np.newaxis])
BAD_HASH = HashContent(Signal.SHA256, b"short")
WAIT_S = 20.0


class Counting:
    """A FingerprintSource: a Fingerprinter that keeps what each call was given. `on_query` runs
    within each call; `instead` are outcomes that take the place of real ones."""

    def __init__(
        self,
        loaded: EncoderSet | None = None,
        on_query: Callable[[CallContext], None] = lambda call: None,
        instead: Mapping[Content, Outcome] | None = None,
    ) -> None:
        both = encoders(FakeTextEncoder(), FakeImageEncoder(), FakeTextEncoder(PICTURES))
        limits = ContentLimits(text=TextLimits(chars_max=400), regions_max=4)
        self._inner = Fingerprinter(loaded or both, limits)
        self.encoders, self.limits = self._inner.encoders, self._inner.limits
        self.asked: list[list[Content]] = []
        self.on_query = on_query
        self.instead = dict(instead or {})

    def query(
        self, contents: Sequence[Content], wanted: Wanted, call: CallContext = NO_CALL
    ) -> list[Outcome]:
        self.asked.append(list(contents))
        self.on_query(call)
        outcomes = self._inner.query(contents, wanted, call)
        return [
            o if isinstance(c, VectorContent) else self.instead.get(c, o)
            for c, o in zip(contents, outcomes, strict=True)
        ]

    @property
    def items(self) -> list[Content]:
        return [content for call in self.asked for content in call]


def cached(
    source: Counting, bytes_max: int = LARGE, single_flight: bool = True
) -> FingerprintCache:
    return FingerprintCache(source, bytes_max, single_flight)


def plain(outcome: Outcome) -> object:
    """A value to compare by: everything that an outcome says."""
    if isinstance(outcome, SimsearchError):
        return type(outcome), outcome.message
    held = outcome.fingerprint
    rows = {str(s): (v.dtype.str, v.shape, v.tobytes()) for s, v in held.bits.items()}
    rows |= {s: (v.dtype.str, v.shape, v.tobytes()) for s, v in held.vectors.items()}
    part_of_row = {str(s): v.tolist() for s, v in outcome.part_of_row.items()}
    return (
        dict(held.digests),
        rows,
        outcome.modality,
        outcome.reports,
        outcome.parts,
        part_of_row,
    )


def fresh(contents: Sequence[Content], wanted: Wanted = EVERYTHING) -> list[object]:
    """What a Fingerprinter that remembers nothing says."""
    return [plain(o) for o in Counting().query(contents, wanted)]


def printed(outcome: Outcome) -> ContentFingerprint:
    assert isinstance(outcome, ContentFingerprint), outcome
    return outcome


# ---------------------------------------------------------------- remembering


def test_what_was_asked_before_is_not_computed_again() -> None:
    """Images and texts once; ready vectors and hashes are looked at each time."""
    source = Counting()
    fingerprints = cached(source)
    contents: list[Content] = [PNG, HELLO, READY, BAD_HASH]
    first, second = (fingerprints.query(contents, EVERYTHING) for _ in range(2))
    assert [plain(o) for o in first] == [plain(o) for o in second] == fresh(contents)
    assert [source.items.count(c) for c in (PNG, HELLO)] == [1, 1]
    counts = fingerprints.counts
    assert (counts.hits, counts.misses, counts.joins, counts.entries) == (2, 2, 0, 2)


def test_equal_contents_of_one_call_are_computed_once() -> None:
    """Everyone gets its print, in order, and they are counted as joined."""
    source = Counting()
    fingerprints = cached(source, single_flight=False)
    contents: list[Content] = [HELLO, PNG, HELLO, READY, PNG, HELLO]
    assert [plain(o) for o in fingerprints.query(contents, EVERYTHING)] == fresh(contents)
    assert [source.items.count(c) for c in (HELLO, PNG)] == [1, 1]
    assert (fingerprints.counts.misses, fingerprints.counts.joins) == (2, 3)


@pytest.mark.parametrize("image_first", [True, False])
def test_an_image_is_never_taken_for_a_text_of_the_same_bytes(image_first: bool) -> None:
    """The kind is part of what content is known by."""
    assert content_key(BROKEN) != content_key(HELLO)
    pair: list[Content] = [BROKEN, HELLO] if image_first else [HELLO, BROKEN]
    fingerprints = cached(Counting())
    for content in (*pair, *pair):
        assert [plain(o) for o in fingerprints.query([content], EVERYTHING)] == fresh([content])


def test_a_print_serves_only_who_wants_the_same_of_it() -> None:
    """A bank with other rules gets the signals of its own rules, and no report of others."""
    source = Counting()
    fingerprints = cached(source)
    little = frozenset({(Signal.PDQ.value, None)})
    for wanted in (EVERYTHING, little, EVERYTHING, little):
        assert [plain(o) for o in fingerprints.query([PNG], wanted)] == fresh([PNG], wanted)
    assert len(source.items) == 2


def test_what_nobody_here_can_compute_makes_no_other_key() -> None:
    """A rule for a space without an encoder, or for the other kind of content, changes nothing."""
    source = Counting()
    fingerprints = cached(source)
    image = {(PICTURES.id, Modality.IMAGE)}
    for wanted in (image, image | {("gone", Modality.IMAGE)}, image | {(PROSE.id, Modality.TEXT)}):
        fingerprints.query([PNG], wanted)
    assert len(source.items) == 1


MANY: list[Content] = [
    *(TextContent("word " * n) for n in (1, 2, 90)),
    *(HELLO, EMPTY, BROKEN, PNG, OTHER_PNG, COLLAGE, READY, BAD_HASH),
]
batches = st.lists(st.sampled_from(range(len(MANY))), max_size=6)
subsets = st.sets(st.sampled_from(sorted(EVERYTHING, key=str))).map(frozenset)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(batches, subsets), max_size=8),
    st.sampled_from([0, 3_000, 9_000, LARGE]),
    st.booleans(),
)
def test_nothing_differs_from_a_fingerprinter_alone(
    asks: list[tuple[list[int], frozenset[tuple[str, Modality | None]]]],
    bytes_max: int,
    single_flight: bool,
) -> None:
    """Whatever was asked before and whatever was evicted meanwhile."""
    fingerprints = cached(Counting(), bytes_max, single_flight)
    for numbers, wanted in asks:
        contents = [MANY[n] for n in numbers]
        assert [plain(o) for o in fingerprints.query(contents, wanted)] == fresh(contents, wanted)
        assert fingerprints.counts.entry_bytes <= bytes_max


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("content", "refusal"),
    [
        (BROKEN, BadContent),
        (EMPTY, EmptyContent),
        (TextContent("x" * 401), ContentTooLarge),
        (ImageContent(b""), EmptyContent),
    ],
)
def test_content_that_can_never_be_used_is_refused_once_and_for_all(
    content: Content, refusal: type[SimsearchError]
) -> None:
    """Sending it again costs no decoding; the refusal is the same."""
    source = Counting()
    fingerprints = cached(source)
    first, second = (fingerprints.query([content], EVERYTHING)[0] for _ in range(2))
    assert type(refusal_of(first)) is refusal
    assert plain(first) == plain(second)
    assert len(source.items) == 1


def refusal_of(outcome: Outcome) -> SimsearchError | None:
    return outcome if isinstance(outcome, SimsearchError) else outcome.refusal


def test_a_remembered_refusal_holds_on_to_nothing() -> None:
    """A caller that raises it adds a traceback, whose frames hold the content: to a copy of its
    own."""
    fingerprints = cached(Counting())
    world = World()
    world.bank("b", Policy(digests=(DigestRule(Signal.SHA256, Band.BLOCK),)))
    matcher = Matcher(fingerprints, Views(world.view()), HITS_MAX)
    for _ in range(2):
        refusals = matcher.match([BROKEN, BROKEN], MatchOptions())
        assert refusals[0] is not refusals[1]
        for refusal in refusals:
            assert isinstance(refusal, BadContent)
            assert refusal.__traceback__ is None
            with pytest.raises(BadContent):
                raise refusal


TRANSIENT: list[Outcome] = [
    Overloaded("full", retry_after_ms=7),
    NotReady("closing"),
    DeadlinePassed("late"),
    InternalFault("a worker died"),
    replace(
        printed(Counting().query([HELLO], EVERYTHING)[0]),
        reports=(SignalReport(PROSE.id, SignalState.UNAVAILABLE, "no answer"),),
    ),
]


@pytest.mark.parametrize("outcome", TRANSIENT, ids=str)
def test_what_may_go_better_next_time_is_not_remembered(outcome: Outcome) -> None:
    """The call itself is told; the next one computes."""
    source = Counting(instead={HELLO: outcome})
    fingerprints = cached(source)
    assert plain(fingerprints.query([HELLO], EVERYTHING)[0]) == plain(outcome)
    source.instead.clear()
    assert [plain(o) for o in fingerprints.query([HELLO], EVERYTHING)] == fresh([HELLO])
    assert fingerprints.counts.entries == 1


def test_a_call_that_fails_leaves_nothing_behind() -> None:
    """Neither a print nor a flight that others would wait for."""

    def fail(call: CallContext) -> None:
        raise Overloaded("full")

    source = Counting(on_query=fail)
    fingerprints = cached(source)
    with pytest.raises(Overloaded):
        fingerprints.query([HELLO, PNG], EVERYTHING)
    source.on_query = lambda call: None
    assert [plain(o) for o in fingerprints.query([PNG], EVERYTHING)] == fresh([PNG])


# ---------------------------------------------------------------- the bound


def test_what_was_not_used_for_longest_goes_first() -> None:
    """Asking keeps it; the weights held never pass the bound."""
    weights = {"A": 3, "B": 3, "C": 3, "D": 4, "A again": 1, "W": 11}
    cache = Lru[str](10, weights.__getitem__)
    for key in (b"a", b"b", b"c"):
        cache.put(key, key.decode().upper())
    assert cache.get(b"a") == "A"
    cache.put(b"d", "D")
    assert [cache.get(k) for k in (b"a", b"b", b"c", b"d")] == ["A", None, "C", "D"]
    assert (cache.weight, len(cache), cache.evictions) == (10, 3, 1)
    cache.put(b"a", "A again")
    assert (cache.get(b"a"), cache.weight, len(cache)) == ("A again", 8, 3)
    cache.put(b"whale", "W")
    assert (cache.get(b"whale"), cache.weight, cache.evictions) == (None, 8, 1)


def test_prints_are_forgotten_within_the_bound() -> None:
    """And computed again, rightly, when they are asked for."""
    source = Counting()
    fingerprints = cached(source, bytes_max=10_000)
    contents = [TextContent(f"message {n}") for n in range(9)]
    for content in (*contents, *contents):
        assert [plain(o) for o in fingerprints.query([content], EVERYTHING)] == fresh([content])
        assert fingerprints.counts.entry_bytes <= 10_000
    assert len(source.items) == 18
    assert fingerprints.counts.evictions == 18 - fingerprints.counts.entries
    assert fingerprints.counts.entries >= 2


WIDE = Space("wide", "c" * 64, "none", 384)


FIXED_BYTES = 32 << 10
"""What any first call leaves behind, however much it is asked."""


def numbered(number: int) -> ImageContent:
    """Images that differ in a pixel."""
    image = landscape(1, (64, 64)).copy()
    image.putpixel((0, 0), (number, 0, 0))
    return ImageContent(saved(image, "PNG"))


@pytest.mark.parametrize("kind", ["short texts", "long texts", "images", "collages"])
def test_what_is_held_takes_no_more_memory_than_it_is_counted_as(kind: str) -> None:
    """Measured: rows cut from a large batch do not hold all of it."""
    words, pictures = FakeTextEncoder(WIDE), FakeImageEncoder()
    source = Fingerprinter(encoders(words, pictures), ContentLimits(regions_max=4))
    of_kind: dict[str, list[Content]] = {
        "short texts": [TextContent(f"three words {n}") for n in range(500)],
        "long texts": [TextContent(f"{n} " + "of many words " * 130) for n in range(30)],
        "images": [numbered(n) for n in range(60)],
        "collages": [ImageContent(saved(beside(n), "PNG")) for n in range(1, 30)],
    }
    contents = of_kind[kind]
    wanted = EVERYTHING | {(WIDE.id, Modality.TEXT)}
    fingerprints = FingerprintCache(source, LARGE, single_flight=True)
    fingerprints.query([HELLO, PNG, COLLAGE], wanted)
    counted = -fingerprints.counts.entry_bytes
    gc.collect()
    tracemalloc.start()
    fingerprints.query(
        [replace(content) for content in contents], wanted
    )  # copies keep their digests
    words.asked.clear()
    gc.collect()
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    counted += fingerprints.counts.entry_bytes
    assert fingerprints.counts.entries == len(contents) + 3
    assert 0.6 * counted < taken <= counted + FIXED_BYTES


def test_the_garbage_collector_has_no_more_to_look_at() -> None:
    """However much is remembered: a full collection stops every call while it looks."""
    source = Fingerprinter(encoders(FakeTextEncoder(WIDE)), ContentLimits())
    fingerprints = FingerprintCache(source, LARGE, single_flight=True)
    wanted = {(WIDE.id, Modality.TEXT), (Signal.MINHASH.value, None)}
    contents: list[Content] = [BROKEN, *(TextContent(f"three words {n}") for n in range(300))]

    def followed() -> int:
        for _ in range(3):
            gc.collect()
        return len(gc.get_objects())

    fingerprints.query(contents[:2], wanted)
    before = followed()
    fingerprints.query(contents, wanted)
    assert fingerprints.counts.entries == len(contents)
    assert followed() - before < 100


def test_results_cannot_be_changed() -> None:
    """Of the first call, which others may share, and of a later one alike."""
    fingerprints = cached(Counting())
    first, second = (printed(fingerprints.query([COLLAGE], EVERYTHING)[0]) for _ in range(2))
    assert first.parts == second.parts != ()
    for found in (first, second):
        held = found.fingerprint
        arrays: list[np.ndarray] = [
            *held.bits.values(),
            *held.vectors.values(),
            *found.part_of_row.values(),
        ]
        assert len(arrays) == 4
        for array in arrays:
            with pytest.raises(ValueError, match="read-only"):
                array[:] = 0
        for mapping in (held.digests, held.bits, held.vectors, found.part_of_row):
            with pytest.raises(TypeError):
                mapping["x"] = ()  # type: ignore[index]


# ---------------------------------------------------------------- single flight


class Gate:
    """Holds who comes to it until it is opened, and tells when somebody has come."""

    def __init__(self) -> None:
        self.come = threading.Event()
        self._open = threading.Event()

    def __call__(self, call: CallContext = NO_CALL) -> None:
        self.come.set()
        assert self._open.wait(WAIT_S)

    def open(self) -> None:
        self._open.set()


class Waiter:
    """A call that tells when it has begun to wait for another one's work."""

    def __init__(
        self, deadline_s: float = WAIT_S, priority: Priority = Priority.INTERACTIVE
    ) -> None:
        self.waits = threading.Event()
        self.wanted = True
        self.call = CallContext(priority, time.monotonic() + deadline_s, self._is_wanted)

    def _is_wanted(self) -> bool:
        self.waits.set()
        return self.wanted


Asking = Callable[..., "Future[list[Outcome]]"]


@contextmanager
def askers(fingerprints: FingerprintCache) -> Iterator[Asking]:
    with ThreadPoolExecutor(40) as pool:

        def ask(*contents: Content, call: CallContext = NO_CALL) -> Future[list[Outcome]]:
            return pool.submit(fingerprints.query, contents, EVERYTHING, call)

        yield ask


@pytest.mark.parametrize("bytes_max", [0, LARGE])
def test_identical_contents_in_flight_are_encoded_once(bytes_max: int) -> None:
    """Thirty calls at once, one of them computes; also where nothing is remembered."""
    gate = Gate()
    source = Counting(on_query=gate)
    fingerprints = cached(source, bytes_max)
    waiters = [Waiter() for _ in range(29)]
    with askers(fingerprints) as ask:
        leader = ask(PNG)
        assert gate.come.wait(WAIT_S)
        followers = [ask(PNG, call=w.call) for w in waiters]
        assert all(w.waits.wait(WAIT_S) for w in waiters)
        gate.open()
        answers = [plain(f.result(WAIT_S)[0]) for f in (leader, *followers)]
    assert answers == fresh([PNG]) * 30
    assert source.items == [PNG]
    assert (fingerprints.counts.misses, fingerprints.counts.joins) == (1, 29)


@pytest.mark.parametrize("fault", [Overloaded("full"), NotReady("gone"), RuntimeError("a bug")])
def test_a_leader_that_fails_fails_alone(fault: Exception) -> None:
    """Its call was given up, or its encoder was full: whoever waited computes with its own time."""
    gate, failed = Gate(), threading.Event()

    def fail_first(call: CallContext) -> None:
        gate()
        if not failed.is_set():
            failed.set()
            raise fault

    source = Counting(on_query=fail_first)
    fingerprints = cached(source, bytes_max=0)
    waiters = [Waiter() for _ in range(5)]
    with askers(fingerprints) as ask:
        leader = ask(PNG, HELLO)
        assert gate.come.wait(WAIT_S)
        followers = [ask(PNG, call=w.call) for w in waiters]
        assert all(w.waits.wait(WAIT_S) for w in waiters)
        gate.open()
        assert type(leader.exception(WAIT_S)) is type(fault)
        assert [plain(f.result(WAIT_S)[0]) for f in followers] == fresh([PNG]) * 5


def test_a_refusal_for_now_is_the_leaders_own() -> None:
    """One item of its batch came too late: who waited for that one asks again, not it."""
    gate = Gate()
    source = Counting(on_query=gate, instead={PNG: DeadlinePassed("late")})
    fingerprints = cached(source)
    waiter = Waiter()
    with askers(fingerprints) as ask:
        leader = ask(PNG, HELLO)
        assert gate.come.wait(WAIT_S)
        follower = ask(HELLO, PNG, call=waiter.call)
        assert waiter.waits.wait(WAIT_S)
        source.on_query = lambda call: source.instead.clear()
        gate.open()
        assert type(leader.result(WAIT_S)[0]) is DeadlinePassed
        assert [plain(o) for o in follower.result(WAIT_S)] == fresh([HELLO, PNG])
    assert source.items == [PNG, HELLO, PNG]


def test_a_refusal_for_good_is_shared() -> None:
    """Nobody decodes a hostile file again because it was sent many times at once."""
    gate = Gate()
    source = Counting(on_query=gate)
    waiter = Waiter()
    with askers(cached(source, bytes_max=0)) as ask:
        leader = ask(BROKEN)
        assert gate.come.wait(WAIT_S)
        follower = ask(BROKEN, call=waiter.call)
        assert waiter.waits.wait(WAIT_S)
        gate.open()
        both = [leader.result(WAIT_S)[0], follower.result(WAIT_S)[0]]
    assert [type(refusal_of(o)) for o in both] == [BadContent] * 2
    assert len(source.items) == 1


def test_nobody_waits_beyond_its_own_time() -> None:
    """The deadline of a call that waits holds, and so does being given up; the leader goes on."""
    gate = Gate()
    source = Counting(on_query=gate)
    fingerprints = cached(source)
    late, gone = Waiter(deadline_s=0.2), Waiter()
    with askers(fingerprints) as ask:
        leader = ask(PNG)
        assert gate.come.wait(WAIT_S)
        ends = [ask(PNG, call=late.call), ask(PNG, call=gone.call)]
        assert gone.waits.wait(WAIT_S)
        gone.wanted = False
        assert type(ends[0].exception(3)) is DeadlinePassed
        assert type(ends[1].exception(WAIT_S)) is NotReady
        assert not leader.done()
        gate.open()
        assert [plain(o) for o in leader.result(WAIT_S)] == fresh([PNG])
    assert len(source.items) == 1


def test_an_upload_does_not_wait_for_a_stocktaking() -> None:
    """Interactive work computes beside bulk work on the same content; bulk waits for either."""
    gate = Gate()
    source = Counting(on_query=lambda call: gate() if call.priority is Priority.BULK else None)
    fingerprints = cached(source, bytes_max=0)
    waiter = Waiter(priority=Priority.BULK)
    with askers(fingerprints) as ask:
        bulk = ask(PNG, call=CallContext(Priority.BULK))
        assert gate.come.wait(WAIT_S)
        more = ask(PNG, call=waiter.call)
        assert waiter.waits.wait(WAIT_S)
        assert [plain(o) for o in ask(PNG).result(WAIT_S)] == fresh([PNG])
        gate.open()
        assert [plain(f.result(WAIT_S)[0]) for f in (bulk, more)] == fresh([PNG]) * 2
    assert len(source.items) == 2


def test_without_single_flight_nobody_waits() -> None:
    """Off is off: a call computes what another has in work."""
    gate = Gate()
    source = Counting(on_query=gate)
    fingerprints = cached(source, single_flight=False)
    with askers(fingerprints) as ask:
        first = ask(PNG)
        assert gate.come.wait(WAIT_S)
        source.on_query = lambda call: None
        assert [plain(o) for o in ask(PNG).result(WAIT_S)] == fresh([PNG])
        gate.open()
        first.result(WAIT_S)
    assert source.items == [PNG, PNG]


def test_a_call_stops_joining_leaders_that_fail() -> None:
    """After a few it computes on its own, whoever else has the content in work."""

    class FailingLeaders(SingleFlight[object, Outcome]):
        def board(self, keys, priority):  # type: ignore[no-untyped-def]
            _, joined = super().board(keys, priority)
            led, _ = super().board(["other"], priority)
            flight = led.pop("other")
            self.land("other", flight, None)
            rounds.append(len(joined))
            return {}, dict.fromkeys(keys, flight)

    rounds: list[int] = []
    source = Counting()
    fingerprints = cached(source)
    fingerprints._flights = FailingLeaders()  # type: ignore[assignment]
    assert [plain(o) for o in fingerprints.query([PNG], EVERYTHING)] == fresh([PNG])
    assert len(rounds) == JOINS_MAX
    assert source.items == [PNG]


def _storm(seed: int, threads: int, calls: int) -> None:
    """Many threads ask for overlapping batches while calls fail, end and are evicted."""
    rng = np.random.default_rng(seed)
    contents: list[Content] = [TextContent(f"message {n}") for n in range(6)]
    contents += [PNG, BROKEN, READY, BAD_HASH]
    expected = fresh(contents)
    plans = [
        [
            (rng.integers(len(contents), size=rng.integers(1, 7)).tolist(), rng.random())
            for _ in range(calls)
        ]
        for _ in range(threads)
    ]
    weather = threading.local()

    def on_query(call: CallContext) -> None:
        time.sleep(0.001)
        if weather.luck < 0.2:
            raise Overloaded("full")

    source = Counting(on_query=on_query)
    fingerprints = cached(source, bytes_max=int(rng.choice([0, 6_000, LARGE])))
    wrong: list[object] = []
    asked = refused = 0
    lock = threading.Lock()

    def run(plan: list[tuple[list[int], float]]) -> None:
        nonlocal asked, refused
        for numbers, luck in plan:
            weather.luck = luck
            priority = Priority.BULK if luck > 0.6 else Priority.INTERACTIVE
            left_s = 0.002 if luck > 0.9 else WAIT_S
            call = CallContext(priority, time.monotonic() + left_s)
            try:
                outcomes = fingerprints.query([contents[n] for n in numbers], EVERYTHING, call)
            except (Overloaded, DeadlinePassed) as refusal:
                allowed = luck < 0.2 if isinstance(refusal, Overloaded) else luck > 0.9
                with lock:
                    refused += 1
                    wrong.extend([] if allowed else [(luck, refusal)])
                continue
            with lock:
                asked += 1
                wrong.extend(
                    (n, o)
                    for n, o in zip(numbers, outcomes, strict=True)
                    if plain(o) != expected[n]
                )

    workers = [threading.Thread(target=run, args=(plan,), daemon=True) for plan in plans]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(WAIT_S)
    assert not any(worker.is_alive() for worker in workers), "somebody waits for ever"
    assert wrong == []
    assert asked + refused == threads * calls
    assert fingerprints._flights is not None
    assert len(fingerprints._flights) == 0


@pytest.mark.parametrize("seed", range(4))
def test_a_storm_of_mixed_batches_gets_right_answers_and_ends(seed: int) -> None:
    """Nobody gets another call's failure or deadline, nothing is left in flight."""
    _storm(seed, threads=8, calls=25)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 160))
def test_a_long_storm(seed: int) -> None:
    """The same, for longer and with more threads."""
    _storm(seed, threads=24, calls=60)


# ---------------------------------------------------------------- digests alone


@pytest.mark.parametrize("content", [PNG, HELLO, TextContent("He\u0301llo  THERE")])
def test_digests_alone_are_those_of_the_whole_print(content: Content) -> None:
    """Computed without decoding, equal to what a ban stores and a full query asks."""
    alone = digests_alone(content, ContentLimits(), EVERYTHING)
    whole = printed(Counting().query([content], EVERYTHING)[0])
    assert alone is not None
    assert dict(alone.fingerprint.digests) == dict(whole.fingerprint.digests)
    assert alone.modality is whole.modality
    assert set(alone.reports) <= set(whole.reports)
    assert not alone.fingerprint.bits
    assert not alone.fingerprint.vectors


def test_only_what_has_digests_of_its_own_has_them_alone() -> None:
    """Not what is ready; a text that will be refused has those of its bytes, and an image need not
    be one."""
    assert digests_alone(READY, ContentLimits()) is None
    assert digests_alone(BAD_HASH, ContentLimits()) is None
    alone = digests_alone(EMPTY, ContentLimits())
    assert alone is not None
    assert set(alone.fingerprint.digests) == {Signal.SHA256, Signal.MD5}
    assert digests_alone(BROKEN, ContentLimits()) is not None


def test_the_refusals_that_are_remembered_follow_from_the_content() -> None:
    """A list to be thought about: adding to it makes a passing trouble stick."""
    assert set(packing.LASTING) == {BadContent, ContentTooLarge, EmptyContent}
    assert not packing.lasts(BadHash("no"))
