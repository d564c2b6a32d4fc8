"""`simsearch export`: a bank, or some of it, as a list that can be imported again."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Optional

import typer

from simsearch.bank.edits.exports import NOT_RETRACTED, ExportFilter
from simsearch.cli.common.connection import asks_a_server, connect
from simsearch.cli.common.options import SERVER_DEFAULT, Actor, Json, Server, edit_by
from simsearch.cli.common.output import print_json, print_line
from simsearch.cli.oversight.proposals import waits
from simsearch.errors import BadRequest
from simsearch.lists import (
    About,
    Format,
    ListEntry,
    ListRow,
    Manifest,
    fingerprint_of,
    format_named,
    write_entries,
    write_list,
)
from simsearch.lists.rows import EMPTY_ABOUT
from simsearch.types import Edit, Entry, EntryState, Fingerprint, HashContent, VectorContent
from simsearch.v1.bank_pb2 import ExportedEntry, ExportEntriesRequest, ExportEntriesResponse
from simsearch.v1.content_pb2 import Content
from simsearch.wire import content_from, edit_to, time_from

if TYPE_CHECKING:
    from simsearch.bank.state_reader import StateReader
    from simsearch.bank.store import BankStore
    from simsearch.client import Client

ENTRIES_AT_ONCE: Final = 512

STDOUT: Final = Path("-")

States = Annotated[
    Optional[list[str]],  # noqa: UP045  # typer reads the annotation at run time
    typer.Option("--state", help="of these states (repeatable)  [default: all but retracted]"),
]
Labels = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--label", help="with one of these labels (repeatable)  [default: all]"),
]
Sources = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--source", help="of one of these sources (repeatable)  [default: all]"),
]


@asks_a_server
def export(
    bank: str,
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="a new folder; - is standard output, no manifest")
    ],
    data_dir: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--data-dir", help="of a server: read it from disk, beside the server"),
    ] = None,
    format_: Annotated[str, typer.Option("--format", help="jsonl, csv or parquet")] = "jsonl",
    state: States = None,
    label: Labels = None,
    source: Sources = None,
    no_vectors: Annotated[
        bool, typer.Option("--no-vectors", help="hashes alone, as for a list to share")
    ] = False,
    reason: Annotated[str, typer.Option("--reason", help="why: it stays on the record")] = "",
    proposal: Annotated[
        int, typer.Option(help="the one that a second person approved, where the bank wants it")
    ] = 0,
    actor: Actor = "",
    server: Server = SERVER_DEFAULT,
    as_json: Json = False,
) -> None:
    """Write what a bank holds, as it is at this moment, with a manifest. Asked of the server, on
    whose record it is then, or with --data-dir read from its disk.

    Example: simsearch export scam-images ./scam-images-2026-11 --reason "monthly list"
    """
    states = _states(state or ()) or NOT_RETRACTED
    chosen = ExportFilter(states, frozenset(label or ()), frozenset(source or ()))
    format = format_named(format_)
    if data_dir:
        manifest = _from_disk(data_dir, bank, chosen, folder, format, with_vectors=not no_vectors)
    elif reason:
        with connect(server) as client:
            request = _request(bank, chosen, edit_by(actor, reason), with_vectors=not no_vectors)
            request.proposal_id = proposal
            first = client.export_entries(request)
            if first.proposal_id:
                _report_waiting(first.proposal_id, as_json)
                return
            manifest = _from_server(client, request, first, folder, format)
    else:
        raise BadRequest("why is it taken out? give --reason, or --data-dir to read from disk")
    if manifest:
        _report(manifest, folder, as_json)


def _write(
    entries: Iterable[ListEntry], folder: Path, format: Format, notes: Mapping[str, str]
) -> Manifest | None:
    """None: it went to standard output, where there is no place for a manifest."""
    if folder == STDOUT:
        write_entries(entries, sys.stdout.buffer, format)
        return None
    return write_list(entries, folder, format, notes=notes)


# ---------------------------------------------------------------- from a server


def _request(
    bank: str, chosen: ExportFilter, edit: Edit, *, with_vectors: bool
) -> ExportEntriesRequest:
    return ExportEntriesRequest(
        bank=bank,
        states=sorted(map(int, chosen.states)),  # type: ignore[arg-type]
        labels=sorted(chosen.labels),
        sources=sorted(chosen.sources),
        with_vectors=with_vectors,
        edit=edit_to(edit),
    )


def _from_server(
    client: Client,
    request: ExportEntriesRequest,
    first: ExportEntriesResponse,
    folder: Path,
    format: Format,
) -> Manifest | None:
    """Nothing is made on this side's disk before the server has granted it."""
    notes = {"bank": request.bank, "through": str(first.seq)}
    return _write(_served(client, request, first), folder, format, notes)


