"""Options that commands share, and the exit codes."""

from __future__ import annotations

import getpass
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Optional

import typer

from simsearch.cli.common.connection import has_credentials
from simsearch.errors import (
    BadInput,
    BadRequest,
    Conflict,
    Fault,
    InternalFault,
    NotAllowed,
    NotFound,
    SimsearchError,
    Unavailable,
)
from simsearch.types import Edit, EntryState, WaitUntil

EXIT_CODES: tuple[tuple[type[SimsearchError], int], ...] = (
    (BadInput, 3),
    (NotFound, 4),
    (Conflict, 5),
    (Unavailable, 6),
    (Fault, 7),
    (NotAllowed, 8),
)
EXIT_CODES_HELP = (
    "Exit codes: 0 done, 1 a fault of ours, 2 wrong usage, 3 bad input, 4 not found, "
    "5 conflict, 6 unavailable (try again), 7 an operator must act, 8 not allowed, "
    "9 `diff` found a difference, 10 `match --fail-on` found a match, "
    "11 `match --fail-on` found none, and not everything was looked at."
)
EXIT_DIFFERENT = 9
"""Not 1, as of diff(1): that is a fault of ours, and no difference at all."""
EXIT_MATCHED = 10
EXIT_INCOMPLETE = 11


def exit_code(error: SimsearchError) -> int:
    if isinstance(error, InternalFault):
        return 1
    return next((code for kind, code in EXIT_CODES if isinstance(error, kind)), 1)


Server = Annotated[
    str,
    typer.Option("--server", envvar="SIMSEARCH_SERVER", help="host:port of `simsearch serve`"),
]
Json = Annotated[bool, typer.Option("--json", help="print JSON instead of a table")]
Actor = Annotated[
    str,
    typer.Option(
        "--actor",
        envvar="SIMSEARCH_ACTOR",
        help="who edits  [default: your login, or whom the server knows you as]",
    ),
]
Wait = Annotated[
    WaitUntil,
    typer.Option("--wait", help="return once it is on disk, or once searches see it"),
]
States = Annotated[
    Optional[list[str]],  # noqa: UP045  # typer reads the annotation at run time
    typer.Option(
        "--state",
        help="active, shadow, draft, disputed, quarantined, retracted or all (repeatable)",
    ),
]
Reason = Annotated[str, typer.Option("--reason", help="why: it stays on the record")]

SERVER_DEFAULT = "127.0.0.1:50070"


def edit_by(actor: str, reason: str) -> Edit:
    """Signed as asked; where the server knows who calls, it signs itself."""
    return Edit(actor or ("" if has_credentials() else _login()), reason)


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # as in a container whose user id has no name
        raise BadRequest("who edits? this user has no login name: give --actor") from None


def time_us(text: str) -> int:
    """Microseconds since 1970 of a day or a time of day, which is local where it names no zone; 0
    for none. Raises BadRequest."""
    if not text:
        return 0
    try:
        return int(datetime.fromisoformat(text).timestamp() * 1e6)
    except ValueError:
        raise BadRequest(
            f"{text[:40]!r} is no time: as in 2027-01-31 or 2027-01-31T18:00"
        ) from None


def state_of(word: str) -> EntryState:
    try:
        return EntryState[word.upper()]
    except KeyError:
        states = ", ".join(state.name.lower() for state in EntryState)
        raise typer.BadParameter(f"{word!r}: one of {states}") from None


def states_of(words: Sequence[str] | None) -> list[EntryState]:
    """Empty for all of them."""
    given = words or ()
    return [] if "all" in given else [state_of(word) for word in given]
