"""Who calls: tokens, certificates, the file that says who is who, and what is taken up of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from simsearch.config import CallerConfig
from simsearch.errors import BadConfig, Unauthenticated
from simsearch.serve.auth.identities_file import (
    Identities,
    certificate_names,
    identify,
    load_identities,
)
from simsearch.serve.auth.identity import LOCAL, Identity, current
from simsearch.serve.auth.tokens import id_of, new_token, read_record, record_of
from simsearch.serve.transport.reloading_files import FileReloader, ReloadCounts
from simsearch.types import EVERY_BANK, BankAccess, Role

TLS = {"transport_security_type": [b"ssl"]}
CLEAR = {"transport_security_type": [b"insecure"]}


def caller(**changes: Any) -> CallerConfig:
    given: dict[str, Any] = {"roles": ("ingest",), "banks": ("*",), **changes}
    if not given.keys() & {"tokens", "certificates"}:
        given["certificates"] = ("CN:nobody-in-particular",)
    return CallerConfig(**given)


def directory(**callers: CallerConfig) -> Identities:
    return Identities.of(callers, "here")


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


def refusal_of(callers: dict[str, CallerConfig]) -> str:
    with pytest.raises(BadConfig) as refusal:
        Identities.of(callers, "here")
    return refusal.value.message


# ---------------------------------------------------------------- tokens


def test_a_token_is_recognised_by_its_record_alone() -> None:
    """The record has the id and a salted hash: neither the token nor its secret."""
    token = new_token()
    record = read_record(str(record_of(token)))
    assert record.matches(token)
    assert record.id == id_of(token)
    assert token.rpartition("_")[2] not in str(record)


def test_two_records_of_one_token_differ() -> None:
    """The salt: equal hashes would tell that two servers know the same token."""
    token = new_token()
    assert record_of(token).digest != record_of(token).digest


def test_no_other_token_matches() -> None:
    """One character more, less or other is another token."""
    token = new_token()
    record = record_of(token)
    changed = token[:-1] + ("a" if token[-1] != "a" else "b")
    assert not any(record.matches(t) for t in (changed, token + "a", token[:-1], "", new_token()))


@pytest.mark.parametrize("text", ["", "hunter2", "sst_", new_token().upper(), new_token() + " "])
def test_what_is_no_token_has_no_id(text: str) -> None:
    """Only the published form is looked up at all."""
    assert id_of(text) is None


def test_a_token_in_the_file_is_refused_and_not_repeated() -> None:
    """Who pastes the token itself is told so, in words that do not spread it further."""
    token = new_token()
    words = refusal_of({"x": caller(tokens=(token,))})
    assert "identities.x" in words
    assert "never write the token itself" in words
    assert token not in words


# ---------------------------------------------------------------- who is who


def test_a_token_proves_its_identity() -> None:
    """Whatever the case of the scheme; and no other identity's."""
    mine, theirs = new_token(), new_token()
    known = directory(
        me=caller(tokens=(str(record_of(mine)),)), them=caller(tokens=(str(record_of(theirs)),))
    )
    assert identify(known, bearer(mine), CLEAR).name == "me"
    assert identify(known, (("authorization", f"bearer {theirs}"),), CLEAR).name == "them"


def test_both_tokens_are_good_while_one_replaces_the_other() -> None:
    """Rotation: the old and the new one stand side by side until the old one is taken out."""
    old, new = new_token(), new_token()
    records = (str(record_of(old)), str(record_of(new)))
    during, after = directory(me=caller(tokens=records)), directory(me=caller(tokens=records[1:]))
    assert [identify(during, bearer(t), CLEAR).name for t in (old, new)] == ["me", "me"]
    assert identify(after, bearer(new), CLEAR).name == "me"
    with pytest.raises(Unauthenticated):
        identify(after, bearer(old), CLEAR)


