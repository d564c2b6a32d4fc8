"""Canary: repeated self-checks whose right answers are known.

It matches fixed content in a bank of its own, through decoder, encoders and matcher; it searches
for stored rows of the banks, page by page of all entries; and it checks that edits become visible.
It finds encoders whose output has changed since the start or is the same for everything, rows that
searches miss, a follower that does not advance, and work that does not end. It does not find what
was wrong before the start (a space's id is the digest of its weights, so other weights are another
space), a drift that stays above the cosine `ALIKE`, a lost row before its page is checked, or
faults that only other content meets.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Final

from simsearch.config import CanaryConfig
from simsearch.errors import DeadlinePassed, NotReady, Overloaded, SimsearchError
from simsearch.serve.core.edit_lag import lag_of
from simsearch.serve.core.health_state import CheckResult, Component
from simsearch.serve.core.server_core import Core
from simsearch.serve.health.canary_content import CanaryContent
from simsearch.serve.health.canary_rows import StoredRows
from simsearch.serve.scheduling.executor import MatchExecutor
from simsearch.serve.scheduling.scheduler import Steps
from simsearch.telemetry import EventLog
from simsearch.types import CallContext

log = EventLog(__name__)

TOO_BUSY: Final = (DeadlinePassed, NotReady, Overloaded)
"""Faults that say nothing about the answers, unless they last."""

LATE_MAX: Final = 2
"""Late probes in a row that are a fault: one may have waited for a long batch."""


class Canary:
    """Probes the core of `work` and keeps its health state up to date."""

    def __init__(self, executor: MatchExecutor, config: CanaryConfig) -> None:
        self._executor = executor
        self._config = config
        self._content: CanaryContent | None = None
        self._rows = StoredRows()
        self._late = 0

    async def watch(self, on_probe: Callable[[bool], Awaitable[None]]) -> None:
        """Probe for ever; `on_probe` gets the result of each probe."""
        while True:
            began = time.monotonic()
            await on_probe(await self.probe())
            spent_s = time.monotonic() - began
            await asyncio.sleep(max(0.0, self._config.every_s - spent_s))

    async def probe(self) -> bool:
        """Whether no check found a fault. The results are in the core's health state."""
        core, began = self._executor.loaded(), time.monotonic()
        health, probes = core.health, core.metrics.canary_probes
        try:
            results = await self._executor.probe(self._check, self._config.timeout_s)
        except TOO_BUSY:
            self._late += 1
            probes["late",].inc()
            if self._late < LATE_MAX:
                return _all_ok(health.results)
            results = [
                *_without_time(health.results),
                CheckResult(Component.TIME, "", self._late_fault()),
            ]
        else:
            self._late = 0
            probes["right" if _all_ok(results) else "wrong",].inc()
            health.probe_s = time.monotonic() - began
        _log_changes(health.results, results)
        health.results = results
        return _all_ok(results)

    def _check(self, core: Core, call: CallContext) -> Steps[list[CheckResult]]:
        """In steps, so that calls wait for one step at most."""
        results = [
            CheckResult(Component.TIME),
            *_checked(Component.FOLLOWER, lambda: [self._check_follower(core)]),
        ]
        yield
        results += _checked(Component.CONTENT, lambda: self._check_content(core, call))
        yield
        return results + _checked(Component.INDEX, lambda: self._rows.check(core))

    def _check_content(self, core: Core, call: CallContext) -> Iterator[CheckResult]:
        self._content = self._content or CanaryContent(core.fingerprinter)
        return self._content.check(call)

    def _check_follower(self, core: Core) -> CheckResult:
        lag = lag_of(core.store, core.follower)
        if lag.age_s <= self._config.lag_max_s:
            return CheckResult(Component.FOLLOWER)
        fault = core.follower.fault
        why = f"({fault.reason})" if fault else "and no fault is known"
        return CheckResult(
            Component.FOLLOWER,
            "",
            f"searches have not seen the oldest of {lag.changes} edits for {lag.age_s:.0f} s "
            f"{why}: restart, it loads all of them",
        )

    def _late_fault(self) -> str:
        return (
            f"{self._late} probes in a row were not through in {self._config.timeout_s:g} s: "
            "something does not come to an end; restart"
        )


def _checked(component: Component, check: Callable[[], Iterable[CheckResult]]) -> list[CheckResult]:
    """The results of a check; an exception is a fault, too."""
    try:
        return list(check())
    except TOO_BUSY:
        raise
    except Exception as fault:
        # The edge of the canary: otherwise one exception would end it for good.
        log.error("canary_failed", exc_info=True, part=component.value)
        name = fault.reason if isinstance(fault, SimsearchError) else type(fault).__name__
        return [CheckResult(component, "", f"cannot be asked ({name}): see the log, and restart")]


def _all_ok(results: Sequence[CheckResult]) -> bool:
    """False before the first probe, which leaves no results."""
    return bool(results) and all(result.ok for result in results)


def _without_time(results: Sequence[CheckResult]) -> list[CheckResult]:
    return [result for result in results if result.component is not Component.TIME]


def _log_changes(before: Sequence[CheckResult], after: Sequence[CheckResult]) -> None:
    """One event for each check that failed or recovered."""
    failed = {(result.component, result.signal) for result in before if not result.ok}
    for result in after:
        check = (result.component, result.signal)
        if not result.ok and check not in failed:
            log.error(
                "canary_wrong",
                part=result.component.value,
                signal=result.signal,
                fault=result.fault,
            )
        elif result.ok and check in failed:
            log.warning("canary_right", part=result.component.value, signal=result.signal)
