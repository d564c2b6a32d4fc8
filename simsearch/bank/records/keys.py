"""Schema: names, keys and byte layouts of the LMDB tables."""

from __future__ import annotations

import hashlib
import struct
import zlib
from typing import NamedTuple

from simsearch.errors import Corrupt
from simsearch.types import Signal

FORMAT = 3
"""The format that this release writes. The first edit upgrades an older store; a newer one is
refused. 1: one record a fingerprint; 2: extensions beside it; 3: links in the log
(hash_chain.py)."""

DATA_FILE = "data.mdb"
LOCK_FILE = "lock.mdb"
WRITER_LOCK_FILE = "writer.lock"

# Keys are big-endian, so that LMDB's byte order is the order of the numbers.
META = b"meta"  # name -> value: format, store_id, next_entry_key, next_bank_id
BANKS = b"banks"  # bank id u32 -> BankRecord
BANK_NAMES = b"bank_names"  # name -> bank id u32
ENTRIES = b"entries"  # entry key u64 -> EntryRecord
# Entry key u64 -> FingerprintRecord; then, one for each time that the entry was extended:
# entry key u64, seq u64 -> FingerprintRecord.
FINGERPRINTS = b"fingerprints"
LIFETIMES = b"lives"  # entry key u64 -> Lifetime: loading a view parses no EntryRecord
BY_BANK = b"by_bank"  # bank id u32, entry key u64 -> Lifetime
BY_DIGEST = b"by_digest"  # kind u8, digest, entry key u64 -> Lifetime: see `marks_of`
CHANGES = b"changes"  # seq u64 -> ChangeRecord
DUE = b"due"  # time in microseconds u64, entry key u64 -> nothing: scheduled changes of entries
IMPORTS = b"imports"  # 16 bytes of SHA-256 of the import's id, part u32 -> ImportPartRecord
OPINIONS = b"opinions"  # entry key u64, seq u64 -> OpinionRecord
HITS = b"hits"  # entry key u64 -> HitsRecord: counted beside the log
# Seq u64 of the move, entry key u64 -> nothing: entries that wait for a person's decision.
REVIEW = b"review"
# Proposal id u64 -> ProposalRecord; then, part by part: id u64, part u32 -> ProposedRowsRecord.
PROPOSALS = b"proposals"
OPEN_PROPOSALS = b"open_proposals"  # SHA-256 of edit, bank and actor -> proposal id u64
DAILY = b"daily"  # day u32 since 1970, 16 bytes of SHA-256 of a name -> changes of that day u64

FIRST_TABLES = (
    META, BANKS, BANK_NAMES, ENTRIES, FINGERPRINTS, LIFETIMES, BY_BANK, BY_DIGEST, CHANGES,
)  # fmt: skip
"""The tables of every store. Missing others are created when it is opened for writing."""

TABLES = (
    *FIRST_TABLES, DUE, IMPORTS, OPINIONS, HITS, REVIEW, PROPOSALS, OPEN_PROPOSALS, DAILY,
)  # fmt: skip

META_FORMAT = b"format"
META_STORE_ID = b"store_id"
META_NEXT_ENTRY_KEY = b"next_entry_key"
META_NEXT_BANK_ID = b"next_bank_id"
META_NEXT_PROPOSAL_ID = b"next_proposal_id"  # absent before the first

DIGEST_KINDS = {
    Signal.SHA256: b"\x01",
    Signal.MD5: b"\x02",
    Signal.TEXT_SHA256: b"\x03",
    Signal.TEXT_LIGHT_SHA256: b"\x04",
    Signal.TEXT_STRONG_SHA256: b"\x05",
}
"""Parts of keys on disk: never to be changed."""

_WHOLE = b"\x06"
_SOURCE = b"\x07"

NEVER = 2**64 - 1

_U32 = struct.Struct(">I")
_U64 = struct.Struct(">Q")
_LIFETIME = struct.Struct(">IQQ")


class Lifetime(NamedTuple):
    """The log positions at which an entry counts: from `born` to before `retired`."""

    bank_id: int
    born: int
    retired: int = NEVER

    def alive_at(self, through: int) -> bool:
        """Whether the entry counts at log position `through`."""
        return self.born <= through < self.retired


