"""A second person over a real port: who may decide, what is held, and what a day allows."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from PIL import Image, ImageFilter

from simsearch.bank.audit import verify
from simsearch.bank.edits import decide
from simsearch.bank.store import BankStore
from simsearch.client import Client
from simsearch.config import ApprovalConfig, BanChecksConfig
from simsearch.errors import (
    BadRequest,
    BankNotFound,
    DailyLimit,
    LimitExceeded,
    NeedsApproval,
    PermissionDenied,
    ProposalClosed,
    ProposalNotFound,
)
from simsearch.types import (
    Band,
    Content,
    Decision,
    Edit,
    EntryState,
    HashContent,
    ImageContent,
    MatchOptions,
    Signal,
    TextContent,
)
from simsearch.v1 import bank_pb2, content_pb2, proposal_pb2
from simsearch.wire import edit_to, item_error_from, time_to
from tests.encode.pictures import landscape, saved
from tests.serve.callers import Callers, Served, guarded
from tests.serve.house import served

SIGNED = Edit("", "a case")
APPROVE, REJECT, WITHDRAW = Decision
AUTO = ApprovalConfig()

Calls = Callable[[str], Client]


def digest(name: str) -> HashContent:
    return HashContent(Signal.SHA256, hashlib.sha256(name.encode()).digest())


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Served]:
    """A server that knows who calls, so that `scams` needs two; `hasty` may edit twice a day."""
    callers = Callers(tmp_path / "identities.toml")
    callers.add("admin", "admin")
    callers.add("ann", "analyst")
    callers.add("bea", "analyst")
    callers.add("bob", "approver")
    callers.add("far", "approver", banks=["elsewhere"], edit_banks=["elsewhere"])
    callers.add("reading", "approver", banks=["scams"], edit_banks=[])
    callers.add("hasty", "analyst", edits_per_day=2)
    with guarded(tmp_path, callers, approval=AUTO) as world:
        with client_of(world, "admin") as admin:
            admin.create_bank("scams", SIGNED)
        yield world


def client_of(world: Served, name: str) -> Client:
    return Client(world.address, token=world.callers.tokens[name], deadline_s=10)


@pytest.fixture
def as_(world: Served) -> Iterator[Calls]:
    with ExitStack() as stack:
        clients: dict[str, Client] = {}

        def get(name: str) -> Client:
            if name not in clients:
                clients[name] = stack.enter_context(client_of(world, name))
            return clients[name]

        yield get


def blocked(client: Client, name: str) -> bool:
    return client.match(digest(name), MatchOptions(("scams",))).verdict is Band.BLOCK


class TestKnownCallers:
    def test_nothing_matches_before_a_second_person_says_so(self, as_: Calls) -> None:
        """And then at once, with both names on it."""
        ann, bob = as_("ann"), as_("bob")
        added = ann.add_entry("scams", [digest("a")], SIGNED)
        key, number = added.entry.key, added.proposal_id
        assert (added.entry.state, number) == (bank_pb2.ENTRY_STATE_DRAFT, 1)
        assert not blocked(bob, "a")
        with pytest.raises(PermissionDenied, match="to decide about a proposal of others"):
            as_("bea").decide_proposal(number, APPROVE, SIGNED)
        with pytest.raises(PermissionDenied, match="needs the role"):
            ann.decide_proposal(number, APPROVE, SIGNED)
        with pytest.raises(PermissionDenied, match="cannot sign as 'bob'"):
            ann.decide_proposal(number, WITHDRAW, Edit("bob", "a case"))
        answer = bob.decide_proposal(number, APPROVE, SIGNED)
        assert (answer.remaining, answer.proposal.state) == (
            0, proposal_pb2.PROPOSAL_STATE_APPROVED,
        )  # fmt: skip
        assert blocked(bob, "a")
        moved = bob.get_entry("scams", key).moves[0].change
        assert (moved.actor, moved.approved_by, moved.proposal) == ("ann", "bob", number)
        page = bob.list_changes(bank_pb2.ListChangesRequest(newest=True, page_size=1))
        assert (page.changes[0].approved_by, page.changes[0].proposal) == ("bob", number)

    def test_an_approver_does_not_approve_alone(self, as_: Calls) -> None:
        """Whatever the role: it is another name that is needed."""
        number = as_("bob").add_entry("scams", [digest("a")], SIGNED).proposal_id
        with pytest.raises(PermissionDenied, match="bob's own"):
            as_("bob").decide_proposal(number, APPROVE, SIGNED)
        as_("admin").decide_proposal(number, APPROVE, SIGNED)
        assert blocked(as_("ann"), "a")

    def test_a_retraction_a_move_and_an_update_wait(self, as_: Calls) -> None:
        """The answer is what there is, and the proposal; a lost answer is asked for again."""
        ann, bob, admin = as_("ann"), as_("bob"), as_("admin")
        added = ann.add_entry("scams", [digest("a")], SIGNED)
        key = added.entry.key
        admin.decide_proposal(added.proposal_id, APPROVE, SIGNED)
        gone = ann.retract_entry("scams", key, SIGNED)
        assert (gone.entry.state, gone.proposal_id) == (bank_pb2.ENTRY_STATE_ACTIVE, 2)
        assert ann.move_entry("scams", key, EntryState.QUARANTINED, SIGNED).proposal_id == 0
        assert ann.move_entry("scams", key, EntryState.ACTIVE, SIGNED).proposal_id == 3
        assert ann.move_entry("scams", key, EntryState.ACTIVE, SIGNED).proposal_id == 3
        off = bank_pb2.UpdateBankRequest(
            name="scams", four_eyes=bank_pb2.FOUR_EYES_OFF, edit=edit_to(SIGNED)
        )
        changed = bob.update_bank(off)
        assert (changed.proposal_id, changed.bank.etag) == (4, "v1")
        assert bob.update_bank(off).bank.four_eyes == bank_pb2.FOUR_EYES_UNSPECIFIED
        with pytest.raises(PermissionDenied):
            bob.decide_proposal(4, APPROVE, SIGNED)
        admin.decide_proposal(4, APPROVE, SIGNED)
        assert admin.get_bank("scams").four_eyes == bank_pb2.FOUR_EYES_OFF
        assert ann.add_entry("scams", [digest("b")], SIGNED).proposal_id == 0
        assert ann.decide_proposal(3, WITHDRAW, SIGNED).proposal.decided.actor == "ann"
        bob.decide_proposal(2, REJECT, SIGNED)
        with pytest.raises(ProposalClosed):
            admin.decide_proposal(2, APPROVE, SIGNED)

    def test_an_update_of_a_bank_that_was_changed_since_is_not_done(self, as_: Calls) -> None:
        for words in ("one", "two"):
            update = bank_pb2.UpdateBankRequest(
                name="scams", description=words, edit=edit_to(SIGNED)
            )
            as_("bob").update_bank(update)
        as_("admin").decide_proposal(2, APPROVE, SIGNED)
        with pytest.raises(ProposalClosed, match="is at v2"):
            as_("admin").decide_proposal(1, APPROVE, SIGNED)

    def test_a_batch_says_of_each_item_what_it_waits_as(self, world: Served, as_: Calls) -> None:
        keys = as_("ann").add_entries("scams", [digest("a"), digest("b")], SIGNED)
        shown = as_("ann").get_proposal(1)
        assert (shown.entries, list(shown.entry_keys)) == (2, keys)

    def test_proposals_of_others_banks_are_not_there(self, as_: Calls) -> None:
        """Listed, shown or decided about: as if there were none."""
        as_("admin").create_bank("elsewhere", SIGNED)
        for bank in ("scams", "elsewhere", "scams"):
            as_("admin").add_entry(bank, [digest(bank)], SIGNED)
        far, everybody = as_("far"), as_("ann")
        assert ids(everybody) == [1, 2, 3]
        assert ids(everybody, bank="scams", page_size=1) == [1, 3]
        assert ids(far) == [2]
        assert ids(everybody, state=proposal_pb2.PROPOSAL_STATE_REJECTED) == []
        with pytest.raises(BankNotFound):
            ids(far, bank="scams")
        with pytest.raises(LimitExceeded):
            ids(far, page_size=-1)
        with pytest.raises(BadRequest, match="page_token is none of ours"):
            ids(far, page_token="9" * 5_000)
        for ask in (
            lambda: far.get_proposal(1),
            lambda: far.get_proposal(9),
            lambda: far.decide_proposal(1, APPROVE, SIGNED),
            lambda: far.decide_proposal(1, APPROVE, SIGNED, bank="elsewhere"),
        ):
            with pytest.raises(ProposalNotFound):
                ask()
        with pytest.raises(PermissionDenied, match="edit_banks"):
            as_("reading").decide_proposal(1, APPROVE, SIGNED)

    def test_nobody_reverts_alone(self, as_: Calls) -> None:
        as_("ann").add_entry("scams", [digest("a")], SIGNED)
        revert = bank_pb2.RevertChangesRequest(
            changes_of="ann", since=time_to(1_000_000), edit=edit_to(SIGNED)
        )
        with pytest.raises(NeedsApproval):
            as_("bob").revert_changes(revert)

    def test_what_nobody_can_compare_is_not_added_to_a_ban_by_one_person(self, as_: Calls) -> None:
        """A ready hash beside what was approved would be a ban of its own."""
        key = as_("ann").add_entry("scams", [digest("a")], SIGNED).entry.key
        with pytest.raises(NeedsApproval, match="cannot be held against what was banned"):
            as_("ann").extend_entry("scams", key, [pdq(128)], SIGNED)

    def test_a_person_has_so_many_edits_a_day(self, as_: Calls) -> None:
        """Of an identity's own number; what it reads is not counted."""
        hasty = as_("hasty")
        for name in "ab":
            hasty.add_entry("scams", [digest(name)], SIGNED)
        with pytest.raises(DailyLimit, match=r"hasty has made 2 of 2 edits today.*00:00 UTC"):
            hasty.add_entry("scams", [digest("c")], SIGNED)
        hasty.list_entries(bank_pb2.ListEntriesRequest(bank="scams"))
        as_("ann").add_entry("scams", [digest("c")], SIGNED)

    def test_a_bank_is_taken_out_by_two(self, as_: Calls) -> None:
        """Asked for by one, approved by another, done by the first, with both names on record; and
        no page is given of an export that nobody began."""
        bob, admin = as_("bob"), as_("admin")
        request = bank_pb2.ExportEntriesRequest(bank="scams", edit=edit_to(SIGNED))
        waiting = bob.export_entries(request)
        number = waiting.proposal_id
        assert number
        assert not waiting.next_page_token
        assert bob.export_entries(request).proposal_id == number  # asked again, it is one
        request.page_token = f"{waiting.seq}-0"
        with pytest.raises(BadRequest, match="none of yours"):
            bob.export_entries(request)
        request.page_token, request.proposal_id = "", number
        with pytest.raises(ProposalClosed, match="has to approve it first"):
            bob.export_entries(request)
        with pytest.raises(PermissionDenied, match="own"):
            bob.decide_proposal(number, APPROVE, SIGNED)
        admin.decide_proposal(number, APPROVE, SIGNED)
        with pytest.raises(PermissionDenied, match="who asked for the export"):
            admin.export_entries(request)
        begun = bob.export_entries(request)
        assert (begun.proposal_id, begun.next_page_token) == (0, "")
        page = bob.list_changes(bank_pb2.ListChangesRequest(newest=True, page_size=1))
        [change] = page.changes
        assert (change.kind, change.seq) == (bank_pb2.CHANGE_KIND_BANK_EXPORTED, begun.seq)
        assert (change.actor, change.approved_by, change.proposal) == ("bob", "admin", number)
        request.proposal_id, request.page_token = 0, f"{begun.seq}-0"
        assert bob.export_entries(request).seq == begun.seq
        with pytest.raises(BadRequest, match="none of yours"):
            admin.export_entries(request)

    def test_an_approval_is_for_what_was_asked(self, as_: Calls) -> None:
        """Of another bank it is none, and no other kind of proposal serves."""
        bob, admin = as_("bob"), as_("admin")
        added = bob.add_entry("scams", [digest("x")], SIGNED)
        request = bank_pb2.ExportEntriesRequest(
            bank="scams", edit=edit_to(SIGNED), proposal_id=added.proposal_id
        )
        with pytest.raises(BadRequest, match="about something else"):
            bob.export_entries(request)
        request.proposal_id = 0
        number = bob.export_entries(request).proposal_id
        admin.decide_proposal(number, APPROVE, SIGNED)
        request.proposal_id = number
        admin.create_bank("others", SIGNED)
        request.bank = "others"
        with pytest.raises(BadRequest, match="about something else"):
            bob.export_entries(request)


