"""JSON document reader for partners' lists: pages, arrays of records, single records."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NoReturn

from simsearch.errors import BadContent, LimitExceeded, SimsearchError
from simsearch.lists.byte_streams import ByteStream, without_mark
from simsearch.lists.fields import Record, RowDefaults
from simsearch.lists.readers.jsonl import check_depth, decoder
from simsearch.lists.rows import Item, Limits, ListRow, refused_row

RECORDS_KEYS: Final = frozenset(("hashRecords", "data", "results", "threat_updates"))
"""Of a page: what its array of records is called."""

PAGE_FIELDS_MAX: Final = 1_000

RecordReader = Callable[[Mapping[str, Any], RowDefaults], Record]


def read_records(stream: ByteStream, defaults: RowDefaults, read: RecordReader) -> Iterator[Item]:
    """Records are counted from 1. Raises BadContent where the document is no JSON: what comes
    after a fault cannot be told apart."""
    for number, value in enumerate(_records(JsonText(stream, defaults.limits)), 1):
        try:
            if not isinstance(value, dict):
                raise BadContent("the record is no JSON object")
            check_depth(value, defaults.limits.nesting_max)
            record = read(value, defaults)
        except SimsearchError as refusal:
            yield refused_row(stream.name, number, _raw(value), refusal)
        else:
            yield ListRow(stream.name, number, record.contents, record.about, record.group)


def _raw(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace")


def _records(text: JsonText) -> Iterator[Any]:
    while following := text.peek():
        if following == "#":  # as RefusedRowsFile writes above a record
            text.pass_line()
        elif text.take("["):
            yield from _elements(text, lambda: _page_or_record(text))
        else:
            yield from _page_or_record(text)


def _page_or_record(text: JsonText) -> Iterator[Any]:
    """An object with an array of records gives these; any other value is a record itself."""
    if not text.take("{"):
        yield text.value()
        return
    fields: dict[str, Any] = {}
    is_page = False
    while not text.take("}"):
        key = text.key()
        if key in RECORDS_KEYS and text.take("["):
            is_page = True
            yield from _elements(text, lambda: iter((text.value(),)))
        else:
            fields[key] = text.value()
        if len(fields) > PAGE_FIELDS_MAX:
            raise LimitExceeded(f"{text.name} holds a record of over {PAGE_FIELDS_MAX} fields")
        if not text.take(",") and text.peek() != "}":
            text.refuse()
    if not is_page:
        yield fields


def _elements(text: JsonText, element: Callable[[], Iterator[Any]]) -> Iterator[Any]:
    """Of an array that has been entered."""
    while not text.take("]"):
        yield from element()
        if not text.take(",") and text.peek() != "]":
            text.refuse()


class JsonText:
    """A stream as JSON: one value at a time, none of them longer than the limit."""

    def __init__(self, stream: ByteStream, limits: Limits) -> None:
        self.name = stream.name
        self._chars_max = limits.record_bytes_max
        self._decode = codecs.getincrementaldecoder("utf-8")().decode
        self._chunks = stream.chunks()
        self._text, self._at, self._passed = "", 0, 0
        self._is_first = True

    def peek(self) -> str:
        """The next character that is no blank; empty at the end."""
        while (char := self.peek_any()) and char in " \t\r\n":
            self._at += 1
        return char

    def take(self, char: str) -> bool:
        """Whether it comes next; then it is passed."""
        if self.peek() != char:
            return False
        self._at += 1
        return True

    def pass_line(self) -> None:
        """Skip to the end of the line."""
        while self.peek_any() not in ("\n", ""):
            self._at += 1

    def peek_any(self) -> str:
        """The next character, be it a blank; empty at the end."""
        while self._at == len(self._text):
            if not self._more():
                return ""
        return self._text[self._at]

    def key(self) -> str:
        """Of an object, with its colon. Raises BadContent."""
        key = self.value()
        if not isinstance(key, str) or not self.take(":"):
            self.refuse()
        return key

    def value(self) -> Any:
        """Raises BadContent, LimitExceeded."""
        self.peek()
        while True:
            try:
                value, end = decoder.raw_decode(self._text, self._at)
            except RecursionError:
                raise BadContent(f"{self.name} is nested too deep after {self._where()}") from None
            except ValueError:
                end = len(self._text)
            else:
                if end < len(self._text) or not self._more():
                    self._at = end
                    return value
                continue  # a number may go on
            if end - self._at > self._chars_max:
                raise LimitExceeded(
                    f"{self.name} holds no JSON value, or one of over {self._chars_max} "
                    f"characters, after {self._where()}"
                )
            if not self._more(end - self._at):
                self.refuse()

    def refuse(self) -> NoReturn:
        """Raises BadContent, with the place in the file."""
        raise BadContent(f"{self.name} is no JSON, or cut off, after {self._where()}")

    def _where(self) -> str:
        return f"character {self._passed + self._at}"

    def _more(self, at_least: int = 1) -> bool:
        """Whether there was more. A value that is long is read by ever more, not tried often."""
        found: list[str] = []
        while sum(map(len, found)) < at_least and (chunk := next(self._chunks, None)) is not None:
            found.append(self._decoded(without_mark(chunk) if self._is_first else chunk))
            self._is_first = False
        if not any(found):
            return False
        self._passed += self._at
        self._text, self._at = self._text[self._at :] + "".join(found), 0
        return True

    def _decoded(self, chunk: bytes) -> str:
        try:
            return self._decode(chunk)
        except UnicodeDecodeError:
            raise BadContent(f"{self.name} is not UTF-8 after {self._where()}") from None
