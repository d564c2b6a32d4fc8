"""Choice of dtype: an encoder computes in bfloat16 only where that is fast and accurate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

import numpy as np

from simsearch.types import Vectors

Item = TypeVar("Item")

FLOAT32: Final = "float32"
BFLOAT16: Final = "bfloat16"

COSINE_MIN: Final = 0.999
"""Below this the format would move scores across thresholds that are kept to 0.01."""

# The kernel's names for instructions that multiply bfloat16 in one step: x86 twice, then ARM.
# Without one of them torch emulates the format and is slower than in float32.
_CPU_FLAGS: Final = frozenset({"avx512_bf16", "amx_bf16", "bf16"})


def choose_precision(
    encode_float32: Callable[[Sequence[Item]], Vectors],
    encode_bfloat16: Callable[[Sequence[Item]], Vectors],
    probe: Sequence[Item],
    *,
    has_bf16: bool,
) -> str:
    """ "bfloat16" if the hardware multiplies it and no probe item's vector moves by more than
    cosine 0.999; else "float32". Both functions give (n, dim) unit vectors; `has_bf16` is
    `device_has_bf16(device)`. Nothing is encoded where the hardware says no."""
    if not has_bf16:
        return FLOAT32
    return (
        BFLOAT16
        if agreement(encode_float32(probe), encode_bfloat16(probe)) >= COSINE_MIN
        else FLOAT32
    )


def agreement(reference: Vectors, other: Vectors) -> float:
    """The lowest cosine between rows of the same number; NaN anywhere gives -1."""
    cosines = np.einsum("ij,ij->i", reference, other, dtype=np.float64)
    return float(np.nan_to_num(cosines, nan=-1.0).min(initial=1.0))


def device_has_bf16(device: str) -> bool:
    """Whether `device` ("cpu", "cuda", "cuda:0") multiplies bfloat16 natively."""
    return _cuda_has_bf16() if device.startswith("cuda") else cpu_has_bf16()


def cpu_has_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this CPU multiplies bfloat16 natively; False where the kernel does not say."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return not _CPU_FLAGS.isdisjoint(flags.split())


def _cuda_has_bf16() -> bool:
    import torch

    return bool(
        torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    )
