"""The photographs of one run, and what each is: banked, asked as a negative, or scenery."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from benchmarks.attacks.picture_tools import Picture, to_file
from simsearch.encode.image.picture import ImageLimits, open_picture
from simsearch.errors import BadConfig, SimsearchError

CLOTHING: Final = Path(__file__).parents[3] / "shared" / "data" / "images" / "clothing"

ONE_IN: Final = 5
"""Of a folder that was trained on, one photograph in so many was not."""

SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".webp"})
LONGEST_PX: Final = 512
SHORTEST_PX: Final = 64
PROPS: Final = 24


@dataclass(frozen=True)
class Photograph:
    """`data` is the file that is banked or asked; longest side 512 px at most."""

    name: str
    source: str
    data: bytes = field(repr=False)

    def picture(self) -> Picture:
        with Image.open(BytesIO(self.data)) as opened:
            return opened.convert("RGB")


@dataclass(frozen=True)
class Cast:
    """Nobody plays two parts. `props` fill what surrounds an attacked picture."""

    banked: list[Photograph]
    negatives: list[Photograph]
    props: list[Photograph]

    def figures(self) -> dict[str, object]:
        return {
            "banked": len(self.banked),
            "negatives": len(self.negatives),
            "props": len(self.props),
            "sources": dict(Counter(p.source for p in [*self.banked, *self.negatives])),
        }


def is_held_out(name: str) -> bool:
    """Whether the photograph of that file name is one that training programs leave alone: the
    rule of `index_builders.training`."""
    return int.from_bytes(sha256(name.encode()).digest()[:8], "big") % ONE_IN == 0


def cast(photographs: Sequence[Photograph], bank: int, negatives: int | None, seed: int) -> Cast:
    """Shuffled by `seed`; as many negatives as there are where None. Raises BadConfig where there
    are too few photographs."""
    order = np.random.default_rng(seed).permutation(len(photographs))
    props = min(PROPS, len(photographs) // 10)
    least = props + bank + 2
    if len(photographs) < least:
        raise BadConfig(
            f"there are {len(photographs)} photographs, a bank of {bank} needs {least} at least: "
            "give more with --photos, or a smaller --bank"
        )
    shuffled = [photographs[n] for n in order]
    last = None if negatives is None else props + bank + negatives
    return Cast(shuffled[props : props + bank], shuffled[props + bank : last], shuffled[:props])


def photographs_of(folders: Sequence[Path], held_out_of: Sequence[Path]) -> list[Photograph]:
    """All of `folders`, and of `held_out_of` those that nobody trains on; equal files once, what
    the server would refuse and what is smaller than 64 px left out. Raises BadConfig for a folder
    that is not there."""
    found: dict[bytes, Photograph] = {}
    for folder, is_part in [*((f, False) for f in folders), *((f, True) for f in held_out_of)]:
        if not folder.is_dir():
            raise BadConfig(f"there is no folder {folder}: name one that holds photographs")
        for photograph in _of(folder, is_part):
            found.setdefault(sha256(photograph.data).digest(), photograph)
    return list(found.values())


def _of(folder: Path, held_out_alone: bool) -> Iterator[Photograph]:
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in SUFFIXES or not path.is_file():
            continue
        if held_out_alone and not is_held_out(path.name):
            continue
        data = _sized(path.read_bytes())
        if data is not None:
            yield Photograph(path.name, folder.name, data)


def _sized(data: bytes) -> bytes | None:
    """The file itself; of a larger picture a smaller copy, so that all attacks cost alike."""
    try:
        opened = open_picture(data, ImageLimits())
        width, height = opened.size
        if min(width, height) < SHORTEST_PX:
            return None
        if max(width, height) <= LONGEST_PX:
            opened.rgb()
            return data
        picture = opened.rgb(at_least=(LONGEST_PX, LONGEST_PX)).copy()
    except SimsearchError:
        return None
    picture.thumbnail((LONGEST_PX, LONGEST_PX), Image.Resampling.LANCZOS)
    return to_file(picture, quality=95)
