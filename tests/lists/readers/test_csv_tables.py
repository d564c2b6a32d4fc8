"""CSV of our own and of the threatexchange command line, JSONL, and videos frame by frame."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simsearch.errors import BadContent
from simsearch.lists import (
    About,
    Format,
    HashChunk,
    Limits,
    fingerprint_of,
    read_list,
)
from simsearch.lists.byte_streams import HEAD_BYTES
from simsearch.lists.fields import width_of
from simsearch.types import HashContent, Signal, TextContent, VectorContent
from tests.lists.samples import hashed, md5, pdq, read

HEADER = "signal,value,labels,source,source_id,severity,note,action,entry\n"


def test_a_row_says_all_of_an_item() -> None:
    """Every column arrives; empty labels are none; names and signals in any case."""
    row = f'PDQ,{pdq(1).upper()},scam; ;spam,Partner,c-1,high,"two\nlines, ""quoted""",add,'
    got = read("\ufeff" + (HEADER + row + "\n").replace("Signal", "signal"))
    [item] = got.rows
    assert item.contents == (hashed(Signal.PDQ, pdq(1)),)
    assert item.about == About(
        ("scam", "spam"), "Partner", ("c-1",), "high", 'two\nlines, "quoted"'
    )
    assert (item.number, item.records) == (2, 1)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_spreadsheets_write_tables_in_many_ways(delimiter: str, ending: str) -> None:
    lines = [("Signal", "Value", "Source ID"), ("md5", md5(1), "7"), ("", "", ""), ("", "", "")]
    got = read(ending.join(delimiter.join(cells) for cells in lines))
    assert got.hexes() == [md5(1)]
    assert got.rows[0].about.source_ids == ("7",)
    assert got.counts.skipped == {"blank": 2}


def test_a_clean_table_comes_in_bulk() -> None:
    """Rows of one hash each are arrays, by signal; what is said of many is held once."""
    rows = [
        f"{'pdq' if n % 2 else 'md5'},{pdq(n) if n % 2 else md5(n)},l{n % 3}" for n in range(99)
    ]
    reading = read_list(io.BytesIO(("signal,value,labels\n" + "\n".join(rows) + "\n").encode()))
    chunks = [item for item in reading.batches() if isinstance(item, HashChunk)]
    assert {chunk.signal: len(chunk) for chunk in chunks} == {Signal.MD5: 50, Signal.PDQ: 49}
    for chunk in chunks:
        assert len(chunk.abouts) == 3
        for n, row in zip(chunk.numbers - 2, chunk.rows(), strict=True):
            wanted = pdq(int(n)) if n % 2 else md5(int(n))
            assert (row.contents, row.about.labels) == (
                (hashed(chunk.signal, wanted),),
                (f"l{n % 3}",),
            )
    assert reading.counts.accepted == 99


def test_neighbours_of_one_entry_are_one_item() -> None:
    """Hashes that name the same entry are views of one thing; labels and ids come together."""
    lines = [
        f"pdq,{pdq(1)},a,,1,,,,e1",
        f"md5,{md5(1)},b,S,2,,n,,e1",
        f"pdq,{pdq(2)},,,,,,,e2",
        f"pdq,{pdq(3)},,,,,,,",
        f"pdq,{pdq(4)},,,,,,withdraw,e1",
    ]
    got = read(HEADER + "\n".join(lines))
    assert [(row.number, row.records, row.group) for row in got.rows] == [
        (2, 2, "e1"),
        (4, 1, "e2"),
        (5, 1, ""),
        (6, 1, "e1"),
    ]
    assert got.rows[0].about == About(("a", "b"), "S", ("1", "2"), "", "n")
    fingerprint = fingerprint_of(got.rows[0])
    assert fingerprint.digests == {Signal.MD5: (bytes.fromhex(md5(1)),)}
    assert fingerprint.bits[Signal.PDQ].tobytes().hex() == pdq(1)
    assert [row.about.withdrawn for row in got.rows] == [False, False, False, True]


