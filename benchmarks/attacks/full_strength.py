"""Full-strength figures: disguises of letters by others' generators, and the price of the forms.

char_full_mean       mean share of English texts found in every such disguise, under the default
                     policy of a new bank without an encoder: REVIEW or more; None where the
                     generators are not installed
false_equal_block    pairs of different words (FALSE_PAIRS) of which one is at BLOCK where the other
                     is banned
normalise_us         both forms of 160 characters, half of them in disguise: the least of the rounds
normalise_vs_before  how many times as long the older form takes, measured in turns
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from benchmarks.attacks.foreign_disguises import Disguise, foreign_disguises
from simsearch.bank.store import BankStore
from simsearch.encode.fingerprint import ContentFingerprint, ContentLimits, Fingerprinter
from simsearch.encode.registry import EncoderSet
from simsearch.encode.text.forms.older_form import older_form
from simsearch.encode.text.forms.text_forms import forms_of
from simsearch.encode.text.windows import TextLimits
from simsearch.encode.text_signals import CurrentSignals
from simsearch.errors import SimsearchError
from simsearch.live.follower import Follower
from simsearch.match.matcher import Matcher
from simsearch.match.policy import default_policy
from simsearch.types import (
    OLDER_FORM,
    Band,
    Edit,
    EntryDraft,
    MatchOptions,
    MatchResult,
    TextContent,
)

FALSE_PAIRS: Final = (
    ("sikildim artik bu isten cok sikildim", "sıkıldım artık bu işten çok sıkıldım"),
    ("They are planning World War III now", "They are planning World War II now"),
    ("Mẹ tôi bán bò ở chợ mỗi ngày", "Mẹ tôi bán bơ ở chợ mỗi ngày"),
    ("Tengo veinte anos y vivo en Madrid", "Tengo veinte años y vivo en Madrid"),
    ("eine Verbrennung Grad III erlitten", "eine Verbrennung Grad II erlitten"),
    ("er nennt uns die Masse von allem", "er nennt uns die Maße von allem"),
    ("the batteries are rated AAA today", "the batteries are rated AA today"),
    ("we sell a model of the a value", "we sell a model of the α value"),
    ("the wire is 5 um wide everywhere", "the wire is 5 μm wide everywhere"),
    ("this is what I love about us all", "this is what I love about 🇺🇸 all"),
)
CHARS: Final = 160
ROUNDS: Final = 30
_TWINS: Final = str.maketrans("aceopxyi", "асеорхуі")
_EDIT = Edit("benchmark", "full strength")


def full_strength_figures(banked: Sequence[str], seed: int) -> dict[str, object]:
    """The figures above, and the share found for each disguise."""
    try:
        found = _found_by_disguise(banked, foreign_disguises(), seed)
    except ImportError:
        found = {}
    microseconds, ratio = _price(banked, random.Random(seed))
    return {
        "char_full_mean": sum(found.values()) / len(found) if found else None,
        "char_full": found,
        "false_equal_block": sum(_at_block(one, other) for one, other in FALSE_PAIRS),
        "normalise_us": round(microseconds, 1),
        "normalise_vs_before": round(ratio, 2),
    }


# ---------------------------------------------------------------- recall


def _found_by_disguise(
    banked: Sequence[str], disguises: Mapping[str, Disguise], seed: int
) -> dict[str, float]:
    with _bank_of(banked) as ask:
        return {
            name: sum(
                number + 1 in _entries(ask(disguise(text, seed + number)), Band.REVIEW)
                for number, text in enumerate(banked)
            )
            / len(banked)
            for name, disguise in disguises.items()
        }


def _at_block(one: str, other: str) -> bool:
    with _bank_of([one]) as ask:
        return bool(_entries(ask(other), Band.BLOCK))


def _entries(result: MatchResult, band: Band) -> set[int]:
    """Numbers of the entries that reach the band, from 1."""
    return {hit.entry_key for hit in result.hits if hit.band >= band}


@contextmanager
def _bank_of(banked: Sequence[str]) -> Iterator[Callable[[str], MatchResult]]:
    """Asks a bank of these texts, under the default policy without an encoder."""
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(BankStore.open(Path(folder) / "bank", writer=True)) as store,
    ):
        yield _asker(Path(folder), store, banked)


def _asker(folder: Path, store: BankStore, banked: Sequence[str]) -> Callable[[str], MatchResult]:
    prints = Fingerprinter(EncoderSet({}), ContentLimits())
    store.create_bank("texts", "", default_policy(()), _EDIT)
    wanted = CurrentSignals({str(signal) for signal in OLDER_FORM})
    outcomes = prints.ban([TextContent(text) for text in banked], wanted=wanted)
    drafts = [EntryDraft(p.fingerprint) for p in outcomes if isinstance(p, ContentFingerprint)]
    store.add_entries("texts", drafts, _EDIT)
    follower = Follower(store, folder / "snapshots", frozenset())
    follower.start()
    follower.stop()  # the view stays: nothing more is banned
    matcher = Matcher(prints, follower, hits_max=100)

    def ask(text: str) -> MatchResult:
        [result] = matcher.match([TextContent(text)], MatchOptions(hits_max=100))
        if isinstance(result, SimsearchError):
            raise result
        return result

    return ask


# ---------------------------------------------------------------- price


def _price(texts: Sequence[str], rng: random.Random) -> tuple[float, float]:
    """Microseconds for both forms, and the older form's time over theirs."""
    mixed = _half_disguised(texts, rng)
    limits = TextLimits()
    new, old = [], []
    for _ in range(ROUNDS):
        new.append(_seconds(lambda text: forms_of(text, limits), mixed))
        old.append(_seconds(older_form, mixed))
    return min(new) / len(mixed) * 1e6, min(old) / min(new)


def _half_disguised(texts: Sequence[str], rng: random.Random) -> list[str]:
    long = " ".join(texts)
    parts = [long[i : i + CHARS] for i in range(0, min(len(long), 100 * CHARS) - CHARS + 1, CHARS)]
    return [
        " ".join(w.translate(_TWINS) if rng.random() < 0.5 else w for w in part.split())
        for part in parts
    ]


def _seconds(form: Callable[[str], object], texts: Sequence[str]) -> float:
    begun = time.perf_counter()
    for text in texts:
        form(text)
    return time.perf_counter() - begun
