"""Requests that no client of ours would send, each made again from a seed and its index, and what
an answer must be whatever the request was.

Messages are written field by field from the descriptors, so that a new field or RPC is attacked
from the day it is there; values are at their edges, and bytes are changed afterwards.
"""

from __future__ import annotations

import itertools
import math
import random
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import grpc
import numpy as np
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.rpc import error_details_pb2, status_pb2

from simsearch.serve.transport.port import DESCRIPTORS
from simsearch.serve.transport.status_codes import STATUS
from simsearch.v1 import bank_pb2, content_pb2, error_pb2, match_pb2, policy_pb2
from tests.encode.pictures import copies, landscape
from tests.fakes import DIM, PICTURES, PROSE, unit_of

TIMEOUT_S: Final = 30.0

RPCS: Final = {
    f"/{service.full_name}/{method.name}": method
    for service in DESCRIPTORS
    for method in service.methods
}

_OFTEN: Final = {"Match": 6, "BatchMatch": 6, "StreamMatch": 2, "AddEntry": 2, "BatchAddEntries": 2}
_METHODS: Final = [m for m in RPCS for _ in range(_OFTEN.get(m.rpartition("/")[2], 1))]


@dataclass(frozen=True)
class Shot:
    """One call: several payloads are the messages of a stream."""

    method: str
    payloads: tuple[bytes, ...]
    metadata: tuple[tuple[str, str | bytes], ...]


class Shots:
    """The shot of an index is always the same one. `known` is the caller's own metadata, which a
    few shots leave out."""

    def __init__(self, seed: int, known: tuple[tuple[str, str | bytes], ...] = ()) -> None:
        self.seed = seed
        self._known = known

    def shot(self, index: int) -> Shot:
        rng = random.Random(self.seed << 32 | index)
        method = rng.choice(_METHODS)
        asks = RPCS[method].input_type
        count = rng.choice((0, 1, 1, 2, 4)) if RPCS[method].client_streaming else 1
        payloads = tuple(_payload(asks, rng) for _ in range(count))
        return Shot(method, payloads, _metadata(self._known, rng))


def _payload(asks: Descriptor, rng: random.Random) -> bytes:
    match rng.choices(("noise", "whole", "broken", "bomb"), (6, 64, 26, 4))[0]:
        case "noise":
            return rng.randbytes(rng.choice((1, 2, 7, 40, 400)))
        case "whole":
            return Writer(rng).message(asks)
        case "broken":
            return broken(Writer(rng).message(asks), rng)
        case _:
            return _bomb(asks, rng)


def _metadata(
    known: tuple[tuple[str, str | bytes], ...], rng: random.Random
) -> tuple[tuple[str, str | bytes], ...]:
    if rng.random() < 0.85:
        return known
    odd: tuple[tuple[str, str | bytes], ...] = rng.choice(_ODD_METADATA)
    return odd if rng.random() < 0.2 else (*known, *odd)


_ODD_METADATA: Final[Sequence[tuple[tuple[str, str | bytes], ...]]] = (
    (("simsearch-priority", "bulk"),),
    (("simsearch-priority", "interactive"), ("simsearch-priority", "none")),
    (("simsearch-priority", "x" * 3_000),),
    (("simsearch-priority-bin", b"\xff\0\xfe"),),
    (("traceparent", "00-" + "f" * 32 + "-" + "0" * 16 + "-zz"),),
    (("traceparent", ""), ("tracestate", "=,=,="), ("baggage", "%%%")),
    (("authorization", "Bearer "),),
    (("authorization", "Bearer sst_000000000000_" + "a" * 43),),
    (("authorization", "Basic " + "A" * 2_000),),
    tuple((f"x-{number}", "y") for number in range(60)),
)

# ---------------------------------------------------------------- messages

_VARINT, _FIXED64, _BYTES, _OPEN, _CLOSE, _FIXED32 = range(6)