def test_an_entry_across_chunks_stays_whole() -> None:
    """Wherever the file is cut while it is read."""
    text = HEADER + "".join(f"pdq,{pdq(n)},,,,,,,e{n // 3}\n" for n in range(9_000))
    got = read(text)
    assert {row.records for row in got.rows} == {3}
    assert len(got.rows) == 3_000
    text = HEADER + "".join(f"pdq,{pdq(n)},,,,,,,e{n}\n" for n in range(9_000))
    assert [row.number for row in read(text).rows] == list(range(2, 9_002))


def test_an_entry_of_two_chunks_in_bulk_stays_whole() -> None:
    """The last row of the bytes that are read first, and the one after it, are one item."""
    header, rows = "signal,value,entry\n", [f"pdq,{pdq(n)},e{n:05}\n" for n in range(2_000)]
    last = (HEAD_BYTES - len(header)) // len(rows[0]) - 1
    rows[last + 1] = rows[last + 1].replace(f"e{last + 1:05}", f"e{last:05}")
    got = read(header + "".join(rows))
    assert [(row.number, row.records) for row in got.rows if row.records > 1] == [(last + 2, 2)]
    assert len(got.rows) == 1_999


def test_what_contradicts_its_entry_is_refused() -> None:
    lines = [f"pdq,{pdq(1)},,A,,,,,e", f"pdq,{pdq(2)},,B,,,,,e", f"pdq,{pdq(3)},,,,,,delete,e"]
    got = read(HEADER + "\n".join(lines))
    assert got.hexes() == [pdq(1)]
    assert [(bad.number, bad.reason) for bad in got.bad] == [(3, "BAD_REQUEST")] * 1 + [
        (4, "BAD_REQUEST")
    ]


def test_an_entry_of_very_many_hashes_is_several_items() -> None:
    text = "signal,value,entry\n" + "".join(f"pdq,{pdq(n)},e\n" for n in range(10))
    got = read(text, limits=Limits(contents_max=4))
    assert [len(row.contents) for row in got.rows] == [4, 4, 2]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (f"pdq,{pdq(1)[1:]},,,,,,,", "BAD_HASH"),
        (f"sha1,{md5(1)}00000000,,,,,,,", "NO_SIGNAL"),
        (",abc,,,,,,,", "BAD_REQUEST"),
        ("pdq,,,,,,,,", "EMPTY_CONTENT"),
        (f"pdq,{pdq(1)},,,,,,perhaps,", "BAD_REQUEST"),
        (f"pdq,{pdq(1)},,,,", "BAD_REQUEST"),
        (f"pdq,{pdq(1)},,,,,,,,,", "BAD_REQUEST"),
        (f"pdq,{pdq(1)},{'l' * 65},,,,,,", "LIMIT_EXCEEDED"),
        (f"pdq,{pdq(1)},{';'.join(map(str, range(33)))},,,,,,", "LIMIT_EXCEEDED"),
        (f"pdq,{pdq(1)},,{'s' * 257},,,,,", "LIMIT_EXCEEDED"),
        (f"pdq,{pdq(1)},,,,,{'n' * 4001},,", "LIMIT_EXCEEDED"),
        (f"pdq,{pdq(1)},[1],,,,,,", "BAD_REQUEST"),
        (f'pdq,"{pdq(1)}"x,,,,,,,', "BAD_REQUEST"),
        (f'pdq,"{pdq(1)},,,,,,,', "BAD_REQUEST"),
        ("m@w/p/4,AAAA,,,,,,,", "BAD_VECTOR"),
    ],
)
def test_a_row_at_fault_is_refused_alone(row: str, reason: str) -> None:
    """By name, with the whole row to be fixed; its neighbours are read."""
    got = read(f"{HEADER}md5,{md5(1)},,,,,,,\n{row}\nmd5,{md5(2)},,,,,,,\n")
    assert got.hexes() == [md5(1), md5(2)]
    assert [(bad.number, bad.reason) for bad in got.bad] == [(3, reason)]
    assert got.bad[0].record == row.encode()


