"""A server that answers wrongly says so within a probe, and says when it is right again."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from msgspec import structs

from simsearch.config import CanaryConfig, ServerConfig
from simsearch.encode.fingerprint import AllSignals, ContentFingerprint, Fingerprinter, merge
from simsearch.encode.image.decoder import DecodedImage, ImageRequest, InProcessDecoder
from simsearch.encode.image.picture import ImageLimits
from simsearch.encode.registry import EncoderSet, LoadedEncoder
from simsearch.errors import Corrupt, Overloaded
from simsearch.index.index_protocol import CosineMatches, CosineView
from simsearch.live.view import View
from simsearch.serve.core.health_state import CheckResult, Component
from simsearch.serve.health.canary import Canary
from simsearch.serve.health.canary_content import canary_contents
from simsearch.serve.health.canary_rows import PAGE_ENTRIES, StoredRows
from simsearch.serve.health.older_forms import OlderFormCount
from simsearch.serve.health.status_service import _status
from simsearch.serve.scheduling.executor import MatchExecutor
from simsearch.types import (
    EVERY_BANK,
    NO_CALL,
    CallContext,
    Content,
    Entry,
    EntryDraft,
    HashContent,
    MatchOptions,
    MatchResult,
    Modality,
    Signal,
    TextContent,
    Vectors,
)
from tests.fakes import PICTURES, PROSE, FakeImageEncoder, FakeTextEncoder, unit_of
from tests.serve.conftest import EDIT
from tests.serve.house import CACHE, _core

T = TypeVar("T")

QUICK = CanaryConfig(every_s=0.01, timeout_s=5.0, lag_max_s=30.0)


class TurningEncoder(FakeTextEncoder):
    """Gives other vectors once it is told to: those of `turned`."""

    turned: Callable[[str], Vectors] | None = None
    fault: Exception | None = None

    def encode_texts(self, texts: Sequence[str], call: CallContext = NO_CALL) -> Vectors:
        if self.fault:
            raise self.fault
        if self.turned:
            return np.stack([self.turned(text) for text in texts])
        return super().encode_texts(texts, call)


class House:
    """A core with two encoders, entries of texts and hashes, and a canary that is asked by hand."""

    def __init__(self, path: Path, config: CanaryConfig, decoder: InProcessDecoder | None) -> None:
        self.prose, self.captions = TurningEncoder(), TurningEncoder(PICTURES)
        pictures = LoadedEncoder(
            "pictures",
            Modality.IMAGE,
            image=FakeImageEncoder(),
            text=self.captions,
        )
        prose = LoadedEncoder("prose", Modality.TEXT, text=self.prose)
        encoders = EncoderSet({"prose": prose, "pictures": pictures})
        self.core = _core(path, encoders, CACHE, decoder)
        self.core.store.create_bank("alpha", "", self.core.default_policy(), EDIT)
        self.loop = asyncio.new_event_loop()
        self.work = self.run(self._working())
        self.canary = Canary(self.work, config)

    async def _working(self) -> MatchExecutor:
        work = MatchExecutor(ServerConfig())
        work.begin(self.core)
        return work

    def run(self, task: Awaitable[T]) -> T:
        async def awaited() -> T:
            return await task

        return self.loop.run_until_complete(awaited())

    def ban(self, *contents: Content) -> list[int]:
        fingerprints = [
            p
            for p in self.core.fingerprinter.ban(contents, wanted=AllSignals())
            if isinstance(p, ContentFingerprint)
        ]
        drafts = [EntryDraft(merge([p])) for p in fingerprints]
        entries = self.core.store.add_entries("alpha", drafts, EDIT)
        assert self.core.follower.wait_for(entries[-1].added.seq, 10)
        return [entry.key for entry in entries]

    def probe(self) -> bool:
        return self.run(self.canary.probe())

    @property
    def wrong(self) -> list[tuple[Component, str]]:
        return [(r.component, r.signal) for r in self.core.health.results if not r.ok]

    def counted(self, name: str, **labels: str) -> float | None:
        return self.core.metrics.registry.get_sample_value(name, labels)

    def probes(self, outcome: str) -> float:
        return self.counted("simsearch_canary_probes_total", outcome=outcome) or 0.0

    def see(self, view: View) -> None:
        """Search this view from now on."""
        self.core.follower._view = view

    def close(self) -> None:
        assert self.work.close(10)
        self.core.close()
        self.loop.close()


Build = Callable[..., House]


@pytest.fixture
def build(tmp_path: Path) -> Iterator[Build]:
    made: list[House] = []

    def make(config: CanaryConfig = QUICK, decoder: InProcessDecoder | None = None) -> House:
        made.append(House(tmp_path / "data", config, decoder))
        return made[-1]

    yield make
    for house in made:
        house.close()


@pytest.fixture
def house(build: Build) -> House:
    return build()


SENTENCES = [
    "Banned sentence about the first of the boats.",
    "Another one which tells of mountains and rain.",
]


def test_a_sound_server_is_right(house: House) -> None:
    """Every space and hash is asked for with known content, and every one that has rows by them;
    in an empty bank the content alone."""
    assert house.probe()
    checked = {(r.component, r.signal) for r in house.core.health.results}
    assert len(checked) == len(house.core.health.results)  # the two sides of one space are one
    forms = ("text_light_sha256", "text_strong_sha256", "text_sha256", "minhash", "minhash1024")
    texts = {(Component.CONTENT, s) for s in (*forms, PROSE.id)}
    images = {(Component.CONTENT, s) for s in ("sha256", "md5", "pdq", PICTURES.id)}
    assert checked == texts | images | {(Component.TIME, ""), (Component.FOLLOWER, "")}

    house.ban(*map(TextContent, SENTENCES), HashContent(Signal.PDQ, b"\x96" * 32))
    assert house.probe()
    stored = {r.signal for r in house.core.health.results if r.component is Component.INDEX}
    assert stored == {PROSE.id, *forms, "pdq"}


def test_nobody_sees_it(house: House) -> None:
    """No bank, no entry, no change, no hit, no verdict that was counted."""
    house.ban(TextContent(SENTENCES[0]))
    seq = house.core.store.seq()
    assert house.probe()
    assert [bank.name for bank in house.core.store.banks()] == ["alpha"]
    assert house.core.store.seq() == seq
    (found, others) = canary_contents()
    for outcome in house.core.matcher.match([*found, *others], MatchOptions()):
        assert isinstance(outcome, MatchResult)
        assert outcome.hits == ()
    assert house.counted("simsearch_verdicts_total", verdict="NO_MATCH") == 0


# ---------------------------------------------------------------- encoders


def test_an_encoder_that_gives_other_vectors_is_found(house: House) -> None:
    """As after a fault of memory: the space is named, nothing else is, and it is over when it is
    over."""
    assert house.probe()
    house.prose.turned = lambda text: unit_of(f"other {text}")
    assert not house.probe()
    assert house.wrong == [(Component.CONTENT, PROSE.id)]
    house.prose.turned = None
    assert house.probe()
    assert house.probes("right") == 2
    assert house.probes("wrong") == 1


def test_either_side_of_a_space_is_asked(build: Build) -> None:
    """Texts that ask in a space of images have an encoder of their own."""
    house = build()
    assert house.probe()
    house.captions.turned = lambda text: unit_of(f"other {text}")
    assert not house.probe()
    assert house.wrong == [(Component.CONTENT, PICTURES.id)]


def test_an_encoder_that_gives_one_vector_for_everything_is_found(house: House) -> None:
    """Known content is still found by it, and so would be everybody's."""
    house.prose.turned = lambda text: unit_of("the same")
    assert not house.probe()
    assert house.wrong == [(Component.CONTENT, PROSE.id)]


