"""Reading and writing of .npy files: written in parts, memory-mapped when read, never pickled."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from simsearch.errors import InternalFault

T = TypeVar("T", bound=np.generic)


def write_npy(
    path: Path, dtype: type[np.generic], shape: tuple[int, ...], chunks: Iterable[NDArray[Any]]
) -> None:
    """Write `chunks`, one after the other. Raises InternalFault where they do not make up `shape`.

    The bytes go through `write`: `ndarray.tofile` loses the errno of a full disk, and a mapped
    file dies of it (SIGBUS).
    """
    rows = 0
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file,
            {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape},
        )
        for chunk in chunks:
            if chunk.dtype != dtype or chunk.shape[1:] != shape[1:]:
                raise InternalFault(
                    f"{path.name} was given rows of {chunk.dtype} {chunk.shape}, "
                    f"not {np.dtype(dtype)} {shape}"
                )
            file.write(chunk.tobytes())
            rows += len(chunk)
    if rows != shape[0]:
        raise InternalFault(f"{path.name} was given {rows} rows, not {shape[0]}")


def map_npy(path: Path, dtype: type[T], shape: tuple[int, ...]) -> NDArray[T]:
    """The array, memory-mapped read-only. Raises ValueError where dtype or shape differ."""
    # np.load does this too, but would also open zip files and pickles.
    array = np.lib.format.open_memmap(path, mode="r")
    if array.dtype != dtype or array.shape != shape or not array.flags.c_contiguous:
        raise ValueError(
            f"{path.name} holds {array.dtype} {array.shape} instead of {np.dtype(dtype)} {shape}"
        )
    return array


def load_npy(path: Path, dtype: type[T], shape: tuple[int, ...]) -> NDArray[T]:
    """The array, read into memory and read-only. Raises ValueError as map_npy."""
    array = np.array(map_npy(path, dtype, shape))
    array.flags.writeable = False
    return array
