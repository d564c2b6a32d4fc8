"""Snapshot manifest: `manifest.json`, which lists parts and files; written and read byte for byte.

The reader is strict because a snapshot is untrusted input: an extra or missing key, another type,
a number out of range, or any byte that the writer would not write is an error that names it.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from simsearch.errors import BadRequest, BadSnapshot, NewerFormat
from simsearch.index.snapshot.strict_json import read
from simsearch.types import BINARY, Signal

FORMAT = 2
"""Incremented by every change that an older release would misread; other formats are refused."""

MANIFEST_FILE = "manifest.json"
MANIFEST_BYTES_MAX = 1 << 24

EXACT = "Flat"
"""The factory of a part without shards: its rows are searched exactly."""

_ID = re.compile(r"(?!CURRENT)[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_FILE_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class SpacePart:
    """The vectors of one space. Row i of `rows`, `keys` and `groups` belong together, ordered
    by key. The shards, lists of a FAISS IVF, hold one range of rows each, `shard_rows` long, one
    after the other, with ids from 0 in every shard.

    `factory` is "Flat" where there are no shards, else FAISS's; `nprobe` is 0 unless it is an
    IVF. `score_bias`, `score_sd`: mean and standard deviation of score minus exact cosine.
    `outliers` names for each shard the file with the numbers of those `outlier_counts` rows of its
    range that are not in it and are searched exactly. `trained` is the trained index without rows
    that all shards have in common; "" without shards.
    """

    space: str
    dim: int
    count: int
    factory: str
    nprobe: int
    score_bias: float
    score_sd: float
    shards: tuple[str, ...]
    shard_rows: tuple[int, ...]
    trained: str
    outliers: tuple[str, ...]
    outlier_counts: tuple[int, ...]
    rows: str
    keys: str
    groups: str

    @classmethod
    def named(
        cls,
        number: int,
        space: str,
        dim: int,
        count: int,
        *,
        factory: str = EXACT,
        outlier_counts: tuple[int, ...] = (),
        nprobe: int = 0,
        score_bias: float = 0.0,
        score_sd: float = 0.0,
    ) -> SpacePart:
        """With the usual file names, which contain `number`, the place of the space in the
        snapshot. There are as many shards as `outlier_counts`."""
        shards = len(outlier_counts)
        return cls(
            space=space,
            dim=dim,
            count=count,
            factory=factory,
            nprobe=nprobe,
            score_bias=score_bias,
            score_sd=score_sd,
            shards=tuple(f"shard-{number}-{k}.npy" for k in range(shards)),
            shard_rows=stretches(count, shards),
            trained=f"trained-{number}.faiss" if shards else "",
            outliers=tuple(f"outliers-{number}-{k}.npy" for k in range(shards)),
            outlier_counts=outlier_counts,
            rows=f"rows-{number}.npy",
            keys=f"keys-{number}.npy",
            groups=f"groups-{number}.npy",
        )

    def file_names(self) -> tuple[str, ...]:
        """All files of the part."""
        of_shards = (*self.shards, *self.outliers, self.trained) if self.shards else ()
        return (*of_shards, self.rows, self.keys, self.groups)


@dataclass(frozen=True)
class SignalPart:
    """The rows of one binary signal, ordered by key."""

    signal: Signal
    count: int
    bits: str
    keys: str
    groups: str

    @classmethod
    def named(cls, signal: Signal, count: int) -> SignalPart:
        """With the usual file names."""
        return cls(signal, count, *(f"{what}-{signal}.npy" for what in ("bits", "keys", "groups")))

    def file_names(self) -> tuple[str, ...]:
        """All files of the part."""
        return (self.bits, self.keys, self.groups)


@dataclass(frozen=True)
class FileSeal:
    """Size and SHA-256 of a file."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class ManifestDraft:
    """A manifest before it is published, which adds the snapshot's id and the seals of its files.

    `without` names the spaces that the bank has rows of and that were left out on purpose.
    `report` holds numbers for operators, such as the measured recall.
    """

    store_id: str
    built_through: int
    created_us: int
    spaces: tuple[SpacePart, ...] = ()
    signals: tuple[SignalPart, ...] = ()
    report: Mapping[str, float] = field(default_factory=dict)
    without: tuple[str, ...] = ()

    def file_names(self) -> tuple[str, ...]:
        """All files of all parts."""
        parts: tuple[SpacePart | SignalPart, ...] = (*self.spaces, *self.signals)
        return tuple(name for part in parts for name in part.file_names())


@dataclass(frozen=True)
class Manifest:
    """The contents of manifest.json. `built_through`: the seq of the bank's log up to which its
    entries are in the snapshot."""

    format: int
    id: str
    store_id: str
    built_through: int
    created_us: int
    spaces: tuple[SpacePart, ...]
    signals: tuple[SignalPart, ...]
    without: tuple[str, ...]
    files: Mapping[str, FileSeal]
    report: Mapping[str, float]

    def file_names(self) -> tuple[str, ...]:
        """All files of all parts; `files` has the same names."""
        parts: tuple[SpacePart | SignalPart, ...] = (*self.spaces, *self.signals)
        return tuple(name for part in parts for name in part.file_names())


