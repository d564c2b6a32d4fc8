"""Records of rows of 1,024 bits: a round trip, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from simsearch.bank.records.fingerprints import fingerprint_from_bytes, fingerprint_to_bytes
from simsearch.errors import Corrupt
from simsearch.storage.v1 import records_pb2 as pb
from simsearch.types import BINARY_BYTES, Fingerprint, Signal


def test_rows_of_every_width_come_back() -> None:
    random = np.random.default_rng(0)
    bits = {s: random.integers(0, 256, (3, w), np.uint8) for s, w in BINARY_BYTES.items()}
    read = fingerprint_from_bytes(1, fingerprint_to_bytes(Fingerprint(bits=bits)))
    assert {s: rows.shape for s, rows in read.bits.items()} == {
        Signal.PDQ: (3, 32),
        Signal.MINHASH: (3, 32),
        Signal.MINHASH1024: (3, 128),
    }
    assert all((read.bits[signal] == rows).all() for signal, rows in bits.items())


def test_rows_of_another_width_are_corrupt() -> None:
    """96 bytes are three rows of PDQ and none of 1,024 bits."""
    record = pb.FingerprintRecord(bits=[pb.BitsRecord(signal="minhash1024", rows=bytes(96))])
    with pytest.raises(Corrupt, match="96 bytes of minhash1024"):
        fingerprint_from_bytes(1, record.SerializeToString())
