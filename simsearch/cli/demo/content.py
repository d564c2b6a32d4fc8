"""What the demo bans and what it must let pass: photographs from scikit-image, texts of ours."""

from __future__ import annotations

import importlib.resources
import io
from importlib.resources.abc import Traversable

from PIL import Image

from simsearch.errors import WeightsMissing

BANNED_PHOTOS = ("chelsea.png", "coffee.png", "rocket.jpg", "astronaut.png", "motorcycle_left.png")
BANNED_BY_HASH_ONLY = "camera.png"
BANNED_LIVE = "coins.png"
UNRELATED_PHOTOS = (
    "retina.jpg",
    "ihc.png",
    "hubble_deep_field.jpg",
    "clock_motion.png",
    "gravel.png",
    "grass.png",
)

BANNED_TEXTS = (
    "Congratulations! You have been selected to receive a free phone. Pay only the postage now.",
    "Send one coin to this wallet and get two coins back within the hour, guaranteed by the team.",
    "Your parcel could not be delivered. Confirm your address and card number at this link today.",
    "Earn five thousand a week from home, no experience needed, message me for the secret method.",
    "Your bank account is locked. Reply with your password and the code that we sent to unlock it.",
    "Hot singles in your town are waiting for you, click the link before they are all gone.",
    "Buy ten thousand real followers for only nine dollars, delivery starts in five minutes.",
    "This is the tax office. You owe a fine and must pay it in gift cards before tonight.",
    "Doctors hate this one trick: lose twenty kilos in ten days with our miracle tea.",
    "I am a prince with a frozen fortune and need your account to move it, you keep a third.",
    "Cheap pills without a prescription, discreet shipping worldwide, order in our chat now.",
    "Investment club is open for one more day: triple your savings with our trading robot.",
)

UNRELATED_TEXTS = (
    "Does anybody know a good place for ramen near the station? We are five people on Friday.",
    "The meeting moved to three o'clock because the train from the north is late again.",
    "My cat has learned to open the fridge and I honestly do not know what to do about it.",
    "Here is the recipe I promised: two eggs, a cup of flour, a pinch of salt and some milk.",
    "Thanks for helping me paint the fence yesterday, the garden looks so much better now.",
    "Has your phone arrived yet? Mine is still at the post office, I will pick it up on Monday.",
)


def photo_bytes(name: str) -> bytes:
    return _photos().joinpath(name).read_bytes()


def photo(name: str) -> Image.Image:
    """A photograph in RGB."""
    return Image.open(io.BytesIO(photo_bytes(name))).convert("RGB")


def _photos() -> Traversable:
    try:
        return importlib.resources.files("skimage") / "data"
    except ModuleNotFoundError:
        raise WeightsMissing(
            "the demo bans photographs of scikit-image: install simsearch[cpu,demo]"
        ) from None
