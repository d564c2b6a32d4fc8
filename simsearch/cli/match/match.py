"""`simsearch match`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Optional

import typer

from simsearch.cli.common.connection import asks_a_server, connect
from simsearch.cli.common.content_options import Hashes, Images, Texts, Vectors, contents_of
from simsearch.cli.common.options import SERVER_DEFAULT, Json, Server, exit_code
from simsearch.cli.common.output import (
    hit_words,
    print_json,
    print_table,
    result_json,
    suppressed_words,
    verdict_name,
)
from simsearch.errors import SimsearchError
from simsearch.types import MatchOptions, MatchResult


@asks_a_server
def match(
    images: Images = None,
    text: Texts = None,
    hash_: Hashes = None,
    vector: Vectors = None,
    bank: Annotated[
        Optional[list[str]],  # noqa: UP045  # typer reads the annotation at run time
        typer.Option("--bank", help="ask only this bank (repeatable); all where left out"),
    ] = None,
    hits_max: Annotated[int, typer.Option("--hits-max", min=1, help="hits to print for each")] = 10,
    stop_at_block: Annotated[
        bool,
        typer.Option(
            "--stop-at-block",
            help="what an equal digest blocks is asked about no further: quicker, not all hits",
        ),
    ] = False,
    shadow: Annotated[
        bool, typer.Option("--shadow", help="show what entries in the shadow were hit, too")
    ] = False,
    server: Server = SERVER_DEFAULT,
    as_json: Json = False,
) -> None:
    """Is this content banned, or a copy or rewording of something that is?

    Example: simsearch match upload.jpg --text "send 1 coin, get 2 back"
    """
    given = contents_of(images, text, hash_, vector)
    options = MatchOptions(
        tuple(bank or ()),
        hits_max,
        with_stage_times=True,
        stop_at_block=stop_at_block,
        with_shadow=shadow,
    )
    with connect(server) as client:
        outcomes = client.match_batch([content for _, content in given], options)
    names = [name for name, _ in given]
    if as_json:
        print_json([_json(n, o) for n, o in zip(names, outcomes, strict=True)])
    else:
        print_table(("content", "verdict", "hits"), _rows(names, outcomes))
    failures = [o for o in outcomes if isinstance(o, SimsearchError)]
    if failures:
        raise typer.Exit(exit_code(failures[0]))


def _json(name: str, outcome: MatchResult | SimsearchError) -> dict[str, Any]:
    if isinstance(outcome, SimsearchError):
        return {"content": name, "error": {"reason": outcome.reason, "message": outcome.message}}
    return {"content": name} | result_json(outcome)


def _rows(
    names: Sequence[str], outcomes: Sequence[MatchResult | SimsearchError]
) -> list[tuple[str, str, str]]:
    return [_row(n, o) for n, o in zip(names, outcomes, strict=True)]


def _row(name: str, outcome: MatchResult | SimsearchError) -> tuple[str, str, str]:
    if isinstance(outcome, SimsearchError):
        return name, outcome.reason, outcome.message
    words = [hit_words(hit) for hit in outcome.hits]
    words += [f"in the shadow: {hit_words(hit)}" for hit in outcome.shadow]
    words += map(suppressed_words, outcome.suppressed)
    if outcome.truncated:
        words.append("… and more (truncated)")
    if outcome.stopped_early:
        words.append("stopped early: blocked by an equal digest, nothing else was asked")
    elif not outcome.complete:
        missing = "; ".join(r.detail for r in outcome.signals if r.state.value == "unavailable")
        words.append(f"INCOMPLETE: {missing or 'no bank has a rule for this'}")
    return name, verdict_name(outcome), "\n".join(words)
