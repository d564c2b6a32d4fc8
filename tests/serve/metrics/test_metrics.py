"""What is scraped is what is documented, and what happened."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from simsearch.bank.store import BankStore
from simsearch.client import Client
from simsearch.config import CacheConfig
from simsearch.encode.registry import EncoderSet, LoadedEncoder
from simsearch.errors import BadConfig, BankNotFound, SimsearchError, every_error
from simsearch.index.gpu.dispatcher import GpuStatus
from simsearch.serve.core.edit_lag import lag_of
from simsearch.serve.core.event_metrics import EventMetrics
from simsearch.serve.core.metric_catalogue import METRICS, OTHER_BANKS, MetricKind
from simsearch.serve.health.readiness import _is_live
from simsearch.serve.metrics.call_metrics import CallMetrics
from simsearch.serve.metrics.collector import StateFamilies, _gpus, _index
from simsearch.serve.metrics.edit_latency import EditLatency
from simsearch.serve.metrics.http_endpoint import CONNECTIONS_MAX, MetricsServer
from simsearch.serve.transport.call_boundary import CallBoundary, Method
from simsearch.types import (
    Band,
    Edit,
    Hit,
    MatchOptions,
    MatchResult,
    Modality,
    SignalReport,
    SignalState,
    Suppressed,
    TextContent,
)
from simsearch.v1 import match_pb2, match_pb2_grpc
from tests.fakes import PICTURES, PROSE, FakeTextEncoder
from tests.serve.fake_process import SLOW, FakeServer, fake_server, free_port
from tests.serve.house import _core

EDIT = Edit("ann", "a test")
BANNED = TextContent("A banned sentence about a harbour and all of its boats.")
SECTIONS = "[canary]\nevery_s = 0.2\n"
LIBRARY = ("process_", "python_gc_")

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeServer]:
    with fake_server(tmp_path_factory.mktemp("metrics"), SECTIONS) as running:
        with Client(running.address) as client:
            _use(client)
        yield running


def _use(client: Client) -> None:
    """What the counts below are of."""
    client.create_bank("alpha", EDIT)
    client.add_entry("alpha", [BANNED], EDIT)
    for _ in range(2):
        assert client.match(BANNED).verdict is Band.BLOCK
    client.match(TextContent("Something else altogether that nobody ever thought of."))
    with pytest.raises(BankNotFound):
        client.match(BANNED, MatchOptions(banks=("beta",)))
    with pytest.raises(SimsearchError):
        client.match(TextContent(""))


def scraped(server: FakeServer) -> dict[str, Metric]:
    status, page = server.fetch("/metrics")
    assert status == 200
    return {family.name: family for family in text_string_to_metric_families(page)}


def samples(families: dict[str, Metric]) -> Samples:
    return {
        (s.name, tuple(sorted(s.labels.items()))): s.value
        for family in families.values()
        for s in family.samples
    }


def value(found: Samples, name: str, **labels: str) -> float:
    return found[name, tuple(sorted(labels.items()))]


def until(server: FakeServer, holds: Callable[[Samples], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds(samples(scraped(server))):
        assert time.monotonic() < deadline


# ---------------------------------------------------------------- the table


def test_what_is_scraped_is_what_is_named(server: FakeServer) -> None:
    """Every metric of the table with its kind and meaning, and none that is not there."""
    families = scraped(server)
    ours = {n: f for n, f in families.items() if not n.startswith(LIBRARY)}
    named = {m.name.removesuffix("_total"): m for m in METRICS}
    assert ours.keys() == named.keys()
    for name, family in ours.items():
        assert (family.type, family.documentation) == (named[name].kind, named[name].meaning)


def test_labels_are_those_that_are_named(server: FakeServer) -> None:
    """Nearly every metric has a sample after a little use, with the labels of the table."""
    named = {m.name.removesuffix("_total"): m for m in METRICS}
    without = set()
    for name, family in scraped(server).items():
        if name.startswith(LIBRARY):
            continue
        labels = {frozenset(s.labels) - {"le"} for s in family.samples}
        assert labels <= {frozenset(named[name.removesuffix("_total")].labels)}, name
        without |= {name} if not family.samples else set()
    assert without == {
        "simsearch_index_age_seconds",  # there is no snapshot
        "simsearch_index_rows_aside",  # nor a space without an encoder
        "simsearch_shadow_hits",  # nor an entry in the shadow
        "simsearch_suppressed_hits",  # nor a bank of what is harmless
        "simsearch_flood_quarantines",  # nor a flood
        "simsearch_gpu_up", "simsearch_gpu_queries", "simsearch_gpu_faults",
        "simsearch_gpu_index_bytes",
    }  # fmt: skip


def test_no_sample_comes_twice(server: FakeServer) -> None:
    """Prometheus would throw the whole page away."""
    found = [
        (sample.name, *sorted(sample.labels.items()))
        for family in scraped(server).values()
        for sample in family.samples
    ]
    assert len(found) == len(set(found))


def test_names_are_as_prometheus_wants_them() -> None:
    """Counters end in `_total`, units come last and are base units, and no name comes twice."""
    assert len({m.name for m in METRICS}) == len(METRICS)
    for metric in METRICS:
        assert re.fullmatch(r"simsearch_[a-z_]+", metric.name)
        assert metric.name.endswith("_total") == (metric.kind is MetricKind.COUNTER)
        assert not re.search(r"_(ms|milliseconds|kb|mb|percent)(_|$)", metric.name)
        assert metric.meaning


# ---------------------------------------------------------------- the numbers


def test_calls_are_counted_by_how_they_ended(server: FakeServer) -> None:
    """Each RPC by its outcome, which is a reason of the enum."""
    found = samples(scraped(server))

    def calls(rpc: str, outcome: str) -> float:
        return value(found, "simsearch_call_seconds_count", rpc=rpc, outcome=outcome)

    assert calls("MatchService/Match", "OK") == 3
    assert calls("MatchService/Match", "BANK_NOT_FOUND") == 1
    assert calls("MatchService/Match", "EMPTY_CONTENT") == 1
    assert calls("BankService/AddEntry", "OK") == 1
    outcomes = {dict(labels)["outcome"] for name, labels in found if "call_seconds" in name}
    assert outcomes <= {"OK", "CANCELLED", *every_error()}


def test_answers_are_counted(server: FakeServer) -> None:
    """Verdicts, hits by bank and band, refusals by reason, and what the caches did."""
    found = samples(scraped(server))
    assert value(found, "simsearch_verdicts_total", verdict="BLOCK") == 2
    assert value(found, "simsearch_verdicts_total", verdict="NO_MATCH") == 1
    assert value(found, "simsearch_hits_total", bank="alpha", band="BLOCK") == 2
    assert value(found, "simsearch_items_refused_total", reason="EMPTY_CONTENT") == 1
    assert value(found, "simsearch_cache_lookups_total", cache="verdicts", outcome="hit") == 1
    assert value(found, "simsearch_match_items_total") == 5
    assert value(found, "simsearch_stage_seconds_count", stage="search") >= 2


def test_the_index_and_edits_are_counted(server: FakeServer) -> None:
    """Two edits were seen, nothing lags, and the bank has its entry."""
    until(server, lambda found: value(found, "simsearch_edit_visible_seconds_count") == 2)
    found = samples(scraped(server))
    assert 0 < value(found, "simsearch_edit_visible_seconds_sum") < 20
    assert value(found, "simsearch_index_visible_seq") == 2
    assert value(found, "simsearch_index_lag_changes") == 0
    assert value(found, "simsearch_bank_entries", bank="alpha") == 1
    assert value(found, "simsearch_index_rows", signal=PROSE.id) == 1
    assert value(found, "simsearch_data_free_bytes") > 1 << 20
    assert value(found, "simsearch_encoder_up", encoder="prose") == 1
    batches = {"encoder": "prose", "modality": "text"}
    assert value(found, "simsearch_encoder_batch_items_count", **batches) >= 2


def test_the_canary_is_seen(server: FakeServer) -> None:
    """It probes again and again, and the server is ready: over HTTP, over gRPC, in GetStatus."""
    stored = ("simsearch_canary_right", (("part", "index"), ("signal", PROSE.id)))
    until(server, lambda found: found.get(stored) == 1)
    found = samples(scraped(server))
    assert value(found, "simsearch_ready") == 1
    assert value(found, "simsearch_canary_right", part="content", signal=PICTURES.id) == 1
    before = value(found, "simsearch_canary_probes_total", outcome="right")
    deadline = time.monotonic() + 10
    while (
        value(samples(scraped(server)), "simsearch_canary_probes_total", outcome="right") == before
    ):
        assert time.monotonic() < deadline
    assert server.fetch("/ready") == (200, "yes\n")
    assert server.fetch("/live") == (200, "yes\n")
    assert server.fetch("/elsewhere")[0] == 404
    with grpc.insecure_channel(server.address) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        for service in ("", "live", "simsearch.v1.MatchService"):
            answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING, service


def test_what_is_no_rpc_of_ours_has_no_label(server: FakeServer) -> None:
    """Whatever is called: a caller does not choose what is counted."""
    with grpc.insecure_channel(server.address) as channel:
        for method in ("/simsearch.v1.MatchService/Guess", "/other.Service/Call"):
            call: Any = channel.unary_unary(method, None, None)
            with pytest.raises(grpc.RpcError):
                call(b"", timeout=10)
    assert "Guess" not in server.fetch("/metrics")[1]


def test_a_call_that_is_given_up_is_cancelled(server: FakeServer) -> None:
    """It is counted as such, in its RPC."""
    request = match_pb2.MatchRequest()
    request.content.text = f"{SLOW} to encode, and given up meanwhile"
    with grpc.insecure_channel(server.address) as channel:
        stub: Any = match_pb2_grpc.MatchServiceStub(channel)
        call = stub.Match.future(request, timeout=10)
        until(server, lambda found: value(found, "simsearch_match_calls_in_flight") == 1)
        call.cancel()
        labels = {"rpc": "MatchService/Match", "outcome": "CANCELLED"}
        name = ("simsearch_call_seconds_count", tuple(sorted(labels.items())))
        until(server, lambda found: found.get(name) == 1)


# ---------------------------------------------------------------- parts


def counted(metrics: EventMetrics, name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(name, labels) or 0.0


def test_events_are_those_of_the_catalogue() -> None:
    """Each on the registry, with the buckets of the table; two servers share nothing."""
    metrics, other = EventMetrics(), EventMetrics()
    events = {m.name.removesuffix("_total") for m in METRICS if m.event}
    assert {family.name for family in metrics.registry.collect()} == events
    bounds = {m.name: m.bounds for m in METRICS if m.bounds}
    for name, children in (
        ("simsearch_call_seconds", metrics.calls["MatchService/Match", "OK"]),
        ("simsearch_stage_seconds", metrics.stages["search",]),
    ):
        children.observe(0.3)
        [family] = [f for f in metrics.registry.collect() if f.name == name]
        les = [s.labels["le"] for s in family.samples if s.name.endswith("_bucket")]
        assert [float(le) for le in les] == [*bounds[name], float("inf")]
    assert counted(other, "simsearch_stage_seconds_count", stage="search") == 0


def test_histograms_of_state_are_cumulative() -> None:
    """As Prometheus wants them, from counts by bucket."""
    families = StateFamilies()
    families.set_histogram("simsearch_encoder_batch_items", (1.0, 3.0), (2, 3, 1), 19, "e", "text")
    found = samples({family.name: family for family in families})
    name, labels = "simsearch_encoder_batch_items", {"encoder": "e", "modality": "text"}
    buckets = [value(found, f"{name}_bucket", le=le, **labels) for le in ("1.0", "3.0", "+Inf")]
    assert buckets == [2, 5, 6]
    assert value(found, f"{name}_sum", **labels) == 19


def test_answers_of_many_threads_are_all_counted() -> None:
    """None is lost, and the banks with a label of their own stay within their bound."""
    metrics = EventMetrics(banks_max=2)
    answers = [_result(f"bank-{n}") for n in range(4)] * 50

    def count() -> None:
        for answer in answers:
            metrics.count_answers([answer])

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counted(metrics, "simsearch_verdicts_total", verdict="REVIEW") == 800
    [family] = [f for f in metrics.registry.collect() if f.name == "simsearch_hits"]
    assert sum(s.value for s in family.samples if s.name.endswith("_total")) == 800
    assert len({s.labels["bank"] for s in family.samples}) == 3


def _result(bank: str) -> MatchResult:
    hit = Hit(bank, 1, Band.REVIEW, ())
    return MatchResult(Band.REVIEW, (hit,), False, True, (), "s", 1)


def test_more_banks_than_are_counted_are_the_others() -> None:
    """Whoever may make banks does not make the page grow without end."""
    metrics = EventMetrics(banks_max=2)
    metrics.count_answers([_result(f"bank-{n}") for n in (1, 2, 3, 4, 1)])
    metrics.count_quarantine("bank-5")
    for bank, hits in (("bank-1", 2), ("bank-2", 1), (OTHER_BANKS, 2)):
        assert counted(metrics, "simsearch_hits_total", bank=bank, band="REVIEW") == hits
    assert counted(metrics, "simsearch_flood_quarantines_total", bank=OTHER_BANKS) == 1


def test_what_could_not_be_judged_is_counted_by_reason() -> None:
    """Beside incomplete and truncated results."""
    metrics = EventMetrics()
    partly = MatchResult(Band.NONE, (), True, False, (), "s", 1)
    plain = SignalReport("pdq", SignalState.LOW_INFORMATION)
    off = SignalReport("clip", SignalState.UNAVAILABLE)
    others = [
        replace(partly, signals=(plain,), truncated=False),
        replace(partly, signals=(plain, off), truncated=False),
        replace(partly, stopped_early=True, truncated=False),
    ]
    metrics.count_answers([BankNotFound("x"), partly, *others])
    assert counted(metrics, "simsearch_items_refused_total", reason="BANK_NOT_FOUND") == 1
    assert counted(metrics, "simsearch_verdicts_total", verdict="NO_MATCH") == 4
    for cause, count in (("server", 2), ("content", 1), ("stopped", 1)):
        assert counted(metrics, "simsearch_results_incomplete_total", cause=cause) == count
    assert counted(metrics, "simsearch_results_truncated_total") == 1


def test_hits_that_do_not_count_are_counted_apart() -> None:
    """Those of the shadow, and those that an allow-listed bank suppressed."""
    metrics = EventMetrics()
    hit = Hit("alpha", 1, Band.BLOCK, ())
    suppressed = Suppressed(hit, Hit("fine", 2, Band.BLOCK, ()))
    answer = MatchResult(
        Band.NONE, (), False, True, (), "s", 1, suppressed=(suppressed,), shadow=(hit, hit)
    )
    metrics.count_answers([answer])
    assert counted(metrics, "simsearch_shadow_hits_total", bank="alpha", band="BLOCK") == 2
    assert counted(metrics, "simsearch_suppressed_hits_total", bank="alpha", by="fine") == 1


def test_an_edit_is_timed_until_it_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the commit, through a follower that takes its time; and the lag is told meanwhile."""
    prose = LoadedEncoder("prose", Modality.TEXT, text=FakeTextEncoder())
    core = _core(tmp_path, EncoderSet({"prose": prose}), CacheConfig(), None)
    watch = EditLatency(core.store, core.follower, core.metrics.edit_visible)
    held = threading.Event()
    step = type(core.follower)._catch_up

    def slow(follower: Any) -> None:
        held.wait(10)
        step(follower)

    def observed(what: str) -> float:
        return counted(core.metrics, f"simsearch_edit_visible_seconds_{what}")

    monkeypatch.setattr(type(core.follower), "_catch_up", slow)
    try:
        core.store.create_bank("alpha", "", core.default_policy(), EDIT)
        core.store.create_bank("beta", "", core.default_policy(), EDIT)
        time.sleep(0.3)
        lag = lag_of(core.store, core.follower)
        assert lag.changes >= 1
        assert 0.2 < lag.age_s < 10
        held.set()
        deadline = time.monotonic() + 10
        while observed("count") < 2:
            assert time.monotonic() < deadline
        assert observed("sum") > 0.3
        assert lag_of(core.store, core.follower).changes == 0
    finally:
        held.set()
        watch.close()
        core.close()


