"""Whether a device is asked: not for a while after a fault, and no more after several."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from simsearch.telemetry import EventLog

log = EventLog(__name__)

BACK_OFF_S: Final = (1.0, 2.0, 4.0, 8.0, 16.0)
"""After the first fault, the second in a row, and so on; after one more the device stays off."""

REASON_CHARS_MAX: Final = 300


class Health:
    """For any number of threads. `clock` in seconds."""

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._clock = clock
        self._lock = threading.Lock()
        self._in_a_row = 0
        self._retry_at = 0.0
        self._reason = ""
        self._is_off = False
        self.faults = 0

    @property
    def is_off(self) -> bool:
        return self._is_off

    def refusal(self) -> str:
        """Why it is not asked now; empty where it is."""
        with self._lock:
            waits = self._is_off or self._clock() < self._retry_at
            return self._reason if waits else ""

    def worked(self) -> None:
        with self._lock:
            if self._is_off or not self._in_a_row:
                return
            self._in_a_row, self._reason = 0, ""
        log.info("gpu_back", gpu=self._name)

    def fault(self, reason: str) -> None:
        """Counted once for all who meet it: until the device is asked again, no more are."""
        reason = f"{self._name}: {reason[:REASON_CHARS_MAX]}"
        with self._lock:
            if self._is_off or self._clock() < self._retry_at:
                return
            self.faults += 1
            self._reason = reason
            if self._in_a_row < len(BACK_OFF_S):
                self._retry_at = self._clock() + BACK_OFF_S[self._in_a_row]
                self._in_a_row += 1
            else:
                self._is_off = True
            is_off = self._is_off
        log.warning("gpu_off" if is_off else "gpu_fault", gpu=self._name, reason=reason)

    def off(self, reason: str) -> None:
        """For good: a device that computes wrongly is not asked again."""
        with self._lock:
            if self._is_off:
                return
            self.faults += 1
            self._is_off, self._reason = True, f"{self._name}: {reason[:REASON_CHARS_MAX]}"
        log.error("gpu_off", gpu=self._name, reason=self._reason)
