"""The demo's story: ban, disguise, match, edit live, and judge every verdict."""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simsearch.cli.common.output import (
    evidence_words,
    print_json,
    print_line,
    print_table,
    unseen_words,
    verdict_name,
)
from simsearch.cli.common.server_process import ServerProcess
from simsearch.cli.demo import content, edits
from simsearch.client import Client
from simsearch.encode.image.pdq import pdq_of
from simsearch.encode.image.picture import ImageLimits, open_picture
from simsearch.errors import BadContent, SimsearchError
from simsearch.types import (
    Band,
    Content,
    Edit,
    HashContent,
    Hit,
    ImageContent,
    Signal,
    SignalState,
    TextContent,
)

EDIT = Edit("demo", "shown in the demo")
IMAGES, TEXTS = "demo-images", "demo-texts"


@dataclass(frozen=True)
class Case:
    """One question, and the weakest and strongest verdict that count as right."""

    name: str
    content: Content
    weakest: Band
    strongest: Band = Band.BLOCK

    @property
    def expected(self) -> str:
        if self.strongest is Band.NONE:
            return "NO_MATCH"
        return self.weakest.name if self.weakest is self.strongest else f"≥ {self.weakest.name}"


@dataclass(frozen=True)
class Row:
    """What became of one case."""

    case: Case
    verdict: str
    hit: str
    ms: float
    right: bool


def run_demo(*, keep: bool, as_json: bool) -> int:
    """Exit status: 0 only if every verdict was the expected one."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the server is stopped too
    directory = Path(tempfile.mkdtemp(prefix="simsearch-demo-"))
    say = _quiet if as_json else print_line
    try:
        say("starting a server (loading the encoders takes some seconds) …")
        server = ServerProcess(directory)
        try:
            return _show(server, say, keep=keep, as_json=as_json)
        finally:
            server.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _quiet(text: str) -> None:
    """With --json, standard output holds one JSON value and nothing else."""


def _show(server: ServerProcess, say: Callable[[str], None], *, keep: bool, as_json: bool) -> int:
    with Client(server.address) as client:
        _check_encoders(client, say)
        banned = _ban_everything(client)
        say(f"banned {banned} items on {server.address}; now edited copies and unrelated content:")
        rows = [_ask(client, case) for case in _cases()]
        live = _live_edit(client)
    if as_json:
        print_json({"rows": [_row_json(row) for row in rows], "live": live})
    else:
        _print(rows, live)
    wrong = sum(not row.right for row in rows) + (not live["right"])
    say(_sentence(len(rows) + 1, wrong))
    if keep:
        _keep(server, say)
    return 1 if wrong else 0


def _check_encoders(client: Client, say: Callable[[str], None]) -> None:
    for space in client.status().spaces:
        if not space.available:
            say(f"warning: encoder {space.name} is off: {space.reason}")


# ---------------------------------------------------------------- banning


def _ban_everything(client: Client) -> int:
    client.create_bank(IMAGES, EDIT, description="photographs of scikit-image")
    client.create_bank(TEXTS, EDIT, description="scam and spam in words of our own")
    photos = [ImageContent(content.photo_bytes(name)) for name in content.BANNED_PHOTOS]
    bare = HashContent(Signal.PDQ, _pdq(content.BANNED_BY_HASH_ONLY))
    added = client.add_entries(IMAGES, [*photos, bare], EDIT)
    added += client.add_entries(TEXTS, [TextContent(t) for t in content.BANNED_TEXTS], EDIT)
    for outcome in added:
        if isinstance(outcome, SimsearchError):
            raise outcome
    return len(added)


def _pdq(name: str) -> bytes:
    """The bare hash of a photograph, as a partner's list would bring it."""
    bits = pdq_of(open_picture(content.photo_bytes(name), ImageLimits()))
    if bits is None:
        raise BadContent(f"{name} is too plain for PDQ: choose another photograph")
    return bits.tobytes()


# ---------------------------------------------------------------- asking


def _cases() -> Iterator[Case]:
    for number, (name, (edit, quality)) in enumerate(edits.IMAGE_EDITS.items()):
        for file in _two(content.BANNED_PHOTOS, number):
            copy = edits.jpeg(edit(content.photo(file)), quality)
            yield Case(f"{_stem(file)}: {name}", ImageContent(copy), _owed(name))
    hashed = edits.jpeg(edits.resized(content.photo(content.BANNED_BY_HASH_ONLY)))
    name = f"{_stem(content.BANNED_BY_HASH_ONLY)}: resize (only its hash is banned)"
    yield Case(name, ImageContent(hashed), Band.BLOCK)
    for number, (name, change) in enumerate(edits.TEXT_EDITS.items()):
        for text in _two(content.BANNED_TEXTS, number):
            yield Case(f"“{text[:14].rstrip()}…”: {name}", TextContent(change(text)), Band.REVIEW)
    for file in content.UNRELATED_PHOTOS:
        unrelated = ImageContent(content.photo_bytes(file))
        yield Case(f"{_stem(file)}: unrelated", unrelated, Band.NONE, Band.NONE)
    for text in content.UNRELATED_TEXTS:
        yield Case(f"“{text[:14].rstrip()}…”: unrelated", TextContent(text), Band.NONE, Band.NONE)


