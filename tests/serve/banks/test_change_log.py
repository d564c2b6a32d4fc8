"""The record of edits over a real port: who may read what of it, and who may take edits back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from simsearch.client import Client
from simsearch.errors import BadRequest, BankNotFound, LimitExceeded, PermissionDenied
from simsearch.types import Edit, HashContent, Signal
from simsearch.v1 import bank_pb2
from simsearch.wire import edit_to
from tests.serve.callers import Callers, Served, guarded

SIGNED = Edit("", "a test")
BACK = bank_pb2.Edit(reason="not to be trusted")
EVER = Timestamp(seconds=1)
HASH = HashContent(Signal.PDQ, b"\x96" * 32)

Calls = Callable[[str], Client]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Served]:
    """`ann` edited the banks `scams` and `secret`; half a caller is let into the first alone."""
    callers = Callers(tmp_path / "identities.toml")
    callers.add("admin", "admin")
    callers.add("ann", "analyst")
    callers.add("auditor", "auditor", edit_banks=[])
    callers.add("half-auditor", "auditor", banks=["scams"], edit_banks=[])
    callers.add("half-approver", "approver", banks=["secret"], edit_banks=["scams"])
    with guarded(tmp_path, callers) as served:
        with connected(served, "admin") as admin, connected(served, "ann") as ann:
            for bank in ("scams", "secret"):
                admin.create_bank(bank, SIGNED)
                ann.add_entry(bank, [HASH], SIGNED)
                ann.retract_entry(bank, ann.add_entry(bank, [HASH], SIGNED).entry.key, SIGNED)
        yield served


def connected(served: Served, name: str) -> Client:
    return Client(served.address, token=served.callers.tokens[name], deadline_s=10)


@pytest.fixture
def as_(world: Served) -> Iterator[Calls]:
    clients: dict[str, Client] = {}

    def get(name: str) -> Client:
        return clients.setdefault(name, connected(world, name))

    yield get
    for each in clients.values():
        each.close()


def changes(client: Client, **asked: object) -> list[bank_pb2.LoggedChange]:
    """Of every page, in the order in which they come."""
    request = bank_pb2.ListChangesRequest(**asked)  # type: ignore[arg-type]
    found: list[bank_pb2.LoggedChange] = []
    while True:
        page = client.list_changes(request)
        found += page.changes
        if not page.more:
            return found
        request.after_seq, request.before_seq = page.next_after_seq, page.next_before_seq


def seqs(client: Client, **asked: object) -> list[int]:
    return [change.seq for change in changes(client, **asked)]


def undo(client: Client, **asked: object) -> bank_pb2.RevertChangesResponse:
    given: dict[str, object] = {"changes_of": "ann", "since": EVER, "edit": BACK} | asked
    return client.revert_changes(bank_pb2.RevertChangesRequest(**given))  # type: ignore[arg-type]


def test_the_record_is_listed_the_newest_last(as_: Calls) -> None:
    """With who, what, when and why, and the links that a head is one of."""
    found = changes(as_("auditor"))
    assert [change.seq for change in found] == list(range(1, 9))
    first, second, *_, last = found
    assert (first.kind, first.bank, first.entry_key) == (
        bank_pb2.CHANGE_KIND_BANK_CREATED, "scams", 0,
    )  # fmt: skip
    assert (second.actor, second.reason, second.entry_key) == ("ann", "a test", 1)
    assert second.time.seconds > 1
    head = as_("auditor").log_head()
    assert (head.seq, head.link) == (last.seq, last.link)
    assert len({change.link for change in found}) == 8


@pytest.mark.parametrize("newest", [True, False])
def test_pages_hold_every_change_once(as_: Calls, newest: bool) -> None:
    assert sorted(seqs(as_("auditor"), page_size=3, newest=newest)) == list(range(1, 9))
    page = as_("auditor").list_changes(bank_pb2.ListChangesRequest(page_size=3, newest=newest))
    assert [c.seq for c in page.changes] == ([6, 7, 8] if newest else [1, 2, 3])


def test_changes_are_chosen_by_bank_name_time_and_entry(as_: Calls) -> None:
    auditor = as_("auditor")
    times = {change.seq: change.time for change in changes(auditor)}
    assert seqs(auditor, bank="secret") == [5, 6, 7, 8]
    assert seqs(auditor, actor="admin") == [1, 5]
    assert seqs(auditor, entry_key=2) == [3, 4]
    assert seqs(auditor, since=times[4]) == [4, 5, 6, 7, 8]
    assert seqs(auditor, until=times[4]) == [1, 2, 3]
    assert seqs(auditor, after_seq=2, before_seq=5) == [3, 4]
    assert seqs(auditor, actor="nobody") == []


def test_who_may_read_some_banks_sees_the_changes_of_those(as_: Calls) -> None:
    assert seqs(as_("half-auditor")) == [1, 2, 3, 4]
    with pytest.raises(BankNotFound):
        seqs(as_("half-auditor"), bank="secret")


def test_numbers_that_cannot_be_are_refused(as_: Calls) -> None:
    for asked, refusal in (
        ({"page_size": -1}, LimitExceeded),
        ({"page_size": 10**6}, LimitExceeded),
        ({"after_seq": 2**64 - 1}, BadRequest),
        ({"before_seq": 2**64 - 1}, BadRequest),
    ):
        with pytest.raises(refusal):
            seqs(as_("auditor"), **asked)


# ---------------------------------------------------------------- taken back


def test_what_ann_did_is_undone_by_the_caller(as_: Calls) -> None:
    """Signed with the caller's name; done again, nothing changes; and searches see it."""
    done = undo(as_("admin"))
    outcomes = [(each.change.seq, each.outcome) for each in done.changes]
    undone, skipped = bank_pb2.REVERT_OUTCOME_UNDONE, bank_pb2.REVERT_OUTCOME_SKIPPED
    assert outcomes == [
        (8, skipped), (7, skipped), (6, undone), (4, skipped), (3, skipped), (2, undone),
    ]  # fmt: skip
    assert not as_("admin").match(HASH).hits
    new = changes(as_("auditor"), after_seq=8)
    assert [(c.actor, c.reason, c.undoes) for c in new] == [
        ("admin", BACK.reason, 6), ("admin", BACK.reason, 2),
    ]  # fmt: skip
    assert done.seq == new[-1].seq == done.changes[-1].seq
    assert undo(as_("admin")).seq == 0


