"""docs/operate/ and deploy/ say what the server does; every reason is reached by some test."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from simsearch.cli.common.options import exit_code
from simsearch.config import Config
from simsearch.config_file import load, parse
from simsearch.errors import BadConfig, BadRequest, BankLocked, Fault, every_error
from simsearch.serve.core.health_state import Component
from simsearch.serve.core.metric_catalogue import METRICS
from simsearch.serve.transport.port import LIVE, STOP_GRACE_S, check_listen

ROOT = Path(__file__).parents[3]
OPERATE = ("deploy", "health", "metrics", "runbook", "capacity-and-backup")
PAGE = "\n".join((ROOT / f"docs/operate/{name}.md").read_text(encoding="utf-8") for name in OPERATE)
UNIT = (ROOT / "deploy/simsearch.service").read_text(encoding="utf-8")
MANIFEST = list(yaml.safe_load_all((ROOT / "deploy/kubernetes.yaml").read_text(encoding="utf-8")))


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)


# ---------------------------------------------------------------- the page


def test_every_metric_of_an_alert_exists() -> None:
    """With labels that it has."""
    (rules,) = [yaml.safe_load(block) for block in blocks("yaml") if "alert:" in block]
    named = {metric.name: metric for metric in METRICS}
    alerts = [rule for group in rules["groups"] for rule in group["rules"]]
    assert len(alerts) >= 8
    for rule in alerts:
        for name, labels in re.findall(r"(simsearch_[a-z_]+)(\{[^}]*\})?", rule["expr"]):
            metric = named[re.sub(r"_(bucket|count|sum)$", "", name)]
            asked = set(re.findall(r"(\w+)\s*[=!]~?", labels))
            assert asked <= {*metric.labels, "le"}, (rule["alert"], name)
        assert f"### {rule['alert']}\n" in PAGE, "what to do about it"


def test_every_finding_of_the_canary_is_explained() -> None:
    """In its table."""
    assert all(f"| `{part}` |" in PAGE for part in Component)


def test_configurations_on_the_page_are_good() -> None:
    """As they stand there, with their defaults."""
    for block in blocks("toml"):
        parse(tomllib.loads(block))
    defaults = Config()
    for section, key in re.findall(r"\| `\[(\w+)\] (\w+)` \|", PAGE):
        assert hasattr(getattr(defaults, section), key), (section, key)


def test_pages_that_are_linked_exist() -> None:
    """Relative links lead somewhere."""
    for target in re.findall(r"\]\(([^)#:]+)\)", PAGE):
        assert (ROOT / "docs/operate" / target).exists(), target


# ---------------------------------------------------------------- the files to start from


def container() -> dict[str, Any]:
    (workload,) = [part for part in MANIFEST if part["kind"] == "StatefulSet"]
    pod: dict[str, Any] = workload["spec"]["template"]["spec"]
    assert len(pod["containers"]) == 1
    only: dict[str, Any] = pod["containers"][0]
    return pod | only


def manifest_config() -> Config:
    (settings,) = [part for part in MANIFEST if part["kind"] == "ConfigMap"]
    return parse(tomllib.loads(settings["data"]["simsearch.toml"]))


def stop_s_max(config: Config) -> float:
    """Calls in flight, refusals on their way out, and work that does not end."""
    return 2 * config.server.drain_timeout_s + STOP_GRACE_S


def test_the_configurations_start_a_server() -> None:
    """Both are read, and may listen beyond their machine."""
    for config in (load(ROOT / "deploy/simsearch.toml"), manifest_config()):
        check_listen(config)
        assert config.telemetry.log_format == "json"


def test_probes_ask_what_they_are_for() -> None:
    """Ready takes it out of rotation, live alone restarts it, and starting has its time."""
    pod, port = container(), manifest_config().metrics.listen.rpartition(":")[2]
    ports = {p["name"]: p["containerPort"] for p in pod["ports"]}
    for probe, path in (("startupProbe", "/ready"), ("readinessProbe", "/ready"),
                        ("livenessProbe", "/live")):  # fmt: skip
        asked = pod[probe]["httpGet"]
        assert (asked["path"], ports[asked["port"]]) == (path, int(port))
    startup = pod["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 300


def test_probes_over_grpc_ask_the_same() -> None:
    """On the page, for servers that speak in clear."""
    (found,) = [yaml.safe_load(block) for block in blocks("yaml") if "grpc:" in block]
    assert found["readinessProbe"]["grpc"].get("service", "") == ""
    assert found["startupProbe"]["grpc"].get("service", "") == ""
    assert found["livenessProbe"]["grpc"]["service"] == LIVE


def test_a_stop_has_the_time_it_needs() -> None:
    """Before anybody sends SIGKILL."""
    pod, config = container(), manifest_config()
    sleep_s = pod["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] > sleep_s + stop_s_max(config)
    (stop_s,) = re.findall(r"^TimeoutStopSec=(\d+)$", UNIT, re.MULTILINE)
    assert int(stop_s) > stop_s_max(load(ROOT / "deploy/simsearch.toml"))


def test_a_pod_may_do_no_more_than_it_must() -> None:
    """No root, no capabilities, nothing written but its volumes; one writer to a volume."""
    pod = container()
    assert pod["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    (workload,) = [part for part in MANIFEST if part["kind"] == "StatefulSet"]
    assert workload["spec"]["template"]["spec"]["securityContext"]["runAsNonRoot"] is True
    (claim,) = workload["spec"]["volumeClaimTemplates"]
    assert claim["spec"]["accessModes"] == ["ReadWriteOncePod"]
    mounts = {m["mountPath"]: m for m in pod["volumeMounts"]}
    for path in (manifest_config().tls.cert, manifest_config().identity.file):
        assert mounts[str(Path(path).parent)]["readOnly"]
    assert any(manifest_config().server.data_dir.startswith(path) for path in mounts)
    names = {v["name"] for v in workload["spec"]["template"]["spec"]["volumes"]} | {"data"}
    assert {m["name"] for m in pod["volumeMounts"]} <= names
    assert pod["args"][3] == "/etc/simsearch/config/simsearch.toml"
    assert "/etc/simsearch/config" in mounts


def test_a_crash_is_started_again_and_a_fault_is_not() -> None:
    """Exit codes that ask for a person do not end in a loop."""
    (stays,) = re.findall(r"^RestartPreventExitStatus=(.*)$", UNIT, re.MULTILINE)
    assert {int(code) for code in stays.split()} == {
        2,  # an option that there is not
        exit_code(BadRequest("-")),
        exit_code(BadConfig("-")),
    }
    assert exit_code(BankLocked("-")) == exit_code(Fault("-")) == exit_code(BadConfig("-"))


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    """Every key is one that it knows, with a value that it takes."""
    unit = tmp_path / "simsearch.service"
    unit.write_text(UNIT.replace("/opt/simsearch/bin/simsearch", sys.executable), encoding="utf-8")
    said = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=60
    )
    assert (said.returncode, said.stderr) == (0, "")


# ---------------------------------------------------------------- every reason is reached

ONLY_TABLES = {"tests/cli/test_errors.py", "tests/serve/health/test_operations_docs.py"}
"""They name reasons without reaching them."""


def test_every_reason_is_reached_by_a_test() -> None:
    """Raised where `pytest.raises` waits for it, or compared with what an answer says."""
    reached = {reason for path in sorted((ROOT / "tests").rglob("test_*.py"))
               if str(path.relative_to(ROOT)) not in ONLY_TABLES
               for reason in _reached(ast.parse(path.read_text(encoding="utf-8")))}  # fmt: skip
    assert every_error().keys() - reached == set()


def _reached(module: ast.Module) -> Iterator[str]:
    reasons = {cls.__name__: reason for reason, cls in every_error().items()}
    for node in ast.walk(module):
        if isinstance(node, ast.Constant) and node.value in every_error():
            yield str(node.value)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("pytest.raises", "raises"):
            for name in ast.walk(node):
                word = getattr(name, "attr", getattr(name, "id", ""))
                if word in reasons:
                    yield reasons[word]
