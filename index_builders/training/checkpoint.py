"""Training checkpoint: tensors in safetensors, the rest in JSON, never a pickle.

A checkpoint is a directory that was renamed into place when it was whole; the JSON file holds the
SHA-256 of the tensors. The newest two are kept.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from simsearch.errors import Corrupt

KEPT: Final = 2
_TENSORS, _REST = "tensors.safetensors", "state.json"


@dataclass(frozen=True)
class Checkpoint:
    """`tensors` by group and name: weights, average, moments; `rest` is any JSON object."""

    step: int
    tensors: Mapping[str, torch.Tensor]
    rest: Mapping[str, Any]


def save(directory: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint atomically and durably, remove old ones; returns its path."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"step-{checkpoint.step:08d}"
    temporary = directory / f".{path.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    save_file({n: t.contiguous() for n, t in checkpoint.tensors.items()}, temporary / _TENSORS)
    rest = {
        "step": checkpoint.step,
        "sha256": _sha256(temporary / _TENSORS),
        "rest": dict(checkpoint.rest),
    }
    (temporary / _REST).write_text(json.dumps(rest), encoding="utf-8")
    for name in (_TENSORS, _REST, "."):
        _sync(temporary / name)
    shutil.rmtree(path, ignore_errors=True)
    temporary.rename(path)
    _sync(directory)
    for old in _all(directory)[:-KEPT]:
        shutil.rmtree(old)
    return path


def newest(directory: Path) -> Checkpoint | None:
    """The newest checkpoint, or None. Raises Corrupt, which names the damaged one."""
    paths = _all(directory)
    return load(paths[-1]) if paths else None


def load(path: Path) -> Checkpoint:
    """The checkpoint at `path`. Raises Corrupt."""
    advice = f"remove {path} to go on from the one before it"
    try:
        saved = json.loads((path / _REST).read_text(encoding="utf-8"))
        step, digest, rest = saved["step"], saved["sha256"], saved["rest"]
    except (OSError, ValueError, KeyError, TypeError):
        raise Corrupt(f"the checkpoint {path} has no readable {_REST}: {advice}") from None
    try:
        if _sha256(path / _TENSORS) != digest:
            raise Corrupt(f"{path / _TENSORS} is not what was written: {advice}")
        tensors = load_file(path / _TENSORS)
    except (OSError, SafetensorError):
        raise Corrupt(f"{path / _TENSORS} cannot be read: {advice}") from None
    return Checkpoint(step, tensors, rest)


def as_read(value: Any) -> Any:
    """The value after a round trip through JSON: tuples become lists."""
    return json.loads(json.dumps(value))


def _all(directory: Path) -> list[Path]:
    return sorted(directory.glob("step-*"))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
