"""Index plan: the FAISS factory, nprobe and shards for a number of rows, which an operator may
override."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from simsearch.errors import BadConfig

FLAT: Final = "Flat"

FLAT_ROWS_MAX: Final = 50_000
"""Up to here every row is compared: nothing to train and no recall to tune, for 8 ms a single query
and .6 ms in a batch of 64 (one core, 384 numbers a row; not in benchmarks/README.md): about the
cost of encoding it."""

SHARD_ROWS_MAX: Final = 20_000_000
"""Chosen, not measured: the largest build that was run has 10M rows (benchmarks/README.md,
index_memory)."""

LISTS: Final = (
    (200_000, 1024),
    (1_000_000, 2048),
    (2_000_000, 4096),
    (20_000_000, 16_384),
)
"""(rows at most, lists): 2 to 4 times the square root of the rows. More rows than that are
sharded. benchmarks/README.md measures 1,024 lists (index_build), 2,048 (index_search) and
16,384 (index_memory); 4,096 is interpolated."""

PLAIN_LISTS_MAX: Final = 4096
"""Beyond, comparing a query with all centres costs more than reading the lists: an HNSW graph over
the centres is searched instead. Chosen, not measured."""

NPROBE: Final = 16
"""Its recall is in benchmarks/README.md, index_search."""

NPROBE_OF_GRAPH: Final = 32
"""Chosen, not measured; a build raises either where recall asks for it."""

TRAIN_ROWS_PER_LIST: Final = 40
"""FAISS warns below 39 and ignores what is above 256; 64 gave no better recall than 40
(benchmarks/README.md, index_build)."""

NUMBERS_PER_CODE: Final = 4
"""Four numbers of a vector become 4 bits: 48 bytes for 384 numbers. Fewer bytes let too many benign
queries through (benchmarks/README.md, index_memory). x4fsr codes the residual of a row, the row
less the centre of its list, and is scanned as fast as x4fs, which codes the row itself."""

GPU_CODES: Final = (1, 2, 3, 4, 8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 96)
"""Codes of 8 bits a row that FAISS's own GPU kernels take."""

GPU_CODES_USUAL: Final = 64
"""96 would need all of the 48 KiB of shared memory that a GPU has for a list. Chosen."""

GPU_FLAT_ROWS_MAX: Final = 200_000
"""Chosen. Unverified on a GPU."""

GPU_LISTS: Final = ((2_000_000, 4096), (20_000_000, 16_384))
GPU_LISTS_BEYOND: Final = 65_536
"""A GPU compares a query with all centres at once, so there is no graph over them. Chosen."""

GPU_NPROBE: Final = 64
"""Lists are cheap to read on a GPU. Unverified on a GPU."""

GPU_SHARD_BYTES: Final = 16 << 30
"""Bytes of codes and ids of a shard: two generations of two spaces fit 80 GB. 100M rows are one
shard."""

GPU_ID_BYTES: Final = 8

_CODECS: Final = r"PQ(?P<m>\d+)(x4fsr?)?|SQ8|SQfp16|Flat"
_FACTORY: Final = re.compile(rf"IVF(?P<nlist>\d+)(?P<graph>_HNSW\d+)?,({_CODECS})")


@dataclass(frozen=True)
class Plan:
    """`factory`: FLAT (every row is compared) or a FAISS factory string of `nlist` lists, of which
    a search reads `nprobe`; `train_rows` is how many rows, drawn at random, to train on. The rows
    are split into `shards` parts of nearly equal size, each with an index of its own."""

    factory: str
    nlist: int
    nprobe: int
    shards: int
    train_rows: int

    @property
    def is_flat(self) -> bool:
        """Whether every row is compared."""
        return self.factory == FLAT


def plan(count: int, dim: int, *, override: str | None = None, gpu: bool = False) -> Plan:
    """The plan for `count` rows of `dim` numbers. `gpu`: a plan that a GPU can search; a CPU can,
    too, though not as fast as by its own.

    `override`: Flat, or `IVF<lists>[_HNSW<links>],<codec>` with a codec PQ<m>x4fsr, PQ<m>x4fs,
    PQ<m>, SQ8, SQfp16 or Flat. Raises BadConfig where it is none of these, m does not divide
    `dim`, or there are too few rows to train it.
    """
    flat_rows_max = GPU_FLAT_ROWS_MAX if gpu else FLAT_ROWS_MAX
    if override == FLAT or (override is None and count <= flat_rows_max):
        return Plan(FLAT, nlist=0, nprobe=0, shards=1, train_rows=0)
    shards = -(-count // (_gpu_shard_rows(dim) if gpu else SHARD_ROWS_MAX))
    rows = count // max(1, shards)
    default = _gpu_default if gpu else _default
    factory = default(rows, dim) if override is None else override
    nlist, has_graph = _checked(factory, rows, dim)
    nprobe = GPU_NPROBE if gpu else NPROBE_OF_GRAPH if has_graph else NPROBE
    nprobe = min(nlist, nprobe)
    return Plan(factory, nlist, nprobe, shards, min(rows, TRAIN_ROWS_PER_LIST * nlist))


def _default(rows: int, dim: int) -> str:
    nlist = next(nlist for rows_max, nlist in LISTS if rows <= rows_max)
    graph = "_HNSW32" if nlist > PLAIN_LISTS_MAX else ""
    return f"IVF{nlist}{graph},PQ{_codes(dim)}x4fsr"


def _gpu_default(rows: int, dim: int) -> str:
    nlist = next((nlist for rows_max, nlist in GPU_LISTS if rows <= rows_max), GPU_LISTS_BEYOND)
    return f"IVF{nlist},PQ{_gpu_codes(dim)}"


def _gpu_codes(dim: int) -> int:
    """The most codes that a GPU supports, divide `dim` and are at most GPU_CODES_USUAL."""
    return max(m for m in GPU_CODES if m <= GPU_CODES_USUAL and dim % m == 0)


def _gpu_shard_rows(dim: int) -> int:
    return GPU_SHARD_BYTES // (_gpu_codes(dim) + GPU_ID_BYTES)


def _codes(dim: int) -> int:
    """dim/4 codes, or the next lower number that divides `dim`."""
    return next(m for m in range(max(1, dim // NUMBERS_PER_CODE), 0, -1) if dim % m == 0)


def _checked(factory: str, rows: int, dim: int) -> tuple[int, bool]:
    """Its lists, and whether there is a graph over them."""
    parsed = _FACTORY.fullmatch(factory)
    if parsed is None:
        raise BadConfig(
            f"index {factory!r} is not known: write Flat, or IVF<lists>[_HNSW<links>],<codec> with "
            "a codec PQ<m>x4fsr, PQ<m>x4fs, PQ<m>, SQ8, SQfp16 or Flat, as in IVF2048,PQ96x4fsr"
        )
    nlist, m = int(parsed["nlist"]), int(parsed["m"] or 1)
    if m == 0 or dim % m:
        raise BadConfig(
            f"index {factory!r} cuts vectors into {m} pieces, which does not divide their {dim} "
            f"numbers: write PQ{_codes(dim)}x4fsr"
        )
    if not 0 < nlist <= rows:
        raise BadConfig(
            f"index {factory!r} has {nlist} lists, which {rows} rows cannot train: choose "
            f"1 to {rows} lists, better {max(1, rows // 39)} or fewer, or Flat"
        )
    return nlist, parsed["graph"] is not None
