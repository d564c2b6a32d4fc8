"""TLS with real certificates and real connections: who gets in, and when new files are taken up."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from msgspec import structs

from simsearch.cli.common.server_process import ServerProcess
from simsearch.client import Client
from simsearch.client.credentials import ClientTls, channel_credentials
from simsearch.config import TlsConfig
from simsearch.errors import BadConfig, PermissionDenied, SimsearchError, Unauthenticated
from simsearch.serve.auth.authorization import Authorization
from simsearch.serve.transport.certificates import ServerTls
from simsearch.serve.transport.reloading_files import ReloadCounts
from simsearch.serve.transport.tls_version import check_only_tls_1_3
from simsearch.types import Band, Edit, HashContent, Signal
from simsearch.v1 import index_pb2, index_pb2_grpc
from tests.cli.shell import runner
from tests.serve.callers import Callers, Served, guarded
from tests.serve.certificates import Authority, Pair

SIGNED = Edit("", "a test")
HASH = HashContent(Signal.PDQ, b"\x96" * 32)
GET_STATUS = index_pb2.GetStatusRequest()


class House:
    """A server's files, an authority for it and one for its clients."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority = Authority(directory, "servers")
        self.clients = Authority(directory, "clients")
        pair = self.authority.server()
        self.config = TlsConfig(pair.cert, pair.key, str(directory / "in-use.ca.pem"))
        shutil.copy(self.clients.ca, self.config.client_ca)
        self.callers = Callers(directory / "identities.toml")
        self.callers.add("admin", "admin")
        self.callers.add("ingest", "ingest", certificates=["DNS:ingest.example.org"])
        self.callers.add("spiffe", "auditor", certificates=["URI:spiffe://example.org/audit"])
        self.callers.add("named", "builder", certificates=["CN:builder-7"])

    def trusting(self, pair: Pair | None, ca: str = "") -> ClientTls:
        """What a client with this certificate uses."""
        return ClientTls(
            ca or self.authority.ca, pair.cert if pair else "", pair.key if pair else ""
        )


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


@pytest.fixture
def served(house: House) -> Iterator[Served]:
    """Asks for client certificates."""
    with guarded(house.directory, house.callers, tls=ServerTls(house.config)) as served:
        yield served


def reached(address: str, tls: ClientTls, token: str = "") -> grpc.StatusCode:
    """How one call over a connection of its own ended."""
    with grpc.secure_channel(
        address,
        channel_credentials(tls),
        options=[("grpc.use_local_subchannel_pool", 1)],
    ) as channel:
        return _status(channel, token)


def _status(channel: grpc.Channel, token: str = "") -> grpc.StatusCode:
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    try:
        index_pb2_grpc.IndexServiceStub(channel).GetStatus(
            GET_STATUS, metadata=metadata, timeout=10
        )
    except grpc.RpcError as failure:
        return cast(grpc.Call, failure).code()
    return grpc.StatusCode.OK


OK, UNAVAILABLE = grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE
UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED


# ---------------------------------------------------------------- client certificates


@pytest.mark.parametrize(
    ("names", "who"),
    [
        ({"common_name": "x", "dns": ("ingest.example.org",)}, "ingest"),
        ({"common_name": "x", "uris": ("spiffe://example.org/audit",)}, "spiffe"),
        ({"common_name": "builder-7"}, "named"),
    ],
)
def test_a_certificate_says_who_calls(
    house: House, served: Served, names: dict[str, Any], who: str
) -> None:
    """Each may then do what its identity may, and is refused by its name where it may not."""
    tls = house.trusting(house.clients.pair(**names))
    with Client(served.address, tls=tls, deadline_s=10) as client:
        client.status()
        with pytest.raises(PermissionDenied, match=f"; {who} is "):
            client.create_bank("x", SIGNED)


def _none(house: House) -> Pair | None:
    return None


def _of_another_authority(house: House) -> Pair:
    other = Authority(house.directory, "others")
    return other.pair("x", dns=("ingest.example.org",), file="stolen")


def _expired(house: House) -> Pair:
    return house.clients.pair("x", dns=("ingest.example.org",), valid_days=-1, file="expired")


def _of_the_servers_authority(house: House) -> Pair:
    return house.authority.pair("x", dns=("ingest.example.org",), file="wrong-side")


