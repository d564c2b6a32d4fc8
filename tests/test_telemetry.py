"""Events hold numbers and words that we chose: no content, no vectors, no scores, no secrets."""

from __future__ import annotations

import ast
import io
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simsearch import telemetry
from simsearch.telemetry import EventLog, RunningCall, StageClock, log_to_stderr, set_running_call

ROOT = Path(__file__).parents[1]

FIELDS = {
    "address",
    "check",
    "grpc",
    # what it was about, by a name of ours
    "what", "part", "signal", "method", "reason", "loss", "gpu", "snapshot", "shard",
    # why: sentences of errors.py and the like, which hold no content by their own rule
    "message", "fault", "cause", "detail",
    # numbers
    "bytes", "workers", "status", "in_flight", "rows", "through", "ms", "count", "port", "number",
    "calls", "entry", "entries", "near_hits", "usual",
    # of a few letters that a bank's name may have
    "bank",
    # who is on the other side of a refused connection
    "peer",
}  # fmt: skip
"""Every field that an event may have. Before one is added here: can it ever hold content, a
vector, a score, a file name of an upload, a token, or something that a caller wrote?"""

LOGGERS = ("log", "logger", "_logger", "logging")


@pytest.fixture
def stderr(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., io.StringIO]]:
    """Starts logging as a server does, into a string; everything is put back at the end."""
    names = ("", *telemetry.OWN_LOGGERS)
    before = [
        (g, list(g.handlers), g.level, g.propagate) for g in (logging.getLogger(n) for n in names)
    ]

    def start(level: str = "INFO", log_format: str = "lines") -> io.StringIO:
        written = io.StringIO()
        monkeypatch.setattr("sys.stderr", written)
        log_to_stderr(level, log_format)
        return written

    yield start
    for logger, handlers, level, propagate in before:
        logger.handlers[:] = handlers
        logger.setLevel(level)
        logger.propagate = propagate


def failing(message: str) -> None:
    raise ValueError(message)


def test_an_event_is_one_line(stderr: Callable[..., io.StringIO]) -> None:
    """With time, level and the module in front."""
    written = stderr()
    EventLog("simsearch.live").info("view_swapped", through=7, snapshot="s-1")
    (line,) = written.getvalue().splitlines()
    assert line.endswith('Z INFO simsearch.live {"event": "view_swapped", "through": 7, '
                         '"snapshot": "s-1"}')  # fmt: skip


def test_json_is_nothing_but_json(stderr: Callable[..., io.StringIO]) -> None:
    """Ours, those of libraries, and those with an exception: each line is one object."""
    written = stderr(log_format="json")
    EventLog("simsearch.live").info("view_swapped", through=np.int64(7), rate=np.float32(0.5))
    logging.getLogger("lib").warning("took %s\nfor %s", "secret", "secret")
    try:
        failing("secret")
    except ValueError:
        EventLog("simsearch.serve").error("call_failed", exc_info=True, method="M")
        logging.getLogger("simsearch.bank").exception("bank_subscriber_failed")
    lines = [json.loads(line) for line in written.getvalue().splitlines()]
    assert [line["event"] for line in lines] == [
        "view_swapped",
        "took %s",
        "call_failed",
        "bank_subscriber_failed",
    ]
    assert (lines[0]["through"], lines[0]["rate"], lines[0]["level"]) == (7, 0.5, "INFO")
    assert lines[2]["trace"][-1] == "ValueError"
    assert "failing" in lines[2]["trace"][-2]
    assert "secret" not in written.getvalue()


@pytest.mark.parametrize("log_format", ["lines", "json"])
def test_an_exception_is_written_without_its_message(
    stderr: Callable[..., io.StringIO], log_format: str
) -> None:
    """It may quote the content that it failed at, and so may the one that it came of."""
    written = stderr(log_format=log_format)
    try:
        try:
            failing("secret one")
        except ValueError as cause:
            raise RuntimeError("secret two") from cause
    except RuntimeError:
        EventLog("simsearch.serve").error("call_failed", exc_info=True)
    assert "secret" not in written.getvalue()
    assert "RuntimeError" in written.getvalue()
    assert "ValueError" in written.getvalue()
    assert "test_telemetry.py" in written.getvalue()


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (b"secret", "<bytes>"),
        ([0.25, 0.5], "<list>"),
        (np.zeros(3), "<ndarray>"),
        ({"cosine": 0.25}, "<dict>"),
        (ValueError("secret"), "<ValueError>"),
        ("x" * 501, "x" * 499 + "…"),
        (None, None),
        (True, True),
    ],
)
def test_what_is_no_number_or_word_is_named_by_its_type(
    stderr: Callable[..., io.StringIO], value: object, shown: object
) -> None:
    """Content or a vector that was given by mistake does not get out."""
    written = stderr(log_format="json")
    EventLog("simsearch.x").info("event", detail=value)
    assert json.loads(written.getvalue())["detail"] == shown


