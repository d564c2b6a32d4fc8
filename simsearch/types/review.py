"""Proposals, decisions and opinions."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from simsearch.types.banks import BankUpdate, Change
from simsearch.types.entries import EntryState


class ProposalKind(IntEnum):
    """What waits for a second person: entries that are to be moved, one that is to be retracted,
    the settings of a bank, what an import added and its list withdrew, a bank to be taken out."""

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
    review_reasons: tuple[str, ...] = ()
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

    draft: OpinionDraft
    change: Change

    @property
    def actor(self) -> str:
        """The identity that gave it."""
        return self.change.actor
