"""Verdict cache: always what a matcher that remembers nothing says of the same view."""

from __future__ import annotations

import gc
import hashlib
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from PIL import Image

from simsearch.encode.cache.fingerprint_cache import FingerprintCache
from simsearch.encode.digests import md5, sha256
from simsearch.encode.fingerprint import Fingerprinter
from simsearch.encode.registry import EncoderSet
from simsearch.errors import BadContent, BankNotFound, EmptyContent, LimitExceeded, SimsearchError
from simsearch.match.evidence import View
from simsearch.match.matcher import Matcher, Outcome
from simsearch.match.verdict_cache import QUERIES_MAX, VerdictCache
from simsearch.types import (
    NO_CALL,
    Band,
    BankAccess,
    CallContext,
    Content,
    CosineRule,
    DigestRule,
    Fingerprint,
    HammingRule,
    HashContent,
    ImageContent,
    MatchOptions,
    MatchResult,
    Modality,
    Policy,
    Signal,
    SignalState,
    TextContent,
    VectorContent,
)
from tests.encode.pictures import landscape, saved
from tests.fakes import PICTURES, PROSE, FakeImageEncoder, FakeTextEncoder, encoders, unit_of
from tests.match.fakes import HITS_MAX, FakeView, Views, World, asking, banned, fingerprinter, keys

PNG = ImageContent(saved(landscape(1, (64, 64)), "PNG"))
BROKEN = ImageContent(b"hello")
ENOUGH = TextContent("a sentence of enough words for every signal")
HELLO, BYE, EMPTY = TextContent("hello"), TextContent("good bye now"), TextContent(" ")
READY = VectorContent(PROSE.id, unit_of("ready")[np.newaxis])
HASH = HashContent(Signal.SHA256, sha256(PNG.data))

TEXTS = Policy(
    cosine=(CosineRule(PROSE.id, Modality.TEXT, review=0.9),),
    hamming=(HammingRule(Signal.MINHASH, log=60),),
    digests=(DigestRule(Signal.TEXT_SHA256, Band.BLOCK),),
)
IMAGES = Policy(
    cosine=(CosineRule(PICTURES.id, Modality.IMAGE, review=0.8),),
    hamming=(HammingRule(Signal.PDQ, block=31),),
    digests=(DigestRule(Signal.SHA256, Band.BLOCK), DigestRule(Signal.MD5, Band.REVIEW)),
)
MD5_BLOCKS = replace(IMAGES, digests=(DigestRule(Signal.MD5, Band.BLOCK),))
PAIRED = replace(IMAGES, two_descriptors=True)
LOST = Policy(cosine=(CosineRule("gone", Modality.TEXT, review=0.9),))
POLICIES = [TEXTS, IMAGES, MD5_BLOCKS, PAIRED, LOST]


def all_encoders() -> EncoderSet:
    return encoders(FakeTextEncoder(), FakeImageEncoder())


class Counting:
    """A Matcher that keeps what it was asked. `on_match` runs after each call's work."""

    def __init__(self, views: Views, on_match: Callable[[], None] = lambda: None) -> None:
        self._inner = Matcher(fingerprinter(all_encoders()), views, HITS_MAX)
        self.asked: list[list[Content]] = []
        self.on_match = on_match

    def match(
        self, contents: Sequence[Content], options: MatchOptions, call: CallContext = NO_CALL
    ) -> list[Outcome]:
        self.asked.append(list(contents))
        outcomes = self._inner.match(contents, options, call)
        self.on_match()
        return outcomes


def small_world() -> World:
    world = World()
    world.bank("texts", TEXTS)
    world.bank("images", IMAGES)
    world.ban(1, "texts", banned(HELLO, all_encoders()))
    world.ban(2, "images", banned(PNG, all_encoders()))
    return world


def cached(views: Views, verdicts_max: int = 100) -> tuple[VerdictCache, Counting]:
    inner = Counting(views)
    return VerdictCache(inner, views, verdicts_max), inner


def plain(outcome: Outcome) -> object:
    if isinstance(outcome, SimsearchError):
        return type(outcome), outcome.message
    return outcome


def one(matcher: VerdictCache | Matcher, content: Content, *banks: str) -> MatchResult:
    [outcome] = matcher.match([content], asking(*banks))
    assert isinstance(outcome, MatchResult), outcome
    return outcome