_WORDS: Final[dict[str, Sequence[str | bytes]]] = {
    "bank": ("fuzz-a", "fuzz-b", "nowhere", "", "Fuzz A", "a" * 65, "../x", "fuzz-a\0"),
    "space": ("prose", "pictures", PROSE.id, PICTURES.id, "clip", "", "p" * 9_000),
    "page_token": ("", "0", "7", "9" * 19, "9" * 20, str(1 << 63), str(1 << 64), "-1", "１", "x"),
    "actor": ("", "", "", "admin", "somebody"),
    "reason": ("", " ", "because", "\u200b", "r" * 2_001),
    "etag": ("", "", "v1", "v" + "9" * 30, "\0"),
    "text": ("some words", "one", "", " ", "\u200b\u200d", "Ａ𝔟ｃ łeet 1337", "\u202edrow", "\0",
             "e\u0301" * 90, "\U0001f469\u200d\U0001f467" * 30, "word " * 300, b"\xed\xa0\x80"),
}  # fmt: skip
_WORDS.update(banks=_WORDS["bank"], name=_WORDS["bank"])
_TEXTS: Final = ("label", "", "x", "x" * 65, "x" * 4_001, "\u202e\u0007", "a\0b", "\U0010ffff")
_NOT_UTF8: Final = (b"\xff\xfe", b"\xc0\x80", b"\xed\xa0\x80", b"ok\xf5\x80\x80\x80", b"\xe2\x82")

_NUMBERS: Final = (
    *(0, 1, 2, 3, 4, 5, 7, 10, 64, 100, 255, 1_000, 1_001, (1 << 31) - 1, 1 << 31, 1 << 32),
    *((1 << 63) - 1, 1 << 63, (1 << 64) - (1 << 31), (1 << 64) - 1),
)
_SMALL: Final = (0, 1, 1, 2, 2, 3, 4, 5, 6, 99, (1 << 64) - 1)
_REALS: Final = (
    0.0,
    0.5,
    0.9,
    1.0,
    -1.0,
    -0.0,
    1.0001,
    math.nan,
    math.inf,
    -math.inf,
    1e308,
    5e-324,
)
_HASH_BYTES: Final = (0, 1, 16, 16, 32, 32, 32, 32, 33, 64)

_PICTURES: Final = tuple(copies(landscape(5, (48, 36))).values())
_PICTURES_PART: Final = 0.2
"""Of images, so many are pictures: they cost a decode, the others a look at their first bytes."""

_UNITS: Final = tuple(unit_of(str(number)) for number in range(50))
_HASHES: Final = ((1, 32), (2, 16), (3, 32), (4, 32), (4, 32), (5, 32))
"""Numbers of signals, and the bytes of each."""

_POLICIES: Final = tuple(
    policy_pb2.Policy(
        cosine=[
            policy_pb2.CosineThresholds(
                space="prose", query=content_pb2.MODALITY_TEXT, review=0.9, log=cosine
            )
        ],
        hamming=[
            policy_pb2.HammingThresholds(signal=content_pb2.HASH_SIGNAL_PDQ, review=31, log=bits)
        ],
        two_descriptors=cosine < 0,
    ).SerializeToString()
    for cosine, bits in ((0.7, 48), (-1.0, 256), (0.9, 31))
)
"""As given, one that lets everything match, and a strict one."""


class _Field(NamedTuple):
    """What a descriptor says of a field, read once."""

    number: int
    name: str
    path: str
    wire: int
    is_text: bool
    is_few: bool
    repeated: bool
    inner: Descriptor | None


class _Kind(NamedTuple):
    fields: tuple[_Field, ...]
    oneofs: tuple[tuple[_Field, ...], ...]


@cache
def _kind(descriptor: Descriptor) -> _Kind:
    oneofs = [oneof for oneof in descriptor.oneofs if len(oneof.fields) > 1]
    within = {each.name for oneof in oneofs for each in oneof.fields}
    return _Kind(
        tuple(_read(each) for each in descriptor.fields if each.name not in within),
        tuple(tuple(map(_read, oneof.fields)) for oneof in oneofs),
    )


