"""The domain's nouns: frozen values that every part of the house passes around."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, IntEnum, StrEnum
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Vectors: TypeAlias = NDArray[np.float32]
"""(n, dim) float32, each row of unit length, all of one space."""

Bits: TypeAlias = NDArray[np.uint8]
"""(n, 32) uint8: 256-bit binary signals, most significant bit first."""

BITS_BYTES = 32
BITS = 8 * BITS_BYTES


class Band(IntEnum):
    """What is done about a hit, weakest first. NONE is the verdict where nothing hit."""

    NONE = 0
    LOG = 1
    REVIEW = 2
    BLOCK = 3


class Modality(StrEnum):
    IMAGE = "image"
    TEXT = "text"


class Signal(StrEnum):
    """The fingerprints that are not vectors; a vector signal is named by its space id."""

    SHA256 = "sha256"
    MD5 = "md5"
    TEXT_SHA256 = "text_sha256"
    PDQ = "pdq"
    MINHASH = "minhash"


DIGESTS: Mapping[Signal, int] = MappingProxyType(
    {Signal.SHA256: 32, Signal.MD5: 16, Signal.TEXT_SHA256: 32}
)
"""Signals matched by equality, with their length in bytes."""

DIGEST_ENTRIES_MAX = 1024
"""Entries of one bank that a look-up of one digest gives at most; more are `truncated`."""

BINARY = (Signal.PDQ, Signal.MINHASH)
"""Signals matched by Hamming distance; `BITS_BYTES` bytes a row."""


@dataclass(frozen=True)
class Space:
    """The identity of an embedding geometry; vectors of two spaces are never compared."""

    model: str
    weights_sha256: str
    preprocessing: str
    dim: int

    @property
    def id(self) -> str:
        """As in `copyclip@1f2e3d4c5b6a/squash128-bilinear/256`."""
        return f"{self.model}@{self.weights_sha256[:12]}/{self.preprocessing}/{self.dim}"


# ---------------------------------------------------------------- content


@dataclass(frozen=True)
class ImageContent:
    """An encoded image file."""

    data: bytes = field(repr=False)


@dataclass(frozen=True)
class TextContent:
    text: str = field(repr=False)


@dataclass(frozen=True)
class VectorContent:
    """Ready vectors: (n, dim) float16 or float32. `space` is an id or an encoder's name."""

    space: str
    vectors: NDArray[np.floating] = field(repr=False)
    modality: Modality | None = None


@dataclass(frozen=True)
class HashContent:
    signal: Signal
    value: bytes


Content: TypeAlias = ImageContent | TextContent | VectorContent | HashContent


class SignalState(Enum):
    SEARCHED = "searched"
    LOW_INFORMATION = "low_information"
    UNAVAILABLE = "unavailable"
    NOT_ASKED = "not_asked"


@dataclass(frozen=True)
class SignalReport:
    """What became of one signal of one content."""

    signal: str
    state: SignalState
    detail: str = ""


@dataclass(frozen=True)
class Fingerprint:
    """All signals of one content or of one entry; rows of one signal stand below each other."""

    digests: Mapping[Signal, tuple[bytes, ...]] = field(default_factory=dict)
    bits: Mapping[Signal, Bits] = field(default_factory=dict)
    vectors: Mapping[str, Vectors] = field(default_factory=dict)

    def rows(self) -> dict[str, int]:
        """Rows by signal name."""
        return (
            {str(s): len(v) for s, v in self.digests.items()}
            | {str(s): len(v) for s, v in self.bits.items()}
            | {s: len(v) for s, v in self.vectors.items()}
        )


# ---------------------------------------------------------------- policy


@dataclass(frozen=True)
class CosineRule:
    """Cosine at or above which a band applies; None: the band is not used."""

    space: str
    query: Modality
    block: float | None = None
    review: float | None = None
    log: float | None = None


@dataclass(frozen=True)
class HammingRule:
    """Hamming distance in bits at or below which a band applies; None: the band is not used."""

    signal: Signal
    block: int | None = None
    review: int | None = None
    log: int | None = None


@dataclass(frozen=True)
class DigestRule:
    """The band of an exact match."""

    signal: Signal
    band: Band


@dataclass(frozen=True)
class Policy:
    """What one bank does about what it matches."""

    cosine: tuple[CosineRule, ...] = ()
    hamming: tuple[HammingRule, ...] = ()
    digests: tuple[DigestRule, ...] = ()
    two_descriptors: bool = False


# ---------------------------------------------------------------- the bank


