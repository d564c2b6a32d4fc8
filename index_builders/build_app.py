"""The `simsearch-build` command: from a bank's directory to a served snapshot, and back."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from msgspec import structs

from simsearch.config import IndexConfig
from simsearch.config_file import check_section, load
from simsearch.errors import BadConfig, SimsearchError

app = typer.Typer(
    name="simsearch-build",
    help="The batch side: builds and checks, beside a running server or without one.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

DataDir = Annotated[Path, typer.Argument(help="the data_dir of `simsearch serve`")]
Json = Annotated[bool, typer.Option("--json", help="print JSON")]
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
KeepIfSaid = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option("--keep", help="newest snapshots to keep (3)"),
]
Keep = Annotated[int, typer.Option("--keep", help="newest snapshots to keep")]

SNAPSHOTS = "snapshots"
KEPT = IndexConfig().keep


@app.command("check")
def check(data_dir: DataDir, as_json: Json = False) -> None:
    """Read every record of a bank back and let every row find itself.

    Example: simsearch-build check ./banks
    """
    from index_builders.quality.check import check as check_bank
    from index_builders.report.progress import count_progress, show_progress
    from simsearch.bank.store import BankStore

    with BankStore.open(data_dir, writer=False) as store, show_progress(sys.stderr) as progress:
        total = sum(bank.active_entries for bank in store.banks())
        report = check_bank(store, count_progress(progress, "checking", total, "entries"))
    _say(dataclasses.asdict(report), as_json)
    if not report.whole:
        raise typer.Exit(7)


@app.command("compare-encoders")
def compare_encoders(
    data_dir: DataDir,
    old: Annotated[str, typer.Option("--old", help="the id of a space")],
    new: Annotated[str, typer.Option("--new", help="the id of a space")],
    queries: Annotated[int, typer.Option(min=1, help="entries to ask with")] = 1_000,
    as_json: Json = False,
) -> None:
    """Before an old space is dropped: which entries lack the new one, and do the two agree?

    Asks with the entries' own vectors about all other entries, at their bank's thresholds.

    Example: simsearch-build compare-encoders ./banks --old a@1f2e/squash/64 --new a@9a8b/squash/64
    """
    from index_builders.quality.compare_encoders import compare_encoders as compare
    from index_builders.quality.compare_encoders import told
    from simsearch.bank.store import BankStore

    with BankStore.open(data_dir, writer=False) as store:
        report = compare(store, old, new, queries)
    _say(told(report), as_json)


@app.command("plan")
def plan(
    data_dir: DataDir, factory: Factory = None, config: ConfigFile = None, as_json: Json = False
) -> None:
    """Say what a build would make of the bank as it is now.

    Example: simsearch-build plan ./banks
    """
    from index_builders.build.pipeline import planned_spaces
    from simsearch.bank.store import BankStore

    settings = _settings(config, None, factory, None)
    with BankStore.open(data_dir, writer=False) as store:
        plans = planned_spaces(store, _options(settings))
    _say({space: dataclasses.asdict(chosen) for space, chosen in plans.items()}, as_json)


@app.command("build")
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
    from index_builders.build.release import seal

    settings = _settings(config, recall, factory, None)
    with _built(data_dir, settings, without) as (writer, draft, progress):
        path = seal(writer, draft, progress)
    _say({"built": path.name, "report": dict(draft.report)}, as_json)


@app.command("run")
def run(
    data_dir: DataDir,
    recall: Recall = None,
    factory: Factory = None,
    without: Without = None,
    keep: KeepIfSaid = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Build, verify and serve: a running server swaps to it without a failed answer.

    Example: simsearch-build run ./banks
    """
    from index_builders.build.release import publish, seal

    settings = _settings(config, recall, factory, keep)
    with _built(data_dir, settings, without) as (writer, draft, progress):
        path = seal(writer, draft, progress)
        removed = publish(data_dir / SNAPSHOTS, path.name, settings.keep)
    told = {"serving": path.name, "through": draft.built_through, "removed": removed}
    _say(told | {"report": dict(draft.report)}, as_json)


@app.command("verify")
def verify(data_dir: DataDir, snapshot: Annotated[str, typer.Argument()] = "") -> None:
    """Open a snapshot as a server would: every hash, every shard, the self-recall canary.

    Example: simsearch-build verify ./banks
    """
    from index_builders.build.release import named_or_current
    from simsearch.index.snapshot.loader import open_snapshot

    snapshots = data_dir / SNAPSHOTS
    opened = open_snapshot(snapshots / named_or_current(snapshots, snapshot))
    sys.stdout.write(f"{opened.manifest.id} is whole, through {opened.manifest.built_through}\n")


