"""`simsearch diff`: what differs between two banks, between two times of one, or two entries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simsearch.cli.banks.content_diff import Compared, Gathered, compare
from simsearch.cli.banks.settings_diff import FieldChange, changed_fields
from simsearch.cli.common.connection import asks_a_server, connect
from simsearch.cli.common.options import EXIT_DIFFERENT, SERVER_DEFAULT, Json, Server, time_us
from simsearch.cli.common.output import plain, print_json, print_line, print_table
from simsearch.cli.entries.entry_find import near_words
from simsearch.cli.entries.entry_list import PAGE_SIZE_ALL, pages
from simsearch.cli.oversight.change_view import COLUMNS, change_row, fields_of
from simsearch.errors import BadRequest
from simsearch.types import EntryState
from simsearch.v1.bank_pb2 import (
    CompareEntriesResponse,
    ListChangesRequest,
    ListEntriesRequest,
    LoggedChange,
)
from simsearch.wire import time_to

if TYPE_CHECKING:
    from simsearch.client import Client

LIVE = [state for state in EntryState if state is not EntryState.RETRACTED]
_TOLD = ("BANK_UPDATED", "ENTRY_MOVED")
_COMPARED = ("state", "labels", "source", "source_id", "aliases", "note", "severity", "expire_time")


@asks_a_server
def diff(
    bank: str,
    other: Annotated[str, typer.Argument(help="the bank to compare with")] = "",
    since: Annotated[str, typer.Option(help="what changed from then on, as 2027-01-31")] = "",
    until: Annotated[str, typer.Option(help="and before then")] = "",
    entry: Annotated[int, typer.Option(min=0, help="compare this entry of the bank …")] = 0,
    and_: Annotated[
        int, typer.Option("--and", min=0, help="… with this one, of the other bank if there is one")
    ] = 0,
    limit: Annotated[
        int, typer.Option(min=1, max=100_000, help="entries or changes to print of each kind")
    ] = 100,
    server: Server = SERVER_DEFAULT,
    as_json: Json = False,
) -> None:
    """Compare two banks, two moments of one bank, or two entries.
    Exit code 0 where nothing differs, 9 where something does.

    Example: simsearch diff scam-images scam-images-eu --limit 20
    """
    _check(other, since, until, entry, and_)
    with connect(server) as client:
        if entry:
            differs = _diff_entries(client, (bank, entry), (other or bank, and_), as_json)
        elif since:
            differs = _diff_times(client, bank, (time_us(since), time_us(until)), limit, as_json)
        else:
            differs = _diff_banks(client, bank, other, limit, as_json)
    if differs:
        raise typer.Exit(EXIT_DIFFERENT)


def _check(other: str, since: str, until: str, entry: int, and_: int) -> None:
    """Raises BadRequest."""
    if bool(entry) != bool(and_):
        raise BadRequest("to compare two entries, give --entry and --and")
    if until and not since:
        raise BadRequest("until then, and since when? give --since")
    if since and (other or entry):
        raise BadRequest("--since is about one bank: leave out the other one, and entries")
    if not (other or since or entry):
        raise BadRequest("compare with what? give another bank, --since, or --entry and --and")


# ---------------------------------------------------------------- two banks


def _diff_banks(client: Client, one: str, other: str, limit: int, as_json: bool) -> bool:
    found = compare(_gathered(client, one), _gathered(client, other))
    sections = [
        (f"only in {one}", one, found.only_one),
        (f"only in {other}", other, found.only_other),
        (f"in both, and as this in {one}", one, found.differ_one),
        (f"in both, and as this in {other}", other, found.differ_other),
    ]
    shown = [[_entry(client, bank, key) for key in keys[:limit]] for _, bank, keys in sections]
    if as_json:
        print_json(_banks_json(one, other, found, shown))
    else:
        for (title, _, keys), entries in zip(sections, shown, strict=True):
            if keys:
                print_table(("key", "state", "labels"), map(_line, entries), title)
                _print_rest(len(keys), limit)
        print_line(f"{found.same} alike in both" + (": no difference" if found.is_equal else ""))
    return not found.is_equal


def _gathered(client: Client, bank: str) -> Gathered:
    """Of all that is not retracted."""
    gathered = Gathered()
    states = [int(state) for state in LIVE]
    request = ListEntriesRequest(
        bank=bank,
        states=states,  # type: ignore[arg-type]
        with_content_ids=True,
        page_size=PAGE_SIZE_ALL,
    )
    for page in pages(client, request):
        gathered.add(page.entries)
    return gathered


def _entry(client: Client, bank: str, key: int) -> dict[str, Any]:
    entry = plain(client.get_entry(bank, key))
    return {name: entry[name] for name in ("key", "state", "labels")}


def _line(entry: dict[str, Any]) -> tuple[str, ...]:
    return str(entry["key"]), entry["state"].lower(), ", ".join(entry["labels"])


def _banks_json(
    one: str, other: str, found: Compared, entries: Sequence[list[dict[str, Any]]]
) -> dict[str, Any]:
    counts = (found.only_one, found.only_other, found.differ_one, found.differ_other)
    names = ("only_one", "only_other", "differ_one", "differ_other")
    sections = {
        name: {"count": len(keys), "entries": shown}
        for name, keys, shown in zip(names, counts, entries, strict=True)
    }
    return {"one": one, "other": other, "equal": found.is_equal, "same": found.same} | sections


def _print_rest(count: int, limit: int) -> None:
    if count > limit:
        print_line(f"… and {count - limit} more: --limit {count}")


# ---------------------------------------------------------------- two times


def _diff_times(
    client: Client, bank: str, times_us: tuple[int, int], limit: int, as_json: bool
) -> bool:
    changes = list(islice(_changes(client, bank, times_us), limit + 1))
    told = [(change, _fields(client, change)) for change in changes[:limit]]
    if as_json:
        shown = [plain(c) | {"fields": [each.plain() for each in fields]} for c, fields in told]
        equal, cut = not changes, len(changes) > limit
        print_json({"bank": bank, "equal": equal, "truncated": cut, "changes": shown})
        return bool(changes)
    for_table = [(*change_row(change), _words(fields)) for change, fields in told]
    print_table((*COLUMNS, "from what to what"), for_table)
    if len(changes) > limit:
        print_line(f"… and more: --limit {10 * limit}")
    return bool(changes)


def _changes(client: Client, bank: str, times_us: tuple[int, int]) -> Iterator[LoggedChange]:
    """The oldest first."""
    since, until = map(time_to, times_us)
    request = ListChangesRequest(bank=bank, since=since, until=until, page_size=PAGE_SIZE_ALL)
    while True:
        page = client.list_changes(request)
        yield from page.changes
        if not page.more:
            return
        request.after_seq, request.before_seq = page.next_after_seq, page.next_before_seq


def _fields(client: Client, change: LoggedChange) -> list[FieldChange]:
    if plain(change)["kind"] not in _TOLD:
        return []
    return fields_of(client, client.get_change(change.seq))


def _words(fields: list[FieldChange]) -> str:
    return "\n".join(f"{each.field}: {each.words()}" for each in fields)


# ---------------------------------------------------------------- two entries


def _diff_entries(
    client: Client, one: tuple[str, int], other: tuple[str, int], as_json: bool
) -> bool:
    found = client.compare_entries(*one, other[1], other_bank=other[0])
    fields = changed_fields(*(_known(plain(each)) for each in (found.entry, found.other)))
    differs = bool(fields) or not _are_near(found)
    if as_json:
        shown = {"equal": not differs, "fields": [each.plain() for each in fields]}
        print_json(shown | plain(found))
        return differs
    print_table(("field", "from one to the other"), [(f.field, f.words()) for f in fields])
    for evidence in found.evidence:
        print_line(near_words(evidence))
    if not found.evidence:
        print_line("they have no signal in common")
    return differs


def _known(entry: dict[str, Any]) -> dict[str, Any]:
    """What is known of it, but for who banned it and when."""
    known = {name: entry[name] for name in _COMPARED if name in entry}
    rows = {f"rows of {signal['signal']}": signal["rows"] for signal in entry["signals"]}
    return {n: ", ".join(v) if isinstance(v, list) else v for n, v in known.items()} | rows


def _are_near(found: CompareEntriesResponse) -> bool:
    """As near as can be, by every signal that both have."""
    best = {"identical": 1.0, "hamming": 0, "cosine": 1.0}
    measures = [(str(each.WhichOneof("measure")), each) for each in found.evidence]
    nearest = {e.signal for name, e in measures if name in best and getattr(e, name) == best[name]}
    shared = {s.signal for s in found.entry.signals} & {s.signal for s in found.other.signals}
    return bool(shared) and nearest == shared