def test_a_dry_run_names_no_numbers_of_changes_that_are_not(as_: Calls) -> None:
    before = as_("auditor").log_head()
    done = undo(as_("admin"), dry_run=True)
    assert {each.seq for each in done.changes} == {0} == {done.seq}
    assert as_("auditor").log_head() == before


def test_who_may_edit_some_banks_takes_back_in_those(as_: Calls) -> None:
    """To read is not to edit; of the other banks' changes nothing is said."""
    done = undo(as_("half-approver"))
    assert {each.change.bank for each in done.changes} == {"scams"}
    with pytest.raises(PermissionDenied):
        undo(as_("half-approver"), bank="secret")
    assert as_("admin").get_bank("secret").active_entries == 1


def test_nobody_takes_back_as_another_or_without_saying_what(as_: Calls) -> None:
    before = as_("auditor").log_head()
    with pytest.raises(PermissionDenied):
        undo(as_("admin"), edit=edit_to(Edit("ann", "why")))
    with pytest.raises(BadRequest):
        undo(as_("admin"), edit=edit_to(Edit("", "")))
    with pytest.raises(BadRequest):
        undo(as_("admin"), since=None)
    with pytest.raises(BadRequest):
        undo(as_("admin"), changes_of="")
    with pytest.raises(BankNotFound):
        undo(as_("admin"), bank="absent")
    assert as_("auditor").log_head() == before


def test_many_changes_are_undone_part_by_part(as_: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part says where the next begins, also where it was cut short."""
    monkeypatch.setattr("simsearch.serve.banks.change_log.CHANGES_AT_ONCE", 4)
    monkeypatch.setattr("simsearch.bank.edits.revert.CHANGES_AT_ONCE", 3)
    seen: list[int] = []
    before_seq = 0
    while True:
        part = undo(as_("admin"), before_seq=before_seq)
        assert len(part.changes) <= 3
        seen += [each.change.seq for each in part.changes]
        before_seq = part.next_before_seq
        if not before_seq:
            break
    assert seen == [8, 7, 6, 4, 3, 2]
