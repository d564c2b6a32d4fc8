"""`simsearch entry list`: a bank's entries, chosen by what is known about them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from simsearch.cli.common.connection import asks_a_server, connect
from simsearch.cli.common.content_options import ready_hash
from simsearch.cli.common.options import SERVER_DEFAULT, Json, Server, States, states_of, time_us
from simsearch.cli.common.output import plain, print_json, print_json_line, print_line, print_table
from simsearch.errors import BadRequest
from simsearch.types import EntryState
from simsearch.v1.bank_pb2 import Entry, ListEntriesRequest, ListEntriesResponse
from simsearch.wire import content_to, time_to

if TYPE_CHECKING:
    from simsearch.client import Client

PAGE_SIZE_ALL = 1_000
"""Of each call of several."""

COLUMNS = ("key", "state", "labels", "source", "banned by", "when", "reason")

WithLabels = Annotated[
    Optional[list[str]],  # noqa: UP045  # typer reads the annotation at run time
    typer.Option("--label", help="with this label (repeatable: with all of them)"),
]
WithDigest = Annotated[
    str,
    typer.Option("--digest", metavar="SIGNAL:HEX", help="with this sha256, md5 …"),
]
ContentIds = Annotated[
    bool, typer.Option("--content-ids", help="say what each was banned as (with --json)")
]
EveryPage = Annotated[bool, typer.Option("--all", help="every page; with --json one entry a line")]


@asks_a_server
def list_(
    bank: str,
    state: States = None,
    label: WithLabels = None,
    source: Annotated[str, typer.Option(help="from this source")] = "",
    source_id: Annotated[str, typer.Option(help="with this id, or alias, at its source")] = "",
    actor: Annotated[str, typer.Option(help="banned by this one")] = "",
    since: Annotated[str, typer.Option(help="banned from then on, as 2027-01-31T18:00")] = "",
    until: Annotated[str, typer.Option(help="banned before then")] = "",
    changed_since: Annotated[str, typer.Option(help="last changed from then on")] = "",
    severity: Annotated[str, typer.Option(help="of this severity")] = "",
    note: Annotated[str, typer.Option(help="with these words in its note")] = "",
    digest: WithDigest = "",
    content_ids: ContentIds = False,
    page_size: Annotated[int, typer.Option(min=1, help="entries to print")] = 100,
    page_token: Annotated[str, typer.Option(help="where the last page ended")] = "",
    every: EveryPage = False,
    count: Annotated[bool, typer.Option("--count", help="only say how many there are")] = False,
    server: Server = SERVER_DEFAULT,
    as_json: Json = False,
) -> None:
    """List a bank's entries, the oldest ban first. All that is asked for holds of each of them.

    Example: simsearch entry list scam-images --state active --label scam --since 2027-01-31 --all
    """
    request = ListEntriesRequest(
        bank=bank,
        page_size=PAGE_SIZE_ALL if every else page_size,
        page_token=page_token,
        states=[int(each) for each in states_of(state)],  # type: ignore[misc]
        labels=label or (),
        source=source,
        source_id=source_id,
        actor=actor,
        since=time_to(time_us(since)),
        until=time_to(time_us(until)),
        changed_since=time_to(time_us(changed_since)),
        severity=severity,
        note_contains=note,
        with_content_ids=content_ids,
        count_only=count,
    )
    if digest:
        _set_digest(request, digest)
    if every and count:
        raise BadRequest("--count counts them all: leave out --all")
    _show(request, server, as_json, every=every)


def _show(request: ListEntriesRequest, server: Server, as_json: Json, *, every: bool) -> None:
    with connect(server) as client:
        if request.count_only:
            _print_count(sum(page.count for page in pages(client, request)), as_json)
        elif every:
            _print_all(client, request, as_json)
        else:
            _print_page(full_page(client, request), as_json)


def _set_digest(request: ListEntriesRequest, written: str) -> None:
    """Raises BadRequest, BadHash."""
    request.digest.CopyFrom(content_to(ready_hash(written)).hash)


# ---------------------------------------------------------------- pages


def pages(client: Client, request: ListEntriesRequest) -> Iterator[ListEntriesResponse]:
    """To the last one."""
    while True:
        page = client.list_entries(request)
        yield page
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


def full_page(client: Client, request: ListEntriesRequest) -> ListEntriesResponse:
    """One page: of those that come short of it, as many as make it up."""
    whole, size = ListEntriesResponse(), request.page_size
    for page in pages(client, request):
        whole.MergeFrom(page)
        whole.next_page_token = page.next_page_token
        request.page_size = size - len(whole.entries)
        if request.page_size <= 0:
            break
    whole.count = len(whole.entries)
    return whole


# ---------------------------------------------------------------- printing


def _print_count(count: int, as_json: bool) -> None:
    if as_json:
        print_json({"count": count})
    else:
        print_line(str(count))


def _print_all(client: Client, request: ListEntriesRequest, as_json: bool) -> None:
    for page in pages(client, request):
        if as_json:
            for entry in page.entries:
                print_json_line(plain(entry))
        elif page.entries:
            print_table(COLUMNS, [row(entry) for entry in page.entries])


def _print_page(page: ListEntriesResponse, as_json: bool) -> None:
    if as_json:
        print_json(plain(page))
        return
    print_table(COLUMNS, [row(entry) for entry in page.entries])
    if page.next_page_token:
        print_line(f"more: --page-token {page.next_page_token}")


def row(entry: Entry) -> tuple[str, ...]:
    """Of COLUMNS."""
    added = entry.added
    return (
        str(entry.key),
        EntryState(entry.state).name.lower(),
        ", ".join(entry.labels),
        " ".join(filter(None, (entry.source, entry.source_id))),
        added.actor,
        added.time.ToJsonString()[:19].replace("T", " "),
        added.reason,
    )