def pack_u32(number: int) -> bytes:
    """Big-endian."""
    return _U32.pack(number)


def pack_u64(number: int) -> bytes:
    """Big-endian."""
    return _U64.pack(number)


def unpack_u32(data: bytes, what: str) -> int:
    """Raises Corrupt, naming `what`."""
    return int(_unpack(_U32, data, what)[0])


def unpack_u64(data: bytes, what: str) -> int:
    """Raises Corrupt, naming `what`."""
    return int(_unpack(_U64, data, what)[0])


def pack_lifetime(lifetime: Lifetime) -> bytes:
    """20 bytes: bank id u32, born u64, retired u64."""
    return _LIFETIME.pack(*lifetime)


def unpack_lifetime(data: bytes, what: str) -> Lifetime:
    """Raises Corrupt, naming `what`."""
    return Lifetime(*_unpack(_LIFETIME, data, what))


def bank_entry_key(bank_id: int, key: int) -> bytes:
    """Key of BY_BANK."""
    return _U32.pack(bank_id) + _U64.pack(key)


def due_key(time_us: int, key: int) -> bytes:
    """Key of DUE."""
    return _U64.pack(time_us) + _U64.pack(key)


def extension_key(key: int, seq: int) -> bytes:
    """Key of FINGERPRINTS for an extension."""
    return _U64.pack(key) + _U64.pack(seq)


def opinion_key(key: int, seq: int) -> bytes:
    """Key of OPINIONS."""
    return _U64.pack(key) + _U64.pack(seq)


def review_key(seq: int, key: int) -> bytes:
    """Key of REVIEW."""
    return _U64.pack(seq) + _U64.pack(key)


def digest_prefix(signal: Signal, digest: bytes) -> bytes:
    """The mark of a digest: one byte for its kind, then the digest."""
    return DIGEST_KINDS[signal] + digest


def first_u64(packed: bytes) -> int:
    """The time at the front of a due key, or the entry key of an opinion's."""
    return int(_U64.unpack_from(packed)[0])


def whole_mark(fingerprint: bytes) -> bytes:
    """The mark of a whole fingerprint record."""
    return _WHOLE + hashlib.sha256(fingerprint).digest()


def source_mark(source: str, source_id: str) -> bytes:
    """The mark of an id that a source gives to an item."""
    return _SOURCE + hashlib.sha256(f"{source}\0{source_id}".encode()).digest()


def import_key(import_id: str, part: int) -> bytes:
    """Key of IMPORTS."""
    return hashlib.sha256(import_id.encode()).digest()[:16] + _U32.pack(part)


def proposed_rows_key(proposal: int, part: int) -> bytes:
    """Key of PROPOSALS for one part of a proposal."""
    return _U64.pack(proposal) + _U32.pack(part)


def daily_key(day: int, actor: str) -> bytes:
    """Key of DAILY."""
    return _U32.pack(day) + hashlib.sha256(actor.encode()).digest()[:16]


def last_u64(packed: bytes) -> int:
    """The entry key, or the seq of an extension, at the end of a longer key."""
    return int(_U64.unpack_from(packed, len(packed) - _U64.size)[0])


def seal(key: bytes, body: bytes) -> bytes:
    """`body` after a CRC-32 of key and body: LMDB has no checksums, and protobuf would still parse
    half of all single-bit errors."""
    return _U32.pack(zlib.crc32(body, zlib.crc32(key))) + body


def unseal(key: bytes, sealed: bytes, what: str) -> bytes:
    """Raises Corrupt where `seal(key, ...)` did not write this."""
    body = sealed[_U32.size :]
    if sealed[: _U32.size] != _U32.pack(zlib.crc32(body, zlib.crc32(key))):
        raise corrupt(what, "fails its checksum")
    return body


def corrupt(what: str, how: str) -> Corrupt:
    """The Corrupt error for a record of the store, with what to do."""
    return Corrupt(f"{what} in the bank store {how}: restore the data directory from a backup")


def _unpack(layout: struct.Struct, data: bytes, what: str) -> tuple[int, ...]:
    if len(data) != layout.size:
        raise corrupt(what, f"has {len(data)} bytes instead of {layout.size}")
    return layout.unpack(data)
