"""Pages that are generated are what their generator gives."""

from __future__ import annotations

import runpy
from pathlib import Path

from msgspec import structs

from simsearch.config import (
    BanChecksConfig,
    CallerConfig,
    EncoderConfig,
    LimitsConfig,
    ServerConfig,
)

ROOT = Path(__file__).resolve().parent.parent


def test_the_page_of_errors_is_up_to_date() -> None:
    """docs/errors.md holds every reason with its status, exit code and meaning."""
    generated = runpy.run_path(str(ROOT / "docs/generate_errors.py"))["page"]()
    assert (ROOT / "docs/errors.md").read_text(encoding="utf-8") == generated


def test_the_page_of_commands_is_up_to_date() -> None:
    """docs/commands.md holds every command with its options, exit codes and variables."""
    generated = runpy.run_path(str(ROOT / "docs/generate_commands.py"))["page"]()
    assert (ROOT / "docs/commands.md").read_text(encoding="utf-8") == generated


def test_the_page_of_the_configuration_is_up_to_date() -> None:
    """docs/reference/configuration.md holds every key with its bounds, default and meaning."""
    generated = runpy.run_path(str(ROOT / "docs/generate_configuration.py"))["page"]()
    assert (ROOT / "docs/reference/configuration.md").read_text(encoding="utf-8") == generated
    for cls in (ServerConfig, LimitsConfig, EncoderConfig, BanChecksConfig, CallerConfig):
        for key in structs.fields(cls):
            assert f"| `{key.name}" in generated, key.name


def test_the_page_of_the_house_names_every_module() -> None:
    """ARCHITECTURE.md holds a line for each module, from its docstring."""
    generator = runpy.run_path(str(ROOT / "docs/generate_architecture.py"))
    page = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    assert page == generator["page_with"](generator["tables"](), page)
    for path in (*(ROOT / "simsearch").rglob("*.py"), *(ROOT / "index_builders").rglob("*.py")):
        if path.name != "__init__.py" and not {"v1", "storage"} & set(path.parts):
            assert f"| `{path.name}` | " in page, path
