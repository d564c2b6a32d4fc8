"""The manifest's reader takes what the writer wrote, and nothing that only looks like it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from simsearch.errors import BadSnapshot, NewerFormat
from simsearch.index.snapshot.loader import FileSeal, Manifest, SignalPart, SpacePart
from simsearch.index.snapshot.manifest import MANIFEST_FILE, parse, render
from simsearch.types import Signal
from tests.index.snapshot.snapshot_worlds import FINE, STORE, Document, edit_manifest

SPACE = SpacePart.named(
    0, FINE, 16, 9, factory="IVF2,PQ8", outlier_counts=(2,), nprobe=1, score_bias=-0.1
)
HASHES = SignalPart.named(Signal.MINHASH, 4)
FILES = {n: FileSeal(7, "ab" * 32) for n in (*SPACE.file_names(), *HASHES.file_names())}
MANIFEST = Manifest(
    format=2,
    id="one",
    store_id=STORE,
    built_through=5,
    created_us=6,
    spaces=(SPACE,),
    signals=(HASHES,),
    without=(),
    files=FILES,
    report={"recall": 1, "ms": 2.5},
)


def edited(tmp_path: Path, change: Any, *, reseal: bool = True) -> bytes:
    (tmp_path / MANIFEST_FILE).write_bytes(render(MANIFEST))
    edit_manifest(tmp_path, change, reseal=reseal)
    return (tmp_path / MANIFEST_FILE).read_bytes()


def test_what_is_rendered_is_parsed(tmp_path: Path) -> None:
    """Equal value by value, and an edit that changes nothing keeps every byte."""
    assert parse(render(MANIFEST), "it") == MANIFEST
    assert edited(tmp_path, lambda m: None) == render(MANIFEST)


def test_an_edited_manifest_is_refused(tmp_path: Path) -> None:
    """Its own SHA-256 is over everything else in it."""
    for name in json.loads(render(MANIFEST)).keys() - {"sha256", "format"}:
        data = edited(tmp_path, lambda m, name=name: m.update({name: None}), reseal=False)
        with pytest.raises(BadSnapshot, match="was changed after it was written"):
            parse(data, "it")


def space(**values: object) -> Any:
    return lambda m: m["spaces"][0].update(values)


def renamed(old: str, new: str) -> Any:
    """As someone would who renames a file everywhere it is named."""

    def change(document: Document) -> None:
        text = json.dumps(document).replace(json.dumps(old), json.dumps(new))
        document.update(json.loads(text))
        document["files"].pop(old, None)

    return change


CHANGES = {
    "a key more": (lambda m: m.update(note="x"), "lacks or adds 'note'"),
    "a key less": (lambda m: m.pop("report"), "lacks or adds 'report'"),
    "a key more further in": (space(note=1), r"lacks or adds 'note' in it\.spaces\[0\]"),
    "text for a number": (space(dim="16"), r"has a str for it\.spaces\[0\]\.dim"),
    "a fraction for a count": (space(count=9.0), "has a float"),
    "true for a number": (space(nprobe=True), "has a bool"),
    "true for a cosine": (space(score_sd=True), "no finite number"),
    "null": (space(factory=None), "has a NoneType"),
    "an object for a list": (lambda m: m.update(spaces={}), "has a dict"),
    "a list for an object": (lambda m: m.update(files=[]), "has a list"),
    "text in the report": (lambda m: m["report"].update(recall="1"), "no finite number"),
    "an unknown signal": (lambda m: m["signals"][0].update(signal="x"), "'x' is not a valid"),
    "a digest as rows": (lambda m: m["signals"][0].update(signal="md5"), "not binary"),
    "another dim": (space(dim=17), "has dim 17 for space"),
    "dim 0": (space(dim=0), "out of range"),
    "a negative count": (space(count=-1), "out of range"),
    "a negative spread": (space(score_sd=-0.1), "out of range"),
    "a negative seq": (lambda m: m.update(built_through=-1), "negative built_through"),
    "shards of an exact part": (space(factory="Flat"), "has shards"),
    "no shards of an IVF": (space(shards=[]), "do not belong together"),
    "a shard of another size": (space(shard_rows=[8]), "shards of 8 rows for the 9"),
    "a shard of no size": (space(shard_rows=[]), "does not say of each shard"),
    "more outliers than rows": (space(outlier_counts=[10]), "numbers of rows out of range"),
    "fewer outliers than none": (space(outlier_counts=[-1]), "numbers of rows out of range"),
    "a shard begun with nothing": (space(trained=""), "no plain file name"),
    "one space twice": (lambda m: m["spaces"].append(m["spaces"][0]), "do not belong together"),
    "one file for two": (space(keys="rows-0.npy"), "do not belong together"),
    "a file of no part": (
        lambda m: m["files"].update(x={"bytes": 1, "sha256": "ab" * 32}),
        "do not belong together",
    ),
    "a short hash": (lambda m: m["files"]["rows-0.npy"].update(sha256="ab"), "without size"),
    "a negative size": (lambda m: m["files"]["rows-0.npy"].update(bytes=-1), "without size"),
    "an id that is a path": (lambda m: m.update(id="../one"), "cannot name a snapshot"),
    "a store that is no uuid": (lambda m: m.update(store_id="x"), "no UUID"),
    "a parent's file": (renamed("rows-0.npy", "../rows-0.npy"), "no plain file name"),
    "a file elsewhere": (renamed("rows-0.npy", "/rows-0.npy"), "no plain file name"),
    "a file further in": (renamed("rows-0.npy", "a/rows-0.npy"), "no plain file name"),
    "a directory": (renamed("rows-0.npy", ".."), "no plain file name"),
    "the manifest itself": (renamed("rows-0.npy", MANIFEST_FILE), "no plain file name"),
    "no format": (lambda m: m.pop("format"), "no format version"),
    "format 0": (lambda m: m.update(format=0), "no format version"),
    "format 1": (lambda m: m.update(format=1), "of an earlier release"),
    "format true": (lambda m: m.update(format=True), "no format version"),
}


@pytest.mark.parametrize(("change", "message"), CHANGES.values(), ids=CHANGES.keys())
def test_a_manifest_that_says_something_else_is_refused(
    tmp_path: Path, change: Any, message: str
) -> None:
    """Even where its own hash is right: every key, type, range and file name is held to."""
    with pytest.raises(
        BadSnapshot, match=rf"^it: manifest\.json .*{message}.*build this one again"
    ):
        parse(edited(tmp_path, change), "it")


def test_a_newer_format_is_refused_before_anything_else_is_judged(tmp_path: Path) -> None:
    """Its keys and its hash may be others; the message says which release to run."""
    data = edited(tmp_path, lambda m: m.update(format=3, more={}), reseal=False)
    with pytest.raises(NewerFormat, match="it has format 3, this release reads up to 2: run"):
        parse(data, "it")


RENDERED = render(MANIFEST).decode()
NEARLY = {
    "nothing": "",
    "no object": "[]",
    "half": RENDERED[: len(RENDERED) // 2],
    "bytes that are no text": "\udcff",
    "deep": "[" * 100_000,
    "a space more": RENDERED + " ",
    "compact": json.dumps(json.loads(RENDERED)),
    "a key twice": RENDERED.replace('"id": "one"', '"id": "two",\n "id": "one"'),
    "another spelling of a number": RENDERED.replace('"built_through": 5', '"built_through": 5e0'),
    "not a number": RENDERED.replace("2.5", "NaN"),
    "a number of 5000 digits": RENDERED.replace("2.5", "9" * 5000),
    "UTF-16": RENDERED,
}


@pytest.mark.parametrize("kind", NEARLY)
def test_only_the_writers_own_bytes_are_read(kind: str) -> None:
    """JSON that means the same is refused too: nobody but the builder writes manifests."""
    encoding = "utf-16" if kind == "UTF-16" else "utf-8"
    with pytest.raises(BadSnapshot, match=r"it: manifest\.json"):
        parse(NEARLY[kind].encode(encoding, "surrogateescape"), "it")


def test_every_flipped_bit_is_noticed() -> None:
    """All of them, in the whole file."""
    data = render(MANIFEST)
    for at in range(len(data)):
        for bit in range(8):
            flipped = data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]
            with pytest.raises((BadSnapshot, NewerFormat), match=re.escape("it")):
                parse(flipped, "it")
