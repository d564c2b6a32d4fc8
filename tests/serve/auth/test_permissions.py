"""The table of permissions: it has every RPC, and a server does what it says, role by role."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

import simsearch.v1
from simsearch.serve.auth import authorization as authorization
from simsearch.serve.auth.authorization import Authorization
from simsearch.serve.auth.permissions import PERMISSIONS
from simsearch.types import Role
from simsearch.v1 import bank_pb2
from tests.serve.callers import DENIED, Served, code_of, guarded, one_of_each, raw_call
from tests.serve.house import served

UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED
OPEN = {name for name, rule in PERMISSIONS.items() if rule.roles is None}


def every_rpc() -> dict[str, Any]:
    """The descriptor of each method that a server answers, by "/package.Service/Method"."""
    modules = [
        importlib.import_module(f"simsearch.v1.{found.name}")
        for found in pkgutil.iter_modules(simsearch.v1.__path__)
        if found.name.endswith("_pb2")
    ]
    return {
        f"/{service.full_name}/{method.name}": method
        for module in [*modules, health_pb2, reflection_pb2]
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }


def kind_of(method: Any) -> str:
    asks = "stream" if method.client_streaming else "unary"
    return f"{asks}_{'stream' if method.server_streaming else 'unary'}"


RPCS = every_rpc()


def test_every_rpc_has_a_row() -> None:
    """A new RPC is refused until somebody decides who may call it, and this test says so."""
    assert set(RPCS) == set(PERMISSIONS)
    assert len(RPCS) >= 18


def test_rows_name_fields_that_there_are() -> None:
    """A misspelt field would be an unguarded bank, or a batch that weighs 1."""
    for name, rule in PERMISSIONS.items():
        fields = RPCS[name].input_type.fields_by_name
        if rule.bank:
            assert not fields[rule.bank].is_repeated
        if rule.items:
            assert fields[rule.items].is_repeated
        if rule.edits:
            assert rule.bank
            assert fields["edit"].message_type.full_name == "simsearch.v1.Edit"


def test_whatever_names_a_bank_is_looked_at() -> None:
    """A request with a bank, or of an edit, has that in its row."""
    for name, rule in PERMISSIONS.items():
        fields = RPCS[name].input_type.fields_by_name
        assert rule.edits is ("edit" in fields)
        if name.startswith("/simsearch.v1.BankService/"):
            assert rule.bank == next((f for f in ("bank", "name") if f in fields), "")


def test_repeated_contents_are_weighed() -> None:
    """A call of many items counts as many."""
    unweighed = [
        name
        for name, rule in PERMISSIONS.items()
        if name.startswith("/simsearch.") and not rule.items
        for field in RPCS[name].input_type.fields
        if field.is_repeated and field.message_type and field.name != "contents"
    ]
    assert unweighed == []
    weighed = {name.rpartition("/")[2]: rule.items for name, rule in PERMISSIONS.items()}
    assert weighed["BatchMatch"] == "contents"


def test_rows_of_hashes_are_weighed_as_many() -> None:
    """Else a quota would let a list of millions through as one item."""
    rule = PERMISSIONS["/simsearch.v1.BankService/ImportEntries"]
    hashes = bank_pb2.HashRows(about_of=[0] * 7)
    assert authorization._weight(rule, bank_pb2.ImportEntriesRequest(hashes=hashes)) == 7
    items = [bank_pb2.ImportItem()] * 3
    assert authorization._weight(rule, bank_pb2.ImportEntriesRequest(items=items)) == 3
    assert authorization._weight(rule, bank_pb2.ImportEntriesRequest()) == 1


def test_the_guard_knows_the_kinds_of_rpc_that_there_are() -> None:
    """It wraps calls of one request and one answer, and streams both ways; others are open."""
    kinds = {kind_of(RPCS[name]) for name in RPCS.keys() - OPEN}
    assert kinds <= {"unary_unary", "stream_stream"}


def test_health_alone_is_open() -> None:
    assert {name.rpartition("/")[0] for name in OPEN} == {"/grpc.health.v1.Health"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    directory = tmp_path_factory.mktemp("permissions")
    with guarded(directory, one_of_each(directory / "identities.toml")) as world:
        yield world


@pytest.fixture(scope="module")
def channel(world: Served) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(world.address) as channel:
        yield channel


@pytest.mark.parametrize("name", sorted(RPCS))
def test_a_server_does_what_the_table_says(world: Served, channel: grpc.Channel, name: str) -> None:
    """Each role is let through to the service, or PERMISSION_DENIED, exactly as the row says;
    nobody and a wrong token are let through where everybody is."""
    kind, rule = kind_of(RPCS[name]), PERMISSIONS[name]
    let_in = {
        role
        for role in Role
        if code_of(raw_call(channel, name, world.metadata(role), kind)) not in DENIED
    }
    assert let_in == (set(Role) if rule.roles is None else rule.roles)
    strangers = [(), (("authorization", "Bearer sst_000000000000_" + "a" * 43),)]
    codes = [code_of(raw_call(channel, name, metadata, kind)) for metadata in strangers]
    assert [code is UNAUTHENTICATED for code in codes] == [name not in OPEN] * 2


def test_a_refusal_names_the_roles_that_may(world: Served, channel: grpc.Channel) -> None:
    """And whom it refused."""
    method = "/simsearch.v1.BankService/UpdateBank"
    with pytest.raises(grpc.RpcError) as failure:
        raw_call(channel, method, world.metadata("analyst"), "unary_unary")()
    words = cast(grpc.Call, failure.value).details()
    assert words == "UpdateBank needs the role admin or approver; analyst is analyst"


@pytest.mark.parametrize("asks", [True, False])
def test_without_a_row_nobody_is_let_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asks: bool
) -> None:
    """Not the admin, and not even where nobody is asked who they are."""
    gone = "/simsearch.v1.IndexService/GetStatus"
    rows = {name: rule for name, rule in PERMISSIONS.items() if name != gone}
    monkeypatch.setattr("simsearch.serve.auth.permissions.PERMISSIONS", rows)
    callers = one_of_each(tmp_path / "identities.toml")
    authorization = callers.authorization() if asks else Authorization()
    metadata = (("authorization", f"Bearer {callers.tokens['admin']}"),) if asks else ()
    with (
        served(tmp_path / "bank", {}, authorization=authorization) as address,
        grpc.insecure_channel(address) as channel,
        pytest.raises(grpc.RpcError) as failure,
    ):
        raw_call(channel, gone, metadata, "unary_unary")()
    call = cast(grpc.Call, failure.value)
    assert call.code() is grpc.StatusCode.PERMISSION_DENIED
    assert "nobody may call it" in (call.details() or "")


def test_where_nobody_is_asked_everybody_may_do_everything(tmp_path: Path) -> None:
    """A server on this machine without identities, as it was before there were any."""
    with (
        served(tmp_path, {}, authorization=Authorization()) as address,
        grpc.insecure_channel(address) as channel,
    ):
        codes = {name: code_of(raw_call(channel, name, (), kind_of(RPCS[name]))) for name in RPCS}
    assert [name for name, code in codes.items() if code in DENIED] == []


def test_what_strangers_send_is_not_parsed(world: Served, channel: grpc.Channel) -> None:
    """Bytes that are no message: a stranger reads that he is one, a caller what is wrong."""
    method: Any = channel.unary_unary("/simsearch.v1.BankService/GetBank")
    before = world.authorization.counts
    assert code_of(lambda: method(b"\xff" * 9, timeout=10)) is UNAUTHENTICATED
    known = world.metadata("analyst")
    code = code_of(lambda: method(b"\xff" * 9, metadata=known, timeout=10))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    after = world.authorization.counts
    assert after.unauthenticated - before.unauthenticated == 1
    assert after.malformed - before.malformed == 1
    assert after.admitted == before.admitted
