"""System call filter of a decode worker: what is not needed to decode and to answer is refused.

A filter of seccomp (Linux), for x86_64 and aarch64. Once installed it holds for good. Allowed are
memory that is not to be executed, reading and writing what is open, clocks, and the end of the
process; the rest fails with EPERM: files, sockets, processes, threads, signals, other processes.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final, NamedTuple

_PR_SET_NO_NEW_PRIVS = 38
_SET_MODE_FILTER = 1  # SECCOMP_SET_MODE_FILTER
_EVERY_THREAD = 1  # SECCOMP_FILTER_FLAG_TSYNC

_RET_KILL_PROCESS = 0x80000000
_RET_ERRNO = 0x00050000
_RET_ALLOW = 0x7FFF0000

# Offsets in `struct seccomp_data`: number, architecture, instruction pointer, six arguments of
# 64 bits, little-endian on both machines.
_NUMBER_AT = 0
_MACHINE_AT = 4
_ARGUMENTS_AT = 16

_LOAD_WORD = 0x20  # BPF_LD | BPF_W | BPF_ABS
_JUMP_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_JUMP_ANY_BIT = 0x45  # BPF_JMP | BPF_JSET | BPF_K
_RETURN = 0x06  # BPF_RET | BPF_K

_PROT_EXEC = 4
_THREAD = 0x3D0F00
"""The flags with which glibc starts a thread, and nothing but a thread (nptl/pthread_create)."""

_FIONBIO = 0x5421
"""The `ioctl` by which Python makes a socket blocking."""


class _Numbers(NamedTuple):
    """System calls by name, on one machine (linux/audit.h, asm/unistd.h); `install` is that of
    seccomp itself, `of_threads` are those that starting a thread takes."""

    machine: int
    install: int
    of_threads: Mapping[str, int]
    calls: Mapping[str, int]


_X86_64: Final = _Numbers(
    0xC000003E,
    317,
    {"clone": 56, "rt_sigprocmask": 14, "set_robust_list": 273, "rseq": 334},
    {
        "read": 0, "write": 1, "close": 3, "poll": 7, "lseek": 8, "mmap": 9, "mprotect": 10,
        "munmap": 11, "brk": 12, "rt_sigreturn": 15, "ioctl": 16, "sched_yield": 24, "mremap": 25,
        "madvise": 28, "nanosleep": 35, "getpid": 39, "sendto": 44, "recvfrom": 45, "exit": 60,
        "gettimeofday": 96, "getrusage": 98, "sysinfo": 99, "times": 100, "getppid": 110,
        "gettid": 186, "time": 201, "futex": 202, "restart_syscall": 219, "clock_gettime": 228,
        "clock_getres": 229, "clock_nanosleep": 230, "exit_group": 231, "ppoll": 271,
        "prlimit64": 302, "getrandom": 318,
    },
)  # fmt: skip
_AARCH64: Final = _Numbers(
    0xC00000B7,
    277,
    {"clone": 220, "rt_sigprocmask": 135, "set_robust_list": 99, "rseq": 293},
    {
        "read": 63, "write": 64, "close": 57, "lseek": 62, "mmap": 222, "mprotect": 226,
        "munmap": 215, "brk": 214, "rt_sigreturn": 139, "ioctl": 29, "sched_yield": 124,
        "mremap": 216, "madvise": 233, "nanosleep": 101, "getpid": 172, "sendto": 206,
        "recvfrom": 207, "exit": 93, "gettimeofday": 169, "getrusage": 165, "sysinfo": 179,
        "times": 153, "getppid": 173, "gettid": 178, "futex": 98, "restart_syscall": 128,
        "clock_gettime": 113, "clock_getres": 114, "clock_nanosleep": 115, "exit_group": 94,
        "ppoll": 73, "prlimit64": 261, "getrandom": 278,
    },
)  # fmt: skip
_MACHINES: Final[Mapping[str, _Numbers]] = {"x86_64": _X86_64, "aarch64": _AARCH64}


class FilterRefused(Exception):
    """The filter cannot be installed here; the words say why."""


def confine_calls(threads: bool = False) -> None:
    """Install the filter for this process, all its threads. With `threads` it may start more of
    them, under the same filter. Raises FilterRefused."""
    if sys.platform != "linux" or platform.machine() not in _MACHINES:
        raise FilterRefused(f"there is none for {sys.platform} on {platform.machine()}")
    numbers = _MACHINES[platform.machine()]
    code = b"".join(map(_Step.packed, _program(numbers, threads)))
    held = ctypes.create_string_buffer(code, len(code))
    head = _Program(len(code) // _Step.SIZE, ctypes.addressof(held))
    libc = ctypes.CDLL(None, use_errno=True)
    failed = libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.syscall(
        numbers.install, _SET_MODE_FILTER, _EVERY_THREAD, ctypes.byref(head)
    )
    if failed:
        raise FilterRefused(errno.errorcode.get(ctypes.get_errno(), "a thread goes its own way"))


class _Program(ctypes.Structure):
    """`struct sock_fprog`."""

    _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_void_p))


@dataclass(frozen=True)
class _Step:
    """`struct sock_filter`: the jumps are counted from the next step."""

    code: int
    value: int
    if_true: int = 0
    if_false: int = 0

    SIZE = 8

    def packed(self) -> bytes:
        return struct.pack("<HBBI", self.code, self.if_true, self.if_false, self.value)


_ALLOW = _Step(_RETURN, _RET_ALLOW)
_REFUSE = _Step(_RETURN, _RET_ERRNO | errno.EPERM)
_UNKNOWN_CLONE = (
    _Step(_JUMP_EQUAL, 435, if_false=1),
    _Step(_RETURN, _RET_ERRNO | errno.ENOSYS),
)
"""`clone3`, whose flags a filter cannot read: glibc then falls back to `clone`."""


def _program(numbers: _Numbers, threads: bool) -> list[_Step]:
    """Another machine's calls, to which the numbers would not apply, end the process. Calls of
    x86_64 with the bit of the x32 interface set equal no number here."""
    calls = dict(numbers.calls) | dict(numbers.of_threads if threads else {})
    return [
        _Step(_LOAD_WORD, _MACHINE_AT),
        _Step(_JUMP_EQUAL, numbers.machine, if_true=1),
        _Step(_RETURN, _RET_KILL_PROCESS),
        _Step(_LOAD_WORD, _NUMBER_AT),
        *chain.from_iterable(_call(name, number) for name, number in calls.items()),
        *_UNKNOWN_CLONE,
        _REFUSE,
    ]


def _call(name: str, number: int) -> Sequence[_Step]:
    """Allows one system call, some with certain arguments alone."""
    match name:
        case "mmap" | "mprotect":
            steps = _if_argument(2, _JUMP_ANY_BIT, _PROT_EXEC, then=_REFUSE, otherwise=_ALLOW)
        case "prlimit64":  # of the process itself
            steps = _if_argument(0, _JUMP_EQUAL, 0, then=_ALLOW, otherwise=_REFUSE)
        case "clone":
            steps = _if_argument(0, _JUMP_EQUAL, _THREAD, then=_ALLOW, otherwise=_REFUSE)
        case "ioctl":
            steps = _if_argument(1, _JUMP_EQUAL, _FIONBIO, then=_ALLOW, otherwise=_REFUSE)
        case _:
            steps = [_ALLOW]
    return [_Step(_JUMP_EQUAL, number, if_false=len(steps)), *steps]


def _if_argument(
    which: int, test: int, value: int, *, then: _Step, otherwise: _Step
) -> list[_Step]:
    """By the lower half of an argument: the kernel takes no more of these."""
    load = _Step(_LOAD_WORD, _ARGUMENTS_AT + 8 * which)
    return [load, _Step(test, value, if_false=1), then, otherwise]
