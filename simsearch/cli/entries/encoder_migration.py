"""Encoder migration: `simsearch entry extend`, `backfill` and `compare-encoders`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

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
    exit_code,
)
from simsearch.cli.common.output import plain, print_json, print_line, print_table
from simsearch.cli.common.samples import Folder, Lines, Sample, judged, samples_of
from simsearch.errors import BadRequest, Fault, SimsearchError, Unavailable
from simsearch.match.agreement import Agreement, SpaceVerdict, VerdictPair, space_verdict
from simsearch.types import (
    Band,
    Edit,
    MatchOptions,
    MatchResult,
    Modality,
    Signal,
    SignalState,
    WaitUntil,
)
from simsearch.wire import HASH_SIGNALS, policy_from

if TYPE_CHECKING:
    from simsearch.client import Client

EXACT = {
    Modality.IMAGE: (Signal.SHA256,),
    Modality.TEXT: (Signal.TEXT_LIGHT_SHA256, Signal.TEXT_SHA256),
}
"""By which digests a content is recognised as the one that was banned; entries of before have the
second of a text alone."""

Partial = Annotated[
    bool, typer.Option("--partial", help="the entry's other contents are lost: go on without them")
]
HitsMax = Annotated[int, typer.Option("--hits-max", min=1, help="hits to ask for each")]


@asks_a_server
def extend(
    bank: str,
    key: int,
    reason: Reason,
    files: Files = None,
    text: Texts = None,
    hash_: Hashes = None,
    vector: Vectors = None,
    partial: Partial = False,
    wait: Wait = WaitUntil.VISIBLE,
    actor: Actor = "",
    server: Server = SERVER_DEFAULT,
    as_json: Json = False,
) -> None:
    """Give one entry the signals it lacks, from the content it was banned with.

    Give all of an entry's contents at once. Ready vectors and hashes cannot be compared with what
    was banned: you vouch for them.

    Example: simsearch entry extend scam-images 17 poster.png --reason "new image encoder"
    """
    contents = [content for _, content in contents_of(files, text, hash_, vector)]
    with connect(server) as client:
        done = client.extend_entry(
            bank, key, contents, edit_by(actor, reason), partial=partial, wait_until=wait
        )
    if as_json:
        print_json(plain(done))
        return
    added = ", ".join(f"{s.signal} ×{s.rows}" for s in done.added)
    if done.seq:
        print_line(f"entry {key} of {bank} was given {added} (change {done.seq})")
    else:
        print_line(f"entry {key} of {bank} has every signal already: nothing was changed")
    for warning in done.warnings:
        print_line(f"warning: {warning}")


# ---------------------------------------------------------------- backfill


@dataclass
class Backfill:
    """What became of each entry and of each content that was handed in."""

    extended: list[int] = field(default_factory=list)
    had_all: list[int] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    error: SimsearchError | None = None

    def fail(self, name: str, error: SimsearchError) -> None:
        self.failed[name] = error.message
        self.error = self.error or error


@asks_a_server
def backfill(
    bank: str,
    reason: Reason,
    images: Folder = None,
    texts: Lines = None,
    partial: Partial = False,
    hits_max: HitsMax = 100,
    wait: Wait = WaitUntil.VISIBLE,
    actor: Actor = "",
    server: Server = SERVER_DEFAULT,
    as_json: Json = False,
) -> None:
    """Extend every entry whose content is in a folder of images or a file of texts.

    Contents are recognised by their digest. Stopped or failed, run it again: what was done is
    not done twice.

    Example: simsearch entry backfill scam-images --images ./evidence --reason "new encoder"
    """
    modality, samples = samples_of(images, texts)
    report = Backfill()
    edit = edit_by(actor, reason)
    with connect(server) as client:
        _require_digest_rule(client, bank, modality)
        by_entry = _recognised(client, bank, modality, samples, hits_max, report)
        for key, own in sorted(by_entry.items()):
            _extend(client, bank, key, own, edit, partial, wait, report)
    if as_json:
        said = asdict(report)
        said.pop("error")
        print_json(said)
    else:
        _print_backfill(report)
    if report.error:
        raise typer.Exit(exit_code(report.error))


def _require_digest_rule(client: Client, bank: str, modality: Modality) -> None:
    rules = client.get_bank(bank).policy.digests
    if not {HASH_SIGNALS.get(rule.signal) for rule in rules}.intersection(EXACT[modality]):
        raise BadRequest(
            f"bank {bank!r} has no rule for {EXACT[modality][0]}, so its entries cannot be told by "
            "their content: give its policy that rule, or extend each entry by its key"
        )


def _recognised(
    client: Client,
    bank: str,
    modality: Modality,
    samples: Sequence[Sample],
    hits_max: int,
    report: Backfill,
) -> dict[int, list[Sample]]:
    """The contents of each entry that bans one of them exactly: an entry may have several, and
    takes them all at once."""
    by_entry: dict[int, list[Sample]] = {}
    for sample, outcome in judged(client, samples, MatchOptions((bank,), hits_max)):
        if isinstance(outcome, SimsearchError):
            report.fail(sample.name, outcome)
            continue
        keys = [
            hit.entry_key
            for hit in outcome.hits
            if any(e.signal in EXACT[modality] for e in hit.evidence)
        ]
        if outcome.truncated:
            report.fail(sample.name, _cut(outcome))
        elif not keys:
            report.unknown.append(sample.name)
        for key in keys:
            by_entry.setdefault(key, []).append(sample)
    return by_entry


def _cut(result: MatchResult) -> SimsearchError:
    return BadRequest(
        f"it has more hits than the {len(result.hits)} that were returned: raise --hits-max"
    )


def _extend(
    client: Client,
    bank: str,
    key: int,
    own: Sequence[Sample],
    edit: Edit,
    partial: bool,
    wait: WaitUntil,
    report: Backfill,
) -> None:
    try:
        contents = [sample.read() for sample in own]
        done = client.extend_entry(bank, key, contents, edit, partial=partial, wait_until=wait)
    except (Fault, Unavailable):
        raise  # no other entry would fare better
    except SimsearchError as refusal:
        report.fail(f"entry {key}", refusal)
        return
    (report.extended if done.seq else report.had_all).append(key)
    report.warnings += [f"entry {key}: {warning}" for warning in done.warnings]


def _print_backfill(report: Backfill) -> None:
    print_line(
        f"{len(report.extended)} entries extended, {len(report.had_all)} had all, "
        f"{len(report.unknown)} contents unknown, {len(report.failed)} failed"
    )
    for name in report.unknown:
        print_line(f"unknown: {name}")
    for name, why in report.failed.items():
        print_line(f"failed: {name}: {why}")
    for warning in report.warnings:
        print_line(f"warning: {warning}")


# ---------------------------------------------------------------- compare-encoders


@dataclass
class Comparison:
    """The contents that both spaces judged, and those that they could not, by name and why."""

    old: str
    new: str
    pairs: list[VerdictPair] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def differing(self) -> list[VerdictPair]:
        return [pair for pair in self.pairs if not pair.agrees]

    def agreement(self) -> Agreement:
        return Agreement.of((pair.old.band, pair.new.band) for pair in self.pairs)


@asks_a_server
def compare_encoders(
    bank: str,
    old: Annotated[str, typer.Option("--old", help="a space or its encoder's name")],
    new: Annotated[str, typer.Option("--new", help="a space or its encoder's name")],
    images: Folder = None,
    texts: Lines = None,
    hits_max: HitsMax = 100,
    server: Server = SERVER_DEFAULT,
    as_json: Json = False,
) -> None:
    """Ask both spaces of a bank about a sample of yours, and tell how far they agree.

    Each space is judged by its own thresholds, other signals left aside. Contents are named by
    file or line; a text is never printed.

    Example: simsearch entry compare-encoders scam-images --old clip1 --new clip2 --images ./sample
    """
    modality, samples = samples_of(images, texts)
    with connect(server) as client:
        spaces = {s.name: s.space for s in client.status().spaces if s.name}
        old, new = spaces.get(old, old), spaces.get(new, new)
        _require_rules(client, bank, modality, old, new)
        compared = Comparison(old, new)
        for sample, outcome in judged(client, samples, MatchOptions((bank,), hits_max)):
            _compare(compared, sample.name, outcome)
    if as_json:
        print_json(_comparison_json(compared))
    else:
        _print_comparison(compared)
    if compared.left_out:
        raise typer.Exit(exit_code(BadRequest("")))


def _require_rules(client: Client, bank: str, modality: Modality, *spaces: str) -> None:
    policy = policy_from(client.get_bank(bank).policy, lambda space: space)
    ruled = {rule.space for rule in policy.cosine if rule.query is modality}
    if missing := [space for space in spaces if space not in ruled]:
        raise BadRequest(
            f"bank {bank!r} has no {modality} thresholds for {missing[0]}: it would agree with "
            "nothing; set some by `simsearch bank update --threshold`"
        )
    if len(set(spaces)) < len(spaces):
        raise BadRequest(f"{spaces[0]} always agrees with itself: give two spaces")


def _compare(compared: Comparison, name: str, outcome: MatchResult | SimsearchError) -> None:
    """An answer that was cut, or that one space had no part in, says nothing about the two."""
    if isinstance(outcome, SimsearchError):
        compared.left_out[name] = outcome.message
        return
    searched = {r.signal for r in outcome.signals if r.state is SignalState.SEARCHED}
    missing = [space for space in (compared.old, compared.new) if space not in searched]
    if missing:
        compared.left_out[name] = f"{missing[0]} was not searched: see `simsearch status`"
    elif outcome.truncated:
        compared.left_out[name] = _cut(outcome).message
    else:
        old, new = space_verdict(outcome, compared.old), space_verdict(outcome, compared.new)
        compared.pairs.append(VerdictPair(name, old, new))


def _comparison_json(compared: Comparison) -> dict[str, Any]:
    table = compared.agreement()
    low, high = table.interval()
    return {
        "old": compared.old,
        "new": compared.new,
        "judged": table.judged,
        "agree": table.agree,
        "only_old": table.only_old,
        "only_new": table.only_new,
        "other_band": table.other_band,
        "share": table.agree / table.judged if table.judged else None,
        "share_low": low,
        "share_high": high,
        "table": {a.name: {b.name: table.table.get((a, b), 0) for b in Band} for a in Band},
        "differing": [
            {"content": p.name, "old": _opinion_json(p.old), "new": _opinion_json(p.new)}
            for p in compared.differing
        ],
        "left_out": compared.left_out,
    }


def _opinion_json(opinion: SpaceVerdict) -> dict[str, Any]:
    return {"band": opinion.band.name, "entry_key": opinion.entry_key, "cosine": opinion.cosine}


def _print_comparison(compared: Comparison) -> None:
    table = compared.agreement()
    print_line(f"old: {compared.old}\nnew: {compared.new}")
    rows = [[a.name, *(str(table.table.get((a, b), 0)) for b in Band)] for a in Band]
    print_table(("old \\ new", *(band.name for band in Band)), rows)
    print_line(
        f"{table.agree} of {table.judged} agree; {table.only_old} only old, {table.only_new} only "
        f"new, {table.other_band} both in different bands"
    )
    if table.judged:
        low, high = table.interval()
        share = table.agree / table.judged
        print_line(f"share that agrees: {share:.4f}, at 95 % between {low:.4f} and {high:.4f}")
    if differing := compared.differing:
        columns = ("content", "old", "new")
        print_table(columns, [(p.name, _words(p.old), _words(p.new)) for p in differing])
    for name, why in compared.left_out.items():
        print_line(f"not judged: {name}: {why}")


def _words(opinion: SpaceVerdict) -> str:
    """As in "REVIEW, entry 17 at 0.91234"; without a hit there is no cosine to tell."""
    if opinion.cosine is None:
        return opinion.band.name
    return f"{opinion.band.name}, entry {opinion.entry_key} at {opinion.cosine:.5f}"