def test_a_quote_that_stays_open_swallows_nothing() -> None:
    """Only its own line is refused, however many come after it."""
    rows = [f"md5,{md5(n)},,,,,,," for n in range(12_000)]
    rows[5_000] = f'md5,"{md5(5_000)},,,,,,,'
    got = read(HEADER + "\n".join(rows))
    assert len(got.rows) == 11_999
    assert [bad.number for bad in got.bad] == [5_002]


def test_rows_inside_a_quoted_note_are_no_rows() -> None:
    """A note may hold what looks like the list itself, over the edge of a chunk, too."""
    note = "\n".join(f"md5,{md5(n)},,,,,,," for n in range(150))
    rows = [f"md5,{md5(n)},,,,,,," for n in range(11_500)]
    rows[11_400] = f'md5,{md5(1)},,,,,"{note}",,'
    got = read(HEADER + "\n".join(rows), limits=Limits(note_chars_max=10_000))
    assert (len(got.rows), got.bad) == (11_500, [])
    assert got.rows[11_400].about.note == note


def test_a_table_without_a_name_for_its_values_is_refused() -> None:
    with pytest.raises(BadContent, match="two columns for labels"):
        read("signal,value,label,tags\n", format=Format.CSV)
    with pytest.raises(BadContent, match="no header"):
        read(b"\xff\xff\n", format=Format.CSV)


def test_the_caller_may_say_something_of_every_row() -> None:
    """Its labels and ids are added; source, severity and note stand where the row has none."""
    about = About(("given",), "Given", ("g",), "low", "note", withdrawn=True)
    got = read(f"{HEADER},{pdq(1)},own,Own,o,,,,\n", about=about, signal=Signal.PDQ)
    assert got.rows[0].about == About(
        ("given", "own"), "Own", ("g", "o"), "low", "note", withdrawn=True
    )


# ---------------------------------------------------------------- the threatexchange command line


def test_its_data_set_as_csv() -> None:
    """signal_type, signal_str, collab, category, tags: tags stand between blanks."""
    frames = json.dumps([f"{pdq(5)},100,0.0", f"{pdq(6)},49,1.0", f"{pdq(5)},90,2.0"])
    quoted = '"' + frames.replace('"', '""') + '"'
    text = (
        "signal_type,signal_str,collab,category,tags\r\n"
        f"pdq,{pdq(1)},Sample Data,POSITIVE_CLASS,a b\r\n"
        f"video_md5,{md5(2).upper()},Sample Data,INVESTIGATION_SEED,\r\n"
        f"pdq,{pdq(3)},Sample Data,NEGATIVE_CLASS,x\r\n"
        f"vpdq,{quoted},Videos,POSITIVE_CLASS,\r\n"
        "raw_text,some words,Sample Data,POSITIVE_CLASS,\r\n"
        "url,http://a.example/,Sample Data,POSITIVE_CLASS,\r\n"
        f"pdq,{pdq(4)},Sample Data,OTHER_CLASS,\r\n"
    )
    got = read(text)
    assert got.hexes() == [pdq(1), md5(2), pdq(3), pdq(5)]
    assert [(row.about.labels, row.about.withdrawn) for row in got.rows] == [
        (("a", "b"), False),
        (("investigation_seed",), False),
        (("x",), True),
        ((), False),
        ((), False),
    ]
    assert got.rows[4].contents == (TextContent("some words"),)
    assert got.rows[3].about.source == "Videos"
    assert [(bad.number, bad.reason) for bad in got.bad] == [(7, "NO_SIGNAL"), (8, "BAD_REQUEST")]


def test_its_query_as_csv() -> None:
    """id, indicator, type, status, tags, owner_id."""
    text = (
        "id,indicator,type,status,tags,owner_id\n"
        f"901,{pdq(1)},HASH_PDQ,MALICIOUS,a b,42\n"
        f"902,{md5(2)},HASH_MD5,NON_MALICIOUS,,42\n"
    )
    got = read(text)
    assert got.hexes() == [pdq(1), md5(2)]
    assert got.rows[0].about == About(("a", "b"), "threatexchange", ("901",))
    assert got.rows[1].about.withdrawn


# ---------------------------------------------------------------- JSON lines, and videos