def _unknown(token: str) -> list[tuple[tuple[str, str], ...]]:
    same_id = f"sst_{id_of(token)}_{'a' * 43}"
    return [
        (),
        bearer(""),
        bearer("hunter2"),
        bearer(new_token()),
        bearer(same_id),
        (("authorization", f"Basic {token}"),),
        (("authorization", token),),
        (*bearer(token), *bearer(token)),
    ]


@pytest.mark.parametrize("number", range(8))
def test_nobody_else_gets_in(number: int) -> None:
    """No token, a wrong one, one of another scheme, two: each is refused."""
    token = new_token()
    known = directory(me=caller(tokens=(str(record_of(token)),)))
    with pytest.raises(Unauthenticated):
        identify(known, _unknown(token)[number], CLEAR)


def test_a_wrong_secret_and_a_wrong_id_are_refused_in_the_same_words() -> None:
    """A refusal does not tell which ids there are."""
    token = new_token()
    known = directory(me=caller(tokens=(str(record_of(token)),)))
    words = set()
    for wrong in (new_token(), f"sst_{id_of(token)}_{'a' * 43}"):
        with pytest.raises(Unauthenticated) as refusal:
            identify(known, bearer(wrong), CLEAR)
        words.add(refusal.value.message)
    assert len(words) == 1


def certificate(
    uris: tuple[bytes, ...] = (), dns: tuple[bytes, ...] = (), cn: bytes = b"host-7"
) -> dict[str, list[bytes]]:
    found = TLS | {"x509_common_name": [cn]}
    return found | ({"peer_uri": [*uris]} if uris else {}) | ({"peer_dns": [*dns]} if dns else {})


CERTIFIED = Identities.of(
    {
        "by-uri": caller(certificates=("URI:spiffe://example.org/ingest",)),
        "by-dns": caller(certificates=("DNS:ingest.example.org", "DNS:ingest2.example.org")),
        "by-cn": caller(certificates=("CN:host-7",)),
    },
    "here",
)


@pytest.mark.parametrize(
    ("auth", "name"),
    [
        (certificate(uris=(b"spiffe://example.org/ingest",)), "by-uri"),
        (certificate(uris=(b"https://other", b"spiffe://example.org/ingest")), "by-uri"),
        (certificate(dns=(b"ingest.example.org",)), "by-dns"),
        (certificate(dns=(b"INGEST.Example.org", b"ingest2.example.org")), "by-dns"),
        (certificate(), "by-cn"),
    ],
)
def test_a_verified_certificate_proves_a_name(auth: dict[str, list[bytes]], name: str) -> None:
    """By any one of its URIs or DNS names, and by its common name where it has neither."""
    assert identify(CERTIFIED, (), auth).name == name


@pytest.mark.parametrize(
    "auth",
    [
        certificate(uris=(b"spiffe://example.org/ingest/other",)),
        certificate(uris=(b"spiffe://example.org/",)),
        certificate(uris=(b"SPIFFE://example.org/ingest",)),
        certificate(dns=(b"example.org",)),
        certificate(dns=(b"x.ingest.example.org",)),
        certificate(dns=(b"*.example.org",)),
        certificate(uris=(b"DNS:ingest.example.org",)),
        certificate(cn=b"ingest.example.org"),
        certificate(cn=b"host-77"),
        TLS,
        CLEAR,
        {},
    ],
)
def test_no_other_certificate_does(auth: dict[str, list[bytes]]) -> None:
    """Names are compared whole, as what they are; one of another kind does not count."""
    with pytest.raises(Unauthenticated):
        identify(CERTIFIED, (), auth)


def test_a_common_name_does_not_count_beside_others() -> None:
    """A certificate for another service cannot pass by what its owner chose to be called."""
    with pytest.raises(Unauthenticated):
        identify(CERTIFIED, (), certificate(dns=(b"other.example.org",), cn=b"host-7"))


def test_a_certificate_of_two_identities_proves_neither() -> None:
    """Which of them calls would be a guess."""
    both = certificate(uris=(b"spiffe://example.org/ingest",), dns=(b"ingest.example.org",))
    with pytest.raises(Unauthenticated, match="belong to 2 identities"):
        identify(CERTIFIED, (), both)


