"""Content from a command line: what is taken, and the sentence for what is not."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from simsearch.cli.common.content_options import contents_of
from simsearch.errors import BadContent, BadHash, BadRequest, BadVector, SimsearchError
from simsearch.types import (
    Content,
    FileContent,
    HashContent,
    Signal,
    TextContent,
    VectorContent,
)


def vector(written: str) -> VectorContent:
    [(name, content)] = contents_of(None, None, None, [written])
    assert name == written
    assert isinstance(content, VectorContent)
    return content


def standard_input(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))


def test_everything_given_is_taken_in_order(tmp_path: Path) -> None:
    """Images, texts, hashes, vectors, each with a name to print."""
    image, rows = tmp_path / "a.png", tmp_path / "v.npy"
    image.write_bytes(b"\x89PNG")
    np.save(rows, np.eye(2, dtype=np.float32))
    given = contents_of([str(image)], ["hello"], ["md5:00ff"], [f"toy:{rows}"])
    names, contents = zip(*given, strict=True)
    assert names == (str(image), "hello", "md5:00ff", f"toy:{rows}")
    assert contents[:3] == (
        FileContent(b"\x89PNG"),
        TextContent("hello"),
        HashContent(Signal.MD5, b"\x00\xff"),
    )


@pytest.mark.parametrize("nothing", [None, []])
def test_nothing_given_is_refused(nothing: list[str] | None) -> None:
    """The sentence lists what could be given."""
    with pytest.raises(BadRequest, match="a file, --text, --hash or --vector"):
        contents_of(nothing, nothing, nothing, nothing)


def test_a_missing_image_is_refused_by_its_name(tmp_path: Path) -> None:
    """So is a directory: what the system said is in the sentence."""
    with pytest.raises(BadContent, match=r"^cannot read no\.png: No such file or directory$"):
        contents_of(["no.png"], None, None, None)
    with pytest.raises(BadContent, match=r"^cannot read .*: Is a directory$"):
        contents_of([str(tmp_path)], None, None, None)


def test_standard_input_is_an_image_or_a_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dash stands for it in both places."""
    standard_input(monkeypatch, b"\xff\xd8\xff")
    assert contents_of(["-"], None, None, None) == [("-", FileContent(b"\xff\xd8\xff"))]
    standard_input(monkeypatch, "größe\n".encode())
    assert contents_of(None, ["-"], None, None) == [("-", TextContent("größe\n"))]


def test_standard_input_that_is_no_text_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """An image sent where a text was meant is a named error, not a trace."""
    standard_input(monkeypatch, b"\xff\xd8\xff")
    with pytest.raises(BadContent, match="not text in UTF-8"):
        contents_of(None, ["-"], None, None)


def test_a_long_text_is_named_by_its_beginning() -> None:
    """One line of at most 40 characters; the content itself is whole."""
    text = "buy now\n" * 20
    [(name, content)] = contents_of(None, [text], None, None)
    assert name == "buy now buy now buy now buy now buy now…"
    assert len(name) == 40
    assert content == TextContent(text)


@pytest.mark.parametrize("signal", list(Signal))
def test_a_hash_is_its_signal_and_hex(signal: Signal) -> None:
    """Any signal, either case; its length is the server's to check."""
    contents: list[tuple[str, Content]] = contents_of(None, None, [f"{signal}:00Ff"], None)
    assert contents[0][1] == HashContent(signal, b"\x00\xff")


@pytest.mark.parametrize(
    ("written", "refusal", "words"),
    [
        ("00ff", BadRequest, "'00ff' is no signal: write one of sha256, md5"),
        ("crc32:00ff", BadRequest, "'crc32' is no signal"),
        (":00ff", BadRequest, "'' is no signal"),
        ("pdq:xyz", BadHash, "the pdq value is not hexadecimal"),
        ("pdq:0", BadHash, "the pdq value is not hexadecimal"),
        ("pdq:0x00", BadHash, "the pdq value is not hexadecimal"),
    ],
)
def test_a_malformed_hash_is_refused(
    written: str, refusal: type[SimsearchError], words: str
) -> None:
    """The signals there are, or which value is wrong."""
    with pytest.raises(refusal) as refused:
        contents_of(None, None, [written], None)
    assert words in refused.value.message


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_vectors_come_from_npy_files(tmp_path: Path, dtype: type[np.floating]) -> None:
    """One vector or rows of them, in the precision they were saved in; a space's id has slashes
    and may have colons, so the last colon counts."""
    path = tmp_path / "v.npy"
    rows = np.eye(3, dtype=dtype)
    np.save(path, rows)
    taken = vector(f"a:b@1/x/3:{path}")
    assert (taken.space, taken.modality) == ("a:b@1/x/3", None)
    assert taken.vectors.dtype == dtype
    assert taken.vectors.tolist() == rows.tolist()
    np.save(path, rows[0])
    assert vector(f"toy:{path}").vectors.tolist() == [rows[0].tolist()]


def saved(array: np.ndarray) -> Callable[[Path], None]:
    return lambda path: np.save(path, array)


def written(data: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(data)

    return write


def archive(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, a=np.eye(2, dtype=np.float32))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (saved(np.eye(2)), "holds float64: save float16 or float32"),
        (saved(np.eye(2, dtype=np.int8)), "holds int8: save float16 or float32"),
        (saved(np.zeros((1, 2, 3), np.float32)), "shape (1, 2, 3): save (dim,) or (n, dim)"),
        (saved(np.array([{"a": 1}], dtype=object)), "no .npy file of numbers"),
        (written(b""), "no .npy file of numbers"),
        (written(b"hello"), "no .npy file of numbers"),
        (written(b"PK\x03\x04broken"), "no .npy file of numbers"),
        (archive, "no .npy file of numbers"),
    ],
)
def test_a_file_that_holds_no_vectors_is_refused(
    tmp_path: Path, make: Callable[[Path], None], words: str
) -> None:
    """Other numbers, other shapes, pickles, archives, broken and empty files: each by name."""
    path = tmp_path / "v.npy"
    make(path)
    with pytest.raises(BadVector) as refused:
        vector(f"toy:{path}")
    assert refused.value.message.startswith(str(path))
    assert words in refused.value.message


def test_a_vector_needs_a_space_and_a_file_that_is_there() -> None:
    """The sentence says how to write it, or what the system said."""
    with pytest.raises(BadRequest, match="write the space, a colon and a"):
        vector("v.npy")
    with pytest.raises(BadVector, match=r"^cannot read no\.npy: No such file or directory$"):
        vector("toy:no.npy")
