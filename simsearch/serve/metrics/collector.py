"""Server collector: the state of a server as metrics, read at scrape time.

Event metrics (durations, answers) are on the registry of EventMetrics already. Components below
the server (encoders, decoder, caches, admission) keep plain counts, which are read here, too.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

from prometheus_client import GC_COLLECTOR, PROCESS_COLLECTOR
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
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
from simsearch.serve.auth.authorization import Authorization
from simsearch.serve.core.edit_lag import lag_of
from simsearch.serve.core.event_metrics import EventMetrics
from simsearch.serve.core.metric_catalogue import BANKS_MAX, METRICS, OTHER_BANKS, MetricKind
from simsearch.serve.core.server_core import SNAPSHOTS, Core
from simsearch.serve.scheduling.executor import MatchExecutor
from simsearch.serve.transport.concurrency_limit import ConcurrencyLimit
from simsearch.types import BINARY, Bank, Modality, Priority

_FAMILIES: Final = {
    MetricKind.COUNTER: CounterMetricFamily,
    MetricKind.GAUGE: GaugeMetricFamily,
    MetricKind.HISTOGRAM: HistogramMetricFamily,
}


class StateFamilies:
    """The metric families of one scrape: all metrics of the catalogue but the event metrics."""

    def __init__(self) -> None:
        self._families: dict[str, Any] = {
            spec.name: _FAMILIES[spec.kind](spec.name, spec.meaning, labels=spec.labels)
            for spec in METRICS
            if not spec.event
        }

    def __iter__(self) -> Iterator[Metric]:
        return iter(self._families.values())

    def set(self, name: str, value: float, *labels: str) -> None:
        """Add one sample of a counter or gauge."""
        self._families[name].add_metric(labels, value)

    def set_histogram(
        self, name: str, bounds: Sequence[float], counts: Sequence[int], total: float, *labels: str
    ) -> None:
        """Add a histogram of `counts[i]` values up to `bounds[i]`, the last count above all of
        them. `total` is the sum of the values."""
        names = [*map(str, bounds), "+Inf"]
        buckets = [(name, float(n)) for name, n in zip(names, accumulate(counts), strict=True)]
        self._families[name].add_metric(labels, buckets, total)


class ServerCollector(Collector):
    """Collects the state of one server, that of its core from `begin` to `forget`."""

    def __init__(
        self, authorization: Authorization, limit: ConcurrencyLimit, executor: MatchExecutor
    ) -> None:
        self._authorization = authorization
        self._limit = limit
        self._executor = executor
        self._core: Core | None = None
        self._lock = threading.Lock()

    def begin(self, core: Core) -> None:
        """Collect the core, too."""
        self._core = core

    def forget(self) -> None:
        """Return once no scrape reads the core any more."""
        with self._lock:
            self._core = None

    def collect(self) -> Iterable[Metric]:
        """All families, also those without a sample."""
        families = StateFamilies()
        families.set("simsearch_build_info", 1, __version__)
        _calls(families, self._limit, self._executor)
        _refusals(families, self._authorization, self._limit, self._executor)
        with self._lock:
            if self._core is None:
                families.set("simsearch_ready", 0)
            else:
                _core(families, self._core)
        return families


def scraped_registry(metrics: EventMetrics, collector: ServerCollector) -> CollectorRegistry:
    """The registry of the event metrics, with the server's state and that of the process added."""
    for each in (collector, PROCESS_COLLECTOR, GC_COLLECTOR):
        metrics.registry.register(each)
    return metrics.registry


# ---------------------------------------------------------------- calls


def _calls(families: StateFamilies, limit: ConcurrencyLimit, executor: MatchExecutor) -> None:
    families.set("simsearch_calls_in_flight", limit.counts.in_flight)
    families.set("simsearch_streams_open", limit.counts.streams)
    admission = executor.counts
    families.set("simsearch_match_calls_total", admission.admitted)
    families.set("simsearch_match_items_total", admission.items)
    families.set("simsearch_match_expired_total", admission.expired)
    families.set("simsearch_match_cancelled_total", admission.cancelled)
    families.set("simsearch_match_calls_in_flight", admission.in_flight)
    families.set("simsearch_match_items_in_flight", admission.items_in_flight)
    families.set("simsearch_match_bytes_in_flight", admission.bytes_in_flight)
    families.set("simsearch_match_jobs_waiting", executor.waiting)
    families.set("simsearch_match_queue_seconds", admission.waiting_s)


def _refusals(
    families: StateFamilies,
    authorization: Authorization,
    limit: ConcurrencyLimit,
    executor: MatchExecutor,
) -> None:
    name, guarded, gated = "simsearch_calls_refused_total", authorization.counts, limit.counts
    families.set(name, guarded.unauthenticated, "guard", "unauthenticated")
    families.set(name, guarded.denied, "guard", "denied")
    families.set(name, guarded.over_quota, "guard", "over_quota")
    families.set(name, guarded.malformed, "guard", "malformed")
    families.set(name, gated.refused_full, "gate", "full")
    families.set(name, gated.refused_draining, "gate", "draining")
    for cause, count in executor.counts.refused.items():
        families.set(name, count, "admission", cause)


# ---------------------------------------------------------------- the core


