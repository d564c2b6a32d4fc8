"""Lists in the shapes in which partners send them, and one way to read any of them."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simsearch.lists import ListRow, ReadCounts, ReadOptions, RefusedRow, read_list
from simsearch.types import HashContent, Signal


@dataclass(frozen=True)
class Read:
    rows: list[ListRow]
    bad: list[RefusedRow]
    counts: ReadCounts

    def hexes(self) -> list[str]:
        """Of the hashes, in order."""
        contents = [content for row in self.rows for content in row.contents]
        return [content.value.hex() for content in contents if isinstance(content, HashContent)]


def read(source: bytes | str | Path, **options: Any) -> Read:
    """All of it, with the promise that holds for every list: nothing is lost silently."""
    if isinstance(source, str):
        source = source.encode()
    given = source if isinstance(source, Path) else io.BytesIO(source)
    reading = read_list(given, ReadOptions(**options))
    items = list(reading)
    rows = [item for item in items if isinstance(item, ListRow)]
    bad = [item for item in items if isinstance(item, RefusedRow)]
    counts = reading.counts
    assert counts.records == counts.accepted + counts.refused.total() + counts.skipped.total()
    assert (counts.items, counts.refused.total()) == (len(rows), len(bad))
    assert counts.accepted == sum(row.records for row in rows)
    assert counts.withdrawn == sum(row.about.withdrawn for row in rows)
    assert all(len(row.raw) <= 200 for row in bad)
    return Read(rows, bad, counts)


def pdq(n: int) -> str:
    return hashlib.sha256(f"pdq {n}".encode()).hexdigest()


def md5(n: int) -> str:
    return hashlib.sha256(f"md5 {n}".encode()).hexdigest()[:32]


def hashed(signal: Signal, digits: str) -> HashContent:
    return HashContent(signal, bytes.fromhex(digits))


NCMEC = f"""<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<queryResult xmlns="https://hashsharing.ncmec.org/hashsharing/v2">
  <images count="3" maxTimestamp="2024-10-24T15:10:00Z">
    <image>
      <member id="42">A &amp; B</member>
      <timestamp>2024-10-24T15:00:00Z</timestamp>
      <id>image1</id>
      <classification>A1</classification>
      <fingerprints>
        <md5>{md5(1).upper()}</md5>
        <sha1>{"a1" * 20}</sha1>
        <pdna>{"a1" * 144}</pdna>
        <pdq> {pdq(1)} </pdq>
      </fingerprints>
      <feedback>
        <affirmativeFeedback type="MD5" lastUpdateTimestamp="2024-10-24T15:00:00Z">
          <members><member id="7">Other</member></members>
        </affirmativeFeedback>
      </feedback>
    </image>
    <image>
      <member id="42">A &amp; B</member>
      <id>image2</id>
      <classification/>
      <fingerprints><md5>123</md5><pdna>00</pdna></fingerprints>
    </image>
    <image><member id="42"/><id>image3</id><fingerprints/></image>
    <deletedImage>
      <member id="43">C</member>
      <id>image4</id>
      <timestamp>2024-10-24T15:10:00Z</timestamp>
    </deletedImage>
  </images>
  <videos count="1" maxTimestamp="2024-10-24T15:20:00Z">
    <video>
      <member id="42">A &amp; B</member>
      <id>video1</id>
      <fingerprints><md5>{md5(2)}</md5></fingerprints>
    </video>
  </videos>
  <paging><next>/v2/entries?from=2024-10-20T00%3A00%3A00.000Z&amp;start=2001</next></paging>
</queryResult>
"""

STOPNCII: dict[str, Any] = {
    "count": 4,
    "nextSetTimestamp": 1625175071,
    "nextPageToken": "W3siY29tcG9zaXRl",
    "hasMoreRecords": True,
    "hashRecords": [
        {
            "lastModtimestamp": 1625167804,
            "hashValue": pdq(1),
            "hashStatus": "Active",
            "caseNumbers": {"case-b": "Active", "case-a": "Withdrawn"},
            "signalType": "ImagePDQ",
            "CSPFeedbacks": [
                {"source": "Site", "feedbackValue": "Blocked", "tags": ["nude", "nude", ""]}
            ],
        },
        {
            "lastModtimestamp": 1,
            "hashValue": md5(2),
            "hashStatus": "Withdrawn",
            "caseNumbers": [],
            "signalType": "VideoMD5",
        },
        {"lastModtimestamp": 1, "hashValue": "x", "hashStatus": "Active", "signalType": "VideoTMK"},
        {"hashValue": pdq(3), "hashStatus": "Sometimes", "signalType": "ImagePDQ"},
    ],
}

THREAT_UPDATES: dict[str, Any] = {
    "data": [
        {
            "id": "4460000000000001",
            "indicator": pdq(1),
            "type": "HASH_PDQ",
            "last_updated": 1700000000,
            "should_delete": False,
            "descriptors": {
                "data": [
                    {
                        "id": "9001",
                        "owner": {"id": "42"},
                        "status": "MALICIOUS",
                        "severity": "SEVERE",
                        "tags": {"data": [{"id": "1", "text": "dangerous_orgs"}]},
                    },
                    {"id": "9002", "owner": {"id": "43"}, "status": "NON_MALICIOUS", "tags": None},
                ]
            },
        },
        {"id": "2", "indicator": md5(2), "type": "HASH_VIDEO_MD5", "should_delete": True},
        {"id": "3", "indicator": "http://a.example/", "type": "URI", "descriptors": {"data": []}},
    ],
    "paging": {"cursors": {"before": "a", "after": "b"}},
}

DESCRIPTORS: list[dict[str, Any]] = [
    {
        "id": "3058061737574159",
        "raw_indicator": "facefacefacefacefacefacefaceface",
        "type": "HASH_MD5",
        "owner": {"id": "616912251743987"},
        "status": "SUSPICIOUS",
        "tags": None,
        "description": "seen twice",
    },
    {"id": "8", "raw_indicator": pdq(8), "type": "HASH_PDQ", "status": "NON_MALICIOUS", "tags": []},
    {
        "id": "9",
        "indicator": {"id": "90", "indicator": pdq(9), "type": "HASH_SHA256"},
        "status": "MALICIOUS",
        "tags": ["a", "b"],
    },
]

TECH_AGAINST_TERRORISM: dict[str, Any] = {
    "count": 3,
    "next": None,
    "previous": None,
    "checkpoint": "1704085200,124",
    "results": [
        {
            "hash_digest": pdq(1),
            "algorithm": "PDQ",
            "ideology": "far-right",
            "file_type": "png",
            "deleted": False,
            "updated_on": 1704085200.5,
            "created_on": "2024-01-01T05:00:00Z",
            "id": 123,
        },
        {
            "hash_digest": md5(2).upper(),
            "algorithm": "MD5",
            "ideology": "islamist",
            "file_type": "mp4",
            "deleted": True,
            "updated_on": 1704085200.5,
            "created_on": "2024-01-01T05:00:00Z",
            "id": 124,
        },
        {"hash_digest": "aa", "algorithm": "SHA1", "deleted": False, "id": 125},
    ],
}
