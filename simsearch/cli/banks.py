"""`simsearch bank …`: create, list, get, update."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional, cast

import typer

from simsearch.cli.options import SERVER_DEFAULT, Actor, Json, Reason, Server, edit_by
from simsearch.cli.output import plain, print_json, print_line, print_table
from simsearch.errors import BadPolicy

if TYPE_CHECKING:
    from simsearch.v1.bank_pb2 import Bank
    from simsearch.v1.policy_pb2 import Policy

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
    from simsearch.client import Client
    from simsearch.v1.bank_pb2 import CreateBankRequest
    from simsearch.wire import edit_to

    request = CreateBankRequest(
        name=name, description=description, edit=edit_to(edit_by(actor, reason))
    )
    with Client(server) as client:
        if policy or threshold or two_descriptors is not None:
            base = _read_policy(policy) if policy else client.default_policy()
            request.policy.CopyFrom(_changed(base, threshold, two_descriptors, client))
        bank = client.create_bank_from(request)
    _print(bank, as_json)


@app.command("list")
def list_(server: Server = SERVER_DEFAULT, as_json: Json = False) -> None:
    """List the banks.

    Example: simsearch bank list
    """
    from simsearch.client import Client

    with Client(server) as client:
        found = client.list_banks()
    if as_json:
        print_json([plain(bank) for bank in found])
        return
    rows = [(b.name, str(b.active_entries), b.etag, b.description) for b in found]
    print_table(("bank", "active entries", "etag", "description"), rows)


@app.command("get")
def get(name: str, server: Server = SERVER_DEFAULT, as_json: Json = False) -> None:
    """Show one bank and its policy.

    Example: simsearch bank get scam-images --json
    """
    from simsearch.client import Client

    with Client(server) as client:
        bank = client.get_bank(name)
    _print(bank, as_json)


@app.command("update")
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
    """Change a bank's description or policy; refused where somebody else changed it meanwhile.

    Example: simsearch bank update scam-images --threshold copyclip.review=0.9 --reason "too many"
    """
    from simsearch.client import Client
    from simsearch.v1.bank_pb2 import UpdateBankRequest
    from simsearch.wire import edit_to

    with Client(server) as client:
        bank = client.get_bank(name)
        request = UpdateBankRequest(
            name=name,
            description=description,
            etag=bank.etag,
            edit=edit_to(edit_by(actor, reason)),
        )
        if policy or threshold or two_descriptors is not None:
            base = _read_policy(policy) if policy else bank.policy
            request.policy.CopyFrom(_changed(base, threshold, two_descriptors, client))
        updated = client.update_bank(request)
    _print(updated, as_json)


# ---------------------------------------------------------------- policies in words


def _read_policy(path: Path) -> Policy:
    """A policy from JSON: either the policy itself or a bank with a policy in it."""
    import json

    from google.protobuf.json_format import ParseDict, ParseError

    from simsearch.v1.policy_pb2 import Policy

    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        return ParseDict(_prefixed(value.get("policy", value)), Policy())
    except OSError as fault:
        raise BadPolicy(f"cannot read {path}: {fault.strerror}") from None
    except (ValueError, AttributeError, TypeError, KeyError, ParseError) as fault:
        raise BadPolicy(f"{path} is no policy: {fault}") from None


def _prefixed(policy: dict[str, Any]) -> dict[str, Any]:
    """Enum names as protobuf spells them: `plain` prints them without their prefix."""
    prefixes = {"query": "MODALITY_", "signal": "HASH_SIGNAL_", "band": "BAND_"}
    for rules in ("cosine", "hamming", "digests"):
        for rule in policy.get(rules, ()):
            for key, prefix in prefixes.items():
                if key in rule and not rule[key].startswith(prefix):
                    rule[key] = prefix + rule[key]
    return policy


def _changed(
    base: Policy, thresholds: list[str] | None, two_descriptors: bool | None, client: Any
) -> Policy:
    from simsearch.v1.policy_pb2 import Policy

    policy = Policy()
    policy.CopyFrom(base)
    spaces = {s.name: s.space for s in client.status().spaces} if thresholds else {}
    for written in thresholds or ():
        _set_threshold(policy, written, spaces)
    if two_descriptors is not None:
        policy.two_descriptors = two_descriptors
    return policy


def _set_threshold(policy: Policy, written: str, spaces: dict[str, str]) -> None:
    """Apply one SIGNAL.BAND=VALUE; the signal is pdq, minhash, or an encoder's name or space."""
    target, equals, value = written.rpartition("=")
    signal, dot, band = target.rpartition(".")
    if not (equals and dot and band in ("block", "review", "log")):
        raise BadPolicy(f"{written!r}: write SIGNAL.BAND=VALUE, as in pdq.block=31")
    try:
        _set_band(_rule(policy, signal, spaces), band, value)
    except (ValueError, TypeError):
        raise BadPolicy(f"{written!r}: {value!r} is no threshold") from None
    for rules in (policy.cosine, policy.hamming):
        for rule in [r for r in rules if not any(r.HasField(b) for b in _BANDS)]:
            rules.remove(rule)  # type: ignore[arg-type]  # a rule of these very rules


