"""Many images of one call: as many at a time as there are workers free, each with its own end."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from itertools import count

import pytest

from simsearch.encode.fingerprint import (
    AllSignals,
    ContentFingerprint,
    ContentLimits,
    Fingerprinter,
)
from simsearch.encode.image.decoder import (
    DecodedImage,
    ImageDecoder,
    ImageRequest,
    InProcessDecoder,
)
from simsearch.encode.image.picture import ImageLimits
from simsearch.encode.registry import EncoderSet
from simsearch.encode.sandbox.helper_threads import HelperThreads
from simsearch.encode.sandbox.process import Worker
from simsearch.encode.sandbox.sandboxed_decoder import Sandbox, SandboxOptions
from simsearch.errors import SimsearchError
from simsearch.types import (
    NO_CALL,
    CallContext,
    Content,
    HashContent,
    ImageContent,
    Signal,
    TextContent,
)
from tests.encode.pictures import landscape, saved
from tests.encode.sandbox.hostile_worker import order

WAIT_S = 30
ASK = ImageRequest()
PNG = saved(landscape(1, (64, 64)), "PNG")
HOSTILE = "tests.encode.sandbox.hostile_worker"

here: contextvars.ContextVar[str] = contextvars.ContextVar("here", default="nowhere")


# ---------------------------------------------------------------- hands


@pytest.mark.parametrize("count", [0, 1, 3])
def test_answers_come_in_order(count: int) -> None:
    """However many worked, and whoever was quicker."""
    with closing(HelperThreads(count, "hand")) as hands:

        def double(number: int) -> int:
            time.sleep(0.001 * (number % 3))
            return 2 * number

        for items in ([], [7], list(range(25))):
            assert hands.map(double, items) == [2 * item for item in items]


def test_the_work_of_one_call_is_shared() -> None:
    """Items that wait for each other come to an end: three are worked on at a time."""
    together = threading.Barrier(3)
    with closing(HelperThreads(2, "hand")) as hands:
        assert len(hands.map(lambda _: together.wait(WAIT_S), range(9))) == 9


def test_nobody_waits_for_a_hand() -> None:
    """One that is busy elsewhere is missed by nobody; it comes when it is free."""
    busy, held = threading.Event(), threading.Event()
    names: list[str] = []

    def hold(number: int) -> None:
        if threading.current_thread() is not threading.main_thread():
            busy.set()
            assert held.wait(WAIT_S)

    with closing(HelperThreads(1, "hand")) as hands, ThreadPoolExecutor(1) as other:
        elsewhere = other.submit(hands.map, hold, [1, 2])
        assert busy.wait(WAIT_S)
        hands.map(lambda _: names.append(threading.current_thread().name), range(5))
        assert set(names) == {"MainThread"}
        held.set()
        elsewhere.result(WAIT_S)
        together = threading.Barrier(2)
        hands.map(lambda _: together.wait(WAIT_S), range(2))


def test_there_are_never_more_threads_than_that() -> None:
    """Whatever is asked at once."""
    before = threading.active_count()
    most = 0

    def look(_: int) -> None:
        nonlocal most
        most = max(most, threading.active_count())
        time.sleep(0.0005)

    with closing(HelperThreads(2, "hand")) as hands, ThreadPoolExecutor(6) as callers:
        for asked in [callers.submit(hands.map, look, range(30)) for _ in range(6)]:
            asked.result(WAIT_S)
    assert most <= before + 6 + 2
    assert threading.active_count() == before


@pytest.mark.parametrize("bad", [0, 3, 19])
def test_a_fault_ends_the_work(bad: int) -> None:
    """It is the caller's, whoever met it; what was not begun is not, and the hands are free."""
    begun: list[int] = []

    def work(number: int) -> None:
        begun.append(number)
        if number == bad:
            raise RuntimeError("no")
        time.sleep(0.002)

    with closing(HelperThreads(2, "hand")) as hands:
        with pytest.raises(RuntimeError):
            hands.map(work, range(20))
        assert len(begun) <= bad + 3
        together = threading.Barrier(3)
        hands.map(lambda _: together.wait(WAIT_S), range(3))


def test_a_hand_works_for_the_call() -> None:
    """What it logs has the number of that call."""
    here.set("in the call")
    together = threading.Barrier(2)

    def look(_: int) -> str:
        together.wait(WAIT_S)
        return here.get()

    with closing(HelperThreads(1, "hand")) as hands:
        assert hands.map(look, range(2)) == ["in the call"] * 2


def test_once_closed_nobody_helps() -> None:
    """The work is done all the same."""
    hands = HelperThreads(2, "hand")
    hands.close()
    assert hands.map(str, range(3)) == ["0", "1", "2"]


# ---------------------------------------------------------------- images


def _sandbox(workers: int) -> Sandbox:
    sandbox = Sandbox(ImageLimits(), SandboxOptions(workers=workers), HOSTILE)
    sandbox.open()
    return sandbox


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with closing(_sandbox(2)) as shared:
        yield shared


def reasons(outcomes: Sequence[object]) -> list[str]:
    """Of refusals, with digests or without."""
    found = (o.refusal if isinstance(o, ContentFingerprint) else o for o in outcomes)
    return [o.reason if isinstance(o, SimsearchError) else "" for o in found]


