"""Where the numbers of each metric are read, when somebody scrapes.

The parts count for themselves, in plain integers; nothing here is on the way of a call.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final

from prometheus_client import GC_COLLECTOR, PROCESS_COLLECTOR
from prometheus_client.core import (
    Metric,
)
from prometheus_client.registry import Collector, CollectorRegistry

from simsearch import __version__
from simsearch.encode.batching.batched_encoders import BatchedImageEncoder, BatchedTextEncoder
from simsearch.encode.batching.batcher import BatcherCounts
from simsearch.encode.cache.fingerprint_cache import FingerprintCache
from simsearch.errors import SimsearchError
from simsearch.index.snapshot.directory import read_manifest
from simsearch.match.verdict_cache import VerdictCache
from simsearch.serve.auth.authorization import Guard
from simsearch.serve.core.counters import BANKS_MAX, OTHER_BANKS, Spread
from simsearch.serve.core.edit_lag import lag_of
from simsearch.serve.core.server_core import SNAPSHOTS, Core
from simsearch.serve.metrics.call_metrics import Observer
from simsearch.serve.metrics.catalogue import Page
from simsearch.serve.metrics.edit_latency import EditWatch
from simsearch.serve.scheduling.executor import Work
from simsearch.serve.transport.interceptors import Gate
from simsearch.types import BINARY, Band, Bank, Modality, Priority

_VERDICTS: Final = {Band.NONE: "NO_MATCH"}


class Server(Collector):
    """Collects all metrics of one server; of its core from `begin` to `forget`."""

    def __init__(self, observer: Observer, guard: Guard, gate: Gate, work: Work) -> None:
        self._observer = observer
        self._guard = guard
        self._gate = gate
        self._work = work
        self._core: Core | None = None
        self._edits: EditWatch | None = None
        self._lock = threading.Lock()

    def begin(self, core: Core, edits: EditWatch) -> None:
        self._core, self._edits = core, edits

    def forget(self) -> None:
        """Returns once no scrape reads the core any more."""
        with self._lock:
            self._core = self._edits = None

    def collect(self) -> Iterable[Metric]:
        page = Page()
        page.set("simsearch_build_info", 1, __version__)
        _calls(page, self._observer, self._gate, self._work)
        _refusals(page, self._guard, self._gate, self._work)
        with self._lock:
            if self._core is None or self._edits is None:
                page.set("simsearch_ready", 0)
            else:
                _core(page, self._core, self._edits)
        return page.families


def registry_of(server: Server) -> CollectorRegistry:
    """The server's own metrics, and what there is about its process."""
    registry = CollectorRegistry()
    for collector in (server, PROCESS_COLLECTOR, GC_COLLECTOR):
        registry.register(collector)
    return registry


# ---------------------------------------------------------------- calls


def _calls(page: Page, observer: Observer, gate: Gate, work: Work) -> None:
    for (rpc, outcome), spread in observer.calls.spreads().items():
        page.spread("simsearch_call_seconds", spread, rpc, outcome)
    for stage, spread in observer.stages.spreads().items():
        page.spread("simsearch_stage_seconds", spread, stage)
    page.set("simsearch_calls_in_flight", gate.counts.in_flight)
    page.set("simsearch_streams_open", gate.counts.streams)
    admission = work.counts
    page.set("simsearch_match_calls_total", admission.admitted)
    page.set("simsearch_match_items_total", admission.items)
    page.set("simsearch_match_expired_total", admission.expired)
    page.set("simsearch_match_cancelled_total", admission.cancelled)
    page.set("simsearch_match_calls_in_flight", admission.in_flight)
    page.set("simsearch_match_items_in_flight", admission.items_in_flight)
    page.set("simsearch_match_bytes_in_flight", admission.bytes_in_flight)
    page.set("simsearch_match_jobs_waiting", work.waiting)
    page.set("simsearch_match_queue_seconds", admission.waiting_s)


