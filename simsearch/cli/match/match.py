"""`simsearch match`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from enum import StrEnum
from typing import Annotated, Any, Optional

import typer

from simsearch.cli.common.connection import asks_a_server, connect
from simsearch.cli.common.content_options import Files, Hashes, Texts, Vectors
from simsearch.cli.common.options import (
    EXIT_INCOMPLETE,
    EXIT_MATCHED,
    SERVER_DEFAULT,
    Json,
    Server,
    exit_code,
)
from simsearch.cli.common.output import (
    hit_words,
    print_json,
    print_json_line,
    print_table,
    result_json,
    suppressed_words,
    unseen_words,
    verdict_name,
)
from simsearch.cli.common.samples import Sample, judged
from simsearch.cli.match.match_input import samples_from, samples_of_lines
from simsearch.errors import BadRequest, SimsearchError
from simsearch.types import Band, MatchOptions, MatchResult, SignalReport, SignalState


class FailOn(StrEnum):
    """The weakest verdict that is a failure."""

    LOG = "log"
    REVIEW = "review"
    BLOCK = "block"


Outcome = MatchResult | SimsearchError

JsonLines = Annotated[
    str,
    typer.Option(
        "--jsonl",
        metavar="FILE",
        help="a JSON object a line, with text, file, hash or base64, and perhaps an id; - is "
        "standard input; the answers are lines of JSON, too",
    ),
]
FailOnBand = Annotated[
    Optional[FailOn],  # noqa: UP045  # typer reads the annotation at run time
    typer.Option(
        "--fail-on",
        help="exit with 10 where a verdict is this strong or stronger, and with 11 where none is "
        "and not everything was looked at",
    ),
]


@asks_a_server
def match(
    files: Files = None,
    text: Texts = None,
    hash_: Hashes = None,
    vector: Vectors = None,
    jsonl: JsonLines = "",
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
    fail_on: FailOnBand = None,
    server: Server = SERVER_DEFAULT,
    as_json: Json = False,
) -> None:
    """Is this content banned, or a copy or rewording of something that is?

    Files of any kind are asked by their digests, images by what they show. Of a folder, all files
    below it are asked.

    Example: simsearch match upload.jpg --text "send 1 coin, get 2 back"
    """
    options = MatchOptions(
        tuple(bank or ()),
        hits_max,
        with_stage_times=True,
        stop_at_block=stop_at_block,
        with_shadow=shadow,
    )
    if jsonl and (files or text or hash_ or vector):
        raise BadRequest("--jsonl goes alone: put files, texts and hashes into its lines")
    samples: Iterable[Sample]
    samples = samples_of_lines(jsonl) if jsonl else samples_from(files, text, hash_, vector)
    with connect(server) as client:
        answers = ((s, _less_what_is_left_out(s, o)) for s, o in judged(client, samples, options))
        outcomes = _printed_lines(answers) if jsonl else _printed(list(answers), as_json)
        status = _status(outcomes, fail_on)
    if status:
        raise typer.Exit(status)


def _printed_lines(answers: Iterable[tuple[Sample, Outcome]]) -> Iterator[Outcome]:
    """Each as it comes, so that any number can pass."""
    for sample, outcome in answers:
        print_json_line(_json(sample.name, outcome))
        yield outcome


def _printed(answers: list[tuple[Sample, Outcome]], as_json: bool) -> Iterator[Outcome]:
    if as_json:
        print_json([_json(sample.name, outcome) for sample, outcome in answers])
    else:
        print_table(
            ("content", "verdict", "hits"),
            [_row(sample.name, outcome) for sample, outcome in answers],
        )
    return (outcome for _, outcome in answers)


def _less_what_is_left_out(sample: Sample, outcome: Outcome) -> Outcome:
    if not sample.left_out or isinstance(outcome, SimsearchError):
        return outcome
    report = SignalReport("file", SignalState.NOT_COMPUTED, sample.left_out)
    return replace(outcome, complete=False, signals=(*outcome.signals, report))


def _status(outcomes: Iterable[Outcome], fail_on: FailOn | None) -> int:
    """A match that was asked for tells the most, then an error, then what was not looked at."""
    matched = incomplete = False
    error: SimsearchError | None = None
    for outcome in outcomes:
        if isinstance(outcome, SimsearchError):
            error = error or outcome
        elif fail_on is not None:
            matched |= outcome.verdict >= Band[fail_on.name]
            incomplete |= not outcome.complete and not outcome.stopped_early
    if matched:
        return EXIT_MATCHED
    if error:
        return exit_code(error)
    return EXIT_INCOMPLETE if incomplete else 0


def _json(name: str, outcome: Outcome) -> dict[str, Any]:
    if isinstance(outcome, SimsearchError):
        return {"content": name, "error": {"reason": outcome.reason, "message": outcome.message}}
    return {"content": name} | result_json(outcome)


def _row(name: str, outcome: Outcome) -> tuple[str, str, str]:
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
        words.append(f"INCOMPLETE: {unseen_words(outcome)}")
    return name, verdict_name(outcome), "\n".join(words)
