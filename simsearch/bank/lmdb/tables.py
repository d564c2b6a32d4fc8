"""Tables: typed access to the records within one transaction. LMDB errors are not handled here."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, TypeAlias

from simsearch.bank.edit_checks import BANKS_MAX
from simsearch.bank.records import entries as entry_records
from simsearch.bank.records import hash_chain, keys
from simsearch.bank.records import opinions as opinion_records
from simsearch.bank.records.fingerprints import fingerprint_from_bytes
from simsearch.bank.records.keys import Lifetime, corrupt, pack_u32, pack_u64, seal, unseal
from simsearch.bank.records.proposals import proposal_from_bytes, proposal_to_bytes
from simsearch.errors import (
    BankNotFound,
    EntryInOtherBank,
    EntryNotFound,
    LimitExceeded,
    NewerFormat,
)
from simsearch.storage.v1 import records_pb2 as pb
from simsearch.types import (
    DIGEST_ENTRIES_MAX,
    Bank,
    Change,
    ChangeKind,
    Edit,
    Entry,
    EntryState,
    Fingerprint,
    HitCounts,
    Opinion,
    Proposal,
    Signal,
)

if TYPE_CHECKING:
    import lmdb

LOG_AT_ONCE = 1_024

Handles: TypeAlias = "Mapping[bytes, lmdb._Database]"
"""The tables of one open environment, by name."""


class Tables:
    """Reads and writes the records of the store; valid as long as its transaction.

    A mark is a key of the secondary index BY_DIGEST: a digest, a whole fingerprint, or an id of the
    source.
    """

    def __init__(self, transaction: lmdb.Transaction[bytes], handles: Handles) -> None:
        self._transaction = transaction
        self._handles = handles
        self._end: tuple[int, bytes] | None = None
        self._numbers: dict[bytes, int] = {}
        self.edits = 0
        """Edits of this transaction that count towards the actor's daily limit: one for each
        change, and for a proposal as many as it will make."""

    # ------------------------------------------------------------ meta

    def initialise(self) -> None:
        """Fills `meta` of a new store."""
        self._put(keys.META, keys.META_FORMAT, pack_u32(keys.FORMAT))
        self._put(keys.META, keys.META_STORE_ID, uuid.uuid4().bytes)
        self._put(keys.META, keys.META_NEXT_ENTRY_KEY, pack_u64(1))
        self._put(keys.META, keys.META_NEXT_BANK_ID, pack_u64(1))

    def check_format(self) -> None:
        """Raises NewerFormat, or Corrupt for a number that no release wrote."""
        found = self._format()
        if found > keys.FORMAT:
            raise NewerFormat(
                f"the bank store has format {found}, this release reads up to {keys.FORMAT}: "
                "run the release that wrote it, or a later one"
            )
        if found < 1:
            raise corrupt("the format version", f"is {found}")

    def raise_format(self) -> None:
        """Sets the format to this release's, so that older releases refuse the store."""
        if self._format() < keys.FORMAT:
            self._put(keys.META, keys.META_FORMAT, pack_u32(keys.FORMAT))

    def _format(self) -> int:
        return keys.unpack_u32(self._meta(keys.META_FORMAT), "the format version")

    def store_id(self) -> str:
        """The uuid given at creation."""
        return str(uuid.UUID(bytes=self._meta(keys.META_STORE_ID)))

    def next_bank_id(self) -> int:
        """A new bank id. Raises LimitExceeded at BANKS_MAX."""
        bank_id = self._take_number(keys.META_NEXT_BANK_ID)
        if bank_id > BANKS_MAX:
            raise LimitExceeded(f"there are {BANKS_MAX} banks, the limit: use one of them")
        return bank_id

    def next_entry_key(self) -> int:
        """A new entry key, from a counter of its own: no key is ever assigned twice."""
        return self._take_number(keys.META_NEXT_ENTRY_KEY)

    # ------------------------------------------------------------ the log

    def seq(self) -> int:
        """The number of the newest change; 0: there is none."""
        with self._transaction.cursor(self._handles[keys.CHANGES]) as cursor:
            return keys.unpack_u64(cursor.key(), "a key of changes") if cursor.last() else 0

    def next_change(
        self, kind: ChangeKind, bank_id: int, entry_key: int, edit: Edit, time_us: int
    ) -> Change:
        """Builds the change to pass to `append_change`."""
        seq = self._end_of_log()[0] + 1
        fields = (edit.actor, edit.reason, time_us, edit.undoes, edit.approved_by, edit.proposal)
        return Change(seq, kind, bank_id, entry_key, *fields)

    def append_change(
        self, change: Change, content: bytes = b"", bank_before: Bank | None = None
    ) -> Change:
        """Appends to the log. `content`: the SHA-256 of what the change stores (hash_chain.py);
        empty where it stores nothing. `bank_before`: the bank that an update replaces."""
        seq, before = self._end_of_log()
        assert change.seq == seq + 1
        body = entry_records.change_to_bytes(change, content, bank_before)
        link = hash_chain.link_of(body, before)
        self._put(keys.CHANGES, pack_u64(change.seq), hash_chain.with_link(body, link))
        self._end = (change.seq, link)
        self.edits += change.kind is not ChangeKind.PROPOSAL_MADE
        return change

    def changes(self, after_seq: int, limit: int) -> list[Change]:
        """The changes from `after_seq` + 1 on, up to `limit` of them."""
        found = self.log(after_seq, limit)
        return [entry_records.change_from_bytes(seq, record) for seq, record in found]

    def log(self, after_seq: int, limit: int) -> list[tuple[int, bytes]]:
        """(seq, record with its link) of the changes from `after_seq` + 1 on, without a gap."""
        found: list[tuple[int, bytes]] = []
        for key, sealed in self._rows_from(keys.CHANGES, pack_u64(after_seq + 1)):
            if len(found) == limit:
                break
            seq = after_seq + 1 + len(found)
            if key != pack_u64(seq):
                raise corrupt(f"change {seq}", "is missing")
            found.append((seq, unseal(key, sealed, f"change {seq}")))
        return found

    def _end_of_log(self) -> tuple[int, bytes]:
        """The newest seq and its link; in a log older than links, the link that it would have."""
        if self._end is None:
            self.raise_format()
            seq = self.seq()
            newest = self.log(seq - 1, 1)[0][1] if seq else b""
            link = hash_chain.split_link(newest).link if seq else hash_chain.GENESIS
            self._end = (seq, link or self._link_of_all())
        return self._end

    def _link_of_all(self) -> bytes:
        link, after = hash_chain.GENESIS, 0
        while some := self.log(after, LOG_AT_ONCE):
            for _, record in some:
                link = hash_chain.link_of(record, link)
            after += len(some)
        return link

    # ------------------------------------------------------------ banks

    def banks(self) -> list[Bank]:
        """All banks, by id."""
        return [_bank_from_row(key, sealed) for key, sealed in self._rows_from(keys.BANKS, b"")]

    def bank_named(self, name: str) -> Bank | None:
        """None where there is no such bank."""
        # A name that no bank can have, however long, must not reach LMDB as a key.
        key = name.encode(errors="replace")[:256]
        packed = self._get(keys.BANK_NAMES, key, "a bank name") if key else None
        if packed is None:
            return None
        sealed = self._transaction.get(packed, db=self._handles[keys.BANKS])
        if sealed is None:
            raise corrupt(f"bank {name!r}", "has a name and no record")
        return _bank_from_row(packed, sealed)

    def bank_or_raise(self, name: str) -> Bank:
        """Raises BankNotFound."""
        bank = self.bank_named(name)
        if bank is None:
            raise BankNotFound(f"there is no bank {name[:80]!r}: list the banks, or create it")
        return bank

    def put_bank(self, bank: Bank) -> None:
        """Stores the bank, and its name as a key to it."""
        key = pack_u32(bank.id)
        self._put(keys.BANKS, key, entry_records.bank_to_bytes(bank))
        self._put(keys.BANK_NAMES, bank.name.encode(), key)

    # ------------------------------------------------------------ entries

    def entry(self, key: int) -> Entry | None:
        """None where there is no such entry."""
        body = self._get(keys.ENTRIES, _entry_key(key), f"entry {key}")
        return None if body is None else entry_records.entry_from_bytes(key, body)

    def entry_or_raise(self, bank: Bank, key: int) -> Entry:
        """Raises EntryNotFound, EntryInOtherBank."""
        entry = self.entry(key)
        if entry is None:
            raise EntryNotFound(f"there is no entry {key}")
        if entry.bank_id != bank.id:
            raise EntryInOtherBank(f"entry {key} is not in bank {bank.name!r} but in another")
        return entry

    def entries(self, entry_keys: Sequence[int]) -> dict[int, Entry]:
        """The entries of these keys; unknown keys are left out."""
        found = ((key, self.entry(key)) for key in entry_keys)
        return {key: entry for key, entry in found if entry is not None}

    def bank_entries(
        self, bank_id: int, after_key: int, limit: int, state: EntryState | None
    ) -> list[Entry]:
        """Up to `limit` entries of a bank with a key above `after_key`, by key; `state` None: of
        any."""
        found: list[Entry] = []
        for key, lifetime in self.bank_lifetimes(bank_id, after_key):
            if len(found) == limit:
                break
            if state is not None and _is_retracted(lifetime) != (state is EntryState.RETRACTED):
                continue
            entry = self.indexed_entry(key)
            if state in (None, entry.state):
                found.append(entry)
        return found

    def put_entry(self, entry: Entry) -> None:
        """Stores the entry's record alone, without its lifetime."""
        self._put(keys.ENTRIES, pack_u64(entry.key), entry_records.entry_to_bytes(entry))

    def put_fingerprint(self, key: int, fingerprint: bytes) -> None:
        """Stores the record of the fingerprint that an entry was added with."""
        self._put(keys.FINGERPRINTS, pack_u64(key), fingerprint)

    def put_extension(self, key: int, seq: int, fingerprint: bytes) -> None:
        """Stores the record of what change `seq` added to an entry."""
        self._put(keys.FINGERPRINTS, keys.extension_key(key, seq), fingerprint)

    def fingerprint_bytes(self, key: int, through: int) -> bytes:
        """The entry's fingerprint and its extensions up to seq `through`, as one record.

        Unparsed: a view loads many at once. Raises Corrupt where entry `key` has none.
        """
        first, *extensions = self._fingerprint_records(key)
        # Concatenated protobuf messages parse as one whose lists are joined.
        return b"".join((first[1], *(body for seq, body in extensions if seq <= through)))

    def fingerprint_or_raise(self, key: int, through: int) -> Fingerprint:
        """All signals of an entry as of seq `through`. Raises Corrupt."""
        return fingerprint_from_bytes(key, self.fingerprint_bytes(key, through))

    def change_fingerprint(self, change: Change) -> Fingerprint:
        """The signals that this change, which added or extended an entry, added."""
        return fingerprint_from_bytes(change.entry_key, self.change_fingerprint_bytes(change))

    def change_fingerprint_bytes(self, change: Change) -> bytes:
        """The same, unparsed."""
        records = dict(self._fingerprint_records(change.entry_key))
        seq = change.seq if change.kind is ChangeKind.ENTRY_EXTENDED else 0
        if seq not in records:
            raise corrupt(f"extension {seq} of entry {change.entry_key}", "is missing")
        return records[seq]

    def _fingerprint_records(self, key: int) -> list[tuple[int, bytes]]:
        """(seq, record) by seq; seq 0 is the one it was added with. Raises Corrupt without it."""
        prefix, what = pack_u64(key), f"fingerprint {key}"
        found = [
            (0 if at == prefix else keys.last_u64(at), unseal(at, sealed, what))
            for at, sealed in self._rows_under(keys.FINGERPRINTS, prefix)
        ]
        if not found or found[0][0] != 0:
            raise corrupt(what, "is missing")
        return found

    # ------------------------------------------------------------ schedule

    def put_due(self, time_us: int, key: int) -> None:
        """Schedules entry `key` for `time_us`."""
        self._put(keys.DUE, keys.due_key(time_us, key), b"")

    def due(self, now_us: int, limit: int) -> list[tuple[int, int]]:
        """(time, entry key) of up to `limit` scheduled times up to `now_us`, oldest first."""
        found = []
        for at, _ in islice(self._rows_from(keys.DUE, b""), limit):
            if keys.first_u64(at) > now_us:
                break
            found.append((keys.first_u64(at), keys.last_u64(at)))
        return found

    def drop_due(self, time_us: int, key: int) -> None:
        """Removes a time of the schedule."""
        self._transaction.delete(keys.due_key(time_us, key), db=self._handles[keys.DUE])

    # ------------------------------------------------------------ opinions, hits, review

    def put_opinion(self, opinion: Opinion) -> None:
        """Stores an opinion under its entry and change."""
        change = opinion.change
        at = keys.opinion_key(change.entry_key, change.seq)
        self._put(keys.OPINIONS, at, opinion_records.opinion_to_bytes(opinion))

    def opinions(self, key: int) -> list[Opinion]:
        """The opinions on one entry, oldest first."""
        rows = self._rows_under(keys.OPINIONS, _entry_key(key))
        return [_opinion_from_row(at, sealed) for at, sealed in rows]

    def opinions_after(self, after: tuple[int, int]) -> Iterator[Opinion]:
        """All opinions after (entry key, seq), ordered by these two."""
        start = keys.opinion_key(after[0], after[1] + 1)
        for at, sealed in self._rows_from(keys.OPINIONS, start):
            yield _opinion_from_row(at, sealed)

    def opinion(self, key: int, seq: int) -> Opinion | None:
        """The opinion that change `seq` recorded on entry `key`; None: there is none."""
        if keys.OPINIONS not in self._handles:
            return None
        what = f"opinion {seq} on entry {key}"
        body = self._get(keys.OPINIONS, keys.opinion_key(key, seq), what)
        return None if body is None else opinion_records.opinion_from_bytes(key, seq, body)

    def hits(self, key: int) -> HitCounts:
        """The hit counts of an entry; zeros where it has none."""
        if keys.HITS not in self._handles:
            return HitCounts()
        body = self._get(keys.HITS, _entry_key(key), f"the hits of entry {key}")
        return HitCounts() if body is None else opinion_records.hits_from_bytes(key, body)

    def put_hits(self, key: int, hits: HitCounts) -> None:
        """Replaces the hit counts of an entry."""
        self._put(keys.HITS, pack_u64(key), opinion_records.hits_to_bytes(hits))

    def put_review(self, seq: int, key: int) -> None:
        """Puts an entry on the review queue, since its move `seq`."""
        self._put(keys.REVIEW, keys.review_key(seq, key), b"")

    def drop_review(self, seq: int, key: int) -> None:
        """Takes an entry off the review queue."""
        self._transaction.delete(keys.review_key(seq, key), db=self._handles[keys.REVIEW])

    def under_review(self, after_seq: int) -> Iterator[tuple[int, int]]:
        """(seq of the move, entry key) of the entries that wait for a decision, oldest first."""
        for at, _ in self._rows_from(keys.REVIEW, pack_u64(after_seq + 1)):
            yield keys.first_u64(at), keys.last_u64(at)

    # ------------------------------------------------------------ imports

    def import_part(self, import_id: str, part: int) -> pb.ImportPartRecord | None:
        """The stored result of an import part; None: it was not run."""
        at, what = keys.import_key(import_id, part), f"part {part} of an import"
        if keys.IMPORTS not in self._handles:
            return None
        body = self._get(keys.IMPORTS, at, what)
        if body is None:
            return None
        return entry_records.read_record(what, lambda: pb.ImportPartRecord.FromString(body))

    def put_import_part(self, import_id: str, part: int, done: pb.ImportPartRecord) -> None:
        """Stores the result of an import part, so that a repeat is answered from it."""
        self._put(keys.IMPORTS, keys.import_key(import_id, part), done.SerializeToString())

    # ------------------------------------------------------------ proposals

    def next_proposal_id(self) -> int:
        """A new proposal id, from 1."""
        return self._take_number(keys.META_NEXT_PROPOSAL_ID, first=1)

    def proposal(self, proposal_id: int) -> Proposal | None:
        """None where there is no such proposal."""
        if keys.PROPOSALS not in self._handles:
            return None
        what = f"proposal {proposal_id}"
        body = self._get(keys.PROPOSALS, _entry_key(proposal_id), what)
        return None if body is None else proposal_from_bytes(proposal_id, body)

    def proposals(self, after_id: int) -> Iterator[Proposal]:
        """All proposals with an id above `after_id`, by id."""
        for at, sealed in self._rows_from(keys.PROPOSALS, pack_u64(after_id + 1)):
            if len(at) == len(pack_u64(0)):
                number = keys.first_u64(at)
                yield proposal_from_bytes(number, unseal(at, sealed, f"proposal {number}"))

    def put_proposal(self, proposal: Proposal) -> None:
        """Stores the proposal without its rows."""
        self._put(keys.PROPOSALS, pack_u64(proposal.id), proposal_to_bytes(proposal))

    def proposed_rows(self, proposal_id: int, part: int) -> bytes:
        """Unparsed. Raises Corrupt where there is no such part."""
        what = f"part {part} of proposal {proposal_id}"
        body = self._get(keys.PROPOSALS, keys.proposed_rows_key(proposal_id, part), what)
        if body is None:
            raise corrupt(what, "is missing")
        return body

    def put_proposed_rows(self, proposal_id: int, part: int, rows: bytes) -> None:
        """Stores one part of a proposal's entries."""
        self._put(keys.PROPOSALS, keys.proposed_rows_key(proposal_id, part), rows)

    def open_proposal(self, mark: bytes) -> Proposal | None:
        """The open proposal of this mark; None: there is none."""
        packed = self._get(keys.OPEN_PROPOSALS, mark, "an open proposal")
        return None if packed is None else self.proposal(keys.first_u64(packed))

    def put_open_proposal(self, mark: bytes, proposal_id: int) -> None:
        """Makes an open proposal findable by its mark."""
        self._put(keys.OPEN_PROPOSALS, mark, pack_u64(proposal_id))

    def drop_open_proposal(self, mark: bytes) -> None:
        """Removes the mark of a proposal that is closed."""
        self._transaction.delete(mark, db=self._handles[keys.OPEN_PROPOSALS])

    # ------------------------------------------------------------ daily edit counts

    def edits_of_day(self, day: int, actor: str) -> int:
        """Edits counted for an actor on one day (since 1970, UTC)."""
        body = self._get(keys.DAILY, keys.daily_key(day, actor), "the count of a day")
        return keys.unpack_u64(body, "the count of a day") if body else 0

    def put_edits_of_day(self, day: int, actor: str, edits: int) -> None:
        """Replaces an actor's count for one day."""
        self._put(keys.DAILY, keys.daily_key(day, actor), pack_u64(edits))

    def drop_days_before(self, day: int, limit: int) -> None:
        """Deletes up to `limit` counts of days before `day`, oldest first."""
        for at, _ in list(islice(self._rows_from(keys.DAILY, b""), limit)):
            if at >= pack_u32(day):
                return
            self._transaction.delete(at, db=self._handles[keys.DAILY])

    # ------------------------------------------------------------ lifetimes

    def put_lifetime(self, key: int, lifetime: Lifetime, marks: Iterable[bytes]) -> None:
        """Writes the lifetime into every table that holds it: by key, by bank, and by each of the
        entry's `marks`."""
        packed = keys.pack_lifetime(lifetime)
        self._put(keys.LIFETIMES, pack_u64(key), packed)
        self._put(keys.BY_BANK, keys.bank_entry_key(lifetime.bank_id, key), packed)
        for mark in marks:
            self._put(keys.BY_DIGEST, mark + pack_u64(key), packed)

    def marked(self, mark: bytes, bank_id: int) -> Iterator[tuple[int, Lifetime]]:
        """(entry key, lifetime) of one bank's entries with this mark, by key."""
        return (row for row in self.marked_lifetimes(mark, 0) if row[1].bank_id == bank_id)

    def marked_lifetimes(self, mark: bytes, after_key: int) -> Iterator[tuple[int, Lifetime]]:
        """(entry key, lifetime) of all entries with this mark and a key above `after_key`."""
        start = mark + pack_u64(after_key + 1)
        for at, sealed in self._rows_under(keys.BY_DIGEST, mark, start):
            yield _lifetime_from_row(at, sealed)

    def lifetime(self, key: int) -> Lifetime | None:
        """None where there is no such entry."""
        body = self._get(keys.LIFETIMES, _entry_key(key), f"the life of entry {key}")
        return None if body is None else keys.unpack_lifetime(body, f"the life of entry {key}")

    def lifetimes(self, after_key: int) -> Iterator[tuple[int, Lifetime]]:
        """(entry key, lifetime) of every bank with a key above `after_key`, by key."""
        for key, sealed in self._rows_from(keys.LIFETIMES, pack_u64(after_key + 1)):
            yield _lifetime_from_row(key, sealed)

    def find_digest(self, signal: Signal, digest: bytes, through: int) -> list[tuple[int, int]]:
        """As `BankStore.find_digest`. At most DIGEST_ENTRIES_MAX of each bank, so that one bank's
        entries cannot crowd out another's."""
        prefix = keys.digest_prefix(signal, digest)
        found = []
        per_bank: Counter[int] = Counter()
        for at, sealed in self._rows_from(keys.BY_DIGEST, prefix):
            if not at.startswith(prefix):
                break
            key, lifetime = _lifetime_from_row(at, sealed)
            if lifetime.alive_at(through) and per_bank[lifetime.bank_id] < DIGEST_ENTRIES_MAX:
                found.append((key, lifetime.bank_id))
                per_bank[lifetime.bank_id] += 1
        return found

    def bank_lifetimes(self, bank_id: int, after_key: int) -> Iterator[tuple[int, Lifetime]]:
        """(entry key, lifetime) of one bank with a key above `after_key`, by key."""
        prefix = pack_u32(bank_id)
        start = keys.bank_entry_key(bank_id, after_key + 1)
        for at, sealed in self._rows_from(keys.BY_BANK, start):
            if not at.startswith(prefix):
                return
            yield _lifetime_from_row(at, sealed)

    def indexed_entry(self, key: int) -> Entry:
        """The entry of a key found in another table. Raises Corrupt."""
        entry = self.entry(key)
        if entry is None:
            raise corrupt(f"entry {key}", "is listed and has no record")
        return entry

    # ------------------------------------------------------------ bytes

    def _take_number(self, name: bytes, first: int = 0) -> int:
        """Takes the next number of a counter. `first`: its start where the store lacks the counter;
        0: every store has it."""
        number = self._numbers.get(name)
        if number is None:
            what = f"counter {name.decode()}"
            absent = first and self._get(keys.META, name, what) is None
            number = first if absent else keys.unpack_u64(self._meta(name), what)
        self._numbers[name] = number + 1
        self._put(keys.META, name, pack_u64(number + 1))
        return number

    def _meta(self, name: bytes) -> bytes:
        body = self._get(keys.META, name, f"meta {name.decode()}")
        if body is None:
            raise corrupt(f"meta {name.decode()}", "is missing")
        return body

    def _get(self, table: bytes, key: bytes, what: str) -> bytes | None:
        sealed = self._transaction.get(key, db=self._handles[table])
        return None if sealed is None else unseal(key, sealed, what)

    def _put(self, table: bytes, key: bytes, body: bytes) -> None:
        self._transaction.put(key, seal(key, body), db=self._handles[table])

    def _rows_from(self, table: bytes, start: bytes) -> Iterator[tuple[bytes, bytes]]:
        if table not in self._handles:  # a reader of a store older than this table
            return
        with self._transaction.cursor(self._handles[table]) as cursor:
            if cursor.set_range(start):
                yield from cursor

    def _rows_under(
        self, table: bytes, prefix: bytes, start: bytes = b""
    ) -> Iterator[tuple[bytes, bytes]]:
        """Rows with the prefix, from `start` on. Values of other rows are not read."""
        if table not in self._handles:
            return
        with self._transaction.cursor(self._handles[table]) as cursor:
            found = cursor.set_range(start or prefix)
            while found and cursor.key().startswith(prefix):
                yield cursor.item()
                found = cursor.next()


def _entry_key(key: int) -> bytes:
    """Callers may pass any number: one that no entry can have is not found."""
    return pack_u64(key if 0 < key < keys.NEVER else 0)


def _is_retracted(lifetime: Lifetime) -> bool:
    return lifetime.retired != keys.NEVER


def _bank_from_row(key: bytes, sealed: bytes) -> Bank:
    bank_id = keys.unpack_u32(key, "a key of banks")
    return entry_records.bank_from_bytes(bank_id, unseal(key, sealed, f"bank {bank_id}"))


def _opinion_from_row(at: bytes, sealed: bytes) -> Opinion:
    key, seq = keys.first_u64(at), keys.last_u64(at)
    body = unseal(at, sealed, f"opinion {seq} on entry {key}")
    return opinion_records.opinion_from_bytes(key, seq, body)


def _lifetime_from_row(at: bytes, sealed: bytes) -> tuple[int, Lifetime]:
    key = keys.last_u64(at)
    what = f"the life of entry {key}"
    return key, keys.unpack_lifetime(unseal(at, sealed, what), what)