def _refusals(page: Page, guard: Guard, gate: Gate, work: Work) -> None:
    name, guarded, gated = "simsearch_calls_refused_total", guard.counts, gate.counts
    page.set(name, guarded.unauthenticated, "guard", "unauthenticated")
    page.set(name, guarded.denied, "guard", "denied")
    page.set(name, guarded.over_quota, "guard", "over_quota")
    page.set(name, guarded.malformed, "guard", "malformed")
    page.set(name, gated.refused_full, "gate", "full")
    page.set(name, gated.refused_draining, "gate", "draining")
    for cause, count in work.counts.refused.items():
        page.set(name, count, "admission", cause)


# ---------------------------------------------------------------- the core


def _core(page: Page, core: Core, edits: EditWatch) -> None:
    page.set("simsearch_ready", core.standing.ready)
    _answers(page, core)
    for encoder in core.encoders:
        page.set("simsearch_encoder_up", encoder.space is not None, encoder.name)
        for modality, side in ((Modality.IMAGE, encoder.image), (Modality.TEXT, encoder.text)):
            if isinstance(side, BatchedImageEncoder | BatchedTextEncoder):
                _encoder(page, side.counts, encoder.name, modality)
                wait_s = side.estimated_wait_ms() / 1e3
                page.set("simsearch_encoder_wait_seconds", wait_s, encoder.name, modality)
    _decoding(page, core)
    _caches(page, core)
    _index(page, core)
    page.spread("simsearch_edit_visible_seconds", edits.seconds.spread)
    for bank, entries in _entries_by_bank(core.store.banks()).items():
        page.set("simsearch_bank_entries", entries, bank)
    data_dir = core.config.server.data_dir
    page.set("simsearch_data_free_bytes", shutil.disk_usage(data_dir).free)
    _gpus(page, core)
    _canary(page, core)


def _answers(page: Page, core: Core) -> None:
    counts = core.answers.counts
    for verdict in Band:
        name = _VERDICTS.get(verdict, verdict.name)
        page.set("simsearch_verdicts_total", counts.verdicts.get(verdict, 0), name)
    for (bank, band), hits in counts.hits.items():
        page.set("simsearch_hits_total", hits, bank, band.name)
    for (bank, band), hits in counts.shadow_hits.items():
        page.set("simsearch_shadow_hits_total", hits, bank, band.name)
    for (bank, allowed), hits in counts.suppressed.items():
        page.set("simsearch_suppressed_hits_total", hits, bank, allowed)
    for bank, quarantines in dict(core.keeper.quarantines if core.keeper else {}).items():
        page.set("simsearch_flood_quarantines_total", quarantines, bank)
    for reason, refused in counts.refused.items():
        page.set("simsearch_items_refused_total", refused, reason)
    page.set("simsearch_results_incomplete_total", counts.incomplete)
    page.set("simsearch_results_truncated_total", counts.truncated)


def _encoder(page: Page, counts: BatcherCounts, *labels: str) -> None:
    bounds = tuple(2.0 ** (power + 1) - 1 for power in range(len(counts.batch_sizes) - 1))
    spread = Spread(bounds, counts.batch_sizes, counts.items)
    page.spread("simsearch_encoder_batch_items", spread, *labels)
    page.set("simsearch_encoder_run_seconds_total", counts.run_s, *labels)
    page.set("simsearch_encoder_failed_batches_total", counts.failed_batches, *labels)
    page.set("simsearch_encoder_units_total", counts.units, *labels, "asked")
    page.set("simsearch_encoder_units_total", counts.cost, *labels, "cost")
    page.set("simsearch_encoder_dropped_total", counts.expired, *labels, "expired")
    page.set("simsearch_encoder_dropped_total", counts.cancelled, *labels, "cancelled")
    page.set("simsearch_encoder_dropped_total", counts.refused, *labels, "refused")
    waiting = {
        Priority.INTERACTIVE: counts.waiting_interactive,
        Priority.BULK: counts.waiting_bulk,
    }
    for priority, items in waiting.items():
        page.set("simsearch_encoder_waiting", items, *labels, priority.name.lower())


