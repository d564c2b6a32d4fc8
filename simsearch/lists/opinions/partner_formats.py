"""Partner feedback formats: the consensus on each entry, for ThreatExchange, NCMEC and StopNCII.

Feedback never contains names or notes of people. Entries that a format cannot express are counted,
by reason.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import StrEnum
from functools import partial
from typing import Any, BinaryIO, Final, TypeAlias
from urllib.parse import quote
from xml.sax.saxutils import escape, quoteattr

from simsearch.errors import BadRequest
from simsearch.lists.opinions.opined_entries import (
    Consensus,
    EntryWithOpinions,
    OpinionsWritten,
    consensus_of,
    write_rows,
)
from simsearch.lists.readers import ncmec, partners, threatexchange
from simsearch.types import Signal


class OpinionFormat(StrEnum):
    """Formats of an export of opinions; see docs/formats.md."""

    JSONL = "jsonl"
    CSV = "csv"
    THREATEXCHANGE = "threatexchange"
    NCMEC = "ncmec"
    STOPNCII = "stopncii"


SOURCES: Final[Mapping[OpinionFormat, str]] = {
    OpinionFormat.THREATEXCHANGE: threatexchange.SOURCE,
    OpinionFormat.NCMEC: ncmec.SOURCE,
    OpinionFormat.STOPNCII: partners.STOPNCII,
}
"""The source of the entries of each partner's lists."""


def opinion_format_named(name: str) -> OpinionFormat:
    """The format of a name. Raises BadRequest."""
    try:
        return OpinionFormat(name)
    except ValueError:
        words = ", ".join(OpinionFormat)
        raise BadRequest(f"opinions are not written as {name[:40]!r}: choose {words}") from None


def write_opinions(
    entries: Iterable[EntryWithOpinions],
    file: BinaryIO,
    format: OpinionFormat,
    *,
    source: str = "",
    reason_guids: Mapping[str, str] | None = None,
) -> OpinionsWritten:
    """To any binary file. `source`: that of a partner's entries, where it is another than SOURCES
    says; `reason_guids`: NCMEC's id of the reason for a negative vote, by kind of fingerprint."""
    if format not in SOURCES:
        return write_rows(entries, file, as_csv=format is OpinionFormat.CSV)
    sorting = _RecordMaker(source or SOURCES[format], reason_guids or {})
    records = sorting.records(entries, format)
    match format:
        case OpinionFormat.THREATEXCHANGE:
            _write_array(file, b'{"data": [', records, b"]}\n")
        case OpinionFormat.STOPNCII:
            found = list(records)
            head = f'{{"count": {len(found)}, "hashFeedbacks": ['.encode()
            _write_array(file, head, iter(found), b"]}\n")
        case _:
            _write_puts(file, records)
    return OpinionsWritten(sorting.entries, sorting.written, dict(sorted(sorting.left_out.items())))


# ---------------------------------------------------------------- reasons to leave an entry out


NO_CONSENSUS: Final = "nobody says whether it matched what it should"
OTHER_SOURCE: Final = "of another source"
NO_SOURCE_ID: Final = "without a source id"
NOT_EXPRESSIBLE: Final = "in no word that this partner has"
NO_HASH: Final = "without a hash that this partner takes"
NO_REASON: Final = "doubted, and without the id of a reason that this partner asks for"
FOREIGN_ID: Final = "with a source id that is none of this partner's"


_Maker: TypeAlias = Callable[[EntryWithOpinions, Consensus], Iterator[Mapping[str, Any]]]


class _LeftOut(Exception):
    """The reason why an entry is left out."""


class _RecordMaker:
    """Makes a partner's records of entries, and counts those left out."""

    def __init__(self, source: str, reason_guids: Mapping[str, str]) -> None:
        self._source = source
        self._reason_guids = reason_guids
        self.entries = self.written = 0
        self.left_out: Counter[str] = Counter()

    def records(
        self, entries: Iterable[EntryWithOpinions], format: OpinionFormat
    ) -> Iterator[Mapping[str, Any]]:
        makers: Mapping[OpinionFormat, _Maker] = {
            OpinionFormat.THREATEXCHANGE: _reactions,
            OpinionFormat.NCMEC: partial(_votes, self._reason_guids),
            OpinionFormat.STOPNCII: _hash_feedbacks,
        }
        for opined in entries:
            try:
                made = list(makers[format](opined, self._consensus(opined)))
            except _LeftOut as why:
                self.left_out[str(why)] += 1
                continue
            self.entries += 1
            self.written += len(made)
            yield from made

    def _consensus(self, opined: EntryWithOpinions) -> Consensus:
        if opined.entry.source != self._source:
            raise _LeftOut(OTHER_SOURCE)
        if not opined.source_ids:
            raise _LeftOut(NO_SOURCE_ID)
        consensus = consensus_of(opined)
        if consensus is None:
            raise _LeftOut(NO_CONSENSUS)
        return consensus


