"""What people do to banned content before they post it again. Deterministic, so a run repeats."""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Mapping

from PIL.Image import Image, Transpose

JPEG_QUALITY = 85

# ---------------------------------------------------------------- images


def resized(photo: Image) -> Image:
    return photo.resize((photo.width // 2, photo.height // 2))


def unchanged(photo: Image) -> Image:
    return photo


def cropped(photo: Image) -> Image:
    """A tenth of the width and height gone, from the edges."""
    dx, dy = photo.width // 20, photo.height // 20
    return photo.crop((dx, dy, photo.width - dx, photo.height - dy))


def flipped(photo: Image) -> Image:
    return photo.transpose(Transpose.FLIP_LEFT_RIGHT)


def rotated_90(photo: Image) -> Image:
    return photo.transpose(Transpose.ROTATE_90)


def greyscale(photo: Image) -> Image:
    return photo.convert("L")


def jpeg(photo: Image, quality: int = JPEG_QUALITY) -> bytes:
    out = io.BytesIO()
    photo.save(out, "JPEG", quality=quality)
    return out.getvalue()


IMAGE_EDITS: Mapping[str, tuple[Callable[[Image], Image], int]] = {
    "resize to half": (resized, JPEG_QUALITY),
    "recompress, JPEG q20": (unchanged, 20),
    "crop 10 %": (cropped, JPEG_QUALITY),
    "flip": (flipped, JPEG_QUALITY),
    "rotate 90°": (rotated_90, JPEG_QUALITY),
    "greyscale": (greyscale, JPEG_QUALITY),
}
"""Each edit with the JPEG quality that it is saved at."""

# ---------------------------------------------------------------- texts

LEET = str.maketrans({"a": "4", "e": "3", "i": "1", "o": "0", "s": "5"})
HOMOGLYPHS = str.maketrans({"a": "а", "e": "е", "o": "о", "p": "р", "c": "с", "x": "х"})
"""Latin letters to the Cyrillic ones that look the same."""


def typos(text: str) -> str:
    """One letter in sixteen swapped with its neighbour."""
    letters, chosen = list(text), random.Random(7)
    for _ in range(max(1, len(text) // 16)):
        i = chosen.randrange(len(letters) - 1)
        letters[i], letters[i + 1] = letters[i + 1], letters[i]
    return "".join(letters)


def leet(text: str) -> str:
    return text.translate(LEET)


def spaced(text: str) -> str:
    """Every word spelt out, its letters apart."""
    return "   ".join(" ".join(word) for word in text.split())


def homoglyphs(text: str) -> str:
    return text.translate(HOMOGLYPHS)


def dropped_words(text: str) -> str:
    """One word in eight gone."""
    return " ".join(word for i, word in enumerate(text.split()) if i % 8 != 5)


TEXT_EDITS: Mapping[str, Callable[[str], str]] = {
    "typos": typos,
    "leet": leet,
    "spaced letters": spaced,
    "homoglyphs": homoglyphs,
    "dropped words": dropped_words,
}
