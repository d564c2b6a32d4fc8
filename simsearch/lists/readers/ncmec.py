"""NCMEC reader: hash sharing XML, version 2, as a stream; hostile XML is refused."""

from __future__ import annotations

import xml.parsers.expat as expat
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NoReturn
from xml.sax.saxutils import escape, quoteattr

from simsearch.errors import BadContent, BadRequest, LimitExceeded, NoSignal, SimsearchError
from simsearch.lists.byte_streams import ByteStream
from simsearch.lists.fields import RowDefaults, hash_of, with_defaults
from simsearch.lists.rows import About, Item, ListRow, RowContent, SkippedRow, refused_row
from simsearch.types import Signal

SOURCE: Final = "ncmec"
NAMESPACE: Final = "https://hashsharing.ncmec.org/hashsharing/v2"

_ROOT: Final = "queryResult"
_ENTRIES: Final = frozenset(("image", "video", "deletedImage", "deletedVideo"))
_SIGNALS: Final = {"md5": Signal.MD5, "sha256": Signal.SHA256, "pdq": Signal.PDQ}
_UNMATCHABLE: Final = frozenset(
    ("pdna", "netclean", "videntifier", "tmk_pdqf", "ssvh_pdna", "ssvh_safer_hash")
)
"""Fingerprints by closed algorithms, which most entries have beside others: counted."""

FINGERPRINTS_MAX: Final = 64


@dataclass(slots=True)
class _Entry:
    kind: str
    id: str = ""
    member: str = ""
    member_name: str = ""
    classification: str = ""
    fingerprints: list[tuple[str, str]] = field(default_factory=list)


def read_ncmec(stream: ByteStream, defaults: RowDefaults) -> Iterator[Item]:
    """Entries are counted from 1; a record is a fingerprint, or an entry that has none. Raises
    BadContent, LimitExceeded where the XML is broken, cut off or hostile."""
    parser = _Parser(stream.name, defaults)
    number = 0
    for chunk in stream.chunks():
        for entry in parser.feed(chunk):
            number += 1
            yield from _items(stream.name, number, entry, defaults)
    parser.close()


def _items(file: str, number: int, entry: _Entry, defaults: RowDefaults) -> Iterator[Item]:
    """The item that an entry is, and a refusal for each fingerprint that cannot be matched."""
    contents: list[RowContent] = []
    good: list[tuple[str, str]] = []
    for name, digits in entry.fingerprints:
        lower = name.lower()
        if lower in _UNMATCHABLE:
            yield SkippedRow(f"{lower} fingerprint")
            continue
        try:
            contents.append(_content(lower, digits))
            good.append((name, digits))
        except SimsearchError as refusal:
            yield refused_row(file, number, _raw(entry, [(name, digits)]), refusal)
    withdrawn = entry.kind.startswith("deleted")
    if not contents and entry.fingerprints and not withdrawn:
        return
    try:
        if not contents and not withdrawn:
            raise NoSignal("the entry has no fingerprints")
        about = _about(entry, withdrawn, defaults)
    except SimsearchError as refusal:
        for kept in [[fingerprint] for fingerprint in good] or [[]]:
            yield refused_row(file, number, _raw(entry, kept), refusal)
        return
    records = len(good) or int(not entry.fingerprints)
    yield ListRow(file, number, tuple(dict.fromkeys(contents)), about, records=records)


def _content(name: str, digits: str) -> RowContent:
    if name not in _SIGNALS:
        raise NoSignal(f"{name[:40]!r} is no signal that can be matched")
    return hash_of(_SIGNALS[name], digits)


def _about(entry: _Entry, withdrawn: bool, defaults: RowDefaults) -> About:
    if not entry.id or not entry.member:
        raise BadRequest("the entry has no id, or its member has none")
    kind = entry.kind.removeprefix("deleted").lower()
    about = About(
        labels=(entry.classification,),
        source=SOURCE,
        source_ids=(f"{entry.member}-{entry.id}",),
        note=f"{kind} of member {entry.member} {entry.member_name}".rstrip(),
        withdrawn=withdrawn,
    )
    return with_defaults(about, defaults)


