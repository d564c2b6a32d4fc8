"""Which disguised copies of banned texts are found, by which signal, at what price?

    python -m benchmarks.text_attacks [--bank N] [--negatives N] [--encoder NAME] [--split-seed S]
        [--out DIR] [--json]

Every banked text is edited in 25 ways (benchmarks/attacks/edits.py); a copy is found when its own
entry is hit. Negatives are texts that reword none of those banked (benchmarks/attacks/posts.py says
how that is made sure of). Thresholds are set on one half of them, so that none of it hits anything
in the bank ("0fp"), or 1 in 1,000 does ("1e3"); false positives are counted in the other half.

Signals: text_strong_sha256, minhash, the sentence encoder, and the system of all three,
asked through the real matcher. Beside them stand the thresholds that a new bank gets.

text_char_mean   mean recall over the edits of letters and signs, by the system, where none of the
                 setting negatives hits anything
minimal_pairs    share of HateCheck's opposites of banked texts ("I don't hate X") that hit: they
                 are no copies, and no threshold on likeness tells them apart

typo_15, vowels_dropped, vowels_starred, stretched, first_half
                 per cent of the banked texts found by the wide sketch alone, at the REVIEW
                 threshold of a new bank
short_in_long_min  the same of banned sentences of 5 to 12 words inside 80 others; worst
                 language
unrelated_review_max  per cent of unrelated texts at REVIEW in a bank of 600; worst of 11 languages
                 and 25 scripts
sketches_us      microseconds for the sketches of a text of 160 characters, in batches of 64
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from benchmarks.attacks.descriptors import Cosine, Digest, Hamming, held_at
from benchmarks.attacks.drawing import Shown, draw
from benchmarks.attacks.edits import CHARACTER, KINDS, TEXT_ATTACKS
from benchmarks.attacks.full_strength import full_strength_figures
from benchmarks.attacks.judging import house
from benchmarks.attacks.measuring import (
    Measuring,
    Plan,
    Price,
    bank_of,
    column_of,
    price_figures,
    price_rows,
)
from benchmarks.attacks.posts import Posts, posts
from benchmarks.attacks.remembering import remembered
from benchmarks.attacks.results import CONTROL, Results
from benchmarks.attacks.sketching import sketch_figures
from benchmarks.attacks.statistics import FalsePositives, halves
from benchmarks.attacks.systems import System
from benchmarks.attacks.tables import print_table
from benchmarks.report import finish
from simsearch.config import default_encoders
from simsearch.encode.registry import EncoderSet, EncoderSpec, load_encoders
from simsearch.match.policy import MINHASH_DEFAULT
from simsearch.types import Modality, Signal, TextContent

BANK: Final = 900
NEGATIVES_MIN: Final = 2_000
"""Fewer, of those that set thresholds, would be less than was asked for."""

FULL_STRENGTH_EVERY: Final = 3
"""Of the banked texts every third is tried in the disguises of others' generators."""

RATES: Final = {"0fp": 0.0, "1e3": 1e-3}
THREADS: Final = 2

DIGEST: Final = Digest("text_strong_sha256", Signal.TEXT_STRONG_SHA256)
MINHASH: Final = Hamming("minhash", Signal.MINHASH)
SYSTEM: Final = "system"


@dataclass(frozen=True)
class Run:
    plan: Plan
    posts: Posts
    setting: int
    prices: Mapping[str, Price]
    results: Results
    pairs: FalsePositives
    differing: int
    seconds: float

    @property
    def columns(self) -> list[str]:
        return list(self.prices)

    @property
    def main_column(self) -> str:
        return column_of(self.plan.system, self.plan.main_rate)


def main() -> None:
    options = _parser().parse_args()
    begun = time.perf_counter()
    texts = posts(options.bank, options.negatives, options.split_seed)
    encoders = remembered(encoders_of(options.encoder), options.cache)
    plan = plan_of(options.encoder, encoders)
    run = measured(plan, texts, encoders, options.split_seed, begun)
    more = sketch_figures(texts.banked, texts.filler)
    more |= full_strength_figures(texts.banked[::FULL_STRENGTH_EVERY], seed=0)
    report(run, options.json, options.out, more)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--encoder",
        default="minilm",
        metavar="NAME",
        help="of the configuration, or as its `model` names one",
    )
    parser.add_argument("--bank", type=int, default=BANK, metavar="N")
    parser.add_argument("--negatives", type=int, metavar="N", help="as many as there are")
    parser.add_argument("--split-seed", type=int, default=0, metavar="S")
    parser.add_argument("--out", type=Path, metavar="DIR", help="draw text_attacks.png there")
    parser.add_argument("--json", action="store_true", help="print the JSON line alone")
    default = Path(tempfile.gettempdir()) / "simsearch-bench" / "attacks"
    parser.add_argument("--cache", type=Path, default=default, help="where vectors are kept")
    return parser


def encoders_of(name: str) -> EncoderSet:
    """Raises SpaceUnavailable for an encoder whose weights are not here."""
    config = default_encoders().get(name)
    kind, model = (config.kind, config.model) if config else ("sentence-transformers", name)
    encoders = load_encoders([EncoderSpec(name, kind, model, device="cpu")], THREADS)
    encoders.resolve(name)
    return encoders


