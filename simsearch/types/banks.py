"""Banks, the terms of an edit, and the changes of the log."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum

from simsearch.types.policy import Policy


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
class EditTerms:
    """Constraints on one caller's edits. `four_eyes`: banks that leave it to the configuration need
    a second person; `edits_per_day`: changes a day (UTC); 0: any number."""

    four_eyes: bool = False
    edits_per_day: int = 0


NO_LIMITS = EditTerms()
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


class WaitUntil(Enum):
    """What an edit waits for: synced to disk, or also seen by searches."""

    DURABLE = "durable"
    VISIBLE = "visible"
