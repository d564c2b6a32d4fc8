"""Confusables: characters that look like Latin letters, the tables of the older form."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType


def _pairs(*rows: tuple[str, str]) -> Mapping[int, str]:
    table: dict[int, str] = {}
    for disguised, plain in rows:
        table |= {ord(a): b for a, b in zip(disguised, plain.split() or plain, strict=True)}
    return MappingProxyType(table)


def _run(first: int, letters: str = "abcdefghijklmnopqrstuvwxyz") -> tuple[str, str]:
    """An alphabet that stands in one run of code points."""
    return "".join(chr(first + i) for i in range(len(letters))), " ".join(letters)


STYLED = _pairs(
    ("ᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘʀꜱᴛᴜᴠᴡʏᴢ", " ".join("abcdefghijklmnoprstuvwyz")),
    ("øØđĐłŁħĦŧŦƀɨɇɍɏɉȼⱥⱦƚɫ", " ".join("ooddllhhttbieryjcatll")),
    ("ıȷɑɡɐǝɔɟɥɯɹʇʌʍʎəɛƒ", " ".join("ijagaecfhmrtvwyeef")),
    ("æÆœŒ", "ae ae oe oe"),
    _run(0x1F150),  # white letters on a black disc
    _run(0x1F170),  # white letters on a black square
)
"""Latin letters in another dress, which NFKC leaves alone; undone in every text."""

LOOKALIKES = _pairs(
    ("авсеһіјкмнорԛѕтѵԝхуүԁԍӏҽь", " ".join("abcehijkmhopqstvwxyydgleb")),
    ("АВСЕҺІЈКМНОРԚЅТѴԜХУҮԀԌӀҼ", " ".join("abcehijkmhopqstvwxyydgle")),
    ("αβεικνορτυχγω", " ".join("abeikvoptuxyw")),
    ("ΑΒΕΖΗΙΚΜΝΟΡΤΥΧ", " ".join("abezhikmnoptyx")),
    ("օոսհցՕՍ", " ".join("onuhgou")),  # Armenian
    ("ᎪᏟᎠᎬᏀᎻᎫᏦᏞᎷᏢᎡᏚᎢᏙᎳᏃ", " ".join("acdeghjklmprstvwz")),  # Cherokee
    ("ꓮꓐꓚꓓꓰꓝꓖꓧꓲꓙꓗꓡꓟꓠꓳꓑꓣꓢꓔꓴꓦꓪꓫꓬꓜ", " ".join("abcdefghijklmnoprstuvwxyz")),  # Lisu
)
"""Letters of other scripts drawn like Latin ones, before casefolding (Ν is an N, ν a v).

Only letters that deceive at a glance: those left out (п, я, ж, π, λ) are what tells real
Russian and Greek from Latin text in disguise.
"""

DOUBLED = frozenset("bcdefglmnoprstz")
"""Letters that English writes twice in a row; of a longer run two are kept, of others one."""
