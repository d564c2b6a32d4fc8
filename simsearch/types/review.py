"""Proposals, decisions and opinions."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from simsearch.types.banks import BankUpdate, Change
from simsearch.types.entries import EntryState


class ProposalKind(IntEnum):
    """The edit that waits for a second person: moving entries, retracting one, new settings of a
    bank, the rows of an import, or an export. The numbers are on disk."""

    MOVE = 1
    RETRACTION = 2
    BANK_UPDATE = 3
    IMPORT = 4
    EXPORT = 5


class ProposalState(IntEnum):
    """Where a proposal stands; the numbers are on disk."""

    OPEN = 1
    APPROVED = 2
    REJECTED = 3
    WITHDRAWN = 4


class Decision(IntEnum):
    """The decision of a second person (APPROVE, REJECT) or of the proposer (WITHDRAW)."""

    APPROVE = 1
    REJECT = 2
    WITHDRAW = 3


@dataclass(frozen=True)
class Proposal:
    """An edit that needs, or needed, the approval of a second person. Its `rows` entries are stored
    beside it in `parts` parts (`ProposedRows`); `digest` is a hash chain over them."""

    id: int
    bank_id: int
    kind: ProposalKind
    made: Change
    to: EntryState = EntryState.ACTIVE
    """The new state of its entries."""
    until_us: int = 0
    update: BankUpdate | None = None
    etag: str = ""
    """Version of the bank that the update is for."""
    import_id: str = ""
    review_reasons: tuple[str, ...] = ()
    """Why it needs approval whatever its bank requires; empty: the bank requires it."""
    rows: int = 0
    parts: int = 0
    digest: bytes = b""
    state: ProposalState = ProposalState.OPEN
    decided: Change | None = None
    done: int = 0
    """Rows processed since its approval, in order."""
    done_parts: int = 0
    """Whole parts processed."""
    done_in_part: int = 0
    """Rows processed of the part after those."""
    skipped: int = 0
    """Processed rows that were left as they are, because the entry had changed meanwhile."""

    @property
    def remaining(self) -> int:
        """Rows still to be processed; 0 unless it is approved."""
        return self.rows - self.done if self.state is ProposalState.APPROVED else 0


@dataclass(frozen=True)
class ProposedRows:
    """The entry keys of one part of a proposal; those to be moved are processed first."""

    moved: tuple[int, ...] = ()
    retracted: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.moved) + len(self.retracted)


class OpinionKind(IntEnum):
    """A reviewer's judgement of a hit. WRONG_LABEL: a right hit of a wrongly labelled entry;
    NOT_HARMFUL_HERE: the banned item, harmless in its context. The numbers are on disk."""

    TRUE_POSITIVE = 1
    FALSE_POSITIVE = 2
    WRONG_LABEL = 3
    DUPLICATE = 4
    NOT_HARMFUL_HERE = 5
    OTHER = 6


@dataclass(frozen=True)
class OpinionDraft:
    """An opinion on a hit, as submitted. `content_sha256`: of the content that was hit, 32 bytes
    or empty; `case_id`: in the reviewers' own system."""

    kind: OpinionKind
    note: str = ""
    content_sha256: bytes = b""
    case_id: str = ""


@dataclass(frozen=True)
class Opinion:
    """A recorded opinion: `change` holds its author, time, entry and reason."""

    draft: OpinionDraft
    change: Change

    @property
    def actor(self) -> str:
        """The identity that gave it."""
        return self.change.actor