class BankKind(IntEnum):
    """What a hit of its entries means: stop it, or (ALLOWED) leave it alone."""

    BANNED = 1
    ALLOWED = 2


class FourEyes(IntEnum):
    """Whether edits by which a bank begins or ceases to match wait for a second person."""

    AS_CONFIGURED = 0
    REQUIRED = 1
    OFF = 2


@dataclass(frozen=True)
class Bank:
    id: int
    name: str
    description: str
    policy: Policy
    created_us: int
    version: int
    active_entries: int
    restores: int = 0
    """The version whose settings a revert brought back; 0: they are its own."""
    owner: str = ""
    kind: BankKind = BankKind.BANNED
    archived: bool = False
    """It is asked no more, and takes no edits but the one that brings it back."""
    enabled_ratio: float = 1.0
    """The share of what its entries hit that counts, by a hash of entry and content."""
    four_eyes: FourEyes = FourEyes.AS_CONFIGURED

    @property
    def etag(self) -> str:
        return f"v{self.version}"


@dataclass(frozen=True)
class BankUpdate:
    """What an update sets; None leaves it as it is."""

    description: str | None = None
    policy: Policy | None = None
    owner: str | None = None
    archived: bool | None = None
    enabled_ratio: float | None = None
    four_eyes: FourEyes | None = None


@dataclass(frozen=True)
class Edit:
    """Who edits, and why. `undoes`: the seq of the change that it takes back; 0: of none.
    `proposal`: the one that it belongs to, which `approved_by` approved; empty: it does not
    do yet what was proposed."""

    actor: str
    reason: str
    undoes: int = 0
    approved_by: str = ""
    proposal: int = 0


@dataclass(frozen=True)
class Terms:
    """On what terms somebody edits. `four_eyes`: banks that leave it to the configuration need a
    second person; `edits_per_day`: how many changes a day (UTC) are theirs; 0: any number."""

    four_eyes: bool = False
    edits_per_day: int = 0


FREE = Terms()
"""Only what a bank itself requires."""


class ChangeKind(IntEnum):
    BANK_CREATED = 1
    BANK_UPDATED = 2
    ENTRY_ADDED = 3
    ENTRY_RETRACTED = 4
    ENTRY_EXTENDED = 5
    ENTRY_MOVED = 6
    OPINION_GIVEN = 9
    PROPOSAL_MADE = 7
    PROPOSAL_DECIDED = 8
    BANK_EXPORTED = 10
    """Nothing was changed: entries were taken out."""


@dataclass(frozen=True)
class Change:
    """One record of the ordered log; `entry_key` is 0 for changes of a bank. `undoes`: the seq of
    the change that it takes back; 0: of none. `proposal`: the one that it belongs to; what was done
    by one that was approved says by whom."""

    seq: int
    kind: ChangeKind
    bank_id: int
    entry_key: int
    actor: str
    reason: str
    time_us: int
    undoes: int = 0
    approved_by: str = ""
    proposal: int = 0


class EntryState(IntEnum):
    """What becomes of what an entry matches. A DRAFT is not asked yet, a QUARANTINED entry not for
    now; what a SHADOW entry matches is counted and decides nothing; what a DISPUTED one matches
    is reviewed at most. RETRACTED is for good."""

    ACTIVE = 1
    RETRACTED = 2
    DRAFT = 3
    SHADOW = 4
    QUARANTINED = 5
    DISPUTED = 6


@dataclass(frozen=True)
class Move:
    """A change of an entry's state. `until_us`: when it goes back by itself; 0: never."""

    state: EntryState
    change: Change
    until_us: int = 0


@dataclass(frozen=True)
class Entry:
    """One banned item, without its fingerprint."""

    key: int
    bank_id: int
    state: EntryState
    labels: tuple[str, ...]
    source: str
    source_id: str
    note: str
    signals: Mapping[str, int]
    added: Change
    retracted: Change | None = None
    extended: tuple[Change, ...] = ()
    """The changes that added signals to it later, oldest first."""
    first_state: EntryState = EntryState.ACTIVE
    """The state that it was added in."""
    moves: tuple[Move, ...] = ()
    """The changes of its state since, oldest first; a retraction is not among them."""
    expires_us: int = 0
    """When it retracts itself; 0: never."""
    severity: str = ""
    """In the source's own words."""
    aliases: tuple[str, ...] = ()
    """The source's other ids for it."""
    held: tuple[str, ...] = ()
    """Why it may not be asked before a second person says so; empty: it may."""

    @property
    def last(self) -> Change:
        """The newest change of it."""
        changes = (self.added, *self.extended, *(move.change for move in self.moves))
        return self.retracted or max(changes, key=lambda change: change.seq)

    @property
    def until_us(self) -> int:
        """When it goes back by itself to the state before; 0: never."""
        return self.moves[-1].until_us if self.moves else 0

    def state_at(self, seq: int) -> EntryState:
        """Its state at a log position at which it was there."""
        if self.retracted and self.retracted.seq <= seq:
            return EntryState.RETRACTED
        return self.unretracted_at(seq)

    def unretracted_at(self, seq: int) -> EntryState:
        """The same, were it never retracted."""
        past = [move.state for move in self.moves if move.change.seq <= seq]
        return past[-1] if past else self.first_state


