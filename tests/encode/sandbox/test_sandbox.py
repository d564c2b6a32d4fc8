"""Decoding in confined processes: whatever an image does there, it does to itself alone.

The workers are real, and so are the crashes; `hostile_worker.py` commits them.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simsearch.encode.batching.batched_encoders import BatchedImageEncoder
from simsearch.encode.encoder_protocol import Pixels
from simsearch.encode.fingerprint import (
    ContentFingerprint,
    ContentLimits,
    Fingerprinter,
    Outcome,
)
from simsearch.encode.image.decoder import (
    DecodeCounts,
    DecodedImage,
    ImageDecoder,
    ImageRequest,
    InProcessDecoder,
    PdqRows,
    decode_image,
)
from simsearch.encode.image.picture import ImageLimits, Picture, has_decoder
from simsearch.encode.image.preprocess import Preprocess
from simsearch.encode.registry import EncoderSet, LoadedEncoder
from simsearch.encode.sandbox import pool as sandbox_pool
from simsearch.encode.sandbox import process
from simsearch.encode.sandbox import sandboxed_decoder as sandbox_module
from simsearch.encode.sandbox.process import computed_s
from simsearch.encode.sandbox.sandboxed_decoder import KILLS_MAX, Sandbox, SandboxOptions
from simsearch.encode.sandbox.syscall_filter import FilterRefused, confine_calls
from simsearch.encode.sandbox.wire_format import (
    Kind,
    ProtocolError,
    decoded_body,
    receive_answer,
    send_kind,
)
from simsearch.encode.sandbox.worker import NICENESS
from simsearch.errors import (
    BadContent,
    ContentTooLarge,
    DeadlinePassed,
    DecoderFailed,
    EmptyContent,
    NoSandbox,
    NotReady,
    Overloaded,
    SimsearchError,
)
from simsearch.types import (
    BITS_BYTES,
    CallContext,
    ImageContent,
    Modality,
    PicturePart,
    Region,
    Signal,
)
from tests.encode.pictures import chunk, landscape, png, saved
from tests.encode.sandbox.hostile_worker import ATTEMPTS, order
from tests.fakes import PICTURES, FakeImageEncoder

HOSTILE = "tests.encode.sandbox.hostile_worker"

WAYS = tuple(
    Preprocess(size, mode, interpolation, 7, (0.1, 0.2, 0.3), (1.0, 1.0, 1.0))
    for size, mode, interpolation in (
        ((64, 64), "squash", "bilinear"),
        ((48, 80), "shortest", "bicubic"),
        ((80, 48), "longest", "bicubic"),
    )
)
ASKS = (
    ImageRequest(),
    ImageRequest(PdqRows.UPRIGHT),
    ImageRequest(PdqRows.DIHEDRAL, WAYS[:1]),
    ImageRequest(PdqRows.DIHEDRAL, WAYS),
    ImageRequest(PdqRows.DIHEDRAL, WAYS, 6),
)
ALL = ASKS[-1]
PNG = saved(landscape(1, (64, 64)), "PNG")
JPEG = saved(landscape(2, (300, 200)), "JPEG", quality=90)
PLAIN = saved(landscape(1, (64, 64)).point(lambda _: 128), "PNG")


@contextlib.contextmanager
def opened(limits: ImageLimits | None = None, **options: Any) -> Iterator[Sandbox]:
    sandbox = Sandbox(limits or ImageLimits(), SandboxOptions(**{"workers": 1} | options), HOSTILE)
    sandbox.open()
    try:
        yield sandbox
    finally:
        sandbox.close()


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """Shared by the tests that leave its workers as they find them, dead or alive."""
    with opened(workers=2) as shared:
        yield shared


STRICT = ImageLimits(bytes_max=250_000, pixels_max=100_000, frames_max=4)


@pytest.fixture(scope="module")
def strict() -> Iterator[Sandbox]:
    with opened(STRICT, memory_bytes_max=256 << 20) as sandbox:
        yield sandbox


def same(one: DecodedImage, other: DecodedImage) -> bool:
    """Byte for byte, and in the same shapes."""

    def plain(image: DecodedImage) -> object:
        arrays = [image.pdq, *(image.pixels[way] for way in image.pixels)]
        said = [(a.shape, a.dtype, a.tobytes()) for a in arrays if a is not None]
        parts = [(part, plain(shown)) for part, shown in image.parts]
        return list(image.pixels), said, parts, image.part, image.unseen, image.remarks

    return plain(one) == plain(other)


def refusal(act: Callable[[], object]) -> SimsearchError:
    with pytest.raises(SimsearchError) as caught:
        act()
    return caught.value


def refused(decoder: ImageDecoder, data: bytes, ask: ImageRequest = ALL) -> SimsearchError:
    return refusal(lambda: decoder.decode(data, ask))


def eventually(holds: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


def difference(sandbox: Sandbox, before: DecodeCounts) -> dict[str, int]:
    now = vars(sandbox.counts)
    return {k: now[k] - v for k, v in vars(before).items() if now[k] != v and k != "restarts"}


# ---------------------------------------------------------------- the same answers


def test_every_kind_of_file_decodes_to_the_same_bytes(
    sandbox: Sandbox, picture_copies: dict[str, bytes]
) -> None:
    """PDQ rows and pixels are those of this process, for every format, mode and question."""
    asked = [(name, data, ALL) for name, data in picture_copies.items()]
    asked += [("plain", PLAIN, ask) for ask in ASKS] + [("JPEG", JPEG, ask) for ask in ASKS]
    for name, data, ask in asked:
        there = sandbox.decode(data, ask)
        assert same(there, decode_image(data, ask, ImageLimits())), (name, ask)


def test_photographs_decode_to_the_same_bytes(sandbox: Sandbox, picture_photos: list[Path]) -> None:
    """The same for real photographs, small and large."""
    for photo in picture_photos[::300]:
        assert same(
            sandbox.decode(photo.read_bytes(), ALL),
            decode_image(photo.read_bytes(), ALL, ImageLimits()),
        ), photo


def test_published_photographs_decode_to_the_same_bytes(
    sandbox: Sandbox, picture_pdq_vectors: Path
) -> None:
    """Meta's own, of several megapixels: what is hashed there is hashed alike."""
    photos = sorted(picture_pdq_vectors.rglob("*.jpg"))
    assert len(photos) > 2
    for photo in photos[:3]:
        assert same(
            sandbox.decode(photo.read_bytes(), ALL),
            decode_image(photo.read_bytes(), ALL, ImageLimits()),
        ), photo


