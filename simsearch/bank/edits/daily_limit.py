"""Daily edit quota: edits per actor and day (UTC), counted in the transaction that makes them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from simsearch.bank.lmdb.tables import Tables
from simsearch.errors import DailyLimit

DAY_S: Final = 86_400
DROPPED_AT_ONCE: Final = 256
"""Counts of earlier days that one edit deletes."""


def charge(tables: Tables, actor: str, edits_per_day: int, now_s: float) -> None:
    """Adds the transaction's edits to the actor's count of the day (UTC). Raises DailyLimit, which
    aborts the transaction, where they exceed `edits_per_day`; 0: no limit."""
    if not edits_per_day or not tables.edits:
        return
    day = int(now_s // DAY_S)
    made = tables.edits_of_day(day, actor)
    if made + tables.edits > edits_per_day:
        ends = datetime.fromtimestamp(day * DAY_S, UTC) + timedelta(days=1)
        raise DailyLimit(
            f"{actor[:80]} has made {made} of {edits_per_day} edits today, and this is "
            f"{tables.edits} more: come back after {ends:%Y-%m-%d %H:%M} UTC, or ask another person"
        )
    tables.drop_days_before(day, DROPPED_AT_ONCE)
    tables.put_edits_of_day(day, actor, made + tables.edits)
