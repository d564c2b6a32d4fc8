"""What callers send is nowhere but in the bank and in their own answers: marks are put into every
place that a request has, and looked for in the log, on the metrics page and in every refusal.

Four names a caller is told again, so that a typo can be seen, and nobody else: of the bank, the
space, the actor and the etag that were asked for. Banks that there are stand on the metrics page.
"""

from __future__ import annotations

import base64
import io
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

import grpc
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from simsearch.types import Signal
from simsearch.v1 import bank_pb2, content_pb2, match_pb2
from simsearch.wire.enums import HASH_SIGNAL_NUMBERS
from tests.encode.pictures import exif, landscape, saved
from tests.fakes import DIM
from tests.serve.attacked import Target, attacked, target
from tests.serve.fuzzing import RPCS, broken

__all__ = ["target"]

CONTENT: Final = "xylomarkzq"
"""Of all that nobody may be told. Letters that no normalisation changes."""

NAME: Final = "ofanamezq"
"""Of the names that their own caller is told again."""

REAL: Final = 0.739182
"""In every vector that is whole."""

TEXT_SPACE: Final = "prose"


Metadata = tuple[tuple[str, str | bytes], ...]


class Request(NamedTuple):
    """`mangled`: any of its bytes may have become the name of something."""

    method: str
    payload: bytes
    metadata: Metadata
    mangled: bool = False


def requests(count: int, target: Target, seed: int = 3) -> Iterator[Request]:
    """Each with a mark of its own, in one place or in many."""
    rng = random.Random(seed)
    known: Metadata = target.metadata()
    for number in range(count):
        mark = f"{CONTENT}{number:05d}"
        metadata = rng.choice((known, known, known, _headers(mark, known, rng)))
        method, message = rng.choice(_MAKERS)(mark, rng)
        payload = message.SerializeToString()
        mangled = rng.random() < 0.2
        yield Request(
            f"/simsearch.v1.{method}",
            broken(payload, rng) if mangled else payload,
            metadata,
            mangled,
        )


def _headers(mark: str, known: Metadata, rng: random.Random) -> Metadata:
    """In a token that is wrong, one that is none, and in headers of any kind."""
    token = f"sst_0123456789ab_{mark.ljust(43, 'a')}"
    odd: Sequence[Metadata] = (
        (("authorization", f"Bearer {token}"),),
        (("authorization", f"Basic {mark}"),),
        (("authorization", mark),),
        (*known, ("simsearch-priority", mark)),
        (*known, ("x-request-id", mark), ("x-mark-bin", mark.encode())),
        (*known, ("traceparent", mark), ("baggage", f"user={mark}")),
        ((f"x-{mark}", mark),),
    )
    return rng.choice(odd)


# ---------------------------------------------------------------- where marks are put

Made = tuple[str, Any]


def _content(mark: str, rng: random.Random) -> content_pb2.Content:
    match rng.randrange(8):
        case 0:
            return content_pb2.Content(text=f"{mark} in a sentence of some length about boats")
        case 1:
            return content_pb2.Content(text=mark * 2_000)  # too long
        case 2:
            return content_pb2.Content(image=_marked_image(mark, rng))
        case 3:
            return content_pb2.Content(image=b"\x89PNG\r\n\x1a\n" + mark.encode() * 9)
        case 4:
            return content_pb2.Content(image=_marked_image(mark, rng)[:-70])
        case 5:
            return content_pb2.Content(vector=_vector(mark, rng))
        case _:
            signal = rng.choice((Signal.PDQ, Signal.SHA256, Signal.MD5))
            value = mark.encode().ljust(rng.choice((16, 32)), b"z")
            number = HASH_SIGNAL_NUMBERS[signal]
            return content_pb2.Content(hash=content_pb2.Hash(signal=number, value=value))


def _vector(mark: str, rng: random.Random) -> content_pb2.Vector:
    whole = np.zeros(DIM, np.float32)
    whole[0], whole[1 + rng.randrange(DIM - 1)] = REAL, np.sqrt(1 - REAL**2)
    marked = mark.encode().ljust(4 * DIM, b"~")
    data = rng.choice((whole.tobytes(), marked, (REAL * whole).tobytes()))
    return content_pb2.Vector(space=TEXT_SPACE, dtype=content_pb2.VECTOR_DTYPE_FLOAT32, data=data)