@pytest.mark.slow
def test_all_photographs_decode_to_the_same_bytes(
    sandbox: Sandbox, picture_photos: list[Path]
) -> None:
    """Every one of the shared ones."""
    for photo in picture_photos:
        data = photo.read_bytes()
        assert same(sandbox.decode(data, ALL), decode_image(data, ALL, ImageLimits())), photo


def test_a_picture_without_information_has_no_rows(sandbox: Sandbox) -> None:
    """LOW_INFORMATION comes through as no PDQ, with the pixels all the same."""
    decoded = sandbox.decode(PLAIN, ALL)
    assert decoded.pdq is None
    assert set(decoded.pixels) == set(WAYS)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        pytest.param(b"", EmptyContent, id="empty"),
        pytest.param(b"no image at all", BadContent, id="no image"),
        pytest.param(JPEG[: len(JPEG) // 6], BadContent, id="a sixth of a JPEG"),
        pytest.param(PNG[: len(PNG) // 6], BadContent, id="a sixth of a PNG"),
        pytest.param(bytes(300_000), ContentTooLarge, id="bytes"),
        pytest.param(png((50_000, 50_000), 8, 2, bytes(999)), ContentTooLarge, id="claimed"),
        pytest.param(saved(landscape(1, (400, 300)), "PNG"), ContentTooLarge, id="pixels"),
    ],
)
def test_refusals_come_back_as_they_were_raised(
    strict: Sandbox, data: bytes, error: type[SimsearchError]
) -> None:
    """An image that is refused is refused by the same name, in the same words."""
    here, there = refused(InProcessDecoder(STRICT), data), refused(strict, data)
    assert type(there) is type(here) is error
    assert there.message == here.message


def test_both_decoders_count_what_they_decode_and_refuse() -> None:
    """Each image once, wherever it is decoded."""
    here = InProcessDecoder(ImageLimits())
    with opened() as there:
        for decoder in (here, there):
            decoder.decode(PNG, ALL)
            refused(decoder, b"")
            refused(decoder, JPEG[:500])
            decoder.decode(JPEG, ImageRequest())
            assert decoder.counts == DecodeCounts(decoded=2, refused=2)
    here.close()


# ---------------------------------------------------------------- what the worker is


def test_a_worker_can_do_nothing_but_decode(sandbox: Sandbox) -> None:
    """No torch, no environment, no files, no sockets, bounded memory, and no way back."""
    told = json.loads(refused(sandbox, order("tell")).message)
    assert told["torch"] == []
    assert {name for name in told["environment"] if not name.startswith("LC_")} == {
        "OPENBLAS_NUM_THREADS",
        "OMP_NUM_THREADS",
        "MKL_NUM_THREADS",
    }
    memory = SandboxOptions().memory_bytes_max
    assert told["memory"] == [memory, memory]
    assert told["core"] == [0, 0]
    if not has_decoder("HEIF"):
        assert told["processes"] == [0, 0]
    assert 19 < told["cpu"] <= 23
    assert told["file"] == "PermissionError"
    assert told["socket"] == "PermissionError"
    assert told["raise"] != ""
    for pid in sandbox.pids:
        assert {int(fd.name) for fd in Path(f"/proc/{pid}/fd").iterdir()} == {0, 1, 2}
        assert os.getpriority(os.PRIO_PROCESS, pid) >= NICENESS
        assert os.getsid(pid) == pid


def test_a_worker_that_was_taken_over_can_do_nothing_else() -> None:
    """Every system call by which it could reach a file, the network, another process or more code
    fails, in a real worker; the server lives, and so does the worker, which goes on decoding."""
    with opened() as sandbox:
        [pid] = sandbox.pids
        done = json.loads(refused(sandbox, order("attempt")).message)
        harmless = {"prlimit64 of itself, read"}
        assert set(done) == set(ATTEMPTS)
        refusals = {errno.EPERM, errno.ENOSYS}
        assert {name for name, code in done.items() if code not in refusals} == harmless
        assert same(sandbox.decode(PNG, ALL), decode_image(PNG, ALL, ImageLimits()))
        assert sandbox.pids == [pid]


def test_the_same_calls_are_made_without_the_filter() -> None:
    """Or the test above would hold of anything: without it a worker reads what its server may."""
    with opened(syscall_filter=False) as sandbox:
        done = json.loads(refused(sandbox, order("attempt_some")).message)
    assert done == {"newfstatat": 0, "kill itself": 0, "mmap of code": 0, "rt_sigaction": 0}


def test_without_its_filter_no_worker_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system refuses it, the fault says by which key workers run without it."""
    with pytest.raises(NoSandbox, match=r"syscall_filter = false in \[sandbox\]"):
        Sandbox(ImageLimits(), SandboxOptions(), "tests.encode.sandbox.unfiltered_worker").open()


def test_no_filter_is_known_for_other_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers of system calls are those of one machine."""
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(FilterRefused, match="riscv64"):
        confine_calls()


# ---------------------------------------------------------------- crash, hang, bomb


@pytest.mark.parametrize(
    "deed", ["segfault", "abort", "leave", "eat_natively", "babble 6f6f707321", "babble 0300000000"]
)
def test_a_crash_fails_one_request_by_name(strict: Sandbox, deed: str) -> None:
    """The decoder is killed, aborts, leaves, or talks nonsense: that image was not judged, and
    the next one is, by the same sandbox."""
    before, tail = strict.counts, b"only of this test"
    failed = refused(strict, order(deed, tail))
    assert type(failed) is DecoderFailed
    assert "was not judged" in failed.message
    assert same(strict.decode(PNG, ALL), decode_image(PNG, ALL, ImageLimits()))
    assert difference(strict, before) == {"crashes": 1, "decoded": 1}


def test_an_unexpected_fault_of_the_decoder_is_named_and_quotes_nothing(sandbox: Sandbox) -> None:
    """A fault that nobody foresaw is still an answer; its words, which may quote the file, stay
    behind."""
    before = sandbox.counts
    failed = refused(sandbox, order("raise private words"))
    assert type(failed) is DecoderFailed
    assert "RuntimeError" in failed.message
    assert "private" not in failed.message
    assert difference(sandbox, before) == {"refused": 1}


def test_memory_is_bounded_and_its_end_has_a_name(strict: Sandbox) -> None:
    """An image that wants more memory than a worker has is too large; the worker lives on."""
    before, pids = strict.counts, strict.pids
    failed = refused(strict, order("eat"))
    assert type(failed) is ContentTooLarge
    assert "memory" in failed.message
    strict.decode(PNG, ALL)
    assert difference(strict, before) == {"refused": 1, "decoded": 1}
    assert strict.pids == pids


def bomb() -> bytes:
    """A PNG of 200 KB in a palette: 13,000 × 13,000 pixels, over 600 MB in RGB."""
    packer = zlib.compressobj(9)
    row = b"\0" * 13_001
    body = b"".join(packer.compress(row) for _ in range(13_000)) + packer.flush()
    whole = png((13_000, 13_000), 8, 3, b"", chunk(b"PLTE", bytes(768)))
    at = whole.index(b"IDAT") - 4
    return whole[:at] + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def test_a_picture_bomb_is_too_large_and_leaves_the_server_its_memory() -> None:
    """By its size under the usual limits; where such sizes are allowed, by its worker's memory."""
    data = bomb()
    assert len(data) < 250_000
    roomy = ImageLimits(pixels_max=170_000_000)
    with opened(roomy, memory_bytes_max=512 << 20) as small, opened() as usual:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for sandbox in (small, usual):
            assert type(refused(sandbox, data)) is ContentTooLarge
            sandbox.decode(PNG, ALL)
            assert sandbox.counts == DecodeCounts(decoded=1, refused=1)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


def test_an_endless_loop_is_killed_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the server's clock: the image took too long, and the next one is decoded."""
    # A machine with other things to do gives the loop less than its half.
    monkeypatch.setattr(process, "computed_s", lambda _: time.monotonic())
    with opened(timeout_s=0.5) as sandbox:
        began = time.monotonic()
        failed = refused(sandbox, order("loop"))
        assert 0.5 < time.monotonic() - began < 10
        assert type(failed) is DecoderFailed
        assert "took too long" in failed.message
        assert sandbox.counts.timeouts == 1
        monkeypatch.undo()
        until_decoded(sandbox)


def until_decoded(sandbox: Sandbox) -> None:
    """With half a second for an image, a busy machine may say so."""
    for _ in range(20):
        with contextlib.suppress(Overloaded):
            sandbox.decode(PNG, ImageRequest())
            return
    raise AssertionError("never came to it")


def test_what_a_worker_computes_is_known() -> None:
    """One in a loop uses its time, one asleep does not: that tells a hang from a busy machine."""
    with opened(workers=2) as sandbox, ThreadPoolExecutor(2) as threads:
        going = [threads.submit(refused, sandbox, order("loop"))]
        loop = busy(sandbox)
        going.append(threads.submit(refused, sandbox, order("sleep 60")))
        [asleep] = set(sandbox.pids) - {loop}
        before = computed_s(loop), computed_s(asleep)
        eventually(lambda: computed_s(loop) - before[0] > 0.5)
        assert computed_s(asleep) - before[1] < 0.2
        sandbox.close()
        assert {type(one.result(20)) for one in going} == {NotReady}


@pytest.mark.slow
def test_an_endless_loop_is_killed_without_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system counts what a worker computes for an image, and ends it where nobody else does."""
    monkeypatch.setattr(sandbox_module, "CPU_S_SPARE", -59)
    with opened(timeout_s=60) as sandbox:
        failed = refused(sandbox, order("loop"))
    assert type(failed) is DecoderFailed
    assert "took too long" in failed.message
    assert sandbox.counts.timeouts == 1


def test_a_worker_without_a_processor_is_not_the_images_fault() -> None:
    """Time on the clock in which nothing was computed is no proof against an image: retry."""
    with opened(timeout_s=0.2) as sandbox:
        for _ in range(KILLS_MAX + 1):
            failed = refused(sandbox, order("sleep 60"))
            assert isinstance(failed, Overloaded)
        assert sandbox.counts.starved == KILLS_MAX + 1


@pytest.mark.slow
def test_many_images_of_one_worker_do_not_add_up_to_a_hang() -> None:
    """The limit of computing time is for each image, not for all that a worker sees."""
    with opened(timeout_s=60) as sandbox:
        sandbox.decode(order("compute 1.5", PNG), ImageRequest())
        assert json.loads(refused(sandbox, order("tell")).message)["cpu"] > 60.5


# ---------------------------------------------------------------- who killed twice


def test_what_killed_two_workers_is_given_to_no_third(sandbox: Sandbox) -> None:
    """Refused by name and counted, without a worker; other contents are decoded as ever."""
    killer = order("segfault", b"for the third time")
    for _ in range(KILLS_MAX):
        assert "broke its decoder" in refused(sandbox, killer).message
    sandbox.decode(PNG, ALL)
    before, pids = sandbox.counts, sandbox.pids
    for _ in range(3):
        failed = refused(sandbox, killer)
        assert type(failed) is DecoderFailed
        assert "not decoded again" in failed.message
    assert difference(sandbox, before) == {"digests_refused": 3}
    assert sandbox.pids == pids
    sandbox.decode(PNG, ALL)
    assert "broke its decoder" in refused(sandbox, killer + b"!").message


def test_one_that_was_decoded_in_between_did_not_do_it() -> None:
    """A worker may die of other things while it has an image: only one after the other counts,
    or whatever is uploaded most would be refused first."""
    innocent = order("sleep 0.3", PNG)
    with opened() as sandbox, ThreadPoolExecutor(1) as threads:
        for _ in range(KILLS_MAX + 1):
            going = threads.submit(refused, sandbox, innocent)
            os.kill(busy(sandbox), signal.SIGKILL)
            assert type(going.result(20)) is DecoderFailed
            sandbox.decode(innocent, ImageRequest())
        assert sandbox.counts.digests_refused == 0


def test_killers_are_forgotten_least_recent_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is remembered is bounded; one that is asked about or blamed again stays."""
    monkeypatch.setattr(sandbox_module, "POISON_MAX", 2)
    killers = sandbox_module.PoisonContents()
    assert killers.kills(b"a") == 0
    assert [killers.blame(b"a"), killers.blame(b"a"), killers.blame(b"b")] == [1, 2, 1]
    assert killers.kills(b"a") == 2
    killers.blame(b"c")
    assert [killers.kills(data) for data in (b"a", b"b", b"c")] == [2, 0, 1]


# ---------------------------------------------------------------- killed from outside


def test_workers_that_die_idle_cost_no_request() -> None:
    """Whoever kills them, and however often: the images after it are decoded."""
    with opened(workers=2) as sandbox:
        for number in range(4):
            for pid in sandbox.pids[: 1 + number % 2]:
                os.kill(pid, signal.SIGKILL)
            sandbox.decode(PNG, ALL)
        assert sandbox.counts.decoded == 4
        assert sandbox.counts.crashes == 0


def test_dead_idle_workers_are_replaced_unasked() -> None:
    """Before the next image has to wait for it."""
    with opened(workers=2) as sandbox:
        before = set(sandbox.pids)
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: len(sandbox.pids) == 2 and before.isdisjoint(sandbox.pids))
        assert sandbox.counts.restarts == 2


def test_a_worker_killed_in_the_middle_fails_its_request_alone() -> None:
    """As when memory ran out and the system chose it."""
    with opened(workers=2) as sandbox, ThreadPoolExecutor(1) as threads:
        going = threads.submit(refused, sandbox, order("sleep 60"))
        victim = busy(sandbox)
        sandbox.decode(PNG, ALL)
        os.kill(victim, signal.SIGKILL)
        assert type(going.result(20)) is DecoderFailed
        sandbox.decode(PNG, ALL)
        assert sandbox.counts.crashes == 1


def busy(sandbox: Sandbox) -> int:
    """The worker that has read an image and works on it, once there is one."""
    pool = sandbox._pool

    def at_work() -> list[int]:
        return [w.process.pid for w in pool._alive if w not in pool._idle and w.begun]

    eventually(at_work)
    return at_work()[0]


def test_every_request_is_answered_while_workers_keep_dying() -> None:
    """A hundred images from sixteen threads, a tenth of them killers, and somebody who kills
    workers from outside: every one is decoded rightly or refused by name, none is lost."""
    expected = decode_image(JPEG, ALL, ImageLimits())
    hold = threading.Event()

    def ask(sandbox: Sandbox, number: int) -> str:
        tail = b"%d" % number
        data = JPEG + tail if number % 10 else order("segfault", tail)
        try:
            assert same(sandbox.decode(data, ALL), expected)
        except SimsearchError as failed:
            return type(failed).__name__
        return "decoded"

    def murder(sandbox: Sandbox) -> None:
        while not hold.wait(0.25):
            for pid in sandbox.pids[:1]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    with opened(workers=2) as sandbox, ThreadPoolExecutor(17) as threads:
        killing = threads.submit(murder, sandbox)
        answers = list(threads.map(lambda n: ask(sandbox, n), range(100)))
        hold.set()
        killing.result()
        sandbox.decode(PNG, ALL)
        counts = sandbox.counts
    assert set(answers) <= {"decoded", "DecoderFailed", "Overloaded"}
    assert all(answers[number] != "decoded" for number in range(0, 100, 10))
    assert answers.count("decoded") >= 40
    assert counts.decoded == answers.count("decoded") + 1
    assert counts.crashes == answers.count("DecoderFailed")


# ---------------------------------------------------------------- waiting


@contextlib.contextmanager
def occupied(sandbox: Sandbox) -> Iterator[None]:
    """Its one worker is busy until the end of the block."""
    with ThreadPoolExecutor(1) as threads:
        going = threads.submit(refused, sandbox, order("sleep 60"))
        pid = busy(sandbox)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGKILL)
            going.result(20)


