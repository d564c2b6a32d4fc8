"""Banks, the terms of an edit, and the changes of the log."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum

from simsearch.types.policy import Policy


class BankKind(IntEnum):
    """Whether the bank lists banned content, or content known to be harmless (ALLOWED)."""

    BANNED = 1
    ALLOWED = 2


class FourEyes(IntEnum):
    """Whether edits that change what a bank matches need the approval of a second person."""

    AS_CONFIGURED = 0
    REQUIRED = 1
    OFF = 2


@dataclass(frozen=True)
class Bank:
    """A named list of entries with its policy; `created_us` is in microseconds since 1970."""

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
    """An archived bank is not searched, and takes no edit but the one that unarchives it."""
    enabled_ratio: float = 1.0
    """The share of its hits that count, chosen by a hash of entry and content."""
    four_eyes: FourEyes = FourEyes.AS_CONFIGURED

    @property
    def etag(self) -> str:
        """The version as a token: an update may demand that it is still current."""
        return f"v{self.version}"


@dataclass(frozen=True)
class BankUpdate:
    """New settings of a bank; None leaves a setting as it is."""

    description: str | None = None
    policy: Policy | None = None
    owner: str | None = None
    archived: bool | None = None
    enabled_ratio: float | None = None
    four_eyes: FourEyes | None = None


@dataclass(frozen=True)
class Edit:
    """Author and reason of an edit. `undoes`: the seq of the change that it reverts; 0: none.
    `proposal`: the id of the proposal that it belongs to; 0: none. `approved_by`: who approved
    that proposal; empty: it is not approved yet."""

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
    """What a change of the log did; the numbers are on disk."""

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
    """Records an export: no entry was changed."""


@dataclass(frozen=True)
class Change:
    """One record of the ordered log; `entry_key` is 0 for changes of a bank. `undoes`: the seq of
    the change that it reverts; 0: none. `proposal`: the id of the proposal that it belongs to; 0:
    none. `approved_by`: who approved that proposal; empty: it needed no approval."""

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
    """When an edit is answered: once it is synced to disk, or once searches see it."""

    DURABLE = "durable"
    VISIBLE = "visible"