def test_names_count_on_a_connection_with_tls_alone() -> None:
    """Without TLS nobody has verified a certificate, whatever the connection says of itself."""
    claimed = certificate(dns=(b"ingest.example.org",)) | CLEAR
    assert certificate_names(claimed) == ()


def test_a_wrong_token_is_not_made_good_by_a_certificate() -> None:
    """A token that was taken back must not go on working where a certificate stands beside it."""
    with pytest.raises(Unauthenticated, match="token"):
        identify(CERTIFIED, bearer(new_token()), certificate())


def test_a_token_beside_a_certificate_of_nobody_or_of_the_same_identity() -> None:
    """A shared connection may carry tokens; a certificate of another identity may not."""
    token = new_token()
    known = Identities.of(
        {
            "me": caller(tokens=(str(record_of(token)),), certificates=("CN:my-host",)),
            "them": caller(certificates=("CN:their-host",)),
        },
        "here",
    )
    assert identify(known, bearer(token), certificate(cn=b"gateway")).name == "me"
    assert identify(known, bearer(token), certificate(cn=b"my-host")).name == "me"
    with pytest.raises(Unauthenticated, match="two identities"):
        identify(known, bearer(token), certificate(cn=b"their-host"))


# ---------------------------------------------------------------- what it may


def only(**changes: Any) -> Identity:
    return Identities.of({"x": caller(**changes)}, "here").by_name["x"]


def test_who_may_edit_a_bank_may_read_it() -> None:
    """And not the other way round; what is in neither list is not there."""
    it = only(banks=("scam-*",), edit_banks=("drafts",))
    assert [b in it.reads for b in ("scam-a", "drafts", "scam", "x-scam-a")] == [
        True, True, False, False,
    ]  # fmt: skip
    assert [b in it.edits for b in ("scam-a", "drafts")] == [False, True]


def test_nothing_is_open_that_was_not_listed() -> None:
    """An empty list of banks is no bank, not all of them."""
    it = only(banks=())
    assert "any" not in it.reads
    assert "any" not in it.edits
    assert "any" in EVERY_BANK
    assert "any" not in BankAccess(())


@pytest.mark.parametrize(
    ("roles", "scores", "sees"),
    [
        (("ingest",), False, False),
        (("ingest",), True, True),
        (("ingest", "builder", "auditor"), False, False),
        (("analyst",), False, True),
        (("ingest", "approver"), False, True),
        (("admin",), False, True),
    ],
)
def test_scores_are_seen_where_granted(roles: tuple[str, ...], scores: bool, sees: bool) -> None:
    """By a role that decides with them, or by name."""
    assert only(roles=roles, scores=scores).may_see_scores is sees


def test_outside_a_call_nobody_calls() -> None:
    """A service that was reached past the guard fails instead of taking the caller for local."""
    with pytest.raises(LookupError):
        current()
    assert LOCAL.roles == set(Role)


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("x", {"roles": ("root",)}, "no role 'root'"),
        ("x", {"roles": ()}, "roles is empty"),
        ("x", {"tokens": ()}, "nobody could be this one"),
        ("x", {"banks": ("Scam",)}, "no bank's name"),
        ("x", {"banks": ("[a-z]",)}, "no bank's name"),
        ("x", {"edit_banks": ("",)}, "no bank's name"),
        ("x", {"items_per_s": 0.0}, "items_per_s must be over 0"),
        ("x", {"items_per_s": float("nan")}, "items_per_s must be over 0"),
        ("x", {"in_flight_max": 0}, "in_flight_max must be over 0"),
        ("x", {"edits_per_day": -1}, "edits_per_day is 0"),
        ("x", {"certificates": ("ingest.example.org",)}, "URI:…, DNS:… or CN:…"),
        ("x", {"certificates": ("DNS:Ingest.example.org",)}, "lower case"),
        ("local", {}, "not 'local'"),
        ("Not A Name", {}, "a name is"),
    ],
)
def test_a_file_with_a_mistake_is_refused(name: str, changes: dict[str, Any], words: str) -> None:
    """The refusal names the identity and what is wrong."""
    said = refusal_of({name: caller(**changes)})
    assert words in said
    assert f"identities.{name}" in said


