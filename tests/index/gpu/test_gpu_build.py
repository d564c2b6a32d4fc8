"""An index made with a GPU's help is the one that is made without; here the CPU stands in."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
import pytest

from simsearch.index.gpu import gpu_build, rescale
from simsearch.index.gpu.gpu_build import (
    BuildDevice,
    CpuBuildDevice,
    clustering_on,
    fill_on,
    gpu_build_device,
)
from simsearch.index.ivf import train
from simsearch.index.ivf.train import fill
from tests.index.gpu.gpu_worlds import FACTORY, trained_world, world


@pytest.fixture(params=["host", pytest.param("gpu", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> BuildDevice:
    if request.param == "host":
        return CpuBuildDevice()
    found, reason = gpu_build_device()
    if found is None:
        pytest.skip(reason)
    return found


def empty(factory: str) -> Any:
    return faiss.index_factory(48, factory, faiss.METRIC_INNER_PRODUCT)


def test_rows_outliers_and_codes_are_those_of_the_cpu(
    device: BuildDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row for row, but for few whose best scale hangs on the last bit; in parts as well."""
    monkeypatch.setattr(gpu_build, "FILL_ROWS", 300)
    monkeypatch.setattr(rescale, "COMPARED_ROWS", 130)
    monkeypatch.setattr(rescale, "SCORED_ROWS", 50)
    rows = world().vectors.astype(np.float16)
    done: list[int] = []
    ids = np.arange(len(rows)) + 7
    expected = trained_world(FACTORY)
    outliers = fill(expected, rows, ids)
    made, made_outliers = fill_on(device, trained_world(FACTORY), rows, ids, done.append)
    assert sum(done) == len(rows)
    assert 0 < len(outliers) < len(rows)
    assert len(np.setxor1d(outliers, made_outliers)) < 10
    assert made.ntotal == len(rows) - len(made_outliers)
    scores, found = (side.search(np.float32(rows), 8) for side in (expected, made))
    assert (scores[1][:, 0] == found[1][:, 0]).mean() > 0.97
    assert np.abs(scores[0][:, 0] - found[0][:, 0]).max() < 0.06


def test_the_scales_are_those_of_the_cpu() -> None:
    """The arithmetic is another's, and the result the same."""
    index, vectors = trained_world(FACTORY), world().vectors[:400]
    rescaled, outliers = train._rescaled(index, vectors)
    ours, our_outliers = rescale.RowRescaler(*gpu_build._geometry(index), "cpu").rescaled(vectors)
    close = np.abs(rescaled - ours).max(1) < 1e-4
    assert close.mean() > 0.97
    assert (outliers == our_outliers).mean() > 0.98


def test_centres_are_those_of_the_cpu(device: BuildDevice) -> None:
    sample = world().vectors
    plain, helped = empty("IVF16,Flat"), empty("IVF16,Flat")
    plain.train(sample)
    with clustering_on(device, helped):
        helped.train(sample)
    assert helped.clustering_index is None
    one, other = (side.quantizer.reconstruct_n(0, 16) for side in (plain, helped))
    assert np.abs(one - other).max() < 1e-3


def test_centres_are_looked_for_there() -> None:
    """And a failure leaves nothing of it behind: the index is trained without."""

    class Broken(CpuBuildDevice):
        def flat_index(self, dim: int) -> Any:
            return faiss.IndexFlatIP(dim + 1)

    index = empty("IVF16,Flat")
    with pytest.raises(RuntimeError), clustering_on(Broken(), index):
        index.train(world().vectors)
    assert index.clustering_index is None
    index.train(world().vectors)
    assert index.is_trained


def test_what_a_gpu_cannot_hold_is_not_filled_there() -> None:
    index = empty("IVF16,PQ12x4fsr")
    with pytest.raises(ValueError, match="plan for GPUs"):
        fill_on(CpuBuildDevice(), index, world().vectors, np.arange(10))


@pytest.mark.parametrize("factory", ["IVF16,SQfp16", "IVF16,Flat"])
def test_full_codes_are_not_scaled(device: BuildDevice, factory: str) -> None:
    index = empty(factory)
    index.train(world().vectors)
    made, outliers = fill_on(device, index, world().vectors, np.arange(len(world().vectors)))
    assert (made.ntotal, len(outliers)) == (len(world().vectors), 0)


def test_without_a_gpu_there_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: int) -> Any:
        raise OSError("driver too old")

    monkeypatch.setattr(gpu_build, "gpus_of_faiss", broken)
    assert gpu_build_device() == (None, "the GPU cannot be used: driver too old")
