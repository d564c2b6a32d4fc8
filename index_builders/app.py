"""The `simsearch-build` command."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from simsearch.errors import SimsearchError

app = typer.Typer(
    name="simsearch-build",
    help="The batch side: checks a bank's directory, beside a running server or without one.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.callback()
def top() -> None:
    """The batch side: checks a bank's directory, beside a running server or without one."""


@app.command("check")
def check(
    data_dir: Annotated[Path, typer.Argument(help="the data_dir of `simsearch serve`")],
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Read every record of a bank back and let every row find itself.

    Example: simsearch-build check ./banks
    """
    from rich.console import Console
    from rich.progress import Progress

    from index_builders.check import check as check_bank
    from simsearch.bank.store import BankStore

    with BankStore.open(data_dir, writer=False) as store:
        total = sum(bank.active_entries for bank in store.banks())
        with Progress(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("checking", total=total)
            report = check_bank(store, lambda done: bar.advance(task, done))
    if as_json:
        sys.stdout.write(json.dumps(dataclasses.asdict(report), indent=2) + "\n")
    else:
        _print(report.seq, report.entries, dict(report.rows), report.faults)
    if not report.whole:
        raise typer.Exit(7)


def _print(seq: int, entries: int, rows: dict[str, int], faults: tuple[str, ...]) -> None:
    signals = ", ".join(f"{signal} {count}" for signal, count in sorted(rows.items())) or "none"
    sys.stdout.write(f"{entries} active entries at change {seq}; rows: {signals}\n")
    for fault in faults:
        sys.stdout.write(f"FAULT: {fault}\n")
    sys.stdout.write("the bank is whole\n" if not faults else f"{len(faults)} faults\n")


def main() -> None:
    try:
        app()
    except SimsearchError as error:
        sys.stderr.write(f"simsearch-build: {error.message}\n")
        sys.exit(7)


if __name__ == "__main__":
    main()