def test_waiting_for_a_worker_ends_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the call's deadline, with the call itself, and in any case after a while; and only
    so many wait."""
    with opened() as sandbox, occupied(sandbox):
        began = time.monotonic()
        late = CallContext(deadline=began + 0.1)
        assert type(refusal(lambda: sandbox.decode(PNG, ALL, late))) is DeadlinePassed
        gone = CallContext(is_wanted=lambda: time.monotonic() < began + 0.3)
        assert type(refusal(lambda: sandbox.decode(PNG, ALL, gone))) is NotReady
        monkeypatch.setattr(sandbox_pool, "WAIT_S_MAX", 0.1)
        assert type(refused(sandbox, PNG)) is Overloaded
        monkeypatch.setattr(sandbox_pool, "WAITING_MAX", 0)
        monkeypatch.setattr(sandbox_pool, "WAIT_S_MAX", 60)
        assert type(refused(sandbox, PNG)) is Overloaded
        assert time.monotonic() - began < 20


def test_work_that_nobody_waits_for_is_not_begun(sandbox: Sandbox) -> None:
    """A free worker is not given an image whose time is over or whose caller has gone."""
    before = sandbox.counts
    over = CallContext(deadline=time.monotonic() - 1)
    assert type(refusal(lambda: sandbox.decode(PNG, ALL, over))) is DeadlinePassed
    gone = CallContext(is_wanted=lambda: False)
    assert type(refusal(lambda: sandbox.decode(PNG, ALL, gone))) is NotReady
    assert difference(sandbox, before) == {}


def test_whoever_waits_longest_is_next() -> None:
    """One after the other as they came, however often each looks whether it may go on."""
    names, turns = "abcdefgh", ""

    def come(sandbox: Sandbox, name: str) -> None:
        nonlocal turns
        sandbox.decode(order("sleep 0.05", PNG), ImageRequest())
        turns += name

    with opened() as sandbox, ThreadPoolExecutor(len(names)) as threads:
        with occupied(sandbox):
            going = []
            for place, name in enumerate(names, start=1):
                going.append(threads.submit(come, sandbox, name))
                until_waiting(sandbox, place)
            time.sleep(4 * sandbox_pool.POLL_S)
        for one in going:
            one.result(20)
    assert turns == names


def until_waiting(sandbox: Sandbox, count: int) -> None:
    eventually(lambda: len(sandbox._pool._waiting) == count)


# ---------------------------------------------------------------- worn workers


def test_worn_workers_are_replaced_before_they_are_missed() -> None:
    """After so many images a worker goes, once another has come; at no time are there fewer, or
    more than one too many."""
    with opened(workers=2, images_per_worker=5) as sandbox:
        first = set(sandbox.pids)
        seen = set()

        def renewed() -> bool:
            sandbox.decode(PNG, ImageRequest())
            seen.add(len(sandbox.pids))
            return first.isdisjoint(sandbox.pids)

        eventually(renewed)
        assert seen <= {2, 3}
        assert sandbox.counts.restarts >= 2
        assert sandbox.counts.crashes == 0
        eventually(lambda: all(not _runs(pid) for pid in first))


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


# ---------------------------------------------------------------- beginning and end


def test_workers_that_cannot_start_are_a_fault_by_name() -> None:
    """With the cause in it, and what else can be done; nothing is left behind."""
    absent = Sandbox(ImageLimits(), SandboxOptions(), "tests.encode.no_such_worker")
    failed = refusal(absent.open)
    assert type(failed) is NoSandbox
    assert "no_such_worker" in failed.message
    assert "workers = 0" in failed.message
    assert absent.pids == []


def test_an_interpreter_that_is_not_there_is_a_fault_by_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same where not even a process can be made."""
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    failed = refusal(Sandbox(ImageLimits(), SandboxOptions()).open)
    assert type(failed) is NoSandbox
    assert "/nowhere/python" in failed.message


