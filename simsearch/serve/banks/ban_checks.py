"""Ban checks: bans with too little information, or nothing new, need a review before they match.

A ban of a blank picture, of a greeting or of the hash of an empty file would hit unrelated content.
Rows of imported lists have their hashes checked alone, and are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Final

from simsearch.config import BanChecksConfig
from simsearch.encode.digests import md5, sha256, text_sha256
from simsearch.encode.text.forms.text_forms import normalised
from simsearch.errors import BankArchived, BankNotFound, LowInformation, SimsearchError
from simsearch.serve.banks.entry_drafts import Prepared
from simsearch.serve.core.server_core import Core
from simsearch.types import (
    Band,
    BankKind,
    Bits,
    Content,
    Fingerprint,
    Hit,
    MatchOptions,
    MatchResult,
    Signal,
    SignalReport,
    SignalState,
    TextContent,
)

MATCHED_AT_ONCE: Final = 32
"""Contents that are matched together: the prints of more would fill memory."""

PDQ_ONES: Final = range(64, 193)
"""Bits of 256 that are set in a plausible PDQ hash: it compares with the median, so about half of
them are. Other hashes are made up, or of a picture without content."""

EMPTY: Final = {
    Signal.SHA256: sha256(b""),
    Signal.MD5: md5(b""),
    Signal.TEXT_SHA256: text_sha256(""),
    Signal.TEXT_LIGHT_SHA256: text_sha256(""),
    Signal.TEXT_STRONG_SHA256: text_sha256(""),
}

_UNSPACED: Final = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]"
)
"""Thai, Lao, Burmese, Khmer, kana and Han: written without spaces, about two signs a word."""


def with_review_reasons(core: Core, bank: str, prepared: Sequence[Prepared]) -> list[Prepared]:
    """The same drafts, each with the reasons for which it needs a review, if there are any."""
    guard = core.config.ban_checks
    if not guard.enabled or not prepared:
        return list(prepared)
    blocked = _banned_already(core, bank, [content for p in prepared for content in p.contents])
    checked = []
    for each in prepared:
        found = [next(blocked) for _ in each.contents]
        reasons = (*_too_little(each, guard), *each.reasons, *filter(None, found))
        draft = replace(each.draft, review_reasons=tuple(dict.fromkeys(reasons)))
        checked.append(replace(each, draft=draft))
    return checked


def check_hashes(fingerprint: Fingerprint) -> None:
    """Raises LowInformation where a hash is of nothing, or of no picture."""
    for reason in _empty_hashes(fingerprint):
        raise LowInformation(f"{reason}: it would hit what has nothing to do with it; leave it out")


def _is_implausible(bits: Bits) -> bool:
    """Whether a row of (n, 32) uint8 is the PDQ of no picture."""
    # Runs for every row of a list of a million: numpy would take ten times as long.
    return any(int.from_bytes(row.tobytes()).bit_count() not in PDQ_ONES for row in bits)


# ---------------------------------------------------------------- the checks


def _too_little(prepared: Prepared, guard: BanChecksConfig) -> Iterator[str]:
    for content in prepared.contents:
        words = _words(content.text) if isinstance(content, TextContent) else guard.tokens_min
        if words < guard.tokens_min:
            yield f"a text of fewer than {guard.tokens_min} words: {words}"
    if any(_is_plain(report) for report in prepared.reports):
        yield "a picture that is blank, or too plain or too small to tell from others"
    yield from _empty_hashes(prepared.draft.fingerprint)


def _is_plain(report: SignalReport) -> bool:
    return report.signal == Signal.PDQ and report.state is SignalState.LOW_INFORMATION


def _words(text: str) -> int:
    normal = normalised(text)
    unspaced = len(_UNSPACED.findall(normal))
    spaced = [word for word in _UNSPACED.sub(" ", normal).split() if any(map(str.isalnum, word))]
    return len(spaced) + unspaced // 2


def _empty_hashes(fingerprint: Fingerprint) -> Iterator[str]:
    for signal, values in fingerprint.digests.items():
        if EMPTY.get(signal) in values:
            yield f"the {signal} of nothing at all"
    rows = fingerprint.bits.get(Signal.PDQ)
    if rows is not None and _is_implausible(rows):
        yield f"a pdq with fewer than {PDQ_ONES.start} or more than {PDQ_ONES.stop - 1} bits set"


def _banned_already(core: Core, bank: str, contents: Sequence[Content]) -> Iterator[str]:
    """For each content the reason that this bank blocks it already; empty where it does not."""
    if core.store.bank(bank).kind is not BankKind.BANNED:
        return iter([""] * len(contents))
    options = MatchOptions((bank,))
    outcomes: list[MatchResult | SimsearchError] = []
    try:
        for start in range(0, len(contents), MATCHED_AT_ONCE):
            outcomes += core.matcher.match(contents[start : start + MATCHED_AT_ONCE], options)
    except (BankNotFound, BankArchived):  # not searched yet, or not any more
        return iter([""] * len(contents))
    return (_by_which(o.hits, bank) if isinstance(o, MatchResult) else "" for o in outcomes)


def _by_which(hits: Iterable[Hit], bank: str) -> str:
    """Names the first entry that blocks the whole of the first frame, not a part; else empty."""
    keys = [h.entry_key for h in hits if h.bank == bank and _blocks_the_whole(h)]
    return f"entry {keys[0]} of this bank blocks it already" if keys else ""


def _blocks_the_whole(hit: Hit) -> bool:
    first = [e for e in hit.evidence if e.region is None and e.frame is None]
    whole = any(e.band is Band.BLOCK for e in first)
    return hit.band is Band.BLOCK and whole