def test_one_call_uses_all_workers(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two images are decoded at a time, and never more; one image asks one worker."""
    lend, lock, lent = sandbox._pool.lend, threading.Lock(), [0]
    most: list[int] = [0]

    @contextmanager
    def counted(call: CallContext) -> Iterator[Worker]:
        with lend(call) as worker:
            with lock:
                lent[0] += 1
                most[0] = max(most[0], lent[0])
            try:
                yield worker
            finally:
                with lock:
                    lent[0] -= 1

    monkeypatch.setattr(sandbox._pool, "lend", counted)
    slow = [order("sleep 0.03", PNG)] * 16
    for files, expected in ((slow[:1], 1), (slow, 2)):
        most[0] = 0
        assert reasons(sandbox.decode_each(files, ASK)) == [""] * len(files)
        assert most[0] == expected


@pytest.mark.slow
def test_a_batch_of_images_takes_half_the_time_of_one_after_another(sandbox: Sandbox) -> None:
    """Nearly, with two workers, and where the workers' time is what it takes."""
    slow = [order("sleep 0.05", PNG)] * 16
    sandbox.decode_each(slow, ASK)
    alone_s = min(_seconds(lambda: [sandbox.decode(data, ASK) for data in slow]) for _ in range(3))
    assert min(_seconds(lambda: sandbox.decode_each(slow, ASK)) for _ in range(3)) < 0.75 * alone_s


def _seconds(act: Callable[[], object]) -> float:
    begun = time.monotonic()
    act()
    return time.monotonic() - begun


@pytest.fixture(params=["here", "sandboxed"])
def decoder(request: pytest.FixtureRequest, sandbox: Sandbox) -> ImageDecoder:
    return sandbox if request.param == "sandboxed" else InProcessDecoder(ImageLimits())


def test_one_bad_image_fails_alone(decoder: ImageDecoder) -> None:
    """In its own place, and the others are what they are alone."""
    files = [saved(landscape(n, (40 + n, 50)), "PNG") for n in range(6)]
    files[2:2] = [b"", b"no image"]
    outcomes = decoder.decode_each(files, ImageRequest())
    assert reasons(outcomes) == ["", "", "EMPTY_CONTENT", "BAD_CONTENT", "", "", "", ""]


def test_a_crash_fails_one_image_of_a_call(sandbox: Sandbox) -> None:
    """Its worker is replaced, and the next one takes the others."""
    files = [PNG, order("segfault"), PNG, PNG, order("raise x"), PNG]
    outcomes = sandbox.decode_each(files, ASK)
    assert reasons(outcomes) == ["", "DECODER_FAILED", "", "", "DECODER_FAILED", ""]


def test_a_call_that_is_over_has_no_more_images_decoded(sandbox: Sandbox) -> None:
    """Neither after its deadline nor once its caller has gone: what was begun is finished."""
    slow, before = [order("sleep 0.1", PNG)] * 12, sandbox.counts.decoded
    over = CallContext(deadline=time.monotonic() + 0.25)
    outcomes = reasons(sandbox.decode_each(slow, ASK, over))
    assert set(outcomes) == {"", "DEADLINE_PASSED"}
    assert outcomes[-1] == "DEADLINE_PASSED"
    assert sandbox.counts.decoded - before == outcomes.count("") < 10
    asked = count()
    gone = CallContext(is_wanted=lambda: next(asked) < 6)
    outcomes = reasons(sandbox.decode_each(slow, ASK, gone))
    assert set(outcomes) == {"", "NOT_READY"}
    assert outcomes.count("") <= 6


def test_an_image_of_another_call_is_not_held_up_by_many(sandbox: Sandbox) -> None:
    """It waits for as many images as are ahead of it in the queue, not for a whole batch."""
    slow = [order("sleep 0.05", PNG)] * 30
    with ThreadPoolExecutor(1) as other:
        many = other.submit(sandbox.decode_each, slow, ASK)
        time.sleep(0.1)
        sandbox.decode(PNG, ASK)
        assert not many.done()
        assert reasons(many.result(WAIT_S)) == [""] * 30


def test_closing_ends_a_call_with_many_images() -> None:
    """By name; nothing hangs, and no thread is left."""
    before = threading.active_count()
    closing_one = _sandbox(2)
    with ThreadPoolExecutor(1) as other:
        many = other.submit(closing_one.decode_each, [order("sleep 0.05", PNG)] * 40, ASK)
        time.sleep(0.2)
        closing_one.close()
        assert set(reasons(many.result(WAIT_S))) == {"", "NOT_READY"}
    assert threading.active_count() == before


class Noting(InProcessDecoder):
    """Which files are given to it, each time."""

    def __init__(self) -> None:
        super().__init__(ImageLimits())
        self.given: list[int] = []

    def decode_each(
        self, files: Sequence[bytes], ask: ImageRequest, call: CallContext = NO_CALL
    ) -> list[DecodedImage | SimsearchError]:
        self.given.append(len(files))
        return super().decode_each(files, ask, call)


def test_the_images_of_a_call_are_decoded_together() -> None:
    """Whatever stands between them."""
    noting = Noting()
    printed = Fingerprinter(EncoderSet({}), ContentLimits(), noting)
    contents: list[Content] = [
        ImageContent(PNG),
        TextContent("a sentence"),
        ImageContent(b""),
        HashContent(Signal.MD5, bytes(16)),
        ImageContent(PNG),
    ]
    assert reasons(printed.query(contents, AllSignals())) == ["", "", "EMPTY_CONTENT", "", ""]
    printed.query([TextContent("a sentence")], AllSignals())
    assert noting.given == [3]
