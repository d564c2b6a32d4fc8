"""Metric catalogue: name, kind, labels and meaning of every metric of a server.

Label values come from the protos, the tree of errors, the configuration and the names of banks
(`BANKS_MAX` of them at most), never from a caller: that bounds the number of time series. The
table in docs/operate/deploy.md is generated from this one, and tests compare it with a real scrape.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

CALL_BOUNDS_S: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
STAGE_BOUNDS_S: Final = (0.0001, 0.0005, *CALL_BOUNDS_S[:13])
VISIBLE_BOUNDS_S: Final = CALL_BOUNDS_S[:14]

BANKS_MAX: Final = 200
"""Banks with a label value of their own; all further ones share OTHER_BANKS."""

OTHER_BANKS: Final = "(others)"
"""Not a valid name of a bank."""


class MetricKind(StrEnum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True)
class MetricSpec:
    """One row of the table. The name of a counter ends in `_total`."""

    name: str
    kind: MetricKind
    labels: tuple[str, ...]
    meaning: str
    event: bool = False
    """Updated where the event happens (see ServerMetrics); the others are read at scrape time."""
    bounds: tuple[float, ...] = ()
    """Upper bounds of the buckets of an event histogram."""


def _counter(name: str, meaning: str, *labels: str) -> MetricSpec:
    return MetricSpec(f"{name}_total", MetricKind.COUNTER, labels, meaning)


def _gauge(name: str, meaning: str, *labels: str) -> MetricSpec:
    return MetricSpec(name, MetricKind.GAUGE, labels, meaning)


def _histogram(name: str, meaning: str, *labels: str) -> MetricSpec:
    return MetricSpec(name, MetricKind.HISTOGRAM, labels, meaning)


def _events(name: str, meaning: str, *labels: str) -> MetricSpec:
    return MetricSpec(f"{name}_total", MetricKind.COUNTER, labels, meaning, event=True)


def _durations(name: str, bounds_s: tuple[float, ...], meaning: str, *labels: str) -> MetricSpec:
    return MetricSpec(name, MetricKind.HISTOGRAM, labels, meaning, event=True, bounds=bounds_s)


METRICS: Final = (
    _gauge("simsearch_build_info", "1; `version` is that of the server", "version"),
    _gauge("simsearch_ready", "1 where health says SERVING: loaded, not draining, canary right"),
    # calls
    _durations(
        "simsearch_call_seconds",
        CALL_BOUNDS_S,
        "how long calls took, by RPC and by how they ended: `OK`, a reason of "
        "docs/reference/errors.md, or `CANCELLED` by the caller; its count is the number of calls. "
        "A stream is one call",
        "rpc", "outcome",
    ),
    _gauge("simsearch_calls_in_flight", "calls that are being answered now, streams included"),
    _gauge("simsearch_streams_open", "of those, streams"),
    _counter(
        "simsearch_calls_refused",
        "calls turned away before any work: by the `guard` (`unauthenticated`, `denied`, "
        "`over_quota`, `malformed`), the `gate` in front of edits and look-ups (`full`, "
        "`draining`), or by `admission` of matching (`queue`, `deadline`, `space`, `draining`)",
        "by", "cause",
    ),
    # admission and the match threads
    _counter("simsearch_match_calls", "match calls let in, each message of a stream as one"),
    _counter("simsearch_match_items", "contents in them"),
    _counter("simsearch_match_expired", "calls let in whose deadline passed before the answer"),
    _counter("simsearch_match_cancelled", "calls let in whose caller went before the answer"),
    _gauge("simsearch_match_calls_in_flight", "match calls that wait or are worked on"),
    _gauge("simsearch_match_items_in_flight", "contents in them"),
    _gauge("simsearch_match_bytes_in_flight", "bytes of them"),
    _gauge("simsearch_match_jobs_waiting", "of those calls, the ones without a match thread"),
    _gauge("simsearch_match_queue_seconds", "how long a call would queue now, as estimated"),
    _durations(
        "simsearch_stage_seconds",
        STAGE_BOUNDS_S,
        "time in one stage of a step of matching: `cache` (looking for a verdict that was given "
        "before), `digests` (only where a caller stops at a block), `encode` (decoding and waiting "
        "for a batch included), `search`, `decide`",
        "stage",
    ),
    # answers
    _events("simsearch_verdicts", "contents judged, by verdict", "verdict"),
    _events(
        "simsearch_hits",
        f"hits returned, by bank and band; banks beyond the first {BANKS_MAX} that were hit count "
        f"as `{OTHER_BANKS}`",
        "bank", "band",
    ),
    _events(
        "simsearch_shadow_hits",
        "what entries in the shadow were hit, by bank and band: what it would be, if they counted",
        "bank", "band",
    ),
    _events(
        "simsearch_suppressed_hits",
        "hits that did not count, because an allow-listed bank knows the content to be harmless",
        "bank", "by",
    ),
    _events(
        "simsearch_flood_quarantines",
        "entries that the server quarantined because near hits of them were a flood; each waits "
        "in `simsearch review list`",
        "bank",
    ),
    _events("simsearch_items_refused", "contents that were not judged, by reason", "reason"),
    _events(
        "simsearch_results_incomplete",
        "results that are not `complete`, by cause: the `server` (an encoder is off or failed, or "
        "there is no bank with a rule), the `content` (a signal cannot be computed of all of it), "
        "or `stopped` (the caller stopped at a block)",
        "cause",
    ),
    _events("simsearch_results_truncated", "results that do not hold all hits"),
    # encoders
    _gauge("simsearch_encoder_up", "0 where an encoder is off: its weights are missing", "encoder"),
    _histogram(
        "simsearch_encoder_batch_items",
        "items in one batch that an encoder ran; its count is the batches, its sum the items",
        "encoder", "modality",
    ),
    _counter("simsearch_encoder_run_seconds", "time spent in batches", "encoder", "modality"),
    _counter(
        "simsearch_encoder_failed_batches",
        "batches that failed and were run again in parts",
        "encoder", "modality",
    ),
    _counter(
        "simsearch_encoder_units",
        "tokens or pixels that were encoded: `asked` for, and what a batch `cost` with padding",
        "encoder", "modality", "of",
    ),
    _counter(
        "simsearch_encoder_dropped",
        "items that were not encoded: `expired`, `cancelled`, or `refused` by a full queue",
        "encoder", "modality", "cause",
    ),
    _gauge(
        "simsearch_encoder_waiting",
        "items that wait for a batch",
        "encoder",
        "modality",
        "priority",
    ),
    _gauge(
        "simsearch_encoder_wait_seconds",
        "how long an item that comes now would wait for its batch, as estimated",
        "encoder", "modality",
    ),
    # decoding
    _counter(
        "simsearch_images",
        "images by what came of decoding: `decoded`, `refused` for what they are, `crashes`, "
        "`timeouts`, `starved` of processor time, `digests_refused` (cost two workers before)",
        "outcome",
    ),
    _counter(
        "simsearch_image_regions",
        "pictures found in decoded ones: each is hashed and embedded like an image of its own",
    ),
    _counter("simsearch_decode_worker_restarts", "decode workers started in the place of others"),
    # caches
    _counter(
        "simsearch_cache_lookups",
        "look-ups of `fingerprints` and `verdicts` by what came of them: `hit`, `miss`, or `join` "
        "of work in flight",
        "cache", "outcome",
    ),
    _counter("simsearch_cache_evictions", "what had to go for newer content", "cache"),
    _gauge("simsearch_cache_entries", "what is held", "cache"),
    _gauge("simsearch_cache_bytes", "bytes of it; of verdicts they are not known", "cache"),
    # the index
    _gauge("simsearch_index_info", "1; `snapshot` is the one that is searched", "snapshot"),
    _gauge("simsearch_index_visible_seq", "the last change that searches see"),
    _gauge("simsearch_index_durable_seq", "the last change that is on disk"),
    _gauge("simsearch_index_lag_changes", "changes on disk that searches do not see"),
    _gauge("simsearch_index_lag_seconds", "how long ago the oldest of them was made; 0 for none"),
    _gauge(
        "simsearch_index_age_seconds",
        "since the snapshot was built; no sample where the server loaded from the bank itself",
    ),
    _gauge(
        "simsearch_index_fault",
        "1 where searches do not follow the bank, or the published snapshot is not the one that "
        "serves: simsearch status says why",
    ),
    _gauge("simsearch_index_rows", "rows that are searched, by space or hash", "signal"),
    _gauge("simsearch_index_rows_aside", "rows of the bank that no encoder here can ask", "space"),
    _durations(
        "simsearch_edit_visible_seconds",
        VISIBLE_BOUNDS_S,
        "from an edit's commit to the searches seeing it",
    ),
    _gauge(
        "simsearch_bank_entries",
        f"active entries by bank; those of all banks beyond {BANKS_MAX} as `{OTHER_BANKS}`",
        "bank",
    ),
    _gauge("simsearch_data_free_bytes", "room on the disk of the data directory"),
    # GPUs
    _gauge("simsearch_gpu_up", "0 where a GPU is not asked now", "gpu"),
    _counter("simsearch_gpu_queries", "queries that it answered", "gpu"),
    _counter("simsearch_gpu_faults", "faults, each answered by the CPU instead", "gpu"),
    _gauge("simsearch_gpu_index_bytes", "of the indexes on it", "gpu"),
    # the canary
    _gauge(
        "simsearch_canary_right",
        "1 where the last probe found this right, 0 where wrong; see docs/operate/deploy.md",
        "part", "signal",
    ),
    _events("simsearch_canary_probes", "probes that were `right`, `wrong` or `late`", "outcome"),
    _gauge("simsearch_canary_probe_seconds", "the last probe that came to its end"),
)  # fmt: skip
"""In the order of the table in docs/operate/deploy.md."""
