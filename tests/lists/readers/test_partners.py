"""The lists of partners: NCMEC, StopNCII, ThreatExchange and Tech Against Terrorism."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from simsearch.errors import BadContent, LimitExceeded
from simsearch.lists import About, Format, Limits, ReadOptions, read_list
from simsearch.lists.byte_streams import HEAD_BYTES
from simsearch.types import Signal
from tests.lists import samples
from tests.lists.samples import hashed, md5, pdq, read

# ---------------------------------------------------------------- NCMEC


def test_ncmec_entries_are_items() -> None:
    """All their hashes together; what cannot be matched is refused or counted by name."""
    got = read(samples.NCMEC)
    assert [(row.number, row.contents) for row in got.rows] == [
        (1, (hashed(Signal.MD5, md5(1)), hashed(Signal.PDQ, pdq(1)))),
        (4, ()),
        (5, (hashed(Signal.MD5, md5(2)),)),
    ]
    assert got.rows[0].about == About(
        ("A1",), "ncmec", ("42-image1",), note="image of member 42 A & B"
    )
    assert got.rows[1].about == About(
        (), "ncmec", ("43-image4",), note="image of member 43 C", withdrawn=True
    )
    assert [(bad.number, bad.reason) for bad in got.bad] == [
        (1, "NO_SIGNAL"),
        (2, "BAD_HASH"),
        (3, "NO_SIGNAL"),
    ]
    assert got.counts.skipped == {"pdna fingerprint": 2}
    assert got.counts.records == 9


def test_ncmec_is_the_same_however_it_arrives() -> None:
    """Byte by byte, without a declaration, with a mark, in one line, with a prefix."""
    whole = read(samples.NCMEC)
    bare = samples.NCMEC.partition("?>\n")[2]
    prefixed = bare.replace("<", "<h:").replace("<h:/", "</h:").replace("xmlns=", "xmlns:h=")
    for text in ("\ufeff" + bare, bare.replace("\n", ""), prefixed):
        again = read(text)
        assert again.rows == whole.rows
        assert [bad.reason for bad in again.bad] == [bad.reason for bad in whole.bad]

    class Dripping(io.BytesIO):
        def read(self, nbytes: int | None = -1) -> bytes:
            return super().read(3)

    reading = read_list(Dripping(samples.NCMEC.encode()), ReadOptions())
    assert len(list(reading)) == len(whole.rows) + len(whole.bad)


BILLION_LAUGHS = """<?xml version="1.0"?><!DOCTYPE queryResult [<!ENTITY a "aaaaaaaaaa">
<!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">]>
<queryResult><images><image><id>&c;</id></image></images></queryResult>"""
EXTERNAL = """<!DOCTYPE queryResult [<!ENTITY x SYSTEM "file:///etc/passwd">]>
<queryResult><images><image><id>&x;</id></image></images></queryResult>"""
DTD = '<!DOCTYPE queryResult SYSTEM "http://a.example/x.dtd"><queryResult/>'
PARAMETER = '<!DOCTYPE queryResult [<!ENTITY % p SYSTEM "file:///x"> %p;]><queryResult/>'


@pytest.mark.parametrize("text", [BILLION_LAUGHS, EXTERNAL, DTD, PARAMETER])
def test_xml_with_declarations_is_refused(text: str) -> None:
    """No entity is ever expanded, nothing outside of the file is ever read."""
    with pytest.raises(BadContent, match="DTD or entities"):
        read(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<queryResult>" + "<a>" * 10_000, "nested deeper"),
        ("<queryResult><images>&nbsp;</images></queryResult>", "undefined entity"),
        (samples.NCMEC[:1_500], "cut off"),
        (samples.NCMEC + "<queryResult/>", "no XML"),
        ("<queryResult><images><picture/></images></queryResult>", "unknown kind"),
        ("<html><queryResult/></html>", "not of <queryResult>"),
        ('<?xml version="1.0" encoding="no-such"?><queryResult/>', "no XML"),
    ],
)
def test_broken_xml_is_refused_as_a_whole(text: str, words: str) -> None:
    """What comes after a fault in it is not known."""
    with pytest.raises(BadContent, match=words):
        read(text)


@pytest.mark.parametrize(
    "text",
    [
        "<queryResult><images><image><id>" + "x" * 3_000_000 + "</id></image>",
        "<queryResult><images><image a='" + "x" * 8_000_000 + "'>",
        "<queryResult><images><image><fingerprints>" + "<md5>0</md5>" * 65,
    ],
)
def test_huge_xml_is_refused(text: str) -> None:
    """A text, a tag, and the number of fingerprints have a bound."""
    with pytest.raises(LimitExceeded):
        read(text)


# ---------------------------------------------------------------- JSON


def _documents(page: dict[str, Any], key: str) -> list[str]:
    """One list in all the ways in which it is saved."""
    records = page[key]
    return [
        json.dumps(page),
        json.dumps(page, indent=2),
        "\ufeff" + json.dumps([page | {key: records[:1]}, page | {key: records[1:]}]),
        json.dumps(page | {key: records[:1]}) + "\n" + json.dumps(page | {key: records[1:]}),
        json.dumps(records),
        "\n".join(map(json.dumps, records)),
    ]


@pytest.mark.parametrize("text", _documents(samples.STOPNCII, "hashRecords"))
def test_stopncii(text: str) -> None:
    """Cases are ids, tags are labels, feedback is in the note, what is withdrawn is taken back."""
    got = read(text)
    assert [row.contents for row in got.rows] == [
        (hashed(Signal.PDQ, pdq(1)),),
        (hashed(Signal.MD5, md5(2)),),
    ]
    assert got.rows[0].about == About(
        ("nude",), "stopncii", ("case-a", "case-b"), note="Blocked by Site"
    )
    assert got.rows[1].about == About((), "stopncii", withdrawn=True)
    assert [(bad.number, bad.reason) for bad in got.bad] == [(3, "NO_SIGNAL"), (4, "BAD_REQUEST")]


@pytest.mark.parametrize("text", _documents(samples.THREAT_UPDATES, "data"))
def test_threatexchange_updates(text: str) -> None:
    """One opinion that calls it harmful is enough; a removed indicator is taken back."""
    got = read(text)
    assert [row.contents for row in got.rows] == [
        (hashed(Signal.PDQ, pdq(1)),),
        (hashed(Signal.MD5, md5(2)),),
    ]
    assert got.rows[0].about == About(
        ("dangerous_orgs",), "threatexchange", ("4460000000000001", "9001", "9002"), "SEVERE"
    )
    assert got.rows[1].about == About((), "threatexchange", ("2",), withdrawn=True)
    assert [(bad.number, bad.reason) for bad in got.bad] == [(3, "NO_SIGNAL")]


def test_threatexchange_descriptors() -> None:
    """Doubts are a label; what is not harmful is taken back."""
    got = read(json.dumps({"data": samples.DESCRIPTORS}))
    assert [row.contents[0] for row in got.rows] == [
        hashed(Signal.MD5, "face" * 8),
        hashed(Signal.PDQ, pdq(8)),
        hashed(Signal.SHA256, pdq(9)),
    ]
    assert [(row.about.labels, row.about.withdrawn) for row in got.rows] == [
        (("suspicious",), False),
        ((), True),
        (("a", "b"), False),
    ]
    assert got.rows[0].about.note == "seen twice"


@pytest.mark.parametrize("text", _documents(samples.TECH_AGAINST_TERRORISM, "results"))
def test_tech_against_terrorism(text: str) -> None:
    got = read(text)
    assert [(row.contents[0], row.about.withdrawn) for row in got.rows] == [
        (hashed(Signal.PDQ, pdq(1)), False),
        (hashed(Signal.MD5, md5(2)), True),
    ]
    assert got.rows[0].about == About(
        ("far-right",), "tech-against-terrorism", ("123",), note="png"
    )
    assert [(bad.number, bad.reason) for bad in got.bad] == [(3, "NO_SIGNAL")]


def test_a_case_more_than_an_entry_may_name_is_counted_in_words() -> None:
    record = samples.STOPNCII["hashRecords"][0] | {
        "caseNumbers": {f"case-{n:02}": "Active" for n in range(40)}
    }
    [row] = read(json.dumps([record])).rows
    assert len(row.about.source_ids) == 32
    assert row.about.note == "and 8 more cases; Blocked by Site"


@pytest.mark.parametrize(
    "text",
    [
        '{"hashRecords": [{"hashValue": "1"}',
        '{"hashRecords": [{"hashValue": "1"} {}]}',
        '{"hashRecords": [' + "[" * 100_000,
        '{"hashRecords": [{"hashValue": NaN}]}',
        '{"hashRecords": [{"n": ' + "1" * 5_000 + "}]}",
        '{"hashRecords" []}',
    ],
)
def test_broken_json_is_refused_as_a_whole(text: str) -> None:
    with pytest.raises(BadContent):
        read(text, format=Format.STOPNCII)


@pytest.mark.parametrize("more", range(8))
def test_a_number_may_be_cut_where_the_file_is(more: int) -> None:
    """The bytes that are read first end within it: it goes on in the next."""
    records = samples.STOPNCII["hashRecords"][:2]
    pad = "x" * (HEAD_BYTES - 30 + more)
    page = {"pad": pad, "count": 1234567, "hashRecords": records}
    assert len(read(json.dumps(page), format=Format.STOPNCII).rows) == 2


def test_long_json_is_refused() -> None:
    """A record has a bound; the list has none."""
    with pytest.raises(LimitExceeded):
        read('{"hashRecords": ["' + "a" * 5_000_000, format=Format.STOPNCII)
    many = json.dumps([samples.STOPNCII["hashRecords"][1]] * 2_000)
    assert len(read(many, limits=Limits(record_bytes_max=300)).rows) == 2_000


def test_deep_records_are_refused_alone() -> None:
    deep = {"hashValue": json.loads("[" * 50 + "]" * 50)}
    got = read(json.dumps([deep, samples.STOPNCII["hashRecords"][1]]), limits=Limits())
    assert ([bad.number for bad in got.bad], len(got.rows)) == ([1], 1)


@pytest.mark.parametrize("value", [1, None, [], {}, True, "x", 1.5, [[]], {"data": 1}])
@pytest.mark.parametrize(
    ("format", "records"),
    [
        (Format.STOPNCII, samples.STOPNCII["hashRecords"][:1]),
        (Format.THREATEXCHANGE, [samples.THREAT_UPDATES["data"][0], samples.DESCRIPTORS[0]]),
        (Format.TECH_AGAINST_TERRORISM, samples.TECH_AGAINST_TERRORISM["results"][:1]),
    ],
)
def test_fields_of_another_type_never_break_a_list(
    format: Format, records: list[dict[str, Any]], value: object
) -> None:
    """Each record is an item or refused, whatever stands in its fields."""
    wrong = [record | {name: value} for record in records for name in record]
    text = json.dumps([*wrong, value])
    assert read(text, format=format).counts.records == len(wrong) + 1