def test_the_lag_of_an_empty_bank_is_none(tmp_path: Path) -> None:
    """Nothing was edited, so nothing is unseen."""
    BankStore.open(tmp_path, writer=True).close()
    core = _core(tmp_path, EncoderSet({}), CacheConfig(), None)
    assert lag_of(core.store, core.follower).changes == 0
    core.close()


class OneGpu:
    """A server's GPUs, of which one was asked seven times and is off."""

    def status(self) -> tuple[GpuStatus, ...]:
        return (GpuStatus("gpu0", "too hot", 2, 7, 3, 0, 4096),)

    def stop(self) -> None: ...


def test_snapshots_gpus_and_rows_left_aside_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a small server has none of."""
    core = _core(tmp_path, EncoderSet({}), CacheConfig(), None)
    core.follower._gpus = OneGpu()  # type: ignore[assignment]
    core.follower._view = replace(core.follower.view, snapshot="s-1", unsearchable={"old@1": 5})
    built_us = (time.time() - 60) * 1e6
    monkeypatch.setattr(
        "simsearch.serve.metrics.collector.read_manifest",
        lambda path: SimpleNamespace(created_us=built_us),
    )
    families = StateFamilies()
    _index(families, core)
    _gpus(families, core)
    found = samples({family.name: family for family in families})
    assert 59 < value(found, "simsearch_index_age_seconds") < 70
    assert value(found, "simsearch_index_rows_aside", space="old@1") == 5
    assert value(found, "simsearch_gpu_up", gpu="gpu0") == 0
    assert value(found, "simsearch_gpu_queries_total", gpu="gpu0") == 7
    assert value(found, "simsearch_gpu_faults_total", gpu="gpu0") == 3
    assert value(found, "simsearch_gpu_index_bytes", gpu="gpu0") == 4096
    core.close()


# ---------------------------------------------------------------- the operators' port


def _port(listen: str = "127.0.0.1:0", ready: bool = True) -> MetricsServer:
    return MetricsServer(listen, lambda environ, start: [], lambda: ready, lambda: True)


def test_a_port_in_use_is_refused_by_name() -> None:
    """With the address, before anything is loaded."""
    port = _port()
    try:
        with pytest.raises(BadConfig, match=f"127.0.0.1:{port.port}"):
            _port(f"127.0.0.1:{port.port}")
    finally:
        port.close()


def test_it_listens_on_ipv6() -> None:
    """Where there is any."""
    try:
        port = _port("[::1]:0")
    except BadConfig:
        pytest.skip("no IPv6 here")
    with socket.create_connection(("::1", port.port), timeout=5) as caller:
        caller.sendall(b"GET /ready HTTP/1.0\r\n\r\n")
        assert b"200" in caller.recv(1000)
    port.close()


def test_connections_are_bounded() -> None:
    """Those who say nothing take no more than their share; then there is room again."""
    port = _port()
    silent = [socket.create_connection(("127.0.0.1", port.port)) for _ in range(CONNECTIONS_MAX)]
    try:
        time.sleep(0.2)
        with socket.create_connection(("127.0.0.1", port.port), timeout=5) as turned_away:
            assert turned_away.recv(10) == b""
        for caller in silent:
            caller.close()
        time.sleep(0.2)
        with socket.create_connection(("127.0.0.1", port.port), timeout=5) as let_in:
            let_in.sendall(b"GET /ready HTTP/1.0\r\n\r\n")
            assert b"200" in let_in.recv(1000)
    finally:
        port.close()


def test_a_loop_that_is_stuck_does_not_live(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor one that is closed."""
    monkeypatch.setattr("simsearch.serve.health.readiness.LIVE_S", 0.2)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    assert _is_live(loop)
    held = threading.Event()
    loop.call_soon_threadsafe(held.wait, 10)
    assert not _is_live(loop)
    held.set()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
    assert not _is_live(loop)


def test_call_metrics_count_nothing_of_health() -> None:
    """Probes every second would drown the calls."""
    handler: Any = grpc.unary_unary_rpc_method_handler(lambda request, context: None)
    method = Method("/grpc.health.v1.Health/Check", handler)
    assert CallMetrics(EventMetrics()).bind(method) is None
    assert CallBoundary([CallMetrics(EventMetrics())]).wrap(method) is handler


def test_free_ports_are_free() -> None:
    """What the tests of a whole process listen on."""
    assert free_port() != free_port()
