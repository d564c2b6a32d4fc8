"""`simsearch audit verify`: the record of edits, held against itself and against noted heads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from simsearch.bank import signed_heads as kept
from simsearch.cli.common.options import Json
from simsearch.cli.common.output import print_json, print_line
from simsearch.errors import BadRequest, Corrupt

if TYPE_CHECKING:
    from simsearch.bank.audit import Audit


OptionalPath = Optional[Path]  # noqa: UP045  # typer reads the annotation at run time


def verify(
    data_dir: Annotated[Path, typer.Option("--data-dir", help="that of `simsearch serve`")],
    heads: Annotated[
        OptionalPath, typer.Option("--heads", help="what `audit head --append` wrote")
    ] = None,
    public_key: Annotated[
        OptionalPath, typer.Option("--public-key", help="every head must be signed by its holder")
    ] = None,
    as_json: Json = False,
) -> None:
    """Hold the record of edits against itself, the tables and the heads. It may run beside a
    server. Exit code 7 where something was altered.

    Example: simsearch audit verify --data-dir ./banks --heads heads.jsonl --public-key head.pub
    """
    from simsearch.bank.audit import verify as verified
    from simsearch.bank.store import BankStore

    if public_key and not heads:
        raise BadRequest("--public-key is for signatures of heads: give --heads FILE too")
    noted = kept.read_heads(heads) if heads else []
    forged = kept.signature_faults(noted, kept.public_key(public_key)) if public_key else []
    with (
        BankStore.open(data_dir, writer=False) as store,
        store.reading() as reading,
        _progress(reading.seq, as_json) as progress,
    ):
        found = verified(reading, store.store_id, [each.head for each in noted], progress)
    faults = [*forged, *found.faults]
    _report(found, faults, len(noted), signed=public_key is not None, as_json=as_json)
    if faults:
        raise Corrupt(
            f"the record of edits is not what it was, in {len(faults)} places, the first: "
            f"{faults[0]}; keep the directory as it is, and compare it with a backup"
        )


def _report(found: Audit, faults: list[str], heads: int, *, signed: bool, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "whole": not faults,
                "faults": faults,
                "store_id": found.head.store_id,
                "seq": found.head.seq,
                "link": found.head.link.hex(),
                "linked_from": found.linked_from,
                "heads": heads,
                "signatures_checked": signed,
            }
        )
        return
    for fault in faults:
        print_line(f"fault: {fault}")
    word = "is not whole" if faults else "is whole"
    against = f"{heads} heads noted earlier" if heads else "no head: a cut-off end may not show"
    print_line(f"store {found.head.store_id}: the record of {found.head.seq} changes {word}")
    print_line(f"held against {against}; signatures {'checked' if signed else 'not checked'}")
    if found.linked_from > 1:
        print_line(f"changes before {found.linked_from} were written without links")
    print_line(f"head: {found.head.link.hex()}")


@contextmanager
def _progress(changes: int, quiet: bool) -> Iterator[Callable[[int], None]]:
    columns = (TextColumn("changes"), BarColumn(), MofNCompleteColumn())
    console = Console(stderr=True, quiet=quiet)
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("changes", total=changes)
        yield lambda more: bar.advance(task, more)
