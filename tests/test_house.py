"""The house keeps its own rules: layers, protos, docstrings, and no stray printing."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

from benchmarks import house

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
GENERATED = {ROOT / "simsearch" / name for name in ("v1", "storage")}
DOCUMENTED_MIN = 90.0


def sources(*folders: str) -> list[Path]:
    """Our own modules, without those that are made from protos."""
    return [
        path
        for folder in folders
        for path in sorted((ROOT / folder).rglob("*.py"))
        if GENERATED.isdisjoint(path.parents)
    ]


PACKAGE = sources("simsearch", "index_builders")
EVERYTHING = [*PACKAGE, *sources("tests", "benchmarks", "proto")]


def ran(*words: str) -> tuple[int, str]:
    done = subprocess.run(
        [str(BIN / words[0]), *words[1:]], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    return done.returncode, done.stdout + done.stderr


def test_imports_go_down_only() -> None:
    """Layers see what is below them, and each library is known to one part of the house."""
    code, said = ran("lint-imports", "--no-cache")
    assert code == 0, said


def test_the_protos_are_clean() -> None:
    """Buf's standard rules hold for everything in proto/."""
    code, said = ran("buf", "lint", "proto")
    assert (code, said) == (0, "")


def test_the_rules_are_about_the_whole_package() -> None:
    """A rule that looked at no file would always hold."""
    names = {path.relative_to(ROOT).parts[1] for path in PACKAGE}
    assert names >= {"bank", "cli", "encode", "index", "live", "match", "serve", "wire"}


def test_every_module_says_what_it_is_for() -> None:
    """In a docstring that opens with whole sentences; only an empty file may be silent."""
    silent = [name_of(path) for path in EVERYTHING if not _says_what_it_is_for(path)]
    assert silent == []


def _says_what_it_is_for(path: Path) -> bool:
    source = path.read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(source)) or ""
    return not source or docstring.split("\n\n")[0].endswith((".", "?", "!", ":"))


def test_nothing_is_printed_in_passing() -> None:
    """The server logs events and the command line writes answers; neither calls print()."""
    found = [
        f"{name_of(path)}:{node.lineno}"
        for path in PACKAGE
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "print"
    ]
    assert found == []


def test_no_folder_holds_more_than_a_dozen_modules() -> None:
    """What does not fit into one look gets a sub-package."""
    sizes = house.sizes_of(house.modules_of(*house.PRODUCT))
    assert {folder: count for folder, count in sizes.items() if count > 12} == {}


def test_the_name_of_a_mechanism_stands_once() -> None:
    """Whoever looks for it opens the right file; nouns of the domain may repeat."""
    assert house.repeated_names(house.modules_of(*house.PRODUCT)) == {}


def test_no_imports_run_in_a_circle() -> None:
    """Every module can be read after those that it imports."""
    assert house.cycles() == []


def test_public_functions_have_docstrings() -> None:
    """Nine in ten at least."""
    silent, public = house.undocumented(house.modules_of(*house.PRODUCT))
    assert 100 * (1 - len(silent) / public) >= DOCUMENTED_MIN, silent


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))
