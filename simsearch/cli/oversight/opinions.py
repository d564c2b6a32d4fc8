"""`simsearch opinion …` and `simsearch review …`: what people think of hits, and what waits for
somebody to decide."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simsearch.cli.common.connection import asks_a_server, connect
from simsearch.cli.common.options import (
    SERVER_DEFAULT,
    Actor,
    Json,
    Reason,
    Server,
    edit_by,
    time_us,
)
from simsearch.cli.common.output import plain, print_json, print_line, print_table
from simsearch.errors import BadHash
from simsearch.types import OpinionDraft, OpinionKind
from simsearch.v1.feedback_pb2 import ListOpinionsRequest, Opinion, ReviewItem
from simsearch.wire import OPINION_KIND_NUMBERS, time_to

if TYPE_CHECKING:
    from simsearch.client import Client


PAGE_SIZE = 1_000
KINDS = "true-positive, false-positive, wrong-label, duplicate, not-harmful-here or other"

Limit = Annotated[int, typer.Option(min=1, max=1_000_000, help="so many at most")]


@asks_a_server
def give(
    bank: str,
    key: int,
    kind: Annotated[str, typer.Argument(help=KINDS)],
    reason: Reason,
    note: Annotated[str, typer.Option(help="what was seen")] = "",
    case: Annotated[str, typer.Option(help="its id in your own system")] = "",
    sha256: Annotated[str, typer.Option(help="of the content that was hit, in hex")] = "",
    actor: Actor = "",
    server: Server = SERVER_DEFAULT,
    as_json: Json = False,
) -> None:
    """Say what a hit of an entry was. Your newer opinion takes the place of your older one.

    Example: simsearch opinion give scams 17 false-positive --note "a sunset" --reason "case 88"
    """
    said = OpinionDraft(_kind(kind), note, _digest(sha256), case)
    with connect(server) as client:
        given = client.give_opinion(bank, key, said, edit_by(actor, reason))
    if as_json:
        print_json(plain(given))
        return
    print_line(f"entry {key} of {bank}: {_word(given.opinion)} (change {given.opinion.change.seq})")
    if given.disputed:
        print_line("as many doubt it as are asked for: it is disputed, and reviewed at most")


@asks_a_server
def list_(
    bank: str,
    entry: Annotated[int, typer.Option(min=0, help="only those on this entry")] = 0,
    kind: Annotated[str, typer.Option(help=f"only those of a kind: {KINDS}")] = "",
    actor: Annotated[str, typer.Option(help="only those of this one")] = "",
    since: Annotated[str, typer.Option(help="from then on, as 2027-01-31T18:00")] = "",
    until: Annotated[str, typer.Option(help="before then")] = "",
    limit: Limit = 100,
    server: Server = SERVER_DEFAULT,
    as_json: Json = False,
) -> None:
    """List what people said of a bank's hits, by entry, each entry's oldest first.

    Example: simsearch opinion list scam-images --kind false-positive --since 2027-01-31
    """
    request = ListOpinionsRequest(
        bank=bank,
        entry_key=entry,
        kind=OPINION_KIND_NUMBERS[_kind(kind)] if kind else None,
        actor=actor,
        since=time_to(time_us(since)),
        until=time_to(time_us(until)),
    )
    with connect(server) as client:
        opinions = list(_opinions(client, request, limit))
    if as_json:
        print_json([plain(opinion) for opinion in opinions])
        return
    columns = ("entry", "when", "who", "opinion", "case", "note", "reason")
    print_table(columns, [_row(opinion) for opinion in opinions])


def _opinions(client: Client, request: ListOpinionsRequest, limit: int) -> Iterator[Opinion]:
    while limit:
        request.page_size = min(limit, PAGE_SIZE)
        page = client.list_opinions(request)
        yield from page.opinions
        limit -= len(page.opinions)
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


@asks_a_server
def review(
    bank: Annotated[str, typer.Option("--bank", help="only entries of this bank")] = "",
    limit: Limit = 100,
    server: Server = SERVER_DEFAULT,
    as_json: Json = False,
) -> None:
    """List what waits for somebody to decide, the longest first. Disputed entries, and those that
    the server quarantined because their hits were a flood. `simsearch entry set-state` decides.

    Example: simsearch review list --bank scam-images
    """
    with connect(server) as client:
        items = list(_waiting(client, bank, limit))
    if as_json:
        print_json([plain(item) for item in items])
        return
    columns = ("bank", "entry", "state", "since", "by", "why", "opinions", "hits (near)")
    print_table(columns, [_waits(item) for item in items])


def _waiting(client: Client, bank: str, limit: int) -> Iterator[ReviewItem]:
    token = ""
    while limit:
        page = client.list_review(bank, page_size=min(limit, PAGE_SIZE), page_token=token)
        yield from page.items
        limit -= len(page.items)
        token = page.next_page_token
        if not token:
            return


# ---------------------------------------------------------------- words


def _kind(word: str) -> OpinionKind:
    try:
        return OpinionKind[word.upper().replace("-", "_")]
    except KeyError:
        raise typer.BadParameter(f"{word!r}: one of {KINDS}") from None


def _digest(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise BadHash("--sha256 is not in hex: give its 64 digits") from None


def _word(opinion: Opinion) -> str:
    kind: str = plain(opinion)["kind"]
    return kind.lower().replace("_", " ")


def _when(change: Any) -> str:
    when: str = change.time.ToJsonString()
    return when[:19].replace("T", " ")


def _row(opinion: Opinion) -> tuple[str, ...]:
    return (
        str(opinion.entry_key),
        _when(opinion.change),
        opinion.change.actor,
        _word(opinion) + (" (superseded)" if opinion.superseded else ""),
        opinion.case_id,
        opinion.note,
        opinion.change.reason,
    )


def _waits(item: ReviewItem) -> tuple[str, ...]:
    entry = item.entry
    return (
        entry.bank,
        str(entry.key),
        plain(entry)["state"].lower(),
        _when(item.since),
        item.since.actor,
        item.since.reason,
        ", ".join(f"{opinion.change.actor}: {_word(opinion)}" for opinion in item.opinions),
        f"{entry.hits.total} ({entry.hits.near})",
    )
