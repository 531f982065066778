"""Prometheus' configuration, rules and alerts: by promtool where it is, and by what can be read without it."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.deploy.promql import asked_by

ROOT: Final = Path(__file__).parents[2]
DEPLOY: Final = ROOT / "deploy"
PROMETHEUS: Final = DEPLOY / "prometheus"
RULE_FILES: Final = sorted((PROMETHEUS / "rules").glob("*.yml"))
TEST_FILES: Final = sorted((PROMETHEUS / "tests").glob("*.yml"))
PAGE: Final = "docs/operating.md"

Tree = dict[str, Any]

needs_promtool: Final = pytest.mark.skipif(
    not shutil.which("promtool"),
    reason="no promtool: install Debian's or Ubuntu's package (apt-get install prometheus)",
)


def rules() -> list[Tree]:
    return [
        rule for path in RULE_FILES for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]
    ]


ALERTS: Final = [rule for rule in rules() if "alert" in rule]


def promtool(*arguments: object) -> str:
    done = subprocess.run(
        ["promtool", *map(str, arguments)], cwd=PROMETHEUS, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_promtool
def test_promtool_accepts_the_configuration_and_the_rules() -> None:
    assert "SUCCESS" in promtool("check", "config", "prometheus.yml")
    found = re.findall(r"SUCCESS: (\d+) rules found", promtool("check", "rules", *RULE_FILES))
    assert sum(map(int, found)) == len(rules())


@needs_promtool
@pytest.mark.parametrize("path", TEST_FILES, ids=lambda path: path.stem)
def test_alerts_fire_when_they_should(path: Path) -> None:
    assert "SUCCESS" in promtool("test", "rules", path)


def test_every_alert_is_tried_firing_and_quiet() -> None:
    checks = [
        check
        for path in TEST_FILES
        for test in yaml.safe_load(path.read_text())["tests"]
        for check in test["alert_rule_test"]
    ]
    firing = {check["alertname"] for check in checks if check["exp_alerts"]}
    quiet = {check["alertname"] for check in checks if not check["exp_alerts"]}
    names = {alert["alert"] for alert in ALERTS}
    assert names == firing
    # of the rest, the same look holds a series that must not appear beside the one that must
    beside = {"Pix2dslrRestarts"}
    assert names - quiet == beside


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_alerts_say_what_an_operator_needs(alert: Tree) -> None:
    assert re.fullmatch(r"Pix2dslr([A-Z][a-z]+)+", alert["alert"])
    assert alert["labels"].keys() == {"severity"}
    assert alert["labels"]["severity"] in {"critical", "warning"}
    assert alert["annotations"].keys() == {"summary", "description", "runbook_url"}
    page, _, place = alert["annotations"]["runbook_url"].partition("#")
    assert page == PAGE
    assert f"\n## {place.capitalize()}\n" in (ROOT / page).read_text()


def test_expressions_parse_and_recorded_series_are_recorded() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    used = {name for rule in rules() for name in asked_by(rule["expr"]).matched if ":" in name}
    assert used == recorded


def test_the_page_lists_every_alert() -> None:
    section = (ROOT / PAGE).read_text().partition("\n## Alerts\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|", section, re.MULTILINE)
    assert rows == [(alert["alert"], alert["labels"]["severity"]) for alert in pix2dslr_first()]


def pix2dslr_first() -> list[Tree]:
    """In the order in which deploy/regenerate.py puts them."""
    rule = yaml.safe_load((DEPLOY / "kubernetes/components/observability/prometheusrule.yaml").read_text())
    return [each for group in rule["spec"]["groups"] for each in group["rules"] if "alert" in each]


def test_the_prometheus_rule_is_made_of_the_rule_files(tmp_path: Path) -> None:
    made = tmp_path / "deploy"
    shutil.copytree(DEPLOY, made)
    target = made / "kubernetes/components/observability/prometheusrule.yaml"
    target.unlink()
    subprocess.run([sys.executable, made / "regenerate.py"], timeout=60, check=True)
    assert target.read_text() == (DEPLOY / target.relative_to(made)).read_text(), "run python deploy/regenerate.py"
