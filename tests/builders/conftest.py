"""Small indexes are made on one thread: on a busy machine several wait for each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import faiss
import pytest

_faiss: Any = faiss


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> Iterator[None]:
    before = _faiss.omp_get_max_threads()
    _faiss.omp_set_num_threads(1)
    yield
    _faiss.omp_set_num_threads(before)
