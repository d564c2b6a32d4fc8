"""Caller identity: its roles, bank access and quota, and the identity of the running call."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass

from simsearch.types import EVERY_BANK, BankAccess, Role

SEE_SCORES = frozenset({Role.ANALYST, Role.APPROVER, Role.ADMIN})
"""Roles that see scores; other identities see them where the file grants it."""


@dataclass(frozen=True)
class Quota:
    """Rate limit of one identity; None: no bound."""

    items_per_s: float | None = None
    in_flight_max: int | None = None


@dataclass(frozen=True)
class Identity:
    """An authenticated caller. It may read the banks that it may edit."""

    name: str
    roles: frozenset[Role]
    reads: BankAccess
    edits: BankAccess
    scores: bool = False
    quota: Quota = Quota()
    edits_per_day: int | None = None
    """0: any number; None: the default of the configuration."""

    @property
    def may_see_scores(self) -> bool:
        """By role or by grant."""
        return self.scores or bool(self.roles & SEE_SCORES)


LOCAL = Identity("local", frozenset(Role), EVERY_BANK, EVERY_BANK)
"""Every caller of a server without an identities file."""

_current: ContextVar[Identity] = ContextVar("caller")


def current() -> Identity:
    """The caller of the running call. Raises LookupError outside a call."""
    return _current.get()


def act_for(caller: Identity) -> None:
    """Set the caller of the current task, and of the tasks that it starts from now on."""
    _current.set(caller)
