"""Edits of many callers at once, and what must be there after each: acknowledged or in flight."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from simsearch.client import Client
from simsearch.errors import SimsearchError, Unreachable
from simsearch.types import EntryState, HashContent, Signal, WaitUntil
from simsearch.v1 import bank_pb2
from tests.serve.conftest import EDIT

BANK = "alpha"
PAGE_SIZE = 1_000


@dataclass
class Item:
    """A ban that was asked for. `key` is 0 until it is known; `retired` once the retraction is
    acknowledged; `in_flight` while nobody knows whether the last edit happened."""

    content: HashContent
    key: int = 0
    retired: bool = False
    in_flight: bool = False


@dataclass
class Ledger:
    """By the source id that each ban carries."""

    items: dict[str, Item] = field(default_factory=dict)
    acknowledged: int = 0
    happened: int = 0
    """Edits without an answer that were found to be there."""
    refused: list[str] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def write(self, address: str, seed: int) -> None:
        """Bans and retractions one after the other until the server is gone."""
        rng = np.random.default_rng(seed)
        mine: list[Item] = []
        with Client(address, deadline_s=10) as client:
            while True:
                try:
                    if mine and rng.random() < 0.3:
                        self._retract(client, mine.pop(int(rng.integers(len(mine)))))
                    else:
                        mine.append(self._add(client, rng))
                except Unreachable:
                    return
                except SimsearchError as error:
                    self.refused.append(f"{error.reason}: {error.message}")
                    return

    def _add(self, client: Client, rng: np.random.Generator) -> Item:
        item = Item(HashContent(Signal.PDQ, rng.bytes(32)), in_flight=True)
        with self._lock:
            source_id = str(next(self._numbers))
            self.items[source_id] = item
        until = WaitUntil.VISIBLE if rng.random() < 0.5 else WaitUntil.DURABLE
        answer = client.add_entry(BANK, [item.content], EDIT, source_id=source_id, wait_until=until)
        self._acknowledge(item, answer.entry.key)
        return item

    def _retract(self, client: Client, item: Item) -> None:
        item.in_flight = True
        client.retract_entry(BANK, item.key, EDIT)
        item.retired = True
        self._acknowledge(item, item.key)

    def _acknowledge(self, item: Item, key: int) -> None:
        item.key, item.in_flight = key, False
        with self._lock:
            self.acknowledged += 1

    # ------------------------------------------------------------ after a crash

    def compare(self, client: Client) -> int:
        """Raises AssertionError where the bank is not what was acknowledged, with any of the edits
        in flight beside; those that happened are acknowledged from now on. How many entries."""
        listed = _listed(client)
        found = dict(listed)
        assert len(found) == len(listed) <= len(self.items)
        for source_id, item in list(self.items.items()):
            there = found.pop(source_id, None)
            if item.in_flight:
                self._settle(source_id, item, there)
            else:
                assert there == (item.key, item.retired), f"{there} is not {item}"
        assert found == {}, "nobody asked for these"
        return len(self.items)

    def _settle(self, source_id: str, item: Item, there: tuple[int, bool] | None) -> None:
        item.in_flight = False
        if there is None:
            assert item.key == 0, "it was acknowledged before its retraction was asked for"
            del self.items[source_id]
            return
        assert there[0] == item.key or not item.key
        self.happened += item.key == 0 or there[1]
        item.key, item.retired = there

    def match(self, client: Client, rng: np.random.Generator, count: int) -> None:
        """Those of `count` that are banned are hits, the others are not."""
        items = list(self.items.values())
        chosen = [items[n] for n in rng.permutation(len(items))[:count]]
        for start in range(0, len(chosen), PAGE_SIZE):
            asked = chosen[start : start + PAGE_SIZE]
            for item, answer in zip(
                asked, client.match_batch([item.content for item in asked]), strict=True
            ):
                assert not isinstance(answer, SimsearchError), answer
                assert answer.complete
                hits = [hit.entry_key for hit in answer.hits]
                assert hits == ([] if item.retired else [item.key]), item


def _listed(client: Client) -> list[tuple[str, tuple[int, bool]]]:
    """(source id, (key, whether it is retracted)) of every entry."""
    found, token = [], ""
    while True:
        page = client.list_entries(
            bank_pb2.ListEntriesRequest(bank=BANK, page_size=PAGE_SIZE, page_token=token)
        )
        for entry in page.entries:
            retired = entry.state == int(EntryState.RETRACTED)
            found.append((entry.source_id, (entry.key, retired)))
        token = page.next_page_token
        if not token:
            return found