def test_a_small_drift_is_not_a_fault(house: House) -> None:
    """Batches of other sizes round otherwise."""
    assert house.probe()

    def drifted(text: str) -> Vectors:
        vector = unit_of(text) + 0.002 * unit_of(f"noise {text}")
        return np.asarray(vector / np.linalg.norm(vector), np.float32)

    house.prose.turned = drifted
    assert house.probe()


def test_an_encoder_that_fails_is_found(house: House) -> None:
    """Also at the first probe, when nothing is known of it yet; then the next one begins anew."""
    house.prose.fault = RuntimeError("broken")
    assert not house.probe()
    assert (Component.CONTENT, "") in house.wrong
    house.prose.fault = None
    assert house.probe()


def test_content_is_encoded_each_time(house: House) -> None:
    """What is remembered of content does not answer for the encoder."""
    assert house.probe()
    asked = len(house.prose.asked)
    assert house.probe()
    assert len(house.prose.asked) > asked


class ForgetfulDecoder(InProcessDecoder):
    """Decodes without the hash, once it is told to."""

    forgets = False

    def decode(self, data: bytes, ask: ImageRequest, call: CallContext = NO_CALL) -> DecodedImage:
        decoded = super().decode(data, ask, call)
        return replace(decoded, pdq=None) if self.forgets else decoded


