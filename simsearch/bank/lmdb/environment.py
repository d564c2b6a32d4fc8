"""LMDB environment: transactions that grow the memory map when it is full, and adopt its growth by
another process."""

from __future__ import annotations

import mmap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import lmdb

from simsearch.bank.lmdb import opening
from simsearch.bank.lmdb.lmdb_errors import named_errors
from simsearch.bank.lmdb.locks import MapResizeLock, WriterLock
from simsearch.bank.lmdb.tables import Handles, Tables
from simsearch.bank.records.keys import DATA_FILE
from simsearch.errors import BadConfig, BankFull, NotReady, Overloaded

DRAIN_WAIT_S = 30.0
WRITE_WAIT_S = 30.0
READ_ATTEMPTS_MAX = 8

T = TypeVar("T")


class Environment:
    """Runs `work(tables)` inside one transaction.

    A read transaction lasts as long as its `work`, and `work` never starts another. LMDB allows the
    map to be resized only while no transaction is open.
    """

    def __init__(
        self,
        path: Path,
        lmdb_environment: lmdb.Environment,
        handles: Handles,
        lock: WriterLock | None,
        map_bytes_max: int,
    ) -> None:
        self.path = path
        self._lmdb = lmdb_environment
        self._handles = handles
        self._lock = lock
        self._map_bytes_max = map_bytes_max
        self._closed = False
        self._write_turn = threading.Lock()
        self._resize_lock = MapResizeLock()

    @classmethod
    def open(cls, path: Path, *, writer: bool, map_bytes: int, map_bytes_max: int) -> Environment:
        """As `BankStore.open`."""
        with named_errors(path):
            if writer and not (path / DATA_FILE).exists():
                opening.create(path)
            lock = WriterLock.acquire(path) if writer else None
            try:
                opened, handles = opening.open_files(path, writer=writer, map_bytes=map_bytes)
            except BaseException:
                if lock is not None:
                    lock.release()
                raise
        return cls(path, opened, handles, lock, map_bytes_max)

    def close(self) -> None:
        """Waits for running transactions, up to DRAIN_WAIT_S. May be called twice."""
        with self._write_turn:
            if self._closed:
                return
            with self._resize_lock.exclusive(DRAIN_WAIT_S):
                self._closed = True
                self._lmdb.close()
            if self._lock is not None:
                self._lock.release()

    def read(self, work: Callable[[Tables], T]) -> T:
        """Runs `work` in a read transaction. Raises Overloaded while the map keeps growing,
        NotReady once closed, and Corrupt."""
        with named_errors(self.path):
            for _ in range(READ_ATTEMPTS_MAX):
                try:
                    return self._read_once(work)
                except lmdb.MapResizedError:
                    self._remap(0)  # the writing process has grown the map: adopt its size
                except lmdb.ReadersFullError:
                    if self.clear_stale_readers() == 0:
                        raise
        raise Overloaded(f"the bank store {self.path} is busy growing: try again")

    def write(self, work: Callable[[Tables], T], then: Callable[[T], None]) -> T:
        """Runs `work`, again each time that the map had to grow; durable when it returns.

        `then(result)` is called after the commit and before the next write begins. Raises
        BadConfig for a reader, Overloaded after WRITE_WAIT_S in the queue, and BankFull.
        """
        if self._lock is None:
            raise BadConfig(
                f"the bank store {self.path} was opened to read: ask the server to edit"
            )
        if not self._write_turn.acquire(timeout=WRITE_WAIT_S):
            raise Overloaded(f"edits of {self.path} have queued for {WRITE_WAIT_S:g} s: try again")
        try:
            with named_errors(self.path):
                result = self._write_growing(work)
            then(result)
            return result
        finally:
            self._write_turn.release()

    def clear_stale_readers(self) -> int:
        """Frees the reader slots of killed processes; returns how many there were."""
        with named_errors(self.path), self._resize_lock:
            self._check_open()
            return self._lmdb.reader_check()

    # ------------------------------------------------------------ one attempt

    def _read_once(self, work: Callable[[Tables], T]) -> T:
        with self._resize_lock:
            self._check_open()
            with self._lmdb.begin() as transaction:
                return work(Tables(transaction, self._handles))

    def _write_growing(self, work: Callable[[Tables], T]) -> T:
        while True:
            try:
                return self._write_once(work)
            except lmdb.MapFullError:
                self._grow()

    def _write_once(self, work: Callable[[Tables], T]) -> T:
        self._check_open()
        with self._lmdb.begin(write=True) as transaction:
            return work(Tables(transaction, self._handles))

    def _check_open(self) -> None:
        if self._closed:
            raise NotReady(f"the bank store {self.path} is closed: open it again")

    # ------------------------------------------------------------ the map

    def _grow(self) -> None:
        """Doubles the map. Called between two attempts, while no write transaction is open."""
        self._lmdb.reader_check()  # dead readers pin pages that could be reused
        size = self._lmdb.info()["map_size"]
        larger = opening.whole_pages(min(2 * size, self._map_bytes_max))
        if larger <= size:
            raise BankFull(
                f"the bank store {self.path} has reached its bound of {self._map_bytes_max} bytes: "
                "raise bank_bytes_max; nothing was written"
            )
        self._check_address_space(larger - size)
        self._remap(larger)

    def _check_address_space(self, more_bytes: int) -> None:
        """LMDB unmaps before it maps: if the larger map were refused, the store would be lost to
        this process."""
        try:
            mmap.mmap(-1, more_bytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, 0).close()
        except OSError as error:
            raise BankFull(
                f"no address space for {more_bytes} more bytes of the bank store {self.path} "
                f"({error.strerror}): raise the process's limit; nothing was written"
            ) from error

    def _remap(self, size_bytes: int) -> None:
        with self._resize_lock.exclusive(DRAIN_WAIT_S):
            self._check_open()
            self._lmdb.set_mapsize(size_bytes)