def test_workers_that_cannot_come_back_are_said_at_once_and_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody waits for a worker that does not come; when it can come again, all is well."""
    with opened() as sandbox:
        monkeypatch.setattr(sandbox_pool, "RETRY_S", 0.1)
        monkeypatch.setattr(sys, "executable", "/nowhere/python")
        os.kill(sandbox.pids[0], signal.SIGKILL)
        began = time.monotonic()
        failed = refused(sandbox, PNG)
        assert type(failed) is NotReady
        assert "/nowhere/python" in failed.message
        assert time.monotonic() - began < 10
        monkeypatch.undo()
        eventually(lambda: sandbox.pids)
        sandbox.decode(PNG, ALL)


def test_close_ends_workers_and_whoever_waits() -> None:
    """In the middle of an image too; what comes after is refused, and closing twice is closing."""
    with opened(workers=1) as sandbox, ThreadPoolExecutor(2) as threads:
        going = threads.submit(refused, sandbox, order("loop"))
        pid = busy(sandbox)
        waiting = threads.submit(refused, sandbox, PNG)
        sandbox.close()
        assert type(going.result(20)) is NotReady
        assert type(waiting.result(20)) is NotReady
        assert type(refused(sandbox, PNG)) is NotReady
        assert not _runs(pid)
        assert sandbox.counts == DecodeCounts()


ORPHANS = """
import threading
from tests.encode.sandbox.test_sandbox import *
sandbox = Sandbox(ImageLimits(), SandboxOptions(workers=2), HOSTILE)
sandbox.open()
threading.Thread(target=sandbox.decode, args=(order("loop"), ALL), daemon=True).start()
busy(sandbox)
print(*sandbox.pids, flush=True)
time.sleep(60)
"""


def test_workers_do_not_outlive_a_killed_server() -> None:
    """Neither an idle one nor one in an endless loop."""
    with subprocess.Popen([sys.executable, "-c", ORPHANS], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        pids = [int(pid) for pid in server.stdout.readline().split()]
        assert [_runs(pid) for pid in pids] == [True, True]
        server.kill()
    eventually(lambda: not any(_runs(pid) for pid in pids))


# ---------------------------------------------------------------- what a worker may say


@given(st.binary(max_size=200), st.sampled_from(ASKS[:2]))
def test_whatever_a_worker_says_it_is_an_answer_or_nonsense(said: bytes, ask: ImageRequest) -> None:
    """Nothing that comes back makes the server do more than refuse."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(said)
        theirs.close()
        with contextlib.suppress(ProtocolError, EOFError, OSError, SimsearchError):
            receive_answer(ours, ask, time.monotonic() + 5)