def ids(client: Client, **asked: object) -> list[int]:
    request = proposal_pb2.ListProposalsRequest(**asked)  # type: ignore[arg-type]
    found: list[int] = []
    while True:
        page = client.list_proposals(request)
        found += [proposal.id for proposal in page.proposals]
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


# ---------------------------------------------------------------- lists


def part(number: int, names: str, **how: object) -> bank_pb2.ImportEntriesRequest:
    values = b"".join(digest(name).value for name in names)
    about = bank_pb2.ImportItem(entry=bank_pb2.EntryDraft(source="tips"), **how)  # type: ignore[arg-type]
    hashes = bank_pb2.HashRows(
        signal=content_pb2.HASH_SIGNAL_SHA256,
        values=values,
        abouts=[about],
        about_of=[0] * len(names),
    )
    return bank_pb2.ImportEntriesRequest(
        bank="scams", import_id="list", part=number, hashes=hashes, edit=edit_to(ANN)
    )


ANN, BOB = Edit("ann", "monday's list"), Edit("bob", "seen")
ON = ApprovalConfig(four_eyes="on")


def test_a_list_that_is_approved_goes_on_after_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server goes away between two calls; on the same disk the next one goes on, and every
    row is done once. On a server that asks nobody for a name it is the name that is given."""
    monkeypatch.setattr(decide, "ROWS_AT_ONCE", 2)
    with served(tmp_path / "bank", {}, approval=ON) as address, Client(address) as client:
        client.create_bank("scams", ANN)
        assert client.import_entries(part(0, "abc")).proposal_id == 1
        withdrawn = client.import_entries(part(1, "ax", withdrawn=True))
        assert list(withdrawn.outcomes) == [
            bank_pb2.ROW_OUTCOME_HELD, bank_pb2.ROW_OUTCOME_ABSENT,
        ]  # fmt: skip
        assert withdrawn.proposal_id == 1
        assert client.decide_proposal(1, APPROVE, BOB).remaining == 2
        assert [blocked(client, name) for name in "abc"] == [True, True, False]
    with served(tmp_path / "bank", {}, approval=ON) as address, Client(address) as client:
        assert client.get_proposal(1).remaining == 2
        assert client.decide_proposal(1, APPROVE, BOB).remaining == 0
        assert [blocked(client, name) for name in "abc"] == [False, True, True]
        seq = client.status().durable_seq
        assert client.decide_proposal(1, APPROVE, BOB).remaining == 0
        assert client.status().durable_seq == seq
    with BankStore.open(tmp_path / "bank", writer=False) as store, store.reading() as reading:
        assert verify(reading, store.store_id).faults == ()


def test_a_days_edits_are_counted_across_restarts(tmp_path: Path) -> None:
    """By the name that stands on the record."""
    three = ApprovalConfig(edits_per_person_per_day=3)
    with served(tmp_path / "bank", {}, approval=three) as address, Client(address) as client:
        client.create_bank("scams", ANN)
        client.add_entry("scams", [digest("z")], ANN)
    with served(tmp_path / "bank", {}, approval=three) as address, Client(address) as client:
        with pytest.raises(DailyLimit):
            client.import_entries(part(0, "ab"))
        client.import_entries(part(0, "a"))
        with pytest.raises(DailyLimit):
            client.retract_entry("scams", 1, ANN)
        client.retract_entry("scams", 1, BOB)


# ---------------------------------------------------------------- what is held


@pytest.fixture(scope="module")
def holding(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A server that asks nobody for a name, and looks at what it is to ban."""
    path = tmp_path_factory.mktemp("holding") / "bank"
    with served(path, {}, holding=BanChecksConfig()) as address, Client(address) as client:
        client.create_bank("scams", ANN)
        client.create_bank("others", ANN)
        yield client