def test_one_proof_is_of_one_identity() -> None:
    """A token or a certificate that stands twice would be somebody by the order in a file."""
    record = str(record_of(new_token()))
    for proof in ({"tokens": (record,)}, {"certificates": ("CN:a",)}):
        assert "twice" in refusal_of({"a": caller(**proof), "b": caller(**proof)})


def test_the_file_is_read_strictly(tmp_path: Path) -> None:
    """Unknown keys, missing banks and an empty file are refused by name."""
    path = tmp_path / "identities.toml"
    for text, words in (
        ("", "'identities' is missing"),
        ("[identities]\n", "nobody could call"),
        ('[identities.x]\nroles = ["ingest"]\n', "'banks' is missing"),
        ('[identities.x]\nroles = "ingest"\nbanks = ["*"]\n', "must be a list of strings"),
        ('[identities.x]\nroles = [1]\nbanks = ["*"]\n', "must be a list of strings"),
        ('[identities.x]\nrole = ["ingest"]\nbanks = []\n', "did you mean 'roles'"),
    ):
        path.write_text(text)
        with pytest.raises(BadConfig) as refusal:
            load_identities(path)
        assert words in refusal.value.message


# ---------------------------------------------------------------- files that change


class World:
    """A file with a number in it, read again; and a clock."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "number"
        self.now = 0.0
        self.reads = 0
        self.write("1")

    def write(self, text: str) -> None:
        """As a careful editor does: another file takes the place of the first."""
        beside = self.path.with_suffix(".new")
        beside.write_text(text)
        os.replace(beside, self.path)

    def read(self) -> int:
        self.reads += 1
        try:
            return int(self.path.read_text())
        except (OSError, ValueError):
            raise BadConfig("no number") from None

    def reloading(self) -> FileReloader[int]:
        return FileReloader("number", [self.path], self.read, every_s=1.0, clock=lambda: self.now)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_changed_file_is_taken_up(world: World) -> None:
    """Within a second; looked at no more often than that, and read only where it changed."""
    value = world.reloading()
    world.write("2")
    assert value.current() == 1
    world.now = 1.0
    assert value.current() == 2
    for world.now in (2.0, 3.0, 4.0):
        assert value.current() == 2
    assert world.reads == 2
    assert value.counts == ReloadCounts(taken=1, refused=0)


def _break(world: World) -> None:
    world.write("two")


def _remove(world: World) -> None:
    world.path.unlink()


@pytest.mark.parametrize("damage", [_break, _remove])
def test_a_broken_file_does_not_take_the_place_of_a_good_one(
    world: World, damage: Callable[[World], None]
) -> None:
    """It is counted once however often it is looked at, and the next good one is taken up."""
    value = world.reloading()
    damage(world)
    for world.now in (1.0, 2.0, 3.0):
        assert value.current() == 1
    assert value.counts == ReloadCounts(taken=0, refused=1)
    world.write("3")
    world.now = 4.0
    assert value.current() == 3
    assert value.counts == ReloadCounts(taken=1, refused=1)


def test_a_link_that_is_pointed_elsewhere_is_a_change(tmp_path: Path, world: World) -> None:
    """As secrets are delivered to containers."""
    link = tmp_path / "link"
    link.symlink_to(world.path)
    value = FileReloader("x", [link], lambda: int(link.read_text()), 0.0, lambda: world.now)
    other = tmp_path / "other"
    other.write_text("7")
    beside = tmp_path / "beside"
    beside.symlink_to(other)
    os.replace(beside, link)
    assert value.current() == 7


def test_a_file_that_is_broken_from_the_start_is_refused(world: World) -> None:
    """There is nothing to go on with."""
    world.write("one")
    with pytest.raises(BadConfig):
        world.reloading()