WHOLE = "00000000 00 0000 0000 0000 0000"
REGION = "00000000 00 0000 0000 0001 0001"
NO_NOTES = bytes(2)


def answer_of(*parts: str, rows: int = 0) -> bytes:
    """What a worker says of these parts, each with so many rows of PDQ."""
    pictures = (bytes([rows]) + bytes(rows * BITS_BYTES)) * len(parts)
    return bytes([len(parts)]) + b"".join(map(bytes.fromhex, parts)) + pictures


def test_the_answers_below_are_wrong_in_one_thing_alone() -> None:
    """What they are made of is an answer."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        send_kind(theirs, Kind.DECODED, answer_of(WHOLE, REGION, rows=1) + b"\1\1x\0")
        answer = receive_answer(ours, ImageRequest(PdqRows.UPRIGHT, (), 1), time.monotonic() + 5)
    assert [part for part, _ in answer.parts] == [PicturePart(region=Region(0, 0, 1e-4, 1e-4))]
    assert answer.unseen == ("x",)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (Kind.DECODED, bytes(1)),
        (Kind.DECODED, bytes(8 * BITS_BYTES)),
        (Kind.DECODED, answer_of(WHOLE, rows=1)[:-1] + NO_NOTES),
        (Kind.DECODED, answer_of(WHOLE, rows=1) + NO_NOTES + b"\0"),
        (Kind.DECODED, answer_of(WHOLE, rows=8) + NO_NOTES),
        (Kind.DECODED, answer_of(WHOLE, WHOLE) + NO_NOTES),
        (Kind.DECODED, answer_of(WHOLE, REGION, WHOLE) + NO_NOTES),
        (Kind.DECODED, answer_of(REGION) + NO_NOTES),
        (Kind.DECODED, answer_of(WHOLE, "00000000 02 0000 0000 0000 0000") + NO_NOTES),
        (Kind.DECODED, answer_of(WHOLE, "00000001 00 0000 0000 0000 0000") + NO_NOTES),
        (Kind.DECODED, answer_of(WHOLE, "00000000 00 0000 0001 0000 0001") + NO_NOTES),
        (Kind.DECODED, answer_of(WHOLE, "00000000 00 0000 0000 2711 2711") + NO_NOTES),
        (Kind.DECODED, answer_of(WHOLE) + b"\x09" + 9 * b"\1x" + b"\0"),
        (Kind.DECODED, answer_of(WHOLE) + b"\1\1\x1b\0"),
        (Kind.DECODED, answer_of(WHOLE) + b"\1\2\xc3\xa4\0"),
        (Kind.DECODED, answer_of(WHOLE) + b"\1\xc9" + 201 * b"x" + b"\0"),
        (Kind.BEGUN, b""),
        (Kind.REFUSED, b"INTERNAL\nwords"),
        (Kind.REFUSED, b"BAD_CONTENT\n" + bytes(5_000)),
        (Kind.REFUSED, b""),
    ],
)
def test_only_the_answer_that_was_asked_for_is_one(kind: Kind, body: bytes) -> None:
    """Sizes, kinds and errors that no worker may give are nonsense."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        send_kind(theirs, kind, body)
        with pytest.raises(ProtocolError):
            receive_answer(ours, ImageRequest(PdqRows.UPRIGHT, (), 1), time.monotonic() + 5)


