"""`simsearch proposal …`: edits that wait for a second person."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from simsearch.cli.common.connection import asks_a_server, connect
from simsearch.cli.common.options import SERVER_DEFAULT, Actor, Json, Reason, Server, Wait, edit_by
from simsearch.cli.common.output import plain, print_json, print_line, print_table
from simsearch.types import Decision, Edit, ProposalState, WaitUntil
from simsearch.v1.bank_pb2 import Change
from simsearch.v1.proposal_pb2 import DecideProposalResponse, ListProposalsRequest, Proposal

PAGE_SIZE: Final = 1_000
DECIDE_S: Final = 60.0
"""For one part of what is approved."""

Id = Annotated[int, typer.Argument(min=1, metavar="ID", help="as `proposal list` shows it")]


def waits(proposal_id: int) -> str:
    """What a command says that did not edit, but proposed to."""
    return f"proposal {proposal_id} waits for a second person"


@asks_a_server
def list_(
    bank: Annotated[str, typer.Option("--bank", help="only those about this bank")] = "",
    state: Annotated[str, typer.Option(help="open, approved, rejected, withdrawn or all")] = "open",
    server: Server = SERVER_DEFAULT,
    as_json: Json = False,
) -> None:
    """List what waits, the oldest first.

    Example: simsearch proposal list --bank scam-images
    """
    request = ListProposalsRequest(bank=bank, state=_state(state), page_size=PAGE_SIZE)  # type: ignore[arg-type]
    found: list[Proposal] = []
    with connect(server) as client:
        while True:
            page = client.list_proposals(request)
            found += page.proposals
            if not page.next_page_token:
                break
            request.page_token = page.next_page_token
    if as_json:
        print_json([plain(proposal) for proposal in found])
        return
    columns = ("id", "state", "bank", "what", "by", "when", "reason")
    print_table(columns, [_row(proposal) for proposal in found])


@asks_a_server
def show(number: Id, server: Server = SERVER_DEFAULT, as_json: Json = False) -> None:
    """Show one: what is to be done, who asks for it, why, and what became of it.

    Example: simsearch proposal show 12
    """
    with connect(server) as client:
        proposal = client.get_proposal(number)
    if as_json:
        print_json(plain(proposal))
    else:
        print_table(("field", "value"), _card(proposal))


@asks_a_server
def approve(
    number: Id,
    reason: Reason,
    wait: Wait = WaitUntil.VISIBLE,
    actor: Actor = "",
    server: Server = SERVER_DEFAULT,
    as_json: Json = False,
) -> None:
    """Let what somebody else proposed be done, and do it. Interrupted, the same command goes on.

    Example: simsearch proposal approve 12 --reason "seen, case 4711"
    """
    _decide(number, Decision.APPROVE, edit_by(actor, reason), wait, server, as_json=as_json)


@asks_a_server
def reject(
    number: Id,
    reason: Reason,
    wait: Wait = WaitUntil.VISIBLE,
    actor: Actor = "",
    server: Server = SERVER_DEFAULT,
    as_json: Json = False,
) -> None:
    """Turn down what somebody else proposed. What was added for it stays a draft.

    Example: simsearch proposal reject 12 --reason "a news photograph"
    """
    _decide(number, Decision.REJECT, edit_by(actor, reason), wait, server, as_json=as_json)


@asks_a_server
def withdraw(
    number: Id,
    reason: Reason,
    wait: Wait = WaitUntil.VISIBLE,
    actor: Actor = "",
    server: Server = SERVER_DEFAULT,
    as_json: Json = False,
) -> None:
    """Take back a proposal of your own. What was added for it stays a draft.

    Example: simsearch proposal withdraw 12 --reason "the wrong bank"
    """
    _decide(number, Decision.WITHDRAW, edit_by(actor, reason), wait, server, as_json=as_json)


def _decide(
    number: int, decision: Decision, edit: Edit, wait: WaitUntil, server: str, *, as_json: bool
) -> None:
    with connect(server) as client:
        while True:
            answer = client.decide_proposal(
                number, decision, edit, wait_until=wait, deadline_s=DECIDE_S
            )
            if not answer.remaining:
                break
    if as_json:
        print_json(plain(answer))
        return
    for line in _outcome(answer):
        print_line(line)


def _outcome(answer: DecideProposalResponse) -> list[str]:
    proposal = answer.proposal
    lines = [f"proposal {proposal.id} is {_word(proposal)} (change {answer.seq})"]
    if _word(proposal) == "approved" and proposal.entries:
        done = proposal.entries - proposal.skipped
        lines.append(f"done for {done:,} of {proposal.entries:,} entries")
    if proposal.skipped:
        lines.append(f"{proposal.skipped:,} did not fit any more and are as they were")
    return lines


def _state(word: str) -> int:
    if word == "all":
        return 0
    try:
        return int(ProposalState[word.upper()])
    except KeyError:
        states = ", ".join(state.name.lower() for state in ProposalState)
        raise typer.BadParameter(f"{word!r}: one of {states} or all") from None


# ---------------------------------------------------------------- printing


def _row(proposal: Proposal) -> tuple[str, ...]:
    made = proposal.made
    return (
        str(proposal.id),
        _word(proposal),
        proposal.bank,
        _what(proposal),
        made.actor,
        made.time.ToJsonString()[:19].replace("T", " "),
        made.reason,
    )


def _word(proposal: Proposal) -> str:
    word: str = plain(proposal)["state"]
    return word.lower()


def _what(proposal: Proposal) -> str:
    """As in "make 3 entries active: 17, 18, 19"."""
    shown = plain(proposal)
    keys = ", ".join(map(str, proposal.entry_keys[:5]))
    more = ", …" if proposal.entries > len(proposal.entry_keys[:5]) else ""
    count = f"{proposal.entries:,} {'entry' if proposal.entries == 1 else 'entries'}"
    match shown["kind"]:
        case "MOVE":
            return f"make {count} {shown['entry_state'].lower()}: {keys}{more}"
        case "RETRACTION":
            return f"retract {count}: {keys}"
        case "IMPORT":
            return f"take over a list of {count}"
        case "EXPORT":
            return "take the bank out"
        case _:
            return f"update the bank's {', '.join(_settings(proposal))}"


def _settings(proposal: Proposal) -> dict[str, object]:
    update: dict[str, object] = plain(proposal).get("update", {})
    return {name: value for name, value in update.items() if value != "UNSPECIFIED"}


def _card(proposal: Proposal) -> list[tuple[str, str]]:
    card = [("id", str(proposal.id)), ("bank", proposal.bank), ("state", _word(proposal))]
    card += [("what", _what(proposal)), ("made", _change(proposal.made))]
    card += [("held", reason) for reason in proposal.held]
    card += [(f"new {name}", str(value)) for name, value in _settings(proposal).items()]
    if proposal.bank_etag:
        card.append(("for the bank at", proposal.bank_etag))
    if proposal.HasField("until"):
        card.append(("until", proposal.until.ToJsonString()))
    if proposal.import_id:
        card.append(("import", proposal.import_id))
    if proposal.HasField("decided"):
        card.append(("decided", _change(proposal.decided)))
    if proposal.remaining:
        card.append(("still to be done", f"{proposal.remaining:,} entries"))
    if proposal.skipped:
        card.append(("did not fit any more", f"{proposal.skipped:,} entries"))
    return card


def _change(change: Change) -> str:
    when = change.time.ToJsonString()
    return f"{when} by {change.actor}: {change.reason} (change {change.seq})"
