"""Tables that are too wide for the one that every benchmark prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

WIDTH_MIN = 200
"""Columns of text, also where the output goes into a file."""


def print_table(
    title: str, rows: Sequence[Mapping[str, object]], notes: Sequence[str] = ()
) -> None:
    """Rows may lack columns; each note is a line below."""
    table = Table(title=title)
    names = list(dict.fromkeys(name for row in rows for name in row))
    for number, name in enumerate(names):
        header = "\n".join(name.split(maxsplit=1)) if number else name
        table.add_column(header, justify="right" if number else "left", no_wrap=not number)
    for row in rows:
        table.add_row(*(str(row.get(name, "")) for name in names))
    console = Console()
    console = Console(width=max(console.width, WIDTH_MIN))
    console.print(table)
    for note in notes:
        console.print(f"- {note}", highlight=False)
