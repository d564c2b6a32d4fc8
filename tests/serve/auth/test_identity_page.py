"""docs/operate/identity.md says what the server does; its commands make certificates that work."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import grpc
import pytest

from simsearch.client.credentials import ClientTls, channel_credentials
from simsearch.config import TlsConfig
from simsearch.config_file import parse
from simsearch.serve.auth.identities_file import load_identities
from simsearch.serve.auth.permissions import PERMISSIONS
from simsearch.serve.transport.certificates import ServerTls
from simsearch.types import Role
from simsearch.v1 import index_pb2, index_pb2_grpc
from tests.serve.callers import Callers, guarded

PAGE = (Path(__file__).parents[3] / "docs/operate/identity.md").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)


def test_the_table_of_roles_is_the_servers() -> None:
    """Row by row, in its order; what is open to anybody stands in a sentence."""
    rows = re.findall(r"\| `(\w+)` \|((?: (?:yes )?\|){6})", PAGE)
    shown = [
        (name, {role for role, cell in zip(Role, cells.split("|"), strict=False) if cell.strip()})
        for name, cells in rows
    ]
    table = {name.rpartition("/")[2]: rule.roles for name, rule in PERMISSIONS.items()}
    assert shown == [(name, set(roles)) for name, roles in table.items() if roles is not None]
    assert "| RPC | " + " | ".join(Role) + " |" in PAGE
    assert all(f"`{name}`" in PAGE for name, roles in table.items() if roles is None)


def test_the_files_on_the_page_can_be_read(tmp_path: Path) -> None:
    """Both, as they stand there."""
    import tomllib

    configuration, identities = blocks("toml")
    assert parse(tomllib.loads(configuration)).tls.client_ca
    path = tmp_path / "identities.toml"
    path.write_text(identities)
    assert set(load_identities(path).by_name) == {"ingest-eu", "ann"}


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl here")
def test_the_openssl_commands_make_certificates_that_work(tmp_path: Path) -> None:
    """A server with one of them knows a client by the other."""
    (commands,) = blocks("sh certificates")
    subprocess.run(
        ["bash", "-euc", commands], cwd=tmp_path, check=True, capture_output=True, timeout=60
    )
    callers = Callers(tmp_path / "identities.toml")
    callers.add("ingest-eu", "ingest", certificates=["URI:spiffe://example.org/ingest-eu"])

    def file(name: str) -> str:
        return str(tmp_path / name)

    tls = ServerTls(TlsConfig(file("server.pem"), file("server.key"), file("ca.pem")))
    client = ClientTls(file("ca.pem"), file("ingest-eu.pem"), file("ingest-eu.key"))
    with guarded(tmp_path, callers, tls=tls) as served:
        address = served.address.replace("127.0.0.1", "localhost")
        with grpc.secure_channel(address, channel_credentials(client)) as channel:
            stub = index_pb2_grpc.IndexServiceStub(channel)
            assert stub.GetStatus(index_pb2.GetStatusRequest(), timeout=10).version
    assert served.authorization.counts.admitted == 1
