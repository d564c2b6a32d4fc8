"""Store files: creating and opening them, with all checks that precede the first read."""

from __future__ import annotations

import mmap
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import lmdb
from lmdb import verify

from simsearch.bank.lmdb.tables import Handles, Tables
from simsearch.bank.records import keys
from simsearch.bank.records.keys import DATA_FILE, LOCK_FILE
from simsearch.errors import BadConfig, Corrupt

READERS_MAX = 512
LOCK_HEADER_BYTES = 192  # LMDB's own and the first reader's slot
LOCK_READER_BYTES = 64
CREATION_MAP_BYTES = 1 << 20

_LMDB_0_9 = 0


def create(path: Path) -> None:
    """Creates an empty store at `path` atomically, even across a power cut, which LMDB alone does
    not guarantee for its first pages. Raises BadConfig, Corrupt."""
    _check_free(path)
    _make_directories(path.parent)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.creating-", dir=path.parent))
    try:
        _fill(temporary)
        for name in (DATA_FILE, LOCK_FILE, "."):
            _sync(temporary / name)
        _rename(temporary, path)
        _sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def open_files(path: Path, *, writer: bool, map_bytes: int) -> tuple[lmdb.Environment, Handles]:
    """Opens the files. Raises Corrupt, NewerFormat or BadConfig before it writes to them."""
    _check_data_file(path)
    _reserve_lock_file(path)
    # A reader adopts the map size that the writer stored. Default sync mode, no writemap: other
    # modes lose acknowledged edits in a power cut, or die of SIGBUS on a full disk.
    environment = lmdb.open(
        os.fspath(path),
        map_size=whole_pages(map_bytes) if writer else 0,
        readonly=not writer,
        create=False,
        mode=0o700,
        max_readers=READERS_MAX,
        max_dbs=len(keys.TABLES),
    )
    try:
        environment.reader_check()
        _check_length(path, environment)
        return environment, _open_tables(environment, writer)
    except BaseException:
        environment.close()
        raise


def whole_pages(size_bytes: int) -> int:
    """`size_bytes` rounded up to whole memory pages, at least one."""
    return max(1, -(-size_bytes // mmap.PAGESIZE)) * mmap.PAGESIZE


# ---------------------------------------------------------------- creating


def _check_free(path: Path) -> None:
    if path.is_dir() and not any(path.iterdir()):
        return
    if (path / LOCK_FILE).exists():
        raise Corrupt(f"{path} has lost its {DATA_FILE}: restore it from a backup")
    if path.exists():
        raise BadConfig(f"{path} is there and holds no bank store: choose another path")


def _make_directories(path: Path) -> None:
    if not path.exists():
        _make_directories(path.parent)
        path.mkdir(exist_ok=True)
        _sync(path.parent)


def _fill(directory: Path) -> None:
    _reserve_lock_file(directory)
    with lmdb.open(
        os.fspath(directory),
        map_size=CREATION_MAP_BYTES,
        mode=0o700,
        max_readers=READERS_MAX,
        max_dbs=len(keys.TABLES),
        lib_version=_LMDB_0_9,  # not left to an environment variable of py-lmdb's
    ) as environment:
        with environment.begin(write=True) as transaction:
            handles = {name: environment.open_db(name, transaction) for name in keys.TABLES}
            Tables(transaction, handles).initialise()
        environment.sync(True)


def _rename(temporary: Path, path: Path) -> None:
    try:
        temporary.rename(path)
    except OSError as error:
        if (path / DATA_FILE).exists():
            return  # another process was faster: both wanted the same
        raise BadConfig(
            f"cannot create a bank store at {path} ({error.strerror}): a mount point cannot be "
            "replaced, choose a directory below it"
        ) from error


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reserve_lock_file(directory: Path) -> None:
    """Allocates the lock file before LMDB maps it. LMDB leaves it sparse, and on a full disk the
    first access to an unallocated page kills the process (SIGBUS)."""
    path = directory / LOCK_FILE
    needed = LOCK_HEADER_BYTES + LOCK_READER_BYTES * (READERS_MAX - 1)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        there = os.fstat(descriptor)
        if there.st_size < needed or there.st_blocks * 512 < there.st_size:
            os.posix_fallocate(descriptor, 0, max(needed, there.st_size))
    finally:
        os.close(descriptor)


# ---------------------------------------------------------------- opening


def _check_data_file(path: Path) -> None:
    data = path / DATA_FILE
    if not data.is_file():
        raise BadConfig(
            f"there is no bank store at {path}: start the server with this data directory once, "
            "or give the right path"
        )
    # LMDB would take an empty file for a new environment.
    if data.stat().st_size < 2 * mmap.PAGESIZE:
        raise Corrupt(f"{data} has {data.stat().st_size} bytes: restore it from a backup")


def _check_length(path: Path, environment: lmdb.Environment) -> None:
    """Reading past the end of a truncated file would kill the process (SIGBUS).

    LMDB may leave the last pages unwritten where they were freed in the same transaction, so the
    pages of a short file are walked, without LMDB, to see whether any is missing.
    """
    data = path / DATA_FILE
    pages = environment.info()["last_pgno"] + 1
    if data.stat().st_size >= pages * environment.stat()["psize"]:
        return
    walk: Callable[[str], list[str]] = verify.verify
    if walk(os.fspath(path)):
        raise Corrupt(
            f"{data} is truncated: it has {data.stat().st_size} bytes of {pages} pages; restore "
            "it from a backup"
        )


def _open_tables(environment: lmdb.Environment, writer: bool) -> Handles:
    """Opens `meta` first: the other tables depend on the format."""
    _check_format(environment, {keys.META: environment.open_db(keys.META, create=False)})
    # Each in a transaction of py-lmdb's own: it drops handles that a read transaction opened.
    handles = {name: environment.open_db(name, create=False) for name in keys.FIRST_TABLES}
    for name in keys.TABLES[len(keys.FIRST_TABLES) :]:
        with suppress(lmdb.NotFoundError, lmdb.ReadonlyError):
            handles[name] = environment.open_db(name, create=writer)
    return handles


def _check_format(environment: lmdb.Environment, handles: Handles) -> None:
    with environment.begin() as transaction:
        Tables(transaction, handles).check_format()
