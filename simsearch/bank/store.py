"""Bank store: every edit is one durable transaction, every read a short consistent one."""

from __future__ import annotations

import logging
import time
from collections.abc import (
    Callable,
    Container,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from simsearch.bank import edit_checks
from simsearch.bank.edits import daily_limit, decide, entries, exports, imports, opinions, revert
from simsearch.bank.edits.imports import ImportedPart, ImportItem
from simsearch.bank.edits.revert import Reverted
from simsearch.bank.lmdb.environment import Environment
from simsearch.bank.lmdb.tables import Tables
from simsearch.bank.log_search import ChangeFilter
from simsearch.bank.records.fingerprints import fingerprint_to_bytes
from simsearch.bank.state_reader import StateReader
from simsearch.types import (
    NO_LIMITS,
    Bank,
    BankKind,
    BankUpdate,
    Change,
    Decision,
    Edit,
    EditTerms,
    Entry,
    EntryDraft,
    EntryState,
    Fingerprint,
    FourEyes,
    HitCounts,
    OpinionDraft,
    Policy,
    Proposal,
    ProposalState,
    ProposedRows,
    Signal,
)

log = logging.getLogger(__name__)

MAP_BYTES = 1 << 30
MAP_BYTES_MAX = 1 << 40
DUE_AT_ONCE = 1_024

_SERVER_EDIT = Edit(entries.SERVER_ACTOR, "its time has come")

T = TypeVar("T")


class _DryRun(Exception):
    """Aborts the transaction of a dry run."""


class BankStore:
    """Banks and entries on disk: one writing process, any number of reading ones.

    Safe to use from any thread. Any method may raise BankFull, BankLocked, NewerFormat, Corrupt,
    and NotReady once the store is closed. Open it after forking, never before: LMDB's locks belong
    to one process. A process may open a path only once; share the store.
    """

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._subscribers: list[Callable[[int], None]] = []

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        writer: bool,
        map_bytes: int = MAP_BYTES,
        map_bytes_max: int = MAP_BYTES_MAX,
    ) -> BankStore:
        """Opens the store in directory `path`; a writer creates it where it is absent.

        `map_bytes` is the initial size of the memory map, which doubles up to `map_bytes_max`.
        Raises BankLocked (another writer), NewerFormat, Corrupt, BadConfig (no store here).
        """
        begin = min(map_bytes, map_bytes_max)
        return cls(
            Environment.open(path, writer=writer, map_bytes=begin, map_bytes_max=map_bytes_max)
        )

    def close(self) -> None:
        """Waits for running transactions, then closes the files. May be called twice."""
        self._environment.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def store_id(self) -> str:
        """The uuid given at creation: two directories with one id are copies of one store."""
        return self._environment.read(Tables.store_id)

    # ------------------------------------------------------------ editing

    def create_bank(
        self,
        name: str,
        description: str,
        policy: Policy,
        edit: Edit,
        *,
        kind: BankKind = BankKind.BANNED,
        owner: str = "",
        enabled_ratio: float = 1.0,
        four_eyes: FourEyes = FourEyes.AS_CONFIGURED,
        terms: EditTerms = NO_LIMITS,
    ) -> tuple[Bank, Change]:
        """Creates an empty bank. Raises BadBankName, BankExists, BadRequest, LimitExceeded; and,
        like every edit, DailyLimit where `terms` allow the actor no more edits today."""
        settings = BankUpdate(description, policy, owner, False, enabled_ratio, four_eyes)
        edit_checks.check_bank_name(name)
        edit_checks.check_update(settings)
        edit_checks.check_edit(edit)

        return self._edit(
            lambda tables: entries.create_bank(tables, name, kind, settings, edit), edit, terms
        )

    def update_bank(
        self,
        name: str,
        edit: Edit,
        *,
        description: str | None = None,
        policy: Policy | None = None,
        owner: str | None = None,
        archived: bool | None = None,
        enabled_ratio: float | None = None,
        four_eyes: FourEyes | None = None,
        etag: str = "",
        terms: EditTerms = NO_LIMITS,
    ) -> tuple[Bank, Change]:
        """Sets what is not None and gives the bank a new etag; `etag`, where given, must be the
        current one. Where this needs a second person, it is proposed instead: the change is of
        kind PROPOSAL_MADE, and the bank is returned unchanged.

        Raises BankNotFound, BankChanged, BankArchived (unless it is unarchived), BadRequest,
        LimitExceeded."""
        update = BankUpdate(description, policy, owner, archived, enabled_ratio, four_eyes)
        edit_checks.check_update(update)
        edit_checks.check_edit(edit)

        return self._edit(
            lambda tables: entries.update_bank(tables, name, update, etag, edit, terms), edit, terms
        )

    def begin_export(
        self, bank: str, edit: Edit, *, proposal_id: int = 0, terms: EditTerms = NO_LIMITS
    ) -> Change:
        """Records the start of an export of a bank. Where this needs a second person and
        `proposal_id` names no approved proposal, it is proposed instead: the change is of kind
        PROPOSAL_MADE.

        Raises BankNotFound, BadRequest, ProposalNotFound, ProposalClosed, PermissionDenied.
        """
        edit_checks.check_edit(edit)

        return self._edit(
            lambda tables: exports.begin_export(tables, bank, edit, proposal_id, terms),
            edit,
            terms,
        )

    def check_export(self, bank: str, seq: int, actor: str) -> None:
        """Checks that change `seq` is the start of an export of the bank by `actor`. Raises
        BadRequest."""
        self._environment.read(lambda tables: exports.check_export_begun(tables, bank, seq, actor))

    def add_entries(
        self, bank: str, drafts: Sequence[EntryDraft], edit: Edit, *, terms: EditTerms = NO_LIMITS
    ) -> list[Entry]:
        """Bans every draft or none; each gets its own key and seq (`entry.added.seq`). An entry
        that needs a second person is stored as a DRAFT, with a proposal (`entry.added.proposal`).

        Raises BankNotFound, NoSignal, BadHash, BadVector, BadRequest, LimitExceeded.
        """
        edit_checks.check_edit(edit)
        edit_checks.check_drafts(drafts)
        encoded = [fingerprint_to_bytes(draft.fingerprint) for draft in drafts]

        return self._edit(
            lambda tables: entries.add_entries(tables, bank, drafts, encoded, edit, terms),
            edit,
            terms,
        )

    def extend_entry(
        self,
        bank: str,
        key: int,
        fingerprint: Fingerprint,
        edit: Edit,
        *,
        terms: EditTerms = NO_LIMITS,
    ) -> tuple[Entry, Fingerprint]:
        """Adds the spaces and binary signals of `fingerprint` that the entry lacks, and the digests
        of the forms of its texts; existing ones are not replaced. Returns the entry and what was
        added; where that is empty, nothing was written. The caller checks first with
        `simsearch.bank.edits.same_content` that this is the banned content.

        Raises BankNotFound, EntryNotFound, EntryInOtherBank, EntryRetracted, NoSignal, BadHash,
        BadVector, BadRequest, LimitExceeded.
        """
        edit_checks.check_edit(edit)
        edit_checks.check_extension(fingerprint)

        return self._edit(
            lambda tables: entries.extend_entry(tables, bank, key, fingerprint, edit), edit, terms
        )

    def retract_entry(
        self, bank: str, key: int, edit: Edit, *, terms: EditTerms = NO_LIMITS
    ) -> tuple[Entry, Change]:
        """Retracts an entry. Its record and fingerprint stay, to explain earlier hits. Where this
        needs a second person, it is proposed instead: the change is of kind PROPOSAL_MADE, and the
        entry is returned unchanged.

        Raises BankNotFound, EntryNotFound, EntryInOtherBank, EntryRetracted, BadRequest.
        """
        edit_checks.check_edit(edit)

        return self._edit(
            lambda tables: entries.retract_entry(tables, bank, key, edit, terms), edit, terms
        )

    def move_entry(
        self,
        bank: str,
        key: int,
        state: EntryState,
        edit: Edit,
        *,
        until_us: int = 0,
        terms: EditTerms = NO_LIMITS,
    ) -> tuple[Entry, Change | None]:
        """Makes an entry SHADOW, ACTIVE, DISPUTED or QUARANTINED; with `until_us`, `apply_due`
        moves it back then. Returns the entry and the change; None: it was in that state already.
        Where this needs a second person, it is proposed instead: the change is of kind
        PROPOSAL_MADE, and the entry is returned unchanged.

        Raises BankNotFound, BankArchived, EntryNotFound, EntryInOtherBank, EntryRetracted,
        BadRequest.
        """
        edit_checks.check_edit(edit)
        edit_checks.check_move(state, until_us)

        return self._edit(
            lambda tables: entries.move_entry(tables, bank, key, state, until_us, edit, terms),
            edit,
            terms,
        )

    def decide(
        self, proposal_id: int, decision: Decision, edit: Edit, *, terms: EditTerms = NO_LIMITS
    ) -> Proposal:
        """Decides a proposal and, where it is approved, carries out a bounded part of it: while
        rows are `remaining`, call again. Repeating a decision changes nothing. The caller checks
        the role of the actor.

        Raises ProposalNotFound, ProposalClosed, BankArchived, and PermissionDenied where the
        proposer approves or rejects it, or another person withdraws it.
        """
        edit_checks.check_edit(edit)

        return self._edit(
            lambda tables: decide.decide_proposal(tables, proposal_id, decision, edit), edit, terms
        )

    def give_opinion(
        self, bank: str, key: int, draft: OpinionDraft, edit: Edit, *, disputes_max: int
    ) -> opinions.RecordedOpinion:
        """Records an opinion on a hit. An ACTIVE entry becomes DISPUTED once `disputes_max` people
        call it a FALSE_POSITIVE; 0: never.

        Raises BankNotFound, BankArchived, EntryNotFound, EntryInOtherBank, BadHash, BadRequest,
        LimitExceeded.
        """
        edit_checks.check_edit(edit)
        edit_checks.check_opinion(draft)

        return self._edit(
            lambda tables: opinions.give_opinion(tables, bank, key, draft, edit, disputes_max)
        )

    def quarantine_flooding(
        self, key: int, reason: str, since_us: int
    ) -> opinions.FloodQuarantine | None:
        """Quarantines an entry because of a flood of hits, detected at `since_us`; None: there is
        nothing to do. Raises BankFull."""
        return self._edit(
            lambda tables: opinions.quarantine_flooding(tables, key, reason, since_us)
        )

    def add_hits(self, hits: Mapping[int, HitCounts]) -> None:
        """Adds to the hit counts of entries in one transaction, without a change in the log. Raises
        BankFull."""

        def work(tables: Tables) -> None:
            for key, more in hits.items():
                tables.put_hits(key, tables.hits(key) + more)

        self._edit(work)

    def apply_due(self, now_us: int) -> int:
        """Applies the scheduled changes that are due at `now_us`: entries expire, or move back to
        their state before. Returns their number. Each is a change by the actor `simsearch`."""
        done = 0
        while self._environment.read(lambda tables: tables.due(now_us, 1)):
            done += self._edit(lambda tables: entries.apply_due(tables, now_us, DUE_AT_ONCE))
        return done

    def import_part(
        self,
        bank: str,
        import_id: str,
        part: int,
        items: Sequence[ImportItem],
        edit: Edit,
        *,
        revive: bool = False,
        dry_run: bool = False,
        terms: EditTerms = NO_LIMITS,
    ) -> ImportedPart:
        """Adds new items and retracts withdrawn ones; returns an outcome for each. Items that the
        bank has are not added, nor, without `revive`, those that it had and retracted. Where this
        needs a second person, new items are added as DRAFT and withdrawn ones are HELD, and all
        parts of the import share one `proposal`.

        One transaction, all or nothing. Repeating a part returns its stored result. `dry_run`:
        nothing is written. Raises BankNotFound, BadRequest where this part of the import had other
        rows, and the errors of `add_entries`.
        """
        edit_checks.check_edit(edit)
        edit_checks.check_import(import_id, part, items)
        drafts = [item.draft for item in items]
        if any(not item.withdrawn for item in items):
            edit_checks.check_drafts([item.draft for item in items if not item.withdrawn])
        encoded = [fingerprint_to_bytes(draft.fingerprint) for draft in drafts]

        def work(tables: Tables) -> ImportedPart:
            return imports.import_part(
                tables, bank, import_id, part, items, encoded, edit, revive=revive, terms=terms
            )

        return self._dry_run(work, edit, terms) if dry_run else self._edit(work, edit, terms)

    def revert(
        self,
        selected: ChangeFilter,
        seqs: Sequence[int],
        edit: Edit,
        *,
        dry_run: bool = False,
        terms: EditTerms = NO_LIMITS,
    ) -> list[Reverted]:
        """Reverts the changes `seqs`, which `selected` matches, newest first, by new changes;
        returns an outcome for each. One transaction of bounded size: where fewer outcomes than seqs
        are returned, call again with the rest. `dry_run`: nothing is written. Raises BadRequest,
        LimitExceeded, and NeedsApproval where a bank needs a second person for one of them."""
        edit_checks.check_edit(edit)

        def work(tables: Tables) -> list[Reverted]:
            return revert.revert_changes(tables, selected, seqs, edit, terms)

        return self._dry_run(work, edit, terms) if dry_run else self._edit(work, edit, terms)

    def subscribe(self, callback: Callable[[int], None]) -> None:
        """Calls `callback(seq)` after each durable commit of this process, in order, on the editing
        thread: it must be quick and must not edit. Its exceptions are logged; the edit stands."""
        self._subscribers.append(callback)

    # ------------------------------------------------------------ reading

    def seq(self) -> int:
        """The number of the last durable change; 0 in a new store."""
        return self._environment.read(Tables.seq)

    def banks(self) -> list[Bank]:
        """All banks, in the order of their creation."""
        return self._environment.read(Tables.banks)

    def bank(self, name: str) -> Bank:
        """Raises BankNotFound."""
        return self._environment.read(lambda tables: tables.bank_or_raise(name))

    def entry(self, bank: str, key: int) -> Entry:
        """Raises BankNotFound, EntryNotFound, EntryInOtherBank."""
        return self._environment.read(
            lambda tables: tables.entry_or_raise(tables.bank_or_raise(bank), key)
        )

    def entries_by_key(self, keys: Sequence[int]) -> dict[int, Entry]:
        """The entries of `keys`, retracted ones too, in one transaction; unknown keys are
        left out."""
        return self._environment.read(lambda tables: tables.entries(keys))

    def hits(self, keys: Sequence[int]) -> dict[int, HitCounts]:
        """The stored hit counts of these entries."""
        return self._environment.read(lambda tables: {key: tables.hits(key) for key in keys})

    def list_entries(
        self, bank: str, *, after_key: int = 0, limit: int, state: EntryState | None = None
    ) -> list[Entry]:
        """Up to `limit` (at most 10,000) entries of `bank` with a key above `after_key`, in
        key order. Raises BankNotFound, BadRequest, LimitExceeded."""
        edit_checks.check_page(after_key, limit)
        return self._environment.read(
            lambda tables: tables.bank_entries(
                tables.bank_or_raise(bank).id, after_key, limit, state
            )
        )

    def changes(self, after_seq: int, limit: int) -> list[Change]:
        """Changes `after_seq + 1`, `after_seq + 2`, ... without a gap, up to `limit` (at most
        10,000) of them. Raises BadRequest, LimitExceeded."""
        edit_checks.check_page(after_seq, limit)
        return self._environment.read(lambda tables: tables.changes(after_seq, limit))

    def proposal(self, proposal_id: int) -> tuple[Proposal, ProposedRows]:
        """A proposal and the first part of its entries. Raises ProposalNotFound."""

        def read(tables: Tables) -> tuple[Proposal, ProposedRows]:
            found = decide.proposal_or_raise(tables, proposal_id)
            return found, decide.first_rows(tables, found)

        return self._environment.read(read)

    def proposals(
        self,
        bank_ids: Container[int],
        *,
        state: ProposalState | None = None,
        after_id: int = 0,
        limit: int,
    ) -> tuple[list[tuple[Proposal, ProposedRows]], int]:
        """Up to `limit` proposals about these banks, oldest first, and the `after_id` of the next
        page; 0: this is the last one. A page may be short. Raises BadRequest, LimitExceeded."""
        edit_checks.check_page(after_id, limit)
        return self._environment.read(
            lambda tables: decide.list_proposals(tables, bank_ids, state, after_id, limit)
        )

    def fingerprints(self, keys: Sequence[int]) -> dict[int, Fingerprint]:
        """The fingerprints of `keys`, including retracted entries; unknown keys are left out."""
        with self.reading() as reading:
            return reading.fingerprints(keys)

    def find_digests(
        self, digests: Sequence[tuple[Signal, bytes]], through: int
    ) -> list[list[tuple[int, int]]]:
        """For each digest, (entry key, bank id), by key, of the entries that have it and were alive
        at log position `through`: added at or before it, not retracted at or before it. All are
        read in one transaction.

        Raises BadHash where a signal is no digest or a digest has another length.
        """
        for signal, digest in digests:
            edit_checks.check_digest(signal, digest)
        return self._environment.read(
            lambda tables: [tables.find_digest(*digest, through) for digest in digests]
        )

    @contextmanager
    def reading(self) -> Iterator[StateReader]:
        """A reader of the newest state, to load or build an index from."""
        yield StateReader.begin(self._environment)

    def clear_stale_readers(self) -> int:
        """Frees the reader slots of killed processes; returns how many there were."""
        return self._environment.clear_stale_readers()

    # ------------------------------------------------------------ helpers

    def _edit(
        self, work: Callable[[Tables], T], edit: Edit = _SERVER_EDIT, terms: EditTerms = NO_LIMITS
    ) -> T:
        def numbered(tables: Tables) -> tuple[T, range]:
            before = tables.seq()
            result = work(tables)
            daily_limit.charge(tables, edit.actor, terms.edits_per_day, time.time())
            return result, range(before, tables.seq())

        result, _ = self._environment.write(numbered, then=lambda done: self._announce(done[1]))
        return result

    def _dry_run(self, work: Callable[[Tables], T], edit: Edit, terms: EditTerms) -> T:
        """Runs `work` and returns its result, without writing anything."""
        tried: list[T] = []

        def undone(tables: Tables) -> None:
            tried.append(work(tables))
            raise _DryRun

        with suppress(_DryRun):
            self._edit(undone, edit, terms)
        return tried[-1]

    def _announce(self, written: range) -> None:
        for callback in self._subscribers if written else ():
            try:
                callback(written.stop)
            except Exception:  # the edit is durable, so it must be reported as done
                log.exception("bank_subscriber_failed")
