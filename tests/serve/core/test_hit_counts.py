"""Hits by entry: what is counted, when it is written, and what becomes of a flood."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest

from simsearch.bank.store import BankStore
from simsearch.client import Client
from simsearch.config import FeedbackConfig
from simsearch.errors import BadContent, BankFull
from simsearch.serve.core.event_metrics import EventMetrics
from simsearch.serve.core.flood_detector import Flood, FloodDetector
from simsearch.serve.core.hit_counts import (
    HitCounter,
    HitCountWriter,
    configured_hit_writer,
    hit_counts_of,
    is_near,
)
from simsearch.types import (
    Band,
    EntryState,
    Evidence,
    Hit,
    HitCounts,
    MatchResult,
    TextContent,
)
from tests.bank.worlds import EDIT, full_draft, store_with_bank
from tests.serve.fake_process import fake_server

DIGEST = Evidence("sha256", Band.BLOCK)
PDQ = Evidence("pdq", Band.BLOCK, hamming=0, threshold=31)
COSINE = Evidence("toy@1/x/2", Band.LOG, cosine=0.9, threshold=0.8)


def result(*hits: Hit, shadow: tuple[Hit, ...] = ()) -> MatchResult:
    verdict = max((hit.band for hit in hits), default=Band.NONE)
    return MatchResult(verdict, hits, False, True, (), "bank-1", 1, shadow=shadow)


def hit(key: int, *evidence: Evidence, band: Band = Band.BLOCK) -> Hit:
    return Hit("spam", key, band, evidence)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[BankStore]:
    with store_with_bank(tmp_path / "bank") as opened:
        opened.add_entries("spam", [full_draft(n) for n in range(3)], EDIT)
        yield opened


class Told:
    """A detector that reports the floods it is given."""

    def __init__(self, *floods: Flood) -> None:
        self.floods = list(floods)
        self.forgotten: list[int] = []

    def update(self, near: object) -> list[Flood]:
        return self.floods

    def forget_minute(self, key: int) -> None:
        self.forgotten.append(key)
        self.floods = [flood for flood in self.floods if flood.key != key]


def writer_told(store: BankStore, *floods: Flood) -> tuple[HitCountWriter, Told]:
    told = Told(*floods)
    return HitCountWriter(store, HitCounter(), EventMetrics(), told), told  # type: ignore[arg-type]


def quarantines(writer: HitCountWriter) -> float | None:
    name = "simsearch_flood_quarantines_total"
    return writer._metrics.registry.get_sample_value(name, {"bank": "spam"})


# ---------------------------------------------------------------- counted


def test_hits_are_counted_by_band_and_nearness_and_those_of_the_shadow_apart() -> None:
    counter = HitCounter()
    counter.add(
        [
            result(hit(1, DIGEST, PDQ), hit(2, PDQ)),
            result(hit(1, PDQ, COSINE), hit(2, COSINE, band=Band.LOG), shadow=(hit(3, PDQ),)),
            result(hit(2, PDQ, band=Band.REVIEW)),
            BadContent("broken"),
            result(),
        ]
    )
    counts = {
        key: (c.block, c.review, c.log, c.near, c.shadow) for key, c in counter.drain().items()
    }
    assert counts == {1: (2, 0, 0, 1, 0), 2: (1, 1, 1, 3, 0), 3: (0, 0, 0, 0, 1)}
    assert counter.drain_near() == {1: 1, 2: 3}
    assert (counter.drain(), counter.drain_near()) == ({}, {})


def test_an_equal_digest_is_not_near_whatever_else_was_found() -> None:
    """So that no number of copies of one file is a flood."""
    assert not is_near(hit(1, DIGEST))
    assert not is_near(hit(1, DIGEST, PDQ, COSINE))
    assert is_near(hit(1, PDQ))
    assert is_near(hit(1, COSINE, PDQ))


def test_where_nothing_was_hit_nothing_is_kept() -> None:
    counter = HitCounter()
    with patch.object(counter, "_lock", None):  # taking it would fail
        counter.add([result(), BadContent("broken")] * 100)
    assert counter.drain() == {}


# ---------------------------------------------------------------- written


def test_counts_are_written_and_added_to_after_a_restart(tmp_path: Path) -> None:
    """At a flush and when it is closed; before that they are known all the same."""
    for run in (1, 2):
        with BankStore.open(tmp_path / "bank", writer=True) as store:
            counter = HitCounter()
            writer = configured_hit_writer(store, counter, EventMetrics(), FeedbackConfig())
            writer.start()
            counter.add([result(hit(1, DIGEST))])
            writer.flush()
            assert store.hits([1])[1].block == 2 * run - 1
            counter.add([result(hit(1, PDQ))])
            assert hit_counts_of(store, counter, [1])[1].block == 2 * run
            writer.close()
            assert store.hits([1])[1].block == 2 * run
            assert store.seq() == 0
    with BankStore.open(tmp_path / "bank", writer=False) as store:
        counts = store.hits([1])[1]
    assert (counts.total, counts.near) == (4, 2)
    assert counts.last_us > 1_700_000_000_000_000


def test_what_cannot_be_written_is_kept_and_tried_again(
    store: BankStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Said by its reason; matching goes on counting; nothing is counted twice."""
    monkeypatch.setattr("simsearch.serve.core.hit_counts.ENTRIES_AT_ONCE", 2)
    counter = HitCounter()
    writer = HitCountWriter(store, counter, EventMetrics())
    counter.add([result(*(hit(key, DIGEST) for key in range(1, 6)))])
    add, writes = store.add_hits, list[int]()

    def full_at_the_second(some: dict[int, HitCounts]) -> None:
        writes.append(len(some))
        if len(writes) == 2:
            raise BankFull("full")
        add(some)

    with patch.object(store, "add_hits", full_at_the_second), caplog.at_level(logging.ERROR):
        writer.flush()
        assert "BANK_FULL" in caplog.text
        counter.add([result(hit(5, DIGEST))])
        writer.flush()
    assert writes == [2, 2, 2, 1]
    assert {key: c.total for key, c in store.hits(range(1, 6)).items()} == {
        1: 1, 2: 1, 3: 1, 4: 1, 5: 2,
    }  # fmt: skip


