"""Entry pages: entries of a bank listed by filter, a page at a time; page sizes and tokens."""

from __future__ import annotations

from typing import Final

from simsearch.bank import entry_search
from simsearch.bank.edit_checks import AFTER_MAX, check_digest
from simsearch.bank.entry_search import EntryFilter
from simsearch.errors import BadRequest, LimitExceeded
from simsearch.serve.auth.identity import Identity
from simsearch.serve.core.hit_counts import hit_counts_of
from simsearch.serve.core.server_core import Core
from simsearch.types import EntryState, Signal
from simsearch.v1 import bank_pb2, content_pb2
from simsearch.wire import entry_to, hits_to, states_from, time_from
from simsearch.wire.contents import hash_signal

PAGE_SIZE_DEFAULT: Final = 100


def list_entries(
    core: Core, request: bank_pb2.ListEntriesRequest, caller: Identity
) -> bank_pb2.ListEntriesResponse:
    """One page of the entries that pass the request's filter, or how many they are."""
    size = page_size(core, request.page_size)
    bank, wanted = core.store.bank(request.bank), _wanted(core, request)
    after_key = page_key(request.page_token)
    limit = entry_search.LOOKED_AT_MAX if request.count_only else size + 1
    with core.store.reading() as reading:
        found = entry_search.search(reading, bank.id, wanted, after_key=after_key, limit=limit)
        if request.count_only:
            return bank_pb2.ListEntriesResponse(
                next_page_token=_token(found.after_key), count=len(found.entries)
            )
        page = found.entries[:size]
        ids = (
            entry_search.content_ids(reading, page)
            if request.with_content_ids
            else [""] * len(page)
        )
    cut = len(found.entries) > size
    hits = hit_counts_of(core.store, core.hits, [entry.key for entry in page])
    return bank_pb2.ListEntriesResponse(
        entries=[
            entry_to(e, bank.name, each, hits_to(hits[e.key]))
            for e, each in zip(page, ids, strict=True)
        ],
        next_page_token=_token(page[-1].key if cut else found.after_key),
        count=len(page),
    )


def page_size(core: Core, asked: int) -> int:
    """The size asked for, or the default. Raises LimitExceeded."""
    size, size_max = asked or PAGE_SIZE_DEFAULT, core.config.limits.page_size_max
    if not 1 <= size <= size_max:
        raise LimitExceeded(f"page_size is {size}: ask for 1 to {size_max}")
    return size


def _wanted(core: Core, request: bank_pb2.ListEntriesRequest) -> EntryFilter:
    """Raises BadRequest, BadHash."""
    return EntryFilter(
        states=_states(request),
        labels=frozenset(request.labels),
        source=request.source,
        source_id=request.source_id,
        actor=request.actor,
        since_us=time_from(request.since),
        until_us=time_from(request.until),
        severity=request.severity,
        changed_since_us=time_from(request.changed_since),
        note_contains=request.note_contains,
        digest=_digest(request.digest) if request.HasField("digest") else None,
    )


def _states(request: bank_pb2.ListEntriesRequest) -> frozenset[EntryState]:
    return states_from((request.state, *request.states))


def _digest(message: content_pb2.Hash) -> tuple[Signal, bytes]:
    signal = hash_signal(message.signal)
    check_digest(signal, message.value)
    return signal, message.value


def page_key(token: str) -> int:
    """The key or number after which a listing continues; 0 without a token. Raises BadRequest."""
    good = token.isascii() and token.isdigit() and len(token) <= 20 and int(token) <= AFTER_MAX
    if token and not good:
        raise _no_token()
    return int(token or 0)


def page_pair(token: str) -> tuple[int, int]:
    """The two numbers of a token with a hyphen between them. Raises BadRequest."""
    one, _, other = token.partition("-")
    if not (one and other):
        raise _no_token()
    return page_key(one), page_key(other)


def _no_token() -> BadRequest:
    return BadRequest("page_token is none of ours: send back next_page_token as it came")


def _token(after_key: int | None) -> str:
    return "" if after_key is None else str(after_key)
