"""Error mapping: errors of LMDB and the disk as errors of `simsearch.errors`."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lmdb

from simsearch.bank.records.keys import DATA_FILE
from simsearch.errors import (
    BadConfig,
    BankFull,
    Corrupt,
    InternalFault,
    NewerFormat,
    NotReady,
    Overloaded,
    SimsearchError,
)

PROBE_BYTES = 1 << 20

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

_BROKEN = (
    lmdb.BadValsizeError,
    lmdb.CorruptedError,
    lmdb.IncompatibleError,
    lmdb.InvalidError,
    lmdb.NotFoundError,
    lmdb.PageNotFoundError,
)


@contextmanager
def named_errors(path: Path) -> Iterator[None]:
    """Translates the errors of lmdb that the environment does not handle itself, such as
    MapFullError, and those of a full disk."""
    try:
        yield
    except lmdb.Error as error:
        raise _named(error, path) from error
    except OSError as error:
        if error.errno not in _NO_SPACE:
            raise
        raise _disk_full(path) from error


def _named(error: lmdb.Error, path: Path) -> SimsearchError:
    code = getattr(error, "code", 0)
    if isinstance(error, lmdb.DiskError) or code in _NO_SPACE:
        return _disk_full(path)
    if code == errno.EIO and not _has_room(path):
        return _disk_full(path)
    if isinstance(error, _BROKEN):
        return Corrupt(f"the bank store {path} is damaged ({error}): restore it from a backup")
    if isinstance(error, lmdb.VersionMismatchError):
        return NewerFormat(
            f"the bank store {path} was written by another LMDB ({error}): run the release of "
            "simsearch that wrote it, or a later one"
        )
    if isinstance(error, lmdb.ReadersFullError):
        return Overloaded(f"every reader slot of the bank store {path} is taken: try again")
    if "already open" in str(error):
        return BadConfig(f"this process has the bank store {path} open: share that BankStore")
    if "closed" in str(error):
        return NotReady(f"the bank store {path} is closed: open it again")
    return InternalFault(f"LMDB failed at the bank store {path} ({error}): restart the process")


def _has_room(path: Path) -> bool:
    """Whether the disk has space left. LMDB reports EIO when the disk fills up in the middle of a
    write. Probes at the length of the data file, since a limit may be on file size."""
    try:
        with tempfile.TemporaryFile(dir=path) as probe:
            length = (path / DATA_FILE).stat().st_size
            os.posix_fallocate(probe.fileno(), length, PROBE_BYTES)
    except OSError as error:
        return error.errno not in _NO_SPACE
    return True


def _disk_full(path: Path) -> BankFull:
    return BankFull(f"no disk space for the bank store {path}: free some; nothing was written")