def stretches(count: int, shards: int) -> tuple[int, ...]:
    """Sizes of the ranges that `count` rows are split into, one per shard; equal to within 1."""
    return tuple((count + k) // shards for k in range(shards))


def is_id(text: str) -> bool:
    """Whether `text` is a valid snapshot id."""
    return _ID.fullmatch(text) is not None


def require_id(snapshot_id: str) -> None:
    """Raises BadRequest where this is no valid snapshot id."""
    if not is_id(snapshot_id):
        raise BadRequest(
            f"{snapshot_id[:80]!r} is no snapshot id: use 1 to 64 letters, digits, '.', '_' and '-'"
        )


def sealed(snapshot_id: str, draft: ManifestDraft, files: Mapping[str, FileSeal]) -> Manifest:
    """The manifest of a draft, with id and files. Raises BadSnapshot where it is inconsistent."""
    manifest = Manifest(
        FORMAT,
        snapshot_id,
        draft.store_id,
        draft.built_through,
        draft.created_us,
        draft.spaces,
        draft.signals,
        draft.without,
        dict(files),
        dict(draft.report),
    )
    where = f"snapshot {snapshot_id}"
    try:
        return parse(render(manifest), where)
    except (TypeError, ValueError) as error:
        raise BadSnapshot(
            f"{where}: its manifest cannot be written ({error}): fix the draft"
        ) from error


def render(manifest: Manifest) -> bytes:
    """The bytes of the file; the key `sha256` is a digest of all others."""
    body = asdict(manifest)
    body["sha256"] = _digest(body)
    return (json.dumps(body, indent=1, sort_keys=True) + "\n").encode()


def parse(data: bytes, where: str) -> Manifest:
    """The manifest that `render` wrote. Raises NewerFormat, or BadSnapshot with what is wrong."""
    try:
        return _parsed(data)
    except (ValueError, RecursionError) as error:
        raise BadSnapshot(f"{where}: {MANIFEST_FILE} {error}: {WHAT_TO_DO}") from error
    except NewerFormat as error:
        raise NewerFormat(f"{where}: {error}") from None


WHAT_TO_DO = "serve another snapshot, or build this one again"


# ---------------------------------------------------------------- reading


def _parsed(data: bytes) -> Manifest:
    body = json.loads(data)
    if not isinstance(body, dict):
        raise ValueError("is no JSON object")
    _require_format(body.get("format"))
    digest = body.pop("sha256", None)
    if digest != _digest(body):
        raise ValueError("was changed after it was written: its own SHA-256 is another")
    manifest: Manifest = read(Manifest, body, "it")
    if faults := list(_faults(manifest)):
        raise ValueError(faults[0])
    # Also refuses what JSON allows: duplicate keys, other spellings of a number, spaces.
    if render(manifest) != data:
        raise ValueError("is not, byte for byte, what a builder writes")
    return manifest


def _require_format(number: object) -> None:
    if type(number) is not int or number < 1:
        raise ValueError("has no format version")
    if number > FORMAT:
        raise NewerFormat(
            f"it has format {number}, this release reads up to {FORMAT}: run the release of "
            "simsearch that built it, or a later one"
        )
    if number < FORMAT:
        raise ValueError(f"is of an earlier release (format {number}, now {FORMAT})")


def _digest(body: Mapping[str, Any]) -> str:
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


# ---------------------------------------------------------------- what must hold


def _faults(manifest: Manifest) -> Iterator[str]:
    names = manifest.file_names()
    if not is_id(manifest.id):
        yield "has an id that cannot name a snapshot"
    if not _is_uuid(manifest.store_id):
        yield "has a store_id that is no UUID"
    if min(manifest.built_through, manifest.created_us) < 0:
        yield "has a negative built_through or created_us"
    if not all(_FILE_NAME.fullmatch(name) and name != MANIFEST_FILE for name in names):
        yield "names a file that is no plain file name"
    if len(set(names)) != len(names) or set(names) != manifest.files.keys():
        yield "has parts and files that do not belong together"
    if not all(_SHA256.fullmatch(f.sha256) and f.bytes >= 0 for f in manifest.files.values()):
        yield "has a file without size and SHA-256"
    yield from _part_faults(manifest)


def _part_faults(manifest: Manifest) -> Iterator[str]:
    for part in manifest.spaces:
        if part.dim < 1 or part.count < 0 or part.nprobe < 0 or part.score_sd < 0:
            yield f"has numbers out of range for space {part.space}"
        if (part.factory == EXACT) != (not part.shards):
            yield f"has shards for space {part.space} that its factory {part.factory} does not need"
        yield from _shard_faults(part)
        if not part.space.endswith(f"/{part.dim}"):
            yield f"has dim {part.dim} for space {part.space}"
    if len({part.space for part in manifest.spaces}) != len(manifest.spaces):
        yield "has one space twice"
    if not set(manifest.without).isdisjoint(part.space for part in manifest.spaces):
        yield "has a space that it says it was built without"
    if not all(part.signal in BINARY and part.count >= 0 for part in manifest.signals):
        yield "has a signal that is not binary, or a negative count"
    if len({part.signal for part in manifest.signals}) != len(manifest.signals):
        yield "has one signal twice"


def _shard_faults(part: SpacePart) -> Iterator[str]:
    shards = len(part.shards)
    if not shards == len(part.shard_rows) == len(part.outliers) == len(part.outlier_counts):
        yield f"does not say of each shard of space {part.space} what it holds"
    elif not all(0 <= s <= n for s, n in zip(part.outlier_counts, part.shard_rows, strict=True)):
        yield f"has shards of space {part.space} with numbers of rows out of range"
    if shards and sum(part.shard_rows) != part.count:
        yield f"has shards of {sum(part.shard_rows)} rows for the {part.count} of {part.space}"
    if bool(part.trained) != bool(shards):
        yield f"has shards of space {part.space} and not what they were begun with, or that alone"


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False
