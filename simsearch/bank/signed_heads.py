"""Signed tree heads: records of the log's end, kept outside the store, one line of JSON each.

A signature is Ed25519 (RFC 8032) over the line's other values, and states that this was the end of
the log at that time. A line that was altered or forged does not verify, so the file needs no write
protection; unsigned heads do.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from simsearch.errors import BadConfig, BadRequest

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey as PrivateKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey as PublicKey

HEADS_MAX: Final = 1_000_000
LINE_BYTES_MAX: Final = 4_096
KEY_BYTES_MAX: Final = 16_384
LINK_BYTES: Final = 32


@dataclass(frozen=True)
class Head:
    """The end of a store's log at some time. With it an audit can prove later that the history up
    to it is unchanged."""

    store_id: str
    seq: int
    link: bytes


@dataclass(frozen=True)
class RecordedHead:
    """A head, the time it was recorded (RFC 3339), and its signature; empty: unsigned."""

    head: Head
    time: str
    signature: bytes = b""

    def signed_bytes(self) -> bytes:
        """The bytes that the signature covers."""
        head = self.head
        lines = ("simsearch head", head.store_id, str(head.seq), head.link.hex(), self.time)
        return "\n".join(lines).encode()

    def line(self) -> str:
        """One line of JSON, as `read_heads` reads it."""
        head = self.head
        values = {
            "store_id": head.store_id,
            "seq": head.seq,
            "link": head.link.hex(),
            "time": self.time,
        }
        signed = {"signature": self.signature.hex()} if self.signature else {}
        return json.dumps(values | signed) + "\n"


def record_head(head: Head, key: PrivateKey | None = None) -> RecordedHead:
    """Records the head with the current time, signed where there is a key."""
    recorded = RecordedHead(head, datetime.now(UTC).isoformat(timespec="seconds"))
    return (
        recorded
        if key is None
        else RecordedHead(head, recorded.time, key.sign(recorded.signed_bytes()))
    )


def read_heads(path: Path) -> list[RecordedHead]:
    """The heads in a file, in its order; empty lines are skipped. Raises BadRequest."""
    recorded: list[RecordedHead] = []
    try:
        with path.open("rb") as file:
            for number in range(1, HEADS_MAX + 1):
                line = file.readline(LINE_BYTES_MAX + 1)
                if not line:
                    return recorded
                if line.strip():
                    recorded.append(_read(line, f"line {number} of {path}"))
    except OSError as fault:
        raise BadRequest(f"cannot read heads from {path}: {fault.strerror}") from None
    raise BadRequest(f"{path} has more than {HEADS_MAX} lines: begin another file")


def _read(line: bytes, what: str) -> RecordedHead:
    try:
        if len(line) > LINE_BYTES_MAX:
            raise ValueError
        values = json.loads(line)
        link, signature = (bytes.fromhex(values.get(n, "")) for n in ("link", "signature"))
        head = Head(values["store_id"], values["seq"], link)
        time = values["time"]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BadRequest(f"{what} is no head: as `simsearch audit head` writes it") from None
    texts = isinstance(head.store_id, str) and isinstance(time, str)
    if not texts or type(head.seq) is not int or head.seq < 0 or len(link) != LINK_BYTES:
        raise BadRequest(f"{what} is no head: as `simsearch audit head` writes it")
    return RecordedHead(head, time, signature)


# ---------------------------------------------------------------- signatures


def signature_faults(recorded: list[RecordedHead], key: PublicKey) -> list[str]:
    """One message for each head that is not signed, or not with this key."""
    from cryptography.exceptions import InvalidSignature

    faults = []
    for each in recorded:
        what = f"the head of change {each.head.seq}, noted {each.time},"
        if not each.signature:
            faults.append(f"{what} is not signed")
            continue
        try:
            key.verify(each.signature, each.signed_bytes())
        except InvalidSignature:
            faults.append(f"{what} has a signature that is wrong: it was altered, or made up")
    return faults


def private_key(path: Path) -> PrivateKey:
    """Reads an Ed25519 private key in PEM, without a passphrase. Raises BadRequest, and BadConfig
    where the `cryptography` package is missing."""
    with _signatures():
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
    data = _read_key(path)
    try:
        key = load_pem_private_key(data, password=None)
    except (ValueError, TypeError):  # TypeError: it has a passphrase
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise BadRequest(
            f"{path} is no Ed25519 private key in PEM without a passphrase: make one with "
            "`openssl genpkey -algorithm ed25519 -out head.key`"
        )
    return key


def public_key(path: Path) -> PublicKey:
    """Reads an Ed25519 public key in PEM. Raises BadRequest, and BadConfig where the `cryptography`
    package is missing."""
    with _signatures():
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key
    data = _read_key(path)
    try:
        key = load_pem_public_key(data)
    except ValueError:
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise BadRequest(
            f"{path} is no Ed25519 public key in PEM: get it with "
            "`openssl pkey -in head.key -pubout -out head.pub`"
        )
    return key


def _read_key(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(KEY_BYTES_MAX)
    except OSError as fault:
        raise BadRequest(f"cannot read a key from {path}: {fault.strerror}") from None


@contextmanager
def _signatures() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError:
        raise BadConfig(
            "signatures need the package 'cryptography', which is not installed: "
            'pip install ".[cpu]"'
        ) from None
