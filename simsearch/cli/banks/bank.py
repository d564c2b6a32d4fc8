"""`simsearch bank …`: create, list, get, update."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Optional

import typer

from simsearch.cli.banks.policy_text import changed, policy_rows, read_policy
from simsearch.cli.common.connection import asks_a_server, connect
from simsearch.cli.common.options import SERVER_DEFAULT, Actor, Json, Reason, Server, edit_by
from simsearch.cli.common.output import plain, print_json, print_line, print_table
from simsearch.cli.oversight.proposals import waits
from simsearch.types import BankKind, FourEyes
from simsearch.v1.bank_pb2 import Bank, UpdateBankRequest
from simsearch.wire import edit_to, policy_from, policy_to

PolicyFile = Annotated[
    Optional[Path],  # noqa: UP045  # typer reads the annotation at run time
    typer.Option("--policy", help="a JSON file as `simsearch bank get NAME --json` prints it"),
]
Threshold = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(
        "--threshold",
        metavar="SIGNAL.BAND=VALUE",
        help="as in pdq.block=31, minilm.review=0.85 or copyclip:text.review=0.3 (texts that ask "
        "for images); an empty value drops the band",
    ),
]
TwoDescriptors = Annotated[
    Optional[bool],  # noqa: UP045
    typer.Option(help="BLOCK only where two independent descriptors agree"),
]

Owner = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="the person or team to ask about it"),
]
EnabledRatio = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option(help="the share of its hits that counts, 0 to 1, by a hash of entry and content"),
]
FourEyesOption = Annotated[
    Optional[bool],  # noqa: UP045
    typer.Option("--four-eyes/--no-four-eyes", help="edits wait for a second person, or do not"),
]


@asks_a_server
def create(
    name: str,
    reason: Reason,
    description: Annotated[str, typer.Option(help="what belongs in it")] = "",
    allowed: Annotated[
        bool,
        typer.Option(
            "--allowed", help="of what is known to be harmless: it suppresses hits of other banks"
        ),
    ] = False,
    owner: Owner = None,
    enabled_ratio: EnabledRatio = None,
    four_eyes: FourEyesOption = None,
    policy: PolicyFile = None,
    threshold: Threshold = None,
    two_descriptors: TwoDescriptors = None,
    actor: Actor = "",
    server: Server = SERVER_DEFAULT,
    as_json: Json = False,
) -> None:
    """Create a bank. Without --policy it gets the server's default thresholds.

    Example: simsearch bank create scam-images --reason "case 4711"
    """
    with connect(server) as client:
        wanted = None
        if policy or threshold or two_descriptors is not None:
            base = read_policy(policy)[0] if policy else policy_to(client.default_policy())
            wanted = policy_from(changed(base, threshold, two_descriptors, client), space_id=str)
        bank = client.create_bank(
            name,
            edit_by(actor, reason),
            description=description,
            policy=wanted,
            kind=BankKind.ALLOWED if allowed else BankKind.BANNED,
            owner=owner or "",
            enabled_ratio=enabled_ratio,
            four_eyes=_four_eyes(four_eyes),
        )
    _print(bank, as_json)


@asks_a_server
def list_(server: Server = SERVER_DEFAULT, as_json: Json = False) -> None:
    """List the banks.

    Example: simsearch bank list
    """
    with connect(server) as client:
        found = client.list_banks()
    if as_json:
        print_json([plain(bank) for bank in found])
        return
    rows = [
        (b.name, _kind(b), str(b.active_entries), b.owner, b.etag, b.description) for b in found
    ]
    print_table(("bank", "kind", "active entries", "owner", "etag", "description"), rows)


@asks_a_server
def get(name: str, server: Server = SERVER_DEFAULT, as_json: Json = False) -> None:
    """Show one bank and its policy.

    Example: simsearch bank get scam-images --json
    """
    with connect(server) as client:
        bank = client.get_bank(name)
    _print(bank, as_json)


@asks_a_server
def update(
    name: str,
    reason: Reason,
    description: Annotated[Optional[str], typer.Option(help="a new description")] = None,  # noqa: UP045
    archived: Annotated[
        Optional[bool],  # noqa: UP045
        typer.Option("--archive/--unarchive", help="ask it no more, and take no edits to it"),
    ] = None,
    owner: Owner = None,
    enabled_ratio: EnabledRatio = None,
    four_eyes: FourEyesOption = None,
    policy: PolicyFile = None,
    threshold: Threshold = None,
    two_descriptors: TwoDescriptors = None,
    actor: Actor = "",
    server: Server = SERVER_DEFAULT,
    as_json: Json = False,
) -> None:
    """Change a bank's settings or policy. Refused where somebody else changed it meanwhile:
    since this command read it, or since `bank get --json` wrote the file that --policy names.

    Example: simsearch bank update scam-images --threshold copyclip.review=0.9 --reason "too many"
    """
    with connect(server) as client:
        bank = client.get_bank(name)
        request = UpdateBankRequest(
            name=name,
            description=description,
            owner=owner,
            archived=archived,
            enabled_ratio=enabled_ratio,
            four_eyes=int(_four_eyes(four_eyes)),  # type: ignore[arg-type]
            etag=bank.etag,
            edit=edit_to(edit_by(actor, reason)),
        )
        if policy or threshold or two_descriptors is not None:
            base, read_at = read_policy(policy) if policy else (bank.policy, "")
            request.etag = read_at or bank.etag
            request.policy.CopyFrom(changed(base, threshold, two_descriptors, client))
        updated = client.update_bank(request)
    if updated.proposal_id and as_json:
        print_json(plain(updated.bank) | {"proposal_id": updated.proposal_id})
        return
    _print(updated.bank, as_json)
    if updated.proposal_id:
        print_line(f"it is as it was; {waits(updated.proposal_id)}")


def _four_eyes(asked: bool | None) -> FourEyes:
    if asked is None:
        return FourEyes.AS_CONFIGURED
    return FourEyes.REQUIRED if asked else FourEyes.OFF


# ---------------------------------------------------------------- printing


def _kind(bank: Bank) -> str:
    """As in "banned" or "allowed, archived"."""
    kind = plain(bank)["kind"].lower()
    return f"{kind}, archived" if bank.archived else kind


def _settings(bank: Bank) -> Iterator[str]:
    """Those that are not as in most banks."""
    if bank.owner:
        yield f"owner: {bank.owner}"
    if _kind(bank) != "banned":
        yield f"kind: {_kind(bank)}"
    if bank.enabled_ratio < 1:
        yield f"{bank.enabled_ratio:g} of its hits count; the others are counted as in the shadow"
    said = plain(bank)["four_eyes"].lower()
    if said != "unspecified":
        yield f"four eyes: {said}"


def _print(bank: Bank, as_json: bool) -> None:
    if as_json:
        print_json(plain(bank))
        return
    print_line(f"bank {bank.name}: {bank.active_entries} active entries, etag {bank.etag}")
    if bank.description:
        print_line(bank.description)
    for line in _settings(bank):
        print_line(line)
    print_table(("signal", "block", "review", "log"), policy_rows(bank.policy), "policy")
    if bank.policy.two_descriptors:
        print_line("BLOCK needs two independent descriptors; one alone is held at REVIEW.")