def test_a_decoder_without_a_hash_is_found(build: Build) -> None:
    """A signal that is missing is as wrong as one that is another."""
    decoder = ForgetfulDecoder(ImageLimits())
    house = build(decoder=decoder)
    assert house.probe()
    decoder.forgets = True
    assert not house.probe()
    assert house.wrong == [(Component.CONTENT, "pdq")]


# ---------------------------------------------------------------- stored rows


class Blind:
    """A view of vectors without the rows of some entries."""

    def __init__(self, view: CosineView, lost: set[int]) -> None:
        self._view = view
        self._lost = lost
        self.dim = view.dim

    def __len__(self) -> int:
        return len(self._view)

    def search(self, queries: Vectors, floors: Mapping[int, float]) -> CosineMatches:
        found = self._view.search(queries, floors)
        kept = ~np.isin(found.key, list(self._lost))
        return CosineMatches(
            query=found.query[kept],
            row=found.row[kept],
            key=found.key[kept],
            group=found.group[kept],
            cosine=found.cosine[kept],
            truncated=found.truncated,
        )


@contextmanager
def without(house: House, lost: set[int]) -> Iterator[None]:
    sound = house.core.follower.view
    blind = Blind(sound.cosine_views[PROSE.id], lost)
    house.see(replace(sound, cosine_views={**sound.cosine_views, PROSE.id: blind}))
    yield
    house.see(sound)


def test_an_index_that_lost_its_rows_is_found(house: House) -> None:
    """The space is named; and it is over when the rows are back."""
    keys = house.ban(*map(TextContent, SENTENCES))
    assert house.probe()
    with without(house, set(keys)):
        assert not house.probe()
        assert house.wrong == [(Component.INDEX, PROSE.id)]
    assert house.probe()


def test_more_equal_rows_than_a_search_returns_are_no_loss(house: House) -> None:
    """A thousand equal bans hide each other in a search, which says `truncated`: none is lost."""
    house.ban(*map(TextContent, SENTENCES))

    class Crowded(Blind):
        def search(self, queries: Vectors, floors: Mapping[int, float]) -> CosineMatches:
            return replace(super().search(queries, floors), truncated=np.ones(len(queries), bool))

    sound = house.core.follower.view
    crowded = Crowded(sound.cosine_views[PROSE.id], {1, 2})
    house.see(replace(sound, cosine_views={PROSE.id: crowded}))
    assert house.probe()
    house.see(sound)


