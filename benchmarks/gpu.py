"""Every check and every measurement that needs a GPU, in one call of under 8 minutes.

    python -m benchmarks.gpu [--rows N] [--budget-s S] [--skip-tests] [--rehearse] [--cache DIR]

Prints a JSON line as each section ends, and one of all at the end. A section that fails is
reported and the next one runs; one that hangs past the budget ends the call with what there is.

tests      the tests marked `gpu`
bank       10M x 384 made on the GPU by the recipe of benchmarks/vectors.py
build      rows a second: training and filling, with the GPU's help
place      the index on the GPU, checked and calibrated: seconds, bytes a row, for 100M rows
recall     of all pairs at a cosine, among near copies of rows; false hits; equal to the CPU's?
qps        95 % benign, 5 % near copies, matches decided exactly; from host memory and from tensors
latency    one question at a time
encoders   MiniLM and CLIP on the GPU; MiniLM's tensors going straight into the search

`--rehearse`: every section at a tiny size, with this machine's CPU in the place of the GPU. Its
figures mean nothing; that it ends well means that this script works.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks import vectors
from benchmarks.report import machine
from benchmarks.vectors import Half, near_copies
from simsearch.index.gpu.device import HostDevice, gpus_of_faiss
from simsearch.index.gpu.gpu_build import (
    BuildDevice,
    CpuBuildDevice,
    clustering_on,
    fill_on,
    gpu_build_device,
)
from simsearch.index.gpu.gpu_view import GpuBase, GpuOptions, Gpus, place_on_gpus
from simsearch.index.index_protocol import CosineView
from simsearch.index.ivf.calibration import Calibration
from simsearch.index.ivf.ivf_view import IvfBase
from simsearch.index.ivf.plan import Plan, plan
from simsearch.index.ivf.train import calibrate
from simsearch.index.rescore import exact_pairs
from simsearch.index.snapshot.loader import Shard
from simsearch.types import Vectors

TESTS: Final = ("tests/index/gpu/test_gpu_view.py", "tests/index/gpu/test_gpu_build.py")
TESTS_S_MAX: Final = 120.0
FLOORS: Final = (0.90, 0.95)
GROUPS: Final = 8
MADE_ROWS: Final = 65_536
TRUTH_ROWS: Final = 1 << 19
TRUTH_SLACK: Final = 0.01
"""Pairs are proposed in float16 and decided exactly."""

HUNDRED_MILLION: Final = 100_000_000


@dataclass(frozen=True)
class Size:
    """What a run is made of; `seconds` is how long each side of the speed sections runs."""

    rows: int
    factory: str | None
    copies: int
    asked: int
    batches: tuple[int, ...]
    threads: int
    seconds: float
    texts: int
    images: int


REHEARSAL: Final = Size(
    4000, "IVF16,PQ16", 60, 512, (64,), threads=4, seconds=0.3, texts=32, images=8
)


def full(rows: int) -> Size:
    return Size(
        rows,
        None,
        2000,
        32_768,
        (256, 1024, 4096),
        threads=16,
        seconds=6.0,
        texts=8192,
        images=2048,
    )


@dataclass
class Bench:
    """What the sections hand on to each other."""

    size: Size
    cache: Path
    torch_device: str
    rehearse: bool
    gpus: Gpus
    build_device: BuildDevice
    real: vectors.Real | None = None
    bank: Half = field(default_factory=lambda: np.empty((0, 0), np.float16))
    plan: Plan | None = None
    shard: Shard | None = None
    calibration: Calibration | None = None
    base: IvfBase | None = None
    view: CosineView | None = None

    def needs(self, *names: str) -> None:
        for name in names:
            if getattr(self, name) is None:
                raise RuntimeError(f"there is no {name}: an earlier section failed")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--budget-s", type=float, default=450.0)
    parser.add_argument("--skip-tests", action="store_true")
    parser.add_argument("--rehearse", action="store_true")
    default = Path(tempfile.gettempdir()) / "simsearch-bench"
    parser.add_argument("--cache", type=Path, default=default, help="where vectors are kept")
    options = parser.parse_args()
    bench = rehearsal(options.cache) if options.rehearse else on_gpu(options.rows, options.cache)
    if isinstance(bench, str):
        print(json.dumps({"benchmark": "gpu", "result": f"no GPU: nothing measured ({bench})"}))
        return
    sections = dict(SECTIONS)
    if options.skip_tests:
        sections.pop("tests")
    report = Report(options.rehearse)
    report.run(bench, sections, options.budget_s)
    bench.gpus.stop()
    report.end(bench)


def rehearsal(cache: Path) -> Bench:
    gpus = Gpus([HostDevice()], GpuOptions(wait_s=30.0))
    return Bench(REHEARSAL, cache / "rehearsal", "cpu", True, gpus, CpuBuildDevice())


def on_gpu(rows: int, cache: Path) -> Bench | str:
    """Or why there is none."""
    _, reason = gpus_of_faiss(1 << 20)
    build_device, no_gpu = gpu_build_device()
    if reason or build_device is None:
        return reason or no_gpu
    import torch

    if not torch.cuda.is_available():
        return "torch finds no GPU"
    return Bench(
        full(rows), cache, "cuda:0", False, Gpus.found(GpuOptions(wait_s=5.0)), build_device
    )


class Report:
    """What was found, by section; printed as it comes, and once more when all is over."""

    def __init__(self, rehearsed: bool) -> None:
        self._rehearsed = rehearsed
        self._found: dict[str, Any] = {}

    def run(self, bench: Bench, sections: dict[str, Section], budget_s: float) -> None:
        """Each within the budget that is left; a hang ends the process."""
        deadline = time.monotonic() + budget_s
        for name, section in sections.items():
            left = deadline - time.monotonic()
            if left <= 0:
                self._add(name, {"skipped": "the budget is spent"}, 0.0)
                continue
            dog = threading.Timer(left, self._give_up, (bench, name))
            dog.daemon = True
            dog.start()
            begun = time.monotonic()
            try:
                found = section(bench)
            except Exception as error:  # the next section may still tell something
                found = {"failed": f"{type(error).__name__}: {error}"[:500]}
            finally:
                dog.cancel()
            self._add(name, found, time.monotonic() - begun)

    def _add(self, name: str, found: dict[str, Any], seconds: float) -> None:
        self._found[name] = found | {"seconds": round(seconds, 1)}
        print(json.dumps({name: self._found[name]}, default=str), flush=True)

    def _give_up(self, bench: Bench, name: str) -> None:
        self._add(name, {"failed": "still running when the budget was spent"}, 0.0)
        self.end(bench)
        os._exit(3)

    def end(self, bench: Bench) -> None:
        result = {
            "benchmark": "gpu",
            "rehearsed_without_a_gpu": self._rehearsed,
            "rows": bench.size.rows,
            "factory": bench.plan.factory if bench.plan else None,
            "sections": self._found,
            "gpus": [asdict(status) for status in bench.gpus.status()],
            "machine": machine(),
        }
        print(json.dumps(result, default=str), flush=True)


Section = Callable[[Bench], dict[str, Any]]


# ---------------------------------------------------------------- tests


def tests(bench: Bench) -> dict[str, Any]:
    """In a process of their own, so that what they break breaks nothing here."""
    which = "not gpu and not slow" if bench.rehearse else "gpu"
    files = TESTS[1:] if bench.rehearse else TESTS
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", which, *files],
        capture_output=True,
        text=True,
        timeout=TESTS_S_MAX,
        cwd=Path(__file__).parents[1],
    )
    lines = done.stdout.strip().splitlines()
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    return {
        "exit": done.returncode,
        "said": lines[-1] if lines else done.stderr[-300:],
        "not": failed,
    }


# ---------------------------------------------------------------- the bank


def bank(bench: Bench) -> dict[str, Any]:
    begun = time.monotonic()
    bench.real = real_on(bench.torch_device, bench.cache, bench.rehearse)
    known = time.monotonic()
    bench.bank = made_on(bench.torch_device, bench.real, bench.size.rows)
    return {
        "vectors": bench.real.source,
        "real_rows": len(bench.real.stored),
        "real_s": round(known - begun, 1),
        "made_rows_per_s": round(len(bench.bank) / (time.monotonic() - known)),
    }


def real_on(torch_device: str, cache: Path, few: bool) -> vectors.Real:
    """As vectors.real_vectors, with the neighbours found in torch; vectors are kept in `cache`."""
    has_texts = vectors.SHARED_TEXTS.is_dir() and not few
    source = "shared-texts" if has_texts else "generated"
    encode = vectors._encoded if has_texts else vectors._generated
    is_benign = vectors._labelled_benign if has_texts else vectors._generated_benign
    all_vectors = vectors._cached(cache / f"{source}.npy", encode)
    benign = vectors._cached(cache / f"{source}-benign.npy", is_benign)
    if few:
        all_vectors, benign = all_vectors[:3000], benign[:3000]
    rng = np.random.default_rng(0)
    others = rng.permutation(np.flatnonzero(~benign))
    held = int(vectors.HELD_OUT * len(others))
    stored = all_vectors[others[held:]]
    graph = neighbours_on(torch_device, stored)
    cosines = np.einsum("ij,ij->i", stored, stored[graph[:, 0]], dtype=np.float32)
    asked = all_vectors[rng.permutation(np.flatnonzero(benign))], all_vectors[others[:held]]
    return vectors.Real(stored, *asked, graph, cosines, source)


def neighbours_on(torch_device: str, stored: Half) -> NDArray[np.int32]:
    """(n, NEIGHBOURS) row numbers of the nearest of each row, nearest first, itself left out."""
    import torch

    rows = torch.from_numpy(stored.astype(np.float32)).to(torch_device)
    found = []
    for start in range(0, len(rows), 4096):
        cosines = rows[start : start + 4096] @ rows.T
        own = torch.arange(len(cosines), device=torch_device)
        cosines[own, own + start] = -1
        found.append(cosines.topk(vectors.NEIGHBOURS).indices.int().cpu().numpy())
    return np.concatenate(found)


def made_on(torch_device: str, real: vectors.Real, rows: int) -> Half:
    """vectors.bank_of by torch: the real rows, then made ones, in random order, on the host."""
    import torch

    source = torch.Generator(device=torch_device).manual_seed(1)
    stored = torch.from_numpy(real.stored.astype(np.float32)).to(torch_device)
    near = torch.from_numpy(real.neighbours.astype(np.int64)).to(torch_device)
    nearest = torch.from_numpy(real.nearest).to(torch_device)
    made = np.empty((rows, stored.shape[1]), np.float16)
    known = min(rows, len(stored))
    at_known = np.sort(np.random.default_rng(1).choice(rows, known, replace=False))
    others = np.delete(np.arange(rows), at_known)
    made[at_known] = real.stored[:known]
    for start in range(0, len(others), MADE_ROWS):
        at = others[start : start + MADE_ROWS]
        made[at] = _mixed(stored, near, nearest, len(at), source).half().cpu().numpy()
    return made


def _mixed(stored: Any, near: Any, nearest: Any, count: int, source: Any) -> Any:
    import torch

    device = stored.device

    def drawn(high: int) -> Any:
        return torch.randint(high, (count,), generator=source, device=device)

    n = len(stored)
    i, j, u, v, t = drawn(n), drawn(near.shape[1]), drawn(n), drawn(n), drawn(n)
    a = 0.5 + torch.rand((count, 1), generator=source, device=device) / 2
    middle = _unit(a * stored[i] + (1 - a) * stored[near[i, j]])
    away = stored[u] - stored[v]
    across = _unit(away - (away * middle).sum(1, keepdim=True) * middle)
    cosine = nearest[t].clamp(max=1)[:, None]
    return _unit(cosine * middle + (1 - cosine**2).sqrt() * across)


def _unit(rows: Any) -> Any:
    return rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-9)


# ---------------------------------------------------------------- the index


def build(bench: Bench) -> dict[str, Any]:
    bench.needs("real")
    rows = bench.bank
    bench.plan = made = plan(len(rows), rows.shape[1], override=bench.size.factory, gpu=True)
    if made.is_flat:
        raise RuntimeError(f"{len(rows)} rows are searched exactly: ask for more")
    rng = np.random.default_rng(0)
    sample = rows[np.sort(rng.choice(len(rows), made.train_rows, replace=False))]
    begun = time.monotonic()
    trained = _trained(bench.build_device, made.factory, sample)
    filling = time.monotonic()
    index, outliers = fill_on(bench.build_device, trained, rows, np.arange(len(rows)))
    ended = time.monotonic()
    keys = np.arange(1, len(rows) + 1)
    bench.shard = Shard(index, rows, keys, (keys % GROUPS).astype(np.uint32), outliers)
    bench.calibration = calibrate(index, rows)
    return {
        "factory": made.factory,
        "nprobe": made.nprobe,
        "train_s": round(filling - begun, 1),
        "fill_rows_per_s": round(len(rows) / (ended - filling)),
        "rows_per_s": round(len(rows) / (ended - begun)),
        "outliers": len(outliers),
        "calibration": asdict(bench.calibration),
    }


def _trained(build_device: BuildDevice, factory: str, sample: Half) -> Any:
    """As ivf_build.train, whose index is not to be had before it is trained."""
    import faiss

    empty: Any = faiss.index_factory(sample.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
    if hasattr(empty, "do_polysemous_training"):
        empty.do_polysemous_training = False
    with clustering_on(build_device, empty):
        empty.train(np.ascontiguousarray(sample, np.float32))
    return empty


def place(bench: Bench) -> dict[str, Any]:
    bench.needs("shard", "calibration", "plan")
    assert bench.shard
    assert bench.calibration
    assert bench.plan
    before = free_bytes(bench)
    begun = time.monotonic()
    [placed] = place_on_gpus(
        [bench.shard], calibration=bench.calibration, nprobe=bench.plan.nprobe, gpus=bench.gpus
    )
    seconds = time.monotonic() - begun
    bench.base, bench.view = placed.base, placed.base.freeze(0)
    nbytes = bench.gpus.status()[0].nbytes
    taken = before - free_bytes(bench)
    rows = len(bench.bank)
    return {
        "on_gpu": isinstance(placed.base, GpuBase),
        "reason": placed.reason,
        "placed_s": round(seconds, 1),
        "bytes_per_row_by_length": round(nbytes / rows, 1),
        "bytes_per_row_taken": round(taken / rows, 1),
        "gb_for_100m_by_length": round(nbytes / rows * HUNDRED_MILLION / 1e9, 1),
        "gb_for_100m_taken": round(taken / rows * HUNDRED_MILLION / 1e9, 1),
    }


def free_bytes(bench: Bench) -> int:
    """Of the GPU's memory, 0 where there is none; torch's own cache is emptied first."""
    if bench.rehearse:
        return 0
    import torch

    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    return int(torch.cuda.mem_get_info()[0])


# ---------------------------------------------------------------- what is found


def recall(bench: Bench) -> dict[str, Any]:
    bench.needs("view", "real")
    assert bench.view
    assert bench.real
    rng = np.random.default_rng(2)
    at = np.sort(rng.choice(len(bench.bank), bench.size.copies))
    cosines = rng.uniform(0.9, 1, len(at))
    queries = near_copies(np.asarray(bench.bank[at], np.float32), bench.real, cosines, rng)
    truth = truth_on(bench.torch_device, bench.bank, queries, FLOORS[0])
    found: dict[str, Any] = {}
    for floor in FLOORS:
        matches = bench.view.search(queries, _floors(floor))
        whole = ~matches.truncated
        # by key, which is the row's number and 1: outliers are numbered as another part
        hits = set(zip(matches.query.tolist(), (matches.key - 1).tolist(), strict=True))
        wanted = truth.at(floor)
        of_whole = {pair for pair in wanted if whole[pair[0]]}
        found[f"range_recall_{floor:.2f}"] = len(hits & of_whole) / max(1, len(of_whole))
        found[f"pairs_{floor:.2f}"] = len(of_whole)
        found[f"false_hits_{floor:.2f}"] = len(hits - wanted)
    return found | {"equal_to_cpu": _as_the_cpu(bench, queries[:200])}


def truth_on(torch_device: str, rows: Half, queries: Vectors, lowest: float) -> vectors.Truth:
    """As vectors.truth_of, proposed in float16 by torch."""
    import torch

    dtype = torch.float32 if torch_device == "cpu" else torch.float16
    asked = torch.from_numpy(queries).to(torch_device, dtype)
    found = []
    for start in range(0, len(rows), TRUTH_ROWS):
        part = rows[start : start + TRUTH_ROWS]
        cosines = asked @ torch.from_numpy(part).to(torch_device, dtype).T
        q, r = (x.cpu().numpy() for x in torch.nonzero(cosines >= lowest - TRUTH_SLACK).T)
        cosine = exact_pairs(queries, part, q, r)  # type: ignore[arg-type]
        inside = cosine >= lowest
        found.append((q[inside], r[inside] + start, cosine[inside]))
    return vectors.Truth(*(np.concatenate(column) for column in zip(*found, strict=True)))


def _as_the_cpu(bench: Bench, queries: Vectors) -> dict[str, int]:
    """How many matches both give, and how many only one."""
    assert bench.shard
    assert bench.calibration
    assert bench.plan
    assert bench.view
    shard = bench.shard
    cpu = IvfBase(
        shard.index,
        shard.rows,
        shard.keys,
        shard.groups,
        calibration=bench.calibration,
        nprobe=bench.plan.nprobe,
        outliers=shard.outliers,
    ).freeze(0)
    sides = (view.search(queries, _floors(FLOORS[0])) for view in (bench.view, cpu))
    gpu, other = (set(zip(m.query.tolist(), m.key.tolist(), strict=True)) for m in sides)
    return {"both": len(gpu & other), "gpu_alone": len(gpu - other), "cpu_alone": len(other - gpu)}


def _floors(floor: float) -> dict[int, float]:
    return dict.fromkeys(range(GROUPS), floor)


# ---------------------------------------------------------------- speed


def qps(bench: Bench) -> dict[str, Any]:
    bench.needs("view")
    queries = asked(bench)
    found: dict[str, Any] = {}
    for size in bench.size.batches:
        found[f"host_batch_{size}"] = round(rate(bench, batches_of(queries, size)))
        import torch

        there = torch.from_numpy(queries).to(bench.torch_device)
        found[f"tensors_batch_{size}"] = round(rate(bench, batches_of(there, size)))
    if isinstance(bench.base, GpuBase):
        found["fallbacks"] = asdict(bench.base.fallbacks)
    return found


def asked(bench: Bench) -> Vectors:
    """95 % benign, 5 % near copies, in random order."""
    assert bench.real
    rng = np.random.default_rng(4)
    copies = bench.size.asked // 20
    at = np.sort(rng.choice(len(bench.bank), copies))
    near = near_copies(
        np.asarray(bench.bank[at], np.float32), bench.real, rng.uniform(0.9, 1, copies), rng
    )
    benign = bench.real.benign[rng.choice(len(bench.real.benign), bench.size.asked - copies)]
    return rng.permutation(np.concatenate((benign.astype(np.float32), near)))


def batches_of(queries: Any, size: int) -> list[Any]:
    return [queries[start : start + size] for start in range(0, len(queries), size)]


def rate(bench: Bench, batches: list[Any]) -> float:
    """Queries a second that all threads together get answered."""
    assert bench.view
    view, floors = bench.view, _floors(FLOORS[0])
    view.search(batches[0], floors)
    until = time.monotonic() + bench.size.seconds
    begun = time.monotonic()

    def work(number: int) -> int:
        answered = 0
        while time.monotonic() < until:
            batch = batches[number % len(batches)]
            view.search(batch, floors)
            answered += len(batch)
            number += bench.size.threads
        return answered

    with ThreadPoolExecutor(bench.size.threads) as pool:
        total = sum(pool.map(work, range(bench.size.threads)))
    return total / (time.monotonic() - begun)


def latency(bench: Bench) -> dict[str, Any]:
    bench.needs("view")
    assert bench.view
    queries, until = asked(bench), time.monotonic() + bench.size.seconds
    times = []
    for at in range(len(queries)):
        begun = time.perf_counter()
        bench.view.search(queries[at : at + 1], _floors(FLOORS[0]))
        times.append(1000 * (time.perf_counter() - begun))
        if time.monotonic() > until:
            break
    p50, p99 = np.quantile(times, (0.5, 0.99))
    return {"asked": len(times), "p50_ms": round(float(p50), 3), "p99_ms": round(float(p99), 3)}


# ---------------------------------------------------------------- encoders


def encoders(bench: Bench) -> dict[str, Any]:
    """Each in turn; one that is not there does not hide the other."""
    found: dict[str, Any] = {}
    for name, measure in (("minilm", _minilm), ("clip", _clip)):
        try:
            found[name] = measure(bench)
        except Exception as error:  # its weights may not be on this machine
            found[name] = {"failed": f"{type(error).__name__}: {error}"[:300]}
    return found


def _minilm(bench: Bench) -> dict[str, Any]:
    from simsearch.encode.encoders.sentence import load_sentence

    encoder = load_sentence(vectors.MODEL, device=bench.torch_device.partition(":")[0])
    texts = [f"post number {n}: {' '.join(_WORDS[n % 7 :])}" for n in range(bench.size.texts)]
    encoder.encode_texts(texts[:64])
    begun = time.perf_counter()
    encoder.encode_texts(texts)
    alone = time.perf_counter() - begun
    found: dict[str, Any] = {
        "texts_per_s": round(len(texts) / alone),
        "precision": encoder.precision,
    }
    if bench.view is not None and bench.view.dim == encoder.space.dim:
        view = bench.view
        begun = time.perf_counter()
        for tensor in _sentence_tensors(encoder, texts, 1024):
            view.search(tensor, _floors(FLOORS[0]))
        found["texts_per_s_tensors_into_search"] = round(len(texts) / (time.perf_counter() - begun))
    return found


_WORDS: Final = ("share", "this", "with", "everyone", "before", "it", "is", "taken", "down")


def _sentence_tensors(encoder: Any, texts: list[str], batch: int) -> Iterator[Any]:
    """Unit vectors that never leave the device; for texts no longer than the model takes."""
    import torch

    half = encoder.precision == "bfloat16"
    device = torch.device(encoder._device)
    for start in range(0, len(texts), batch):
        ids = [e.ids for e in encoder._tokenizer.encode_batch(texts[start : start + batch])]
        longest = max(map(len, ids))
        tokens = torch.tensor([i + [0] * (longest - len(i)) for i in ids], device=device)
        mask = torch.tensor([[1] * len(i) + [0] * (longest - len(i)) for i in ids], device=device)
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=half):
            out = encoder._model({"input_ids": tokens, "attention_mask": mask})
        yield _unit(out["sentence_embedding"].float())


def _clip(bench: Bench) -> dict[str, Any]:
    from simsearch.encode.encoders.clip import load_clip

    encoder = load_clip("copyclip", device=bench.torch_device.partition(":")[0])
    width, height = encoder.preprocess.size
    pixels = list(
        np.random.default_rng(0).integers(
            0, 256, (bench.size.images, height, width, 3), dtype=np.uint8
        )
    )
    encoder.encode_images(pixels[:8])
    begun = time.perf_counter()
    encoder.encode_images(pixels)
    seconds = time.perf_counter() - begun
    return {"images_per_s": round(len(pixels) / seconds), "precision": encoder.precision}


SECTIONS: Final[dict[str, Section]] = {
    "tests": tests,
    "bank": bank,
    "build": build,
    "place": place,
    "recall": recall,
    "qps": qps,
    "latency": latency,
    "encoders": encoders,
}


if __name__ == "__main__":
    main()