# ---------------------------------------------------------------- the same answers


def test_what_was_asked_of_this_view_is_answered_without_asking_again() -> None:
    """Images and texts; ready vectors and hashes, and refusals, go through each time."""
    matcher, inner = cached(Views(small_world().view()))
    contents: list[Content] = [PNG, HELLO, READY, HASH, BROKEN]
    first, second = (matcher.match(contents, asking()) for _ in range(2))
    assert [plain(o) for o in first] == [plain(o) for o in second]
    assert [keys(o) for o in first if isinstance(o, MatchResult)] == [[2], [1], [], [2]]
    assert inner.asked == [contents, [READY, HASH, BROKEN]]
    counts = matcher.counts
    assert (counts.hits, counts.misses, counts.entries) == (2, 4, 2)


def test_an_edit_is_seen_at_once() -> None:
    """By the first question after it, whatever was answered before."""
    world = small_world()
    views = Views(world.view(1))
    matcher, inner = cached(views)
    assert keys(one(matcher, HELLO)) == [1]
    world.ban(3, "texts", banned(HELLO, all_encoders()))
    views.view = world.view(2)
    assert keys(one(matcher, HELLO)) == [1, 3]
    world.retract(1, 3)
    views.view = world.view(3)
    result = one(matcher, HELLO)
    assert (keys(result), result.seq) == ([3], 3)
    world.bank("texts", replace(TEXTS, digests=(DigestRule(Signal.TEXT_SHA256, Band.LOG),)))
    views.view = world.view(4)
    assert one(matcher, HELLO).verdict is Band.REVIEW
    assert len(inner.asked) == 4


def test_another_view_of_the_same_position_is_asked_itself() -> None:
    """Rows that were sealed are searched otherwise: seq and snapshot do not tell."""
    world = small_world()
    unsealed, sealed = world.view(1), world.view(1)
    views = Views(unsealed)
    matcher, inner = cached(views)
    one(matcher, HELLO)
    views.view = sealed
    one(matcher, HELLO)
    views.view = world.view(1, snapshot="snap-2")
    assert one(matcher, HELLO).snapshot == "snap-2"
    assert len(inner.asked) == 3


def test_a_verdict_that_came_beside_an_edit_is_not_taken_for_the_new_views() -> None:
    """Nor for the old one's: which of them was asked, nobody knows."""
    world = small_world()
    views = Views(world.view(1))
    matcher, inner = cached(views)

    def edit() -> None:
        world.retract(1, 2)
        views.view = world.view(2)

    inner.on_match = edit
    assert keys(one(matcher, HELLO)) == [1]
    inner.on_match = lambda: None
    assert matcher.counts.entries == 0
    assert keys(one(matcher, HELLO)) == []


class Turning(Views):
    """A ViewSource that moves on after so many looks."""

    def __init__(self, views: Sequence[FakeView], looks: int) -> None:
        self._given, self._left, self._looks = list(views), looks, looks

    @property
    def view(self) -> View:  # type: ignore[override]
        if self._left == 0 and len(self._given) > 1:
            self._given.pop(0)
            self._left = self._looks
        self._left -= 1
        return self._given[0]


@pytest.mark.parametrize("looks", range(1, 9))
def test_whenever_the_view_moves_an_answer_is_true_of_the_position_it_names(looks: int) -> None:
    """Between any two looks at the view."""
    world = small_world()
    views = []
    for seq in range(1, 12):
        if seq % 2:
            world.ban(100 + seq, "texts", banned(HELLO, all_encoders()))
        else:
            world.retract(99 + seq, seq)
        views.append(world.view(seq))
    at = {
        v.seq: keys(one(Matcher(fingerprinter(all_encoders()), Views(v), HITS_MAX), HELLO))
        for v in views
    }
    turning = Turning(views, looks)
    matcher = VerdictCache(Counting(turning), turning, 100)
    for _ in range(20):
        result = one(matcher, HELLO)
        assert keys(result) == at[result.seq]


