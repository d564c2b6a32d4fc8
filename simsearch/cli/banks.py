"""`simsearch bank …`: create, list, get, update."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from simsearch.cli.connecting import asks_a_server, connect
from simsearch.cli.options import SERVER_DEFAULT, Actor, Json, Reason, Server, edit_by
from simsearch.cli.output import plain, print_json, print_line, print_table
from simsearch.cli.policies import changed, policy_rows, read_policy

if TYPE_CHECKING:
    from simsearch.v1.bank_pb2 import Bank

app = typer.Typer(
    help="Banks: named sets of banned items, each with one policy.", no_args_is_help=True
)

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


@app.command("create")
@asks_a_server
def create(
    name: str,
    reason: Reason,
    description: Annotated[str, typer.Option(help="what belongs in it")] = "",
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
    from simsearch.v1.bank_pb2 import CreateBankRequest
    from simsearch.wire import edit_to

    request = CreateBankRequest(
        name=name, description=description, edit=edit_to(edit_by(actor, reason))
    )
    with connect(server) as client:
        if policy or threshold or two_descriptors is not None:
            base = read_policy(policy)[0] if policy else client.default_policy()
            request.policy.CopyFrom(changed(base, threshold, two_descriptors, client))
        bank = client.create_bank_from(request)
    _print(bank, as_json)


@app.command("list")
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
    rows = [(b.name, str(b.active_entries), b.etag, b.description) for b in found]
    print_table(("bank", "active entries", "etag", "description"), rows)


@app.command("get")
@asks_a_server
def get(name: str, server: Server = SERVER_DEFAULT, as_json: Json = False) -> None:
    """Show one bank and its policy.

    Example: simsearch bank get scam-images --json
    """
    with connect(server) as client:
        bank = client.get_bank(name)
    _print(bank, as_json)


@app.command("update")
@asks_a_server
def update(
    name: str,
    reason: Reason,
    description: Annotated[Optional[str], typer.Option(help="a new description")] = None,  # noqa: UP045
    policy: PolicyFile = None,
    threshold: Threshold = None,
    two_descriptors: TwoDescriptors = None,
    actor: Actor = "",
    server: Server = SERVER_DEFAULT,
    as_json: Json = False,
) -> None:
    """Change a bank's description or policy; refused where somebody else changed it meanwhile:
    since this command read it, or since `bank get --json` wrote the file that --policy names.

    Example: simsearch bank update scam-images --threshold copyclip.review=0.9 --reason "too many"
    """
    from simsearch.v1.bank_pb2 import UpdateBankRequest
    from simsearch.wire import edit_to

    with connect(server) as client:
        bank = client.get_bank(name)
        request = UpdateBankRequest(
            name=name,
            description=description,
            etag=bank.etag,
            edit=edit_to(edit_by(actor, reason)),
        )
        if policy or threshold or two_descriptors is not None:
            base, read_at = read_policy(policy) if policy else (bank.policy, "")
            request.etag = read_at or bank.etag
            request.policy.CopyFrom(changed(base, threshold, two_descriptors, client))
        updated = client.update_bank(request)
    _print(updated, as_json)


# ---------------------------------------------------------------- printing


def _print(bank: Bank, as_json: bool) -> None:
    if as_json:
        print_json(plain(bank))
        return
    print_line(f"bank {bank.name}: {bank.active_entries} active entries, etag {bank.etag}")
    if bank.description:
        print_line(bank.description)
    print_table(("signal", "block", "review", "log"), policy_rows(bank.policy), "policy")
    if bank.policy.two_descriptors:
        print_line("BLOCK needs two independent descriptors; one alone is held at REVIEW.")