@app.command("publish")
def publish_(data_dir: DataDir, snapshot: str, keep: Keep = KEPT) -> None:
    """Serve a snapshot that was built before.

    Example: simsearch-build publish ./banks 000000001234-20261122T120000
    """
    from index_builders.build.release import publish

    publish(data_dir / SNAPSHOTS, snapshot, keep)
    sys.stdout.write(f"serving {snapshot}\n")


@app.command("rollback")
def rollback(data_dir: DataDir, to: Annotated[str, typer.Option(help="which one")] = "") -> None:
    """Serve the snapshot before the current one; edits made since are applied to it.

    Example: simsearch-build rollback ./banks
    """
    from index_builders.build.release import rollback as go_back

    sys.stdout.write(f"serving {go_back(data_dir / SNAPSHOTS, to or None)}\n")


@app.command("gc")
def gc(data_dir: DataDir, keep: Keep = KEPT) -> None:
    """Remove old snapshots and what dead builds left; never the one that is served.

    Example: simsearch-build gc ./banks --keep 1
    """
    from index_builders.build.resume import clear

    for name in clear(data_dir / SNAPSHOTS, keep):
        sys.stdout.write(f"removed {name}\n")


@app.command("train-encoder")
def train_encoder(
    config: Annotated[Path, typer.Argument(help="what to train, and on what: a TOML file")],
    data: Annotated[Path, typer.Option("--data", help="the folder that holds the sources")],
    out: Annotated[Path, typer.Option("--out", help="checkpoints, log and result go here")],
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda")] = "auto",
    threads: Annotated[int, typer.Option("--threads", min=1, help="CPU cores to use")] = 2,
    cooldown: Annotated[
        int, typer.Option("--cooldown", min=0, help="end with this many falling steps, and export")
    ] = 0,
    export: Annotated[bool, typer.Option("--export", help="train no more, export")] = False,
    as_json: Json = False,
) -> None:
    """Train a small image encoder on your own photographs; given again, it goes on.

    Example: simsearch-build train-encoder copyclip.toml --data photos --out run --seed 1
    """
    from index_builders.report.progress import show_progress
    from index_builders.training.run import RunRequest, train
    from index_builders.training.run_config import load_config

    request = RunRequest(seed, device, threads, cooldown, export)
    settings = load_config(config)
    if cooldown or export:
        _say_if_nothing_is_drawn()
    out.mkdir(parents=True, exist_ok=True)
    with show_progress(sys.stderr) as progress:
        told = train(settings, data, out, request, progress)
    _say(told, as_json)


# ---------------------------------------------------------------- shared


@contextmanager
def _built(
    data_dir: Path, settings: IndexConfig, without: list[str] | None
) -> Iterator[tuple[Any, Any, Any]]:
    """A finished, unpublished build, and where to tell of what is done with it. Whoever else
    wants to build is refused until this is left."""
    from index_builders.build.builder_lock import only_builder
    from index_builders.build.pipeline import build as build_it
    from index_builders.report.progress import show_progress
    from simsearch.bank.store import BankStore

    snapshots = data_dir / SNAPSHOTS
    _say_if_nothing_is_drawn()
    with (
        BankStore.open(data_dir, writer=False) as store,
        only_builder(snapshots),
        show_progress(sys.stderr) as progress,
    ):
        options = _options(settings, without)
        yield *build_it(store, snapshots, options, progress), progress


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


def _options(settings: IndexConfig, without: list[str] | None = None) -> Any:
    from index_builders.build.pipeline import BuildOptions

    left_out = frozenset(without or ())
    return BuildOptions(settings.recall, settings.factories, left_out, settings.gpu)


def _factories(written: list[str] | None) -> dict[str, str]:
    """ "SPACE=FACTORY" by space. Raises BadConfig."""
    pairs = [text.rpartition("=") for text in written or ()]
    if any(not (space and equals) for space, equals, _ in pairs):
        raise BadConfig("write --factory SPACE=FACTORY, as in all-MiniLM-L6-v2=IVF1024,PQ96x4fs")
    return {space: factory for space, _, factory in pairs}


def _say_if_nothing_is_drawn() -> None:
    """Beforehand: who misses the picture learns of it before the hours of work."""
    from index_builders.report import plots

    if not plots.can_draw():
        sys.stderr.write(f"simsearch-build: {plots.NO_PICTURE}\n")


def _say(value: dict[str, Any], as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(value, indent=2) + "\n")
        return
    for name, item in value.items():
        sys.stdout.write(f"{name}: {item}\n")


def main() -> None:
    # Read when FAISS is loaded. By default its threads spin while they wait for each other: with
    # busy cores beside it, training took 16 times the CPU, and took it from the server.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app()
    except SimsearchError as error:
        sys.stderr.write(f"simsearch-build: {error.message}\n")
        sys.exit(7)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
