"""Which disguised copies of banned photographs are found, by which descriptor, at what price?

    python -m benchmarks.image_attacks [--encoder NAME] [--photos DIR ...] [--held-out DIR ...]
        [--bank N] [--negatives N] [--pdq-bits N] [--split-seed S] [--animations N]
        [--before DIR] [--out DIR] [--json]

Every banked photograph is attacked in 46 ways that no training program of ours uses
(benchmarks/attacks); a copy is found when its own entry is hit. Photographs that are neither banked
nor shown beside an attacked one are negatives: a false positive is one that hits anything in the
bank. Thresholds are set on one half of them and false positives are counted in the other.

NAME is one or several, joined by +, of
    an encoder of the configuration (copyclip), an open_clip architecture/tag, a model's directory
    pdq            256 bits as they are, at --pdq-bits (31) or nearer
    pdq-dihedral   the same, asked in all eight ways that a picture can be turned and flipped
    digests        SHA-256 of the file

Beside it stand PDQ both ways, and the system: the encoder with pdq-dihedral and digests at the same
total rate of false positives, in a bank with that policy, asked through the real matcher with the
picture and with up to --regions pictures that are found in it. "wholes" are its parts at that rate
without those.

mean_recall_1e3   NAME's mean recall over all attacks, at 1 negative in 1,000 that hits anything;
                  geometry, overlay, tone, scene, chain: the same over attacks of that kind
system_mean       the system's, as the matcher answers
wholes_mean       that of its parts where nothing but whole pictures is asked
images_per_s      pictures that the encoder embeds on one core, decoding not counted
any_frame         share of animations (GIF, WebP, PNG; 5 to 60 frames) that are found by the banned
                  picture in a random frame, whole or built from tiles, at the shipped thresholds
images_vs_before  how many times as many single pictures a second are fingerprinted as by the code
                  in --before, in turns; decoder_vs_before: decoded in a worker alone
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np

from benchmarks.attacks.animations import FORMATS, animated
from benchmarks.attacks.decode_beside import times_as_fast
from benchmarks.attacks.descriptors import Cosine, Descriptor, Digest, Hamming, held_at
from benchmarks.attacks.drawing import Shown, draw
from benchmarks.attacks.judging import house
from benchmarks.attacks.measuring import (
    Measuring,
    Plan,
    Price,
    bank_of,
    column_beside,
    column_of,
    over_notes,
    price_figures,
    price_rows,
)
from benchmarks.attacks.photographs import CLOTHING, Cast, Photograph, cast, photographs_of
from benchmarks.attacks.pictures import ATTACKS, KINDS, Attack
from benchmarks.attacks.remembering import remembered
from benchmarks.attacks.results import CONTROL, Results
from benchmarks.attacks.statistics import FalsePositives, halves, is_supported
from benchmarks.attacks.systems import System, Thresholds
from benchmarks.attacks.tables import print_table
from benchmarks.report import finish
from simsearch.config import EncoderConfig, LimitsConfig, default_encoders
from simsearch.encode.encoder_protocol import ImageEncoder
from simsearch.encode.image.preprocess import Preprocess
from simsearch.encode.registry import EncoderSet, EncoderSpec, load_encoders
from simsearch.errors import BadConfig
from simsearch.match.policy import PDQ_DEFAULT
from simsearch.types import ImageContent, Modality, Signal

BANK: Final = 300
ANIMATIONS: Final = 50
RATES: Final = {"1e3": 1e-3, "1e4": 1e-4}
"""Of false positives a negative; the first is always reported, others where the negatives carry
them."""

PDQ: Final = Hamming("pdq", Signal.PDQ, upright=True, whole=True)
DIHEDRAL: Final = Hamming("pdq-dihedral", Signal.PDQ, whole=True)
DIGESTS: Final = Digest("digests", Signal.SHA256)
PDQ_BITS: Final = 31

SYSTEM: Final = "system"
WHOLES: Final = "wholes"
PARTS: Final = "+regions"
THREADS: Final = 2
TIMED_IMAGES, TIMED_ROUNDS = 64, 5


@dataclass(frozen=True)
class Run:
    plan: Plan
    cast: Cast
    setting: int
    """How many negatives set the thresholds."""
    prices: Mapping[str, Price]
    results: Results
    differing: int
    regions: Mapping[str, float]
    images_per_s: Mapping[str, float]
    seconds: float
    any_frame: Mapping[str, float] = field(default_factory=dict)
    beside: Mapping[str, float] = field(default_factory=dict)

    @property
    def columns(self) -> list[str]:
        return list(self.prices)

    @property
    def subject(self) -> System:
        return self.plan.subjects[0]


def main() -> None:
    options = _parser().parse_args()
    begun = time.perf_counter()
    held_out = options.held_out if options.held_out is not None else _clothing()
    photographs = photographs_of(options.photos, held_out)
    players = cast(photographs, options.bank, options.negatives, options.split_seed)
    setting = len(players.negatives) // 2
    encoders = encoders_of(options.encoder)
    plan = plan_of(options.encoder, encoders, options.pdq_bits, setting)
    speeds = {_short(e.name): images_per_s(e.image) for e in encoders if e.image}
    measuring, results = measured(
        plan,
        players,
        remembered(encoders, options.cache),
        options.split_seed,
        regions_max=options.regions,
    )
    run = Run(
        plan,
        players,
        setting,
        measuring.prices,
        results,
        measuring.differing,
        measuring.regions,
        speeds,
        time.perf_counter() - begun,
        found_in_frames(players, encoders, options.animations, options.split_seed),
        times_as_fast(options.before, [p.data for p in players.banked]) if options.before else {},
    )
    report(run, options.json, options.out)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--encoder", default="copyclip", metavar="NAME")
    parser.add_argument(
        "--photos", type=Path, action="append", default=[], metavar="DIR", help="all below it"
    )
    parser.add_argument(
        "--held-out",
        type=Path,
        action="append",
        metavar="DIR",
        help="below it one photograph in five, those never trained on; the shared clothing if "
        "nothing else is named",
    )
    parser.add_argument("--bank", type=int, default=BANK, metavar="N")
    parser.add_argument("--negatives", type=int, metavar="N", help="as many as there are")
    parser.add_argument("--pdq-bits", type=int, default=PDQ_BITS, metavar="N")
    parser.add_argument(
        "--regions",
        type=int,
        default=LimitsConfig().image_regions_max,
        metavar="N",
        help="of a picture, that the system asks with; 0: none",
    )
    parser.add_argument(
        "--animations", type=int, default=ANIMATIONS, metavar="N", help="of each kind; 0: none"
    )
    parser.add_argument(
        "--before", type=Path, metavar="DIR", help="a checkout of the code to be compared with"
    )
    parser.add_argument("--split-seed", type=int, default=0, metavar="S")
    parser.add_argument("--out", type=Path, metavar="DIR", help="draw image_attacks.png there")
    parser.add_argument("--json", action="store_true", help="print the JSON line alone")
    default = Path(tempfile.gettempdir()) / "simsearch-bench" / "attacks"
    parser.add_argument("--cache", type=Path, default=default, help="where vectors are kept")
    return parser


def _clothing() -> list[Path]:
    return [CLOTHING] if CLOTHING.is_dir() else []


# ---------------------------------------------------------------- what is asked


def encoders_of(name: str) -> EncoderSet:
    """The encoders among the parts of NAME. Raises SpaceUnavailable for one whose weights are not
    here, BadConfig for what is no encoder of images."""
    known = default_encoders()
    specs = []
    for part in _parts_of(name):
        if part in (PDQ.name, DIHEDRAL.name, DIGESTS.name):
            continue
        config = known.get(part, EncoderConfig("open_clip", part))
        if config.kind != "open_clip":
            raise BadConfig(f"{part!r} encodes texts: benchmarks.text_attacks asks about those")
        specs.append(EncoderSpec(part, config.kind, config.model, device=config.device))
    encoders = load_encoders(specs, THREADS)
    for spec in specs:
        encoders.resolve(spec.name)
    return encoders


def _parts_of(name: str) -> list[str]:
    parts = list(dict.fromkeys(part.strip() for part in name.split("+")))
    if "" in parts:
        raise BadConfig(f"{name!r} has an empty part: write names with one + between them")
    return parts


def plan_of(name: str, encoders: EncoderSet, pdq_bits: int, negatives: int) -> Plan:
    """The named descriptors, and the system around their encoders; `negatives` set thresholds."""
    cosines = {
        e.name: Cosine(_short(e.name), e.space.id, Modality.IMAGE, whole=True)
        for e in encoders
        if e.space
    }
    pdq, dihedral = held_at(PDQ, pdq_bits), held_at(DIHEDRAL, pdq_bits)
    parts: dict[str, Descriptor] = {p.name: p for p in (pdq, dihedral, DIGESTS)}
    subject = tuple({**cosines, **parts}[part] for part in _parts_of(name))
    label = "+".join(part.name for part in subject)
    wholes: list[Cosine | Hamming] = [*cosines.values(), dihedral]
    with_regions = (replace(p, name=p.name + PARTS, whole=False) for p in wholes)
    return Plan(
        (System(label, subject), System(WHOLES, (*wholes, DIGESTS))),
        (pdq, dihedral),
        System(SYSTEM, (*with_regions, DIGESTS)),
        _carried(negatives),
    )


def _carried(negatives: int) -> dict[str, float]:
    """The first rate whether the negatives carry it or not."""
    first, *others = RATES
    return {
        rate: RATES[rate]
        for rate in (first, *others)
        if rate == first or is_supported(RATES[rate], negatives)
    }


def _short(name: str) -> str:
    """A directory by its last part."""
    return Path(name).name if Path(name).is_dir() else name


def images_per_s(encoder: ImageEncoder) -> float:
    """On one core, by CPU time, as a shared machine has it."""
    import torch

    way = getattr(encoder, "preprocess", None)
    width, height = way.size if isinstance(way, Preprocess) else (224, 224)
    rng = np.random.default_rng(0)
    pixels = [rng.integers(0, 256, (height, width, 3), np.uint8) for _ in range(TIMED_IMAGES)]
    torch.set_num_threads(1)
    encoder.encode_images(pixels)
    seconds = []
    for _ in range(TIMED_ROUNDS):
        begun = time.process_time()
        encoder.encode_images(pixels)
        seconds.append(time.process_time() - begun)
    torch.set_num_threads(THREADS)
    return TIMED_IMAGES / median(seconds)


# ---------------------------------------------------------------- measuring


def measured(
    plan: Plan,
    players: Cast,
    encoders: EncoderSet,
    seed: int,
    attacks: Sequence[Attack] = ATTACKS,
    regions_max: int = 0,
) -> tuple[Measuring, Results]:
    """Thresholds from one half of the negatives, then every attack on every banked photograph."""
    split = halves(len(players.negatives), seed)
    negatives = _contents(players.negatives)
    banned = _contents(players.banked)
    names = [bank_of(rate) for rate in plan.rates]
    with house(banned, names, plan.parts, encoders, regions_max) as banks:
        measuring = Measuring(plan, banks)
        measuring.set_thresholds(*([negatives[n] for n in part] for part in split))
        tried = [measuring.tried("unchanged", CONTROL, banned)]
        for attack, files in _attacked(players, attacks, seed):
            copies = [ImageContent(file) for file in files]
            tried.append(measuring.tried(attack.name, attack.kind, copies))
    return measuring, Results(tried)


def _contents(photographs: Sequence[Photograph]) -> list[ImageContent]:
    return [ImageContent(photograph.data) for photograph in photographs]


def _attacked(
    players: Cast, attacks: Sequence[Attack], seed: int
) -> Iterator[tuple[Attack, list[bytes]]]:
    pictures = [photograph.picture() for photograph in players.banked]
    props = [photograph.picture() for photograph in players.props]
    with ThreadPoolExecutor(THREADS) as threads:
        for attack in attacks:
            file = partial(attack.file, seed=seed, props=props)
            yield attack, list(threads.map(file, pictures, range(len(pictures))))


def found_in_frames(players: Cast, encoders: EncoderSet, count: int, seed: int) -> dict[str, float]:
    """Of animations with a banned picture in one frame, the share by kind in which its entry is
    found at the thresholds that a new bank has."""
    banked = players.banked[:count]
    if not banked:
        return {}
    parts, policy = _shipped(encoders)
    props = [photograph.picture() for photograph in players.props]
    found = {}
    with house(_contents(players.banked), ["frames"], parts, encoders, 0) as banks:
        banks.set_policy("frames", policy)
        for format, built in product(FORMATS, (False, True)):
            rng = np.random.default_rng(seed)
            files = [animated(p.picture(), props, format, built, rng) for p in banked]
            contents = [ImageContent(file) for file in files]
            judged = banks.judge("frames", contents, range(len(banked)))
            found[f"{format} built" if built else format] = float(judged.found.mean())
    return found


def _shipped(encoders: EncoderSet) -> tuple[list[Descriptor], Thresholds]:
    """REVIEW of a new bank: that of PDQ, and of those encoders that have defaults."""
    known = default_encoders()
    at = {DIHEDRAL.name: -float(PDQ_DEFAULT["review"])}
    parts: list[Descriptor] = [DIHEDRAL]
    for encoder in encoders:
        thresholds = known[encoder.name].thresholds if encoder.name in known else None
        if encoder.space and thresholds and thresholds.review is not None:
            name = _short(encoder.name)
            parts.append(Cosine(name, encoder.space.id, Modality.IMAGE))
            at[name] = thresholds.review
    return parts, Thresholds(System("shipped", tuple(parts)), at, 0, 0)


# ---------------------------------------------------------------- reporting


def report(run: Run, as_json: bool, out: Path | None) -> None:
    notes = _notes(run)
    if not as_json:
        _print_tables(run, notes)
    if out is not None:
        draw(_shown(run), out / "image_attacks.png")
    finish("image_attacks", [], _ratios(run), _figures(run, notes), as_json=True)


def _print_tables(run: Run, notes: Sequence[str]) -> None:
    print_table(
        "image_attacks: recall of the copies, % (95 % interval)",
        run.results.recall_rows(run.columns, "attack"),
    )
    print_table(
        f"who found them in the system at {run.plan.main_rate}, % of the copies",
        run.results.sharing_rows("attack"),
    )
    print_table("mean recall, % (95 % interval)", run.results.means(run.columns, KINDS))
    covers = run.results.covers()
    print_table(
        "copies that the one on the left found and the other missed, % (the matcher's evidence)",
        [
            {"found by": a} | {f"missed by {b}": f"{100 * share:.1f}" for b, share in row.items()}
            for a, row in covers.items()
        ],
    )
    print_table("what it costs", price_rows(run.prices), notes)


def _notes(run: Run) -> list[str]:
    reporting = len(run.cast.negatives) - run.setting
    high = FalsePositives(0, reporting).bounds[1]
    notes = [
        f"{run.setting} negatives set the thresholds and {reporting} others were counted; none of "
        f"so many would show no more than that the rate is below {high:.2%} (95 %)"
    ]
    for rate, fpr in RATES.items():
        if not is_supported(fpr, run.setting):
            needed = round(2 / fpr)
            end = (
                "the threshold lies above every one of them, and the rate in truth may be higher"
                if rate in run.plan.rates
                else "no figure is given"
            )
            notes.append(
                f"{rate}: {run.setting} negatives cannot carry a rate of {fpr:g}, which takes "
                f"{needed:,} in all: {end}"
            )
    found = max((share, name) for name, share in run.regions.items())
    notes.insert(
        1,
        f"pictures found in one, on average: {run.regions['negatives']:.2f} of the negatives, "
        f"{found[0]:.2f} where there were most ({found[1]})",
    )
    return [*notes, run.results.exchanged_note(), *over_notes(run.prices)]


def _ratios(run: Run) -> dict[str, float]:
    """How many times the recall of the better of its two kinds of parts the system has."""
    system, better = _system_mean(run), _better(run)
    return {"system_vs_better": system / better} if better else {}


def _system_mean(run: Run) -> float:
    return run.results.mean(column_of(run.plan.system, run.plan.main_rate)).value


def _better(run: Run) -> float:
    """Of the subject alone and PDQ dihedral alone."""
    columns = (column_of(run.subject, run.plan.main_rate), column_beside(run.plan.beside[-1]))
    return max(run.results.mean(column).value for column in columns)


def _figures(run: Run, notes: Sequence[str]) -> dict[str, object]:
    main, results = run.plan.main_rate, run.results
    subject, system = column_of(run.subject, main), column_of(run.plan.system, main)
    means = {
        f"mean_recall_{rate}": results.mean(column_of(run.subject, rate)).figures()[0]
        if rate in run.plan.rates
        else None
        for rate in RATES
    }
    return {
        "encoder": run.subject.name,
        **means,
        **{kind: results.mean(subject, (kind,)).figures()[0] for kind in KINDS},
        "system_mean": results.mean(system).figures()[0],
        "wholes_mean": results.mean(column_of(run.plan.subjects[1], main)).figures()[0],
        "system_gain": round(_system_mean(run) - _better(run), 4),
        "means": {
            column: {"all": results.mean(column).figures()}
            | {kind: results.mean(column, (kind,)).figures() for kind in KINDS}
            for column in run.columns
        },
        "images_per_s": {name: round(speed, 1) for name, speed in run.images_per_s.items()},
        "means_exchanged": results.exchanged(),
        "attacks": len(results.attacks),
        "photographs": run.cast.figures() | {"setting": run.setting},
        "supported": {rate: is_supported(fpr, run.setting) for rate, fpr in RATES.items()},
        "false_positives": price_figures(run.prices),
        "covers": results.covers(),
        "recall": results.recalls(run.columns),
        "matcher_differs": run.differing,
        "regions": {name: round(share, 3) for name, share in run.regions.items()},
        "any_frame": round(min(run.any_frame.values()), 4) if run.any_frame else None,
        "any_frame_by_kind": {kind: round(share, 4) for kind, share in run.any_frame.items()},
        **{f"{what}_vs_before": round(times, 3) for what, times in run.beside.items()},
        "seconds": round(run.seconds),
        "notes": list(notes),
    }


def _shown(run: Run) -> Shown:
    tried = run.results.tried
    price = run.prices[column_of(run.plan.system, run.plan.main_rate)]
    sharing = [one.sharing() for one in tried]
    means = ", ".join(f"{column} {run.results.mean(column)}" for column in run.columns)
    return Shown(
        title=f"{run.subject.name}: {len(run.results.attacks)} attacks on "
        f"{len(run.cast.banked)} banked photographs",
        rows=[one.name for one in tried],
        groups=[one.kind for one in tried],
        shares={c: [one.recall(c).share for one in tried] for c in run.columns},
        parts={name: [one[name] for one in sharing] for name in sharing[0]},
        footnote=f"mean recall, %: {means}\nfalse positives of the system, out of sample: "
        f"{price.fpr}",
    )


if __name__ == "__main__":
    main()
