"""Images a second beside an earlier state of the code, in turns, each in a process of its own.

Run as a program it is one of the two sides: it makes fingerprints of the pictures in a folder once
for each line that it reads, and answers with the seconds.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

ROUNDS: Final = 9
REGIONS_MAX: Final = 9


def times_as_fast(before: Path, files: Sequence[bytes]) -> dict[str, float]:
    """How many times as fast this code is as that in the folder `before`: `decoder` for decoding in
    a confined worker alone, `images` with hashes and embeddings, as a server computes them."""
    from benchmarks.report import interleave, ratio

    with tempfile.TemporaryDirectory(prefix="simsearch-bench-") as folder:
        for number, data in enumerate(files):
            (Path(folder) / f"{number:05}").write_bytes(data)
        ratios = {}
        for what in ("decoder", "images"):
            sides = {
                "now": _Side(Path(__file__).parents[2], folder, what),
                "before": _Side(before, folder, what),
            }
            try:
                seconds = interleave({name: side.go for name, side in sides.items()}, ROUNDS)
            finally:
                for side in sides.values():
                    side.close()
            ratios[what] = ratio(seconds, "now", "before")
    return ratios


class _Side:
    """One process with the code of one folder."""

    def __init__(self, code: Path, pictures: str, what: str) -> None:
        environment = os.environ | {"PYTHONPATH": str(code.resolve())}
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__, pictures, what],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )

    def go(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        if not self._process.stdout.readline():
            raise RuntimeError("the code of before does not run here")

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def main(pictures: str, what: str) -> None:
    """One side. What it imports is the code of its PYTHONPATH."""
    from simsearch.encode.encoders.clip import load_clip
    from simsearch.encode.fingerprint import AllSignals, ContentLimits, Fingerprinter
    from simsearch.encode.image.picture import ImageLimits
    from simsearch.encode.registry import EncoderSet, EncoderSpec, load_encoders
    from simsearch.encode.sandbox.sandboxed_decoder import Sandbox, SandboxOptions
    from simsearch.types import ImageContent

    sandbox = Sandbox(ImageLimits(), SandboxOptions(workers=1))
    sandbox.open()
    spec = EncoderSpec("copyclip", "open_clip", "copyclip", device="cpu")
    encoders = load_encoders([spec], 1) if what == "images" else EncoderSet({})
    limits = ContentLimits(regions_max=REGIONS_MAX)
    fingerprinter = Fingerprinter(encoders, limits, sandbox)
    contents = [ImageContent(path.read_bytes()) for path in sorted(Path(pictures).iterdir())]
    way = load_clip("copyclip", device="cpu").preprocess
    for _ in sys.stdin:
        begun = time.perf_counter()
        if what == "images":
            fingerprinter.query(contents, AllSignals())
        else:
            request = _request(way)
            for content in contents:
                sandbox.decode(content.data, request)
        print(time.perf_counter() - begun, flush=True)
    sandbox.close()


def _request(way: Any) -> Any:
    """With as many frames as a server asks for, where the code knows of frames."""
    from simsearch.encode.image.decoder import ImageRequest, PdqRows

    request = ImageRequest(PdqRows.DIHEDRAL, (way,), REGIONS_MAX)
    if any(field.name == "frames_max" for field in dataclasses.fields(ImageRequest)):
        request = dataclasses.replace(request, frames_max=16)
    return request


if __name__ == "__main__":
    main(*sys.argv[1:])