def _set_band(rule: Any, band: str, value: str) -> None:
    if not value:
        rule.ClearField(band)
    else:
        setattr(rule, band, float(value) if hasattr(rule, "space") else int(value))


def _rule(policy: Policy, signal: str, spaces: dict[str, str]) -> Any:
    """The policy's rule for a signal, added where it has none yet."""
    from simsearch.v1.content_pb2 import MODALITY_IMAGE, MODALITY_TEXT
    from simsearch.wire import HASH_SIGNALS

    for number, name in HASH_SIGNALS.items():
        if signal == name:
            found = next((r for r in policy.hamming if r.signal == number), None)
            return found or policy.hamming.add(signal=cast(Any, number))
    encoder, colon, query = signal.partition(":")
    space = spaces.get(encoder, encoder)
    queries = {"image": MODALITY_IMAGE, "text": MODALITY_TEXT}
    if colon and query not in queries:
        raise BadPolicy(f"{signal!r}: write {encoder}:image or {encoder}:text")
    wanted = queries.get(query)
    rules = [r for r in policy.cosine if r.space in (space, encoder) and wanted in (None, r.query)]
    if len(rules) == 1:
        return rules[0]
    if wanted is None:
        count = "two thresholds" if rules else "no threshold yet"
        raise BadPolicy(f"{signal!r} has {count}: write {encoder}:image or {encoder}:text")
    return policy.cosine.add(space=space, query=wanted)


def _print(bank: Bank, as_json: bool) -> None:
    if as_json:
        print_json(plain(bank))
        return
    print_line(f"bank {bank.name}: {bank.active_entries} active entries, etag {bank.etag}")
    if bank.description:
        print_line(bank.description)
    print_table(("signal", "block", "review", "log"), _policy_rows(bank.policy), "policy")
    if bank.policy.two_descriptors:
        print_line("BLOCK needs two independent descriptors; one alone is held at REVIEW.")


def _policy_rows(policy: Policy) -> list[tuple[str, ...]]:
    shown = plain(policy)
    rows = [
        (f"{r['space']} ({r['query'].lower()})", *(_cell("≥", r.get(b)) for b in _BANDS))
        for r in shown["cosine"]
    ]
    rows += [
        (f"{r['signal'].lower()} (bits)", *(_cell("≤", r.get(b)) for b in _BANDS))
        for r in shown["hamming"]
    ]
    rows += [
        (r["signal"].lower(), *("equal" if b.upper() == r["band"] else "" for b in _BANDS))
        for r in shown["digests"]
    ]
    return rows


_BANDS = ("block", "review", "log")


def _cell(sign: str, value: float | None) -> str:
    return "" if value is None else f"{sign} {value:g}"
