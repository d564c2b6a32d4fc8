"""Wire mapping of submitted content."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from simsearch.errors import (
    BadContent,
    BadRequest,
    BadVector,
    EmptyContent,
    SimsearchError,
)
from simsearch.types import (
    Content,
    HashContent,
    ImageContent,
    Modality,
    Signal,
    TextContent,
    VectorContent,
)
from simsearch.v1 import content_pb2
from simsearch.wire.enums import (
    DTYPES,
    HASH_SIGNAL_NUMBERS,
    HASH_SIGNALS,
    MODALITIES,
    MODALITY_NUMBERS,
)


def content_from(message: content_pb2.Content, dim_of: Callable[[str], int]) -> Content:
    """What a caller submitted. `dim_of` gives a space's dim, to cut `data` into rows.

    Raises EmptyContent, BadRequest, BadVector, and what `dim_of` raises for unknown spaces.
    """
    match message.WhichOneof("kind"):
        case "image":
            return ImageContent(message.image)
        case "text":
            return TextContent(message.text)
        case "vector":
            return _vector_from(message.vector, dim_of)
        case "hash":
            return HashContent(hash_signal(message.hash.signal), message.hash.value)
        case _:
            raise EmptyContent("the content is empty: set image, text, vector or hash")


def contents_from(
    messages: Sequence[content_pb2.Content], dim_of: Callable[[str], int]
) -> list[Content | SimsearchError]:
    """Each content, or the error of `content_from` for it, in order. Vectors of the same space,
    type, size and modality are read together and share one array."""
    read: list[Content | SimsearchError | None] = [None] * len(messages)
    alike: dict[tuple[str, int, int, int], list[int]] = {}
    data: dict[int, bytes] = {}
    for number, message in enumerate(messages):
        if message.HasField("vector"):
            vector = message.vector
            data[number] = vector.data
            kind = (vector.space, vector.dtype, len(data[number]), vector.modality)
            alike.setdefault(kind, []).append(number)
        else:
            read[number] = _read(message, dim_of)
    for numbers in alike.values():
        together = _vectors_from(messages[numbers[0]], [data[n] for n in numbers], dim_of)
        for number, content in zip(numbers, together, strict=True):
            read[number] = content
    return [content for content in read if content is not None]


def _vectors_from(
    first: content_pb2.Content, data: Sequence[bytes], dim_of: Callable[[str], int]
) -> Sequence[Content | SimsearchError]:
    """Contents like the first one, each with data of its own."""
    model = _read(first, dim_of)
    if not isinstance(model, VectorContent):
        return [model] * len(data)
    wire = DTYPES[first.vector.dtype]
    rows = np.frombuffer(b"".join(data), wire).astype(wire.newbyteorder("="), copy=False)
    return [
        VectorContent(model.space, vectors, model.modality)
        for vectors in rows.reshape(len(data), *model.vectors.shape)
    ]


def _read(message: content_pb2.Content, dim_of: Callable[[str], int]) -> Content | SimsearchError:
    try:
        return content_from(message, dim_of)
    except SimsearchError as refusal:
        return refusal


def _vector_from(message: content_pb2.Vector, dim_of: Callable[[str], int]) -> VectorContent:
    dtype = DTYPES.get(message.dtype)
    if dtype is None:
        raise BadVector("the vector has no known dtype: set FLOAT32 or FLOAT16")
    if not message.data:
        raise EmptyContent("the vector has no data: send dim × 4 or dim × 2 bytes a row")
    row_bytes = dim_of(message.space) * dtype.itemsize
    if len(message.data) % row_bytes:
        raise BadVector(
            f"the vector has {len(message.data)} bytes: a row of {message.space!r} in "
            f"{dtype.name} is {row_bytes} bytes"
        )
    rows = np.frombuffer(message.data, dtype).reshape(-1, row_bytes // dtype.itemsize)
    native = rows.astype(dtype.newbyteorder("="), copy=False)
    return VectorContent(message.space, native, _modality_from(message.modality))


def _modality_from(number: int) -> Modality | None:
    """None where the field is not set."""
    if number and number not in MODALITIES:
        raise BadRequest(f"there is no modality {number}: set IMAGE or TEXT, or leave it out")
    return MODALITIES.get(number)


def hash_signal(number: int) -> Signal:
    """The signal of a number. Raises BadRequest where it is unknown or not set."""
    signal = HASH_SIGNALS.get(number)
    if signal is None:
        raise BadRequest(
            "the hash has no signal: set SHA256, MD5, TEXT_SHA256, PDQ, MINHASH or MINHASH1024"
        )
    return signal


def content_to(content: Content) -> content_pb2.Content:
    """The message of a content. Raises BadContent for a text that UTF-8 cannot encode."""
    match content:
        case ImageContent(data):
            return content_pb2.Content(image=data)
        case TextContent(text):
            return _text_to(text)
        case VectorContent():
            return content_pb2.Content(vector=_vector_to(content))
        case HashContent(signal, value):
            number = HASH_SIGNAL_NUMBERS[signal]
            return content_pb2.Content(hash=content_pb2.Hash(signal=number, value=value))


def _text_to(text: str) -> content_pb2.Content:
    try:
        return content_pb2.Content(text=text)
    except UnicodeEncodeError:
        raise BadContent("the text is not UTF-8: it holds half of a surrogate pair") from None


def _vector_to(content: VectorContent) -> content_pb2.Vector:
    half = content.vectors.dtype == np.float16
    number = content_pb2.VECTOR_DTYPE_FLOAT16 if half else content_pb2.VECTOR_DTYPE_FLOAT32
    return content_pb2.Vector(
        space=content.space,
        dtype=number,
        data=np.ascontiguousarray(content.vectors, DTYPES[number]).tobytes(),
        modality=MODALITY_NUMBERS[content.modality] if content.modality else None,
    )
