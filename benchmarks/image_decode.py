"""How fast is an image file turned into what the model takes, and is it still the same picture?

Both sides begin with the bytes of a JPEG (quality 90) and end with normalised float32 values:
ours by a decode at a fraction of the size and one resize of one box, the peer by Pillow's full
decode and open_clip's own transform. The large pictures are photographs from scikit-image,
enlarged (Lanczos) to 2.5 and 11 megapixels: real content, with less fine detail than a camera
gives. Cosines are between the embeddings of the two paths, by copyclip.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.report import finish, interleave, ratio
from simsearch.encode.encoders.clip import ClipEncoder, load_clip
from simsearch.encode.encoders.clip_weights import find_clip
from simsearch.encode.image.picture import ImageLimits, open_picture

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")
MEGAPIXELS = {"mp2_5": 2.5, "mp11": 11.0}
ROUNDS = 9
CROPS = 4
CLOTHING = Path(__file__).parents[2] / "shared" / "data" / "images" / "clothing"

Transform = Callable[[Image.Image], Any]


def main(as_json: bool) -> None:
    encoder = load_clip("copyclip", device="cpu")
    peer, transform = _peer()
    files = {name: _large(megapixels) for name, megapixels in MEGAPIXELS.items()}
    rows, ratios = [], {}
    for name, large in files.items():
        seconds = _race(encoder, transform, large)
        ratios[name] = ratio(seconds, "simsearch", "open_clip")
        ms = {side: 1e3 * median(found) / len(large) for side, found in seconds.items()}
        rows.append({"pictures": name, **{f"{k}, ms": v for k, v in ms.items()}})
        rows[-1]["times as fast"] = ratios[name]
    pictures = [*files["mp2_5"], *files["mp11"], *_small()]
    cosines = _cosines(encoder, peer, transform, pictures)
    figures = {
        "cosine_min": round(min(cosines), 5),
        "cosine_median": round(median(cosines), 5),
        "pictures": len(pictures),
        "rounds": ROUNDS,
    }
    rows.append({"pictures": f"cosine_min of {len(pictures)}", "times as fast": min(cosines)})
    finish("image_decode", rows, ratios, figures, as_json)


def _race(
    encoder: ClipEncoder, transform: Transform, files: Sequence[bytes]
) -> dict[str, list[float]]:
    """Seconds for all files, by side and round."""
    limits = ImageLimits()
    mean, std = (
        np.array(numbers, np.float32)
        for numbers in (encoder.preprocess.mean, encoder.preprocess.std)
    )

    def ours() -> None:
        for data in files:
            pixels = encoder.prepare(open_picture(data, limits))
            _ = (pixels.astype(np.float32) / 255 - mean) / std

    def theirs() -> None:
        for data in files:
            transform(Image.open(BytesIO(data)))

    return interleave({"simsearch": ours, "open_clip": theirs}, ROUNDS)


def _cosines(
    encoder: ClipEncoder, peer: Any, transform: Transform, files: Sequence[bytes]
) -> list[float]:
    import torch

    limits = ImageLimits()
    ours = encoder.encode_images([encoder.prepare(open_picture(data, limits)) for data in files])
    with torch.inference_mode():
        shown = torch.stack([transform(Image.open(BytesIO(data))) for data in files])
        theirs = torch.nn.functional.normalize(peer.encode_image(shown), dim=-1).numpy()
    return [float(cosine) for cosine in np.einsum("ij,ij->i", ours, theirs)]


def _peer() -> tuple[Any, Transform]:
    """open_clip's model and its inference transform, as its documentation loads them."""
    import open_clip

    model, _, transform = open_clip.create_model_and_transforms(find_clip("copyclip").architecture)
    return model.eval(), transform


def _large(megapixels: float) -> list[bytes]:
    return [_jpeg(_enlarged(photograph, megapixels)) for photograph in _photographs()]


def _small() -> list[bytes]:
    """More pictures for the cosines: the shared photographs, else crops, at 1 megapixel."""
    shared = [np.asarray(Image.open(path)) for path in sorted(CLOTHING.glob("*.jpg"))[:24]]
    return [_jpeg(_enlarged(picture, 1.0)) for picture in shared or _crops()]


def _crops() -> list[NDArray[np.uint8]]:
    """Quarters of the photographs."""
    found = []
    for picture in _photographs():
        height, width = (side // 2 for side in picture.shape[:2])
        for quarter in range(CROPS):
            top, left = height * (quarter // 2), width * (quarter % 2)
            found.append(picture[top : top + height, left : left + width])
    return found


def _photographs() -> list[NDArray[np.uint8]]:
    from skimage import data

    return [getattr(data, name)() for name in PHOTOGRAPHS]


def _enlarged(picture: NDArray[np.uint8], megapixels: float) -> Image.Image:
    image = Image.fromarray(picture).convert("RGB")
    times = (megapixels * 1e6 / (image.width * image.height)) ** 0.5
    size = (round(image.width * times), round(image.height * times))
    return image.resize(size, Image.Resampling.LANCZOS)


def _jpeg(image: Image.Image) -> bytes:
    file = BytesIO()
    image.save(file, "JPEG", quality=90)
    return file.getvalue()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the JSON line only")
    main(parser.parse_args().json)
