"""Write the Prometheus Operator's PrometheusRule from Prometheus' own rule files: `python deploy/regenerate.py`."""

from pathlib import Path
from typing import Any, Final

import yaml

DEPLOY: Final = Path(__file__).parent
RULES: Final = tuple(DEPLOY / "prometheus" / "rules" / name for name in ("pix2dslr.yml", "kubernetes.yml"))
TARGET: Final = DEPLOY / "kubernetes" / "components" / "observability" / "prometheusrule.yaml"


def prometheus_rule() -> str:
    """Return the PrometheusRule as YAML, with the groups of all rule files in their order."""
    groups: list[dict[str, Any]] = []
    for path in RULES:
        groups += yaml.safe_load(path.read_text())["groups"]
    rule = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "pix2dslr"},
        "spec": {"groups": groups},
    }
    return "# Made by deploy/regenerate.py from deploy/prometheus/rules: change those.\n" + yaml.safe_dump(
        rule, sort_keys=False, width=120, allow_unicode=True
    )


if __name__ == "__main__":
    TARGET.write_text(prometheus_rule())
