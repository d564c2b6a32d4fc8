"""`simsearch revert`: the edits of one actor, undone by new changes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from simsearch.cli.common.connection import asks_a_server, connect
from simsearch.cli.common.options import SERVER_DEFAULT, Json, Reason, Server, edit_by, time_us
from simsearch.cli.common.output import plain, print_json, print_line, print_table
from simsearch.cli.oversight.audit_log import Bank, Since, Until
from simsearch.cli.oversight.change_view import what, when
from simsearch.v1.bank_pb2 import (
    REVERT_OUTCOME_UNDONE,
    RevertChangesRequest,
    RevertedChange,
)
from simsearch.wire import edit_to, time_to

if TYPE_CHECKING:
    from simsearch.client import Client


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
    """Take back what somebody did, by new changes. Nothing is erased, and what others did since is
    left as it is. Done again, nothing changes.

    Example: simsearch revert --actor mallory --since 2027-01-31 --reason "case 4711" --dry-run
    """
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
    undone = sum(each.outcome == REVERT_OUTCOME_UNDONE for each in changes)
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
        by if each.outcome == REVERT_OUTCOME_UNDONE else "left",
        each.detail + key,
    )
