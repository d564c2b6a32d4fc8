"""The bank store: every edit is one durable transaction, every read a short consistent one."""

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
from simsearch.bank.edits import daily_limit, entries, exports, imports, opinions
from simsearch.bank.edits import decide as deciding
from simsearch.bank.edits import revert as reverting
from simsearch.bank.edits.imports import ImportedPart, ImportItem
from simsearch.bank.edits.revert import Reverted
from simsearch.bank.lmdb.environment import Environment
from simsearch.bank.lmdb.tables import Tables
from simsearch.bank.log_search import Span
from simsearch.bank.records.fingerprints import fingerprint_to_bytes
from simsearch.bank.state_reader import Reading
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

_ITSELF = Edit(entries.ITSELF, "its time has come")

T = TypeVar("T")


class _DryRun(Exception):
    """Ends a transaction that is not to be written."""


class BankStore:
    """Banks and entries on disk: one writing process, any number of reading ones.

    Every method may be called from any thread. Faults come out by name: BankFull, BankLocked,
    NewerFormat, Corrupt, and NotReady once the store is closed. Open it after forking, never
    before: LMDB's locks belong to one process. One process opens one path once; share the store.
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
        """The store in directory `path`; a writer creates it where it is absent.

        `map_bytes` is where the memory map starts; it doubles by itself up to `map_bytes_max`.
        Raises BankLocked (another writer), NewerFormat, Corrupt, BadConfig (no store here).
        """
        begin = min(map_bytes, map_bytes_max)
        return cls(
            Environment.open(path, writer=writer, map_bytes=begin, map_bytes_max=map_bytes_max)
        )

    def close(self) -> None:
        """Waits for transactions in flight, then lets go of the files. May be called twice."""
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
        """A new, empty bank. Raises BadBankName, BankExists, BadRequest, LimitExceeded. What it
        says of `terms` holds for every edit: DailyLimit where they leave no more for today."""
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
        """Sets what is not None and gives the bank a new etag; `etag`, where given, must be
        the one it had. Where that needs a second person, it is proposed: the change is of kind
        PROPOSAL_MADE, and the bank as it was.

        Raises BankNotFound, BankChanged, BankArchived where it is and stays so,
        BadRequest, LimitExceeded."""
        update = BankUpdate(description, policy, owner, archived, enabled_ratio, four_eyes)
        edit_checks.check_update(update)
        edit_checks.check_edit(edit)

        return self._edit(
            lambda tables: entries.update_bank(tables, name, update, etag, edit, terms), edit, terms
        )

    def begin_export(
        self, bank: str, edit: Edit, *, proposal_id: int = 0, terms: EditTerms = NO_LIMITS
    ) -> Change:
        """Puts on the record that entries are taken out of a bank. Where that needs a second person
        and `proposal_id` names no approval, it is proposed: the change is of kind PROPOSAL_MADE.

        Raises BankNotFound, BadRequest, ProposalNotFound, ProposalClosed, PermissionDenied.
        """
        edit_checks.check_edit(edit)

        return self._edit(
            lambda tables: exports.begin_export(tables, bank, edit, proposal_id, terms),
            edit,
            terms,
        )

    def check_export(self, bank: str, seq: int, actor: str) -> None:
        """That this change began an export of the bank by this person. Raises BadRequest."""
        self._environment.read(lambda tables: exports.check_begun(tables, bank, seq, actor))

    def add_entries(
        self, bank: str, drafts: Sequence[EntryDraft], edit: Edit, *, terms: EditTerms = NO_LIMITS
    ) -> list[Entry]:
        """Bans every draft or none; each gets its own key and seq (`entry.added.seq`). What needs a
        second person is stored as a DRAFT, and `entry.added.proposal` waits for one.

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
        """Adds the spaces and binary signals of `fingerprint` that the entry lacks; nothing that
        it has is replaced. Returns the entry and what was added; where that is empty, nothing
        was written. Whether this is the content that was banned is for
        `simsearch.bank.edits.same_content`, which sees the contents one by one.

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
        """Ends an entry. Its record and fingerprint stay, to explain earlier hits. Where that needs
        a second person, it is proposed: the change is of kind PROPOSAL_MADE, and the entry as it
        was.

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
        """Makes an entry SHADOW, ACTIVE, DISPUTED or QUARANTINED, `until_us` where it goes back by
        itself then (`settle_due`). The entry, and the change; None: it was there already. Where
        that needs a second person, it is proposed: the change is of kind PROPOSAL_MADE, and the
        entry as it was.

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
        """Decides about a proposal and, where it is approved, does what it is about, a bounded
        part of it: with something `remaining`, ask again. A decision that is repeated changes
        nothing. Whether this person may decide at all is for the caller to know.

        Raises ProposalNotFound, ProposalClosed, BankArchived, and PermissionDenied where who made
        it approves or rejects it, or another withdraws it.
        """
        edit_checks.check_edit(edit)

        return self._edit(
            lambda tables: deciding.decide(tables, proposal_id, decision, edit), edit, terms
        )

    def give_opinion(
        self, bank: str, key: int, said: OpinionDraft, edit: Edit, *, disputes_max: int
    ) -> opinions.Given:
        """Records what somebody thinks of a hit; where `disputes_max` people (0: no number of
        them) then hold FALSE_POSITIVE of an ACTIVE entry, it is made DISPUTED with it.

        Raises BankNotFound, BankArchived, EntryNotFound, EntryInOtherBank, BadHash, BadRequest,
        LimitExceeded.
        """
        edit_checks.check_edit(edit)
        edit_checks.check_opinion(said)

        return self._edit(lambda tables: opinions.give(tables, bank, key, said, edit, disputes_max))

    def quarantine_flooding(self, key: int, reason: str, since_us: int) -> opinions.Stopped | None:
        """Puts an entry whose hits are a flood, seen at `since_us`, into quarantine; None: there
        is nothing to do. Raises BankFull."""
        return self._edit(lambda tables: opinions.quarantine(tables, key, reason, since_us))

    def add_hits(self, hits: Mapping[int, HitCounts]) -> None:
        """Adds to the counts of entries, in one transaction and beside the log. Raises BankFull."""

        def work(tables: Tables) -> None:
            for key, more in hits.items():
                tables.put_hits(key, tables.hits(key) + more)

        self._edit(work)

    def settle_due(self, now_us: int) -> int:
        """Does what was to happen by itself by `now_us`: entries expire, or go back to where they
        were; returns how much there was. Each is a change, signed `simsearch`."""
        done = 0
        while self._environment.read(lambda tables: tables.due(now_us, 1)):
            done += self._edit(lambda tables: entries.settle_due(tables, now_us, DUE_AT_ONCE))
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
        """Adds what is new, takes back what is withdrawn, and says of each item what became of it;
        what a bank has already, or had and took back, is not added, the latter unless `revive`.
        Where that needs a second person, what is new is added as DRAFT and what is withdrawn is
        HELD, and all parts of one import wait for one `proposal`.

        All of it or nothing, in one transaction. A part that was done before is answered as it was
        then. `dry_run`: nothing is written. Raises BankNotFound, BadRequest where this part of the
        import held something else, and as `add_entries`.
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

        return self._try(work, edit, terms) if dry_run else self._edit(work, edit, terms)

    def revert(
        self,
        span: Span,
        seqs: Sequence[int],
        edit: Edit,
        *,
        dry_run: bool = False,
        terms: EditTerms = NO_LIMITS,
    ) -> list[Reverted]:
        """Undoes the changes `seqs`, the newest first, by new ones; says of each what became of
        it. One transaction, which ends before the last of them where they are many: go on with the
        others. `dry_run`: nothing is written. Raises BadRequest, LimitExceeded, and NeedsApproval
        where a bank needs a second person for one of them."""
        edit_checks.check_edit(edit)

        def work(tables: Tables) -> list[Reverted]:
            return reverting.revert(tables, span, seqs, edit, terms)

        return self._try(work, edit, terms) if dry_run else self._edit(work, edit, terms)

    def subscribe(self, callback: Callable[[int], None]) -> None:
        """Calls `callback(seq)` after each durable commit of this process, in order, on the
        editing thread: it must be quick and must not edit. What it raises is logged, since
        the edit stands."""
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
        """How often each of these entries was hit, as far as it was written."""
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
        """A proposal and the entries of its first part. Raises ProposalNotFound."""

        def read(tables: Tables) -> tuple[Proposal, ProposedRows]:
            found = deciding.proposal_or_raise(tables, proposal_id)
            return found, deciding.first_rows(tables, found)

        return self._environment.read(read)

    def proposals(
        self,
        bank_ids: Container[int],
        *,
        state: ProposalState | None = None,
        after_id: int = 0,
        limit: int,
    ) -> tuple[list[tuple[Proposal, ProposedRows]], int]:
        """Up to `limit` proposals about these banks, the oldest first, and the id after which to go
        on; 0: that was all. A page may be short before that. Raises BadRequest, LimitExceeded."""
        edit_checks.check_page(after_id, limit)
        return self._environment.read(
            lambda tables: deciding.listed(tables, bank_ids, state, after_id, limit)
        )

    def fingerprints(self, keys: Sequence[int]) -> dict[int, Fingerprint]:
        """The fingerprints of `keys`, of retracted entries too; unknown keys are left out."""
        with self.reading() as reading:
            return reading.fingerprints(keys)

    def find_digest(self, signal: Signal, digest: bytes, through: int) -> list[tuple[int, int]]:
        """(entry key, bank id), by key, of the entries that have this digest and were alive
        at log position `through`: added at or before it, not retracted at or before it.

        Raises BadHash where `signal` is no digest or `digest` has another length.
        """
        edit_checks.check_digest(signal, digest)
        return self._environment.read(lambda tables: tables.find_digest(signal, digest, through))

    @contextmanager
    def reading(self) -> Iterator[Reading]:
        """One consistent state of the whole store, to load or build from; see `Reading`."""
        yield Reading.begin(self._environment)

    def clear_stale_readers(self) -> int:
        """Frees the reader slots of killed processes; returns how many there were."""
        return self._environment.clear_stale_readers()

    # ------------------------------------------------------------ helpers

    def _edit(
        self, work: Callable[[Tables], T], edit: Edit = _ITSELF, terms: EditTerms = NO_LIMITS
    ) -> T:
        def numbered(tables: Tables) -> tuple[T, range]:
            before = tables.seq()
            result = work(tables)
            daily_limit.charge(tables, edit.actor, terms.edits_per_day, time.time())
            return result, range(before, tables.seq())

        result, _ = self._environment.write(numbered, then=lambda done: self._announce(done[1]))
        return result

    def _try(self, work: Callable[[Tables], T], edit: Edit, terms: EditTerms) -> T:
        """What `work` would do; nothing of it is written."""
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
            except Exception:  # the edit is durable: its caller must be told so
                log.exception("bank_subscriber_failed")