def test_one_lost_entry_of_many_is_found_when_its_page_comes_round(house: House) -> None:
    """Every entry has its turn, wherever the probes begin."""
    texts = [TextContent(f"Sentence number {n} of a long list.") for n in range(3 * PAGE_ENTRIES)]
    keys = house.ban(*texts)
    with without(house, {keys[40]}):
        found = [house.probe() for _ in range(4)]
        assert not all(found)
    rounds = StoredRows(start=lambda n: 0)
    seen: set[int] = set()
    for _ in range(4):
        seen |= {entry.key for entry in rounds._next_page(house.core, house.core.follower.view)}
    assert seen == set(keys)


def test_retracted_and_unseen_entries_are_no_losses(house: House) -> None:
    """What a view rightly does not show is not looked for, not even in the moment of an edit."""
    keys = house.ban(*map(TextContent, SENTENCES))
    before = house.core.follower.view
    house.core.store.retract_entry("alpha", keys[0], EDIT)
    assert house.core.follower.wait_for(house.core.store.seq(), 10)
    assert house.probe()
    more = house.ban(TextContent("A third one that the old view cannot know."))
    house.see(before)
    try:
        assert house.probe()
        results = list(StoredRows(start=lambda n: 0).check(house.core))
        assert all(result.ok for result in results)
    finally:
        house.core.follower._view = None
        house.core.follower._publish(house.core.follower._replica)  # type: ignore[arg-type]
    assert more


def test_a_hash_that_is_lost_is_found(house: House) -> None:
    """Binary rows and digests as well as vectors."""
    house.ban(TextContent(SENTENCES[0]), HashContent(Signal.PDQ, b"\x96" * 32))
    assert house.probe()
    sound = house.core.follower.view
    empty = replace(
        sound,
        hamming_views={**sound.hamming_views, Signal.PDQ: sound.hamming_views[Signal.MINHASH]},
        lookup=Nothing(),
    )
    house.see(empty)
    assert not house.probe()
    digests = ("text_light_sha256", "text_strong_sha256", "text_sha256")
    assert set(house.wrong) == {(Component.INDEX, name) for name in ("pdq", *digests)}
    house.see(sound)


class Nothing:
    """A look-up that finds nothing."""

    def find_digests(
        self, digests: Sequence[tuple[Signal, bytes]], through: int
    ) -> list[list[tuple[int, int]]]:
        return [[] for _ in digests]

    def entries_by_key(self, keys: Sequence[int]) -> Mapping[int, Entry]:
        return {}


def test_a_view_that_cannot_be_searched_is_found(house: House) -> None:
    """A fault of the index is a finding, and not the end of the canary."""
    house.ban(TextContent(SENTENCES[0]))

    class Broken(Blind):
        def search(self, queries: Vectors, floors: Mapping[int, float]) -> CosineMatches:
            raise Corrupt("broken")

    sound = house.core.follower.view
    broken = Broken(sound.cosine_views[PROSE.id], set())
    house.see(replace(sound, cosine_views={PROSE.id: broken}))
    assert not house.probe()
    assert house.wrong == [(Component.INDEX, "")]
    house.see(sound)
    assert house.probe()


# ---------------------------------------------------------------- edits and time