@pytest.mark.parametrize(
    "other",
    [
        MatchOptions(("texts",)),
        MatchOptions(("images",)),
        MatchOptions(("images", "texts")),
        MatchOptions(hits_max=1),
        MatchOptions(stop_at_block=True),
        MatchOptions(access=BankAccess(("images",))),
        MatchOptions(access=BankAccess(("t*",))),
    ],
    ids=str,
)
def test_another_question_gets_its_own_answer(other: MatchOptions) -> None:
    """Who may see fewer banks, asks fewer, or wants less is not given what others got."""
    world = small_world()
    world.ban(3, "texts", banned(HELLO, all_encoders()))
    views = Views(world.view())
    alone = Matcher(fingerprinter(all_encoders()), views, HITS_MAX)
    matcher, _ = cached(views)
    for options in (MatchOptions(), other, MatchOptions(), other):
        assert matcher.match([HELLO, PNG], options) == alone.match([HELLO, PNG], options)


def test_a_bank_that_a_caller_may_not_see_is_not_there() -> None:
    """Also when the answer about it is there."""
    matcher, _ = cached(Views(small_world().view()))
    matcher.match([HELLO], MatchOptions(("texts",)))
    with pytest.raises(BankNotFound):
        matcher.match([HELLO], MatchOptions(("texts",), access=BankAccess(("images",))))


@pytest.mark.parametrize(
    ("options", "refusal"),
    [
        (asking("nowhere"), BankNotFound),
        (asking(hits_max=0), LimitExceeded),
        (asking("nowhere", hits_max=HITS_MAX + 1), LimitExceeded),
    ],
)
@pytest.mark.parametrize("contents", [[], [HELLO]])
def test_a_question_that_cannot_be_asked_is_refused(
    options: MatchOptions, refusal: type[SimsearchError], contents: list[Content]
) -> None:
    """As the matcher does, also without contents."""
    matcher, _ = cached(Views(small_world().view()))
    for _ in range(2):
        with pytest.raises(refusal):
            matcher.match(contents, options)


def test_only_lasting_answers_are_remembered() -> None:
    """What could not be searched this time may be the next; a text that is too short for a signal
    stays so."""
    world = small_world()
    world.bank("lost", LOST)
    matcher, inner = cached(Views(world.view()))
    for _ in range(2):
        assert not one(matcher, HELLO).complete
        assert not one(matcher, HELLO, "texts").complete
        assert one(matcher, ENOUGH, "texts").complete
    assert len(inner.asked) == 4


def test_stage_times_say_where_an_answer_came_from() -> None:
    """One that was there took the stage "cache" alone; nobody else's times are told."""
    matcher, _ = cached(Views(small_world().view()))
    timed = asking(with_stage_times=True)
    [first], [second], [untimed] = (
        matcher.match([HELLO], options) for options in (timed, timed, asking())
    )
    assert isinstance(first, MatchResult)
    assert isinstance(second, MatchResult)
    assert set(first.stage_ms) == {"encode", "search", "decide"}
    assert set(second.stage_ms) == {"cache"}
    assert replace(first, stage_ms={}) == replace(second, stage_ms={}) == untimed


def test_the_bytes_of_a_content_are_hashed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """By both caches, the digests that are searched, and the share of hits that counts."""
    world = small_world()
    world.bank("images", IMAGES, enabled_ratio=0.5)
    views = Views(world.view())
    fingerprints = FingerprintCache(fingerprinter(all_encoders()), 1 << 20, single_flight=True)
    matcher = VerdictCache(Matcher(fingerprints, views, HITS_MAX), views, 100)
    large = 5 << 20
    noise = np.random.default_rng(1).bytes(3 * 1400 * 1400)
    image = ImageContent(saved(Image.frombytes("RGB", (1400, 1400), noise), "PNG"))
    text = TextContent("word " * 3_000)
    world.ban(3, "images", banned(replace(image), all_encoders()))
    views.view = world.view(2)
    assert len(image.data) > large
    hashed: list[int] = []
    for name in ("sha256", "md5"):
        monkeypatch.setattr(hashlib, name, partial(_counted, getattr(hashlib, name), hashed))
    for options in (asking(), replace(asking(), stop_at_block=True), asking()):
        for outcome in matcher.match([image, text], options):
            assert isinstance(outcome, MatchResult), outcome
    assert sorted(n for n in hashed if n >= large) == [len(image.data)] * 2, "SHA-256 and MD5"
    assert sum(n == len(text.text) for n in hashed) == 2


def _counted(
    compute: Callable[..., object], hashed: list[int], data: bytes = b"", **options: bool
) -> object:
    hashed.append(len(data))
    return compute(data, **options)


