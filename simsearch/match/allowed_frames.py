"""Allowed frames: what of a banned picture file allow-listed banks hold, which is not banned.

An animation of a harmless frame and an abusive one is no ban of the harmless one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from simsearch.encode.fingerprint import ContentFingerprint
from simsearch.match.evidence import MatchQuery, View, gather_evidence
from simsearch.match.policy import kind_of
from simsearch.types import (
    Bank,
    BankKind,
    Content,
    EntryState,
    Fingerprint,
    SignalReport,
)

_COUNTING = (EntryState.ACTIVE, EntryState.DISPUTED)


def without_allowed_frames(
    banned: ContentFingerprint, content: Content, view: View
) -> tuple[ContentFingerprint, str]:
    """The fingerprint without the rows of frames that an allow-listed bank holds, which its reports
    say; and, where it holds all of them, the fingerprint as it is and why it needs a review."""
    banks = [b for b in view.banks.values() if b.kind is BankKind.ALLOWED and not b.archived]
    frames = {part.frame for part in banned.parts}
    if not banks or not frames:
        return banned, ""
    allowed = _allowed_frames(MatchQuery(banned, content), view, banks)
    if not allowed:
        return banned, ""
    names = ", ".join(sorted({bank for banks in allowed.values() for bank in banks}))
    if frames <= allowed.keys():
        return banned, f"all that it shows is allow-listed ({names})"
    told = f"{len(allowed)} of {len(frames)} frames are allow-listed ({names}) and left out"
    return _without(banned, allowed.keys(), told), ""


def _allowed_frames(query: MatchQuery, view: View, banks: Sequence[Bank]) -> dict[int, set[str]]:
    """The banks that hold each frame."""
    gather_evidence([query], view, banks)
    entries = view.entries([key for _, key in query.evidence])
    names = {bank.id: bank.name for bank in banks}
    found: dict[int, set[str]] = {}
    for (bank_id, key), evidence in query.evidence.items():
        entry = entries.get(key)
        if entry is None or entry.unretracted_at(view.seq) not in _COUNTING:
            continue
        for each in evidence:
            if kind_of(each) != "digest" and each.region is None:
                found.setdefault(each.part.frame, set()).add(names[bank_id])
    return found


def _without(banned: ContentFingerprint, frames: Iterable[int], told: str) -> ContentFingerprint:
    gone = [n for n, part in enumerate(banned.parts) if part.frame in set(frames)]
    kept = {signal: ~np.isin(rows, gone) for signal, rows in banned.part_of_row.items()}
    held = banned.fingerprint
    bits = {s: rows[kept[s]] if s in kept else rows for s, rows in held.bits.items()}
    vectors = {s: rows[kept[s]] if s in kept else rows for s, rows in held.vectors.items()}
    return replace(
        banned,
        fingerprint=Fingerprint(
            held.digests,
            {signal: rows for signal, rows in bits.items() if len(rows)},
            {space: rows for space, rows in vectors.items() if len(rows)},
        ),
        reports=tuple(
            _told(report, told) if report.signal in kept else report for report in banned.reports
        ),
        part_of_row={signal: rows[kept[signal]] for signal, rows in banned.part_of_row.items()},
    )


def _told(report: SignalReport, told: str) -> SignalReport:
    return replace(report, detail="; ".join(filter(None, (report.detail, told))))
