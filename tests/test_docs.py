"""Pages that are generated are what their generator gives."""

from __future__ import annotations

import re
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
    """docs/reference/errors.md holds every reason with its status, exit code and meaning."""
    generated = runpy.run_path(str(ROOT / "docs/generate_errors.py"))["page"]()
    assert (ROOT / "docs/reference/errors.md").read_text(encoding="utf-8") == generated


def test_the_page_of_metrics_is_up_to_date() -> None:
    """docs/reference/metrics.md holds every metric with its kind, labels and meaning."""
    generated = runpy.run_path(str(ROOT / "docs/generate_metrics.py"))["page"]()
    assert (ROOT / "docs/reference/metrics.md").read_text(encoding="utf-8") == generated


def test_the_page_of_commands_is_up_to_date() -> None:
    """docs/reference/commands.md holds every command with its options, exit codes and variables."""
    generated = runpy.run_path(str(ROOT / "docs/generate_commands.py"))["page"]()
    assert (ROOT / "docs/reference/commands.md").read_text(encoding="utf-8") == generated


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


def test_the_page_of_grpc_is_up_to_date() -> None:
    """docs/reference/grpc.md holds every RPC, message, field and enum value."""
    generated = runpy.run_path(str(ROOT / "docs/generate_grpc.py"))["page"]()
    assert (ROOT / "docs/reference/grpc.md").read_text(encoding="utf-8") == generated
    for name in ("StreamMatch", "RevertChanges", "`complete`", "`ERROR_REASON_OVERLOADED`"):
        assert name in generated


def test_every_link_between_pages_leads_to_a_file() -> None:
    """Within the project; addresses elsewhere are not followed."""
    pages = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", *(ROOT / "docs").rglob("*.md")]
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in pages
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
        if not (page.parent / target).exists()
    ]
    assert broken == []
