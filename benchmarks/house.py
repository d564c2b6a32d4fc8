"""Structure of the code base: folder sizes, names, lines, long functions, cycles, docstrings.

    python -m benchmarks.house [--json]

Generated code is left out. `tests/test_house.py` holds the limits; this prints where they stand.
"""

from __future__ import annotations

import argparse
import ast
import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[1]
PRODUCT = ("simsearch", "index_builders")
GENERATED = frozenset({"v1", "storage"})
LONG_LINES = 50
# Nouns of the domain, which several layers must be able to use: a bank is stored, sent over the
# wire, served and typed at a prompt. Everything else names a mechanism and stands once.
DOMAIN_NOUNS = frozenset(
    {"banks", "content", "entries", "fingerprints", "opinions", "policy", "proposals", "results"}
)

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Figures:
    """What is measured. `documented` is a percentage of the public functions and methods."""

    modules_max: int
    names_repeated: int
    lines: int
    test_lines: int
    over_50: int
    cycles: int
    documented: float


@dataclass(frozen=True)
class Module:
    """One Python file, parsed when something is asked that needs it."""

    path: Path

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @property
    def name(self) -> str:
        """Dotted, as it is imported."""
        parts = self.path.relative_to(ROOT).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @property
    def lines(self) -> int:
        return self.text.count("\n")

    def functions(self) -> Iterator[Function]:
        """All functions and methods, nested ones too."""
        for node in ast.walk(self.tree):
            if isinstance(node, Function):
                yield node

    def public_functions(self) -> Iterator[tuple[str, Function]]:
        """Functions and methods that other modules may call, with their names in the module."""
        for node in self.tree.body:
            if isinstance(node, Function) and _is_public(node.name):
                yield node.name, node
            elif isinstance(node, ast.ClassDef) and _is_public(node.name):
                for each in node.body:
                    if isinstance(each, Function) and _is_public(each.name):
                        yield f"{node.name}.{each.name}", each


def _is_public(name: str) -> bool:
    return not name.startswith("_")


def modules_of(*folders: str) -> list[Module]:
    """The modules below `folders` of the repository, generated ones left out."""
    return [
        Module(path)
        for folder in folders
        for path in sorted((ROOT / folder).rglob("*.py"))
        if GENERATED.isdisjoint(path.relative_to(ROOT).parts)
    ]


def sizes_of(modules: list[Module]) -> Counter[str]:
    """How many modules each folder holds; `__init__.py` is the folder's own."""
    return Counter(
        str(each.path.parent.relative_to(ROOT))
        for each in modules
        if each.path.name != "__init__.py"
    )


def repeated_names(modules: list[Module]) -> dict[str, list[str]]:
    """Names of mechanisms that several modules have, each with the modules."""
    found = defaultdict(list)
    for each in modules:
        if not each.path.stem.startswith("__") and each.path.stem not in DOMAIN_NOUNS:
            found[each.path.stem].append(each.name)
    return {name: names for name, names in found.items() if len(names) > 1}


def long_functions(modules: list[Module]) -> list[str]:
    """Functions of more than `LONG_LINES` lines, signature and docstring included."""
    return [
        f"{module.name}.{each.name}"
        for module in modules
        for each in module.functions()
        if (each.end_lineno or each.lineno) - each.lineno + 1 > LONG_LINES
    ]


def undocumented(modules: list[Module]) -> tuple[list[str], int]:
    """The public functions without a docstring, and how many public functions there are."""
    public = [
        (module, name, each) for module in modules for name, each in module.public_functions()
    ]
    silent = [
        f"{module.name}.{name}" for module, name, each in public if not ast.get_docstring(each)
    ]
    return silent, len(public)


def cycles() -> list[list[str]]:
    """Circles of imports at load time, each as its modules in order; one import of each is cut
    before the next is looked for."""
    graph = grimp.build_graph(*PRODUCT, exclude_type_checking_imports=True, cache_dir=None)
    imports = {name: set(graph.find_modules_directly_imported_by(name)) for name in graph.modules}
    found = []
    while circle := _circle(imports):
        found.append(circle)
        imports[circle[1]].discard(circle[0])
    return found


def _circle(imports: dict[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def measure() -> Figures:
    """All figures of the working tree."""
    modules = modules_of(*PRODUCT)
    silent, public = undocumented(modules)
    return Figures(
        modules_max=max(sizes_of(modules).values()),
        names_repeated=len(repeated_names(modules)),
        lines=sum(each.lines for each in modules),
        test_lines=sum(each.lines for each in modules_of("tests")),
        over_50=len(long_functions(modules)),
        cycles=len(cycles()),
        documented=round(100 * (1 - len(silent) / public), 1),
    )


def _details() -> Iterator[str]:
    """What to look at where a figure is not what it should be."""
    modules = modules_of(*PRODUCT)
    for folder, count in sizes_of(modules).most_common(5):
        yield f"{count:5} modules in {folder}"
    for name, places in sorted(repeated_names(modules).items()):
        yield f"{name} stands {len(places)} times: {', '.join(places)}"
    for name in long_functions(modules):
        yield f"over {LONG_LINES} lines: {name}"
    for circle in cycles():
        yield "circle: " + " > ".join(circle)
    for name in undocumented(modules)[0]:
        yield f"no docstring: {name}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--json", action="store_true", help="print the JSON line alone")
    as_json = parser.parse_args().json
    if not as_json:
        print("\n".join(_details()))
    print(json.dumps({"benchmark": "house", **asdict(measure())}))


if __name__ == "__main__":
    main()
