"""`simsearch entry …`: add, get, set-state, retract."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Optional

import typer

from simsearch.cli.common.connection import asks_a_server, connect
from simsearch.cli.common.content_options import Files, Hashes, Texts, Vectors, contents_of
from simsearch.cli.common.options import (
    SERVER_DEFAULT,
    Actor,
    Json,
    Reason,
    Server,
    Wait,
    edit_by,
    state_of,
    time_us,
)
from simsearch.cli.common.output import plain, print_json, print_line, print_table
from simsearch.cli.oversight.proposals import waits
from simsearch.types import WaitUntil
from simsearch.v1.bank_pb2 import AddEntryResponse, Entry


@asks_a_server
def add(
    bank: str,
    reason: Reason,
    files: Files = None,
    text: Texts = None,
    hash_: Hashes = None,
    vector: Vectors = None,
    label: Annotated[Optional[list[str]], typer.Option(help="repeatable")] = None,  # noqa: UP045
    source: Annotated[str, typer.Option(help="where it comes from")] = "",
    source_id: Annotated[str, typer.Option(help="its id there")] = "",
    note: Annotated[str, typer.Option(help="for whoever reviews a hit")] = "",
    state: Annotated[
        str, typer.Option(help="active, shadow (counted, decides nothing) or draft (not asked yet)")
    ] = "active",
    expires: Annotated[str, typer.Option(help="when the ban ends by itself, as 2027-01-31")] = "",
    severity: Annotated[str, typer.Option(help="how bad, in your own words")] = "",
    wait: Wait = WaitUntil.VISIBLE,
    actor: Actor = "",
    server: Server = SERVER_DEFAULT,
    as_json: Json = False,
) -> None:
    """Ban one item. Several files, texts or hashes are views of that one item.

    Example: simsearch entry add scam-images poster.png --label scam --reason "case 4711"
    """
    contents = [content for _, content in contents_of(files, text, hash_, vector)]
    with connect(server) as client:
        added = client.add_entry(
            bank,
            contents,
            edit_by(actor, reason),
            labels=label or (),
            source=source,
            source_id=source_id,
            note=note,
            state=state_of(state),
            expires_us=time_us(expires),
            severity=severity,
            wait_until=wait,
        )
    if as_json:
        print_json(plain(added))
        return
    _print_added(added, bank, wait)


def _print_added(added: AddEntryResponse, bank: str, wait: WaitUntil) -> None:
    signals = ", ".join(s.signal for s in added.entry.signals)
    state = "searches see it" if wait is WaitUntil.VISIBLE else "it is on disk"
    if added.proposal_id:
        print_line(f"stored as draft {added.entry.key} of {bank}; {waits(added.proposal_id)}")
    else:
        print_line(f"banned as entry {added.entry.key} of {bank} (change {added.seq}); {state}")
    for why in added.held:
        print_line(f"held: {why}")
    print_line(f"signals: {signals}")
    for warning in added.warnings:
        print_line(f"warning: {warning}")


@asks_a_server
def get(bank: str, key: int, server: Server = SERVER_DEFAULT, as_json: Json = False) -> None:
    """Show one entry: who banned it, when and why. Never the content: it is not kept.

    Example: simsearch entry get scam-images 17
    """
    with connect(server) as client:
        entry = client.get_entry(bank, key)
    if as_json:
        print_json(plain(entry))
    else:
        print_table(("field", "value"), _card(entry))


@asks_a_server
def set_state(
    bank: str,
    key: int,
    to: Annotated[
        str, typer.Argument(help="active, shadow, disputed or quarantined", metavar="STATE")
    ],
    reason: Reason,
    until: Annotated[
        str, typer.Option(help="when it goes back by itself, as 2027-01-31 or 2027-01-31T18:00")
    ] = "",
    wait: Wait = WaitUntil.VISIBLE,
    actor: Actor = "",
    server: Server = SERVER_DEFAULT,
    as_json: Json = False,
) -> None:
    """Set the state of an entry. It counts (active), is reviewed at most (disputed), is only
    counted (shadow), or rests (quarantined).

    Example: simsearch entry set-state scam-images 17 quarantined --reason "hits a news photograph"
    """
    with connect(server) as client:
        moved = client.move_entry(
            bank,
            key,
            state_of(to),
            edit_by(actor, reason),
            until_us=time_us(until),
            wait_until=wait,
        )
    if as_json:
        print_json(plain(moved))
        return
    if moved.proposal_id:
        print_line(f"entry {key} of {bank} is as it was; {waits(moved.proposal_id)}")
        return
    change = f"change {moved.seq}" if moved.seq else "it was already"
    print_line(f"entry {key} of {bank} is {to.lower()} ({change})")


@asks_a_server
def retract(
    bank: str,
    key: int,
    reason: Reason,
    wait: Wait = WaitUntil.VISIBLE,
    actor: Actor = "",
    server: Server = SERVER_DEFAULT,
    as_json: Json = False,
) -> None:
    """Take a ban back. The record stays, and its key is never used again.

    Example: simsearch entry retract scam-images 17 --reason "appeal 88 upheld"
    """
    with connect(server) as client:
        gone = client.retract_entry(bank, key, edit_by(actor, reason), wait_until=wait)
    if as_json:
        print_json(plain(gone))
        return
    if gone.proposal_id:
        print_line(f"entry {key} of {bank} is as it was; {waits(gone.proposal_id)}")
        return
    state = "it no longer matches" if wait is WaitUntil.VISIBLE else "it is on disk"
    print_line(f"entry {key} of {bank} is retracted (change {gone.seq}); {state}")


def _card(entry: Entry) -> list[tuple[str, str]]:
    shown = plain(entry)
    signals = ", ".join(f"{s['signal']} ×{s['rows']}" for s in shown["signals"])
    card = [(n, str(shown[n])) for n in ("key", "bank", "state", "source", "source_id", "note")]
    card += [("labels", ", ".join(shown["labels"])), ("signals", signals)]
    if "hits" in shown:
        card.append(("hits", _hits(shown["hits"])))
    card += [("held", why) for why in shown["held"]]
    changes = [("added", shown["added"]), *(("extended", c) for c in shown["extended"])]
    changes += [(f"made {move['state'].lower()}", move["change"]) for move in shown["moves"]]
    if "retracted" in shown:
        changes.append(("retracted", shown["retracted"]))
    for kind, change in changes:
        words = f"{change['time']} by {change['actor']}: {change['reason']}"
        if change["approved_by"]:
            words += f", approved by {change['approved_by']}"
        card.append((kind, f"{words} (change {change['seq']})"))
    return card


def _hits(hits: Mapping[str, Any]) -> str:
    last = f", the last {hits['last_time']}" if "last_time" in hits else ""
    bands = ", ".join(f"{hits[band]} {band.upper()}" for band in ("block", "review", "log"))
    shadow = f"; in the shadow {hits['shadow']}" if hits["shadow"] else ""
    return f"{hits['total']} ({bands}; {hits['near']} of them near){last}{shadow}"
