"""`simsearch import`: a list of any size into a bank, every row answered for."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Optional

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from simsearch.cli.common.connection import asks_a_server, connect
from simsearch.cli.common.options import SERVER_DEFAULT, Actor, Json, Reason, Server, edit_by
from simsearch.cli.common.output import print_json, print_line, print_table
from simsearch.cli.lists.import_parts import Part, import_id_of, names_of, parts_of
from simsearch.cli.oversight.proposals import waits
from simsearch.errors import BadRequest, InternalFault, NotYetVisible
from simsearch.lists import (
    About,
    ListReader,
    ReadOptions,
    RefusedRow,
    RefusedRowsFile,
    format_named,
    read_list,
)
from simsearch.types import EntryState, Signal, WaitUntil
from simsearch.v1 import bank_pb2, error_pb2
from simsearch.v1.bank_pb2 import ROW_OUTCOME_ADDED, ROW_OUTCOME_DUPLICATE, RowOutcome
from simsearch.wire import edit_to, item_error_from, wait_to

if TYPE_CHECKING:
    from simsearch.client import Client

AHEAD: Final = 2
"""Parts read ahead of the one that the server writes. They are sent one after the other: a list may
take back further down what it adds above."""

PART_S: Final = 120.0
VISIBLE_S: Final = 600.0
"""How long to wait for searches to see the whole list."""

STDIN: Final = "-"
FIRST_STATES: Final = ("active", "shadow", "draft")

WORDS: Final = {
    "added": "new in the bank",
    "duplicate": "there already",
    "tombstone": "not added: this bank took it back before (--revive adds it all the same)",
    "withdrawn": "taken back, as their source does",
    "held": "withdrawn by their source, and there until a second person says so",
    "absent": "withdrawn by their source, and not in the bank",
    "refused": "cannot be used",
    "passed": "blank lines, comments and the like",
}

ListFormat = Annotated[
    str, typer.Option("--format", help="of the list; told from its content where left out")
]
HashSignal = Annotated[
    str, typer.Option(help="of hashes that name none: pdq, md5, sha256 or text_light_sha256")
]
EntryLabels = Annotated[
    Optional[list[str]],  # noqa: UP045  # typer reads the annotation at run time
    typer.Option(help="on every entry (repeatable)"),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="write nothing, and say what would be")]
Revive = Annotated[bool, typer.Option("--revive", help="ban again what this bank took back")]
RefusedFile = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(help="where rows that cannot be used are written  [default: LIST.refused]"),
]


@asks_a_server
def import_(
    bank: str,
    source: Annotated[str, typer.Argument(metavar="LIST", help="a file or folder; - for stdin")],
    reason: Reason,
    format_: ListFormat = "",
    signal: HashSignal = "",
    space: Annotated[str, typer.Option(help="of vectors that name none")] = "",
    label: EntryLabels = None,
    from_: Annotated[str, typer.Option("--source", help="where the list comes from")] = "",
    state: Annotated[str, typer.Option(help="active, shadow or draft")] = "active",
    dry_run: DryRun = False,
    revive: Revive = False,
    refused: RefusedFile = None,
    actor: Actor = "",
    server: Server = SERVER_DEFAULT,
    as_json: Json = False,
) -> None:
    """Ban what a list holds, and take back what it withdraws. Rows that cannot be used are kept in
    a file, to be put right and imported again; what was interrupted goes on where it was, with the
    same command.

    Example: simsearch import partner-hashes monday.csv --reason "exchange of 2026-11-23"
    """
    about = About(labels=tuple(label or ()), source=from_)
    options = ReadOptions(
        format=format_named(format_) if format_ else None,
        signal=_signal(signal),
        space=space,
        about=about,
    )
    first = _first_state(state)
    refused = refused or _beside(source)
    with ExitStack() as stack:
        path = stack.enter_context(_on_disk(source))
        _check_apart(refused, path)
        import_id, lines = import_id_of(path, f"{bank} {options!r} {first} {revive}")
        reading = read_list(path, options, name="standard input" if source == STDIN else source)
        kept = stack.enter_context(RefusedRowsFile(refused, reading))
        client = stack.enter_context(connect(server))
        sending = _Sending(client, bank, import_id, kept, dry_run=dry_run, revive=revive)
        sending.edit(actor, reason)
        with _progress(lines, as_json) as (bar, task):
            for _ in sending.run(reading, first):
                bar.update(task, completed=reading.counts.records)
    _report(sending, reading, kept, bank, as_json=as_json, dry_run=dry_run)
    if sending.counts["refused"]:
        raise typer.Exit(3)


class _Sending:
    """Sends parts, a few ahead, and counts what became of their rows."""

    def __init__(
        self,
        client: Client,
        bank: str,
        import_id: str,
        kept: RefusedRowsFile,
        *,
        dry_run: bool,
        revive: bool,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.seq = 0
        self.proposal_ids: list[int] = []
        self.repeated = 0
        self._client = client
        self._bank = bank
        self._import_id = import_id
        self._kept = kept
        self._dry_run = dry_run
        self._revive = revive
        self._part = 0
        self._seen: set[bytes] = set()

    def edit(self, actor: str, reason: str) -> None:
        self._edit = edit_by(actor, reason)

    def run(self, reading: ListReader, state: EntryState) -> Iterator[None]:
        """Yields now and then. The last part is sent alone, when all others are done: once it is
        seen by searches, so are they."""
        waiting: deque[tuple[Part, Future[bank_pb2.ImportEntriesResponse]]] = deque()
        last: Part | None = None
        with ThreadPoolExecutor(1) as pool:
            for item in parts_of(reading, state):
                if not isinstance(item, Part):
                    self._refuse(item)
                    continue
                if last is not None:
                    waiting.append((last, pool.submit(self._send, self._numbered(last), False)))
                last = item
                while len(waiting) > AHEAD:
                    self._count(*waiting.popleft())
                yield
            while waiting:
                self._count(*waiting.popleft())
            if last is not None:
                self._count(last, pool.submit(self._send, self._numbered(last), True))

    def _numbered(self, part: Part) -> bank_pb2.ImportEntriesRequest:
        request = part.request
        request.bank, request.import_id, request.part = self._bank, self._import_id, self._part
        request.dry_run, request.revive = self._dry_run, self._revive
        request.edit.CopyFrom(edit_to(self._edit))
        self._part += 1
        return request

    def _send(
        self, request: bank_pb2.ImportEntriesRequest, last: bool
    ) -> bank_pb2.ImportEntriesResponse:
        """Where searches are behind, the last part is sent until they are not: what was done is
        not done again. Raises NotYetVisible."""
        request.wait_until = wait_to(WaitUntil.VISIBLE if last else WaitUntil.DURABLE)
        until = time.monotonic() + VISIBLE_S
        while True:
            try:
                return self._client.import_entries(request, deadline_s=PART_S)
            except NotYetVisible:
                if time.monotonic() > until:
                    raise

    def _count(self, part: Part, future: Future[bank_pb2.ImportEntriesResponse]) -> None:
        answer = future.result()
        if self._dry_run:
            self._find_repeats(part, answer)
        for number, count in Counter(answer.outcomes).items():
            word = RowOutcome.Name(number).removeprefix("ROW_OUTCOME_").lower()
            if word != "refused":
                self.counts[word] += count
        for refusal in answer.refused:
            error = refusal.error
            row = RefusedRow(part.file, part.numbers[refusal.row], "", _word(error), error.message)
            self._refuse(row)
        self.seq = max(self.seq, answer.seq)
        if answer.proposal_id and answer.proposal_id not in self.proposal_ids:
            self.proposal_ids.append(answer.proposal_id)
        self.repeated += len(answer.outcomes) if answer.repeated else 0

    def _find_repeats(self, part: Part, answer: bank_pb2.ImportEntriesResponse) -> None:
        """What an earlier part would have added is a duplicate, which a server that writes nothing
        cannot know."""
        for row, name in enumerate(names_of(part.request)):
            if answer.outcomes[row] != ROW_OUTCOME_ADDED:
                continue
            if name in self._seen:
                answer.outcomes[row] = ROW_OUTCOME_DUPLICATE
            self._seen.add(name)

    def _refuse(self, row: RefusedRow) -> None:
        self.counts["refused"] += 1
        self._kept.write(row)


def _word(error: error_pb2.ItemError) -> str:
    return item_error_from(error).reason


def _signal(name: str) -> Signal | None:
    if not name:
        return None
    try:
        return Signal(name.lower())
    except ValueError:
        raise BadRequest(f"there is no signal {name[:40]!r}: {', '.join(Signal)}") from None


def _first_state(name: str) -> EntryState:
    if name.lower() not in FIRST_STATES:
        words = " or ".join(FIRST_STATES)
        raise BadRequest(f"entries cannot begin {name[:40]!r}: begin them {words}")
    return EntryState[name.upper()]


@contextmanager
def _on_disk(source: str) -> Iterator[Path]:
    """The list as a file that can be read twice: once for its name, once for its rows."""
    if source != STDIN:
        path = Path(source)
        if not path.exists():
            raise BadRequest(f"there is no {source}: give a file, a folder, or - for stdin")
        yield path
        return
    with tempfile.NamedTemporaryFile(prefix="simsearch-import-") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
        file.flush()
        yield Path(file.name)


def _beside(source: str) -> Path:
    return Path("stdin.refused" if source == STDIN else f"{source.rstrip('/')}.refused")


def _check_apart(refused: Path, source: Path) -> None:
    """Raises BadRequest."""
    if refused.exists() and refused.samefile(source):
        raise BadRequest(f"{refused} is the list itself: name another file for refused rows")


@contextmanager
def _progress(lines: int, quiet: bool) -> Iterator[tuple[Progress, TaskID]]:
    columns = (TextColumn("rows"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True, quiet=quiet)
    with Progress(*columns, console=console, transient=True) as bar:
        yield bar, bar.add_task("rows", total=lines or None)


def _report(
    sending: _Sending,
    reading: ListReader,
    kept: RefusedRowsFile,
    bank: str,
    *,
    as_json: bool,
    dry_run: bool,
) -> None:
    """Raises InternalFault where a row was lost: that must not end in silence."""
    counts, tally = sending.counts, reading.counts
    answered = sum(counts.values()) - tally.refused.total()
    counts["passed"] = sum(tally.skipped.values())
    if answered != tally.items:
        raise InternalFault(f"{tally.items} items were read and {answered} answered for")
    if as_json:
        print_json(
            {
                "bank": bank,
                "dry_run": dry_run,
                "records": tally.records,
                "items": tally.items,
                **{word: counts[word] for word in WORDS},
                "repeated": sending.repeated,
                "refused_by": dict(tally.refused),
                "refused_file": str(kept.path) if kept.count else None,
                "seq": sending.seq,
                "proposal_ids": sending.proposal_ids,
            }
        )
        return
    print_table(
        ("rows", "count", ""),
        [(word, f"{counts[word]:,}", meaning) for word, meaning in WORDS.items() if counts[word]],
    )
    if sending.repeated:
        print_line(f"{sending.repeated:,} of them were done by an earlier run of this import")
    if dry_run:
        print_line("nothing was written: this was a dry run")
    elif sending.seq:
        print_line(f"searches see it (change {sending.seq})")
    for number in sending.proposal_ids:
        print_line(f"what was added is a draft, and what is held stays: {waits(number)}")
    if kept.count:
        print_line(f"rows that cannot be used are in {kept.path}: put them right, import it again")
