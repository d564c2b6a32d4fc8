"""Bearer tokens: their format, how they are made, and the record that a server stores.

A token is `sst_<id>_<secret>`: the id (12 hex digits) finds its record, the secret (43 letters and
digits, 256 bits) is never stored, and the prefix lets a scanner recognise a leaked token.
A server stores `<id>:<salt>:<sha256 of salt and token>`. One round of SHA-256 is enough, because
256 random bits cannot be guessed; it would not be for passwords, and none are accepted.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import string
from dataclasses import dataclass

from simsearch.errors import BadConfig

PREFIX = "sst_"
SECRET_CHARS = 43  # 62 ** 43 > 2 ** 256
ALPHABET = string.ascii_letters + string.digits
TOKEN = re.compile(r"sst_([0-9a-f]{12})_[A-Za-z0-9]{43}")
RECORD = re.compile(r"([0-9a-f]{12}):([0-9a-f]{32}):([0-9a-f]{64})")


@dataclass(frozen=True)
class TokenRecord:
    """What a server stores: enough to verify a token, and no way back to it."""

    id: str
    salt: bytes
    digest: bytes

    def __str__(self) -> str:
        return f"{self.id}:{self.salt.hex()}:{self.digest.hex()}"

    def matches(self, token: str) -> bool:
        """Whether this is the token, compared in constant time."""
        return hmac.compare_digest(self.digest, _digest(self.salt, token))


def new_token() -> str:
    """A new random token."""
    secret = "".join(secrets.choice(ALPHABET) for _ in range(SECRET_CHARS))
    return f"{PREFIX}{secrets.token_hex(6)}_{secret}"


def record_of(token: str) -> TokenRecord:
    """The record to store of a token from `new_token`."""
    token_id = id_of(token)
    assert token_id is not None
    salt = secrets.token_bytes(16)
    return TokenRecord(token_id, salt, _digest(salt, token))


def id_of(token: str) -> str | None:
    """The id within a token; None where it has not the format of a token."""
    found = TOKEN.fullmatch(token)
    return found[1] if found else None


def read_record(text: str) -> TokenRecord:
    """The record of a line in the file. Raises BadConfig, without repeating the text in it: that
    may be a token, pasted by mistake."""
    found = RECORD.fullmatch(text)
    if found is None:
        raise BadConfig(
            "a token is kept as id:salt:sha256, the line that `simsearch token new` prints; "
            "never write the token itself here"
        )
    return TokenRecord(found[1], bytes.fromhex(found[2]), bytes.fromhex(found[3]))


def _digest(salt: bytes, token: str) -> bytes:
    return hashlib.sha256(salt + token.encode()).digest()