def test_a_region_goes_through_as_it_was_found() -> None:
    """Of its edges the ten-thousandths, and a part that is too plain for PDQ has no rows of it."""
    part = (PicturePart(region=Region(0, 0.3333, 0.9999, 1)), DecodedImage(None, {}))
    ask = ImageRequest(PdqRows.UPRIGHT, (), 1)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        whole = DecodedImage(np.ones((1, BITS_BYTES), np.uint8), {}, (part,))
        send_kind(theirs, Kind.DECODED, decoded_body(whole, ask))
        assert same(receive_answer(ours, ask, time.monotonic() + 5), whole)


def test_a_worker_that_talks_unasked_is_not_asked_again() -> None:
    """An answer that lies ready before the question would be taken for the answer to it."""
    with opened() as sandbox:
        pids = sandbox.pids
        refused(sandbox, order("raise"))
        assert sandbox.pids == pids
        [worker] = sandbox._pool._alive
        late = order("babble_later 0300000000", PNG)
        sandbox.decode(late, ImageRequest())
        eventually(lambda: sandbox.pids and sandbox.pids != pids)
        assert worker.process.returncode is not None
        sandbox.decode(PNG, ALL)


# ---------------------------------------------------------------- where it is used


class DescribedEncoder(FakeImageEncoder):
    """One that can say how its pixels are made, and is not asked to make them."""

    preprocess = WAYS[0]

    def prepare(self, picture: Picture) -> Pixels:
        raise AssertionError("its pixels are made in the sandbox")