_WIRE: Final = {
    FieldDescriptor.TYPE_DOUBLE: _FIXED64,
    FieldDescriptor.TYPE_FLOAT: _FIXED32,
    FieldDescriptor.TYPE_STRING: _BYTES,
    FieldDescriptor.TYPE_BYTES: _BYTES,
    FieldDescriptor.TYPE_MESSAGE: _BYTES,
}


def _read(each: FieldDescriptor) -> _Field:
    return _Field(
        each.number,
        each.name,
        each.full_name.removeprefix("simsearch.v1."),
        _WIRE.get(each.type, _VARINT),
        each.type == FieldDescriptor.TYPE_STRING,
        each.type in (FieldDescriptor.TYPE_ENUM, FieldDescriptor.TYPE_BOOL),
        each.is_repeated,
        each.message_type,
    )


class Writer:
    """Writes messages as bytes. How nervous it is differs from one to the next: at 0 its values
    are such as a caller would send, at 1 all are at some edge."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._nerve = rng.choice((0.0, 0.02, 0.02, 0.1, 0.4, 1.0))

    def message(self, descriptor: Descriptor, depth: int = 0) -> bytes:
        """Of this type as far as one can tell; fields may be missing, or there twice."""
        rng, kind = self._rng, _kind(descriptor)
        parts = []
        for each in kind.fields:
            if each.repeated:
                count = rng.choice((0, 1, 1, 2, 3))
            elif self._is_nervous():
                count = rng.choice((0, 0, 1, 2))
            else:
                count = 1
            parts += [self._field(each, depth) for _ in range(count)]
        for oneof in kind.oneofs:
            count = rng.choice((0, 1, 2)) if self._is_nervous() else 1
            parts += [self._field(rng.choice(oneof), depth) for _ in range(count)]
        if self._is_nervous() and rng.random() < 0.2:
            parts.append(_stray(rng))
        if rng.random() < 0.02:
            rng.shuffle(parts)
        return b"".join(parts)

    def _is_nervous(self) -> bool:
        return self._rng.random() < self._nerve

    def _field(self, each: _Field, depth: int) -> bytes:
        rng = self._rng
        if self._is_nervous() and rng.random() < 0.02:  # of another type than it is declared to be
            return _tag(each.number, rng.randrange(8)) + rng.randbytes(rng.randrange(9))
        tag = _tag(each.number, each.wire)
        if each.wire == _VARINT:
            return tag + _varint(self._number(each))
        if each.wire == _FIXED64:
            return tag + struct.pack("<d", rng.choice(_REALS) if self._is_nervous() else 0.9)
        if each.inner is not None:
            data = self._inner(each.inner, depth)
        else:
            data = self._string(each) if each.is_text else self._data(each)
        return tag + _varint(len(data)) + data

    def _inner(self, descriptor: Descriptor, depth: int) -> bytes:
        if depth > 8:
            return b""
        if descriptor.name == "Hash" and not self._is_nervous() and self._rng.random() < 0.9:
            signal, nbytes = self._rng.choice(_HASHES)
            value = bytes([self._rng.randrange(16)]) * nbytes  # few, so that some are banned
            return _tag(1, _VARINT) + _varint(signal) + _tag(2, _BYTES) + _varint(nbytes) + value
        if descriptor.name == "Policy" and not self._is_nervous():
            return self._rng.choice(_POLICIES)
        return self.message(descriptor, depth + 1)

    def _string(self, each: _Field) -> bytes:
        rng, words = self._rng, _WORDS.get(each.name, _TEXTS)
        if not self._is_nervous():
            word = words[0] if each.name != "reason" or rng.random() < 0.9 else "because"
        elif rng.random() < 0.05:
            word = rng.choice(_NOT_UTF8)
        else:
            word = rng.choice(words)
        return word if isinstance(word, bytes) else word.encode()

    def _number(self, each: _Field) -> int:
        rng = self._rng
        if not self._is_nervous():
            return rng.choice((1, 2)) if each.is_few else rng.randrange(1, 40)
        return rng.choice(_SMALL if each.is_few else _NUMBERS)

    def _data(self, each: _Field) -> bytes:
        match each.path:
            case "Content.image":
                return self._image()
            case "Vector.data":
                return self._rows()
            case _:
                return self._rng.randbytes(self._rng.choice(_HASH_BYTES))

    def _image(self) -> bytes:
        rng = self._rng
        if rng.random() > _PICTURES_PART:
            start = rng.choice((b"", b"\xff\xd8\xff", b"GIF89a", b"\x89PNG\r\n\x1a\n"))
            return start + rng.randbytes(9)
        picture = rng.choice(_PICTURES)
        return broken(picture, rng) if rng.random() < 0.8 else picture

    def _rows(self) -> bytes:
        rng, row = self._rng, _UNITS[self._rng.randrange(len(_UNITS))]
        if not self._is_nervous() and rng.random() < 0.8:
            return row.tobytes()
        match rng.randrange(5):
            case 0:
                return np.tile(row, rng.choice((2, 3, 256, 257))).tobytes()
            case 1:
                with np.errstate(over="ignore", invalid="ignore"):
                    return (row * np.float32(rng.choice(_REALS[:10]))).tobytes()
            case 2:
                return row.astype(np.float16).tobytes()
            case 3:
                value = rng.choice((math.nan, math.inf, 0.0, 3e38, 1e-45))
                return np.full(DIM, value, np.float32).tobytes()
            case _:
                return rng.randbytes(rng.choice((0, 1, 31, 32, 33)))


def _stray(rng: random.Random) -> bytes:
    """A field that nobody declared, or no field at all."""
    number = rng.choice((0, 9, 15, 16, 99, 19_000, (1 << 29) - 1, 1 << 29))
    return _tag(number, rng.randrange(8)) + rng.randbytes(rng.randrange(12))


def _bomb(asks: Descriptor, rng: random.Random) -> bytes:
    """Small, and meant to be expensive: deep, long, or claiming to be."""
    number = rng.choice(asks.fields).number if asks.fields else 1
    match rng.randrange(5):
        case 0:
            return _tag(number, _OPEN) * rng.choice((99, 101, 5_000))
        case 1:
            inner = b""
            for _ in range(rng.choice((90, 101, 300))):
                inner = _tag(number, _BYTES) + _varint(len(inner)) + inner
            return inner
        case 2:
            return _tag(number, _BYTES) + _varint(rng.choice(_NUMBERS)) + b"short"
        case 3:
            return (_tag(number, _BYTES) + b"\0") * rng.choice((300, 1_025, 3_000))
        case _:
            return _tag(number, _VARINT) + b"\xff" * rng.choice((9, 10, 11, 4_000))


def broken(data: bytes, rng: random.Random) -> bytes:
    """The same with a few bytes flipped, cut out, doubled, put in, or cut off."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        end = len(changed) if rng.random() < 0.6 else min(len(changed), 60)
        at, length = rng.randrange(end + 1), rng.choice((1, 1, 2, 8, 40))
        match rng.randrange(6):
            case 0 if at < len(changed):
                changed[at] ^= 1 << rng.randrange(8)
            case 1:
                changed[at : at + length] = rng.randbytes(length)
            case 2:
                del changed[at : at + length]
            case 3:
                changed[at:at] = changed[at : at + length]
            case 4:
                changed[at : at + 1] = rng.choice((b"\xff", b"\0", b"\x7f", b"\xff" * 9 + b"\1"))
            case _:
                del changed[at:]
    return bytes(changed)


