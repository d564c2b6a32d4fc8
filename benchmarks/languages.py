"""Which languages does a sentence encoder tell apart?

    python -m benchmarks.languages [--encoder NAME] [--texts N] [--json]

For each of eleven languages (HateCheck in English, multilingual HateCheck in the others), N texts
of different templates. `unrelated` is the mean cosine of two of them, `review` the share of pairs
at or above the encoder's own REVIEW threshold, `found` the share of texts of which a copy without
every fourth word lies nearer than all but 1 in 1,000 unrelated pairs of that language. For each
script: how near unrelated sentences lie, as the encoder measures it at load
(encoders/blindness.py).
"""

from __future__ import annotations

import argparse
import csv
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.attacks.tables import print_table
from benchmarks.report import finish
from simsearch.config import default_encoders
from simsearch.encode.encoders.blindness import NEARNESS_MAX, nearness_of
from simsearch.encode.encoders.sentence import SentenceEncoder, load_sentence
from simsearch.encode.text.forms.text_forms import normalised
from simsearch.encode.text.script_samples import SAMPLES
from simsearch.errors import BadConfig
from simsearch.types import Vectors

SHARED: Final = Path(__file__).parents[2] / "shared" / "data" / "text"
LANGUAGES: Final = (
    "english", "dutch", "french", "german", "italian", "polish", "portuguese", "spanish", "arabic",
    "hindi", "mandarin",
)  # fmt: skip
UNSPACED: Final = ("mandarin",)
RATE: Final = 1e-3


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--encoder", default="minilm", help="of the default configuration")
    parser.add_argument("--texts", type=int, default=300)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    config = default_encoders()[options.encoder]
    encoder = load_sentence(config.model, device="cpu")
    rows = [_measured(lang, options.texts, encoder, config.thresholds.review) for lang in LANGUAGES]
    scripts = nearness_of(SAMPLES, encoder.encode_texts)
    if not options.json:
        print_table("languages", rows, [])
        near = [{"script": s, "nearness": round(n, 2)} for s, n in scripts.items()]
        print_table("scripts", near, [f"an encoder is silent above {NEARNESS_MAX}"])
    figures = {
        "languages": {str(row.pop("language")): row for row in rows},
        "nearness": {script: round(value, 3) for script, value in scripts.items()},
    }
    finish("languages", [], {}, figures, as_json=True)


def _measured(
    language: str, count: int, encoder: SentenceEncoder, review: float | None
) -> dict[str, object]:
    rng = random.Random(0)
    texts = _texts(language, count, rng)
    copies = [_without_some_words(text, language) for text in texts]
    vectors, edited = (_encoded(encoder, part) for part in (texts, copies))
    pairs = (vectors @ vectors.T)[np.triu_indices(len(texts), 1)]
    limit = np.quantile(pairs, 1 - RATE)
    copied = np.einsum("ij,ij->i", vectors, edited)
    silent = sum(map(bool, encoder.blind_to([normalised(text) for text in texts])))
    return {
        "language": language,
        "texts": len(texts),
        "unrelated": round(float(pairs.mean()), 3),
        "review": round(float((pairs >= (review or 1.0)).mean()), 5),
        "found": round(float((copied > limit).mean()), 3),
        "silent": round(silent / len(texts), 3),
    }


def _encoded(encoder: SentenceEncoder, texts: Sequence[str]) -> Vectors:
    return encoder.encode_texts([normalised(text) for text in texts])


def _without_some_words(text: str, language: str) -> str:
    words: Sequence[Any] = text if language in UNSPACED else text.split()
    kept = [word for number, word in enumerate(words) if number % 4 != 3]
    return ("" if language in UNSPACED else " ").join(kept)


def _texts(language: str, count: int, rng: random.Random) -> list[str]:
    """One of each template, so that none rewords another. Raises BadConfig without the files."""
    name = "hatecheck_test_suite_cases" if language == "english" else f"mhc_{language}"
    path = SHARED / f"{name}.csv"
    if not path.is_file():
        raise BadConfig(f"{path.name} is not there: see benchmarks/README.md")
    with path.open(encoding="utf-8", newline="") as file:
        by_template = {row["case_templ"]: row["test_case"] for row in csv.DictReader(file)}
    texts = sorted(by_template.values())
    rng.shuffle(texts)
    return texts[:count]


if __name__ == "__main__":
    main()
