"""One change of the record: in a line, and what it changed field by field."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from simsearch.cli.banks.settings_diff import FieldChange, changed_settings
from simsearch.cli.common.connection import connect
from simsearch.cli.common.output import plain, print_json, print_table
from simsearch.v1.bank_pb2 import (
    CHANGE_KIND_BANK_UPDATED,
    Bank,
    Entry,
    GetChangeResponse,
    ListChangesRequest,
    LoggedChange,
)

if TYPE_CHECKING:
    from simsearch.client import Client

COLUMNS = ("seq", "when", "who", "what", "bank", "entry", "reason")


def change_row(change: LoggedChange) -> tuple[str, ...]:
    """Of COLUMNS."""
    about = f" (undoes {change.undoes})" if change.undoes else ""
    about += f" (proposal {change.proposal})" if change.proposal else ""
    return (
        str(change.seq),
        when(change),
        change.actor + (f" & {change.approved_by}" if change.approved_by else ""),
        what(change) + about,
        change.bank,
        str(change.entry_key or ""),
        change.reason,
    )


def when(change: LoggedChange) -> str:
    return change.time.ToJsonString()[:19].replace("T", " ")


def what(change: LoggedChange) -> str:
    word: str = plain(change)["kind"]
    return word.lower().replace("_", " ")


# ---------------------------------------------------------------- what it changed


def show_change(server: str, seq: int, as_json: bool) -> None:
    with connect(server) as client:
        found = client.get_change(seq)
        fields = fields_of(client, found)
    if as_json:
        print_json(plain(found) | {"fields": [each.plain() for each in fields]})
        return
    card = list(zip(COLUMNS, change_row(found.change), strict=True))
    card += [("stored (sha256)", found.content), ("link", found.change.link)]
    card += [(each.field, each.words()) for each in fields]
    print_table(("field", "value"), [row for row in card if row[1]])


def fields_of(client: Client, found: GetChangeResponse) -> list[FieldChange]:
    """Of a change of a bank its settings, of a move the state: each from what to what."""
    if found.HasField("bank_before"):
        return changed_settings(found.bank_before, bank_after(client, found.change))
    if found.HasField("entry"):
        return _state_change(found.entry, found.change.seq)
    return []


def bank_after(client: Client, change: LoggedChange) -> Bank:
    """As the change left it: what the next update of the bank replaced, or what there is."""
    kinds = [CHANGE_KIND_BANK_UPDATED]
    asked = ListChangesRequest(bank=change.bank, after_seq=change.seq, page_size=1, kinds=kinds)
    while True:
        page = client.list_changes(asked)
        for following in page.changes:
            return client.get_change(following.seq).bank_before
        if not page.more:
            return client.get_bank(change.bank)
        asked.after_seq, asked.before_seq = page.next_after_seq, page.next_before_seq


def _state_change(entry: Entry, seq: int) -> list[FieldChange]:
    """Where this change moved the entry; none where it did another thing."""
    shown: dict[str, Any] = plain(entry)
    before = shown["first_state"]
    for move in shown["moves"]:
        if move["change"]["seq"] == seq:
            until = f" until {move['until']}" if "until" in move else ""
            return [FieldChange("state", before.lower(), move["state"].lower() + until)]
        before = move["state"]
    return []