def _marked_image(mark: str, rng: random.Random) -> bytes:
    picture = landscape(rng.randrange(4), (40, 30))
    if rng.random() < 0.5:
        tags = exif(1)
        tags[0x010E] = mark  # its description
        return saved(picture, "JPEG", exif=tags, comment=mark.encode())
    note = PngImagePlugin.PngInfo()
    note.add_text("Comment", mark)
    out = io.BytesIO()
    Image.frombytes("RGB", (8, 8), mark.encode().ljust(192, b"q")).save(out, "PNG", pnginfo=note)
    return out.getvalue()


def _match(mark: str, rng: random.Random) -> Made:
    return "MatchService/Match", match_pb2.MatchRequest(content=_content(mark, rng))


def _match_of_names(mark: str, rng: random.Random) -> Made:
    name = mark.replace(CONTENT, NAME)
    vector = content_pb2.Vector(space=name, dtype=content_pb2.VECTOR_DTYPE_FLOAT32, data=b"abcd")
    message = match_pb2.MatchRequest(content=content_pb2.Content(vector=vector))
    if rng.random() < 0.5:
        message = match_pb2.MatchRequest(content=_content(mark, rng))
        message.options.banks.append(name)
    return "MatchService/Match", message


def _batch(mark: str, rng: random.Random) -> Made:
    contents = [_content(mark, rng) for _ in range(3)]
    return "MatchService/BatchMatch", match_pb2.BatchMatchRequest(contents=contents)


def _edit(mark: str, rng: random.Random) -> bank_pb2.Edit:
    return bank_pb2.Edit(reason=rng.choice((f"because of {mark}", mark * 300, " ")))


def _add(mark: str, rng: random.Random) -> Made:
    long = mark * rng.choice((1, 1, 1, 400))
    entry = bank_pb2.EntryDraft(
        contents=[_content(mark, rng)], labels=[mark], source=mark, source_id=mark, note=long
    )
    request = bank_pb2.AddEntryRequest(bank="fuzz-a", entry=entry, edit=_edit(mark, rng))
    return "BankService/AddEntry", request


def _add_in_a_batch(mark: str, rng: random.Random) -> Made:
    drafts = [
        bank_pb2.EntryDraft(contents=[_content(mark, rng)], labels=[long])
        for long in (mark, mark * 9)
    ]
    request = bank_pb2.BatchAddEntriesRequest(bank="fuzz-a", entries=drafts, edit=_edit(mark, rng))
    return "BankService/BatchAddEntries", request


def _sign_as_another(mark: str, rng: random.Random) -> Made:
    edit = bank_pb2.Edit(actor=mark.replace(CONTENT, NAME), reason=mark)
    return "BankService/RetractEntry", bank_pb2.RetractEntryRequest(
        bank="fuzz-a", key=rng.randrange(9), edit=edit
    )


def _list(mark: str, rng: random.Random) -> Made:
    return "BankService/ListEntries", bank_pb2.ListEntriesRequest(bank="fuzz-b", page_token=mark)


def _update(mark: str, rng: random.Random) -> Made:
    etag = rng.choice(("", mark.replace(CONTENT, NAME)))
    edit = _edit(mark, rng)
    request = bank_pb2.UpdateBankRequest(name="fuzz-b", description=mark, etag=etag, edit=edit)
    return "BankService/UpdateBank", request


def _create(mark: str, rng: random.Random) -> Made:
    name = mark.replace(CONTENT, NAME).upper()  # none that a bank can have
    request = bank_pb2.CreateBankRequest(name=name, description=mark, edit=_edit(mark, rng))
    return "BankService/CreateBank", request


_MAKERS: Final[tuple[Callable[[str, random.Random], Made], ...]] = (
    *(_match, _match, _match, _match_of_names, _batch, _batch),
    *(_add, _add_in_a_batch, _sign_as_another, _list, _update, _create),
)


# ---------------------------------------------------------------- where they are looked for