# ---------------------------------------------------------------- the bound


def test_what_is_held_is_bounded_and_hits_count() -> None:
    """The bound is on verdicts and their hits together."""
    world = small_world()
    for key in range(10, 14):
        world.ban(key, "texts", banned(HELLO, all_encoders()))
    matcher, inner = cached(Views(world.view()), verdicts_max=6)
    for content in (BYE, HELLO, BYE, HELLO):
        one(matcher, content)
    assert inner.asked == [[BYE], [HELLO], [BYE], [HELLO]]
    assert (matcher.counts.entries, matcher.counts.evictions) == (1, 3)


def test_the_verdicts_of_views_that_have_gone_make_room() -> None:
    """They count until then, and no view is kept for their sake."""
    world = small_world()
    views = Views(world.view(1))
    matcher, _ = cached(views, verdicts_max=4)
    for seq in range(1, 10):
        views.view = world.view(seq)
        one(matcher, BYE)
        assert matcher.counts.entries == min(seq, 4)
    gone = weakref.ref(views.view)
    views.view = world.view(20)
    gc.collect()
    assert gone() is None


def test_verdicts_without_hits_are_one_object() -> None:
    """Most are; the garbage collector, for which every call waits, would look at each."""
    views = Views(small_world().view())
    matcher = VerdictCache(Matcher(fingerprinter(all_encoders()), views, HITS_MAX), views, 1_000)
    contents = [TextContent(f"message {n}") for n in range(400)]

    def followed() -> int:
        for _ in range(3):
            gc.collect()
        return len(gc.get_objects())

    matcher.match(contents[:2], asking("texts"))
    before = followed()
    assert matcher.counts.entries == 2
    results = matcher.match(contents, asking("texts"))
    assert all(isinstance(r, MatchResult) and r.verdict is Band.NONE for r in results)
    del results
    assert matcher.counts.entries == 400
    assert followed() - before < 100


def test_ways_of_asking_are_bounded() -> None:
    """A caller who asks for ever other banks does not fill the memory."""
    matcher, inner = cached(Views(small_world().view()))
    for number in range(QUERIES_MAX + 50):
        matcher.match([], MatchOptions(access=BankAccess(("texts", f"x{number}"))))
    assert matcher._query_numbers is not None
    assert matcher._query_numbers.number_of.cache_info().currsize == QUERIES_MAX
    for _ in range(2):
        one(matcher, HELLO)
    assert inner.asked[-2:] == [[], [HELLO]]


# ---------------------------------------------------------------- a model


CONTENTS: list[Content] = [PNG, HELLO, BYE, EMPTY, BROKEN, READY, HASH]
NAMES = ("a", "b", "c")
banks = st.sampled_from(NAMES)


class Model(RuleBasedStateMachine):
    """Random edits, policies and questions; what is remembered never shows."""

    @initialize(policies=st.tuples(*[st.sampled_from(POLICIES)] * 2))
    def begin(self, policies: tuple[Policy, Policy]) -> None:
        self.world = World()
        for name, policy in zip(NAMES, policies, strict=False):
            self.world.bank(name, policy)
        self.seq, self.active = 1, list[int]()
        self.views = Views(self.world.view(1))
        plain_prints = fingerprinter(all_encoders())
        self.alone = Matcher(plain_prints, self.views, HITS_MAX)
        fingerprints = FingerprintCache(fingerprinter(all_encoders()), 9_000, single_flight=True)
        self.matcher = VerdictCache(Matcher(fingerprints, self.views, HITS_MAX), self.views, 7)

    def _edited(self) -> None:
        self.seq += 1
        self.views.view = self.world.view(self.seq)
        self.ask(list(range(len(CONTENTS))), (), 10, False, BankAccess())

    @rule(name=banks, policy=st.sampled_from(POLICIES))
    def set_policy(self, name: str, policy: Policy) -> None:
        self.world.bank(name, policy)
        self._edited()

    @rule(name=banks, content=st.sampled_from([PNG, HELLO, BYE]))
    def ban(self, name: str, content: Content) -> None:
        if name in self.world.banks:
            self.world.ban(self.seq, name, banned(content, all_encoders()))
            self.active.append(self.seq)
            self._edited()

    @rule(which=st.integers(0, 100))
    def retract(self, which: int) -> None:
        if self.active:
            self.world.retract(self.active.pop(which % len(self.active)), self.seq + 1)
            self._edited()

    @rule()
    def reload(self) -> None:
        self.views.view = self.world.view(self.seq, f"snap-{self.seq}")

    @rule(
        numbers=st.lists(st.integers(0, len(CONTENTS) - 1), max_size=5),
        names=st.lists(banks, max_size=2).map(tuple),
        hits_max=st.sampled_from([1, 10]),
        stop=st.booleans(),
        access=st.sampled_from([BankAccess(), BankAccess(("a", "c")), BankAccess(())]),
    )
    def ask(
        self,
        numbers: list[int],
        names: tuple[str, ...],
        hits_max: int,
        stop: bool,
        access: BankAccess,
    ) -> None:
        contents = [CONTENTS[n] for n in numbers]
        options = MatchOptions(names, hits_max, access=access, stop_at_block=stop)
        expected, got = (self._said(m, contents, options) for m in (self.alone, self.matcher))
        assert got == expected

    @staticmethod
    def _said(
        matcher: Matcher | VerdictCache, contents: Sequence[Content], options: MatchOptions
    ) -> object:
        try:
            return [plain(o) for o in matcher.match(contents, options)]
        except SimsearchError as refusal:
            return plain(refusal)