@pytest.mark.parametrize(
    "pair", [_none, _of_another_authority, _expired, _of_the_servers_authority]
)
def test_no_connection_without_a_good_certificate(
    house: House, served: Served, pair: Callable[[House], Pair | None]
) -> None:
    """Not even with a good token: none, another authority's, and one that has expired."""
    tls = house.trusting(pair(house))
    assert reached(served.address, tls, served.callers.tokens["admin"]) is UNAVAILABLE
    assert served.authorization.counts.admitted == 0


def test_a_good_certificate_of_nobody_is_refused_by_name(house: House, served: Served) -> None:
    """The connection stands, and the words say under which names nobody was found."""
    tls = house.trusting(house.clients.pair("x", dns=("stranger.example.org",)))
    with Client(served.address, tls=tls, deadline_s=10) as client:
        with pytest.raises(Unauthenticated, match=r"DNS:stranger\.example\.org"):
            client.status()
        assert client.is_serving() is not None  # health asks nobody


def test_a_token_says_who_calls_over_a_gateways_certificate(house: House, served: Served) -> None:
    """And the certificate of one identity does not carry the token of another."""
    gateway = house.trusting(house.clients.pair("gateway"))
    ingest = house.trusting(house.clients.pair("x", dns=("ingest.example.org",), file="ingest"))
    token = served.callers.tokens["admin"]
    assert reached(served.address, gateway, token) is OK
    assert reached(served.address, gateway) is UNAUTHENTICATED
    assert reached(served.address, ingest, token) is UNAUTHENTICATED
    assert reached(served.address, ingest) is OK


def test_a_server_of_another_authority_is_not_trusted(house: House, served: Served) -> None:
    """The client finds out before it has sent its token."""
    other = Authority(house.directory, "others")
    tls = house.trusting(house.clients.pair("builder-7"), ca=other.ca)
    assert reached(served.address, tls) is UNAVAILABLE


def test_clear_text_does_not_reach_it(served: Served) -> None:
    with grpc.insecure_channel(served.address) as channel:
        assert _status(channel, served.callers.tokens["admin"]) is UNAVAILABLE


def test_without_client_ca_a_token_is_enough(house: House) -> None:
    """Clients are not asked for certificates, and one that is sent says nothing."""
    config = TlsConfig(house.config.cert, house.config.key)
    with guarded(house.directory, house.callers, tls=ServerTls(config)) as served:
        token = served.callers.tokens["ingest"]
        assert reached(served.address, house.trusting(None), token) is OK
        assert reached(served.address, house.trusting(None)) is UNAUTHENTICATED
        pair = house.clients.pair("builder-7")
        assert reached(served.address, house.trusting(pair)) is UNAUTHENTICATED


# ---------------------------------------------------------------- new files


def _replace(old: Pair, new: Pair) -> None:
    shutil.copy(new.key, old.key)
    shutil.copy(new.cert, old.cert)


def test_a_new_certificate_is_taken_up_under_a_live_channel(house: House) -> None:
    """New connections get the new one, without a restart; the open one goes on."""
    tls = ServerTls(house.config)
    client = house.trusting(house.clients.pair("builder-7"))
    with (
        guarded(house.directory, house.callers, tls=tls) as served,
        grpc.secure_channel(served.address, channel_credentials(client)) as before,
    ):
        assert _status(before) is OK
        renewed = Authority(house.directory, "renewed")
        _replace(Pair(house.config.cert, house.config.key), renewed.server("renewed-server"))
        assert reached(served.address, client) is UNAVAILABLE  # it trusts the old authority
        assert (
            reached(served.address, house.trusting(Pair(client.cert, client.key), renewed.ca)) is OK
        )
        assert _status(before) is OK
    assert tls.counts == ReloadCounts(taken=1, refused=0)


def _garbage(house: House) -> None:
    Path(house.config.cert).write_text("-----BEGIN CERTIFICATE-----\nAAAA\n")


def _other_key(house: House) -> None:
    shutil.copy(house.clients.pair("other").key, house.config.key)


def _gone(house: House) -> None:
    Path(house.config.key).unlink()


def _no_authority(house: House) -> None:
    Path(house.config.client_ca).write_text("")