def test_a_line_of_a_library_has_no_arguments(stderr: Callable[..., io.StringIO]) -> None:
    """Nor more than one line, nor anything below a warning."""
    written = stderr()
    logging.getLogger("asyncio").error("exception was never retrieved\nfuture: secret")
    logging.getLogger("PIL").warning("cannot read %r", b"secret")
    logging.getLogger("PIL").info("opening")
    assert "secret" not in written.getvalue()
    assert [line.split(" ", 2)[2] for line in written.getvalue().splitlines()] == [
        "ERROR asyncio exception was never retrieved",
        "WARNING PIL cannot read %r",
    ]


def test_events_of_a_call_have_its_number(stderr: Callable[..., io.StringIO]) -> None:
    """So that a failure and what led to it are found together."""
    import contextvars

    written = stderr(log_format="json")

    def call() -> None:
        set_running_call(RunningCall("0123", lambda name, began, ended: None))
        EventLog("simsearch.x").info("within")

    contextvars.copy_context().run(call)
    EventLog("simsearch.x").info("outside")
    within, outside = [json.loads(line) for line in written.getvalue().splitlines()]
    assert within["call"] == "0123"
    assert "call" not in outside


def test_stages_are_heard_by_the_call() -> None:
    """Each once, as it ends, also where it fails; without a call, by the clock alone."""
    import contextvars

    heard: list[tuple[str, bool]] = []
    clock = StageClock()

    def call() -> None:
        set_running_call(
            RunningCall("1", lambda name, began, ended: heard.append((name, began <= ended)))
        )
        with clock.stage("encode"):
            pass
        with pytest.raises(ValueError, match="x"), clock.stage("search"):
            failing("x")

    contextvars.copy_context().run(call)
    with clock.stage("decide"):
        pass
    assert heard == [("encode", True), ("search", True)]
    assert list(clock.ms) == ["encode", "search", "decide"]


# ---------------------------------------------------------------- every event there is


def logging_calls() -> Iterator[tuple[str, ast.Call]]:
    """Everywhere in the package that an event is written, by file and line."""
    for folder in ("simsearch", "index_builders"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if path.name == "telemetry.py":
                continue
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and _is_logging(node.func):
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", node


def _is_logging(function: ast.expr) -> bool:
    return (
        isinstance(function, ast.Attribute)
        and isinstance(function.value, ast.Name | ast.Attribute)
        and getattr(function.value, "id", getattr(function.value, "attr", "")) in LOGGERS
        and function.attr in {"debug", "info", "warning", "error", "critical", "exception", "log"}
    )


def test_events_are_found() -> None:
    """A rule that looked at none would always hold."""
    assert len(list(logging_calls())) > 20


def test_an_event_has_a_name_and_known_fields() -> None:
    """Its name is a constant or a parameter, never a made-up sentence; its fields are on the list
    above, so that a new one is thought about."""
    wrong = []
    for where, call in logging_calls():
        names = [k.arg for k in call.keywords if k.arg != "exc_info"]
        named = len(call.args) == 1 and _is_plain_name(call.args[0])
        if not named or any(name not in FIELDS for name in names):
            wrong.append((where, ast.unparse(call)))
    assert wrong == []


def _is_plain_name(argument: ast.expr) -> bool:
    match argument:
        case ast.Constant(value=str() as name):
            return name.replace("_", "").isalnum()
        case ast.IfExp(body=body, orelse=orelse):
            return _is_plain_name(body) and _is_plain_name(orelse)
        case ast.Name(id="event"):
            return True
        case _:
            return False


def test_nothing_writes_past_the_log() -> None:
    """No stray writer to standard error in a server, and no logger but ours."""
    found: list[Any] = []
    for path in sorted((ROOT / "simsearch").rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        if path.name == "telemetry.py" or "cli" in path.parts:
            continue
        if "sys.stderr" in source or "traceback." in source:
            found.append(str(path.relative_to(ROOT)))
    assert found == []
