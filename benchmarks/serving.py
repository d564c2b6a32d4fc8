"""What the benchmarks of the server share: a real server on a bank of one space."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks.vectors import BANNED_AT_ONCE, EDIT, MODEL, Half, ban
from simsearch.bank.store import BankStore
from simsearch.cli.common.server_process import ServerProcess
from simsearch.encode.encoders.sentence import load_sentence
from simsearch.types import (
    Bits,
    CosineRule,
    EntryDraft,
    Fingerprint,
    HammingRule,
    Modality,
    Policy,
    Signal,
    VectorContent,
    Vectors,
)

BANK: Final = "banned"
FLOOR: Final = 0.90
NAME: Final = "minilm"

CONFIG: Final = f"""
[ban_checks]
enabled = false

[encoders.{NAME}]
kind = "sentence-transformers"
model = "{MODEL}"

[metrics]
listen = ""

[sandbox]
workers = 0
"""
"""No images are asked, and what another part would cost is not asked about."""

NO_ENCODERS: Final = """
[ban_checks]
enabled = false

[encoders]

[metrics]
listen = ""

[sandbox]
workers = 0
"""
"""A server that takes ready hashes alone."""

FORGETFUL: Final = """
[cache]
fingerprints_bytes_max = 0
verdicts_max = 0
"""


def policy() -> Policy:
    """One threshold for vectors and, beside it, one for the words of texts."""
    space = load_sentence(MODEL).space.id
    return Policy(
        (CosineRule(space, Modality.TEXT, review=FLOOR),),
        (HammingRule(Signal.MINHASH, review=60),),
    )


@contextmanager
def started(directory: Path, more_config: str = "") -> Iterator[ServerProcess]:
    """`simsearch serve` with the MiniLM encoder on the bank in `directory`/data."""
    config = directory / "simsearch.toml"
    config.write_text(CONFIG + more_config, encoding="utf-8")
    server = ServerProcess(directory, config)
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def served(rows: Half | None = None, more_config: str = "") -> Iterator[ServerProcess]:
    """As `started`, on one bank, of `rows` or empty."""
    with tempfile.TemporaryDirectory(prefix="simsearch-bench-") as directory:
        rules = policy()
        with BankStore.open(Path(directory) / "data", writer=True) as store:
            store.create_bank(BANK, "", rules, EDIT)
            if rows is not None:
                ban(store, BANK, rules.cosine[0].space, rows)
        with started(Path(directory), more_config) as server:
            yield server


def vector(row: Vectors) -> VectorContent:
    return VectorContent(NAME, row[None])


def ban_hashes(store: BankStore, bank: str, hashes: Bits) -> list[int]:
    """Each PDQ hash, (n, 32), as an entry of its own; returns their keys."""
    keys = []
    for start in range(0, len(hashes), BANNED_AT_ONCE):
        part = hashes[start : start + BANNED_AT_ONCE]
        drafts = [EntryDraft(Fingerprint(bits={Signal.PDQ: row[None]})) for row in part]
        keys += [entry.key for entry in store.add_entries(bank, drafts, EDIT)]
    return keys