@pytest.mark.parametrize("damage", [_garbage, _other_key, _gone, _no_authority])
def test_a_broken_file_keeps_the_certificate_that_was(
    house: House, damage: Callable[[House], None]
) -> None:
    """Counted once, however many connect; and a good one is taken up afterwards."""
    tls = ServerTls(house.config)
    client = house.trusting(house.clients.pair("builder-7"))
    with guarded(house.directory, house.callers, tls=tls) as served:
        damage(house)
        assert [reached(served.address, client) for _ in range(3)] == [OK] * 3
        assert tls.counts == ReloadCounts(taken=0, refused=1)
        shutil.copy(house.clients.ca, house.config.client_ca)
        pair = house.authority.server("again")
        _replace(Pair(house.config.cert, house.config.key), pair)
        assert reached(served.address, client) is OK
        assert tls.counts.taken == 1


def test_another_client_authority_is_taken_up(house: House, served: Served) -> None:
    """What the old one vouched for gets no new connection."""
    old = house.trusting(house.clients.pair("builder-7"))
    assert reached(served.address, old) is OK
    others = Authority(house.directory, "others")
    shutil.copy(others.ca, house.config.client_ca)
    assert reached(served.address, old) is UNAVAILABLE
    new = house.trusting(others.pair("builder-7", file="new"))
    assert reached(served.address, new) is OK


@pytest.mark.parametrize("damage", [_garbage, _other_key, _gone, _no_authority])
def test_a_server_does_not_start_with_a_broken_file(
    house: House, damage: Callable[[House], None]
) -> None:
    """The sentence names the file, and nothing that is in it."""
    damage(house)
    with pytest.raises(BadConfig, match=r"\[tls\].*(server|in-use)"):
        ServerTls(house.config)


def test_a_key_with_a_passphrase_is_refused_and_nobody_is_asked(house: House) -> None:
    """A server has nobody to ask, and must not wait for an answer."""
    from cryptography.hazmat.primitives import serialization

    path = Path(house.config.key)
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(BadConfig, match="passphrase"):
        ServerTls(house.config)


# ---------------------------------------------------------------- TLS 1.3


def negotiated(address: str, version: ssl.TLSVersion) -> str:
    """What a client that knows this version alone ends up with; "" where it is turned away."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    context.maximum_version = context.minimum_version = version
    host, _, port = address.rpartition(":")
    try:
        with (
            socket.create_connection((host, int(port)), 10) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as secured,
        ):
            return secured.version() or ""
    except (ssl.SSLError, ConnectionError):
        return ""


class Speaking:
    """A context whose connection is of some version of TLS, and what a call over it came to."""

    def __init__(self, version: bytes) -> None:
        self._version = version

    def auth_context(self) -> dict[str, list[bytes]]:
        return {"transport_security_type": [b"ssl"], "ssl_tls_version": [self._version]}


def test_a_call_over_older_tls_is_refused_whoever_calls() -> None:
    """Should a handshake have come about after all."""
    authorization = Authorization()
    assert authorization.caller_of(cast(Any, Speaking(b"TLSv1.3"))).name == "local"
    for version in (b"TLSv1.2", b"TLSv1.1", b""):
        with pytest.raises(Unauthenticated, match=r"TLS 1\.3"):
            authorization.caller_of(cast(Any, Speaking(version)))


@pytest.mark.parametrize("asks_clients", [False, True])
def test_the_check_tells_a_server_that_speaks_tls_1_2(house: House, asks_clients: bool) -> None:
    """This very process imported gRPC without the setting, so its servers do: the check that a
    server makes of itself must notice, or it would notice nothing."""
    config = house.config if asks_clients else structs.replace(house.config, client_ca="")
    with guarded(house.directory, house.callers, tls=ServerTls(config)) as served:
        version = negotiated(served.address, ssl.TLSVersion.TLSv1_2)
        assert version == ("" if asks_clients else "TLSv1.2")  # "": for want of a certificate
        host, _, port = served.address.rpartition(":")
        with pytest.raises(BadConfig, match=r"would speak TLS 1\.2"):
            check_only_tls_1_3(host, int(port))


EARLY = """
import sys
import grpc
from pathlib import Path
from simsearch.config_file import load
from simsearch.errors import BadConfig
from simsearch.serve.server import run
try:
    run(load(Path(sys.argv[1])), print)
except BadConfig as refusal:
    sys.exit(refusal.message)