def pdq(ones: int) -> HashContent:
    return HashContent(Signal.PDQ, ((1 << ones) - 1).to_bytes(32, "big"))


def long_text(name: str) -> TextContent:
    return TextContent(f"send {name} one coin and you will get two of them back by tomorrow night")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (ImageContent(saved(Image.new("RGB", (64, 64), "grey"), "PNG")), "a picture that is blank"),
        (TextContent("free coins!"), "a text of fewer than 4 words: 2"),
        (TextContent("f r e e - C O I N S"), "a text of fewer than 4 words"),
        (HashContent(Signal.SHA256, hashlib.sha256(b"").digest()), "the sha256 of nothing"),
        (HashContent(Signal.MD5, hashlib.md5(b"").digest()), "the md5 of nothing"),
        (pdq(63), "fewer than 64"),
        (pdq(193), "more than 192"),
    ],
    ids=["blank", "short", "disguised", "sha256", "md5", "few bits", "many bits"],
)
def test_what_says_too_little_is_held(holding: Client, content: Content, why: str) -> None:
    """As a draft, with the reason, for another person; whatever the bank requires."""
    added = holding.add_entry("others", [content], ANN, state=EntryState.SHADOW)
    assert (added.entry.state, len(added.held)) == (bank_pb2.ENTRY_STATE_DRAFT, 1)
    assert why in added.held[0]
    shown = holding.get_proposal(added.proposal_id)
    assert (list(shown.held), shown.entry_state) == (list(added.held), bank_pb2.ENTRY_STATE_SHADOW)
    assert holding.move_entry("others", added.entry.key, EntryState.ACTIVE, ANN).proposal_id
    with pytest.raises(PermissionDenied):
        holding.decide_proposal(added.proposal_id, APPROVE, ANN)
    holding.decide_proposal(added.proposal_id, APPROVE, BOB)
    assert holding.get_entry("others", added.entry.key).state == bank_pb2.ENTRY_STATE_SHADOW


