"""`simsearch opinion export`: what people think of hits, in the shapes that partners take."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, Final, Optional

import typer

from simsearch.bank.edits.opinions import newest_by_person
from simsearch.cli.common.options import Json
from simsearch.cli.common.output import print_json, print_line, printable
from simsearch.errors import BadRequest
from simsearch.lists.opinions.opined_entries import EntryWithOpinions, OpinionsWritten
from simsearch.lists.opinions.partner_formats import opinion_format_named, write_opinions
from simsearch.types import Opinion

if TYPE_CHECKING:
    from simsearch.bank.state_reader import StateReader
    from simsearch.bank.store import BankStore

OPINIONS_AT_ONCE: Final = 4_096

ReasonGuids = Annotated[
    Optional[list[str]],  # noqa: UP045  # typer reads the annotation at run time
    typer.Option(
        "--reason-guid", help="ncmec: their id of a reason for a negative vote, as MD5=… or PDQ=…"
    ),
]


def export(
    bank: str,
    data_dir: Annotated[Path, typer.Option("--data-dir", help="of `simsearch serve`")],
    format_: Annotated[
        str, typer.Option("--format", help="jsonl, csv, threatexchange, ncmec or stopncii")
    ] = "jsonl",
    out: Annotated[str, typer.Option(help="a new file, or - for standard output")] = "-",
    source: Annotated[
        str,
        typer.Option(help="the source of the partner's entries  [default: what an import gives]"),
    ] = "",
    reason_guid: ReasonGuids = None,
    as_json: Json = False,
) -> None:
    """Write the opinions on a bank's hits, for partners or for yourself. All of them (jsonl, csv),
    or what most people hold of each item of a partner's list, in that partner's words. What is not
    said to it is counted. Reads the data directory itself, beside a running server or without one.

    Example: simsearch opinion export tx --data-dir ./banks --format threatexchange --out tx.json
    """
    from simsearch.bank.store import BankStore

    format, guids = opinion_format_named(format_), _guids(reason_guid or ())
    with BankStore.open(data_dir, writer=False) as store, store.reading() as reading:
        entries = _entries(store, reading, bank)
        with _opened(out) as file:
            done = write_opinions(entries, file, format, source=source, reason_guids=guids)
    _report(done, out, as_json)


def _guids(given: Sequence[str]) -> dict[str, str]:
    """By kind of fingerprint. Raises BadRequest."""
    pairs = [text.partition("=") for text in given]
    if not all(kind in ("MD5", "PDQ") and guid for kind, _, guid in pairs):
        raise BadRequest("--reason-guid is MD5=… or PDQ=…, with an id of NCMEC's list of reasons")
    return {kind: guid for kind, _, guid in pairs}


def _entries(store: BankStore, reading: StateReader, bank: str) -> Iterator[EntryWithOpinions]:
    """Those of the bank on which there are opinions, as they are at this moment."""
    bank_id = store.bank(bank).id
    given = (o for o in _opinions(reading) if o.change.bank_id == bank_id)
    for key, some in groupby(given, key=lambda opinion: opinion.change.entry_key):
        opinions = tuple(some)
        yield EntryWithOpinions(
            bank,
            store.entry(bank, key),
            reading.fingerprints([key])[key],
            opinions,
            tuple(newest_by_person(opinions)),
        )


def _opinions(reading: StateReader) -> Iterator[Opinion]:
    """By entry, each entry's oldest first."""
    after = (0, 0)
    while some := reading.read(
        lambda tables, at=after: list(islice(tables.opinions_after(at), OPINIONS_AT_ONCE))  # type: ignore[misc]
    ):
        yield from (opinion for opinion in some if opinion.change.seq <= reading.seq)
        after = (some[-1].change.entry_key, some[-1].change.seq)


@contextmanager
def _opened(out: str) -> Iterator[BinaryIO]:
    """Whole and on the disk, or not there at all. Raises BadRequest."""
    if out == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = Path(out)
    try:
        file = path.open("xb")
    except FileExistsError:
        raise BadRequest(f"{out} is there: name a new file") from None
    except OSError as fault:
        raise BadRequest(f"cannot write to {out}: {fault.strerror}") from None
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _report(done: OpinionsWritten, out: str, as_json: bool) -> None:
    """Beside what is on standard output, if it is there."""
    counts = {"entries": done.entries, "records": done.records, "left_out": dict(done.left_out)}
    lines = [f"{done.records:,} records of {done.entries:,} entries"]
    lines += [f"left out: {count:,} {why}" for why, count in done.left_out.items()]
    if out == "-":
        words = json.dumps(counts) if as_json else printable("\n".join(lines))
        sys.stderr.write(words + "\n")
    elif as_json:
        print_json(counts)
    else:
        print_line("\n".join(lines))