def test_random_edits_and_questions() -> None:
    """The model's rules hold."""
    form = settings(max_examples=12, stateful_step_count=15, deadline=None)
    run_state_machine_as_test(Model, settings=form)


@pytest.mark.slow
def test_random_edits_and_questions_for_longer() -> None:
    """The same, many more of them."""
    form = settings(max_examples=400, stateful_step_count=40, deadline=None)
    run_state_machine_as_test(Model, settings=form)


def test_threads_that_ask_beside_edits_get_what_was_true_somewhen() -> None:
    """An answer names its position, and is exactly what that position says."""
    world = small_world()
    views = Views(world.view(1))
    fingerprints = FingerprintCache(fingerprinter(all_encoders()), 1 << 20, single_flight=True)
    matcher = VerdictCache(Matcher(fingerprints, views, HITS_MAX), views, 50)
    at: dict[int, list[int]] = {1: [1]}
    answers: list[tuple[int, list[int]]] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            floor = views.view.seq
            result = one(matcher, HELLO, "texts")
            assert result.seq >= floor
            answers.append((result.seq, keys(result)))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for seq in range(2, 40):
        if seq % 2:
            world.retract(seq - 1, seq)
        else:
            world.ban(seq, "texts", banned(HELLO, all_encoders()))
        at[seq] = [1] if seq % 2 else [1, seq]
        views.view = world.view(seq)
        until = len(answers) + 2
        while len(answers) < until and all(t.is_alive() for t in threads):
            time.sleep(0.0005)
    done.set()
    for thread in threads:
        thread.join()
    assert all(found == at[seq] for seq, found in answers)
    assert len({seq for seq, _ in answers}) > 3


# ---------------------------------------------------------------- stopping at a block


def stopping(*banks: str) -> MatchOptions:
    return replace(asking(*banks, with_stage_times=True), stop_at_block=True)


class NeverAsked(Fingerprinter):
    """Has its limits looked up, and nothing else done."""

    def query(self, contents, wanted, call=NO_CALL):  # type: ignore[no-untyped-def]
        assert list(contents) == []
        return []


def test_a_digest_that_blocks_is_enough_for_who_says_so() -> None:
    """Nothing is decoded or encoded; the answer has the hits by digests and says it stopped."""
    world = small_world()
    near = Fingerprint(bits=banned(PNG).bits)
    world.ban(3, "images", near)
    views = Views(world.view())
    empty = NeverAsked(EncoderSet({}), fingerprinter().limits)
    image, text = Matcher(empty, views, HITS_MAX).match([PNG, HELLO], stopping())
    assert isinstance(image, MatchResult)
    assert isinstance(text, MatchResult)
    for result in (image, text):
        assert (result.verdict, result.stopped_early) == (Band.BLOCK, True)
        assert (result.complete, result.seq) == (False, 1)
        assert "digests" in result.stage_ms
    assert (keys(image), keys(text)) == ([2], [1])
    assert [e.signal for e in image.hits[0].evidence] == ["sha256", "md5"]
    assert {(r.signal, r.state) for r in image.signals} == {
        ("sha256", SignalState.SEARCHED),
        ("md5", SignalState.SEARCHED),
    }


