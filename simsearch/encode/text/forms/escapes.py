"""Escapes of markup: HTML entities and percent encoding undone, nested ones too."""

from __future__ import annotations

import html
import re

_ROUNDS_MAX = 3

# However often an ampersand or a percent sign is escaped again, it is one: found in one pass, so
# that ten thousand levels cost no more than their length.
_AMPERSANDS = re.compile(r"&(?:(?:amp|AMP|#0*38|#[xX]0*26);)+")
_PERCENTS = re.compile(r"%(?:25)+(?=[0-9a-fA-F]{2})")
_ENTITY = re.compile(r"&(?:#[0-9]{1,8}|#[xX][0-9a-fA-F]{1,7}|[A-Za-z][A-Za-z0-9]{1,31});")
_PERCENT_RUN = re.compile(r"(?<![0-9])(?:%[0-9a-fA-F]{2})+")


def without_escapes(text: str) -> str:
    """`text` with entities that end in a semicolon and runs of percent-encoded UTF-8 undone. A
    percent sign after a digit (50%20) is one. What is nested in other ways, deeper than three
    levels, loses its signs."""
    for _ in range(_ROUNDS_MAX):
        before, text = text, _once(text)
        if text == before:
            return text
    return text if _once(text) == text else text.replace("&", " ").replace("%", " ")


def _once(text: str) -> str:
    if "&" in text:
        text = _ENTITY.sub(_unescaped, _AMPERSANDS.sub("&", text))
    if "%" in text:
        text = _PERCENT_RUN.sub(_decoded, _PERCENTS.sub("%", text))
    return text


def _unescaped(entity: re.Match[str]) -> str:
    return html.unescape(entity[0])


def _decoded(run: re.Match[str]) -> str:
    try:
        return bytes.fromhex(run[0].replace("%", "")).decode()
    except UnicodeDecodeError:
        return run[0]
