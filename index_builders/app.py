"""The `simsearch-build` command: from a bank's directory to a served snapshot, and back."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from simsearch.errors import BadConfig, SimsearchError

app = typer.Typer(
    name="simsearch-build",
    help="The batch side: builds and checks, beside a running server or without one.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

DataDir = Annotated[Path, typer.Argument(help="the data_dir of `simsearch serve`")]
Json = Annotated[bool, typer.Option("--json", help="print JSON")]
Recall = Annotated[float, typer.Option("--recall", help="share of exact search's finds to reach")]
Factory = Annotated[
    Optional[list[str]],  # noqa: UP045  # typer reads the annotation at run time
    typer.Option(
        "--factory",
        metavar="SPACE=FACTORY",
        help="a FAISS factory, or Flat, instead of the planned one (repeatable)",
    ),
]
Keep = Annotated[int, typer.Option("--keep", help="newest snapshots to keep")]

SNAPSHOTS = "snapshots"
KEPT = 3


@app.command("check")
def check(data_dir: DataDir, as_json: Json = False) -> None:
    """Read every record of a bank back and let every row find itself.

    Example: simsearch-build check ./banks
    """
    from index_builders.check import check as check_bank
    from simsearch.bank.store import BankStore

    with BankStore.open(data_dir, writer=False) as store, _progress() as show:
        total = sum(bank.active_entries for bank in store.banks())
        done = 0

        def advance(entries: int) -> None:
            nonlocal done
            done += entries
            show("checking", done, total)

        report = check_bank(store, advance)
    _say(dataclasses.asdict(report), as_json)
    if not report.whole:
        raise typer.Exit(7)


@app.command("plan")
def plan(data_dir: DataDir, factory: Factory = None, as_json: Json = False) -> None:
    """Say what a build would make of the bank as it is now.

    Example: simsearch-build plan ./banks
    """
    from index_builders.pipeline import BuildOptions, planned
    from simsearch.bank.store import BankStore

    with BankStore.open(data_dir, writer=False) as store:
        plans = planned(store, BuildOptions(factories=_factories(factory)))
    _say({space: dataclasses.asdict(chosen) for space, chosen in plans.items()}, as_json)


@app.command("build")
def build(
    data_dir: DataDir, recall: Recall = 0.995, factory: Factory = None, as_json: Json = False
) -> None:
    """Build and verify a snapshot and put it in place, without serving it.

    Example: simsearch-build build ./banks --recall 0.999
    """
    from index_builders.publishing import seal

    with _built(data_dir, recall, factory) as (writer, draft):
        _say({"built": seal(writer, draft).name, "report": dict(draft.report)}, as_json)


@app.command("run")
def run(
    data_dir: DataDir,
    recall: Recall = 0.995,
    factory: Factory = None,
    keep: Keep = KEPT,
    as_json: Json = False,
) -> None:
    """Build, verify and serve: a running server swaps to it without a failed answer.

    Example: simsearch-build run ./banks
    """
    from index_builders.publishing import publish, seal

    with _built(data_dir, recall, factory) as (writer, draft):
        path = seal(writer, draft)
        removed = publish(data_dir / SNAPSHOTS, path.name, keep)
    told = {"serving": path.name, "through": draft.built_through, "removed": removed}
    _say(told | {"report": dict(draft.report)}, as_json)


@app.command("verify")
def verify(data_dir: DataDir, snapshot: Annotated[str, typer.Argument()] = "") -> None:
    """Open a snapshot as a server would: every hash, every shard, the self-recall canary.

    Example: simsearch-build verify ./banks
    """
    from index_builders.publishing import named_or_current
    from simsearch.index.snapshot import open_snapshot

    snapshots = data_dir / SNAPSHOTS
    opened = open_snapshot(snapshots / named_or_current(snapshots, snapshot))
    sys.stdout.write(f"{opened.manifest.id} is whole, through {opened.manifest.built_through}\n")


@app.command("publish")
def publish_(data_dir: DataDir, snapshot: str, keep: Keep = KEPT) -> None:
    """Serve a snapshot that was built before.

    Example: simsearch-build publish ./banks 000000001234-20261122T120000
    """
    from index_builders.publishing import publish

    publish(data_dir / SNAPSHOTS, snapshot, keep)
    sys.stdout.write(f"serving {snapshot}\n")


@app.command("rollback")
def rollback(data_dir: DataDir, to: Annotated[str, typer.Option(help="which one")] = "") -> None:
    """Serve the snapshot before the current one; edits made since are applied to it.

    Example: simsearch-build rollback ./banks
    """
    from index_builders.publishing import rollback as go_back

    sys.stdout.write(f"serving {go_back(data_dir / SNAPSHOTS, to or None)}\n")


@app.command("gc")
def gc(data_dir: DataDir, keep: Keep = KEPT) -> None:
    """Remove old snapshots and what dead builds left; never the one that is served.

    Example: simsearch-build gc ./banks --keep 1
    """
    from simsearch.index.snapshot import collect

    for name in collect(data_dir / SNAPSHOTS, keep):
        sys.stdout.write(f"removed {name}\n")


# ---------------------------------------------------------------- shared


@contextmanager
def _built(data_dir: Path, recall: float, factory: list[str] | None) -> Iterator[tuple[Any, Any]]:
    """A finished, unpublished build; what it leaves is kept for the next run to take up."""
    from index_builders.pipeline import BuildOptions
    from index_builders.pipeline import build as build_it
    from simsearch.bank.store import BankStore

    options = BuildOptions(recall_target=recall, factories=_factories(factory))
    with BankStore.open(data_dir, writer=False) as store, _progress() as show:
        built = build_it(store, data_dir / SNAPSHOTS, options, show)
    yield built


def _factories(written: list[str] | None) -> dict[str, str]:
    """ "SPACE=FACTORY" by space. Raises BadConfig."""
    pairs = [text.rpartition("=") for text in written or ()]
    if any(not (space and equals) for space, equals, _ in pairs):
        raise BadConfig("write --factory SPACE=FACTORY, as in all-MiniLM-L6-v2=IVF1024,PQ96x4fs")
    return {space: factory for space, _, factory in pairs}


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar with what is being done, on standard error."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting")
        yield lambda what, done, total: bar.update(
            task, description=what, completed=done, total=total
        )


def _say(value: dict[str, Any], as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(value, indent=2) + "\n")
        return
    for name, item in value.items():
        sys.stdout.write(f"{name}: {item}\n")


def main() -> None:
    try:
        app()
    except SimsearchError as error:
        sys.stderr.write(f"simsearch-build: {error.message}\n")
        sys.exit(7)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
