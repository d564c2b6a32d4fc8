"""bfloat16 is used where it is fast and harmless, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from simsearch.encode.encoders.dtype import (
    agreement,
    choose_precision,
    cpu_has_bf16,
    device_has_bf16,
)
from simsearch.types import Vectors

Encode = Callable[[Sequence[float]], Vectors]


def turned_by(cosine: float) -> Encode:
    """An encoder of angles whose vectors are off by the angle of that cosine."""

    def encode(angles: Sequence[float]) -> Vectors:
        off = np.asarray(angles) + np.arccos(cosine)
        return np.stack([np.cos(off), np.sin(off)], axis=1).astype(np.float32)

    return encode


def never(_: Sequence[float]) -> Vectors:
    raise AssertionError("nothing is encoded where the hardware has no bfloat16")


@pytest.mark.parametrize(
    ("cosine", "expected"), [(1.0, "bfloat16"), (0.9995, "bfloat16"), (0.998, "float32")]
)
def test_agreement_decides(cosine: float, expected: str) -> None:
    """bfloat16 is chosen if no vector moves by more than cosine 0.999."""
    probe = [0.1, 0.7, 2.0]
    assert choose_precision(turned_by(1.0), turned_by(cosine), probe, has_bf16=True) == expected


def test_the_worst_item_decides() -> None:
    """One item that moves too far is enough to stay in float32."""

    def one_off(angles: Sequence[float]) -> Vectors:
        return np.concatenate([turned_by(1.0)(angles[:-1]), turned_by(0.9)(angles[-1:])])

    assert choose_precision(turned_by(1.0), one_off, [0.1, 0.7, 2.0], has_bf16=True) == "float32"


def test_hardware_is_asked_first() -> None:
    """Without bfloat16 in hardware nothing is tried."""
    assert choose_precision(never, never, [0.1], has_bf16=False) == "float32"


def test_not_a_number_is_disagreement() -> None:
    """A model that overflows in bfloat16 stays in float32."""
    one = turned_by(1.0)([0.1, 0.2])
    broken = one.copy()
    broken[1] = np.nan
    assert agreement(one, broken) == -1.0
    assert agreement(one, one) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("flags\t\t: fpu avx2 avx512f avx512_bf16", True),
        ("flags\t\t: fpu amx_bf16", True),
        ("Features\t: fp asimd bf16", True),
        ("flags\t\t: fpu avx2 avx512f", False),
        ("flags\t\t: notbf16", False),
        ("model name\t: bf16 CPU", False),
    ],
)
def test_cpu_flags(tmp_path: Path, line: str, expected: bool) -> None:
    """What the kernel calls bfloat16 on x86 and on ARM; other words do not count."""
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\n{line}\n")
    assert cpu_has_bf16(cpuinfo) is expected


def test_unknown_cpu_has_none(tmp_path: Path) -> None:
    """Where the kernel does not say, bfloat16 is not assumed."""
    assert cpu_has_bf16(tmp_path / "absent") is False


def test_cpu_device_asks_the_cpu() -> None:
    """The question for a device is passed to the right place."""
    assert device_has_bf16("cpu") == cpu_has_bf16()
