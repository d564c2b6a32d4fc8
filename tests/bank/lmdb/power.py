"""A disk after a power cut, from the system calls of a process that wrote to it.

What was synced is there. Of all else any part may be: each page of a file as it was synced or after
any later write, whole or sector by sector; any of the lengths that the file had; and any of the
names that were made or changed. `strace` writes the calls down, so the processes that are recorded
do their work in one thread. What they write beside the disk are marks: how far they had come.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np

ROOT = Path(__file__).parents[3]

CALLS = (
    "open,openat,creat,mkdir,mkdirat,rename,renameat,renameat2,unlink,unlinkat,rmdir,link,linkat,"
    "truncate,ftruncate,fallocate,lseek,write,writev,pwrite64,pwritev,pwritev2,fsync,fdatasync,"
    "sync_file_range,msync,mmap,copy_file_range,sendfile"
)
FLEETING = ("lock.mdb", "writer.lock")
"""Say who is there now: after a power cut, nobody."""

PAGE_BYTES = 4096
SECTOR_BYTES = 512

_CALL = re.compile(r"(?:\d+ +)?(\w+)\((.*)\) += (-?\d+|0x[0-9a-f]+)\b")
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_NUMBER = re.compile(r"(\d+)(?:, |$)")


@dataclass
class File:
    """`data` as programs read it. `safe` as it was synced last; since then each page that was
    written, after every write, and every length."""

    data: bytearray = field(default_factory=bytearray)
    safe: bytearray = field(default_factory=bytearray)
    pages: dict[int, list[bytes]] = field(default_factory=dict)
    lengths: list[int] = field(default_factory=list)

    def write(self, at: int, data: bytes) -> None:
        self._lengthen(at + len(data))
        self.data[at : at + len(data)] = data
        for page in _pages(at, len(data)):
            start = page * PAGE_BYTES
            self.pages.setdefault(page, []).append(bytes(self.data[start : start + PAGE_BYTES]))

    def truncate(self, length: int) -> None:
        del self.data[length:]
        self._lengthen(length)
        self.lengths.append(length)

    def sync(self) -> None:
        for page, versions in self.pages.items():
            self._keep(self.safe, page, versions[-1])
        _set_length(self.safe, len(self.data))
        self.pages, self.lengths = {}, []

    def sync_part(self, at: int, size: int) -> None:
        """What O_DSYNC promises: this write, and as much length as it needs."""
        _set_length(self.safe, max(len(self.safe), at + size))
        for page in _pages(at, size):
            self._keep(self.safe, page, self.pages.pop(page)[-1])

    def left(self, rng: np.random.Generator) -> bytes:
        """After a power cut."""
        left = bytearray(self.safe)
        likely, torn = rng.choice([0.0, 0.5, 0.9, 1.0]), rng.random() < 0.5
        for page, versions in self.pages.items():
            if rng.random() < likely:
                version = versions[rng.integers(len(versions))] if torn else versions[-1]
                self._keep(left, page, _torn(left, page, version, rng) if torn else version)
        lengths = [len(self.safe), *self.lengths]
        _set_length(left, lengths[-1] if rng.random() < likely else int(rng.choice(lengths)))
        return bytes(left)

    def _lengthen(self, length: int) -> None:
        if length > len(self.data):
            _set_length(self.data, length)
            self.lengths.append(length)

    @staticmethod
    def _keep(to: bytearray, page: int, version: bytes) -> None:
        start = page * PAGE_BYTES
        _set_length(to, max(len(to), start + len(version)))
        to[start : start + len(version)] = version


def _pages(at: int, size: int) -> range:
    return range(at // PAGE_BYTES, -(-(at + size) // PAGE_BYTES))


def _set_length(data: bytearray, length: int) -> None:
    del data[length:]
    data.extend(bytes(length - len(data)))


def _torn(before: bytearray, page: int, after: bytes, rng: np.random.Generator) -> bytes:
    """Some sectors of `after`, the others as they were."""
    mixed = bytearray(before[page * PAGE_BYTES :][: len(after)])
    _set_length(mixed, len(after))
    for start in range(0, len(after), SECTOR_BYTES):
        if rng.random() < 0.5:
            mixed[start : start + SECTOR_BYTES] = after[start : start + SECTOR_BYTES]
    return bytes(mixed)


Node: TypeAlias = "File | Directory"
Change: TypeAlias = "tuple[tuple[str, Node | None], ...]"
"""New names, or None for names that are gone: on the disk all together or not at all."""


@dataclass
class Directory:
    """`names` as programs see them, `safe` as they were synced last, `changes` since then."""

    names: dict[str, Node] = field(default_factory=dict)
    safe: dict[str, Node] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)

    def change(self, *change: tuple[str, Node | None]) -> None:
        _apply(self.names, change)
        self.changes.append(change)

    def sync(self) -> None:
        self.safe, self.changes = dict(self.names), []

    def left(self, rng: np.random.Generator) -> dict[str, Node]:
        names, likely = dict(self.safe), rng.choice([0.0, 0.5, 1.0])
        for change in self.changes:
            if rng.random() < likely:
                _apply(names, change)
        return names


def _apply(names: dict[str, Node], change: Change) -> None:
    for name, node in change:
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node


# ---------------------------------------------------------------- a disk that follows the calls


@dataclass
class Open:
    """A file descriptor."""

    path: str
    node: Node
    synced: bool
    appends: bool
    at: int = 0


@dataclass
class Disk:
    """Directory `path`, empty when the recorded process began."""

    path: str
    root: Directory = field(default_factory=Directory)
    changed: bool = False
    """By the last call, or synced."""
    marks: list[str] = field(default_factory=list)
    _open: dict[int, Open] = field(default_factory=dict)
    _syncing: tuple[File, int, int] | None = None
    """The write that is about to return from an O_DSYNC descriptor."""

    def do(self, line: str, marks: str) -> None:
        """One line of the trace. `marks`: the file that the process writes its marks to."""
        self.changed = False
        if self._syncing:
            file, at, size = self._syncing
            file.sync_part(at, size)
            self._syncing = None
        called = _CALL.match(line)
        if called is None or called[3].startswith("-"):
            assert "unfinished" not in line, "the recorded process has worked in two threads"
            return
        name, said, answer = called[1], called[2], called[3]
        texts = [bytes.fromhex(text.replace("\\x", "")) for text in _TEXT.findall(said)]
        if name in ("open", "openat"):
            self._opened(os.fsdecode(texts[0]), said, int(answer), marks)
        elif name in ("mkdir", "mkdirat"):
            self._at(os.fsdecode(texts[0]), lambda parent, at: parent.change((at, Directory())))
        elif name.startswith("rename"):
            self._renamed(*map(os.fsdecode, texts))
        elif name in ("unlink", "unlinkat", "rmdir"):
            self._at(os.fsdecode(texts[0]), lambda parent, at: parent.change((at, None)))
        elif name == "mmap":
            self._mapped(said)
        elif (number := _NUMBER.match(said)) and int(number[1]) in self._open:
            self._used(name, self._open[int(number[1])], said, texts, int(answer))

    @property
    def dirty(self) -> bool:
        """Whether something that lasts is not synced."""
        return _dirty(self.root)

    def _at(self, path: str, do: Callable[[Directory, str], object]) -> None:
        if path.startswith(self.path + "/"):
            *parents, name = path[len(self.path) + 1 :].split("/")
            directory = self.root
            for parent in parents:
                found = directory.names[parent]
                assert isinstance(found, Directory)
                directory = found
            do(directory, name)
            self.changed = True

    def _opened(self, path: str, flags: str, number: int, marks: str) -> None:
        self._open.pop(number, None)
        node: list[Node] = [File()] if path == marks else []
        if path == self.path:
            node.append(self.root)

        def find(parent: Directory, name: str) -> None:
            if name not in parent.names:
                parent.change((name, File()))
            node.append(parent.names[name])

        self._at(path, find)
        if node:
            assert "O_TRUNC" not in flags
            self._open[number] = Open(path, node[0], "SYNC" in flags, path == marks)

    def _renamed(self, old: str, new: str) -> None:
        assert os.path.dirname(old) == os.path.dirname(new), "the model knows no others"
        name = os.path.basename(new)
        self._at(old, lambda parent, at: parent.change((name, parent.names[at]), (at, None)))

    def _mapped(self, said: str) -> None:
        """What is written through a map cannot be recorded: only the lock file may be so."""
        if "PROT_WRITE" in said and "MAP_SHARED" in said:
            file = self._open.get(int(said.split(", ")[4]))
            assert file is None or file.path.endswith("/lock.mdb"), file

    def _used(self, name: str, file: Open, said: str, texts: Sequence[bytes], answer: int) -> None:
        node = file.node
        last = said.rpartition(", ")[2]
        if name == "lseek":
            file.at = answer
        elif name in ("fsync", "fdatasync"):
            node.sync()
        elif isinstance(node, Directory):
            raise AssertionError(f"{name} of a directory")
        elif name == "ftruncate":
            node.truncate(int(last))
        elif name == "fallocate":
            node.truncate(max(len(node.data), int(last)))
        elif name in ("write", "writev", "pwrite64", "pwritev"):
            at = int(last) if name[0] == "p" else file.at
            data = b"".join(texts)[:answer]
            assert len(data) == answer, "the trace leaves out bytes"
            if file.appends:
                self.marks += data.decode().splitlines()
                return
            node.write(at, data)
            self._syncing = (node, at, answer) if file.synced else None
            file.at = at + answer if name[0] == "w" else file.at
        else:
            raise AssertionError(f"{name} is not known here")
        self.changed = name != "lseek"


def _dirty(node: Node) -> bool:
    if isinstance(node, File):
        return bool(node.pages or node.lengths)
    changed = {name for change in node.changes for name, _ in change}
    lasting = [child for name, child in node.names.items() if name not in FLEETING]
    return bool(changed.difference(FLEETING)) or any(map(_dirty, lasting))


def after_cut(directory: Directory, target: Path, rng: np.random.Generator) -> None:
    """What a machine finds at `target` when the power is back."""
    target.mkdir()
    for name, node in directory.left(rng).items():
        if isinstance(node, Directory):
            after_cut(node, target / name, rng)
        else:
            (target / name).write_bytes(_found(name, node, rng))


def _found(name: str, file: File, rng: np.random.Generator) -> bytes:
    """The lock file is mapped and written at any time: anything may be in it."""
    left = file.left(rng)
    return rng.bytes(len(left)) if name == "lock.mdb" and rng.random() < 0.5 else left


# ---------------------------------------------------------------- recording


def why_not() -> str:
    """Why nothing can be recorded here; empty where it can."""
    strace = shutil.which("strace")
    if strace is None:
        return "strace is not installed: it records what a power cut is tried on"
    command = [strace, "-o", os.devnull, sys.executable, "-c", ""]
    tried = subprocess.run(command, capture_output=True, check=False)
    return "" if tried.returncode == 0 else "strace may not trace here (ptrace is not allowed)"


@dataclass(frozen=True)
class Recording:
    trace: Path
    path: str
    marks: str

    @classmethod
    def of(cls, module: str, words: Sequence[str], directory: Path) -> Recording:
        """Runs `python -m module WORDS... DISK MARKS`, two paths in the new `directory`."""
        disk, marks, trace = directory / "disk", directory / "marks", directory / "trace"
        disk.mkdir(parents=True)
        strace = ["strace", "-xx", "-s", str(64 << 20), "-e", f"trace={CALLS}"]
        worker = [sys.executable, "-m", module, *words, str(disk), str(marks)]
        subprocess.run(
            [*strace, "-o", str(trace), *worker],
            cwd=ROOT,
            check=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        return cls(trace, str(disk), str(marks))

    def moments(self) -> Iterator[Disk]:
        """The disk after every call that changed something or synced it; and at the end."""
        disk = Disk(self.path)
        with self.trace.open(encoding="ascii", errors="replace") as lines:
            for line in lines:
                disk.do(line, self.marks)
                if disk.changed:
                    yield disk
        yield disk
