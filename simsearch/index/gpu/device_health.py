"""Circuit breaker of a GPU: back-off after a fault, off for good after several."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from simsearch.telemetry import EventLog

log = EventLog(__name__)

BACK_OFF_S: Final = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Pauses after the first fault, the second in a row, and so on; after one more the device stays
off. Chosen, not measured."""

REASON_CHARS_MAX: Final = 300


class Health:
    """Faults of one device, and whether it may be used now. For any number of threads; `clock` in
    seconds."""

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
        """Whether it is off for good."""
        return self._is_off

    def refusal(self) -> str:
        """Why it is not to be used now; empty where it is."""
        with self._lock:
            waits = self._is_off or self._clock() < self._retry_at
            return self._reason if waits else ""

    def worked(self) -> None:
        """Report a success: ends the back-off."""
        with self._lock:
            if self._is_off or not self._in_a_row:
                return
            self._in_a_row, self._reason = 0, ""
        log.info("gpu_back", gpu=self._name)

    def fault(self, reason: str) -> None:
        """Report a fault. Further ones are ignored until the back-off has passed, as many searches
        may report the same one."""
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
        """Switch it off for good: it computed a wrong answer."""
        with self._lock:
            if self._is_off:
                return
            self.faults += 1
            self._is_off, self._reason = True, f"{self._name}: {reason[:REASON_CHARS_MAX]}"
        log.error("gpu_off", gpu=self._name, reason=self._reason)