def test_what_says_enough_is_banned_at_once(holding: Client) -> None:
    """A photograph, a sentence, in Chinese too, and hashes as they are made."""
    for content in (
        ImageContent(saved(landscape(), "JPEG")),
        long_text("anna"),
        TextContent("今天转账一个硬币明天还你两个"),
        pdq(64),
        pdq(192),
        digest("enough"),
    ):
        added = holding.add_entry("others", [content], ANN)
        assert (added.entry.state, added.proposal_id, list(added.held)) == (
            bank_pb2.ENTRY_STATE_ACTIVE, 0, [],
        )  # fmt: skip


def test_what_the_bank_blocks_already_is_held(holding: Client) -> None:
    """By this very bank; another one may ban it too."""
    key = holding.add_entry("scams", [long_text("bert")], ANN).entry.key
    again = holding.add_entry("scams", [long_text("bert")], ANN)
    assert list(again.held) == [f"entry {key} of this bank blocks it already"]
    assert holding.add_entry("others", [long_text("bert")], ANN).proposal_id == 0


def test_what_shows_a_banned_picture_beside_new_ones_is_new(holding: Client) -> None:
    """It is blocked for a part of it; as a whole, and for its other parts, nobody has banned it."""
    one, other = landscape(3, (300, 260)), landscape(4, (300, 260))
    smooth = ImageFilter.GaussianBlur(2)
    holding.add_entry("scams", [ImageContent(saved(one.filter(smooth), "PNG"))], ANN)
    sheet = Image.new("RGB", (620, 270), "white")
    sheet.paste(one.filter(smooth), (5, 5))
    sheet.paste(other.filter(smooth), (315, 5))
    collage = ImageContent(saved(sheet, "PNG"))
    [hit] = holding.match(collage, MatchOptions(("scams",))).hits
    assert hit.evidence[0].region is not None
    assert list(holding.add_entry("scams", [collage], ANN).held) == []


