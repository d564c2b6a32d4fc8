"""What is built is what the options say, else the configuration, else the defaults."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from index_builders.commands import builds
from index_builders.commands.build_options import SNAPSHOTS
from simsearch.config import IndexConfig
from simsearch.errors import BadConfig
from simsearch.index.snapshot.loader import list_snapshots
from tests.builders.worlds import bank
from tests.flows.world import WIDE

FILE = f"""
[index]
factories = {{ "wide" = "IVF8,PQ8x4fs", "{WIDE.id}" = "IVF4,PQ8x4fs", "other" = "Flat" }}
recall = 0.9
keep = 1
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "simsearch.toml"
    path.write_text(FILE)
    return path


def test_options_go_before_the_file_and_the_file_before_the_defaults(config: Path) -> None:
    """Each on its own: one option does not undo the rest of the file."""
    assert builds._settings(None, None, None, None) == IndexConfig()
    read = builds._settings(config, None, None, None)
    assert (read.recall, read.keep, len(read.factories)) == (0.9, 1, 3)
    said = builds._settings(config, 0.99, None, 0)
    assert (said.recall, said.keep, said.factories) == (0.99, 0, read.factories)


def test_options_leave_what_only_the_file_can_say(config: Path) -> None:
    """There is no option for GPUs: what the file says of them holds."""
    config.write_text('[index]\ngpu = true\ngpu_placement = "replicated"\n')
    said = builds._settings(config, 0.9, None, 1)
    assert (said.gpu, said.gpu_placement) == (True, "replicated")


def test_a_factory_said_for_a_model_is_for_all_of_its_spaces(config: Path) -> None:
    """The file's word on one of them would win over it: an id goes before a model's name."""
    said = builds._settings(config, None, ["wide=Flat"], None)
    assert said.factories == {"wide": "Flat", "other": "Flat"}
    said = builds._settings(config, None, [f"{WIDE.id}=Flat"], None)
    assert said.factories[WIDE.id] == "Flat"
    assert said.factories["wide"] == "IVF8,PQ8x4fs"


@pytest.mark.parametrize("recall", [0.0, -1.0, 1.01, float("nan")])
def test_a_recall_that_is_no_share_is_refused(recall: float) -> None:
    """By an option as by a file."""
    with pytest.raises(BadConfig, match="options: recall must be a number over 0, at most 1"):
        builds._settings(None, recall, None, None)


def test_the_file_says_what_is_built(
    tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The plan shows it, the snapshot has it, and `keep` is kept to."""
    path = bank(tmp_path / "bank", 600)
    config.write_text(FILE.replace(', "other" = "Flat"', ""))
    builds.plan(path, config=config, as_json=True)
    assert json.loads(capsys.readouterr().out)[WIDE.id]["factory"] == "IVF4,PQ8x4fs"
    for _ in range(2):
        builds.run(path, config=config)
    (manifest,) = list_snapshots(path / SNAPSHOTS)
    assert manifest.spaces[0].factory == "IVF4,PQ8x4fs"


def test_a_factory_for_no_space_of_the_bank_is_refused(tmp_path: Path, config: Path) -> None:
    """A key that nobody reads is an error, in the file too."""
    path = bank(tmp_path / "bank", 20)
    with pytest.raises(BadConfig, match=r"no space 'other' .* or \[index\] factories"):
        builds.run(path, config=config)
