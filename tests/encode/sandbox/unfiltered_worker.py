"""A decode worker on a system that refuses the system call filter."""

from __future__ import annotations

from simsearch.encode.sandbox import syscall_filter, worker


def main() -> None:
    syscall_filter._SET_MODE_FILTER = 99
    worker.main()
