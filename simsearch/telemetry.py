"""Telemetry: stage timing and structured log events. Never content, vectors or scores."""

from __future__ import annotations

import json
import logging
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Final

FIELD_CHARS_MAX: Final = 500
"""Of one field of an event; longer values are cut."""

OWN_LOGGERS: Final = ("simsearch", "index_builders")


# ---------------------------------------------------------------- the running call


@dataclass(frozen=True)
class RunningCall:
    """The call being served. `on_stage(name, began, ended)` is called as each stage ends, with
    times in seconds of time.perf_counter(). Any thread may call it; it must not raise."""

    id: str
    on_stage: Callable[[str, float, float], None]


_running: ContextVar[RunningCall | None] = ContextVar("running_call", default=None)


def set_running_call(call: RunningCall) -> None:
    """Sets the call of the current task; tasks that it starts inherit it."""
    _running.set(call)


class StageClock:
    """Milliseconds by stage of one request; a stage entered twice is summed."""

    def __init__(self) -> None:
        self.ms: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Times the block as one stage."""
        began = time.perf_counter()
        try:
            yield
        finally:
            ended = time.perf_counter()
            self.ms[name] = self.ms.get(name, 0.0) + (ended - began) * 1e3
            if call := _running.get():
                call.on_stage(name, began, ended)


# ---------------------------------------------------------------- events


class EventLog:
    """A logger of named events: `log.info("view_swapped", through=seq)` writes one JSON line.

    Fields are numbers and short strings. For any other value only its type is written, so that
    content or vectors passed by mistake are not logged."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def info(self, event: str, **fields: object) -> None:
        """Writes an event of level INFO."""
        self._write(logging.INFO, event, fields)

    def warning(self, event: str, **fields: object) -> None:
        """Writes an event of level WARNING."""
        self._write(logging.WARNING, event, fields)

    def error(
        self, event: str, *, exc_info: bool | BaseException = False, **fields: object
    ) -> None:
        """With the frames of an exception: the one being handled, or the one given."""
        self._write(logging.ERROR, event, fields, exc_info=exc_info)

    def _write(
        self,
        level: int,
        event: str,
        fields: Mapping[str, object],
        exc_info: bool | BaseException = False,
    ) -> None:
        if self._logger.isEnabledFor(level):
            written = {"event": event} | {k: _plain(v) for k, v in fields.items()}
            if call := _running.get():
                written["call"] = call.id
            line = json.dumps(written)
            extra = {"written": written}
            self._logger.log(level, "%s", line, exc_info=exc_info, extra=extra)


def _plain(value: object) -> str | int | float | bool | None:
    match value:
        case None | bool():
            return value
        case str():
            cut = len(value) > FIELD_CHARS_MAX
            return f"{value[: FIELD_CHARS_MAX - 1]}…" if cut else str(value)
        case Integral():
            return int(value)
        case Real():
            return float(value)
        case _:
            return f"<{type(value).__name__}>"


# ---------------------------------------------------------------- where they go


def log_to_stderr(level: str = "INFO", log_format: str = "lines") -> None:
    """Logs to standard error, one event a line, with a UTC time and the level; with "json" every
    line is JSON. Warnings of libraries are included without their arguments."""
    handler = logging.StreamHandler()
    handler.setFormatter(_JsonLines() if log_format == "json" else _Lines())
    for name in ("", *OWN_LOGGERS):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(level if name else logging.WARNING)
        logger.propagate = False


class _Lines(logging.Formatter):
    """Formats an exception as its type and frames: its message might quote content."""

    def __init__(self) -> None:
        super().__init__("%(asctime)sZ %(levelname)s %(name)s %(message)s")
        self.converter = time.gmtime

    def format(self, record: logging.LogRecord) -> str:
        if record.name.partition(".")[0] not in OWN_LOGGERS:
            record = _library_record(record)
        return super().format(record)

    def formatException(self, ei: object) -> str:
        assert isinstance(ei, tuple)
        return "\n".join(f"  {line}" for line in _frames(ei[1]))


class _JsonLines(_Lines):
    def format(self, record: logging.LogRecord) -> str:
        if record.name.partition(".")[0] not in OWN_LOGGERS:
            record = _library_record(record)
        line: dict[str, object] = {
            "time": f"{self.formatTime(record, '%Y-%m-%dT%H:%M:%S')}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
        }
        line |= getattr(record, "written", None) or {"event": record.getMessage()}
        if record.exc_info:
            line["trace"] = _frames(record.exc_info[1])
        return json.dumps(line)


def _library_record(record: logging.LogRecord) -> logging.LogRecord:
    """The first line of the message template, without the arguments, which might quote content."""
    lines = str(record.msg).splitlines() or [""]
    said = lines[0][:FIELD_CHARS_MAX]
    return logging.makeLogRecord(vars(record) | {"msg": "%s", "args": (said,), "exc_text": None})


def _frames(error: BaseException | None) -> list[str]:
    """The frames of an exception, innermost last, and its type; then those of its cause."""
    if error is None:
        return []
    stack = traceback.extract_tb(error.__traceback__)
    lines = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in stack]
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return [*lines, type(error).__name__, *(_frames(cause) if cause else [])]
