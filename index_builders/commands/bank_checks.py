"""Checks of a bank's records: integrity, and agreement of two encoders."""

from __future__ import annotations

import dataclasses
import sys
from typing import Annotated

import typer

from index_builders.commands.build_options import DataDir, Json, print_result
from index_builders.quality import check as bank_check
from index_builders.quality import compare_encoders as encoder_comparison
from index_builders.report.progress import count_progress, show_progress
from simsearch.bank.store import BankStore


def check(data_dir: DataDir, as_json: Json = False) -> None:
    """Read every record of a bank back and let every row find itself.

    Example: simsearch-build check ./banks
    """
    with BankStore.open(data_dir, writer=False) as store, show_progress(sys.stderr) as progress:
        total = sum(bank.active_entries for bank in store.banks())
        report = bank_check.check(store, count_progress(progress, "checking", total, "entries"))
    print_result(dataclasses.asdict(report), as_json)
    if not report.whole:
        raise typer.Exit(7)


def compare_encoders(
    data_dir: DataDir,
    old: Annotated[str, typer.Option("--old", help="the id of a space")],
    new: Annotated[str, typer.Option("--new", help="the id of a space")],
    queries: Annotated[int, typer.Option(min=1, help="entries to ask with")] = 1_000,
    as_json: Json = False,
) -> None:
    """Before an old space is dropped: which entries lack the new one, and do the two agree?

    Asks with the entries' own vectors about all other entries, at their bank's thresholds.

    Example: simsearch-build compare-encoders ./banks --old a@1f2e/squash/64 --new a@9a8b/squash/64
    """
    with BankStore.open(data_dir, writer=False) as store:
        report = encoder_comparison.compare_encoders(store, old, new, queries)
    print_result(encoder_comparison.report_as_json(report), as_json)
