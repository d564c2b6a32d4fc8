"""Edit terms: four-eyes and daily limit of the running call; the proposal of a change."""

from __future__ import annotations

from simsearch.serve.auth.identity import LOCAL, current
from simsearch.serve.core.server_core import Core
from simsearch.types import Change, ChangeKind, EditTerms


def current_terms(core: Core) -> EditTerms:
    """The terms of the running call's caller. With four_eyes = "auto" two persons are needed where
    the server has identities to tell them apart."""
    approval, caller = core.config.approval, current()
    setting = approval.four_eyes
    four_eyes = caller is not LOCAL if setting == "auto" else setting == "on"
    own = caller.edits_per_day
    return EditTerms(four_eyes, approval.edits_per_person_per_day if own is None else own)


def proposal_id_of(change: Change | None) -> int:
    """Id of the proposal that was made instead of the edit; 0 where the change is the edit."""
    return change.proposal if change and change.kind is ChangeKind.PROPOSAL_MADE else 0
