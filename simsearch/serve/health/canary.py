"""The server asks itself, all the time, what it must know the answer to.

Known content goes through decoder, encoders and matcher against a bank of its own that nobody else
can see; rows of the banks are looked up in what is searched; edits must reach searches. It finds
encoders that no longer give what they gave at the start, or give the same for everything; rows that
a search does not come back with, page by page of all entries; a follower that stands still; work
that does not come to an end. It does not find what was wrong before the start (a space's id is the
digest of its weights, so other weights are another space), drifts under a cosine of `ALIKE`, a lost
row before its page comes round, or what only other content meets.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Final

from simsearch.config import CanaryConfig
from simsearch.errors import DeadlinePassed, NotReady, Overloaded, SimsearchError
from simsearch.serve.core.edit_lag import lag_of
from simsearch.serve.core.health_state import CheckResult, Component
from simsearch.serve.core.server_core import Core
from simsearch.serve.health.canary_content import CanaryContent
from simsearch.serve.health.canary_rows import StoredRows
from simsearch.serve.scheduling.executor import Work
from simsearch.serve.scheduling.scheduler import Steps
from simsearch.telemetry import EventLog
from simsearch.types import CallContext

log = EventLog(__name__)

TOO_BUSY: Final = (DeadlinePassed, NotReady, Overloaded)
"""Says nothing of what is right, if it does not last."""

LATE_MAX: Final = 2
"""Probes in a row that were not through in time: one may have met a long batch."""


class Canary:
    """Probes the core of `work` over and over, and says what it found."""

    def __init__(self, work: Work, config: CanaryConfig) -> None:
        self._work = work
        self._config = config
        self._known: CanaryContent | None = None
        self._stored = StoredRows()
        self._late = 0

    async def watch(self, told: Callable[[bool], Awaitable[None]]) -> None:
        """For ever; `told` hears after each probe whether all is right."""
        while True:
            began = time.monotonic()
            await told(await self.probe())
            spent_s = time.monotonic() - began
            await asyncio.sleep(max(0.0, self._config.every_s - spent_s))

    async def probe(self) -> bool:
        """True where all is right. What was found is in the core's standing."""
        standing, began = self._work.loaded().health, time.monotonic()
        counts = standing.counts
        try:
            findings = await self._work.probe(self._findings, self._config.timeout_s)
        except TOO_BUSY:
            self._late += 1
            standing.counts = replace(counts, late=counts.late + 1)
            if self._late < LATE_MAX:
                return _are_right(standing.findings)
            findings = [
                *_all_but_time(standing.findings),
                CheckResult(Component.TIME, "", self._too_late()),
            ]
        else:
            self._late = 0
            wrong = not _are_right(findings)
            standing.counts = replace(
                counts,
                right=counts.right + (not wrong),
                wrong=counts.wrong + wrong,
                last_s=time.monotonic() - began,
            )
        _tell_changes(standing.findings, findings)
        standing.findings = findings
        return _are_right(findings)

    def _findings(self, core: Core, call: CallContext) -> Steps[list[CheckResult]]:
        """In steps, so that nobody waits for more than one of them."""
        findings = [
            CheckResult(Component.TIME),
            *_asked(Component.FOLLOWER, lambda: [self._follows(core)]),
        ]
        yield
        findings += _asked(Component.CONTENT, lambda: self._content(core, call))
        yield
        return findings + _asked(Component.INDEX, lambda: self._stored.findings(core))

    def _content(self, core: Core, call: CallContext) -> Iterator[CheckResult]:
        self._known = self._known or CanaryContent(core.fingerprinter)
        return self._known.findings(call)

    def _follows(self, core: Core) -> CheckResult:
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

    def _too_late(self) -> str:
        return (
            f"{self._late} probes in a row were not through in {self._config.timeout_s:g} s: "
            "something does not come to an end; restart"
        )


def _asked(part: Component, question: Callable[[], Iterable[CheckResult]]) -> list[CheckResult]:
    """What a question finds; that it cannot be asked at all is a finding, too."""
    try:
        return list(question())
    except TOO_BUSY:
        raise
    except Exception as fault:
        # The edge: without this one fault would end the canary, and nothing would be found again.
        log.error("canary_failed", exc_info=True, part=part.value)
        name = fault.reason if isinstance(fault, SimsearchError) else type(fault).__name__
        return [CheckResult(part, "", f"cannot be asked ({name}): see the log, and restart")]


def _are_right(findings: Sequence[CheckResult]) -> bool:
    """Before anything was found, nothing is known to be right."""
    return bool(findings) and all(finding.right for finding in findings)


def _all_but_time(findings: Sequence[CheckResult]) -> list[CheckResult]:
    return [finding for finding in findings if finding.part is not Component.TIME]


def _tell_changes(before: Sequence[CheckResult], after: Sequence[CheckResult]) -> None:
    """One event for each thing that went wrong or came right."""
    was_wrong = {(f.part, f.signal) for f in before if not f.right}
    for finding in after:
        about = (finding.part, finding.signal)
        if not finding.right and about not in was_wrong:
            log.error(
                "canary_wrong",
                part=finding.part.value,
                signal=finding.signal,
                fault=finding.fault,
            )
        elif finding.right and about in was_wrong:
            log.warning("canary_right", part=finding.part.value, signal=finding.signal)
