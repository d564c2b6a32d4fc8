"""Lists of hashes to import, and the command that imports them."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

from simsearch.cli.common.server_process import ServerProcess
from simsearch.types import HashContent, Signal
from tests.cli.shell import Ran, Run

BARE: Final = "[encoders]\n\n[ban_checks]\nenabled = false\n\n[sandbox]\nworkers = 0\n"
"""The configuration of a server that takes ready hashes alone."""

ANSWERS: Final = ("added", "duplicate", "tombstone", "withdrawn", "absent", "refused", "passed")


def digits(number: int, size: int = 32) -> str:
    """A hash of `size` bytes that looks like any other, in hex."""
    return hashlib.sha256(str(number).encode()).hexdigest()[: 2 * size]


def pdq(number: int) -> HashContent:
    return HashContent(Signal.PDQ, bytes.fromhex(digits(number)))


def imported(run: Run, server: ServerProcess, bank: str, *words: str) -> Ran:
    said = ("--reason", "a list", "--actor", "tester", "--server", server.address)
    return run("import", bank, *words, *said, "--json")


def answered(ran: Ran, code: int = 0) -> dict[str, Any]:
    assert ran.code == code, ran.err
    found: dict[str, Any] = json.loads(ran.out)
    # Of several records one item may be made; all of them are accounted for.
    read = found["items"] + sum(found["refused_by"].values()) + found["passed"]
    assert sum(found[word] for word in ANSWERS) == read
    return found


def counts(found: dict[str, Any]) -> dict[str, int]:
    return {word: found[word] for word in ANSWERS if found[word]}
