"""Bans that say too little, or nothing new: they are held until a second person has looked.

A ban of a blank picture, of a greeting or of the hash of an empty file would hit what has nothing
to do with it. Of lists, only hashes are looked at: the row is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Final

from simsearch.config import BanChecksConfig
from simsearch.encode.digests import md5, sha256, text_sha256
from simsearch.encode.text.normalise import normalise
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

LOOKED_AT_ONCE: Final = 32
"""Contents that are matched together: prints of more would fill memory."""

PDQ_ONES: Final = range(64, 193)
"""Of 256: PDQ compares with the median, so that about half of its bits are set. Far from it is a
hash that somebody made up, or one of a picture of nothing."""

EMPTY: Final = {
    Signal.SHA256: sha256(b""),
    Signal.MD5: md5(b""),
    Signal.TEXT_SHA256: text_sha256(""),
}

_UNSPACED: Final = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]"
)
"""Thai, Lao, Burmese, Khmer, kana and Han: written without spaces, some two signs a word."""


def held(core: Core, bank: str, prepared: Sequence[Prepared]) -> list[Prepared]:
    """The same, each with the reasons for which it is to be held, if there are any."""
    guard = core.config.ban_checks
    if not guard.enabled or not prepared:
        return list(prepared)
    known = _banned_already(core, bank, [content for p in prepared for content in p.contents])
    checked = []
    for each in prepared:
        found = [next(known) for _ in each.contents]
        reasons = (*_says_little(each, guard), *filter(None, found))
        draft = replace(each.draft, review_reasons=tuple(dict.fromkeys(reasons)))
        checked.append(replace(each, draft=draft))
    return checked


def check_hashes(fingerprint: Fingerprint) -> None:
    """Raises LowInformation."""
    for reason in _empty_hashes(fingerprint):
        raise LowInformation(f"{reason}: it would hit what has nothing to do with it; leave it out")


def _says_nothing(bits: Bits) -> bool:
    """Whether a row of (n, 32) uint8 is the PDQ of no picture."""
    # Of a list of a million rows, this is asked of each: numpy would take ten times as long.
    return any(int.from_bytes(row.tobytes()).bit_count() not in PDQ_ONES for row in bits)


# ---------------------------------------------------------------- what is looked at


def _says_little(prepared: Prepared, guard: BanChecksConfig) -> Iterator[str]:
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
    normal = normalise(text)
    unspaced = len(_UNSPACED.findall(normal))
    spaced = [word for word in _UNSPACED.sub(" ", normal).split() if any(map(str.isalnum, word))]
    return len(spaced) + unspaced // 2


def _empty_hashes(fingerprint: Fingerprint) -> Iterator[str]:
    for signal, values in fingerprint.digests.items():
        if EMPTY.get(signal) in values:
            yield f"the {signal} of nothing at all"
    rows = fingerprint.bits.get(Signal.PDQ)
    if rows is not None and _says_nothing(rows):
        yield f"a pdq with fewer than {PDQ_ONES.start} or more than {PDQ_ONES.stop - 1} bits set"


def _banned_already(core: Core, bank: str, contents: Sequence[Content]) -> Iterator[str]:
    """Of each content whether this very bank blocks it as it is; empty: it does not."""
    if core.store.bank(bank).kind is not BankKind.BANNED:
        return iter([""] * len(contents))
    options = MatchOptions((bank,))
    outcomes: list[MatchResult | SimsearchError] = []
    try:
        for start in range(0, len(contents), LOOKED_AT_ONCE):
            outcomes += core.matcher.match(contents[start : start + LOOKED_AT_ONCE], options)
    except (BankNotFound, BankArchived):  # it is not searched yet, or not any more
        return iter([""] * len(contents))
    return (_by_which(o.hits, bank) if isinstance(o, MatchResult) else "" for o in outcomes)


def _by_which(hits: Iterable[Hit], bank: str) -> str:
    """What is blocked for a part of it alone is new as a whole."""
    keys = [h.entry_key for h in hits if h.bank == bank and _blocks_the_whole(h)]
    return f"entry {keys[0]} of this bank blocks it already" if keys else ""


def _blocks_the_whole(hit: Hit) -> bool:
    whole = any(e.band is Band.BLOCK and e.region is None for e in hit.evidence)
    return hit.band is Band.BLOCK and whole
