"""A decode worker that does on command what a hostile image might make it do, for real.

Only tests start it: which module a worker runs is an argument of `Sandbox` and no setting.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import queue
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from simsearch.encode.image.decoder import DecodedImage, ImageRequest, decode_image
from simsearch.encode.image.picture import ImageLimits
from simsearch.encode.sandbox import worker
from simsearch.errors import BadContent

MARK = b"hostile: "


def order(deed: str, tail: bytes = b"") -> bytes:
    """An "image" that makes the worker do that; what stands in `tail` follows as the image."""
    return MARK + deed.encode() + b"\0" + tail


def main() -> None:
    _LATE.start()
    worker.main(_decode)


def _decode(data: bytes, request: ImageRequest, limits: ImageLimits) -> DecodedImage:
    if data.startswith(MARK):
        deed, _, data = data[len(MARK) :].partition(b"\0")
        name, _, argument = deed.decode().partition(" ")
        DEEDS[name](argument)
    return decode_image(data, request, limits)


def _loop(_: str) -> None:
    while True:
        pass


def _compute(seconds: str) -> None:
    until = time.process_time() + float(seconds)
    while time.process_time() < until:
        pass


def _eat(_: str) -> None:
    """Until Python says MemoryError."""
    eaten = []
    while True:
        eaten.append(bytearray(16 << 20))


def _eat_natively(_: str) -> None:
    """As a C library does that does not look at what malloc gives it."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    while True:
        ctypes.memset(libc.malloc(16 << 20), 1, 16 << 20)


def _babble(digits: str) -> None:
    os.write(0, bytes.fromhex(digits))


def _babble_later(digits: str) -> None:
    """Once the answer is out and nobody asks."""
    _LATER.put(digits)


def _babble_in_time() -> None:
    digits = _LATER.get()
    time.sleep(0.3)
    _babble(digits)


_LATER: queue.SimpleQueue[str] = queue.SimpleQueue()
_LATE = threading.Thread(target=_babble_in_time, daemon=True)
"""Started before the worker is confined: later it could start none."""


def _raise(words: str) -> None:
    raise RuntimeError(words)


def _tell(_: str) -> None:
    """What it knows and may, as the words of a refusal: the only words that come out of here."""
    told = {
        "torch": sorted({"torch", "open_clip", "faiss", "lmdb", "grpc"} & set(sys.modules)),
        "environment": sorted(os.environ),
        "memory": resource.getrlimit(resource.RLIMIT_AS),
        "core": resource.getrlimit(resource.RLIMIT_CORE),
        "processes": resource.getrlimit(resource.RLIMIT_NPROC),
        "cpu": resource.getrlimit(resource.RLIMIT_CPU)[0] - time.process_time(),
        "file": _failure(lambda: open("/etc/passwd").close()),
        "socket": _failure(lambda: socket.socket().close()),
        "raise": _failure(lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))),
    }
    raise BadContent(json.dumps(told))


HARMLESS = ("newfstatat", "kill itself", "mmap of code", "rt_sigaction")


def _attempt(*names: str) -> None:
    """What an attacker would try, by the system call: its errno each, 0 where it was done."""
    libc = ctypes.CDLL(None, use_errno=True)
    done = {}
    for name in names:
        arguments = ATTEMPTS[name]
        number = NUMBERS[name.partition(" ")[0]][platform.machine()]
        ctypes.set_errno(0)
        result = libc.syscall(number, *(a() if callable(a) else a for a in arguments))
        done[name] = ctypes.get_errno() if result == -1 else 0
    raise BadContent(json.dumps(done))


