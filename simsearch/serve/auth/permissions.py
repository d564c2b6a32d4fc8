"""Permission table: the roles that may call each RPC, and the request fields that are checked.

Deny by default: an RPC without a row is refused to every caller, and fails the tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from simsearch.types import Role


@dataclass(frozen=True)
class Rule:
    """One row. `roles` None: open, also without authentication. `bank` is the request's field that
    names a bank; `edits`: that bank is edited, and the edit is signed with the caller's name. A
    request costs as many items as its repeated field `items` has, or 1."""

    roles: frozenset[Role] | None
    bank: str = ""
    edits: bool = False
    items: str = ""
    any_bank: bool = False
    """A request without a bank is about all banks that the caller may read, which the service
    determines."""


_MATCHERS = frozenset({Role.INGEST, Role.ANALYST, Role.APPROVER, Role.ADMIN})
_EDITORS = frozenset({Role.ANALYST, Role.APPROVER, Role.ADMIN})
_POLICY_MAKERS = frozenset({Role.APPROVER, Role.ADMIN})
_ENTRY_READERS = frozenset({Role.ANALYST, Role.APPROVER, Role.AUDITOR, Role.ADMIN})
_AUDITORS = frozenset({Role.AUDITOR, Role.APPROVER, Role.ADMIN})
_BANK_READERS = _ENTRY_READERS | {Role.BUILDER}
_EVERY_ROLE = frozenset(Role)

_MATCH = "/simsearch.v1.MatchService"
_BANK = "/simsearch.v1.BankService"
_FEEDBACK = "/simsearch.v1.FeedbackService"
_PROPOSAL = "/simsearch.v1.ProposalService"
_INDEX = "/simsearch.v1.IndexService"
_HEALTH = "/grpc.health.v1.Health"
_REFLECTION = "/grpc.reflection.v1alpha.ServerReflection"

PERMISSIONS: Mapping[str, Rule] = MappingProxyType(
    {
        f"{_MATCH}/Match": Rule(_MATCHERS),
        f"{_MATCH}/BatchMatch": Rule(_MATCHERS, items="contents"),
        f"{_MATCH}/StreamMatch": Rule(_MATCHERS, items="items"),
        f"{_BANK}/CreateBank": Rule(_POLICY_MAKERS, bank="name", edits=True),
        f"{_BANK}/GetBank": Rule(_BANK_READERS, bank="name"),
        f"{_BANK}/ListBanks": Rule(_BANK_READERS),
        f"{_BANK}/UpdateBank": Rule(_POLICY_MAKERS, bank="name", edits=True),
        f"{_BANK}/AddEntry": Rule(_EDITORS, bank="bank", edits=True),
        f"{_BANK}/BatchAddEntries": Rule(_EDITORS, bank="bank", edits=True, items="entries"),
        f"{_BANK}/ImportEntries": Rule(_EDITORS, bank="bank", edits=True, items="items"),
        f"{_BANK}/GetEntry": Rule(_ENTRY_READERS, bank="bank"),
        f"{_BANK}/ListEntries": Rule(_ENTRY_READERS, bank="bank"),
        # The service checks the banks that it names.
        f"{_BANK}/FindEntries": Rule(_ENTRY_READERS),
        f"{_BANK}/CompareEntries": Rule(_ENTRY_READERS, bank="bank"),
        f"{_BANK}/ExtendEntry": Rule(_EDITORS, bank="bank", edits=True),
        f"{_BANK}/MoveEntry": Rule(_EDITORS, bank="bank", edits=True),
        f"{_BANK}/RetractEntry": Rule(_EDITORS, bank="bank", edits=True),
        f"{_BANK}/ExportEntries": Rule(_POLICY_MAKERS, bank="bank", edits=True),
        f"{_BANK}/ListChanges": Rule(_AUDITORS, bank="bank", any_bank=True),
        f"{_BANK}/GetChange": Rule(_AUDITORS),
        f"{_BANK}/GetLogHead": Rule(_AUDITORS),
        f"{_BANK}/RevertChanges": Rule(_POLICY_MAKERS, bank="bank", edits=True, any_bank=True),
        f"{_FEEDBACK}/GiveOpinion": Rule(_EDITORS, bank="bank", edits=True),
        f"{_FEEDBACK}/ListOpinions": Rule(_ENTRY_READERS, bank="bank"),
        f"{_FEEDBACK}/ListReview": Rule(_ENTRY_READERS, bank="bank", any_bank=True),
        f"{_PROPOSAL}/ListProposals": Rule(_ENTRY_READERS, bank="bank", any_bank=True),
        f"{_PROPOSAL}/GetProposal": Rule(_ENTRY_READERS),
        # Every editor may withdraw their own; the service checks decisions about those of others.
        f"{_PROPOSAL}/DecideProposal": Rule(_EDITORS, bank="bank", edits=True, any_bank=True),
        f"{_INDEX}/GetStatus": Rule(_EVERY_ROLE),
        # Probes have no identity, and whether a server is up is no secret.
        f"{_HEALTH}/Check": Rule(None),
        f"{_HEALTH}/Watch": Rule(None),
        f"{_HEALTH}/List": Rule(None),
        f"{_REFLECTION}/ServerReflectionInfo": Rule(_EVERY_ROLE),
    }
)


def rule_of(method: str) -> Rule:
    """The row of an RPC, "/package.Service/Method"; without a row, one that no role meets."""
    return PERMISSIONS.get(method, Rule(frozenset()))
