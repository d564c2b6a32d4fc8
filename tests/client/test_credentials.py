"""What a client sends of itself, and where it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from simsearch.client import AsyncClient, Client
from simsearch.client.credentials import ClientTls, Credentials, channel_credentials, is_loopback
from simsearch.errors import BadRequest

TOKEN = "sst_000000000000_" + "a" * 43
ELSEWHERE = ["10.0.0.7:50070", "example.org:50070", "localhost.example.org:1", "[2001:db8::1]:1"]
HERE = ["127.0.0.1:50070", "127.8.8.8:1", "localhost:50070", "[::1]:50070"]


@pytest.mark.parametrize("address", ELSEWHERE)
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_token_does_not_cross_a_network_in_clear_text(
    address: str, kind: type[Client | AsyncClient]
) -> None:
    """Refused when the client is made, before anything is sent; with TLS it is not."""
    with pytest.raises(BadRequest, match="in clear text") as refusal:
        kind(address, token=TOKEN)
    assert TOKEN not in refusal.value.message
    Credentials(ClientTls(), TOKEN).check(address)


@pytest.mark.parametrize("address", HERE)
def test_on_this_machine_it_may(address: str) -> None:
    """Nobody listens in between."""
    assert is_loopback(address)
    Client(address, token=TOKEN).close()


def test_one_address_elsewhere_is_one_too_many() -> None:
    """Of several, any may be asked."""
    with pytest.raises(BadRequest, match="in clear text"):
        Client([HERE[0], ELSEWHERE[0]], token=TOKEN)


def test_without_a_token_nothing_is_sent() -> None:
    assert Credentials().metadata == ()
    assert Credentials(token=TOKEN).metadata == (("authorization", f"Bearer {TOKEN}"),)
    Credentials().check(ELSEWHERE[0])


def test_a_token_is_not_shown() -> None:
    """Clients are printed in logs and tracebacks."""
    assert TOKEN not in repr(Credentials(token=TOKEN))


@pytest.mark.parametrize("token", ["two\nlines", "umläut", "a\x00"])
def test_what_no_header_can_carry_is_refused(token: str) -> None:
    """By name, instead of by a fault within gRPC."""
    with pytest.raises(BadRequest, match="copied whole"):
        Client(HERE[0], token=token)


def test_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    """And a certificate without its key is half a certificate."""
    absent = str(tmp_path / "absent.pem")
    with pytest.raises(BadRequest, match=r"absent\.pem"):
        channel_credentials(ClientTls(ca=absent))
    with pytest.raises(BadRequest, match="go together"):
        channel_credentials(ClientTls(cert=absent))
