"""Bank calls: making, reading and changing banks."""

from __future__ import annotations

from operator import attrgetter

from simsearch.client.calls.call_spec import CallSpec, whole
from simsearch.client.calls.rpcs import CREATE_BANK, GET_BANK, LIST_BANKS, UPDATE_BANK
from simsearch.types import BankKind, Edit, FourEyes, Policy
from simsearch.v1 import (
    bank_pb2,
)
from simsearch.wire import (
    edit_to,
    policy_to,
)


def create_bank(
    name: str,
    edit: Edit,
    *,
    description: str = "",
    policy: Policy | None = None,
    kind: BankKind = BankKind.BANNED,
    owner: str = "",
    enabled_ratio: float | None = None,
    four_eyes: FourEyes = FourEyes.AS_CONFIGURED,
    deadline_s: float | None = None,
) -> CallSpec[bank_pb2.Bank]:
    """A new bank; without a policy it gets the server's default one."""
    request = bank_pb2.CreateBankRequest(
        name=name,
        description=description,
        policy=policy_to(policy) if policy else None,
        kind=int(kind),  # type: ignore[arg-type]
        owner=owner,
        enabled_ratio=enabled_ratio,
        four_eyes=int(four_eyes),  # type: ignore[arg-type]
        edit=edit_to(edit),
    )
    return CallSpec(CREATE_BANK, request, attrgetter("bank"), deadline_s)


def get_bank(name: str, *, deadline_s: float | None = None) -> CallSpec[bank_pb2.Bank]:
    """A bank with its policy and its etag."""
    return CallSpec(GET_BANK, bank_pb2.GetBankRequest(name=name), attrgetter("bank"), deadline_s)


def list_banks(*, deadline_s: float | None = None) -> CallSpec[list[bank_pb2.Bank]]:
    """All banks."""
    return CallSpec(LIST_BANKS, bank_pb2.ListBanksRequest(), _listed, deadline_s)


def _listed(reply: bank_pb2.ListBanksResponse) -> list[bank_pb2.Bank]:
    return list(reply.banks)


def update_bank(
    request: bank_pb2.UpdateBankRequest, *, deadline_s: float | None = None
) -> CallSpec[bank_pb2.UpdateBankResponse]:
    """Replace settings or the policy. Raises BankChanged for an etag of before. Where the change
    waits for a second person, the answer has the bank as it was and the `proposal_id`."""
    return CallSpec(UPDATE_BANK, request, whole, deadline_s)
