"""Pictures that several image tests share."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tests.encode.pictures import copies, landscape

SHARED_DATA = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture(scope="session")
def picture_image() -> Image.Image:
    return landscape(0)


@pytest.fixture(scope="session")
def picture_copies(picture_image: Image.Image) -> dict[str, bytes]:
    """One picture as 18 kinds of file."""
    return copies(picture_image)


@pytest.fixture(scope="session")
def picture_photos() -> list[Path]:
    """Real photographs, longest side 256 px."""
    photos = sorted((SHARED_DATA / "images" / "clothing").glob("*.jpg"))
    if not photos:
        pytest.skip("needs the shared photographs, beside the checkout in shared/data")
    return photos


@pytest.fixture(scope="session")
def picture_pdq_vectors() -> Path:
    """Meta's published photographs and hashes."""
    directory = SHARED_DATA / "pdq"
    if not (directory / "hashes.csv").is_file():
        pytest.skip("needs Meta's PDQ vectors, beside the checkout in shared/data")
    return directory
