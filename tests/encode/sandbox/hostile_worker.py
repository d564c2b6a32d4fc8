"""A decode worker that does on command what a hostile image might make it do, for real.

Only tests start it: which module a worker runs is an argument of `Sandbox` and no setting.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping

from simsearch.encode.image.decoder import DecodedImage, ImageRequest, decode_image
from simsearch.encode.image.picture import ImageLimits
from simsearch.encode.sandbox import worker
from simsearch.errors import BadContent

MARK = b"hostile: "


def order(deed: str, tail: bytes = b"") -> bytes:
    """An "image" that makes the worker do that; what stands in `tail` follows as the image."""
    return MARK + deed.encode() + b"\0" + tail


def main() -> None:
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
    threading.Timer(0.3, _babble, [digits]).start()


def _raise(words: str) -> None:
    raise RuntimeError(words)


def _tell(_: str) -> None:
    """What it knows and may, as the words of a refusal: the only words that come out of here."""
    told = {
        "torch": sorted({"torch", "open_clip", "faiss", "lmdb", "grpc"} & set(sys.modules)),
        "environment": sorted(os.environ),
        "descriptors": sum(_is_open(fd) for fd in range(64)),
        "nice": os.nice(0),
        "session": os.getsid(0) == os.getpid(),
        "memory": resource.getrlimit(resource.RLIMIT_AS),
        "core": resource.getrlimit(resource.RLIMIT_CORE),
        "processes": resource.getrlimit(resource.RLIMIT_NPROC),
        "cpu": resource.getrlimit(resource.RLIMIT_CPU)[0] - time.process_time(),
        "file": _failure(lambda: open("/etc/passwd").close()),
        "socket": _failure(lambda: socket.socket().close()),
        "raise": _failure(lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))),
    }
    raise BadContent(json.dumps(told))


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


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
}