def test_json_lines_say_the_same() -> None:
    lines = [
        {"signal": "pdq", "value": pdq(1), "labels": ["a"], "source_id": 7, "withdrawn": True},
        {"text": "words", "label": "a;b", "severity": None},
        {"space": "m@w/p/2", "vector": [0.6, 0.8]},
        {"action": "withdraw", "source_ids": ["x", "y"]},
    ]
    got = read("# why\n" + "\n".join(map(json.dumps, lines)) + "\n\n")
    assert got.rows[0].about == About(("a",), "", ("7",), withdrawn=True)
    assert got.rows[1].contents == (TextContent("words"),)
    assert got.rows[1].about.labels == ("a", "b")
    [vector] = got.rows[2].contents
    assert isinstance(vector, VectorContent)
    assert (vector.space, vector.vectors.shape) == ("m@w/p/2", (1, 2))
    assert (got.rows[3].contents, got.rows[3].about.source_ids) == ((), ("x", "y"))
    assert got.counts.skipped == {"comment": 1, "blank": 1}


@pytest.mark.parametrize(
    "line",
    [
        "[]",
        '{"signal": "pdq"',
        '{"signal":"pdq","value":NaN}',
        '{"signal":"pdq","value":12}',
        '{"text":["a"]}',
        '{"text":"\\ud800"}',
        '{"note":' + "[" * 100 + "]" * 100 + "}",
        '{"note":' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"space":"m@w/p/2","vector":[1,0,0]}',
        '{"space":"m@w/p/2","vector":[1,1]}',
        '{"space":"m@w/p/2","vector":[1e999,1]}',
        '{"vector":[1,0]}',
        '{"signal":"pdq","value":"' + "0" * 64 + '","labels":[1]}',
    ],
)
def test_json_lines_at_fault_are_refused(line: str) -> None:
    got = read(f'{{"signal":"md5","value":"{md5(1)}"}}\n{line}\n', format=Format.JSONL)
    assert got.hexes() == [md5(1)]
    assert [bad.number for bad in got.bad] == [2]


def test_a_video_is_one_item() -> None:
    """Of frames of quality 50 or more, each hash once; the others are counted."""
    lines = [f"0,100,{pdq(0)},0.000", f"1,49,{pdq(1)},1.000", f"2,50,{pdq(2)},2.000"]
    got = read("\n".join([*lines, f"3,80,{pdq(0)},3.000", f"4,80,{pdq(4)[2:]},4", "5,80"]))
    assert got.hexes() == [pdq(0), pdq(2)]
    assert len(got.rows) == 1
    assert got.counts.skipped == {"frame of quality under 50": 1, "frame like one before it": 1}
    assert [(bad.number, bad.reason) for bad in got.bad] == [(5, "BAD_HASH"), (6, "BAD_REQUEST")]


# ---------------------------------------------------------------- against each other

words = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=6)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([pdq(1), pdq(2).upper(), "no"]), words, words)))
def test_csv_and_json_lines_are_read_alike(rows: list[tuple[str, str, str]]) -> None:
    """Whatever stands in a cell: the quoting of the one and the escapes of the other say it."""
    import csv

    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(("signal", "value", "note", "source"))
    writer.writerows(("pdq", *row) for row in rows)
    lines = [
        json.dumps({"signal": "pdq", "value": value, "note": note, "source": source})
        for value, note, source in rows
    ]
    a = read(table.getvalue(), format=Format.CSV)
    b = read("".join(f"{line}\n" for line in lines), format=Format.JSONL)
    assert [(r.contents, r.about) for r in a.rows] == [(r.contents, r.about) for r in b.rows]
    assert [bad.reason for bad in a.bad] == [bad.reason for bad in b.bad]


def test_hash_contents_have_the_width_of_their_signal() -> None:
    """Of every signal that is a hash, by its own name."""
    text = "signal,value\n" + "".join(f"{signal},{'0f' * width_of(signal)}\n" for signal in Signal)
    contents = [row.contents[0] for row in read(text).rows]
    assert {c.signal for c in contents if isinstance(c, HashContent)} == set(Signal)
