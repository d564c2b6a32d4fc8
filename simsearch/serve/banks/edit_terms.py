"""On what terms the caller edits, and what is said of an edit that waits for a second person."""

from __future__ import annotations

from simsearch.serve.auth.identity import LOCAL, current
from simsearch.serve.core.server_core import Core
from simsearch.types import Change, ChangeKind, Terms


def terms_of(core: Core) -> Terms:
    """Of the running call. Unless the configuration says otherwise, two persons are needed where
    the server can tell one from another."""
    approval, caller = core.config.approval, current()
    said = approval.four_eyes
    four_eyes = caller is not LOCAL if said == "auto" else said == "on"
    own = caller.edits_per_day
    return Terms(four_eyes, approval.edits_per_person_per_day if own is None else own)


def waits_as(change: Change | None) -> int:
    """The proposal that a change made instead of the edit; 0: it is the edit."""
    return change.proposal if change and change.kind is ChangeKind.PROPOSAL_MADE else 0
