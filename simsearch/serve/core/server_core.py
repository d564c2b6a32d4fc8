"""Server core: the components of a running server apart from the network, built and closed once."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from threadpoolctl import threadpool_limits

from simsearch.bank.store import BankStore
from simsearch.config import CacheConfig, Config, LimitsConfig
from simsearch.encode.batching.batched_encoders import BatchedImageEncoder, BatchedTextEncoder
from simsearch.encode.cache.fingerprint_cache import FingerprintCache
from simsearch.encode.fingerprint import ContentLimits, Fingerprinter
from simsearch.encode.image.decoder import ImageDecoder, InProcessDecoder
from simsearch.encode.image.picture import ImageLimits
from simsearch.encode.registry import EncoderSet, EncoderSpec, LoadedEncoder, load_encoders
from simsearch.encode.sandbox.sandboxed_decoder import Sandbox, SandboxOptions
from simsearch.encode.text.windows import TextLimits
from simsearch.index.gpu.gpu_view import GpuOptions, Gpus, Placement
from simsearch.live.follower import Follower
from simsearch.match.matcher import Matcher, ViewSource
from simsearch.match.policy import allowed_policy, check_policy, default_policy
from simsearch.match.verdict_cache import VerdictCache
from simsearch.serve.core.event_metrics import EventMetrics
from simsearch.serve.core.expiry import ExpiryWorker
from simsearch.serve.core.health_state import HealthState
from simsearch.serve.core.hit_counts import HitCounter, HitCountWriter, configured_hit_writer
from simsearch.telemetry import EventLog
from simsearch.types import BankKind, CosineRule, Policy

log = EventLog(__name__)

SNAPSHOTS = "snapshots"
"""Folder in the data directory to which simsearch-build publishes."""


@dataclass(frozen=True)
class Core:
    """The components that the services share."""

    config: Config
    store: BankStore
    encoders: EncoderSet
    fingerprinter: Fingerprinter
    follower: Follower
    matcher: Matcher | VerdictCache
    fingerprints: Fingerprinter | FingerprintCache
    """The fingerprinter of the matcher, with its cache; `fingerprinter` itself without one."""
    metrics: EventMetrics = field(default_factory=EventMetrics)
    health: HealthState = field(default_factory=HealthState)
    expiry_worker: ExpiryWorker | None = None
    hits: HitCounter = field(default_factory=HitCounter)
    hit_writer: HitCountWriter | None = None

    @classmethod
    def open(cls, config: Config, metrics: EventMetrics) -> Core:
        """Open the bank, load the encoders and the view. Raises BadConfig, BankLocked and the other
        faults of these steps."""
        # Search threads are the parallelism: BLAS threads beside them slow every search down.
        threadpool_limits(limits=1, user_api="blas")
        with contextlib.ExitStack() as undo:
            bytes_max = config.server.bank_bytes_max
            store = BankStore.open(
                Path(config.server.data_dir), writer=True, map_bytes_max=bytes_max
            )
            undo.callback(store.close)
            decoder = image_decoder(config)
            undo.callback(decoder.close)
            core = cls._on(store, config, decoder, metrics)
            undo.pop_all()
        return core

    @classmethod
    def _on(
        cls, store: BankStore, config: Config, decoder: ImageDecoder, metrics: EventMetrics
    ) -> Core:
        encoders = batched(
            load_encoders(_specs(config), config.server.torch_threads),
            {name: encoder.linger_ms for name, encoder in config.encoders.items()},
        )
        fingerprinter = Fingerprinter(encoders, _limits(config.limits), decoder)
        snapshots = Path(config.server.data_dir) / SNAPSHOTS
        placement = Placement(config.index.gpu_placement)
        gpus = Gpus.found(GpuOptions(use=config.index.gpu, placement=placement))
        follower = Follower(store, snapshots, served_spaces(encoders), gpus)
        follower.start()
        fingerprints = cached_fingerprints(fingerprinter, config.cache)
        matcher = Matcher(
            fingerprints, follower, config.limits.hits_max, config.server.search_threads
        )
        answers = cached_verdicts(matcher, follower, config.cache)
        expiry_worker = ExpiryWorker(store)
        expiry_worker.start()
        hits = HitCounter()
        hit_writer = configured_hit_writer(store, hits, metrics, config.feedback)
        hit_writer.start()
        return cls(
            config,
            store,
            encoders,
            fingerprinter,
            follower,
            answers,
            fingerprints,
            metrics=metrics,
            expiry_worker=expiry_worker,
            hits=hits,
            hit_writer=hit_writer,
        )

    def close(self) -> None:
        """Stop the threads, write the remaining hit counts and close the bank."""
        if self.expiry_worker:
            self.expiry_worker.close()
        if self.hit_writer:
            self.hit_writer.close()
        self.follower.stop()
        for encoder in self.encoders:
            for side in {encoder.image, encoder.text}:
                if isinstance(side, BatchedImageEncoder | BatchedTextEncoder):
                    side.close()
        self.fingerprinter.decoder.close()
        self.store.close()

    def space_id(self, name_or_space: str) -> str:
        """The id of a space, from that id or the name of its encoder. Raises as
        EncoderSet.resolve."""
        space = self.encoders.resolve(name_or_space).space
        assert space is not None  # resolve() refuses encoders that are off
        return space.id

    def dim_of(self, name_or_space: str) -> int:
        """The dimension of a space, named as for `space_id`."""
        space = self.encoders.resolve(name_or_space).space
        assert space is not None
        return space.dim

    def default_policy(self, kind: BankKind = BankKind.BANNED) -> Policy:
        """The policy of a bank created without one: the thresholds of the encoders that are on, or
        for an allow-listed bank digests and near-identical pictures alone."""
        if kind is BankKind.ALLOWED:
            return allowed_policy()
        return check_policy(default_policy(self._cosine_rules()))

    def _cosine_rules(self) -> list[CosineRule]:
        rules = []
        for encoder in self.encoders:
            t = self.config.encoders[encoder.name].thresholds
            if encoder.space and (t.block, t.review, t.log) != (None, None, None):
                rules.append(CosineRule(encoder.space.id, encoder.home, t.block, t.review, t.log))
        return rules


def cached_fingerprints(
    fingerprinter: Fingerprinter, cache: CacheConfig
) -> Fingerprinter | FingerprintCache:
    """What is off is not in the path."""
    if not cache.fingerprints_bytes_max and not cache.single_flight:
        return fingerprinter
    return FingerprintCache(fingerprinter, cache.fingerprints_bytes_max, cache.single_flight)


def cached_verdicts(
    matcher: Matcher, views: ViewSource, cache: CacheConfig
) -> Matcher | VerdictCache:
    return VerdictCache(matcher, views, cache.verdicts_max) if cache.verdicts_max else matcher


def image_decoder(config: Config) -> ImageDecoder:
    """Worker processes that decode images, or this process if none are configured. Raises
    NoSandbox."""
    limits, chosen = _limits(config.limits).image, config.sandbox
    if not chosen.workers:
        log.warning("images_are_decoded_in_the_server")
        return InProcessDecoder(limits)
    options = SandboxOptions(
        workers=chosen.workers,
        memory_bytes_max=chosen.memory_bytes_max,
        timeout_s=chosen.timeout_s,
        images_per_worker=chosen.images_per_worker,
        syscall_filter=chosen.syscall_filter,
    )
    sandbox = Sandbox(limits, options)
    sandbox.open()
    return sandbox


def served_spaces(encoders: EncoderSet) -> frozenset[str]:
    """The ids of the spaces of the encoders that are on, those of the older form of texts too."""
    return frozenset(encoder.space.id for encoder in encoders.with_older if encoder.space)


def _specs(config: Config) -> list[EncoderSpec]:
    return [EncoderSpec(n, e.kind, e.model, e.device) for n, e in config.encoders.items()]


def _limits(limits: LimitsConfig) -> ContentLimits:
    return ContentLimits(
        image=ImageLimits(
            bytes_max=limits.image_bytes_max,
            pixels_max=limits.image_pixels_max,
            frames_max=limits.image_frames_max,
        ),
        text=TextLimits(chars_max=limits.text_chars_max),
        vectors_max=limits.vectors_max,
        regions_max=limits.image_regions_max,
        frames_asked_max=limits.image_frames_asked_max,
    )


def batched(encoders: EncoderSet, linger_ms: Mapping[str, float]) -> EncoderSet:
    """The same encoders, each behind a batcher that joins the work of concurrent calls; it waits
    `linger_ms` of its name for more work."""
    return EncoderSet({e.name: _batched(e, linger_ms[e.name]) for e in encoders})


def _batched(encoder: LoadedEncoder, linger_ms: float) -> LoadedEncoder:
    image, text = encoder.image, encoder.text
    return LoadedEncoder(
        encoder.name,
        encoder.home,
        image=BatchedImageEncoder(image, linger_ms=linger_ms) if image else None,
        text=BatchedTextEncoder(text, linger_ms=linger_ms) if text else None,
        off_reason=encoder.off_reason,
    )
