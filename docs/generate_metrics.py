"""Generator of the table of metrics in docs/operations.md, from the metric catalogue.

`python docs/generate_metrics.py`; a test compares the page with it.
"""

from __future__ import annotations

from pathlib import Path

from simsearch.serve.core.metric_catalogue import METRICS

PAGE = Path(__file__).resolve().parent / "operations.md"
BEGIN, END = "<!-- metrics: generated -->\n", "<!-- metrics: end -->\n"


def table() -> str:
    """The table in Markdown."""
    rows = []
    for metric in METRICS:
        labels = " ".join(f"`{label}`" for label in metric.labels)
        rows.append(f"| `{metric.name}` | {metric.kind} | {labels} | {metric.meaning} |\n")
    return "| metric | kind | labels | meaning |\n|---|---|---|---|\n" + "".join(rows)


def main() -> None:
    """Replace the table of the page."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(before + BEGIN + table() + END + after, encoding="utf-8")


if __name__ == "__main__":
    main()
