"""Looks at what a power cut has left.

`python -m tests.bank.lmdb.power_judge`: for each directory named on stdin, opens the store that was
found and reads all of it; one line of JSON each.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lmdb import verify

from index_builders.quality.check import check
from simsearch.bank.store import BankStore
from simsearch.errors import SimsearchError
from tests.bank.lmdb.power_worker import MAP_BYTES, STORE, large_draft, state
from tests.bank.worlds import EDIT, POLICY, full_draft

JUDGE_S = 30


def judge() -> None:
    """Each in a process of its own: what is broken may end it, or never let it end."""
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            signal.alarm(JUDGE_S)
            os.write(1, json.dumps(judged(Path(line.strip()))).encode() + b"\n")
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if status:
            os.write(1, json.dumps({"fault": f"ended by {status}"}).encode() + b"\n")


def judged(disk: Path) -> dict[str, Any]:
    """What is there, with `fault` where it is not whole or cannot be edited."""
    path = disk / STORE
    try:
        walk: Callable[[str], list[str]] = verify.verify
        torn = walk(os.fspath(path)) if path.exists() else []
        with BankStore.open(path, writer=True, map_bytes=MAP_BYTES) as store:
            found = state(store)
            faults = [*torn, *check(store).faults]
            _edited(store)
            faults += check(store).faults
    except SimsearchError as error:
        return {"fault": f"{error.reason}: {error.message}"}
    except Exception as error:
        return {"fault": repr(error)}
    left = sorted(child.name for child in path.parent.iterdir() if child.name != path.name)
    return found | {"left": left} | ({"fault": "; ".join(faults)} if faults else {})


def _edited(store: BankStore) -> None:
    """The next edits: no key is given twice, and pages that are free are free indeed."""
    before, seq = store.banks(), store.seq()
    bank, _ = store.create_bank("after-the-cut", "", POLICY, EDIT)
    keys = [entry.key for old in before for entry in store.list_entries(old.name, limit=10_000)]
    drafts = [full_draft(1), large_draft(2)]
    added = [entry.key for entry in store.add_entries(bank.name, drafts, EDIT)]
    assert added == [max(keys, default=0) + 1, max(keys, default=0) + 2]
    assert bank.id == len(before) + 1
    assert store.seq() == seq + 3


if __name__ == "__main__":
    judge()
