"""Wire mapping between the protos of simsearch.v1 and the domain types, without a network.

`x_to` makes a message of a domain value; `x_from` reads one.
"""

from simsearch.wire.banks import (
    bank_kind_from,
    bank_to,
    change_to,
    edit_from,
    edit_to,
    entry_to,
    four_eyes_from,
    kinds_from,
    logged_change_to,
    signals_to,
    state_from,
    states_from,
    time_from,
    time_to,
    wait_from,
    wait_to,
)
from simsearch.wire.contents import content_from, content_to, contents_from
from simsearch.wire.enums import HASH_SIGNAL_NUMBERS, HASH_SIGNALS
from simsearch.wire.error_details import error_from, item_error_from, reason_number
from simsearch.wire.feedback import (
    OPINION_KIND_NUMBERS,
    hits_to,
    opinion_from,
    opinion_kind_from,
    opinion_to,
)
from simsearch.wire.policies import policy_from, policy_to
from simsearch.wire.proposals import (
    decision_from,
    decision_to,
    proposal_state_from,
    proposal_to,
)
from simsearch.wire.results import (
    evidence_to,
    options_from,
    options_to,
    report_to,
    result_from,
    result_to,
)

__all__ = [
    "HASH_SIGNALS",
    "HASH_SIGNAL_NUMBERS",
    "OPINION_KIND_NUMBERS",
    "bank_kind_from",
    "bank_to",
    "change_to",
    "content_from",
    "content_to",
    "contents_from",
    "decision_from",
    "decision_to",
    "edit_from",
    "edit_to",
    "entry_to",
    "error_from",
    "evidence_to",
    "four_eyes_from",
    "hits_to",
    "item_error_from",
    "kinds_from",
    "logged_change_to",
    "opinion_from",
    "opinion_kind_from",
    "opinion_to",
    "options_from",
    "options_to",
    "policy_from",
    "policy_to",
    "proposal_state_from",
    "proposal_to",
    "reason_number",
    "report_to",
    "result_from",
    "result_to",
    "signals_to",
    "state_from",
    "states_from",
    "time_from",
    "time_to",
    "wait_from",
    "wait_to",
]
