"""What a build tells: numbers that are those of the snapshot, and a picture one can open."""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from index_builders import build_app
from index_builders.build.pipeline import BuildOptions, build
from index_builders.build.resume import clear
from index_builders.commands import builds
from index_builders.commands.build_options import SNAPSHOTS
from index_builders.quality.index_recall import FLOORS
from index_builders.report import build_report
from index_builders.report.build_picture import picture_of
from index_builders.report.build_report import BuildReport, SpaceReport
from index_builders.report.progress import silent
from simsearch.bank.store import BankStore
from simsearch.errors import RecallTooLow
from simsearch.index.ivf.calibration import GATE_SDS
from simsearch.index.snapshot.disk import DirectoryLock
from simsearch.index.snapshot.loader import broken_snapshots, current, list_snapshots
from simsearch.index.snapshot.writer import BUILDING, REPORTS
from tests.builders.worlds import FACTORY, bank

EXACT = BuildReport(
    snapshot="000000000007-20261122T120000",
    store_id="a",
    built_through=7,
    created=build_report.now(),
    recall_target=0.995,
    refused="",
    resumed=False,
    spaces=(SpaceReport("tiny@00/none/4", 3, 4, "Flat"),),
    signals={"pdq": 2},
    seconds={"gather": 0.1},
    bytes={"rows-0.npy": 152},
    peak_memory_bytes=None,
)


def told(snapshots: Path, name: str) -> dict[str, Any]:
    said: dict[str, Any] = json.loads((snapshots / REPORTS / f"{name}.json").read_text())
    return said


