"""Waiting for searches to see an edit."""

from __future__ import annotations

from simsearch.errors import NotYetVisible
from simsearch.serve.core.server_core import Core


def wait_visible(core: Core, seq: int, what: str) -> None:
    timeout_s = core.config.server.visible_timeout_s
    if not core.follower.wait_for(seq, timeout_s):
        raise NotYetVisible(
            f"{what} (change {seq}), but searches did not see it within {timeout_s:g} s: "
            "do not send it again; see `simsearch status`"
        )