def test_an_answer_that_stopped_early_is_never_complete() -> None:
    """Bits were not asked, which no report says: who asks for every hit must not take it so."""
    world = World()
    world.bank("images", replace(IMAGES, cosine=()))
    world.ban(1, "images", banned(PNG))
    alone = Matcher(fingerprinter(), Views(world.view()), HITS_MAX)
    [stopped], [full] = alone.match([PNG], stopping()), alone.match([PNG], asking())
    assert isinstance(stopped, MatchResult)
    assert isinstance(full, MatchResult)
    assert (stopped.complete, full.complete) == (False, True)


def test_without_the_option_every_hit_is_found() -> None:
    """Answers stay complete by default."""
    world = small_world()
    world.ban(3, "images", Fingerprint(bits=banned(PNG).bits))
    alone = Matcher(fingerprinter(all_encoders()), Views(world.view()), HITS_MAX)
    [result] = alone.match([PNG], asking())
    assert isinstance(result, MatchResult)
    assert (keys(result), result.complete, result.stopped_early) == ([2, 3], True, False)


def test_what_no_digest_blocks_is_answered_as_always() -> None:
    """Beside what is blocked, each in its place: refusals, ready content, and other hits."""
    views = Views(small_world().view())
    alone = Matcher(fingerprinter(all_encoders()), views, HITS_MAX)
    contents: list[Content] = [BYE, PNG, BROKEN, HASH, EMPTY, READY, HELLO]
    full = alone.match(contents, asking())
    fast = alone.match(contents, replace(asking(), stop_at_block=True))
    stopped = [isinstance(o, MatchResult) and o.stopped_early for o in fast]
    assert stopped == [c in (PNG, HELLO) for c in (BYE, PNG, BROKEN, HASH, EMPTY, 0, HELLO)]
    for before, after, early in zip(full, fast, stopped, strict=True):
        assert early or plain(before) == plain(after)
    assert [type(o) for o in fast if isinstance(o, SimsearchError)] == [BadContent, EmptyContent]


@pytest.mark.parametrize(
    ("policy", "stops"), [(IMAGES, False), (MD5_BLOCKS, True), (PAIRED, False)]
)
def test_md5_stops_only_where_a_bank_blocks_by_it(policy: Policy, stops: bool) -> None:
    """A digest for review is no reason to look no further."""
    world = World()
    world.bank("images", policy)
    world.ban(1, "images", Fingerprint(digests={Signal.MD5: (md5(PNG.data),)}))
    alone = Matcher(fingerprinter(all_encoders()), Views(world.view()), HITS_MAX)
    [result] = alone.match([PNG], stopping())
    assert isinstance(result, MatchResult)
    assert (result.stopped_early, keys(result)) == (stops, [1])


def test_only_the_banks_that_are_asked_can_stop() -> None:
    """A block in another bank, or in one that the caller may not see, changes nothing."""
    views = Views(small_world().view())
    alone = Matcher(fingerprinter(all_encoders()), views, HITS_MAX)
    for options in (
        stopping("texts"),
        replace(stopping(), access=BankAccess(("texts",))),
    ):
        [result] = alone.match([PNG], options)
        assert isinstance(result, MatchResult)
        assert (result.stopped_early, result.hits) == (False, ())


def test_a_file_that_is_no_image_is_blocked_by_its_digest_alone() -> None:
    """A ready hash may have banned it, whether or not the match stops there."""
    world = small_world()
    alone = Matcher(fingerprinter(all_encoders()), Views(world.view()), HITS_MAX)
    assert isinstance(alone.match([BROKEN], stopping())[0], BadContent)
    world.ban(5, "images", Fingerprint(digests={Signal.SHA256: (sha256(BROKEN.data),)}))
    alone = Matcher(fingerprinter(all_encoders()), Views(world.view()), HITS_MAX)
    [result] = alone.match([BROKEN], stopping())
    assert isinstance(result, MatchResult)
    assert keys(result) == [5]
    [further] = alone.match([BROKEN], asking())
    assert isinstance(further, MatchResult)
    assert (keys(further), further.complete) == ([5], False)
