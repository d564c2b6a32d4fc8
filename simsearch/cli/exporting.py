"""`simsearch export`: a bank, or some of it, as a list that can be imported again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Optional

import typer

from simsearch.cli.options import Json
from simsearch.cli.output import print_json, print_line
from simsearch.errors import BadRequest
from simsearch.types import Entry, EntryState, Fingerprint

if TYPE_CHECKING:
    from simsearch.bank.reading import Reading
    from simsearch.bank.store import BankStore
    from simsearch.lists import ListEntry, Manifest

ENTRIES_AT_ONCE: Final = 512

LIVING: Final = tuple(state for state in EntryState if state is not EntryState.RETRACTED)

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


def export(
    bank: str,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="a new folder")],
    data_dir: Annotated[Path, typer.Option("--data-dir", help="of `simsearch serve`")],
    format_: Annotated[str, typer.Option("--format", help="jsonl, csv or parquet")] = "jsonl",
    state: States = None,
    label: Labels = None,
    source: Sources = None,
    as_json: Json = False,
) -> None:
    """Write what a bank holds, as it is at this moment, with a manifest. Reads the data directory
    itself, beside a running server or without one: vectors never go over the network.

    Example: simsearch export scam-images ./scam-images-2026-11 --data-dir ./banks
    """
    from simsearch.bank.store import BankStore
    from simsearch.lists import format_named, write_list

    chosen = _Chosen(_states(state or ()), frozenset(label or ()), frozenset(source or ()))
    format = format_named(format_)
    with BankStore.open(data_dir, writer=False) as store, store.reading() as reading:
        store.bank(bank)
        exported = _Exported(store, reading, bank, chosen)
        notes = {"bank": bank, "store": store.store_id, "through": str(reading.seq)}
        manifest = write_list(exported.entries(), folder, format, notes=notes)
    _report(manifest, folder, as_json)


@dataclass(frozen=True)
class _Chosen:
    """Which entries are wanted; no labels or sources: whatever they are."""

    states: frozenset[EntryState]
    labels: frozenset[str]
    sources: frozenset[str]

    def holds(self, entry: Entry, seq: int) -> bool:
        return (
            entry.state_at(seq) in self.states
            and (not self.labels or not self.labels.isdisjoint(entry.labels))
            and (not self.sources or entry.source in self.sources)
        )


class _Exported:
    """The entries of one bank as they were at one change, whatever is edited meanwhile."""

    def __init__(self, store: BankStore, reading: Reading, bank: str, chosen: _Chosen) -> None:
        self._store = store
        self._reading = reading
        self._bank = bank
        self._chosen = chosen

    def entries(self) -> Iterator[ListEntry]:
        seq, after_key = self._reading.seq, 0
        while page := self._store.list_entries(
            self._bank, after_key=after_key, limit=ENTRIES_AT_ONCE
        ):
            known = [entry for entry in page if entry.added.seq <= seq]
            wanted = [entry for entry in known if self._chosen.holds(entry, seq)]
            fingerprints = self._reading.fingerprints([entry.key for entry in wanted])
            for entry in wanted:
                yield _listed(entry, fingerprints[entry.key], entry.state_at(seq))
            after_key = page[-1].key


def _listed(entry: Entry, fingerprint: Fingerprint, state: EntryState) -> ListEntry:
    from simsearch.lists import About, ListEntry

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
        return frozenset(EntryState[name.upper()] for name in names) or frozenset(LIVING)
    except KeyError as unknown:
        words = ", ".join(state.name.lower() for state in EntryState)
        raise BadRequest(f"there is no state {str(unknown)[:40]}: {words}") from None


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