def _tag(number: int, kind: int) -> bytes:
    return _varint(number << 3 | kind)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


# ---------------------------------------------------------------- what came of it


@dataclass
class Outcomes:
    """`ended` counts calls by reason ("" where it was answered), `items` the items of batches and
    streams; `faults` says what should not have been, with what makes it again."""

    ended: Counter[str] = field(default_factory=Counter)
    items: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def add(self, other: Outcomes) -> None:
        self.ended.update(other.ended)
        self.items.update(other.items)
        self.faults += other.faults


class Gun:
    """Raw calls over one connection of its own, whose outcomes it keeps."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.outcomes = Outcomes()
        self._calls: dict[str, Callable[..., Any]] = {}
        for method, rpc in RPCS.items():
            streams = rpc.client_streaming
            kind = channel.stream_stream if streams else channel.unary_unary
            self._calls[method] = kind(method)

    def fire(self, shot: Shot) -> str:
        """What was wrong with the answer; "" where it was as it must be."""
        call, streams = self._calls[shot.method], RPCS[shot.method].client_streaming
        try:
            if streams:
                requests = iter(shot.payloads)
                answers = list(call(requests, metadata=shot.metadata, timeout=TIMEOUT_S))
            else:
                answers = [call(shot.payloads[0], metadata=shot.metadata, timeout=TIMEOUT_S)]
        except grpc.RpcError as failure:
            return self._refused(failure)
        self.outcomes.ended[""] += 1
        return self._answered(shot.method, answers)

    def _refused(self, failure: Any) -> str:
        reason = reason_of(failure)
        self.outcomes.ended[reason or failure.code().name] += 1
        code = failure.code()
        if not reason:
            return f"{code.name} without a reason: {failure.details()}"
        return "" if reason != "INTERNAL" and STATUS[reason] is code else f"{code.name} {reason}"

    def _answered(self, method: str, answers: Sequence[bytes]) -> str:
        kind = message_factory.GetMessageClass(RPCS[method].output_type)
        for answer in answers:
            response = kind.FromString(answer)
            for item in _items(response):
                reason = _item_reason(item)
                self.outcomes.items[reason] += 1
                if reason in ("INTERNAL", "UNSPECIFIED"):
                    return f"an item is {reason}: {item.error.message}"
        return ""


def _items(response: Any) -> Iterable[Any]:
    match response:
        case match_pb2.BatchMatchResponse() | bank_pb2.BatchAddEntriesResponse():
            return response.items
        case match_pb2.StreamMatchResponse():
            return response.answers
        case _:
            return ()


def _item_reason(item: Any) -> str:
    if not item.HasField("error"):
        return "" if item.WhichOneof("outcome") else "UNSPECIFIED"
    name = error_pb2.ErrorReason.Name(item.error.reason)
    return name.removeprefix("ERROR_REASON_") if item.error.message else "UNSPECIFIED"


def reason_of(failure: Any) -> str:
    """Of its ErrorInfo; "" where a failed call has none, or none of ours."""
    trailers = dict(failure.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailers.get("grpc-status-details-bin", b""))
    info = error_details_pb2.ErrorInfo()
    named = any(detail.Unpack(info) for detail in status.details)
    return info.reason if named and info.domain == "simsearch" and info.reason in STATUS else ""


# ---------------------------------------------------------------- many of them


def fire_all(address: str, shots: Shots, indexes: Sequence[int], threads: int) -> Outcomes:
    """Every shot once, from so many threads with a connection each."""
    left: Iterator[int] = iter(indexes)
    lock, together = threading.Lock(), Outcomes()

    def work() -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(address, options=options) as channel:
            gun = Gun(channel)
            while chunk := _some(left, lock):
                for index in chunk:
                    shot = shots.shot(index)
                    if wrong := gun.fire(shot):
                        gun.outcomes.faults.append(
                            f"{shot.method} {wrong}: Shots({shots.seed}).shot({index})"
                        )
        with lock:
            together.add(gun.outcomes)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return together


def _some(left: Iterator[int], lock: threading.Lock) -> list[int]:
    with lock:
        return list(itertools.islice(left, 50))


def memory_kib(pid: int) -> int:
    """Resident, of the process itself and not of files that it has mapped."""
    return _kib(pid, "RssAnon")


def peak_kib(pid: int) -> int:
    """The most that was ever resident."""
    return _kib(pid, "VmHWM")


def _kib(pid: int, name: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
