"""Each client test runs twice: with threads and with asyncio."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from simsearch.client import Client
from simsearch.types import Edit
from tests.client.flavours import Awaited, Blocking, Open, opener
from tests.serve.house import served

EDIT = Edit("tester", "a test")


@pytest.fixture(params=[Blocking, Awaited], ids=["threads", "asyncio"])
def opened(request: pytest.FixtureRequest) -> Open:
    return opener(request.param)


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real server in this process, with a bank of one banned digest."""
    with served(tmp_path_factory.mktemp("client") / "bank", {}) as address:
        with Client(address) as client:
            client.create_bank("digests", EDIT)
        yield address
