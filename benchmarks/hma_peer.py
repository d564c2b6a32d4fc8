"""The peer of serve_vs_hma: a look-up of hashes as open matching services have it, over HTTP.

    python -m benchmarks.hma_peer PORT DIRECTORY

Flask on waitress, one process; a flat FAISS index of the hashes in DIRECTORY/hashes.npy, whose
contents have the numbers in DIRECTORY/keys.npy; and a database of banks and contents, in SQLite
behind SQLAlchemy, which is asked at every match whose it is and whether that bank is enabled.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any, Final

import faiss
import numpy as np
import waitress
from flask import Flask, Response, abort, jsonify, request
from sqlalchemy import Engine, ForeignKey, create_engine, insert, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from simsearch.types import BITS, BITS_BYTES, Bits

_faiss: Any = faiss  # ships no types

BANK: Final = "banned"
BITS_MAX: Final = 31
THREADS: Final = 8


class Base(DeclarativeBase):
    pass


class Bank(Base):
    __tablename__ = "bank"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    is_enabled: Mapped[bool]


class BankContent(Base):
    __tablename__ = "bank_content"
    id: Mapped[int] = mapped_column(primary_key=True)
    bank_id: Mapped[int] = mapped_column(ForeignKey("bank.id"), index=True)
    is_enabled: Mapped[bool]


def database(path: Path, keys: np.ndarray) -> Engine:
    """A new one, of one bank with these contents."""
    engine = create_engine(f"sqlite:///{path}")
    Base.metadata.create_all(engine)
    contents = [{"id": key, "bank_id": 1, "is_enabled": True} for key in keys.tolist()]
    with Session(engine) as session, session.begin():
        session.add(Bank(id=1, name=BANK, is_enabled=True))
        session.flush()
        session.execute(insert(BankContent), contents)
    return engine


def application(hashes: Bits, keys: np.ndarray, engine: Engine) -> Flask:
    """`hashes` (n, 32), `keys` (n,)."""
    index = _faiss.IndexBinaryFlat(BITS)
    index.add(hashes)
    app = Flask(__name__)

    @app.get("/m/lookup")
    def lookup() -> Response:
        if request.args.get("signal_type") != "pdq":
            abort(400, "signal_type is pdq")
        near = _near(index, keys, _hash_of(request.args.get("signal", "")))
        return jsonify(_by_bank(engine, near))

    return app


def _hash_of(signal: str) -> Bits:
    try:
        row = np.frombuffer(bytes.fromhex(signal), np.uint8)
    except ValueError:
        row = np.empty(0, np.uint8)
    if len(row) != BITS_BYTES:
        abort(400, f"signal is a hash of {2 * BITS_BYTES} hexadecimal digits")
    return row.reshape(1, BITS_BYTES)


def _near(index: Any, keys: np.ndarray, asked: Bits) -> dict[int, int]:
    """Content and distance of every hash within BITS_MAX: FAISS's radius lies outside."""
    _, distances, rows = index.range_search(asked, BITS_MAX + 1)
    return dict(zip(keys[rows].tolist(), map(int, distances), strict=True))


def _by_bank(engine: Engine, near: dict[int, int]) -> dict[str, list[dict[str, int]]]:
    if not near:
        return {}
    asked = (
        select(BankContent.id, Bank.name)
        .join(Bank, BankContent.bank_id == Bank.id)
        .where(BankContent.id.in_(near), BankContent.is_enabled, Bank.is_enabled)
    )
    found: dict[str, list[dict[str, int]]] = {}
    with Session(engine) as session:
        for key, bank in session.execute(asked):
            found.setdefault(bank, []).append({"content_id": key, "distance": near[key]})
    return found


def main(port: int, directory: Path) -> None:
    keys = np.load(directory / "keys.npy", allow_pickle=False)
    hashes = np.load(directory / "hashes.npy", allow_pickle=False)
    app = application(hashes, keys, database(directory / "banks.sqlite", keys))
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # callers outnumber its threads
    waitress.serve(app, host="127.0.0.1", port=port, threads=THREADS)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
