"""The caches over a real connection: what is sent again costs no encoding."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from simsearch.client import Client
from simsearch.config import CacheConfig
from simsearch.encode.cache.fingerprint_cache import FingerprintCache
from simsearch.encode.fingerprint import ContentLimits, Fingerprinter
from simsearch.encode.registry import EncoderSet, LoadedEncoder
from simsearch.match.matcher import Matcher
from simsearch.match.verdict_cache import VerdictCache
from simsearch.serve.core.server_core import cached_fingerprints, cached_verdicts
from simsearch.types import (
    NO_CALL,
    Band,
    CallContext,
    Content,
    Edit,
    ImageContent,
    MatchOptions,
    Modality,
    TextContent,
    Vectors,
)
from tests.encode.pictures import landscape, saved
from tests.fakes import FakeImageEncoder, FakeTextEncoder
from tests.match.fakes import Views, World
from tests.serve.house import served

EDIT = Edit("tester", "a test")
OFF = CacheConfig(fingerprints_bytes_max=0, verdicts_max=0, single_flight=False)
PNG = ImageContent(saved(landscape(1, (64, 64)), "PNG"))


class SlowImages(FakeImageEncoder):
    """Takes its time, so that uploads meet."""

    def encode_images(self, pixels: Sequence[np.ndarray], call: CallContext = NO_CALL) -> Vectors:
        vectors = super().encode_images(pixels, call)
        time.sleep(0.05)
        return vectors


class House:
    """The encoders of a server; `images` and `texts` are what they were given so far."""

    def __init__(self) -> None:
        self._pictures, self._prose = SlowImages(), FakeTextEncoder()
        self.encoders = {
            "pictures": LoadedEncoder("pictures", Modality.IMAGE, image=self._pictures),
            "prose": LoadedEncoder("prose", Modality.TEXT, text=self._prose),
        }

    @property
    def images(self) -> int:
        return sum(self._pictures.asked)

    @property
    def texts(self) -> list[str]:
        return [text for call in self._prose.asked for text in call]


def at_once(work: Sequence[Callable[[], Band]], threads: int) -> list[Band]:
    """All of the work, begun together."""
    start = threading.Barrier(threads)
    with ThreadPoolExecutor(threads, initializer=start.wait) as pool:
        return [future.result(30) for future in [pool.submit(one) for one in work]]


@pytest.mark.parametrize(
    "cache",
    [
        CacheConfig(),
        CacheConfig(verdicts_max=0),
        CacheConfig(verdicts_max=0, single_flight=False, fingerprints_bytes_max=1 << 20),
    ],
    ids=["all", "no verdicts", "no single flight"],
)
def test_a_hundred_identical_uploads_at_once_are_encoded_once(
    tmp_path: Path, cache: CacheConfig
) -> None:
    """Whoever comes while it is encoded waits for it; whoever comes later finds it."""
    house = House()
    threads = 8 if cache.single_flight else 1
    with served(tmp_path, house.encoders, cache, threads) as address, Client(address) as client:
        client.create_bank("images", EDIT)
        client.add_entry("images", [PNG], EDIT)
        before = house.images
        verdicts = at_once([lambda: client.match(PNG).verdict] * 100, 100)
    assert verdicts == [Band.BLOCK] * 100
    assert house.images - before == 1


def test_off_is_off(tmp_path: Path) -> None:
    """Every upload is encoded, also the one that came a moment ago."""
    house = House()
    with served(tmp_path, house.encoders, OFF) as address, Client(address) as client:
        client.create_bank("images", EDIT)
        for _ in range(3):
            client.match(PNG)
    assert house.images == 3


def test_what_is_off_is_not_in_the_path() -> None:
    """Not a memory without room: the fingerprinter and the matcher themselves."""
    fingerprints = Fingerprinter(EncoderSet({}), ContentLimits())
    views = Views(World().view())
    matcher = Matcher(fingerprints, views, 10)
    assert cached_fingerprints(fingerprints, OFF) is fingerprints
    assert cached_verdicts(matcher, views, OFF) is matcher
    for on in (replace(OFF, single_flight=True), replace(OFF, fingerprints_bytes_max=1)):
        assert isinstance(cached_fingerprints(fingerprints, on), FingerprintCache)
    assert isinstance(cached_verdicts(matcher, views, replace(OFF, verdicts_max=1)), VerdictCache)


def test_half_repeats_cost_no_encoding(tmp_path: Path) -> None:
    """Of 400 messages, alone and in batches, half came before: at most 200 are encoded."""
    house = House()
    rng = np.random.default_rng(5)
    messages = [TextContent(f"message number {n}") for n in range(200)]
    sent: list[Content] = [messages[n] for n in rng.permutation(np.tile(np.arange(200), 2))]
    with served(tmp_path, house.encoders, match_threads=4) as address, Client(address) as client:
        client.create_bank("texts", EDIT)
        client.add_entry("texts", [messages[7]], EDIT)
        before = len(house.texts)

        def batch(part: Sequence[Content]) -> Band:
            results = client.match_batch(part, MatchOptions(("texts",)))
            return max(r.verdict for r in results if not isinstance(r, Exception))

        parts = [sent[n : n + 20] for n in range(0, 200, 20)]
        work = [lambda part=part: batch(part) for part in parts]
        work += [lambda one=one: client.match(one).verdict for one in sent[200:]]
        verdicts = at_once(work, 16)
        asked = house.texts[before:]
    assert len(asked) == len(set(asked)) == 200
    assert verdicts.count(Band.BLOCK) == 2


def test_an_acknowledged_edit_is_seen_by_the_next_upload(tmp_path: Path) -> None:
    """Though the same content was asked for just before, and without encoding it again."""
    house = House()
    with served(tmp_path, house.encoders) as address, Client(address) as client:
        client.create_bank("images", EDIT)
        assert client.match(PNG).verdict is Band.NONE
        for _ in range(5):
            key = client.add_entry("images", [PNG], EDIT).entry.key
            banned = house.images
            assert [hit.entry_key for hit in client.match(PNG).hits] == [key]
            client.retract_entry("images", key, EDIT)
            assert client.match(PNG).verdict is Band.NONE
            assert house.images == banned


def test_who_asks_to_stop_at_a_block_gets_no_more(tmp_path: Path) -> None:
    """The option and its answer come through, and nothing is encoded."""
    house = House()
    stopping = MatchOptions(stop_at_block=True)
    with served(tmp_path, house.encoders, OFF) as address, Client(address) as client:
        client.create_bank("images", EDIT)
        client.add_entry("images", [PNG], EDIT)
        before = house.images
        result = client.match(PNG, stopping)
        assert (result.verdict, result.stopped_early, result.complete) == (Band.BLOCK, True, False)
        assert house.images == before
        assert not client.match(PNG).stopped_early
        assert house.images == before + 1