def _owed(edit: str) -> Band:
    """PDQ knows a copy again unless it was cropped; then the embedding asks for a person."""
    return Band.REVIEW if edit.startswith("crop") else Band.BLOCK


def _two(items: Sequence[str], start: int) -> tuple[str, str]:
    """Two of the banned items, other ones for each edit."""
    return items[2 * start % len(items)], items[(2 * start + 1) % len(items)]


def _stem(file: str) -> str:
    return file.partition(".")[0]


def _ask(client: Client, case: Case) -> Row:
    started = time.perf_counter()
    result = client.match(case.content)
    ms = (time.perf_counter() - started) * 1e3
    hit = _strongest(result.hits[0]) if result.hits else ""
    if not result.complete:  # a blurred picture has no PDQ: the answer says so
        hit = "; ".join(filter(None, (hit, f"incomplete: {unseen_words(result)}")))
    lost = any(report.state is SignalState.UNAVAILABLE for report in result.signals)
    right = not lost and case.weakest <= result.verdict <= case.strongest
    return Row(case, verdict_name(result), hit, ms, right)


def _strongest(hit: Hit) -> str:
    return f"{hit.bank.removeprefix('demo-')}/{hit.entry_key} {evidence_words(hit.evidence[0])}"


# ---------------------------------------------------------------- editing live


def _live_edit(client: Client) -> dict[str, Any]:
    """Ban one more item while the server runs, see it match, retract it, see it match no more."""
    photo = content.photo(content.BANNED_LIVE)
    copy = ImageContent(edits.jpeg(edits.resized(photo)))
    before = client.match(copy).verdict
    banned = ImageContent(content.photo_bytes(content.BANNED_LIVE))
    started = time.perf_counter()
    added = client.add_entry(IMAGES, [banned], EDIT)
    add_ms = (time.perf_counter() - started) * 1e3
    during = client.match(copy).verdict
    started = time.perf_counter()
    client.retract_entry(IMAGES, added.entry.key, EDIT)
    retract_ms = (time.perf_counter() - started) * 1e3
    after = client.match(copy).verdict
    return {
        "item": _stem(content.BANNED_LIVE),
        "verdicts": [r.name if r else "NO_MATCH" for r in (before, during, after)],
        "add_ms": round(add_ms, 1),
        "retract_ms": round(retract_ms, 1),
        "right": (before, during, after) == (Band.NONE, Band.BLOCK, Band.NONE),
    }


# ---------------------------------------------------------------- printing


def _print(rows: Sequence[Row], live: dict[str, Any]) -> None:
    columns = ("content", "verdict", "strongest evidence and threshold", "ms", "")
    cells = [
        (
            r.case.name,
            r.verdict,
            r.hit,
            f"{r.ms:.0f}",
            "ok" if r.right else f"WRONG: expected {r.case.expected}",
        )
        for r in rows
    ]
    print_table(columns, cells)
    print_line(
        f"live edit of {live['item']}: before {live['verdicts'][0]}; banned and matchable in "
        f"{live['add_ms']} ms, then {live['verdicts'][1]}; retracted in {live['retract_ms']} ms, "
        f"then {live['verdicts'][2]}"
    )


def _row_json(row: Row) -> dict[str, Any]:
    return {
        "content": row.case.name,
        "verdict": row.verdict,
        "expected": row.case.expected,
        "hit": row.hit,
        "ms": round(row.ms, 1),
        "right": row.right,
    }


def _sentence(total: int, wrong: int) -> str:
    if wrong:
        return f"{wrong} of {total} verdicts are not the expected one"
    return f"all {total} verdicts are the expected ones"


def _keep(server: ServerProcess, say: Callable[[str], None]) -> None:
    """Leave the server up until Ctrl-C, with lines to try."""
    address = server.address
    say(f"\nthe server stays up on {address} (process {server.pid}); Ctrl-C stops it. Try:")
    say(f"  simsearch status --server {address}")
    say(f'  simsearch match --text "send one coin, get two coins back" --server {address}')
    say(f"  simsearch entry list {TEXTS} --server {address}")
    say(f"  grpcurl -plaintext {address} list")
    say(f"  grpcurl -plaintext {address} simsearch.v1.IndexService/GetStatus")
    say(
        '  grpcurl -plaintext -d \'{"content": {"text": "send one coin, get two coins back"}}\' '
        f"{address} simsearch.v1.MatchService/Match"
    )
    sys.stdout.flush()
    try:
        server.wait()
    except KeyboardInterrupt:
        say("stopping the server")
