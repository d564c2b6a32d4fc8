"""What an entry's state makes of its hits, through a real server."""

from __future__ import annotations

import time

import pytest

from simsearch.client import Client
from simsearch.errors import BadRequest
from simsearch.types import Band, EntryState, HashContent, MatchOptions, Signal, TextContent
from tests.serve.conftest import EDIT

HASH = HashContent(Signal.SHA256, b"life" * 8)
SHOWN = MatchOptions(with_shadow=True)


def test_what_counts_and_what_is_only_counted(client: Client, bank: str) -> None:
    """Draft, shadow, active, quarantined, active: one hash, asked after each edit."""
    key = client.add_entry(bank, [HASH], EDIT, state=EntryState.DRAFT, severity="A1").entry.key
    asked = MatchOptions((bank,), with_shadow=True)

    def seen() -> tuple[Band, int, int]:
        result = client.match(HASH, asked)
        return result.verdict, len(result.hits), len(result.shadow)

    assert seen() == (Band.NONE, 0, 0)
    for state, expected in (
        (EntryState.SHADOW, (Band.NONE, 0, 1)),
        (EntryState.ACTIVE, (Band.BLOCK, 1, 0)),
        (EntryState.QUARANTINED, (Band.NONE, 0, 0)),
        (EntryState.SHADOW, (Band.NONE, 0, 1)),
    ):
        moved = client.move_entry(bank, key, state, EDIT)
        assert moved.seq > 0
        assert seen() == expected
        assert client.move_entry(bank, key, state, EDIT).seq == 0
    shown = client.match(HASH, asked).shadow[0]
    assert (shown.bank, shown.entry_key, shown.band) == (bank, key, Band.BLOCK)
    assert client.match(HASH, MatchOptions((bank,))).shadow == ()
    assert client.get_entry(bank, key).severity == "A1"


def test_a_text_that_was_asked_before_is_answered_anew(client: Client, bank: str) -> None:
    """What is remembered of it belongs to the state of then."""
    text = TextContent("two coins for one, send it to the usual place before the night is over")
    key = client.add_entry(bank, [text], EDIT).entry.key
    options = MatchOptions((bank,))
    for state, verdict in (
        (EntryState.ACTIVE, Band.BLOCK),
        (EntryState.SHADOW, Band.NONE),
        (EntryState.ACTIVE, Band.BLOCK),
    ):
        client.move_entry(bank, key, state, EDIT)
        for _ in range(2):
            assert client.match(text, options).verdict is verdict
            assert client.match(text, MatchOptions((bank,), stop_at_block=True)).verdict is verdict


def test_one_in_the_shadow_hides_none_that_counts(client: Client, bank: str) -> None:
    """Nor does it take its place among the hits that are returned."""
    keys = [
        client.add_entry(bank, [HASH], EDIT, state=state).entry.key
        for state in (EntryState.SHADOW, EntryState.SHADOW, EntryState.ACTIVE)
    ]
    result = client.match(HASH, MatchOptions((bank,), hits_max=1, with_shadow=True))
    assert [hit.entry_key for hit in result.hits] == keys[2:]
    assert [hit.entry_key for hit in result.shadow] == keys[:1]
    assert not result.truncated


def test_a_quarantine_and_a_ban_end_by_themselves(client: Client, bank: str) -> None:
    soon_us = int((time.time() + 1.5) * 1e6)
    key = client.add_entry(bank, [HASH], EDIT).entry.key
    client.move_entry(bank, key, EntryState.QUARANTINED, EDIT, until_us=soon_us)
    other = client.add_entry(bank, [HASH], EDIT, expires_us=soon_us).entry.key
    asked = MatchOptions((bank,))
    assert [h.entry_key for h in client.match(HASH, asked).hits] == [other]
    deadline = time.monotonic() + 20
    while [h.entry_key for h in client.match(HASH, asked).hits] != [key]:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    last = client.get_entry(bank, key).moves[-1].change
    assert (last.actor, last.reason) == ("simsearch", "it was quarantined until now")


def test_a_move_without_a_state_is_refused(client: Client, bank: str) -> None:
    key = client.add_entry(bank, [HASH], EDIT).entry.key
    with pytest.raises(BadRequest, match="cannot be made draft"):
        client.move_entry(bank, key, EntryState.DRAFT, EDIT)
