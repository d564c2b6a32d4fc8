"""One target for a list of addresses, whatever they look like."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from simsearch.client.transport.target import Target, check_addresses, target_of
from simsearch.errors import BadRequest, Unreachable

NAMES = {"one.example": ["10.0.0.1"], "six.example": ["2001:db8::6"], "two.example": ["10.0.0.2"]}


@pytest.fixture(autouse=True)
def name_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """It knows NAMES and nothing else."""

    def found(host: str, port: int, *, type: int) -> list[Any]:
        if host not in NAMES:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return [(0, type, 0, "", (ip, port)) for ip in NAMES[host]]

    monkeypatch.setattr(socket, "getaddrinfo", found)


@pytest.mark.parametrize("address", ["10.0.0.1:1", "one.example:1", "[::1]:1", "unix:/run/socket"])
def test_one_address_is_grpcs_to_resolve(address: str) -> None:
    """It does so again where servers move."""
    assert target_of([address]) == Target(address)


@pytest.mark.parametrize(
    ("addresses", "uri"),
    [
        (["10.0.0.1:1", "10.0.0.2:2"], "ipv4:10.0.0.1:1,10.0.0.2:2"),
        (["[::1]:1", "[2001:db8::6]:2"], "ipv6:[::1]:1,[2001:db8::6]:2"),
        (["10.0.0.1:1", "[::1]:2"], "ipv6:[::ffff:10.0.0.1]:1,[::1]:2"),
        (["one.example:1", "10.0.0.2:2"], "ipv4:10.0.0.1:1,10.0.0.2:2"),
        (["one.example:1", "six.example:2"], "ipv6:[::ffff:10.0.0.1]:1,[2001:db8::6]:2"),
        (["one.example:1", "10.0.0.1:1", "one.example:2"], "ipv4:10.0.0.1:1,10.0.0.1:2"),
        (["gone.example:1", "two.example:2"], "ipv4:10.0.0.2:2"),
    ],
)
def test_a_list_is_one_target(addresses: list[str], uri: str) -> None:
    """Names are resolved, families brought together, and an address twice is one."""
    assert target_of(addresses) == Target(uri, addresses[0])


def test_names_that_nobody_knows_are_named() -> None:
    with pytest.raises(Unreachable, match=r"gone\.example:1, away\.example:1"):
        target_of(["gone.example:1", "away.example:1"])


@pytest.mark.parametrize("address", ["10.0.0.1", "one.example", "one.example:grpc", ":1"])
def test_an_address_of_a_list_has_a_port(address: str) -> None:
    with pytest.raises(BadRequest, match="host:port"):
        check_addresses([address, "10.0.0.2:2"], with_tls=False)


def test_no_address_is_refused() -> None:
    with pytest.raises(BadRequest, match="at least one"):
        check_addresses([], with_tls=False)


def test_certificates_are_checked_for_one_name() -> None:
    """Several hosts need a name that all of them have; several ports of one host do not."""
    hosts = ["one.example:1", "two.example:1"]
    with pytest.raises(BadRequest, match="server_name"):
        check_addresses(hosts, with_tls=True)
    check_addresses(hosts, with_tls=True, server_name="matcher.example")
    check_addresses(hosts, with_tls=False)
    check_addresses(["one.example:1", "one.example:2"], with_tls=True)
    assert target_of(hosts, "matcher.example").authority == "matcher.example"
