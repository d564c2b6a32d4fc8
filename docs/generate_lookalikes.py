"""Generator of the lookalike table: single letters that Unicode calls confusable with a Latin one.

    python docs/generate_lookalikes.py CONFUSABLES_TXT

reads `confusables.txt` of UTS #39 (https://www.unicode.org/Public/security/) and rewrites
`simsearch/encode/text/forms/lookalike_table.py`. The table is part of the normal form: a newer file
of Unicode takes a new NORMALISATION_ID.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

TABLE = Path(__file__).parents[1] / "simsearch" / "encode" / "text" / "forms" / "lookalike_table.py"

SMALL_CAPITAL = "LATIN LETTER SMALL CAPITAL "
ODD_LATIN = {"ʍ": "m", "ĸ": "k", "ƞ": "n", "ꞓ": "e", "ɩ": "i", "ı": "i", "ꭓ": "x"}
NEVER = frozenset("ØøÞþ¢£¥₩₫₮₭₥₡℮×")  # of their own in the strong form, or no letters

HEAD = '''"""Lookalike table: single characters that Unicode calls confusable with a Latin letter.

Made by `docs/generate_lookalikes.py` from confusables.txt, Unicode Security Mechanisms for UTS #39,
version {version}. © {year} Unicode®, Inc. Unicode and the Unicode Logo are registered trademarks of
Unicode, Inc. in the U.S. and other countries. Used under the Unicode License V3
(https://www.unicode.org/license.txt).
"""

from __future__ import annotations

from types import MappingProxyType

CONFUSABLES = MappingProxyType(
    {{
'''


def main() -> None:
    text = Path(sys.argv[1]).read_text("utf-8-sig")
    version = re.search(r"# Version: (\S+)", text)
    year = re.search(r"© (\d+)", text)
    assert version
    assert year
    table: dict[str, dict[str, str]] = defaultdict(lambda: defaultdict(str))
    for sign, letter in sorted(_pairs(text)):
        table[_script(sign)][letter] += sign
    out = [HEAD.format(version=version[1], year=year[1])]
    for script, letters in sorted(table.items()):
        groups = [f'"{letter}{signs}"' for letter, signs in sorted(letters.items())]
        if len(groups) == 1:
            out.append(f'        "{script}": ({groups[0]},),\n')
        else:
            lines = "".join(f"            {group},\n" for group in groups)
            out.append(f'        "{script}": (\n{lines}        ),\n')
    out.append("    }\n)\n")
    out.append('"""By the first word of their names: a letter, then what looks like it."""\n')
    TABLE.write_text("".join(out))


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        columns = [column.strip() for column in line.split("#")[0].split(";")]
        if len(columns) < 2 or " " in columns[0]:
            continue
        sign = chr(int(columns[0], 16))
        target = "".join(chr(int(code, 16)) for code in columns[1].split())
        letter = _latin(target)
        stays = unicodedata.normalize("NFKC", sign) == sign
        if letter and stays and not sign.isascii() and sign not in NEVER:
            yield sign, letter


def _latin(target: str) -> str:
    """The one Latin letter that `target` is but for its marks; "" where it is none."""
    found = ""
    for char in unicodedata.normalize("NFKD", target):
        if unicodedata.category(char)[0] == "M":
            continue
        name = unicodedata.name(char, "")
        if char.isascii() and char.isalpha():
            found += char.lower()
        elif name.startswith(SMALL_CAPITAL) and len(name) == len(SMALL_CAPITAL) + 1:
            found += name[-1].lower()
        else:
            found += ODD_LATIN.get(char, "??")
    found = "m" if found == "rn" else found
    return found if len(found) == 1 else ""


def _script(sign: str) -> str:
    """ "sign" for what is no letter."""
    if not sign.isalpha():
        return "sign"
    return unicodedata.name(sign, "OTHER").split()[0].split("-")[0].lower()


if __name__ == "__main__":
    main()