# ---------------------------------------------------------------- floods


def test_a_flood_ends_in_quarantine(store: BankStore, caplog: pytest.LogCaptureFixture) -> None:
    """With its numbers on the record, in the log and among the metrics; once."""
    writer, told = writer_told(store, Flood(1, 1_240, 12.0))
    with caplog.at_level(logging.WARNING):
        writer.check_floods()
        writer.check_floods()
    entry = store.entry("spam", 1)
    assert entry.state is EntryState.QUARANTINED
    assert entry.last.reason == "1,240 near hits in a minute, 12 in a usual one"
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert "flood_quarantined" in caplog.text
    assert quarantines(writer) == 1
    assert told.forgotten == [1]


def test_a_quarantine_that_fails_is_said_and_tried_again(
    store: BankStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Also when the flood is over by then; and one entry's fault is not another's."""
    monkeypatch.setattr("simsearch.serve.core.hit_counts.RETRY_S", 0.0)
    writer, told = writer_told(store, Flood(1, 700, 1.0), Flood(2, 900, 1.0))
    real, refused = store.quarantine_flooding, [1, 1]

    def full_for_the_first(key: int, reason: str, since_us: int) -> object:
        if key in refused:
            refused.remove(key)
            raise BankFull("full")
        return real(key, reason, since_us)

    with patch.object(store, "quarantine_flooding", full_for_the_first):
        with caplog.at_level(logging.ERROR):
            writer.check_floods()
        assert "flood_not_stopped" in caplog.text
        states = [store.entry("spam", key).state for key in (1, 2)]
        assert states == [EntryState.ACTIVE, EntryState.QUARANTINED]
        told.floods = []
        writer.check_floods()
        writer.check_floods()
    assert store.entry("spam", 1).state is EntryState.QUARANTINED
    assert refused == []
    assert quarantines(writer) == 2


def test_tries_are_not_made_at_every_look(store: BankStore) -> None:
    writer, _ = writer_told(store, Flood(1, 700, 1.0))
    tries = list[int]()

    def full(key: int, reason: str, since_us: int) -> object:
        tries.append(key)
        raise BankFull("full")

    with patch.object(store, "quarantine_flooding", full):
        for _ in range(5):
            writer.check_floods()
    assert tries == [1]


def test_what_a_person_decided_is_left_alone(
    store: BankStore, caplog: pytest.LogCaptureFixture
) -> None:
    """Said once a minute, and not counted as a quarantine."""
    writer, told = writer_told(store, Flood(1, 700, 1.0))
    writer.check_floods()
    store.move_entry("spam", 1, EntryState.ACTIVE, EDIT)
    told.floods = [Flood(1, 800, 1.0), Flood(99, 800, 1.0)]
    with caplog.at_level(logging.WARNING):
        writer.check_floods()
    assert "flood_left_alone" in caplog.text
    assert store.entry("spam", 1).state is EntryState.ACTIVE
    assert quarantines(writer) == 1
    assert told.forgotten == [1, 1, 99]


def test_copies_of_a_file_and_hits_of_the_shadow_flood_nothing(store: BankStore) -> None:
    """A viral copy of what is banned keeps being blocked; the same number of others is a flood."""
    clock = iter(range(0, 10_000, 60))
    counter = HitCounter()
    writer = HitCountWriter(
        store, counter, EventMetrics(), FloodDetector(600, 20.0, lambda: float(next(clock)))
    )
    for _ in range(15):
        writer.check_floods()
    counter.add([result(hit(1, DIGEST, PDQ), shadow=(hit(2, PDQ),))] * 5_000)
    counter.add([result(hit(3, PDQ))] * 601)
    writer.check_floods()
    states = [store.entry("spam", key).state for key in (1, 2, 3)]
    assert states == [EntryState.ACTIVE, EntryState.ACTIVE, EntryState.QUARANTINED]


@pytest.mark.parametrize("off", ["flood_near_hits_per_minute", "flood_times_usual"])
def test_either_zero_turns_the_detector_off(store: BankStore, off: str) -> None:
    writer = configured_hit_writer(
        store, counter := HitCounter(), EventMetrics(), FeedbackConfig(**{off: 0})
    )
    assert writer._detector is None
    counter.add([result(hit(1, PDQ))] * 10_000)
    writer.check_floods()
    assert store.entry("spam", 1).state is EntryState.ACTIVE
    assert counter.drain_near() == {}


# ---------------------------------------------------------------- beside a server


def test_nothing_that_is_written_holds_up_what_is_counted(store: BankStore) -> None:
    """While a write hangs, as on a slow disk, matching counts on and entries can be shown."""
    counter = HitCounter()
    writer = HitCountWriter(store, counter, EventMetrics())
    counter.add([result(hit(1, DIGEST))])
    hangs, goes_on = threading.Event(), threading.Event()
    add = store.add_hits

    def hang(some: dict[int, HitCounts]) -> None:
        hangs.set()
        assert goes_on.wait(10)
        add(some)

    with patch.object(store, "add_hits", hang):
        writing = threading.Thread(target=writer.flush)
        writing.start()
        assert hangs.wait(10)
        counter.add([result(hit(1, PDQ), hit(2, PDQ))] * 3)
        assert counter.unflushed(1).block == 3
        goes_on.set()
        writing.join(10)
    writer.flush()
    assert {key: c.total for key, c in store.hits([1, 2]).items()} == {1: 4, 2: 3}


def test_no_hit_is_lost_or_counted_twice_by_many_threads(store: BankStore) -> None:
    counter = HitCounter()
    writer = HitCountWriter(store, counter, EventMetrics())

    def ask() -> None:
        for n in range(200):
            counter.add([result(hit(1 + n % 3, PDQ))])

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        writer.flush()
    writer.flush()
    assert sum(counts.total for counts in store.hits([1, 2, 3]).values()) == 800


@pytest.mark.slow
def test_a_server_that_stops_has_written_its_counts(tmp_path: Path) -> None:
    """They go on from there when it is started again."""
    text = TextContent("A banned sentence about a harbour and all of its boats.")
    for run in (1, 2):
        with fake_server(tmp_path) as running:
            with Client(running.address) as client:
                if run == 1:
                    client.create_bank("alpha", EDIT)
                    client.add_entry("alpha", [text], EDIT)
                for _ in range(3):
                    assert client.match(text).hits
                assert client.get_entry("alpha", 1).hits.total == 3 * run
            assert running.stop() == 0
    with BankStore.open(tmp_path / "data", writer=False) as store:
        assert (store.hits([1])[1].total, store.seq()) == (6, 2)