def plan_of(name: str, encoders: EncoderSet) -> Plan:
    space = encoders.resolve(name).space
    assert space is not None  # resolve() refuses encoders that are off
    cosine = Cosine(name, space.id, Modality.TEXT)
    config = default_encoders().get(name)
    review = config.thresholds.review if config else None
    default_cosine = Cosine(f"{name} default", space.id, Modality.TEXT, fixed=review)
    default_minhash = Hamming("minhash default", Signal.MINHASH)
    return Plan(
        [System(part.name, (part,)) for part in (MINHASH, cosine)],
        [
            DIGEST,
            held_at(default_minhash, MINHASH_DEFAULT["review"]),
            *([default_cosine] if review is not None else []),
        ],
        System(SYSTEM, (DIGEST, MINHASH, cosine)),
        RATES,
    )


def measured(plan: Plan, texts: Posts, encoders: EncoderSet, seed: int, begun: float) -> Run:
    """Thresholds from one half of the negatives, then every edit on every banked text."""
    banned, negatives = _contents(texts.banked), _contents(texts.negatives)
    split = halves(len(negatives), seed)
    with house(banned, [bank_of(rate) for rate in plan.rates], plan.parts, encoders) as banks:
        measuring = Measuring(plan, banks)
        measuring.set_thresholds(*([negatives[n] for n in part] for part in split))
        hits = banks.judge(bank_of(plan.main_rate), _contents(texts.minimal_pairs)).hit
        tried = [measuring.tried("unchanged", CONTROL, banned)]
        for attack in TEXT_ATTACKS:
            copies = [
                attack.text(text, number, seed=seed, filler=texts.filler)
                for number, text in enumerate(texts.banked)
            ]
            tried.append(measuring.tried(attack.name, attack.kind, _contents(copies)))
    return Run(
        plan,
        texts,
        len(split.setting),
        measuring.prices,
        Results(tried),
        FalsePositives(int(hits.sum()), len(hits)),
        measuring.differing,
        time.perf_counter() - begun,
    )


def _contents(texts: Sequence[str]) -> list[TextContent]:
    return [TextContent(text) for text in texts]


# ---------------------------------------------------------------- reporting


def report(
    run: Run, as_json: bool, out: Path | None, more: Mapping[str, object] = MappingProxyType({})
) -> None:
    """`more`: figures of the defaults of a new bank, which this run's thresholds do not touch."""
    if not as_json:
        _print_tables(run)
    if out is not None:
        draw(_shown(run), out / "text_attacks.png")
    finish("text_attacks", [], _ratios(run), _figures(run) | dict(more), as_json=True)


def _print_tables(run: Run) -> None:
    print_table(
        "text_attacks: recall of the copies, % (95 % interval)",
        run.results.recall_rows(run.columns, "edit"),
    )
    print_table(
        f"who found them in the system at {run.plan.main_rate}, % of the copies",
        run.results.sharing_rows("edit"),
    )
    print_table("mean recall, % (95 % interval)", run.results.means(run.columns, KINDS))
    print_table("what it costs", price_rows(run.prices), _notes(run))


def _notes(run: Run) -> list[str]:
    out = run.posts.left_out
    notes = [
        f"{run.setting} negatives set the thresholds, {len(run.posts.negatives) - run.setting} "
        f"others were counted; left out as rewordings of banked texts: {out['template']} by their "
        f"template, {out['words']} by their words",
        f"minimal pairs that hit, at {run.plan.main_rate}: {run.pairs}",
        run.results.exchanged_note(),
    ]
    if run.setting < NEGATIVES_MIN:
        notes.append(f"0fp is of {run.setting} negatives: {NEGATIVES_MIN} were asked for")
    return notes


def _ratios(run: Run) -> dict[str, float]:
    """How many times the recall of its best part the system has."""
    main = run.plan.main_rate
    best = max(run.results.mean(column_of(s, main)).value for s in run.plan.subjects)
    return {"system_vs_best": run.results.mean(run.main_column).value / best} if best else {}


def _figures(run: Run) -> dict[str, object]:
    results = run.results
    return {
        "text_char_mean": results.mean(run.main_column, (CHARACTER,)).figures()[0],
        "system_mean": results.mean(run.main_column).figures()[0],
        "means": {
            column: {"all": results.mean(column).figures()}
            | {kind: results.mean(column, (kind,)).figures() for kind in KINDS}
            for column in run.columns
        },
        "means_exchanged": results.exchanged(),
        "edits": len(results.attacks),
        "texts": {
            "banked": len(run.posts.banked),
            "negatives": len(run.posts.negatives),
            "setting": run.setting,
            "left_out": run.posts.left_out,
        },
        "supported": run.setting >= NEGATIVES_MIN,
        "false_positives": price_figures(run.prices),
        "minimal_pairs": run.pairs.figures(),
        "covers": results.covers(),
        "recall": results.recalls(run.columns),
        "matcher_differs": run.differing,
        "seconds": round(run.seconds),
    }


def _shown(run: Run) -> Shown:
    tried = run.results.tried
    sharing = [one.sharing() for one in tried]
    means = ", ".join(f"{column} {run.results.mean(column)}" for column in run.columns)
    return Shown(
        title=f"{len(run.results.attacks)} edits of {len(run.posts.banked)} banked texts",
        rows=[one.name for one in tried],
        groups=[one.kind for one in tried],
        shares={c: [one.recall(c).share for one in tried] for c in run.columns},
        parts={name: [one[name] for one in sharing] for name in sharing[0]},
        footnote=f"mean recall, %: {means}\nfalse positives of the system, out of sample: "
        f"{run.prices[run.main_column].fpr}",
    )


if __name__ == "__main__":
    main()
