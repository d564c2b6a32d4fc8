"""Which index a number of rows gets, and what an operator may not ask for."""

from __future__ import annotations

import re

import faiss
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simsearch.errors import BadConfig
from simsearch.index.gpu.device import unsupported_reason
from simsearch.index.ivf.plan import (
    FLAT_ROWS_MAX,
    GPU_CODES,
    GPU_SHARD_BYTES,
    SHARD_ROWS_MAX,
    Plan,
    plan,
)


@pytest.mark.parametrize(
    ("count", "factory", "nprobe", "shards"),
    [
        (0, "Flat", 0, 1),
        (FLAT_ROWS_MAX, "Flat", 0, 1),
        (FLAT_ROWS_MAX + 1, "IVF1024,PQ96x4fsr", 16, 1),
        (1_000_000, "IVF2048,PQ96x4fsr", 16, 1),
        (2_000_000, "IVF4096,PQ96x4fsr", 16, 1),
        (20_000_000, "IVF16384_HNSW32,PQ96x4fsr", 32, 1),
        (100_000_000, "IVF16384_HNSW32,PQ96x4fsr", 32, 5),
    ],
)
def test_rows_decide(count: int, factory: str, nprobe: int, shards: int) -> None:
    """What fits exact search gets it; more rows get more lists, then more shards."""
    made = plan(count, 384)
    assert (made.factory, made.nprobe, made.shards) == (factory, nprobe, shards)


@given(count=st.integers(0, 10**9), dim=st.integers(1, 2048))
def test_every_plan_can_be_built(count: int, dim: int) -> None:
    """FAISS knows the factory, m divides dim, the lists can be trained, a shard stays in bounds."""
    made = plan(count, dim)
    if made.is_flat:
        return
    assert made.nprobe <= made.nlist <= made.train_rows <= count
    assert -(-count // made.shards) <= SHARD_ROWS_MAX
    m = int(re.findall(r"PQ(\d+)x4fsr", made.factory)[0])
    assert dim % m == 0
    assert plan(count, dim, override=made.factory) == made


@pytest.mark.parametrize(
    ("count", "dim", "factory", "nprobe", "shards"),
    [
        (200_000, 384, "Flat", 0, 1),
        (200_001, 384, "IVF4096,PQ64", 64, 1),
        (2_000_000, 384, "IVF4096,PQ64", 64, 1),
        (2_000_001, 384, "IVF16384,PQ64", 64, 1),
        (20_000_000, 512, "IVF16384,PQ64", 64, 1),
        (20_000_001, 768, "IVF65536,PQ64", 64, 1),
        (100_000_000, 384, "IVF65536,PQ64", 64, 1),
        (1_000_000_000, 384, "IVF65536,PQ64", 64, 5),
        (300_000, 500, "IVF4096,PQ20", 64, 1),
        (300_000, 7, "IVF4096,PQ1", 64, 1),
    ],
)
def test_rows_decide_on_a_gpu(count: int, dim: int, factory: str, nprobe: int, shards: int) -> None:
    """No fast scan, no graph, codes that a GPU takes, shards that fit its memory."""
    made = plan(count, dim, gpu=True)
    assert (made.factory, made.nprobe, made.shards) == (factory, nprobe, shards)


@given(count=st.integers(0, 10**9), dim=st.integers(1, 2048))
def test_every_plan_for_a_gpu_can_be_built(count: int, dim: int) -> None:
    """As above, and a shard's codes and ids stay within the bytes that are set aside for it."""
    made = plan(count, dim, gpu=True)
    if made.is_flat:
        return
    assert made.nprobe <= made.nlist <= made.train_rows <= count
    m = int(made.factory.partition("PQ")[2])
    assert dim % m == 0
    assert m in GPU_CODES
    assert -(-count // made.shards) * (m + 8) <= GPU_SHARD_BYTES + m + 8
    assert plan(count, dim, override=made.factory, gpu=True) == made


def test_a_gpu_can_hold_what_is_planned_for_it() -> None:
    """And not what is planned for a CPU."""
    for_gpu, for_cpu = (plan(300_000, 384, gpu=gpu).factory for gpu in (True, False))
    said = [
        unsupported_reason(faiss.index_factory(384, factory, faiss.METRIC_INNER_PRODUCT))
        for factory in (for_gpu, for_cpu)
    ]
    assert said[0] == ""
    assert "fast scan" in said[1]


def test_faiss_knows_the_factories() -> None:
    """Every form that the message of a refusal offers."""
    codecs = ("PQ4x4fsr", "PQ4x4fs", "PQ4", "SQ8", "SQfp16", "Flat")
    for factory in ("IVF64_HNSW8,PQ4x4fsr", *(f"IVF64,{codec}" for codec in codecs)):
        made = plan(FLAT_ROWS_MAX, 16, override=factory)
        index = faiss.index_factory(16, made.factory, faiss.METRIC_INNER_PRODUCT)
        assert faiss.extract_index_ivf(index).nlist == made.nlist
        assert made.nprobe <= made.nlist


def test_an_operator_may_ask_for_exact_search_of_any_size() -> None:
    """It is the answer to every doubt about recall."""
    flat = Plan("Flat", nlist=0, nprobe=0, shards=1, train_rows=0)
    assert plan(3_000_000, 384, override="Flat") == flat


@pytest.mark.parametrize(
    ("override", "names"),
    [
        ("IVFPQ", r"'IVFPQ' is not known: write Flat, or IVF"),
        ("IVF64,LSH", r"'IVF64,LSH' is not known"),
        ("IVF64,PQ4x4fs,RFlat", r"not known"),
        ("", r"'' is not known"),
        ("IVF64,PQ5x4fs", r"5 pieces, which does not divide their 16 numbers: write PQ4x4fsr"),
        ("IVF64,PQ0x4fs", r"0 pieces"),
        ("IVF0,PQ4x4fs", r"0 lists"),
        ("IVF500,PQ4x4fs", r"500 lists, which 400 rows cannot train: choose 1 to 400 lists"),
    ],
)
def test_an_unusable_factory_is_refused(override: str, names: str) -> None:
    """Before hours of building, and with what to write instead."""
    with pytest.raises(BadConfig, match=names):
        plan(400, 16, override=override)
