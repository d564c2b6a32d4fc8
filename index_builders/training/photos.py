"""Photograph cache: every picture decoded once into one file of pixels, mapped into memory."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from index_builders.report.progress import Progress, silent
from index_builders.training.run_config import TRAIN, DataConfig, Source
from simsearch.encode.encoder_protocol import Pixels
from simsearch.encode.image.picture import ImageLimits, open_picture
from simsearch.errors import BadConfig, BadInput, Corrupt

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")

DETAIL_MIN = 6.0
"""Mean difference of neighbouring pixels, of 255, below which a tile is sky or wall and cannot be
recognised. Measured in grey at 16 × 16, so that neither noise nor a soft gradient counts."""

_DETAIL_PX = 16

_LIMITS = ImageLimits(bytes_max=200_000_000)
_PIXELS, _NAMES = "photos.bin", "photos.json"


@dataclass(frozen=True)
class Photo:
    """`name` is folder/file, with #n for a tile; `at` is where its pixels begin, in bytes."""

    name: str
    source: str
    held_out: bool
    at: int
    height: int
    width: int


class Photos:
    """Photographs by number; pixels are read from the file on access."""

    def __init__(self, photos: Sequence[Photo], pixels: npt.NDArray[np.uint8]) -> None:
        self.photos = tuple(photos)
        self._pixels = pixels

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, number: int) -> Pixels:
        """(height, width, 3) uint8, not to be written to."""
        photo = self.photos[number]
        size = photo.height * photo.width * 3
        flat = self._pixels[photo.at : photo.at + size]
        return flat.reshape(photo.height, photo.width, 3)

    def trained_on(self) -> Photos:
        """The photographs of the training part."""
        return Photos([p for p in self.photos if not p.held_out], self._pixels)

    def held_out(self) -> Photos:
        """The photographs of the held-out part."""
        return Photos([p for p in self.photos if p.held_out], self._pixels)


def is_held_out(file_name: str, source: Source, one_in: int) -> bool:
    """By the name alone, so that the same photograph is held out in every run and on every
    machine."""
    number = int.from_bytes(sha256(file_name.encode()).digest()[:8], "big")
    return source.use != TRAIN or number % one_in == 0


def load_photos(data: Path, config: DataConfig, cache: Path, progress: Progress = silent) -> Photos:
    """Every photograph of every source, from `cache` if that was made of the same files.

    Files that are not pictures are left out; a source without any is an error. Raises BadConfig
    (naming the folder) and Corrupt (the cache has the wrong length).
    """
    files = [(source, path) for source in config.sources for path in _files(data, source)]
    digest = _digest(files, config)
    cache.mkdir(parents=True, exist_ok=True)
    if not _is_of(cache, digest):
        _decode(files, config, cache, digest, progress)
    return _open(cache)


def _files(data: Path, source: Source) -> list[Path]:
    folder = data / source.folder
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    if not files:
        raise BadConfig(f"{folder} has no photographs: name a folder with {', '.join(SUFFIXES)}")
    return files


def _digest(files: list[tuple[Source, Path]], config: DataConfig) -> str:
    said = [(s.folder, s.use, path.name, path.stat().st_size) for s, path in files]
    sizes = (config.side_px, config.tile_px, config.held_out_one_in, DETAIL_MIN)
    return sha256(repr((said, sizes)).encode()).hexdigest()


def _is_of(cache: Path, digest: str) -> bool:
    try:
        said = json.loads((cache / _NAMES).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(said.get("digest") == digest)


def _decode(
    files: list[tuple[Source, Path]],
    config: DataConfig,
    cache: Path,
    digest: str,
    progress: Progress,
) -> None:
    """The list of names is renamed into place last: without it the pixels are made again."""
    (cache / _NAMES).unlink(missing_ok=True)
    photos: list[Photo] = []
    at = 0
    with (cache / _PIXELS).open("wb") as out:
        for done, (source, path) in enumerate(files):
            progress("decoding", done, len(files), "files")
            held_out = is_held_out(path.name, source, config.held_out_one_in)
            for number, pixels in enumerate(_pieces(path, config)):
                name = f"{source.folder}/{path.name}" + (f"#{number}" if number else "")
                height, width, _ = pixels.shape
                photos.append(Photo(name, source.folder, held_out, at, height, width))
                out.write(pixels.tobytes())
                at += pixels.size
    progress("decoding", len(files), len(files), "files")
    if not any(not photo.held_out for photo in photos):
        raise BadConfig("no photograph is left to train on: name a source of pictures to train on")
    said = {"digest": digest, "bytes": at, "photos": [vars(p) for p in photos]}
    temporary = cache / f"{_NAMES}.tmp"
    temporary.write_text(json.dumps(said), encoding="utf-8")
    temporary.rename(cache / _NAMES)


def _pieces(path: Path, config: DataConfig) -> Iterator[Pixels]:
    try:
        image = open_picture(path.read_bytes(), _LIMITS).rgb()
    except BadInput:
        return
    columns, rows = (max(side // config.tile_px, 1) for side in image.size)
    whole = min(columns, rows) < 2
    if whole:
        columns = rows = 1
    for row in range(rows):
        for column in range(columns):
            x, y = image.width / columns, image.height / rows
            box = (x * column, y * row, x * (column + 1), y * (row + 1))
            pixels = _shrunk(image, box, config.side_px)
            if whole or detail(pixels) >= DETAIL_MIN:
                yield pixels


def detail(pixels: Pixels) -> float:
    """Mean difference of neighbouring pixels, of 255: see DETAIL_MIN."""
    grey = Image.fromarray(pixels).convert("L").resize((_DETAIL_PX, _DETAIL_PX))
    values = np.asarray(grey, np.float32)
    across, down = (np.abs(np.diff(values, axis=axis)).mean() for axis in (0, 1))
    return float(across + down) / 2


def _shrunk(image: Image.Image, box: tuple[float, ...], side_px: int) -> Pixels:
    width, height = box[2] - box[0], box[3] - box[1]
    scale = min(side_px / max(width, height), 1.0)
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    left, top, right, bottom = box
    return np.asarray(image.resize(size, Image.Resampling.LANCZOS, box=(left, top, right, bottom)))


def _open(cache: Path) -> Photos:
    said = json.loads((cache / _NAMES).read_text(encoding="utf-8"))
    pixels = np.memmap(cache / _PIXELS, np.uint8, mode="r")
    if len(pixels) != said["bytes"]:
        raise Corrupt(f"{cache / _PIXELS} is not as long as it was: remove {cache}")
    return Photos([Photo(**photo) for photo in said["photos"]], pixels)