def _core(families: StateFamilies, core: Core) -> None:
    families.set("simsearch_ready", core.health.ready)
    for encoder in core.encoders:
        families.set("simsearch_encoder_up", encoder.space is not None, encoder.name)
        for modality, side in ((Modality.IMAGE, encoder.image), (Modality.TEXT, encoder.text)):
            if isinstance(side, BatchedImageEncoder | BatchedTextEncoder):
                _encoder(families, side.counts, encoder.name, modality)
                wait_s = side.estimated_wait_ms() / 1e3
                families.set("simsearch_encoder_wait_seconds", wait_s, encoder.name, modality)
    _decoding(families, core)
    _caches(families, core)
    _index(families, core)
    for bank, entries in _entries_by_bank(core.store.banks()).items():
        families.set("simsearch_bank_entries", entries, bank)
    data_dir = core.config.server.data_dir
    families.set("simsearch_data_free_bytes", shutil.disk_usage(data_dir).free)
    _gpus(families, core)
    _canary(families, core)


def _encoder(families: StateFamilies, counts: BatcherCounts, *labels: str) -> None:
    bounds = tuple(2.0 ** (power + 1) - 1 for power in range(len(counts.batch_sizes) - 1))
    families.set_histogram(
        "simsearch_encoder_batch_items", bounds, counts.batch_sizes, counts.items, *labels
    )
    families.set("simsearch_encoder_run_seconds_total", counts.run_s, *labels)
    families.set("simsearch_encoder_failed_batches_total", counts.failed_batches, *labels)
    families.set("simsearch_encoder_units_total", counts.units, *labels, "asked")
    families.set("simsearch_encoder_units_total", counts.cost, *labels, "cost")
    families.set("simsearch_encoder_dropped_total", counts.expired, *labels, "expired")
    families.set("simsearch_encoder_dropped_total", counts.cancelled, *labels, "cancelled")
    families.set("simsearch_encoder_dropped_total", counts.refused, *labels, "refused")
    waiting = {
        Priority.INTERACTIVE: counts.waiting_interactive,
        Priority.BULK: counts.waiting_bulk,
    }
    for priority, items in waiting.items():
        families.set("simsearch_encoder_waiting", items, *labels, priority.name.lower())


def _decoding(families: StateFamilies, core: Core) -> None:
    counts = core.fingerprinter.decoder.counts
    for outcome in ("decoded", "refused", "crashes", "timeouts", "starved", "digests_refused"):
        families.set("simsearch_images_total", getattr(counts, outcome), outcome)
    families.set("simsearch_image_regions_total", counts.regions)
    families.set("simsearch_decode_worker_restarts_total", counts.restarts)


def _caches(families: StateFamilies, core: Core) -> None:
    if isinstance(core.fingerprints, FingerprintCache):
        fingerprints = core.fingerprints.counts
        families.set("simsearch_cache_lookups_total", fingerprints.hits, "fingerprints", "hit")
        families.set("simsearch_cache_lookups_total", fingerprints.misses, "fingerprints", "miss")
        families.set("simsearch_cache_lookups_total", fingerprints.joins, "fingerprints", "join")
        families.set("simsearch_cache_evictions_total", fingerprints.evictions, "fingerprints")
        families.set("simsearch_cache_entries", fingerprints.entries, "fingerprints")
        families.set("simsearch_cache_bytes", fingerprints.entry_bytes, "fingerprints")
    if isinstance(core.matcher, VerdictCache):
        verdicts = core.matcher.counts
        families.set("simsearch_cache_lookups_total", verdicts.hits, "verdicts", "hit")
        families.set("simsearch_cache_lookups_total", verdicts.misses, "verdicts", "miss")
        families.set("simsearch_cache_evictions_total", verdicts.evictions, "verdicts")
        families.set("simsearch_cache_entries", verdicts.entries, "verdicts")


def _index(families: StateFamilies, core: Core) -> None:
    view, lag = core.follower.view, lag_of(core.store, core.follower)
    families.set("simsearch_index_info", 1, view.snapshot)
    families.set("simsearch_index_visible_seq", view.seq)
    families.set("simsearch_index_durable_seq", core.store.seq())
    families.set("simsearch_index_lag_changes", lag.changes)
    families.set("simsearch_index_lag_seconds", lag.age_s)
    built_s = _built_s(Path(core.config.server.data_dir) / SNAPSHOTS / view.snapshot)
    if built_s is not None:
        families.set("simsearch_index_age_seconds", max(0.0, time.time() - built_s))
    families.set("simsearch_index_fault", core.follower.fault is not None)
    for space, rows in view.cosine_views.items():
        families.set("simsearch_index_rows", len(rows), space)
    for signal in BINARY:
        bits = view.hamming(signal)
        families.set("simsearch_index_rows", len(bits) if bits else 0, signal)
    for space, count in view.unsearchable.items():
        families.set("simsearch_index_rows_aside", count, space)


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


def _gpus(families: StateFamilies, core: Core) -> None:
    for gpu in core.follower.gpus:
        families.set("simsearch_gpu_up", not gpu.reason, gpu.name)
        families.set("simsearch_gpu_queries_total", gpu.queries, gpu.name)
        families.set("simsearch_gpu_faults_total", gpu.faults, gpu.name)
        families.set("simsearch_gpu_index_bytes", gpu.nbytes, gpu.name)


def _canary(families: StateFamilies, core: Core) -> None:
    for result in core.health.results:
        families.set("simsearch_canary_right", result.ok, result.component, result.signal)
    families.set("simsearch_canary_probe_seconds", core.health.probe_s)