@dataclass(frozen=True)
class EntryDraft:
    """An item to ban: its fingerprint and what is known about it."""

    fingerprint: Fingerprint
    labels: tuple[str, ...] = ()
    source: str = ""
    source_id: str = ""
    note: str = ""
    state: EntryState = EntryState.ACTIVE
    expires_us: int = 0
    severity: str = ""
    aliases: tuple[str, ...] = ()
    held: tuple[str, ...] = ()
    """Why it is to be stored as a DRAFT until a second person says otherwise."""


class ProposalKind(IntEnum):
    """What waits for a second person: entries that are to be moved, one that is to be retracted,
    the settings of a bank, what an import added and its list withdrew, a bank to be taken out."""

    MOVE = 1
    RETRACTION = 2
    BANK_UPDATE = 3
    IMPORT = 4
    EXPORT = 5


class ProposalState(IntEnum):
    OPEN = 1
    APPROVED = 2
    REJECTED = 3
    WITHDRAWN = 4


class Decision(IntEnum):
    """What a second person says (APPROVE, REJECT), or the first (WITHDRAW)."""

    APPROVE = 1
    REJECT = 2
    WITHDRAW = 3


@dataclass(frozen=True)
class Proposal:
    """An edit that waits for a second person, or waited. The entries that it is about stand beside
    it in parts, `parts` of them, for which `digest` vouches; `rows` of them in all."""

    id: int
    bank_id: int
    kind: ProposalKind
    made: Change
    to: EntryState = EntryState.ACTIVE
    """Where entries are to be moved."""
    until_us: int = 0
    update: BankUpdate | None = None
    etag: str = ""
    """Of the bank that the update is for."""
    import_id: str = ""
    held: tuple[str, ...] = ()
    """Why it waits, whatever its bank requires."""
    rows: int = 0
    parts: int = 0
    digest: bytes = b""
    state: ProposalState = ProposalState.OPEN
    decided: Change | None = None
    done: int = 0
    """How many rows of an approved one were dealt with, in their order."""
    done_parts: int = 0
    """How many whole parts that is; what is more, is of the next one."""
    done_in_part: int = 0
    skipped: int = 0
    """Of the rows that were dealt with, those that did not fit any more."""

    @property
    def remaining(self) -> int:
        """Rows of an approved one that are still to be dealt with."""
        return self.rows - self.done if self.state is ProposalState.APPROVED else 0


@dataclass(frozen=True)
class ProposedRows:
    """The entries of one part of a proposal: those to be moved come first."""

    moved: tuple[int, ...] = ()
    retracted: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.moved) + len(self.retracted)


class OpinionKind(IntEnum):
    """What a hit of an entry was, by somebody who looked. WRONG_LABEL: rightly hit, wrongly
    labelled; NOT_HARMFUL_HERE: what was banned, and harmless where it was found."""

    TRUE_POSITIVE = 1
    FALSE_POSITIVE = 2
    WRONG_LABEL = 3
    DUPLICATE = 4
    NOT_HARMFUL_HERE = 5
    OTHER = 6


@dataclass(frozen=True)
class OpinionDraft:
    """What is said of a hit. `content_sha256`: of the content that was hit, 32 bytes or empty;
    `case_id`: in the reviewers' own system."""

    kind: OpinionKind
    note: str = ""
    content_sha256: bytes = b""
    case_id: str = ""


@dataclass(frozen=True)
class Opinion:
    """What somebody said of a hit: `change` says who, when, of which entry and why."""

    said: OpinionDraft
    change: Change

    @property
    def actor(self) -> str:
        return self.change.actor


@dataclass(frozen=True)
class HitCounts:
    """How often an entry was hit, by band. `near`: of these, without an equal digest; `shadow`:
    apart from them, hits that decided nothing. `last_us`: of the newest that counts, 0: none."""

    block: int = 0
    review: int = 0
    log: int = 0
    near: int = 0
    shadow: int = 0
    last_us: int = 0

    @property
    def total(self) -> int:
        return self.block + self.review + self.log

    def __add__(self, other: HitCounts) -> HitCounts:
        return HitCounts(
            self.block + other.block,
            self.review + other.review,
            self.log + other.log,
            self.near + other.near,
            self.shadow + other.shadow,
            max(self.last_us, other.last_us),
        )


