"""Export, import, export; refused rows that are fixed and read again; manifests."""

from __future__ import annotations

import io
import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simsearch.errors import BadContent, BadRequest, Corrupt, NewerFormat, NoSignal
from simsearch.lists import (
    About,
    Format,
    HashChunk,
    ListEntry,
    ReadOptions,
    RefusedRow,
    RefusedRowsFile,
    check_manifest,
    fingerprint_of,
    list_writer,
    read_list,
    read_manifest,
    write_entries,
    write_list,
)
from simsearch.types import Fingerprint, Signal
from tests.lists import samples
from tests.lists.samples import md5, pdq, read

SPACES = ("model@0123456789ab/prep/4", "other@0123456789ab/prep/2")
EMPTY_ABOUT = About()
WRITTEN = (Format.JSONL, Format.CSV, Format.PARQUET)


def entry(seed: int, about: About = EMPTY_ABOUT) -> ListEntry:
    rng = np.random.default_rng(seed)
    vectors = {}
    for space in SPACES[: seed % 3]:
        rows = rng.standard_normal((1 + seed % 2, int(space[-1]))).astype(np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        vectors[space] = rows.astype(np.float16).astype(np.float32)
    bits = np.frombuffer(bytes.fromhex(pdq(seed) + pdq(seed + 1)), np.uint8).reshape(2, 32)
    return ListEntry(
        Fingerprint(
            digests={Signal.MD5: (bytes.fromhex(md5(seed)),)},
            bits={Signal.PDQ: bits},
            vectors=vectors,
        ),
        about,
    )


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
names = texts.filter(lambda text: any(c.isprintable() and not c.isspace() for c in text))
abouts = st.builds(
    About,
    labels=st.lists(names, max_size=3, unique=True).map(tuple),
    source=texts,
    source_ids=st.lists(names, max_size=2, unique=True).map(tuple),
    severity=texts,
    note=texts,
    state=st.sampled_from(["", "draft", "active", "retracted"]),
)
entries_of = st.lists(st.builds(entry, st.integers(0, 4), abouts), max_size=6)


def read_back(path: Path) -> list[ListEntry]:
    """Whatever a bank would be given, in another order."""
    got = read(path)
    assert got.bad == []
    found = [ListEntry(fingerprint_of(row), row.about) for row in got.rows]
    random.Random(1).shuffle(found)
    return found


@pytest.mark.parametrize("format", WRITTEN)
def test_a_list_that_is_read_and_written_again_is_the_same(tmp_path: Path, format: Format) -> None:
    """Byte by byte, with its manifest, whatever the entries hold and in whatever order."""
    if format is Format.PARQUET:
        pytest.importorskip("pyarrow")
    count = 0

    @settings(max_examples=10 if format is Format.PARQUET else 25, deadline=None)
    @given(entries_of)
    def holds(entries: list[ListEntry]) -> None:
        nonlocal count
        count += 1
        first, second = tmp_path / f"a{count}", tmp_path / f"b{count}"
        manifest = write_list(entries, first, format)
        assert write_list(read_back(first), second, format) == manifest
        for path in first.iterdir():
            assert path.read_bytes() == (second / path.name).read_bytes()
        assert (manifest.entries, manifest) == (len(entries), check_manifest(first))

    holds()


def test_every_format_says_the_same(tmp_path: Path) -> None:
    """What one of them holds, the others do; vectors are exact as float16."""
    pytest.importorskip("pyarrow")
    about = About(("a;b", "c"), "S", ("1",), "high", 'n"o\r\nte', "shadow")
    entries = [entry(n, about) for n in range(9)]
    for format in WRITTEN:
        write_list(entries, tmp_path / format, format)
    rows = {format: read(tmp_path / format).rows for format in WRITTEN}
    fingerprints = {
        format: [(fingerprint_of(row), row.about, row.group) for row in found]
        for format, found in rows.items()
    }
    for format in WRITTEN:
        for one, other in zip(fingerprints[format], fingerprints[Format.JSONL], strict=True):
            assert one[1:] == other[1:]
            assert one[1] == about
            assert one[0].digests == other[0].digests
            assert one[0].vectors.keys() == other[0].vectors.keys()
    wanted = {e.fingerprint.digests[Signal.MD5]: e.fingerprint for e in entries}
    for fingerprint, _, _ in fingerprints[Format.PARQUET]:
        was = wanted[fingerprint.digests[Signal.MD5]]
        for space, vectors in fingerprint.vectors.items():
            assert {v.tobytes() for v in vectors} == {v.tobytes() for v in was.vectors[space]}


def test_the_order_of_entries_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor whether they fit into memory; entries that are the same stay as many as they are."""
    entries = [entry(n % 30) for n in range(40)]
    first = write_list(entries, tmp_path / "a")
    monkeypatch.setattr(list_writer, "RUN_BYTES", 2_000)
    second = write_list(reversed(entries), tmp_path / "b")
    assert first == second
    assert len(read(tmp_path / "b").rows) == 40


def test_the_order_within_an_entry_does_not_matter(tmp_path: Path) -> None:
    """Nor does that in which its signals were computed."""
    one = entry(1)
    bits = {Signal.PDQ: one.fingerprint.bits[Signal.PDQ][::-1]}
    vectors = {space: rows[::-1] for space, rows in one.fingerprint.vectors.items()}
    other = replace(one, fingerprint=replace(one.fingerprint, bits=bits, vectors=vectors))
    assert write_list([one], tmp_path / "a") == write_list([other], tmp_path / "b")


def test_the_manifest_counts(tmp_path: Path) -> None:
    entries = [entry(0, About(state="active")), entry(1, About(withdrawn=True)), entry(2)]
    manifest = write_list(entries, tmp_path / "a", notes={"bank": "scam"})
    assert manifest.signals == {"md5": 3, "pdq": 6, SPACES[0]: 3, SPACES[1]: 1}
    assert manifest.states == {"": 1, "active": 1, "retracted": 1}
    assert manifest.spaces == {SPACES[0]: 4, SPACES[1]: 2}
    assert manifest.files[0].rows == sum(manifest.signals.values())
    assert read_manifest(tmp_path / "a").notes == {"bank": "scam"}


def test_a_changed_export_is_refused(tmp_path: Path) -> None:
    """Until its manifest is removed: an edited list may be wanted, a damaged one never."""
    folder = tmp_path / "a"
    write_list([entry(0)], folder)
    path = folder / "entries.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"md5"', b'"MD5"'))
    with pytest.raises(Corrupt, match="not the file that its manifest describes"):
        read(folder)
    body = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(body | {"version": 2}))
    with pytest.raises(NewerFormat):
        read(folder)
    outside = [body["files"][0] | {"name": "../x"}]
    (folder / "manifest.json").write_text(json.dumps(body | {"files": outside}))
    with pytest.raises(Corrupt, match="outside"):
        read(folder)
    (folder / "manifest.json").write_text(json.dumps({"kind": body["kind"], "version": 1}))
    with pytest.raises(Corrupt, match="lacks fields"):
        read(folder)
    (folder / "manifest.json").write_text("[")
    with pytest.raises(BadContent, match="no JSON"):
        read_manifest(folder)
    (folder / "manifest.json").unlink()
    assert len(read(folder).rows) == 1


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="choose jsonl"):
        write_list([], tmp_path / "a", Format.NPY)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x").touch()
    with pytest.raises(BadRequest, match="not empty"):
        write_list([], tmp_path / "b")
    with pytest.raises(NoSignal):
        write_list([ListEntry(Fingerprint(), About())], tmp_path / "c")


@pytest.mark.parametrize("format", WRITTEN[:2])
def test_entries_go_to_standard_output(format: Format) -> None:
    """As any binary file, which stays open; hashes come back in bulk."""
    file = io.BytesIO()
    hashes = [
        ListEntry(Fingerprint(digests={Signal.MD5: (bytes.fromhex(md5(n)),)}), About(("a",)))
        for n in range(50)
    ]
    assert write_entries(hashes, file, format) == 50
    file.seek(0)
    items = list(read_list(file).batches())
    assert any(isinstance(item, HashChunk) for item in items) == (format is Format.CSV)
    assert not any(isinstance(item, RefusedRow) for item in items)


# ---------------------------------------------------------------- refused rows


def _refused(tmp_path: Path, text: str | bytes, **options: object) -> str:
    """The file of what is refused of a list."""
    data = text.encode() if isinstance(text, str) else text
    reading = read_list(io.BytesIO(data), ReadOptions(**options))  # type: ignore[arg-type]
    with RefusedRowsFile(tmp_path / "refused", reading) as refused:
        for item in reading:
            if isinstance(item, RefusedRow):
                refused.write(item)
    assert refused.count == reading.counts.refused.total()
    return (tmp_path / "refused").read_text() if refused.count else ""


GOOD, BAD = md5(1), md5(2)[1:]


@pytest.mark.parametrize(
    ("text", "wrong", "right"),
    [
        (f"{GOOD}\n{BAD}\n", BAD, "0" + BAD),
        (f"signal,value\nmd5,{GOOD}\nmd5,{BAD}\n", BAD, "0" + BAD),
        (f'value;note\n{GOOD};a\n{BAD};"a\nb"\n', BAD, "0" + BAD),
        (f"signal_type,signal_str\npdq,{pdq(1)}\nmd6,{md5(2)}\n", "md6", "md5"),
        (f'{{"signal":"md5","value":"{BAD}"}}', BAD, "0" + BAD),
        (f"0,90,{pdq(1)},0\n1,90,{pdq(2)[1:]},1\n", pdq(2)[1:], pdq(2)),
        (samples.NCMEC, "<md5>123<", f"<md5>{md5(7)}<"),
        (json.dumps(samples.STOPNCII), '"Sometimes"', '"Active"'),
    ],
)
def test_refused_rows_are_fixed_and_read_again(
    tmp_path: Path, text: str, wrong: str, right: str
) -> None:
    """The file holds what was refused and why, in the format of the list."""
    first = read(text, signal=Signal.MD5)
    kept = _refused(tmp_path, text, signal=Signal.MD5)
    assert all(bad.reason in kept and bad.words.split(":")[0] in kept for bad in first.bad)
    as_it_is = read(kept, signal=Signal.MD5, format=_format_of(text))
    assert [bad.reason for bad in as_it_is.bad] == [bad.reason for bad in first.bad]
    fixed = read(kept.replace(wrong, right), signal=Signal.MD5, format=_format_of(text))
    assert len(fixed.bad) == len(first.bad) - 1
    assert len(fixed.rows) == 1


def _format_of(text: str) -> Format | None:
    reading = read_list(io.BytesIO(text.encode()), ReadOptions(signal=Signal.MD5))
    next(iter(reading))
    return reading.format


def test_rows_that_cannot_be_kept_are_named(tmp_path: Path) -> None:
    """Too long, or of an array: a comment says which and why."""
    file = io.BytesIO()
    np.save(file, np.zeros((1, 4), np.float32))
    kept = _refused(tmp_path, file.getvalue(), space=SPACES[0])
    assert kept.startswith("# 1: BAD_VECTOR: ")


def test_nothing_refused_makes_no_file(tmp_path: Path) -> None:
    assert _refused(tmp_path, f"{GOOD}\n") == ""
    assert not (tmp_path / "refused").exists()


def test_a_reason_cannot_end_a_comment(tmp_path: Path) -> None:
    """A name from the list stands in the reason: it must not become XML of its own."""
    text = samples.NCMEC.replace("<sha1>", "<a--b>").replace("</sha1>", "</a--b>")
    kept = _refused(tmp_path, text)
    assert len(read(kept).bad) == len(read(text).bad)