def _raw(entry: _Entry, fingerprints: list[tuple[str, str]]) -> bytes:
    """The entry with these fingerprints alone, as XML that can be read again."""
    parts = [f"<member id={quoteattr(entry.member)}>{escape(entry.member_name)}</member>"]
    parts.append(f"<id>{escape(entry.id)}</id>")
    if entry.classification:
        parts.append(f"<classification>{escape(entry.classification)}</classification>")
    if fingerprints:
        inner = "".join(f"<{name}>{escape(digits)}</{name}>" for name, digits in fingerprints)
        parts.append(f"<fingerprints>{inner}</fingerprints>")
    group = "images" if entry.kind.lower().endswith("image") else "videos"
    return f"<{group}><{entry.kind}>{''.join(parts)}</{entry.kind}></{group}>".encode()


class _Parser:
    """Hardened expat parser: no DTD, no entities, bounded depth, bounded text."""

    def __init__(self, name: str, defaults: RowDefaults) -> None:
        self._name = name
        self._limits = defaults.limits
        self._done: list[_Entry] = []
        self._entry: _Entry | None = None
        self._path: list[str] = []
        self._text: list[str] = []
        self._text_chars = 0
        self._fed = 0
        self._expat = expat.ParserCreate()
        self._expat.buffer_text = True
        self._expat.StartElementHandler = self._start
        self._expat.EndElementHandler = self._end
        self._expat.CharacterDataHandler = self._characters
        self._expat.StartDoctypeDeclHandler = self._hostile
        self._expat.EntityDeclHandler = self._hostile
        self._expat.ExternalEntityRefHandler = self._hostile

    def feed(self, chunk: bytes) -> list[_Entry]:
        """The entries that end in it."""
        self._parse(chunk)
        self._fed += len(chunk)
        # What expat holds without an event is one tag: an attribute of any length, say.
        if self._fed - self._expat.CurrentByteIndex > self._limits.record_bytes_max:
            raise self._too_long("a tag")
        done, self._done = self._done, []
        return done

    def close(self) -> None:
        self._parse(b"", is_final=True)

    def _parse(self, chunk: bytes, *, is_final: bool = False) -> None:
        try:
            self._expat.Parse(chunk, is_final)
        except (expat.ExpatError, ValueError, LookupError) as fault:
            line = self._expat.CurrentLineNumber
            raise BadContent(
                f"{self._name} is no XML, or cut off, at line {line}: {fault}"
            ) from None

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        name = tag.rpartition(":")[2]
        if not self._path and name != _ROOT:
            raise BadContent(f"{self._name} is XML of <{name[:40]}>, not of <{_ROOT}>")
        self._path.append(name)
        if len(self._path) > self._limits.nesting_max:
            raise BadContent(f"{self._name} is nested deeper than {self._limits.nesting_max}")
        self._text, self._text_chars = [], 0
        entry = self._entry
        if entry is None:
            if len(self._path) == 3 and name in _ENTRIES:
                self._entry = _Entry(name)
            elif len(self._path) == 3 and self._path[1] in ("images", "videos"):
                raise BadContent(f"{self._name} holds an entry of unknown kind <{name[:40]}>")
        elif name == "member" and len(self._path) == 4:
            entry.member = attributes.get("id", "").strip()

    def _end(self, _tag: str) -> None:
        name, depth = self._path.pop(), len(self._path) + 1
        text = "".join(self._text).strip()
        self._text, self._text_chars = [], 0
        entry = self._entry
        if entry is None:
            return
        if depth == 3:
            self._done.append(entry)
            self._entry = None
        elif depth == 4:
            self._keep(entry, name, text)
        elif depth == 5 and self._path[-1] == "fingerprints" and text:
            entry.fingerprints.append((name, text))
            if len(entry.fingerprints) > FINGERPRINTS_MAX:
                raise LimitExceeded(
                    f"{self._name} holds an entry of over {FINGERPRINTS_MAX} fingerprints"
                )

    def _keep(self, entry: _Entry, name: str, text: str) -> None:
        if name == "id":
            entry.id = text
        elif name == "member":
            entry.member_name = text
        elif name == "classification":
            entry.classification = text

    def _characters(self, text: str) -> None:
        self._text_chars += len(text)
        if self._text_chars > self._limits.line_bytes_max:
            raise self._too_long("a text")
        if self._entry is not None:
            self._text.append(text)

    def _too_long(self, what: str) -> LimitExceeded:
        line = self._expat.CurrentLineNumber
        return LimitExceeded(f"{self._name} holds {what} that is far too long, at line {line}")

    def _hostile(self, *_: object) -> NoReturn:
        raise BadContent(
            f"{self._name} declares a DTD or entities: such lists have none, so it is not read"
        )