def fingerprints(decoder: ImageDecoder | None, encoder: FakeImageEncoder) -> list[object]:
    """What is banned and asked with, as plain values."""
    loaded = {"pictures": LoadedEncoder("pictures", Modality.IMAGE, BatchedImageEncoder(encoder))}
    fingerprinter = Fingerprinter(EncoderSet(loaded), ContentLimits(), decoder)
    contents = [ImageContent(JPEG), ImageContent(b"none"), ImageContent(PLAIN)]
    wanted = {(Signal.PDQ, None), (PICTURES.id, Modality.IMAGE)}
    made = fingerprinter.ban(contents) + fingerprinter.query(contents, wanted)
    made += fingerprinter.query(contents, {(PICTURES.id, Modality.IMAGE)})
    for loaded_encoder in loaded.values():
        assert isinstance(loaded_encoder.image, BatchedImageEncoder)
        loaded_encoder.image.close()
    return [_plain(outcome) for outcome in made]


def _plain(outcome: Outcome) -> object:
    if isinstance(outcome, SimsearchError):
        return type(outcome), outcome.message
    held = outcome.fingerprint
    rows = [(str(name), array.tobytes()) for name, array in held.bits.items()]
    rows += [(name, array.tobytes()) for name, array in held.vectors.items()]
    return held.digests, rows, outcome.reports


