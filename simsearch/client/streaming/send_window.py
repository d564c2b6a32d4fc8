"""Send window: which contents of a stream were sent, which are answered, which go again.

Pure, like the batch queue: no threads, no network, and time is given as an argument.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from simsearch.client.calls.match_calls import Outcome
from simsearch.client.transport.service_config import RetryPolicy
from simsearch.errors import DeadlinePassed, InternalFault, NotReady, Overloaded
from simsearch.types import Content, MatchOptions
from simsearch.v1 import content_pb2, match_pb2
from simsearch.wire import content_to, item_error_from, options_to, result_from

MESSAGE_ITEMS_MAX: Final = 32
MESSAGE_BYTES_MAX: Final = 4 << 20

NOT_JUDGED = (Overloaded, DeadlinePassed, NotReady)
"""What an item is answered with that the server would take again later."""


@dataclass(frozen=True)
class StreamBounds:
    """What is under way at once: contents without an answer, and their bytes."""

    items_max: int = 128
    bytes_max: int = 32 << 20


STREAM_BOUNDS: Final = StreamBounds()


@dataclass
class _Owed:
    content: content_pb2.Content
    size_bytes: int
    refusals: int = 0


class SendWindow:
    """Contents are numbered from 0 in the order in which they are given; each gets one outcome."""

    def __init__(self, options: MatchOptions, bounds: StreamBounds, retry: RetryPolicy) -> None:
        self._options = options_to(options)
        self._bounds = bounds
        self._retry = retry
        self._owed: dict[int, _Owed] = {}
        self._unsent: deque[int] = deque()
        self._late: deque[tuple[float, int]] = deque()
        self._bytes = 0
        self._given = 0
        self._is_opened = False

    @property
    def has_room(self) -> bool:
        """Whether one more content may be given."""
        return len(self._owed) < self._bounds.items_max and self._bytes < self._bounds.bytes_max

    @property
    def is_answered(self) -> bool:
        """Nothing that was given is without an outcome."""
        return not self._owed

    def give(self, content: Content) -> int:
        """Its number. Raises BadContent for what no message can hold: that is its outcome."""
        number = self._given
        self._given += 1
        message = content_to(content)
        self._owed[number] = _Owed(message, message.ByteSize())
        self._bytes += self._owed[number].size_bytes
        self._unsent.append(number)
        return number

    @property
    def last(self) -> int:
        """The number of the content that was given last."""
        return self._given - 1

    def restart(self) -> None:
        """Another stream: all that has no answer goes again, oldest first."""
        self._late.clear()
        self._unsent = deque(sorted(self._owed))
        self._is_opened = False

    def message(self, now: float, *, is_more_coming: bool) -> match_pb2.StreamMatchRequest | None:
        """The next one to send. While the server has something to do and more is coming, a
        message waits until it is full."""
        while self._late and self._late[0][0] <= now:
            self._unsent.append(self._late.popleft()[1])
        under_way = len(self._owed) - len(self._unsent) - len(self._late)
        is_full = len(self._unsent) >= MESSAGE_ITEMS_MAX
        if not self._unsent or (under_way and is_more_coming and self.has_room and not is_full):
            return None
        request = match_pb2.StreamMatchRequest(items=self._cut())
        if not self._is_opened:
            self._is_opened = True
            request.options.CopyFrom(self._options)
        return request

    def due_s(self, now: float) -> float | None:
        """Seconds until something is to be sent again; None where nothing is."""
        return max(0.0, self._late[0][0] - now) if self._late else None

    def outcomes(
        self, reply: match_pb2.StreamMatchResponse, now: float
    ) -> Iterator[tuple[int, Outcome]]:
        """What a reply settles. Raises InternalFault for an answer that nobody waits for."""
        for answer in reply.answers:
            owed = self._owed.get(answer.id)
            if owed is None:
                raise InternalFault(f"the server answered number {answer.id}, which is not open")
            outcome = _outcome(answer)
            if isinstance(outcome, NOT_JUDGED) and owed.refusals + 1 < self._retry.attempts_max:
                self._put_off(answer.id, owed, now)
            else:
                del self._owed[answer.id]
                self._bytes -= owed.size_bytes
                yield answer.id, outcome

    def _put_off(self, number: int, owed: _Owed, now: float) -> None:
        """Those put off later wait longer, so they stand in the order in which they are due."""
        wait_s = min(self._retry.backoff_s * 2**owed.refusals, self._retry.backoff_max_s)
        owed.refusals += 1
        due = max(now + wait_s, self._late[-1][0] if self._late else 0.0)
        self._late.append((due, number))

    def _cut(self) -> list[match_pb2.StreamMatchItem]:
        items: list[match_pb2.StreamMatchItem] = []
        size_bytes = 0
        while self._unsent and len(items) < MESSAGE_ITEMS_MAX:
            owed = self._owed[self._unsent[0]]
            size_bytes += owed.size_bytes
            if items and size_bytes > MESSAGE_BYTES_MAX:
                break
            items.append(match_pb2.StreamMatchItem(id=self._unsent.popleft(), content=owed.content))
        return items


def _outcome(answer: match_pb2.StreamMatchAnswer) -> Outcome:
    if answer.WhichOneof("outcome") == "result":
        return result_from(answer.result)
    return item_error_from(answer.error)
