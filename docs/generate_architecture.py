"""Writes the tables of modules into ARCHITECTURE.md, from the modules' own docstrings.

`python docs/generate_architecture.py`; a test holds the page against this.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "ARCHITECTURE.md"
BEGIN, END = "<!-- modules -->\n", "<!-- /modules -->\n"
ORDER = (
    *("index_builders", "simsearch/cli", "simsearch/client", "simsearch/serve"),
    *("simsearch/match", "simsearch/live", "simsearch/encode", "simsearch/index"),
    *("simsearch/bank", "simsearch/wire", "simsearch/lists", "simsearch", "simsearch/types"),
)
GENERATED = {"v1", "storage"}


def tables() -> str:
    """A heading and a table for each folder, in the order of the layers, outermost first."""
    return "\n".join(_table(folder) for top in ORDER for folder in _folders(ROOT / top))


def page_with(found: str, page: str) -> str:
    """The page with the tables between its markers replaced."""
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n{found}\n{END}{tail}"


def _folders(top: Path) -> list[Path]:
    if top.name == "simsearch":
        return [top]
    inner = sorted(path.parent for path in top.rglob("__init__.py"))
    return [path for path in inner if GENERATED.isdisjoint(path.parts)]


def _table(folder: Path) -> str:
    name = folder.relative_to(ROOT)
    rows = [
        f"| `{path.name}` | {_first_sentence(path)} |"
        for path in sorted(folder.glob("*.py"))
        if path.name != "__init__.py"
    ]
    about = _first_sentence(folder / "__init__.py")
    return "\n".join([f"### {name}/", "", about, "", *(_HEAD if rows else ()), *rows, ""])


_HEAD = ("| module | is |", "|---|---|")


def _first_sentence(path: Path) -> str:
    """The first paragraph's first sentence, on one line."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    paragraph = " ".join(docstring.split("\n\n")[0].split())
    sentence, dot, _ = paragraph.partition(". ")
    return (sentence + (dot and ".")).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page_with(tables(), PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    sys.stdout.write(f"{PAGE.name} written\n")