def _decoding(page: Page, core: Core) -> None:
    counts = core.fingerprinter.decoder.counts
    for outcome in ("decoded", "refused", "crashes", "timeouts", "starved", "digests_refused"):
        page.set("simsearch_images_total", getattr(counts, outcome), outcome)
    page.set("simsearch_image_regions_total", counts.regions)
    page.set("simsearch_decode_worker_restarts_total", counts.restarts)


def _caches(page: Page, core: Core) -> None:
    if isinstance(core.fingerprints, FingerprintCache):
        fingerprints = core.fingerprints.counts
        page.set("simsearch_cache_lookups_total", fingerprints.hits, "fingerprints", "hit")
        page.set("simsearch_cache_lookups_total", fingerprints.misses, "fingerprints", "miss")
        page.set("simsearch_cache_lookups_total", fingerprints.joins, "fingerprints", "join")
        page.set("simsearch_cache_evictions_total", fingerprints.evictions, "fingerprints")
        page.set("simsearch_cache_entries", fingerprints.entries, "fingerprints")
        page.set("simsearch_cache_bytes", fingerprints.entry_bytes, "fingerprints")
    if isinstance(core.matcher, VerdictCache):
        verdicts = core.matcher.counts
        page.set("simsearch_cache_lookups_total", verdicts.hits, "verdicts", "hit")
        page.set("simsearch_cache_lookups_total", verdicts.misses, "verdicts", "miss")
        page.set("simsearch_cache_evictions_total", verdicts.evictions, "verdicts")
        page.set("simsearch_cache_entries", verdicts.entries, "verdicts")


def _index(page: Page, core: Core) -> None:
    view, lag = core.follower.view, lag_of(core.store, core.follower)
    page.set("simsearch_index_info", 1, view.snapshot)
    page.set("simsearch_index_visible_seq", view.seq)
    page.set("simsearch_index_durable_seq", core.store.seq())
    page.set("simsearch_index_lag_changes", lag.changes)
    page.set("simsearch_index_lag_seconds", lag.age_s)
    built_s = _built_s(Path(core.config.server.data_dir) / SNAPSHOTS / view.snapshot)
    if built_s is not None:
        page.set("simsearch_index_age_seconds", max(0.0, time.time() - built_s))
    page.set("simsearch_index_fault", core.follower.fault is not None)
    for space, rows in view.cosine_views.items():
        page.set("simsearch_index_rows", len(rows), space)
    for signal in BINARY:
        bits = view.hamming(signal)
        page.set("simsearch_index_rows", len(bits) if bits else 0, signal)
    for space, count in view.aside.items():
        page.set("simsearch_index_rows_aside", count, space)


@lru_cache(maxsize=8)
def _built_s(snapshot: Path) -> float | None:
    """Seconds since the epoch; None where there is no such snapshot: the view is of the bank."""
    try:
        return read_manifest(snapshot).created_us / 1e6
    except SimsearchError:
        return None


def _entries_by_bank(banks: Sequence[Bank]) -> Mapping[str, int]:
    entries = {bank.name: bank.active_entries for bank in banks[:BANKS_MAX]}
    others = [bank.active_entries for bank in banks[BANKS_MAX:]]
    return entries | ({OTHER_BANKS: sum(others)} if others else {})


def _gpus(page: Page, core: Core) -> None:
    for gpu in core.follower.gpus:
        page.set("simsearch_gpu_up", not gpu.reason, gpu.name)
        page.set("simsearch_gpu_queries_total", gpu.queries, gpu.name)
        page.set("simsearch_gpu_faults_total", gpu.faults, gpu.name)
        page.set("simsearch_gpu_index_bytes", gpu.nbytes, gpu.name)


def _canary(page: Page, core: Core) -> None:
    for found in core.standing.findings:
        page.set("simsearch_canary_right", found.right, found.part, found.signal)
    counts = core.standing.counts
    page.set("simsearch_canary_probes_total", counts.right, "right")
    page.set("simsearch_canary_probes_total", counts.wrong, "wrong")
    page.set("simsearch_canary_probes_total", counts.late, "late")
    page.set("simsearch_canary_probe_seconds", counts.last_s)