def test_a_follower_that_stands_still_is_found(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once an edit has not been seen for longer than it may be; a young one is no fault."""
    house = build(structs.replace(QUICK, lag_max_s=0.3))
    assert house.probe()
    stands = threading.Event()
    step = type(house.core.follower)._catch_up
    monkeypatch.setattr(
        type(house.core.follower), "_catch_up", lambda f: None if stands.is_set() else step(f)
    )
    stands.set()
    house.core.store.create_bank("beta", "", house.core.default_policy(), EDIT)
    assert house.probe()
    time.sleep(0.4)
    assert not house.probe()
    assert house.wrong == [(Component.FOLLOWER, "")]
    stands.clear()
    assert house.core.follower.wait_for(house.core.store.seq(), 10)
    assert house.probe()


def test_work_that_does_not_end_is_found(build: Build) -> None:
    """A late probe proves nothing by itself, two in a row do; and what is right again is right."""
    house = build()
    assert house.probe()
    house.canary._config = structs.replace(QUICK, timeout_s=0.3)
    held = threading.Event()

    def hangs(text: str) -> Vectors:
        held.wait(10)
        return unit_of(text)

    house.prose.turned = hangs
    assert house.probe()
    assert not house.probe()
    assert house.wrong == [(Component.TIME, "")]
    held.set()
    house.prose.turned = None
    house.canary._config = QUICK
    deadline = time.monotonic() + 10
    while not house.probe():
        assert time.monotonic() < deadline
    assert house.probes("late") >= 2


def test_too_much_to_do_is_not_broken(house: House) -> None:
    """An encoder whose queue is full refuses: once says nothing; and admission is not asked."""
    assert house.probe()
    house.prose.fault = Overloaded("full")
    assert house.probe()
    assert house.probes("late") == 1
    house.prose.fault = None
    house.work.limiter.drain()  # refuses every call from now on
    assert house.probe()


def test_nothing_is_right_before_the_first_probe(build: Build) -> None:
    """A server whose first probe does not come to an end is not ready."""
    house = build(structs.replace(QUICK, timeout_s=0.1))

    def slow(text: str) -> Vectors:
        time.sleep(0.1)
        return unit_of(text)

    house.prose.turned = slow
    assert not house.probe()
    assert list(house.core.health.results) == []


def test_it_is_watched_over_and_over(house: House) -> None:
    """Each probe's outcome is told, in order; nothing that goes wrong ends it."""
    told: list[bool] = []

    async def story() -> None:
        enough = asyncio.Event()

        async def tell(right: bool) -> None:
            told.append(right)
            if len(told) == 1:
                house.prose.fault = RuntimeError("broken")
            if len(told) == 2:
                house.prose.fault = None
            if len(told) == 3:
                enough.set()

        watching = asyncio.create_task(house.canary.watch(tell))
        await asyncio.wait_for(enough.wait(), 10)
        watching.cancel()

    house.run(story())
    assert told[:3] == [True, False, True]


def test_get_status_tells_it(house: House) -> None:
    """Every finding, right or wrong, and whether the server is ready."""
    house.probe()
    house.prose.turned = lambda text: unit_of(f"other {text}")
    house.probe()
    house.core.health.ready = False
    status = _status(house.core, EVERY_BANK, OlderFormCount())
    assert not status.ready
    wrong = [(f.part, f.signal) for f in status.canary if not f.right]
    assert wrong == [("content", PROSE.id)]
    assert "start" in next(f.detail for f in status.canary if not f.right)
    assert len(status.canary) == len(house.core.health.results)


def test_a_check_is_ok_without_a_fault() -> None:
    """And only then."""
    assert CheckResult(Component.INDEX, "pdq").ok
    assert not CheckResult(Component.INDEX, "pdq", "lost").ok


def test_known_content_differs_in_every_real_space(tmp_path: Path) -> None:
    """What must not be found lies far from what must be: also for a small encoder of images."""
    from simsearch.encode.encoders.clip import load_clip
    from simsearch.encode.fingerprint import AllSignals, ContentLimits

    clip = load_clip("copyclip", device="cpu")
    encoders = EncoderSet({"c": LoadedEncoder("c", Modality.IMAGE, image=clip, text=clip)})
    found, others = canary_contents()
    fingerprints = [
        p
        for p in Fingerprinter(encoders, ContentLimits()).query([*found, *others], AllSignals())
        if isinstance(p, ContentFingerprint)
    ]
    rows = np.vstack([p.fingerprint.vectors[clip.space.id] for p in fingerprints])
    near = rows @ rows.T - np.eye(len(rows))
    assert near.max() < 0.95
    assert all(Signal.PDQ in p.fingerprint.bits for p in fingerprints[::2])
