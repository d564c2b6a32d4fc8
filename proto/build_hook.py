"""Compiles proto/ into packages below simsearch/ whenever the package is built."""

from __future__ import annotations

import importlib.resources
import shutil
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGES = ("simsearch/v1", "simsearch/storage/v1")
TOPS = ("simsearch/v1", "simsearch/storage")


def compile_protos(root: Path) -> list[str]:
    """Generate Python modules and stubs for every proto; return what was written, from `root`."""
    from grpc_tools import protoc

    includes = importlib.resources.files("grpc_tools") / "_proto"
    for package in PACKAGES:
        shutil.rmtree(root / package, ignore_errors=True)
    sources = sorted(str(p.relative_to(root / "proto")) for p in (root / "proto").rglob("*.proto"))
    arguments = [
        "protoc",
        f"-I{root / 'proto'}",
        f"-I{includes}",
        f"--python_out={root}",
        f"--pyi_out={root}",
        f"--grpc_python_out={root}",
        *sources,
    ]
    if protoc.main(arguments) != 0:
        raise RuntimeError("protoc refused proto/: see its message above")
    for package in PACKAGES:
        for grpc_module in (root / package).glob("*_pb2_grpc.py"):
            if "class " not in grpc_module.read_text():
                grpc_module.unlink()  # a file without services leaves an empty shell
    for package in dict.fromkeys((*TOPS, *PACKAGES)):
        init = root / package / "__init__.py"
        init.parent.mkdir(parents=True, exist_ok=True)
        init.write_text('"""Generated from proto/ when the package is built: do not edit."""\n')
    return sorted(
        str(p.relative_to(root))
        for top in TOPS
        for p in (root / top).rglob("*.py*")
        if p.suffix in (".py", ".pyi")
    )


class ProtoBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """hatchling calls this before it packs a wheel, an sdist or an editable install."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name == "wheel":
            build_data["artifacts"] += compile_protos(Path(self.root))


if __name__ == "__main__":
    compile_protos(Path(__file__).resolve().parent.parent)
