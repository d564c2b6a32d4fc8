"""Over TLS: the server is proven before anything is said to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from simsearch.client import NO_RETRIES
from simsearch.client.credentials import ClientTls
from simsearch.config import TlsConfig
from simsearch.errors import BadRequest, Unreachable
from simsearch.serve.transport.certificates import ServerTls
from simsearch.types import Band, HashContent, Signal
from tests.client.flavours import Open
from tests.serve.certificates import Authority
from tests.serve.house import served

CONTENT = HashContent(Signal.SHA256, bytes(32))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def secure(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that speaks TLS."""
    pair = authority.server()
    tls = ServerTls(TlsConfig(cert=pair.cert, key=pair.key))
    with served(tmp_path_factory.mktemp("secure") / "bank", {}, tls=tls) as address:
        yield address


def test_calls_and_streams_go_over_tls(opened: Open, secure: str, authority: Authority) -> None:
    with opened(secure, tls=ClientTls(ca=authority.ca), token="sent where it is safe") as client:
        assert client.match(CONTENT).verdict is Band.NONE
        [(number, result)] = client.inner.stream([CONTENT])
        assert (number, result.verdict) == (0, Band.NONE)


def test_another_authoritys_word_does_not_count(opened: Open, secure: str, tmp_path: Path) -> None:
    """Nor does clear text reach a server that speaks TLS."""
    stranger = ClientTls(ca=Authority(tmp_path, "stranger").ca)
    for tls in (stranger, None):
        with (
            opened(secure, tls=tls, retry=NO_RETRIES) as client,
            pytest.raises(Unreachable, match=secure),
        ):
            client.match(CONTENT, deadline_s=5)


def test_a_missing_certificate_is_named(opened: Open, tmp_path: Path) -> None:
    with (
        opened("127.0.0.1:1", tls=ClientTls(ca=str(tmp_path / "none.pem"))) as client,
        pytest.raises(BadRequest, match=r"none\.pem"),
    ):
        client.match(CONTENT)
