"""`simsearch explain`: why a hit was one, from the receipt that `simsearch match --json` prints."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simsearch.cli.common.connection import asks_a_server, connect
from simsearch.cli.common.options import SERVER_DEFAULT, Json, Server
from simsearch.cli.common.output import evidence_words, print_json, print_line
from simsearch.errors import BadRequest, SimsearchError
from simsearch.match import policy as rules
from simsearch.types import Band, Evidence, Policy, Region
from simsearch.v1 import bank_pb2
from simsearch.wire import policy_from

if TYPE_CHECKING:
    from simsearch.client import Client

RECEIPT_BYTES_MAX = 64 << 20


@asks_a_server
def explain(
    receipt: Annotated[str, typer.Argument(help="what match --json printed; - is standard input")],
    server: Server = SERVER_DEFAULT,
    as_json: Json = False,
) -> None:
    """Explain a hit: the verdict of a receipt, gone through again, and what has changed since.

    Example: simsearch explain receipt.json
    """
    results = _read(receipt)
    with connect(server) as client:
        explained = [_explained(client, result) for result in results]
    if as_json:
        print_json(explained)
    else:
        for result in explained:
            for line in result["words"]:
                print_line(line)
    if not all(result["adds_up"] for result in explained):
        raise typer.Exit(3)


# ---------------------------------------------------------------- the receipt


def _read(receipt: str) -> Sequence[Mapping[str, Any]]:
    """Raises BadRequest."""
    try:
        if receipt == "-":
            text = sys.stdin.read(RECEIPT_BYTES_MAX)
        else:
            with Path(receipt).open(encoding="utf-8") as file:
                text = file.read(RECEIPT_BYTES_MAX)
        found = json.loads(text)
    except OSError as fault:
        raise BadRequest(f"cannot read {receipt}: {fault.strerror}") from None
    except ValueError:
        raise _no_receipt(receipt) from None
    results = found if isinstance(found, list) else [found]
    judged = [r for r in results if isinstance(r, dict) and "error" not in r]
    if not judged or not all("hits" in r and "seq" in r for r in judged):
        raise _no_receipt(receipt)
    return judged


def _no_receipt(receipt: str) -> BadRequest:
    return BadRequest(f"{receipt} is no receipt: give what `simsearch match --json` printed")


def _evidence(shown: Mapping[str, Any]) -> Evidence:
    return Evidence(
        str(shown["signal"]),
        Band[shown["band"]],
        cosine=shown.get("cosine"),
        hamming=shown.get("hamming"),
        threshold=shown.get("threshold"),
        rows=int(shown.get("rows", 1)),
        withheld=bool(shown.get("withheld", False)),
        region=_region(shown["region"]) if shown.get("region") else None,
        frame=int(shown["frame"]) if shown.get("frame") else None,
        on_black=bool(shown.get("on_black", False)),
    )


def _region(shown: Mapping[str, Any]) -> Region:
    left, top, right, bottom = (float(shown[side]) for side in ("left", "top", "right", "bottom"))
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise ValueError("no part of a picture")
    return Region(left, top, right, bottom)


# ---------------------------------------------------------------- gone through again


@dataclass(frozen=True)
class _Hit:
    """A hit as its receipt has it."""

    bank: str
    key: int
    band: Band
    evidence: tuple[Evidence, ...]
    capped: bool
    bank_etag: str
    disputed: bool

    @classmethod
    def of(cls, shown: Mapping[str, Any]) -> _Hit:
        try:
            return cls(
                str(shown["bank"]),
                int(shown["entry_key"]),
                Band[shown["band"]],
                tuple(_evidence(e) for e in shown["evidence"]),
                bool(shown["capped"]),
                str(shown.get("bank_etag", "")),
                bool(shown.get("disputed", False)),
            )
        except (KeyError, TypeError, ValueError):
            raise BadRequest("a hit of the receipt lacks a part: give it as it was") from None

    @property
    def adds_up(self) -> bool:
        """Every measure passes its threshold, and the bands give the hit's."""
        if not all(map(_passes, self.evidence)):
            return False
        band, capped = rules.decide(self.evidence, self.capped)
        return (rules.capped_at_review(band) if self.disputed else band, capped) == (
            self.band,
            self.capped,
        )


def _passes(evidence: Evidence) -> bool:
    if evidence.withheld or evidence.threshold is None:
        return True
    if evidence.cosine is not None:
        return evidence.cosine >= evidence.threshold
    return evidence.hamming is not None and evidence.hamming <= evidence.threshold


def _explained(client: Client, result: Mapping[str, Any]) -> dict[str, Any]:
    hits = [_Hit.of(shown) for shown in result["hits"]]
    explained = [_explained_hit(client, hit, int(result["seq"])) for hit in hits]
    verdict = max((hit.band for hit in hits), default=Band.NONE)
    name = verdict.name if verdict else "NO_MATCH"
    adds_up = all(e["adds_up"] for e in explained) and name == result.get("verdict")
    return {
        "content": result.get("content", ""),
        "verdict": result.get("verdict"),
        "seq": result["seq"],
        "snapshot": result.get("snapshot", ""),
        "adds_up": adds_up,
        "hits": explained,
        "words": list(_words(result, explained, adds_up)),
    }