def _served(
    client: Client, request: ExportEntriesRequest, page: ExportEntriesResponse
) -> Iterator[ListEntry]:
    """Without those that have nothing but vectors, where these are left out."""
    while True:
        yield from (_served_entry(each) for each in page.entries if each.fingerprint)
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token
        page = client.export_entries(request)


def _served_entry(exported: ExportedEntry) -> ListEntry:
    entry, state = exported.entry, EntryState(exported.entry.state)
    about = About(
        labels=tuple(entry.labels),
        source=entry.source,
        source_ids=tuple(filter(None, (entry.source_id, *entry.aliases))),
        severity=entry.severity,
        note=entry.note,
        state=state.name.lower(),
        withdrawn=state is EntryState.RETRACTED,
        expires_us=time_from(entry.expire_time),
    )
    return ListEntry(_fingerprint(exported.fingerprint), about)


def _fingerprint(messages: Iterable[Content]) -> Fingerprint:
    contents = (content_from(message, _dim_of) for message in messages)
    ready = tuple(c for c in contents if isinstance(c, HashContent | VectorContent))
    return fingerprint_of(ListRow("the server's answer", 0, ready, EMPTY_ABOUT))


def _dim_of(space: str) -> int:
    """A space's id ends with its dim."""
    return int(space.rpartition("/")[2])


# ---------------------------------------------------------------- from its disk


def _from_disk(
    data_dir: Path,
    bank: str,
    chosen: ExportFilter,
    folder: Path,
    format: Format,
    *,
    with_vectors: bool,
) -> Manifest | None:
    from simsearch.bank.store import BankStore

    with BankStore.open(data_dir, writer=False) as store, store.reading() as reading:
        store.bank(bank)
        exported = _Exported(store, reading, bank, chosen, with_vectors=with_vectors)
        notes = {"bank": bank, "store": store.store_id, "through": str(reading.seq)}
        return _write(exported.entries(), folder, format, notes)


class _Exported:
    """The entries of one bank as they were at one change, whatever is edited meanwhile."""

    def __init__(
        self,
        store: BankStore,
        reading: StateReader,
        bank: str,
        chosen: ExportFilter,
        *,
        with_vectors: bool,
    ) -> None:
        self._with_vectors = with_vectors
        self._store = store
        self._reading = reading
        self._bank = bank
        self._chosen = chosen

    def entries(self) -> Iterator[ListEntry]:
        seq, after_key = self._reading.seq, 0
        while page := self._store.list_entries(
            self._bank, after_key=after_key, limit=ENTRIES_AT_ONCE
        ):
            wanted = [entry for entry in page if self._chosen.matches(entry, seq)]
            fingerprints = self._reading.fingerprints([entry.key for entry in wanted])
            for entry in wanted:
                fingerprint = fingerprints[entry.key]
                if not self._with_vectors:
                    fingerprint = replace(fingerprint, vectors={})
                if fingerprint.rows():
                    yield _listed(entry, fingerprint, entry.state_at(seq))
            after_key = page[-1].key


def _listed(entry: Entry, fingerprint: Fingerprint, state: EntryState) -> ListEntry:
    about = About(
        labels=entry.labels,
        source=entry.source,
        source_ids=tuple(filter(None, (entry.source_id, *entry.aliases))),
        severity=entry.severity,
        note=entry.note,
        state=state.name.lower(),
        withdrawn=state is EntryState.RETRACTED,
        expires_us=entry.expires_us,
    )
    return ListEntry(fingerprint, about)


def _states(names: Sequence[str]) -> frozenset[EntryState]:
    """Raises BadRequest."""
    try:
        return frozenset(EntryState[name.upper()] for name in names)
    except KeyError as unknown:
        words = ", ".join(state.name.lower() for state in EntryState)
        raise BadRequest(f"there is no state {str(unknown)[:40]}: {words}") from None


def _report_waiting(proposal_id: int, as_json: bool) -> None:
    if as_json:
        print_json({"proposal_id": proposal_id})
        return
    print_line(f"{waits(proposal_id)}; then: the same with --proposal {proposal_id}")


def _report(manifest: Manifest, folder: Path, as_json: bool) -> None:
    [file] = manifest.files
    if as_json:
        print_json(
            {
                "file": str(folder / file.name),
                "entries": manifest.entries,
                "rows": file.rows,
                "size_bytes": file.size_bytes,
                "sha256": file.sha256,
                "signals": dict(manifest.signals),
                "states": dict(manifest.states),
                "spaces": dict(manifest.spaces),
            }
        )
        return
    print_line(f"{manifest.entries:,} entries ({file.rows:,} rows) are in {folder / file.name}")
    for state, count in manifest.states.items():
        print_line(f"  {state}: {count:,}")
