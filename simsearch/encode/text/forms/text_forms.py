"""Text forms: the light and the strong normal form of a text, in which texts are compared."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from simsearch.encode.text.forms.light_form import light_form
from simsearch.encode.text.forms.older_form import OLDER_NORMALISATION_ID
from simsearch.encode.text.forms.strong_form import strong_form
from simsearch.encode.text.windows import TextLimits, windows_of
from simsearch.errors import EmptyContent

NORMALISATION_ID: Final = "strong2"
"""Names what `forms_of` does. Hashes and vectors are comparable only under one version, so any
change of its results takes a new name."""


class NormalForm(StrEnum):
    """The form of the texts that a signal or a space is of, as it is named in space ids."""

    STRONG = NORMALISATION_ID
    OLDER = OLDER_NORMALISATION_ID


@dataclass(frozen=True)
class TextForms:
    """`light`: equal only where two texts have the same words. `strong`: also without accents,
    leet and other disguises, for what a person looks at."""

    light: str
    strong: str

    def windows(self) -> list[str]:
        """The strong form in pieces short enough to compare."""
        return windows_of(self.strong)


def normalised(text: str) -> str:
    """The strong form of any text, of any length; "" where nothing in it can be seen."""
    return strong_form(light_form(text))


def forms_of(text: str, limits: TextLimits) -> TextForms:
    """Both forms. Raises EmptyContent, ContentTooLarge."""
    limits.check(text)
    light = light_form(text)
    if not light:
        raise EmptyContent("the text has no visible character: send some text")
    return TextForms(light, strong_form(light) or light)