# ---------------------------------------------------------------- ThreatExchange

_REACTIONS: Final = {
    Consensus.RIGHT: ("POSITIVE_CLASS", "HELPFUL,SAW_THIS_TOO"),
    Consensus.MISLABELLED: ("POSITIVE_CLASS", "HELPFUL,SAW_THIS_TOO,DISAGREE_WITH_TAGS"),
    Consensus.WRONG: ("NEGATIVE_CLASS", "NOT_HELPFUL,DISAGREE_WITH_TAGS"),
    Consensus.UNSURE: ("INVESTIGATION_SEED", "SAW_THIS_TOO"),
}
"""The category that their open library knows opinions by, and the reactions that say the same."""


def _reactions(opined: EntryWithOpinions, consensus: Consensus) -> Iterator[Mapping[str, Any]]:
    """One for each descriptor: of an indicator the first id is its own, the others theirs."""
    category, reactions = _REACTIONS[consensus]
    for descriptor_id in opined.source_ids[1:] or opined.source_ids:
        yield {"descriptor_id": descriptor_id, "reactions": reactions, "category": category}


def _write_array(
    file: BinaryIO, head: bytes, records: Iterator[Mapping[str, Any]], tail: bytes
) -> None:
    file.write(head)
    for n, record in enumerate(records):
        body = json.dumps(record, ensure_ascii=False).encode()
        file.write((b",\n " if n else b"\n ") + body)
    file.write(tail)


# ---------------------------------------------------------------- NCMEC

_VOTED: Final = {Signal.MD5: "MD5", Signal.PDQ: "PDQ"}
"""Fingerprints of ours that feedback is taken on, in the words of their addresses."""


def _votes(
    reason_guids: Mapping[str, str], opined: EntryWithOpinions, consensus: Consensus
) -> Iterator[Mapping[str, Any]]:
    if consensus not in (Consensus.RIGHT, Consensus.WRONG):
        raise _LeftOut(NOT_EXPRESSIBLE)
    member, dash, entry_id = opined.source_ids[0].partition("-")
    if not (dash and entry_id and member.isascii() and member.isdigit()):
        raise _LeftOut(FOREIGN_ID)
    kinds = [word for signal, word in _VOTED.items() if opined.fingerprint.rows().get(signal)]
    if not kinds:
        raise _LeftOut(NO_HASH)
    if consensus is Consensus.WRONG and not reason_guids.keys() >= set(kinds):
        raise _LeftOut(NO_REASON)
    for kind in kinds:
        path = f"entries/{member}/{quote(entry_id, safe='')}/{kind}/feedback"
        yield {"path": path, "guid": reason_guids[kind] if consensus is Consensus.WRONG else None}


def _write_puts(file: BinaryIO, records: Iterator[Mapping[str, Any]]) -> None:
    """What each request is to have as its body, below the path that it is to be put to."""
    file.write(b'<?xml version="1.0" encoding="UTF-8"?>\n<requests>\n')
    for record in records:
        guid = escape(record["guid"] or "")
        negative = f"<negative><reasonIds><guid>{guid}</guid></reasonIds></negative>"
        vote = negative if guid else "<affirmative/>"
        body = f"<feedbackSubmission xmlns={quoteattr(ncmec.NAMESPACE)}>{vote}</feedbackSubmission>"
        file.write(f"  <put path={quoteattr(record['path'])}>{body}</put>\n".encode())
    file.write(b"</requests>\n")


# ---------------------------------------------------------------- StopNCII

_FEEDBACK: Final = {
    Consensus.RIGHT: "Blocked",
    Consensus.WRONG: "NotBlocked",
    Consensus.UNSURE: "PendingReview",
}


def _hash_feedbacks(opined: EntryWithOpinions, consensus: Consensus) -> Iterator[Mapping[str, Any]]:
    if consensus not in _FEEDBACK:
        raise _LeftOut(NOT_EXPRESSIBLE)
    fingerprints = opined.fingerprint
    values = [row.tobytes().hex() for row in fingerprints.bits.get(Signal.PDQ, ())]
    values += [digest.hex() for digest in fingerprints.digests.get(Signal.MD5, ())]
    if not values:
        raise _LeftOut(NO_HASH)
    for value in values:
        yield {
            "hashValue": value,
            "feedbackValue": _FEEDBACK[consensus],
            "tags": list(opined.entry.labels) if consensus is Consensus.RIGHT else [],
            "caseNumbers": list(opined.source_ids),
        }
