"""Builds: the plan of one, a build, and a build that is served at once."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Optional

import typer
from msgspec import structs

from index_builders.build import pipeline, release
from index_builders.build.builder_lock import only_builder
from index_builders.build.pipeline import BuildOptions
from index_builders.commands.build_options import (
    SNAPSHOTS,
    DataDir,
    Json,
    print_result,
    warn_without_plots,
)
from index_builders.report import progress as progress_bars
from index_builders.report.progress import Progress
from simsearch.bank.store import BankStore
from simsearch.config import IndexConfig
from simsearch.config_file import check_section, load
from simsearch.errors import BadConfig
from simsearch.index.snapshot.loader import ManifestDraft, SnapshotWriter

ConfigFile = Annotated[
    Optional[Path],  # noqa: UP045  # typer reads the annotation at run time
    typer.Option("--config", help="simsearch.toml, for its [index]; options here go before it"),
]
Recall = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option("--recall", help="share of exact search's finds to reach (0.995)"),
]
Factory = Annotated[
    Optional[list[str]],  # noqa: UP045  # typer reads the annotation at run time
    typer.Option(
        "--factory",
        metavar="SPACE=FACTORY",
        help="a FAISS factory, or Flat, instead of the planned one (repeatable)",
    ),
]
Without = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--without", metavar="SPACE", help="leave this space out, by its id (repeatable)"),
]
KeepOverride = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option("--keep", help="newest snapshots to keep (3)"),
]


def plan(
    data_dir: DataDir, factory: Factory = None, config: ConfigFile = None, as_json: Json = False
) -> None:
    """Say what a build would make of the bank as it is now.

    Example: simsearch-build plan ./banks
    """
    settings = _settings(config, None, factory, None)
    with BankStore.open(data_dir, writer=False) as store:
        plans = pipeline.planned_spaces(store, _options(settings))
    print_result({space: dataclasses.asdict(chosen) for space, chosen in plans.items()}, as_json)


def build(
    data_dir: DataDir,
    recall: Recall = None,
    factory: Factory = None,
    without: Without = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Build and verify a snapshot and put it in place, without serving it.

    Example: simsearch-build build ./banks --recall 0.999
    """
    settings = _settings(config, recall, factory, None)
    with _built(data_dir, settings, without) as (writer, draft, progress):
        path = release.seal(writer, draft, progress)
    print_result({"built": path.name, "report": dict(draft.report)}, as_json)


def run(
    data_dir: DataDir,
    recall: Recall = None,
    factory: Factory = None,
    without: Without = None,
    keep: KeepOverride = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Build, verify and serve: a running server swaps to it without a failed answer.

    Example: simsearch-build run ./banks
    """
    settings = _settings(config, recall, factory, keep)
    with _built(data_dir, settings, without) as (writer, draft, progress):
        path = release.seal(writer, draft, progress)
        removed = release.publish(data_dir / SNAPSHOTS, path.name, settings.keep)
    served = {"serving": path.name, "through": draft.built_through, "removed": removed}
    print_result(served | {"report": dict(draft.report)}, as_json)


# ---------------------------------------------------------------- shared


@contextmanager
def _built(
    data_dir: Path, settings: IndexConfig, without: list[str] | None
) -> Iterator[tuple[SnapshotWriter, ManifestDraft, Progress]]:
    """A finished, unpublished build, and its progress bars, under the builder lock."""
    snapshots = data_dir / SNAPSHOTS
    warn_without_plots()
    with (
        BankStore.open(data_dir, writer=False) as store,
        only_builder(snapshots),
        progress_bars.show_progress(sys.stderr) as progress,
    ):
        options = _options(settings, without)
        yield *pipeline.build(store, snapshots, options, progress), progress


def _settings(
    config: Path | None, recall: float | None, factory: list[str] | None, keep: int | None
) -> IndexConfig:
    """What the options say, else the file, else the defaults. Raises BadConfig."""
    written = load(config).index if config else IndexConfig()
    said = _factories(factory)
    # A model that an option names is not to be overruled by the file's word on one of its spaces.
    rest = {s: f for s, f in written.factories.items() if s.partition("@")[0] not in said}
    settings = structs.replace(
        written,
        factories=rest | said,
        recall=written.recall if recall is None else recall,
        keep=written.keep if keep is None else keep,
    )
    check_section(settings, "options")
    return settings


def _options(settings: IndexConfig, without: list[str] | None = None) -> BuildOptions:
    left_out = frozenset(without or ())
    return BuildOptions(settings.recall, settings.factories, left_out, settings.gpu)


def _factories(written: list[str] | None) -> dict[str, str]:
    """ "SPACE=FACTORY" by space. Raises BadConfig."""
    pairs = [text.rpartition("=") for text in written or ()]
    if any(not (space and equals) for space, equals, _ in pairs):
        raise BadConfig("write --factory SPACE=FACTORY, as in all-MiniLM-L6-v2=IVF1024,PQ96x4fs")
    return {space: factory for space, _, factory in pairs}
