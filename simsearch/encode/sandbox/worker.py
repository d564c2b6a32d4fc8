"""Decode worker: a process that confines itself and then decodes one image after the other.

It has one socket, and the system refuses it files, further sockets, processes, threads, signals
to others and more memory than it was given (`syscall_filter`); it ends with its server, and knows
neither torch nor the server's environment.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any, TypeAlias

from PIL import Image, ImageCms, features

from simsearch.encode.image.decoder import DecodedImage, ImageRequest, PdqRows, decode_image
from simsearch.encode.image.picture import ImageLimits, has_decoder
from simsearch.encode.image.preprocess import Preprocess
from simsearch.encode.sandbox.syscall_filter import FilterRefused, confine_calls
from simsearch.encode.sandbox.wire_format import (
    Kind,
    WorkerSettings,
    decoded_body,
    receive_request,
    refusal_body,
    send_kind,
)
from simsearch.errors import ContentTooLarge, DecoderFailed, SimsearchError

Decode: TypeAlias = Callable[[bytes, ImageRequest, ImageLimits], DecodedImage]

NICENESS = 5
"""Below the server, whose answers the decoded images are for."""

DESCRIPTORS = 3
"""The socket and two that lead nowhere: nothing else can be opened."""

ALLOCATED_BYTES_MAX = 32 << 20
"""Allocations below it come from memory that the process keeps, up to twice as much. Left to
itself, glibc gave a picture's pages back to the system and took them anew: a decode of 2.5
megapixels cost 1.7 times as much as in the server, with this 1.06."""

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38


def main(decode: Decode = decode_image) -> None:
    """The settings are the second argument, the socket is standard input."""
    settings = WorkerSettings.from_json(sys.argv[2])
    link = socket.socket(fileno=0)
    _die_with(settings.server_pid)
    _keep_memory()
    _import_everything()
    _confine(settings)
    send_kind(link, Kind.READY)
    _serve(link, settings, decode)


def _die_with(server_pid: int) -> None:
    """Linux alone tells a child; elsewhere a worker ends when its socket does."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if os.getppid() != server_pid:  # it died before it was asked about
        sys.exit("the server has gone")


def _keep_memory() -> None:
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):  # glibc's own
        mallopt(_M_MMAP_THRESHOLD, ALLOCATED_BYTES_MAX)
        mallopt(_M_TRIM_THRESHOLD, 2 * ALLOCATED_BYTES_MAX)


def _import_everything() -> None:
    """Pillow and numpy open files as they first need them, which is later forbidden."""
    ways = tuple(
        Preprocess((8, 8), mode, "bicubic", 0, (0.0,) * 3, (1.0,) * 3)
        for mode in ("squash", "shortest", "longest")
    )
    ask = ImageRequest(PdqRows.DIHEDRAL, ways, 1, 2)
    for name, picture, options in _samples():
        file = BytesIO()
        picture.copy().save(file, name, **options)  # a copy: options stay with an image
        data = file.getvalue()
        decode_image(data, ask, ImageLimits())
        with contextlib.suppress(SimsearchError):  # cut off, it takes another way
            decode_image(data[: len(data) * 3 // 4], ask, ImageLimits())


def _samples() -> Iterator[tuple[str, Image.Image, dict[str, Any]]]:
    """A still and an animation in every format, one with transparency and one with a profile."""
    still = Image.linear_gradient("L").reduce((2, 4))
    moving = {"save_all": True, "append_images": [still.transpose(Image.Transpose.ROTATE_180)]}
    clear = Image.merge("LA", (still, still))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    formats = ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"]
    if features.check("avif"):
        formats.append("AVIF")
    for name in formats:
        yield name, still, {}
        yield name, still.convert("RGB"), {"icc_profile": profile}
        if name not in ("JPEG", "BMP"):
            yield name, still, moving
    yield "PNG", clear, {}


def _confine(settings: WorkerSettings) -> None:
    threads = has_decoder("HEIF")  # its library decodes in one of its own
    os.nice(NICENESS)
    _lower(resource.RLIMIT_AS, settings.memory_bytes_max)
    _lower(resource.RLIMIT_FSIZE, 0)
    _lower(resource.RLIMIT_NOFILE, DESCRIPTORS)
    _lower(resource.RLIMIT_CORE, 0)
    if not threads:
        _lower(resource.RLIMIT_NPROC, 0)
    if settings.syscall_filter:
        try:
            confine_calls(threads)
        except FilterRefused as why:
            sys.exit(
                f"the system call filter cannot be installed: {why}; with syscall_filter = false "
                "in [sandbox] they run without it"
            )


def _lower(limit: int, value: int) -> None:
    """For good: what was lowered so cannot be raised again. Never above what is there."""
    _, hard = resource.getrlimit(limit)
    least = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(limit, (least, least))


def _serve(link: socket.socket, settings: WorkerSettings, decode: Decode) -> None:
    while question := receive_request(link):
        _renew_cpu(settings.cpu_s_max)
        send_kind(link, Kind.BEGUN)
        send_kind(link, *_answer(*question, settings.image, decode))


def _renew_cpu(cpu_s_max: int) -> None:
    """The limit is for all that a process computes: each image moves it on."""
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    spent = math.ceil(time.process_time())
    resource.setrlimit(resource.RLIMIT_CPU, (spent + cpu_s_max, hard))


def _answer(
    data: bytes, request: ImageRequest, limits: ImageLimits, decode: Decode
) -> tuple[Kind, bytes]:
    try:
        return Kind.DECODED, decoded_body(decode(data, request, limits), request)
    except SimsearchError as refusal:
        return _refused(refusal)
    except MemoryError:
        words = "the image takes too much memory to decode: send a smaller copy"
        return _refused(ContentTooLarge(words))
    except Exception as fault:
        # The boundary: what is not named must still be answered. Its text may quote the file.
        return _refused(DecoderFailed(f"the decoder failed at the image ({type(fault).__name__})"))


def _refused(refusal: SimsearchError) -> tuple[Kind, bytes]:
    return Kind.REFUSED, refusal_body(refusal)