def pixels(picture: bytes) -> tuple[int, int]:
    """Width and height of a PNG."""
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", picture[16:24])
    return width, height


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The snapshots of a bank with an IVF, served, with its report."""
    path = bank(tmp_path_factory.mktemp("built") / "bank", 2000)
    builds.run(path, factory=[f"wide={FACTORY}"])
    return path / SNAPSHOTS


def test_the_report_is_about_the_snapshot_that_is_served(built: Path) -> None:
    """Its numbers are the manifest's, its files are the directory's."""
    name = current(built)
    assert name is not None
    said, (manifest,) = told(built, name), list_snapshots(built)
    assert (said["snapshot"], said["built_through"]) == (name, manifest.built_through)
    assert said["store_id"] == manifest.store_id
    assert said["bytes"] == {file: seal.bytes for file, seal in manifest.files.items()}
    assert said["signals"] == {"pdq": 20}
    (space,), (part,) = said["spaces"], manifest.spaces
    for field in ("space", "count", "dim", "factory", "nprobe", "score_bias", "score_sd"):
        assert space[field] == getattr(part, field)
    assert space["shards"] == len(part.shards)
    assert space["gate_margin"] == pytest.approx(GATE_SDS * part.score_sd)
    assert set(said["seconds"]) == {"gather", "train", "fill", "verify"}
    assert all(seconds >= 0 for seconds in said["seconds"].values())
    assert said["peak_memory_bytes"] is None or said["peak_memory_bytes"] > 1 << 20
    assert not said["refused"]


def test_the_curve_goes_through_the_chosen_nprobe(built: Path) -> None:
    """Below it by halves down to one list, above it to twice as many; more lists find no less
    than the target that one list misses."""
    name = current(built)
    assert name is not None
    said = told(built, name)
    (space,) = said["spaces"]
    tried = {one["nprobe"]: one for one in space["tried"]}
    assert list(tried) == sorted(tried)
    assert {2**k for k in range(space["nprobe"].bit_length())} <= set(tried)
    assert min(16, 2 * space["nprobe"]) in tried
    assert all(set(one["recall"]) == {f"{floor:.2f}" for floor in FLOORS} for one in tried.values())
    chosen = tried[space["nprobe"]]
    assert min(*chosen["recall"].values(), chosen["copies"]) >= said["recall_target"]
    assert chosen["false_hits"] == 0
    assert min(tried[1]["recall"].values()) < min(chosen["recall"].values())


def test_the_manifest_keeps_what_the_chosen_nprobe_finds(built: Path) -> None:
    """A few numbers, the same as in the report."""
    name = current(built)
    assert name is not None
    (space,), (manifest,) = told(built, name)["spaces"], list_snapshots(built)
    (chosen,) = (one for one in space["tried"] if one["nprobe"] == space["nprobe"])
    assert dict(manifest.report) == {
        "space_0_copies": chosen["copies"],
        **{f"space_0_recall_{floor}": found for floor, found in chosen["recall"].items()},
    }


def test_the_picture_can_be_opened(built: Path) -> None:
    """One line of plots for the one space."""
    name = current(built)
    width, height = pixels((built / REPORTS / f"{name}.png").read_bytes())
    assert width > height > 300


def test_reports_are_no_snapshots(built: Path) -> None:
    """Whoever lists snapshots, whole or broken, does not come upon them."""
    assert [manifest.id for manifest in list_snapshots(built)] == [current(built)]
    assert broken_snapshots(built) == {}


def test_an_exact_bank_has_a_report_that_says_so(tmp_path: Path) -> None:
    """No curve, and a picture all the same."""
    path = bank(tmp_path / "bank", 50)
    builds.run(path)
    name = current(path / SNAPSHOTS)
    assert name is not None
    (space,) = told(path / SNAPSHOTS, name)["spaces"]
    assert (space["factory"], space["tried"]) == ("Flat", [])
    assert (path / SNAPSHOTS / REPORTS / f"{name}.png").exists()


def test_a_refused_build_shows_its_curve(tmp_path: Path) -> None:
    """The refusal names the picture; without a chosen nprobe it is drawn all the same."""
    path = bank(tmp_path / "bank", 1000)
    snapshots = path / SNAPSHOTS
    impossible = BuildOptions(recall_target=1.01, factories={"wide": FACTORY})
    with (
        BankStore.open(path, writer=False) as store,
        pytest.raises(RecallTooLow) as refusal,
    ):
        build(store, snapshots, impossible, silent)
    picture = Path(refusal.value.message.rpartition("see ")[2])
    assert picture.parent == snapshots / REPORTS
    assert picture.name.endswith(".refused.png")
    pixels(picture.read_bytes())
    said = json.loads(picture.with_suffix(".json").read_text())
    (space,) = said["spaces"]
    assert "under the target" in said["refused"]
    assert space["nprobe"] == 0
    assert [one["nprobe"] for one in space["tried"]] == [16]


def test_reports_go_with_their_snapshots(tmp_path: Path) -> None:
    """Those of what is kept stay; a refused build's goes when a newer build is served."""
    path = bank(tmp_path / "bank", 20)
    snapshots = path / SNAPSHOTS
    builds.run(path)
    served = current(snapshots)
    names = {f"{served}.json", f"{served}.png"}
    reports = snapshots / REPORTS
    old = "000000000001-20200101T000000"
    for end in (".json", ".refused.json", ".png.tmp"):
        (reports / f"{old}{end}").write_text("{}")
    alive = "000000000009-20260101T000000"
    (path / SNAPSHOTS / f"{BUILDING}{alive}").mkdir()
    (reports / f"{alive}.json.tmp").write_text("half")
    newer = "999999999999-20990101T000000.refused.json"
    (reports / newer).write_text("{}")
    with DirectoryLock(snapshots / f"{BUILDING}{alive}"):
        clear(snapshots, keep=3)
    left = {file.name for file in reports.iterdir()}
    assert left == names | {newer, f"{alive}.json.tmp"}


def test_without_matplotlib_a_build_says_so_and_has_its_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line says that no picture is drawn and what brings it; the JSON file is written."""
    for module in [n for n in sys.modules if n.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    path = bank(tmp_path / "bank", 2000)
    words = ["run", str(path), "--factory", f"wide={FACTORY}", "--json"]
    ran = CliRunner().invoke(build_app.app, words, catch_exceptions=False)
    assert ran.exit_code == 0
    [line] = [said for said in ran.stderr.splitlines() if "picture" in said]
    assert 'pip install ".[plots]"' in line
    name = current(path / SNAPSHOTS)
    assert json.loads(ran.stdout)["serving"] == name
    assert [file.name for file in (path / SNAPSHOTS / REPORTS).iterdir()] == [f"{name}.json"]
    (space,) = told(path / SNAPSHOTS, str(name))["spaces"]
    assert space["tried"]


def test_with_matplotlib_nothing_is_said_of_pictures(tmp_path: Path) -> None:
    path = bank(tmp_path / "bank", 20)
    ran = CliRunner().invoke(build_app.app, ["run", str(path)], catch_exceptions=False)
    assert "picture" not in ran.stderr


def test_a_bank_without_rows_has_a_picture() -> None:
    """Nothing to search is a state like any other."""
    empty = BuildReport(**(vars(EXACT) | {"spaces": (), "signals": {}}))
    assert pixels(picture_of(empty) or b"")