_PATH = ctypes.create_string_buffer(b"/dev/null")
_TEXT = ctypes.create_string_buffer(256)
_RAW = {
    "x86_64": "open 2 openat 257 openat2 437 newfstatat 262 mkdirat 258 unlinkat 263 socket 41 "
    "socketpair 53 connect 42 sendmsg 46 kill 62 tgkill 234 rt_sigqueueinfo 129 fork 57 vfork 58 "
    "clone 56 clone3 435 execve 59 ptrace 101 process_vm_readv 310 process_vm_writev 311 "
    "pidfd_open 434 pidfd_getfd 438 prlimit64 302 io_uring_setup 425 memfd_create 319 mmap 9 "
    "rt_sigaction 13 setrlimit 160 bpf 321 perf_event_open 298 mount 165 chdir 80 getdents64 217",
    "aarch64": "openat 56 openat2 437 newfstatat 79 mkdirat 34 unlinkat 35 socket 198 "
    "socketpair 199 connect 203 sendmsg 211 kill 129 tgkill 131 rt_sigqueueinfo 138 clone 220 "
    "clone3 435 execve 221 ptrace 117 process_vm_readv 270 process_vm_writev 271 pidfd_open 434 "
    "pidfd_getfd 438 prlimit64 261 io_uring_setup 425 memfd_create 279 mmap 222 rt_sigaction 134 "
    "setrlimit 164 bpf 280 perf_event_open 241 mount 40 chdir 49 getdents64 61",
}
NUMBERS: dict[str, dict[str, int]] = {}
for _machine, _words in _RAW.items():
    for _name, _number in zip(*[iter(_words.split())] * 2, strict=True):
        NUMBERS.setdefault(_name, {})[_machine] = int(_number)

ATTEMPTS: Mapping[str, tuple[Any, ...]] = {
    name: arguments
    for name, arguments in {
        "open": (_PATH, os.O_RDONLY),
        "openat": (-100, _PATH, os.O_RDONLY),
        "openat2": (-100, _PATH, _TEXT, 24),
        "newfstatat": (-100, _PATH, _TEXT, 0),
        "mkdirat": (-100, _PATH, 0o700),
        "unlinkat": (-100, _PATH, 0),
        "socket": (socket.AF_INET, socket.SOCK_STREAM, 0),
        "socketpair": (socket.AF_UNIX, socket.SOCK_STREAM, 0, _TEXT),
        "connect": (0, _TEXT, 16),
        "sendmsg": (0, _TEXT, 0),
        "kill the server": (os.getppid, signal.SIGKILL),
        "kill itself": (os.getpid, 0),
        "tgkill": (os.getppid, os.getppid, signal.SIGKILL),
        "rt_sigqueueinfo": (os.getppid, signal.SIGKILL, _TEXT),
        "fork": (),
        "vfork": (),
        "clone": (signal.SIGCHLD, 0, 0, 0, 0),
        "clone3": (_TEXT, 88),
        "execve": (_PATH, 0, 0),
        "ptrace": (16, os.getppid, 0, 0),
        "process_vm_readv": (os.getppid, _TEXT, 1, _TEXT, 1, 0),
        "process_vm_writev": (os.getppid, _TEXT, 1, _TEXT, 1, 0),
        "pidfd_open": (os.getppid, 0),
        "pidfd_getfd": (0, 0, 0),
        "prlimit64 of the server": (os.getppid, resource.RLIMIT_NOFILE, 0, _TEXT),
        "prlimit64 of itself, read": (0, resource.RLIMIT_NOFILE, 0, _TEXT),
        "io_uring_setup": (1, _TEXT),
        "memfd_create": (_PATH, 0),
        "mmap of code": (0, 4096, 7, 0x22, -1, 0),
        "rt_sigaction": (signal.SIGXCPU, 0, _TEXT, 8),
        "setrlimit": (resource.RLIMIT_NOFILE, _TEXT),
        "bpf": (0, _TEXT, 0),
        "perf_event_open": (_TEXT, 0, -1, -1, 0),
        "mount": (_PATH, _PATH, _PATH, 0, 0),
        "chdir": (_PATH,),
        "getdents64": (0, _TEXT, 256),
    }.items()
    if platform.machine() in NUMBERS[name.partition(" ")[0]]
}


def _failure(act: Callable[[], None]) -> str:
    try:
        act()
    except (OSError, ValueError) as fault:
        return type(fault).__name__
    return ""


DEEDS: Mapping[str, Callable[[str], object]] = {
    "segfault": lambda _: ctypes.string_at(0),
    "abort": lambda _: os.abort(),
    "leave": lambda _: os._exit(0),
    "loop": _loop,
    "compute": _compute,
    "sleep": lambda seconds: time.sleep(float(seconds)),
    "eat": _eat,
    "eat_natively": _eat_natively,
    "babble": _babble,
    "babble_later": _babble_later,
    "raise": _raise,
    "tell": _tell,
    "attempt": lambda _: _attempt(*ATTEMPTS),
    "attempt_some": lambda _: _attempt(*HARMLESS),
}
