"""Records of fingerprints, in protobuf: vectors as float16 rows, validated when read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from simsearch.bank.records.entries import read_record, require
from simsearch.storage.v1 import records_pb2 as pb
from simsearch.types import BINARY_BYTES, DIGESTS, Fingerprint, Signal, Vectors

NORM_TOLERANCE = 2e-3
"""A unit float32 row off by at most 1e-3 when written, then rounded to float16 (≤ 2^-11)."""

DIM_MAX = 8192

CONTENT_ID_BYTES: Final = 16

_ROW = np.dtype("<f2")


def fingerprint_to_bytes(fingerprint: Fingerprint) -> bytes:
    """Vectors as rows of little-endian float16; signals without rows are left out."""
    record = pb.FingerprintRecord(
        digests=[
            pb.DigestRecord(signal=signal, value=value)
            for signal, values in fingerprint.digests.items()
            for value in values
        ],
        bits=[
            pb.BitsRecord(signal=signal, rows=rows.tobytes())
            for signal, rows in fingerprint.bits.items()
            if len(rows)
        ],
        vectors=[
            pb.VectorsRecord(space=space, dim=rows.shape[1], rows=rows.astype(_ROW).tobytes())
            for space, rows in fingerprint.vectors.items()
            if len(rows)
        ],
    )
    return record.SerializeToString()


def fingerprint_from_bytes(key: int, data: bytes) -> Fingerprint:
    """Arrays are read-only. Raises Corrupt where `data` is no fingerprint of entry `key`:
    wrong widths, no rows, rows that are not of unit length."""
    return read_record(
        f"fingerprint {key}", lambda: _fingerprint(pb.FingerprintRecord.FromString(data))
    )


def content_id(key: int, data: bytes) -> bytes:
    """CONTENT_ID_BYTES that are equal for records of equal digests and bits; for records without
    either, of equal vectors. Vectors do not count otherwise, since encoders are not exactly
    reproducible. Raises Corrupt where `data` is no record of entry `key`."""

    def read() -> bytes:
        record = pb.FingerprintRecord.FromString(data)
        hashes = [(d.signal, d.value) for d in record.digests]
        hashes += [(bits.signal, bits.rows) for bits in record.bits]
        return _name_of(hashes or [(v.space, v.rows) for v in record.vectors])

    return read_record(f"fingerprint {key}", read)


def _name_of(signals: Iterable[tuple[str, bytes]]) -> bytes:
    """A hash that does not depend on their order."""
    each = sorted(hashlib.sha256(name.encode() + b"\0" + rows).digest() for name, rows in signals)
    return hashlib.sha256(b"".join(each)).digest()[:CONTENT_ID_BYTES]


def _fingerprint(record: pb.FingerprintRecord) -> Fingerprint:
    require(bool(record.digests or record.bits or record.vectors), "holds no signal")
    digests: dict[Signal, tuple[bytes, ...]] = {}
    for digest in record.digests:
        signal = Signal(digest.signal)
        require(len(digest.value) == DIGESTS.get(signal), f"has a {signal} of a wrong length")
        digests[signal] = (*digests.get(signal, ()), digest.value)
    bits = {Signal(b.signal): _bits(Signal(b.signal), b.rows) for b in record.bits}
    vectors = {v.space: _vectors(v.dim, v.rows) for v in record.vectors}
    unique = len(bits) == len(record.bits) and len(vectors) == len(record.vectors)
    require(unique, "names a signal twice")
    return Fingerprint(digests=digests, bits=bits, vectors=vectors)


def _bits(signal: Signal, rows: bytes) -> NDArray[np.uint8]:
    require(signal in BINARY_BYTES, f"has bits of {signal}")
    width = BINARY_BYTES[signal]
    require(len(rows) > 0 and len(rows) % width == 0, f"has {len(rows)} bytes of {signal}")
    return np.frombuffer(rows, np.uint8).reshape(-1, width)


def _vectors(dim: int, rows: bytes) -> Vectors:
    require(0 < dim <= DIM_MAX, f"has a dim of {dim}")
    width = dim * _ROW.itemsize
    require(len(rows) > 0 and len(rows) % width == 0, f"has {len(rows)} bytes of dim {dim}")
    vectors = np.frombuffer(rows, _ROW).reshape(-1, dim).astype(np.float32)
    require(are_unit(vectors, NORM_TOLERANCE), "has a vector that is not of unit length")
    vectors.flags.writeable = False
    return vectors


def are_unit(vectors: Vectors, tolerance: float) -> bool:
    """Whether every row's length is 1 within `tolerance`; NaN and infinity are not."""
    squares = np.einsum("ij,ij->i", vectors, vectors)
    return bool((np.abs(squares - 1) <= 2 * tolerance).all())