def forms(word: str) -> list[bytes]:
    """As it is, and as it would be were it printed, packed or escaped."""
    raw = word.encode()
    quads = [base64.b64encode(b"." * shift + raw)[4:-4] for shift in range(3)]
    numbers = [sep.join(map(str, raw)).encode() for sep in (", ", ",", " ")]
    escaped = ["".join(f"{lead}{byte:02x}" for byte in raw).encode() for lead in ("\\x", "%")]
    return [raw, raw.hex().encode(), raw[::-1], *quads, *numbers, *escaped]


def found(words: tuple[str, ...], where: bytes) -> list[bytes]:
    lowered = where.lower()
    return [form for word in words for form in forms(word) if form in where or form in lowered]


HIDDEN: Final[tuple[Callable[[str], str], ...]] = (
    str,
    str.upper,
    lambda word: base64.b64encode(word.encode()).decode(),
    lambda word: word.encode().hex(),
    lambda word: f"{list(word.encode())}",
)


@pytest.mark.parametrize("hidden", HIDDEN)
def test_marks_are_found_in_whatever_form(hidden: Callable[[str], str]) -> None:
    """Or finding none would mean nothing."""
    for before in ("", "a", "ab"):
        said = hidden(f"{before}{CONTENT}00017 and more")
        assert found((CONTENT,), f"a log says {said}".encode())
    assert not found((CONTENT,), b"a log says xylophone")


def told(call: Any, request: Request) -> tuple[str, bytes]:
    """How a call ended, and all that its caller was told beyond what it asked for."""
    try:
        answer = call(request.payload, metadata=request.metadata, timeout=30)
    except grpc.RpcError as failure:
        call = cast(grpc.Call, failure)
        trailers = dict(cast(Any, call.trailing_metadata() or ())).values()
        said = [call.details() or "", *trailers]
        return call.code().name, b"\n".join(w if isinstance(w, bytes) else w.encode() for w in said)
    return "OK", b"\n".join(_remarks(request.method, answer))


def _remarks(method: str, answer: bytes) -> Iterator[bytes]:
    """What the server says in words of its own; not the entry or bank that was asked for."""
    if method.endswith("Match"):
        message = {
            "Match": match_pb2.MatchResponse,
            "BatchMatch": match_pb2.BatchMatchResponse,
        }[method.rpartition("/")[2]].FromString(answer)
        for hit in _hits(message):
            hit.ClearField("labels")
            hit.ClearField("source")
            hit.ClearField("source_id")
        yield message.SerializeToString()
    elif method.endswith("BatchAddEntries"):
        yield answer
    elif method.endswith("AddEntry"):
        yield from (w.encode() for w in bank_pb2.AddEntryResponse.FromString(answer).warnings)


def _hits(message: Any) -> Iterator[match_pb2.Hit]:
    results = [message.result] if hasattr(message, "result") else [i.result for i in message.items]
    return (hit for result in results for hit in result.hits)


def look_everywhere(target: Target, count: int) -> Counter[str]:
    """Sends so many marked requests; how they ended."""
    ended: Counter[str] = Counter()
    with grpc.insecure_channel(target.address) as channel:
        calls: dict[str, Any] = {method: channel.unary_unary(method) for method in RPCS}
        for request in requests(count, target):
            code, said = told(calls[request.method], request)
            ended[code] += 1
            if not request.mangled:
                assert found((CONTENT, f"{REAL}"), said) == [], request
    page = target.server.fetch("/metrics")[1].encode()
    secrets = [token.rpartition("_")[2] for token in target.callers.tokens.values()]
    words = (CONTENT, NAME, f"{REAL}", *secrets)
    assert found(words, target.log().encode()) == []
    assert found(words, page) == []
    return ended


def test_no_mark_is_logged_counted_or_told_again(target: Target) -> None:
    """Of those that were answered, refused, of nobody known, and no requests at all."""
    ended = look_everywhere(target, 300)
    assert {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "UNAUTHENTICATED", "PERMISSION_DENIED"} <= set(
        ended
    )
    assert ended["OK"] > 50
    assert "INTERNAL" not in ended


@pytest.mark.slow
def test_ten_thousand_marks(tmp_path: Path) -> None:
    """The same with very many."""
    with attacked(tmp_path) as target:
        ended = look_everywhere(target, 10_000)
        assert ended.total() == 10_000
        assert "INTERNAL" not in ended
        target.check_alive()
