"""`simsearch entry find`: what is nearest to a content, whatever the thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Optional

import typer

from simsearch.cli.common.connection import asks_a_server, connect
from simsearch.cli.common.content_options import (
    Files,
    Hashes,
    Texts,
    Vectors,
    contents_of,
    text_of_file,
)
from simsearch.cli.common.options import SERVER_DEFAULT, Json, Server, States, states_of
from simsearch.cli.common.output import (
    extent_words,
    part_words,
    plain,
    print_json,
    print_line,
    print_table,
)
from simsearch.cli.entries.entry_list import COLUMNS, row
from simsearch.errors import BadRequest
from simsearch.types import Content, TextContent
from simsearch.v1.bank_pb2 import FindEntriesResponse, FoundEntry
from simsearch.v1.match_pb2 import Evidence


@asks_a_server
def find(
    files: Files = None,
    text: Texts = None,
    text_file: Annotated[
        str, typer.Option("--text-file", help="a file with a text; - is standard input")
    ] = "",
    hash_: Hashes = None,
    vector: Vectors = None,
    bank: Annotated[
        Optional[list[str]],  # noqa: UP045  # typer reads the annotation at run time
        typer.Option("--bank", help="only in this bank (repeatable); in all where left out"),
    ] = None,
    state: States = None,
    most: Annotated[int, typer.Option("--max", min=1, help="entries to print")] = 20,
    cosine_min: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="leave out cosines below  [default: 0.5]", show_default=False),
    ] = None,
    hamming_max: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(
            help="leave out distances in bits above  [default: PDQ 80, MinHash 100]",
            show_default=False,
        ),
    ] = None,
    server: Server = SERVER_DEFAULT,
    as_json: Json = False,
) -> None:
    """Show the entries nearest to one content, best first. It looks beyond the banks' thresholds,
    and at drafts, quarantined and disputed entries too. Nothing is judged by it.

    Example: simsearch entry find upload.jpg --bank scam-images --max 5
    """
    contents: list[Content] = [TextContent(text_of_file(text_file))] if text_file else []
    if not text_file or files or text or hash_ or vector:
        contents += [content for _, content in contents_of(files, text, hash_, vector)]
    _check_one(contents)
    with connect(server) as client:
        found = client.find_entries(
            contents[0],
            bank or (),
            states=states_of(state),
            entries_max=most,
            cosine_min=cosine_min,
            hamming_max=hamming_max,
        )
    if as_json:
        print_json(plain(found))
    else:
        _print(found)


def _check_one(contents: Sequence[Content]) -> None:
    if len(contents) > 1:
        raise BadRequest(f"{len(contents)} contents were given: find what is near to one at a time")


def _print(found: FindEntriesResponse) -> None:
    print_table(("near by", "bank", *COLUMNS), [_row(each) for each in found.entries])
    if found.truncated:
        print_line("there are more: ask for more by --max, or for nearer ones")
    for report in map(plain, found.signals):
        if report["state"] != "SEARCHED":
            print_line(f"not searched: {report['signal']}: {report['detail']}")


def _row(found: FoundEntry) -> tuple[str, ...]:
    near = "\n".join(map(near_words, found.evidence))
    return near, found.entry.bank, *row(found.entry)


def near_words(evidence: Evidence) -> str:
    """As in "pdq 14 bits" or "copyclip cosine 0.91234", of a part of the picture with where it
    lies."""
    region = extent_words(evidence.region) if evidence.HasField("region") else ""
    frame = evidence.frame if evidence.HasField("frame") else None
    return _measure_words(evidence) + part_words(region, frame, evidence.on_black)


def _measure_words(evidence: Evidence) -> str:
    name = evidence.signal.partition("@")[0]
    match evidence.WhichOneof("measure"):
        case "hamming":
            return f"{name} {evidence.hamming} bits"
        case "cosine":
            return f"{name} cosine {evidence.cosine:.5f}"
        case "identical":
            return f"{name} identical"
        case _:
            return f"{name} (score not granted)"
