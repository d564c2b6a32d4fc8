"""Vectors in .npy and Parquet, folders of images, gzip, and telling formats apart."""

from __future__ import annotations

import gzip
import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simsearch.errors import (
    BadConfig,
    BadContent,
    BadRequest,
    BadVector,
    ContentTooLarge,
    EmptyContent,
    LimitExceeded,
)
from simsearch.lists import Format, ImageFile, Limits, ReadOptions, format_named, read_list
from simsearch.types import ImageContent, VectorContent, Vectors
from tests.lists import samples
from tests.lists.samples import md5, pdq, read

SPACE = "model@0123456789ab/prep/4"


def unit(count: int, dim: int = 4) -> Vectors:
    rows = np.random.default_rng(1).standard_normal((count, dim)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def npy(array: Any, **how: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **how)
    return file.getvalue()


def vectors_of(got: samples.Read) -> np.ndarray:
    contents = [content for row in got.rows for content in row.contents]
    return np.concatenate([c.vectors for c in contents if isinstance(c, VectorContent)])


@pytest.mark.parametrize("dtype", ["<f2", "<f4", ">f4"])
def test_rows_of_npy_are_items(dtype: str) -> None:
    """float16 and float32 of either byte order; rows that are no unit vectors are refused."""
    rows = unit(4_600).astype(dtype)
    rows[7], rows[4_500] = np.nan, 0
    got = read(npy(rows), space=SPACE)
    assert [(bad.number, bad.reason) for bad in got.bad] == [
        (8, "BAD_VECTOR"),
        (4501, "BAD_VECTOR"),
    ]
    assert np.array_equal(vectors_of(got), np.delete(rows, (7, 4_500), axis=0))
    assert [row.number for row in got.rows[:9]] == [1, 2, 3, 4, 5, 6, 7, 9, 10]


@pytest.mark.parametrize(
    ("data", "space", "error"),
    [
        (npy(unit(3)), "", BadRequest),
        (npy(unit(3, 5)), SPACE, BadVector),
        (npy(unit(3).astype(np.float64)), SPACE, BadVector),
        (npy(np.asfortranarray(unit(3))), SPACE, BadVector),
        (npy(unit(4)[None]), SPACE, BadVector),
        (npy(np.array([{}]), allow_pickle=True), SPACE, BadVector),
        (npy(unit(3))[:-1], SPACE, BadContent),
        (npy(unit(3)) + b"x", SPACE, BadContent),
        (npy(unit(3))[:40], SPACE, BadContent),
    ],
)
def test_npy_of_another_kind_is_refused(data: bytes, space: str, error: type[Exception]) -> None:
    """By name, and no pickle is ever opened."""
    with pytest.raises(error):
        read(data, space=space)


def _parquet(path: Path, **columns: Any) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    parquet.write_table(pyarrow.table(columns), path)
    return path


def test_parquet_of_hashes(tmp_path: Path) -> None:
    """Hashes in hex or as bytes, labels as lists or texts, and our other columns."""
    path = _parquet(
        tmp_path / "list",
        Signal=["pdq", "md5", "pdq", None],
        value=[bytes.fromhex(pdq(1)), bytes.fromhex(md5(2)), b"short", None],
        labels=[["a", "b"], [], None, None],
        source_id=[1, 2, 3, 4],
        withdrawn=[False, True, False, False],
    )
    got = read(path)
    assert got.hexes() == [pdq(1), md5(2)]
    assert [(r.about.labels, r.about.source_ids, r.about.withdrawn) for r in got.rows] == [
        (("a", "b"), ("1",), False),
        ((), ("2",), True),
    ]
    assert [(b.number, b.reason) for b in got.bad] == [(3, "BAD_HASH"), (4, "EMPTY_CONTENT")]


@pytest.mark.parametrize("fixed", [True, False])
@pytest.mark.parametrize("half", [True, False])
def test_parquet_of_vectors(tmp_path: Path, fixed: bool, half: bool) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    element = pyarrow.float16() if half else pyarrow.float32()
    kind = pyarrow.list_(element, 4) if fixed else pyarrow.list_(element)
    rows = unit(3).astype(np.float16 if half else np.float32)
    column = pyarrow.array([*rows, None], kind)
    got = read(_parquet(tmp_path / "a", embedding=column, note=list("abcd")), space=SPACE)
    assert np.array_equal(vectors_of(got), rows)
    assert [row.about.note for row in got.rows] == ["a", "b", "c"]
    assert [bad.number for bad in got.bad] == [4]


def test_parquet_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    path = _parquet(tmp_path / "a", vector=[[1.0, 0.0]])
    with pytest.raises(BadVector, match="float16 or float32"):
        read(path, space="s")
    with pytest.raises(BadContent, match="no column"):
        read(_parquet(tmp_path / "b", other=[1]))
    with pytest.raises(BadRequest, match="from a file"):
        read(path.read_bytes(), space="s")
    damaged = tmp_path / "c"
    damaged.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(BadContent, match="damaged"):
        read(damaged)


def test_without_pyarrow_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    (tmp_path / "a").write_bytes(b"PAR1")
    with pytest.raises(BadConfig, match=r"\.\[lists\]"):
        read(tmp_path / "a")


def test_nothing_heavy_is_imported() -> None:
    """A command that reads lists must be quick to start."""
    script = "import sys, simsearch.lists; sys.stdout.write(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    heavy = {"pyarrow", "torch", "faiss", "lmdb", "grpc", "google", "xml.etree"}
    assert (done.returncode, heavy & set(done.stdout.split())) == (0, set())


# ---------------------------------------------------------------- folders


def test_a_folder_of_images(tmp_path: Path) -> None:
    """Each file is an item, read only when it is wanted; what is no image is refused by name."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.JPG").write_bytes(b"jpeg")
    (tmp_path / "a.png").write_bytes(b"png")
    (tmp_path / "empty.gif").write_bytes(b"")
    (tmp_path / "large.webp").write_bytes(b"x" * 11)
    (tmp_path / "notes.txt").write_bytes(b"x")
    (tmp_path / "link.png").symlink_to(tmp_path / "a.png")
    (tmp_path / ".DS_Store").write_bytes(b"x")
    got = read(tmp_path, limits=Limits(image_bytes_max=10))
    images = [content for row in got.rows for content in row.contents]
    assert [i.load() for i in images if isinstance(i, ImageFile)] == [
        ImageContent(b"png"),
        ImageContent(b"jpeg"),
    ]
    assert {Path(bad.file).name: bad.reason for bad in got.bad} == {
        "empty.gif": "EMPTY_CONTENT",
        "large.webp": "CONTENT_TOO_LARGE",
        "notes.txt": "BAD_CONTENT",
        "link.png": "BAD_CONTENT",
    }
    assert got.counts.skipped == {"file of the system": 1}


def test_an_image_may_change_before_it_is_wanted(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    with pytest.raises(BadContent, match="cannot read"):
        ImageFile(path, 10).load()
    path.write_bytes(b"")
    with pytest.raises(EmptyContent):
        ImageFile(path, 10).load()
    path.write_bytes(b"x" * 11)
    with pytest.raises(ContentTooLarge):
        ImageFile(path, 10).load()


def test_a_folder_of_lists(tmp_path: Path) -> None:
    """In the order of their names, each in its own format; each video is an item."""
    (tmp_path / "2.xml").write_text(samples.NCMEC)
    (tmp_path / "1.txt").write_text(f"{md5(9)}\n")
    (tmp_path / "3.txt").write_text(f"0,100,{pdq(3)},0.000\n")
    (tmp_path / "4.txt").write_text(f"0,100,{pdq(3)},0.000\n")
    got = read(tmp_path)
    assert got.hexes() == [md5(9), md5(1), pdq(1), md5(2), pdq(3), pdq(3)]
    assert len({row.group for row in got.rows[-2:]}) == 2
    (tmp_path / "none").mkdir()
    with pytest.raises(BadContent, match="holds no files"):
        read(tmp_path / "none")


# ---------------------------------------------------------------- gzip, formats, files


def test_gzip_is_unpacked(tmp_path: Path) -> None:
    """Of several members, of any chunking, whatever the file is called."""
    text = "".join(f"{md5(n)}\n" for n in range(20_000)).encode()
    packed = gzip.compress(text[:500_000]) + gzip.compress(text[500_000:]) + bytes(100)
    assert read(packed).hexes() == text.decode().split()
    (tmp_path / "list").write_bytes(packed)
    assert len(read(tmp_path / "list").rows) == 20_000


def test_damaged_gzip_is_refused() -> None:
    packed = gzip.compress("".join(f"{md5(n)}\n" for n in range(9_000)).encode())
    with pytest.raises(BadContent, match="cut off"):
        read(packed[:-500])
    broken = bytearray(packed)
    broken[len(packed) // 2] ^= 0xFF
    with pytest.raises(BadContent, match="damaged"):
        read(bytes(broken))


def test_a_bomb_is_refused() -> None:
    """By how much it grows, and by how large it becomes."""
    bomb = gzip.compress(f"{md5(1)}\n".encode() * 100_000)
    with pytest.raises(LimitExceeded, match="200 times"):
        _count(bomb, Limits(ratio_from_bytes=1 << 20))
    with pytest.raises(LimitExceeded, match="unpacks to more"):
        _count(bomb, Limits(unpacked_bytes_max=1 << 20))
    assert _count(bomb, Limits()) == 100_000


def _count(packed: bytes, limits: Limits) -> int:
    reading = read_list(io.BytesIO(packed), ReadOptions(limits=limits))
    for _ in reading.batches():
        pass
    return reading.counts.accepted


@pytest.mark.parametrize(
    ("head", "format"),
    [
        ("# c\n\n" + md5(1).upper(), Format.HASHES),
        (f"pdq {pdq(1)}\r\n", Format.HASHES),
        (f"0,100,{pdq(1)},0.000\n", Format.VPDQ),
        ("signal_type,signal_str,collab,category,tags\n", Format.THREATEXCHANGE_CSV),
        ("id,indicator,type,status,tags,owner_id\n", Format.THREATEXCHANGE_CSV),
        ("Labels;Value\n", Format.CSV),
        ("text\n", Format.CSV),
        ('\n{"text": "a"}\n', Format.JSONL),
        ('# x\n{"labels": [], "signal": "pdq"}\n', Format.JSONL),
        ('{"count": 1, "hashRecords": []}', Format.STOPNCII),
        ('{"results": [{"hash_digest": ""}]}', Format.TECH_AGAINST_TERRORISM),
        ('{"data": [{"id": "1", "indicator": ""}]}', Format.THREATEXCHANGE),
        ("\ufeff<queryResult/>", Format.NCMEC),
    ],
)
def test_the_format_is_told_from_the_content(head: str, format: Format) -> None:
    reading = read_list(io.BytesIO(head.encode()))
    list(reading)
    assert reading.format is format


@pytest.mark.parametrize("text", ["", "words\n", "a,b\n1,2\n", "{}", "<html/>", "\0\1", '{"a":1}'])
def test_an_unknown_format_is_refused_by_name(text: str) -> None:
    """The refusal lists the formats; so does that of a name that is none."""
    with pytest.raises(BadRequest, match=r"stopncii.*ncmec.*parquet, npy, texts, images"):
        read(text)
    with pytest.raises(BadRequest, match=r"stopncii.*ncmec"):
        format_named("excel")
    assert format_named("npy") is Format.NPY


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadContent, match="cannot read"):
        read(tmp_path / "none")
    (tmp_path / "file").write_text("x")
    with pytest.raises(BadRequest, match="from a folder"):
        list(read_list(tmp_path / "file", ReadOptions(format=Format.IMAGES)))
    with pytest.raises(BadRequest, match="from a folder"):
        read(b"x", format=Format.IMAGES)
