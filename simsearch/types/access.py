"""Roles and access to banks."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase


class Role(StrEnum):
    """The role of an identity; serve/auth/permissions.py says what each may do."""

    INGEST = "ingest"
    ANALYST = "analyst"
    APPROVER = "approver"
    BUILDER = "builder"
    AUDITOR = "auditor"
    ADMIN = "admin"


@dataclass(frozen=True)
class BankAccess:
    """The banks that an identity may see, by name or with `*` for any characters. To it, other
    banks do not exist."""

    patterns: tuple[str, ...] = ("*",)

    def __contains__(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self.patterns)


EVERY_BANK = BankAccess()
