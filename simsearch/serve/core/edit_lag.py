"""Edit lag: how far the searched view is behind the bank, and waiting until it shows an edit."""

from __future__ import annotations

import time
from dataclasses import dataclass

from simsearch.bank.store import BankStore
from simsearch.errors import NotYetVisible
from simsearch.live.follower import Follower
from simsearch.serve.core.server_core import Core


@dataclass(frozen=True)
class Lag:
    """The number of durable changes not visible yet, and the age of the oldest in seconds."""

    changes: int = 0
    age_s: float = 0.0


def lag_of(store: BankStore, follower: Follower) -> Lag:
    """The lag of the current view."""
    seen = follower.view.seq
    behind = store.seq() - seen
    unseen = store.changes(seen, 1) if behind > 0 else []
    if not unseen:
        return Lag()
    return Lag(behind, max(0.0, time.time() - unseen[0].time_us / 1e6))


def wait_visible(core: Core, seq: int, what: str) -> None:
    """Wait until change `seq` is visible. Raises NotYetVisible after `visible_timeout_s`."""
    timeout_s = core.config.server.visible_timeout_s
    if not core.follower.wait_for(seq, timeout_s):
        raise NotYetVisible(
            f"{what} (change {seq}), but searches did not see it within {timeout_s:g} s: "
            "do not send it again; see `simsearch status`"
        )
