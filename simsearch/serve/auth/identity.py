"""Who calls: what an identity may see and do, and the one that the running call belongs to."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass

from simsearch.types import EVERY_BANK, BankAccess, Role

SEE_SCORES = frozenset({Role.ANALYST, Role.APPROVER, Role.ADMIN})
"""Roles that see how near a hit was; any other identity does where it is granted."""


@dataclass(frozen=True)
class Quota:
    """None: no bound of its own."""

    items_per_s: float | None = None
    in_flight_max: int | None = None


@dataclass(frozen=True)
class Identity:
    """A caller that has proved its name. It may read the banks that it may edit."""

    name: str
    roles: frozenset[Role]
    reads: BankAccess
    edits: BankAccess
    scores: bool = False
    quota: Quota = Quota()
    edits_per_day: int | None = None
    """0: any number; None: as the configuration says of everybody."""

    @property
    def may_see_scores(self) -> bool:
        return self.scores or bool(self.roles & SEE_SCORES)


LOCAL = Identity("local", frozenset(Role), EVERY_BANK, EVERY_BANK)
"""Whoever calls a server that asks nobody who they are."""

_current: ContextVar[Identity] = ContextVar("caller")


def current() -> Identity:
    """The caller of the running call. Raises LookupError outside one: nobody is nobody."""
    return _current.get()


def act_for(caller: Identity) -> None:
    """The task that asks works for this caller until it ends, and so do those that it starts."""
    _current.set(caller)
