"""Every PromQL expression that is shipped, and where it stands."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import yaml

from benchmarks.panels import read_dashboard, read_panels

DEPLOY: Final = Path(__file__).parents[2] / "deploy"

NOT_OURS: Final = frozenset({
    "up",  # Prometheus' own
    "ALERTS",
    "container_memory_working_set_bytes",  # cAdvisor's
    "kube_pod_container_resource_limits",  # kube-state-metrics'
    "kube_pod_container_status_restarts_total",
})  # fmt: skip


def shipped_queries() -> Iterator[tuple[str, str]]:
    """Where each stands, and the expression: of the dashboard, the rules and the autoscaler."""
    for panel in read_panels():
        for query in panel.queries:
            yield f"panel {panel.title}", query.expr
    dashboard = read_dashboard()
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            found = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["definition"])
            assert found, variable["definition"]
            yield f"variable {variable['name']}", f"count by ({found[2]}) ({found[1]})"
    for annotation in dashboard["annotations"]["list"]:
        if "expr" in annotation:
            yield f"annotation {annotation['name']}", annotation["expr"]
    for path in sorted((DEPLOY / "prometheus" / "rules").glob("*.yml")):
        for group in yaml.safe_load(path.read_text())["groups"]:
            for rule in group["rules"]:
                yield f"{path.name} {rule.get('alert') or rule['record']}", rule["expr"]
    autoscaler = yaml.safe_load((DEPLOY / "kubernetes" / "base" / "horizontalpodautoscaler.yaml").read_text())
    for metric in autoscaler["spec"]["metrics"]:
        yield "autoscaler", metric["pods"]["metric"]["name"]
