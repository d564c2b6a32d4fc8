"""`simsearch audit show` and `head`: the record of edits, and its end."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from simsearch.bank.signed_heads import Head, private_key, record_head
from simsearch.cli.common.connection import asks_a_server, connect
from simsearch.cli.common.options import SERVER_DEFAULT, Json, Server, time_us
from simsearch.cli.common.output import plain, print_json, print_line, print_table
from simsearch.cli.oversight.change_view import COLUMNS, change_row, show_change
from simsearch.errors import BadRequest
from simsearch.v1.bank_pb2 import (
    ListChangesRequest,
    LoggedChange,
)
from simsearch.wire import time_to

if TYPE_CHECKING:
    from simsearch.client import Client


PAGE_SIZE = 1_000

Since = Annotated[str, typer.Option("--since", help="from then on, as 2027-01-31T18:00")]
Until = Annotated[str, typer.Option("--until", help="before then")]
Bank = Annotated[str, typer.Option("--bank", help="only changes of this bank")]
OptionalPath = Optional[Path]  # noqa: UP045  # typer reads the annotation at run time


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