def test_a_batch_holds_what_says_too_little_and_bans_the_rest(holding: Client) -> None:
    keys = holding.add_entries("others", [digest("in a batch"), pdq(1)], ANN)
    states = [holding.get_entry("others", key).state for key in keys if isinstance(key, int)]
    assert states == [bank_pb2.ENTRY_STATE_ACTIVE, bank_pb2.ENTRY_STATE_DRAFT]


def test_a_row_of_a_list_that_says_nothing_is_refused(holding: Client) -> None:
    """The others are taken; and it can be withdrawn."""
    request = part(0, "pq")
    request.hashes.values = digest("p").value + hashlib.sha256(b"").digest()
    answer = holding.import_entries(request)
    assert list(answer.outcomes) == [bank_pb2.ROW_OUTCOME_ADDED, bank_pb2.ROW_OUTCOME_REFUSED]
    refusal = item_error_from(answer.refused[0].error)
    assert (refusal.reason, answer.refused[0].row) == ("LOW_INFORMATION", 1)
    assert "the sha256 of nothing" in refusal.message
    back = part(1, "pq", withdrawn=True)
    back.hashes.values = request.hashes.values
    assert not holding.import_entries(back).refused


def test_with_the_guard_off_nothing_is_looked_at(tmp_path: Path) -> None:
    with served(tmp_path / "bank", {}) as address, Client(address) as client:
        client.create_bank("scams", ANN)
        assert client.add_entry("scams", [TextContent("hi")], ANN).proposal_id == 0
