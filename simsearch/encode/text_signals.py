"""Signals of a text before encoding: digests of its forms, and the windows that are encoded."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass

from simsearch.encode.digests import text_sha256
from simsearch.encode.text.forms.older_form import OLDER_NORMALISATION_ID, older_checked
from simsearch.encode.text.forms.text_forms import NormalForm, forms_of
from simsearch.encode.text.windows import TextLimits, windows_of
from simsearch.types import OLDER_FORM, Modality, Signal

_IN_SPACE_ID = f"/{OLDER_NORMALISATION_ID}-"


@dataclass(frozen=True)
class TextSignals:
    """The strong form; digests by signal; and for each form that is wanted its windows, each once,
    since a text may repeat itself."""

    strong: str
    digests: Mapping[Signal, tuple[bytes, ...]]
    windows: Mapping[NormalForm, list[str]]


def is_of_older_form(signal: str) -> bool:
    """Whether a signal or space is of texts in the older form."""
    return signal in OLDER_FORM or _IN_SPACE_ID in signal


class CurrentSignals:
    """Contains every signal but those of the older form, save for the ones given: what is wanted of
    a banned item."""

    def __init__(self, older: Container[str] = ()) -> None:
        self._older = older

    def __contains__(self, item: object) -> bool:
        if not isinstance(item, tuple):
            return False
        return not is_of_older_form(item[0]) or item[0] in self._older


def text_signals(
    text: str, limits: TextLimits, wanted: Container[tuple[str, Modality | None]], *, older: bool
) -> TextSignals:
    """The older form, which costs several times the new ones, only where one of its signals is
    wanted; `older`: a space is. Raises EmptyContent, ContentTooLarge."""
    forms = forms_of(text, limits)
    digests = {
        Signal.TEXT_LIGHT_SHA256: (text_sha256(forms.light),),
        Signal.TEXT_STRONG_SHA256: (text_sha256(forms.strong),),
    }
    windows = {NormalForm.STRONG: _distinct(forms.strong)}
    if older or any((signal, None) in wanted for signal in OLDER_FORM):
        normal = older_checked(text, limits)
        digests[Signal.TEXT_SHA256] = (text_sha256(normal),)
        windows[NormalForm.OLDER] = _distinct(normal)
    return TextSignals(forms.strong, digests, windows)


def _distinct(normal: str) -> list[str]:
    return list(dict.fromkeys(windows_of(normal)))
