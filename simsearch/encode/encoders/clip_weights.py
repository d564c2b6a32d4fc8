"""CLIP weights: finds those of an open_clip model on this machine; nothing is downloaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import file_digest
from pathlib import Path
from typing import Any

from simsearch.errors import BadConfig, WeightsMissing

SHIPPED = "copyclip"
_SHIPPED_IN = Path(__file__).parents[1] / "models" / SHIPPED

# The names by which open_clip itself picks a file, in its order; no pickle among them.
_IN_DIRECTORY = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors")
_CONFIG = "open_clip_config.json"


@dataclass(frozen=True)
class ClipSource:
    """`architecture` and `pretrained` are what open_clip.create_model takes."""

    name: str
    architecture: str
    weights: Path
    pretrained: str | None = None
    preprocess: Mapping[str, Any] = field(default_factory=dict)
    quick_gelu: bool = False

    def sha256(self) -> str:
        """Of the weights."""
        with self.weights.open("rb") as file:
            return file_digest(file, "sha256").hexdigest()


def find_clip(model: str) -> ClipSource:
    """The source of "copyclip", of a local directory or of an "architecture/tag" in the cache.

    Raises WeightsMissing, saying how to get them, and BadConfig for a name that means nothing.
    """
    if model == SHIPPED:
        return _in_directory(SHIPPED, _SHIPPED_IN)
    if model and Path(model).is_dir():
        return _in_directory(Path(model).resolve().name, Path(model))
    architecture, slash, tag = model.partition("/")
    if slash and architecture and tag and model[0] not in "./~":
        return _in_cache(architecture, tag)
    if slash:
        raise WeightsMissing(f"there is no directory {model}: create it with {_recipe()}")
    raise BadConfig(
        f"{model!r} is no model: write {SHIPPED}, the path of a directory, or an open_clip "
        "architecture and tag, as in ViT-B-32/laion2b_s34b_b79k"
    )


def _recipe() -> str:
    return f"{_CONFIG} and {_IN_DIRECTORY[0]} in it, as open_clip publishes them"


def _in_directory(name: str, directory: Path) -> ClipSource:
    weights = next((directory / n for n in _IN_DIRECTORY if (directory / n).is_file()), None)
    if weights is None or not (directory / _CONFIG).is_file():
        raise WeightsMissing(f"the directory {directory} is not complete: put {_recipe()}")
    return ClipSource(name, f"local-dir:{directory}", weights)


def _in_cache(architecture: str, tag: str) -> ClipSource:
    import open_clip

    config = open_clip.get_pretrained_cfg(architecture, tag)
    if not config:
        raise BadConfig(
            f"open_clip has no {architecture}/{tag}: see open_clip.list_pretrained() for the rest"
        )
    weights = _cached(config.get("hf_hub", ""))
    if weights is None:
        raise WeightsMissing(
            f"the weights of {architecture}/{tag} are not on this machine: run "
            f"`python -c \"import open_clip; open_clip.create_model('{architecture}', "
            f"pretrained='{tag}')\"` once where the model hub can be reached and copy its cache "
            f"here, or name a directory with {_recipe()}"
        )
    return ClipSource(
        f"{architecture}.{tag}",
        architecture,
        weights,
        pretrained=str(weights),
        preprocess=config,
        quick_gelu=bool(config.get("quick_gelu")),
    )


def _cached(hub_name: str) -> Path | None:
    """The file of "organisation/model/file" in the hub's cache, safetensors before others."""
    from huggingface_hub import constants, try_to_load_from_cache

    repository, _, file = hub_name.rpartition("/")
    if not repository:
        return None
    for name in _cached_names(file):
        found = try_to_load_from_cache(repository, name, cache_dir=constants.HF_HUB_CACHE)
        if isinstance(found, str):
            return Path(found)
    return None


def _cached_names(file: str) -> tuple[str, ...]:
    if not file:
        return (*_IN_DIRECTORY, "open_clip_pytorch_model.bin")
    return (str(Path(file).with_suffix(".safetensors")), file)
