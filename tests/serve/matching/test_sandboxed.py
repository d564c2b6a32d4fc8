"""The decode sandbox behind a real port: what an image does to its decoder, the caller is told."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import structs

from simsearch.bank.store import BankStore
from simsearch.cli.common.server_process import ServerProcess
from simsearch.client import Client
from simsearch.config import Config, SandboxConfig, ServerConfig
from simsearch.encode.image.decoder import ImageDecoder, InProcessDecoder
from simsearch.encode.image.picture import ImageLimits
from simsearch.encode.sandbox.sandboxed_decoder import Sandbox, SandboxOptions
from simsearch.errors import BadContent, DecoderFailed, NoSandbox
from simsearch.serve.core.event_metrics import EventMetrics
from simsearch.serve.core.server_core import Core, image_decoder
from simsearch.types import Band, ImageContent, MatchResult, TextContent
from tests.encode.pictures import landscape, saved
from tests.encode.sandbox.hostile_worker import order
from tests.fakes import FakeImageEncoder, FakeTextEncoder, encoders
from tests.serve.conftest import EDIT
from tests.serve.house import served

BANNED = saved(landscape(1, (64, 64)), "PNG")
OTHER = saved(landscape(2, (64, 64)), "PNG")


@pytest.fixture(scope="module")
def decoder() -> Iterator[ImageDecoder]:
    """Its workers do what marked images tell them; the house closes it."""
    sandbox = Sandbox(
        ImageLimits(), SandboxOptions(workers=2), "tests.encode.sandbox.hostile_worker"
    )
    sandbox.open()
    yield sandbox
    sandbox.close()


@pytest.fixture(scope="module")
def hostile(decoder: ImageDecoder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    models = encoders(FakeTextEncoder(), FakeImageEncoder())
    path = tmp_path_factory.mktemp("hostile") / "bank"
    with served(path, {e.name: e for e in models}, decoder=decoder) as at, Client(at) as client:
        client.create_bank("photos", EDIT)
        client.add_entry("photos", [ImageContent(BANNED)], EDIT)
        yield client


def test_an_image_that_kills_its_decoder_fails_alone(hostile: Client) -> None:
    """In a batch too: its neighbours are judged, and nobody else notices."""
    killer = order("segfault", b"in a batch")
    contents = [ImageContent(data) for data in (BANNED, killer, OTHER, b"none")]
    first, second, third, fourth = hostile.match_batch(contents)
    assert isinstance(first, MatchResult)
    assert isinstance(third, MatchResult)
    assert [first.verdict > Band.NONE, third.verdict > Band.NONE] == [True, False]
    assert type(second) is DecoderFailed
    assert type(fourth) is BadContent
    assert hostile.match_text("some harmless words here").verdict is Band.NONE


def test_an_image_that_killed_twice_is_refused_from_then_on(hostile: Client) -> None:
    """By the same name in other words, whoever sends it; banning it is refused as well."""
    killer = order("abort", b"again and again")
    for words in ("broke its decoder", "broke its decoder", "not decoded again"):
        with pytest.raises(DecoderFailed, match=words):
            hostile.match_image(killer)
    with pytest.raises(DecoderFailed, match="not decoded again"):
        hostile.add_entry("photos", [ImageContent(killer)], EDIT)


def children(pid: int) -> list[int]:
    """The decode workers of a server, by what they run."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
            command = (entry / "cmdline").read_text()
        except OSError:
            continue
        if parent == str(pid) and "sandbox.worker" in command:
            found.append(int(entry.name))
    return found


def test_a_real_server_decodes_in_workers_and_outlives_them(
    server: ServerProcess, client: Client, bank: str
) -> None:
    """As configured by default: two of them, and images are judged however often they are
    killed."""
    assert len(children(server.pid)) == 2
    for seed in range(3):
        for pid in children(server.pid):
            os.kill(pid, signal.SIGKILL)
        image = saved(landscape(100 + seed, (64, 64)), "PNG")  # none that it knows already
        assert client.match_image(image, [bank]).complete


def test_a_server_without_workers_says_so_and_does_not_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It would decode nothing, or unsafely: it is a fault by name, and the bank is let go."""
    config = Config(server=ServerConfig(data_dir=str(tmp_path / "bank")), encoders={})
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(NoSandbox, match="/nowhere/python"):
        Core.open(config, EventMetrics())
    BankStore.open(tmp_path / "bank", writer=True).close()


def test_decoding_in_the_server_is_asked_for_by_name() -> None:
    """With no workers, and only then."""
    none = structs.replace(Config(), sandbox=SandboxConfig(workers=0))
    assert isinstance(image_decoder(none), InProcessDecoder)
    some = image_decoder(structs.replace(Config(), sandbox=SandboxConfig(workers=1)))
    assert isinstance(some, Sandbox)
    some.close()


def test_texts_need_no_decoder(hostile: Client) -> None:
    """A bank of texts is served whatever becomes of images."""
    client_key = hostile.add_entry("photos", [TextContent("words that are banned here")], EDIT)
    assert client_key.entry.key
    assert hostile.match_text("words that are banned here").verdict > Band.NONE