class WaitUntil(Enum):
    """What an edit waits for: synced to disk, or also seen by searches."""

    DURABLE = "durable"
    VISIBLE = "visible"


# ---------------------------------------------------------------- the answer


@dataclass(frozen=True)
class Region:
    """A part of a picture, upright, in shares of its width and height: 0 to 1."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        return self.right - self.left

    @property
    def height(self) -> float:
        return self.bottom - self.top


@dataclass(frozen=True)
class Evidence:
    """One signal by which an entry was hit. Exactly one of `cosine`, `hamming` is set, or
    neither for an equal digest. `threshold` is in the same scale; `rows` is how many rows of
    the entry lie within the loosest band of this signal; `region` is the part of the query's
    picture that was nearest, None for the whole. Where `withheld`, this caller is not granted
    scores: measure, threshold and region are None and `rows` is 0, whatever the signal."""

    signal: str
    band: Band
    cosine: float | None = None
    hamming: int | None = None
    threshold: float | None = None
    rows: int = 1
    withheld: bool = False
    region: Region | None = None


@dataclass(frozen=True)
class Hit:
    bank: str
    entry_key: int
    band: Band
    evidence: tuple[Evidence, ...]
    labels: tuple[str, ...] = ()
    source: str = ""
    source_id: str = ""
    capped: bool = False
    bank_etag: str = ""
    """Of the bank whose policy decided."""
    disputed: bool = False
    """The entry is DISPUTED: its band is REVIEW at most."""


@dataclass(frozen=True)
class Suppressed:
    """A hit that does not count, because `by`, of an allow-listed bank, is as near or nearer."""

    hit: Hit
    by: Hit


class Role(StrEnum):
    """What an identity is for; serve/permissions.py says what each may do."""

    INGEST = "ingest"
    ANALYST = "analyst"
    APPROVER = "approver"
    BUILDER = "builder"
    AUDITOR = "auditor"
    ADMIN = "admin"


@dataclass(frozen=True)
class BankAccess:
    """The banks that are there for somebody, by name or with `*` for any characters. Any other is
    for them as if it did not exist."""

    patterns: tuple[str, ...] = ("*",)

    def __contains__(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self.patterns)


EVERY_BANK = BankAccess()


@dataclass(frozen=True)
class MatchOptions:
    """`banks` empty means all of them that lie within `access`. With `stop_at_block`, content that
    is blocked by a digest is asked about no further: the answer is `stopped_early`. `with_shadow`:
    the answer says what shadow entries were hit, too."""

    banks: tuple[str, ...] = ()
    hits_max: int = 10
    with_stage_times: bool = False
    access: BankAccess = EVERY_BANK
    stop_at_block: bool = False
    with_shadow: bool = False


class Lane(IntEnum):
    """Whose work waits for whose: an upload in flight goes before a stocktaking."""

    INTERACTIVE = 0
    BULK = 1


def _always() -> bool:
    return True


@dataclass(frozen=True)
class CallContext:
    """For whom work is done, and how long it is worth anything. `deadline` is on the clock of
    time.monotonic(), in seconds; `is_wanted` turns False for good once the caller has gone."""

    lane: Lane = Lane.INTERACTIVE
    deadline: float = math.inf
    is_wanted: Callable[[], bool] = _always


NO_CALL = CallContext()
"""Work that nobody waits for with a deadline: builds, tests, edits."""


@dataclass(frozen=True)
class MatchResult:
    """The answer about one content. `complete` is False when a signal that an asked bank's
    policy uses could not be computed or searched, or when no asked bank has a rule for a ready hash
    or vector, or when there is no bank: NONE then does not mean "no match". It is False, too, when
    the answer was `stopped_early` at a BLOCK: there may be more hits."""

    verdict: Band
    hits: tuple[Hit, ...]
    truncated: bool
    complete: bool
    signals: tuple[SignalReport, ...]
    snapshot: str
    seq: int
    stage_ms: Mapping[str, float] = field(default_factory=dict)
    stopped_early: bool = False
    shadow: tuple[Hit, ...] = ()
    """Of entries in the shadow: they decide nothing."""
    suppressed: tuple[Suppressed, ...] = ()
    """What allow-listed banks took out of the hits: it decides nothing."""