def _words(
    result: Mapping[str, Any], explained: Sequence[Mapping[str, Any]], adds_up: bool
) -> Iterator[str]:
    state = f"(change {result['seq']}, snapshot {result.get('snapshot', '')})"
    yield f"{result.get('content', 'content')}: {result.get('verdict')} {state}"
    if not explained:
        yield "  nothing that is banned came near enough"
    for hit in explained:
        yield from (f"  {line}" for line in hit["words"])
    for suppressed in result.get("suppressed", ()):
        yield from (f"  {line}" for line in _suppressed_words(suppressed))
    if not result.get("complete", True):
        yield "  not everything could be asked: see `signals` in the receipt"
    if not adds_up:
        yield "  THE RECEIPT DOES NOT ADD UP: its measures do not give its verdict"


def _suppressed_words(suppressed: Mapping[str, Any]) -> Iterator[str]:
    hit, by = _Hit.of(suppressed["hit"]), _Hit.of(suppressed["by"])
    yield f"{hit.band.name} by entry {hit.key} of {hit.bank}, SUPPRESSED:"
    yield from (f"  {_sentence(e)}" for e in hit.evidence)
    yield f"  because entry {by.key} of {by.bank}, which is known to be harmless, is as near:"
    yield from (f"  {evidence_words(e)}" for e in by.evidence)


def _explained_hit(client: Client, hit: _Hit, seq: int) -> dict[str, Any]:
    words = [f"{hit.band.name} by entry {hit.key} of {hit.bank}:"]
    words += [f"  {_sentence(e)}" for e in hit.evidence]
    if hit.capped:
        words.append("  one descriptor alone does not block in this bank: held at REVIEW")
    if hit.disputed:
        words.append("  people dispute this entry: it is for review, and blocks nothing")
    shown: dict[str, Any] = {
        "bank": hit.bank,
        "entry_key": hit.key,
        "band": hit.band.name,
        "adds_up": hit.adds_up,
    }
    try:
        entry, bank = client.get_entry(hit.bank, hit.key), client.get_bank(hit.bank)
    except SimsearchError as error:  # as where this caller may match and not read
        words.append(f"  of the entry nothing can be said: {error.message}")
        return shown | {"words": words}
    today = _today(hit, bank)
    words += [f"  {line}" for line in _since(hit, entry, bank, today, seq)]
    return shown | {"today": today.name if today else "NO_MATCH", "words": words}


def _sentence(evidence: Evidence) -> str:
    measured = evidence_words(evidence)
    rows = f", by {evidence.rows} of its rows" if evidence.rows > 1 else ""
    return f"{measured}: enough for {evidence.band.name}{rows}"


def _since(
    hit: _Hit, entry: bank_pb2.Entry, bank: bank_pb2.Bank, today: Band, seq: int
) -> Iterator[str]:
    added = entry.added
    yield (
        f"banned by {added.actor} on {added.time.ToJsonString()[:10]} (change {added.seq}): "
        f"{added.reason}"
    )
    for move in entry.moves:
        when = "before" if move.change.seq <= seq else "since"
        change = move.change
        yield f"moved {when} by {change.actor} (change {change.seq}): {change.reason}"
    if entry.HasField("retracted"):
        gone = entry.retracted
        yield f"RETRACTED since by {gone.actor} (change {gone.seq}): {gone.reason}"
    if hit.bank_etag and bank.etag != hit.bank_etag:
        name = today.name if today else "NO_MATCH"
        policies = f"{hit.bank_etag} and is {bank.etag}"
        yield f"the bank's policy was {policies}: this would be {name} today"


def _today(hit: _Hit, bank: bank_pb2.Bank) -> Band:
    """The band that the bank's policy of now gives to the measures of then."""
    policy = policy_from(bank.policy, lambda space: space)
    found = [e for evidence in hit.evidence if (e := _judged(evidence, policy))]
    return rules.decide(found, policy.two_descriptors)[0] if found else Band.NONE


def _judged(evidence: Evidence, policy: Policy) -> Evidence | None:
    if evidence.withheld:
        return evidence
    if evidence.cosine is not None:
        return _best(
            rules.cosine_evidence(rule, evidence.cosine, evidence.rows, evidence.part)
            for rule in policy.cosine
            if rule.space == evidence.signal
        )
    if evidence.hamming is not None:
        return _best(
            rules.hamming_evidence(rule, evidence.hamming, evidence.rows, evidence.part)
            for rule in policy.hamming
            if rule.signal == evidence.signal
        )
    return _best(
        rules.digest_evidence(rule) for rule in policy.digests if rule.signal == evidence.signal
    )


def _best(found: Iterator[Evidence | None]) -> Evidence | None:
    """Of a space that is asked by images and by texts, the stronger rule's."""
    return max((e for e in found if e), key=lambda e: e.band, default=None)