"""


def test_a_server_that_would_speak_tls_1_2_does_not_start(house: House) -> None:
    """As one does where somebody imported gRPC first; nothing was loaded or written by then."""
    config = house.directory / "simsearch.toml"
    config.write_text(
        f'[server]\nlisten = "127.0.0.1:0"\ndata_dir = "{house.directory / "none"}"\n'
        f'[tls]\ncert = "{house.config.cert}"\nkey = "{house.config.key}"\n'
    )
    refused = subprocess.run(
        [sys.executable, "-c", EARLY, str(config)], capture_output=True, text=True, timeout=60
    )
    assert refused.returncode == 1
    assert "would speak TLS 1.2" in refused.stderr
    assert not (house.directory / "none").exists()


def test_the_check_tells_a_port_without_tls() -> None:
    """One that closes, and one where nobody is."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        closing = threading.Thread(target=lambda: listening.accept()[0].close())
        closing.start()
        with pytest.raises(BadConfig, match=r"no TLS 1\.3 handshake"):
            check_only_tls_1_3("127.0.0.1", port)
        closing.join()
    with pytest.raises(BadConfig, match=r"no TLS 1\.3 handshake"):
        check_only_tls_1_3("127.0.0.1", port)


def test_the_command_line_says_who_calls(
    house: House,
    served: Served,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With a certificate, a token from a file, or one from the environment; who may not is told so
    by an exit code, and what is withheld reads as that."""
    run = runner(monkeypatch, capsys)
    pair = house.clients.pair("x", dns=("ingest.example.org",))
    gateway = house.clients.pair("gateway")
    tls = ("--server", served.address, "--ca", house.authority.ca)
    token = house.directory / "token"
    token.write_text(served.callers.tokens["admin"] + "\n")
    with_token = (*tls, "--cert", gateway.cert, "--key", gateway.key, "--token-file", str(token))
    made = run("bank", "create", "scams", "--reason", "case 1", *with_token)
    assert (made.code, made.err) == (0, "")
    run("entry", "add", "scams", "--hash", f"pdq:{'96' * 32}", "--reason", "case 1", *with_token)
    entry = json.loads(run("entry", "get", "scams", "1", "--json", *with_token).out)
    assert entry["added"]["actor"] == "admin"
    certified = (*tls, "--cert", pair.cert, "--key", pair.key)
    shown = json.loads(run("match", "--hash", f"pdq:{'96' * 32}", "--json", *certified).out)
    evidence = shown[0]["hits"][0]["evidence"]
    assert evidence == [{"signal": "pdq", "band": "BLOCK", "withheld": True}]
    refused = run("bank", "list", *certified)
    assert (refused.code, "needs the role" in refused.err) == (8, True)
    monkeypatch.setenv("SIMSEARCH_TOKEN", served.callers.tokens["admin"])
    assert run("bank", "list", *tls, "--cert", gateway.cert, "--key", gateway.key).code == 0


def test_a_real_server_speaks_tls_1_3_and_asks_who_calls(house: House) -> None:
    """The process as an operator starts it: TLS 1.2 is turned away; a token, a role, a ban, a
    verdict; then the token is taken out of the file, and the next call is refused."""
    config = house.directory / "simsearch.toml"
    config.write_text(
        f'[encoders]\n[tls]\ncert = "{house.config.cert}"\nkey = "{house.config.key}"\n'
        f'[identity]\nfile = "{house.callers.path}"\n[approval]\nfour_eyes = "off"\n'
    )
    server = ServerProcess(house.directory, config)
    try:
        assert negotiated(server.address, ssl.TLSVersion.TLSv1_2) == ""
        assert negotiated(server.address, ssl.TLSVersion.TLSv1_3) == "TLSv1.3"
        tls = house.trusting(None)
        with (
            Client(server.address, token=house.callers.tokens["admin"], tls=tls) as admin,
            Client(server.address, token=house.callers.tokens["ingest"], tls=tls) as ingest,
        ):
            admin.create_bank("scams", SIGNED)
            admin.add_entry("scams", [HASH], SIGNED)
            hit = ingest.match(HASH).hits[0]
            assert (hit.band, hit.evidence[0].withheld) == (Band.BLOCK, True)
            house.callers.remove("ingest")
            _until_refused(ingest)
            assert admin.list_banks()[0].active_entries == 1
    finally:
        server.stop()
    log = (house.directory / "server.log").read_text()
    assert house.callers.tokens["admin"] not in log
    assert "Traceback" not in log


def _until_refused(client: Client) -> None:
    """Within the second in which a changed file is noticed, and some."""
    pause, deadline = threading.Event(), time.monotonic() + 5
    while not isinstance(_outcome(client), Unauthenticated):
        assert time.monotonic() < deadline
        pause.wait(0.1)


def _outcome(client: Client) -> object:
    try:
        return client.match(HASH)
    except SimsearchError as refusal:
        return refusal
