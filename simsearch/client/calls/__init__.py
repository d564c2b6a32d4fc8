"""Calls: what each method of the clients sends, and how its reply is read.

A function makes a `CallSpec` of a caller's arguments and touches no network; `Client` and
`AsyncClient` have one method for each, of the same name, which differ in how they wait. Matches and
policies come back as `simsearch.types`, all else as the messages of `simsearch.v1`.
"""

from simsearch.client.calls.bank_calls import (
    create_bank,
    get_bank,
    list_banks,
    update_bank,
)
from simsearch.client.calls.call_spec import CallSpec
from simsearch.client.calls.entry_calls import (
    add_entries,
    add_entry,
    compare_entries,
    export_entries,
    extend_entry,
    find_entries,
    get_entry,
    import_entries,
    list_entries,
    move_entry,
    retract_entry,
)
from simsearch.client.calls.match_calls import (
    Outcome,
    match,
    match_batch,
    match_hash,
    match_image,
    match_text,
    match_vector,
)
from simsearch.client.calls.review_calls import (
    decide_proposal,
    get_change,
    get_proposal,
    give_opinion,
    list_changes,
    list_opinions,
    list_proposals,
    list_review,
    log_head,
    revert_changes,
)
from simsearch.client.calls.server_calls import (
    default_policy,
    is_serving,
    status,
)

__all__ = [
    "CallSpec",
    "Outcome",
    "add_entries",
    "add_entry",
    "compare_entries",
    "create_bank",
    "decide_proposal",
    "default_policy",
    "export_entries",
    "extend_entry",
    "find_entries",
    "get_bank",
    "get_change",
    "get_entry",
    "get_proposal",
    "give_opinion",
    "import_entries",
    "is_serving",
    "list_banks",
    "list_changes",
    "list_entries",
    "list_opinions",
    "list_proposals",
    "list_review",
    "log_head",
    "match",
    "match_batch",
    "match_hash",
    "match_image",
    "match_text",
    "match_vector",
    "move_entry",
    "retract_entry",
    "revert_changes",
    "status",
    "update_bank",
]
