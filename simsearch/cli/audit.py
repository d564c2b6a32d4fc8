"""`simsearch audit …` and `simsearch revert`: the record of edits, held against itself and against
what was noted elsewhere; and somebody's edits taken back."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from simsearch.cli.changes import COLUMNS, change_row, show_change, what, when
from simsearch.cli.connecting import asks_a_server, connect
from simsearch.cli.options import SERVER_DEFAULT, Json, Reason, Server, edit_by, time_us
from simsearch.cli.output import plain, print_json, print_line, print_table
from simsearch.errors import BadRequest, Corrupt

if TYPE_CHECKING:
    from simsearch.bank.audit import Audit
    from simsearch.client import Client
    from simsearch.v1.bank_pb2 import (
        ListChangesRequest,
        LoggedChange,
        RevertChangesRequest,
        RevertedChange,
    )

app = typer.Typer(
    help="The record of edits: who did what, and whether it is still what it was.",
    no_args_is_help=True,
)

PAGE_SIZE = 1_000

Since = Annotated[str, typer.Option("--since", help="from then on, as 2027-01-31T18:00")]
Until = Annotated[str, typer.Option("--until", help="before then")]
Bank = Annotated[str, typer.Option("--bank", help="only changes of this bank")]
OptionalPath = Optional[Path]  # noqa: UP045  # typer reads the annotation at run time


@app.command("show")
@asks_a_server
def show(
    bank: Bank = "",
    actor: Annotated[str, typer.Option(help="only changes of this one")] = "",
    since: Since = "",
    until: Until = "",
    entry: Annotated[int, typer.Option(min=0, help="only changes of this entry")] = 0,
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, help="the newest so many")] = 50,
    seq: Annotated[int, typer.Option(min=0, help="this one change, and what it changed")] = 0,
    server: Server = SERVER_DEFAULT,
    as_json: Json = False,
) -> None:
    """Show who changed what, when and why; the newest last.

    Example: simsearch audit show --actor ann --since 2027-01-31 --limit 20
    """
    from simsearch.v1.bank_pb2 import ListChangesRequest
    from simsearch.wire import time_to

    if seq:
        show_change(server, seq, as_json)
        return
    request = ListChangesRequest(
        newest=True,
        bank=bank,
        actor=actor,
        since=time_to(time_us(since)),
        until=time_to(time_us(until)),
        entry_key=entry,
    )
    with connect(server) as client:
        changes = _newest(client, request, limit)
    if as_json:
        print_json([plain(change) for change in changes])
        return
    print_table(COLUMNS, [change_row(change) for change in changes])


def _newest(client: Client, request: ListChangesRequest, limit: int) -> list[LoggedChange]:
    pages: list[list[LoggedChange]] = []
    left = limit
    while left:
        request.page_size = min(left, PAGE_SIZE)
        page = client.list_changes(request)
        pages.append(list(page.changes))
        left -= len(page.changes)
        if not page.more:
            break
        request.after_seq, request.before_seq = page.next_after_seq, page.next_before_seq
    return [change for page in reversed(pages) for change in page]


@app.command("head")
@asks_a_server
def head(
    append: Annotated[
        OptionalPath, typer.Option("--append", help="also write it to the end of this file")
    ] = None,
    sign: Annotated[
        OptionalPath, typer.Option("--sign", help="sign it with this Ed25519 key (PEM)")
    ] = None,
    server: Server = SERVER_DEFAULT,
    as_json: Json = False,
) -> None:
    """Print the end of the record, a line of JSON. Keep it where who can write to the server's
    disk cannot: then `audit verify --heads` finds a history that was made up, or cut off.

    Example: simsearch audit head --append /mnt/elsewhere/heads.jsonl --sign head.key
    """
    from simsearch.bank.signed_heads import Head, private_key, record_head

    key = private_key(sign) if sign else None
    with connect(server) as client:
        found = client.log_head()
    line = record_head(Head(found.store_id, found.seq, bytes.fromhex(found.link)), key).line()
    if append:
        _append(append, line)
    print_line(line.rstrip("\n"))


def _append(path: Path, line: str) -> None:
    """Whole and on the disk, or BadRequest."""
    try:
        with path.open("ab") as file:
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as fault:
        raise BadRequest(f"cannot write to {path}: {fault.strerror}") from None


@app.command("verify")
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
    """Hold the record of edits against itself, the tables and the heads; may run beside a server.
    Exit code 7 where something was altered.

    Example: simsearch audit verify --data-dir ./banks --heads heads.jsonl --public-key head.pub
    """
    from simsearch.bank import signed_heads as kept
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
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("changes"), BarColumn(), MofNCompleteColumn())
    console = Console(stderr=True, quiet=quiet)
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("changes", total=changes)
        yield lambda more: bar.advance(task, more)


# ---------------------------------------------------------------- revert


@asks_a_server
def revert(
    changes_of: Annotated[str, typer.Option("--actor", help="whose changes")],
    since: Since,
    reason: Reason,
    until: Until = "",
    bank: Bank = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="write nothing")] = False,
    by: Annotated[
        str,
        typer.Option(
            "--by",
            envvar="SIMSEARCH_ACTOR",
            help="who takes back  [default: your login, or whom the server knows you as]",
        ),
    ] = "",
    server: Server = SERVER_DEFAULT,
    as_json: Json = False,
) -> None:
    """Take back what somebody did, by new changes: nothing is erased, and what others did since is
    left as it is. Done again, nothing changes.

    Example: simsearch revert --actor mallory --since 2027-01-31 --reason "case 4711" --dry-run
    """
    from simsearch.v1.bank_pb2 import RevertChangesRequest
    from simsearch.wire import edit_to, time_to

    request = RevertChangesRequest(
        changes_of=changes_of,
        since=time_to(time_us(since)),
        until=time_to(time_us(until)),
        bank=bank,
        dry_run=dry_run,
        edit=edit_to(edit_by(by, reason)),
    )
    with connect(server) as client:
        changes = list(_reverted(client, request))
    undone = sum(each.outcome == _undone() for each in changes)
    if as_json:
        shown = [plain(change) for change in changes]
        skipped = len(changes) - undone
        counts = {"dry_run": dry_run, "undone": undone, "skipped": skipped}
        print_json(counts | {"changes": shown})
        return
    columns = ("seq", "when", "what", "bank", "entry", "outcome", "")
    print_table(columns, [_outcome(each) for each in changes])
    would = "would be undone; nothing was written" if dry_run else "undone"
    print_line(f"{undone} of {len(changes)} changes of {changes_of} {would}")


def _reverted(client: Client, request: RevertChangesRequest) -> Iterator[RevertedChange]:
    """Part by part, the newest first."""
    while True:
        part = client.revert_changes(request)
        yield from part.changes
        if not part.next_before_seq:
            return
        request.before_seq = part.next_before_seq


def _undone() -> int:
    from simsearch.v1.bank_pb2 import REVERT_OUTCOME_UNDONE

    return int(REVERT_OUTCOME_UNDONE)


# ---------------------------------------------------------------- printing


def _outcome(each: RevertedChange) -> tuple[str, ...]:
    change = each.change
    by = f"undone by {each.seq}" if each.seq else "to be undone"
    key = f" as entry {each.entry_key}" if each.entry_key else ""
    return (
        str(change.seq),
        when(change),
        what(change),
        change.bank,
        str(change.entry_key or ""),
        by if each.outcome == _undone() else "left",
        each.detail + key,
    )