@pytest.mark.parametrize("kind", [DescribedEncoder, FakeImageEncoder])
def test_fingerprints_are_those_of_this_process(
    sandbox: Sandbox, kind: type[FakeImageEncoder]
) -> None:
    """Whether the encoder can say how its pixels are made, or only it can make them."""
    before = sandbox.counts
    there = fingerprints(sandbox, kind())
    assert difference(sandbox, before) == {"decoded": 6, "refused": 3}
    assert there == fingerprints(None, kind())
    assert there[0] != there[2]


def test_an_encoder_that_cannot_say_makes_its_pixels_itself() -> None:
    """In this process, and only where the sandbox has survived the image."""
    foreign = FakeImageEncoder()
    fingerprints(None, foreign)
    assert foreign.prepared == 6


def test_a_call_that_is_over_ends_the_wait_for_its_images(sandbox: Sandbox) -> None:
    """The deadline of a call reaches the pool."""
    fingerprinter = Fingerprinter(EncoderSet({}), ContentLimits(), sandbox)
    over = CallContext(deadline=time.monotonic() - 1)
    [outcome] = fingerprinter.query([ImageContent(PNG)], {(Signal.PDQ, None)}, over)
    assert isinstance(outcome, ContentFingerprint)
    assert type(outcome.refusal) is DeadlinePassed
