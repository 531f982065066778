"""The panels of the Grafana dashboard, and what Grafana makes of their queries' variables."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

DASHBOARD: Final = Path(__file__).parents[1] / "deploy" / "grafana" / "dashboards" / "pix2dslr.json"


@dataclass(frozen=True)
class Query:
    """One query of a panel.

    Attributes:
        expr: PromQL with Grafana's variables in it.
        legend: its series' name, with labels as `{{label}}`.
    """

    expr: str
    legend: str


@dataclass(frozen=True)
class Panel:
    """A panel.

    Attributes:
        id, title, kind, unit: as in the JSON; a row's unit is empty.
        x, y, w, h: place and size in Grafana's grid, 24 columns wide.
        stacked: whether its series are drawn on top of each other.
        queries: none for a row.
    """

    id: int
    title: str
    kind: str
    unit: str
    x: int
    y: int
    w: int
    h: int
    stacked: bool
    queries: tuple[Query, ...]


def read_dashboard() -> dict[str, Any]:
    """Return the dashboard's JSON."""
    dashboard: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return dashboard


def read_panels() -> list[Panel]:
    """Return the dashboard's panels in their order, rows among them."""
    return [_panel(each) for each in read_dashboard()["panels"]]


def _panel(told: Mapping[str, Any]) -> Panel:
    grid = told["gridPos"]
    defaults = told.get("fieldConfig", {}).get("defaults", {})
    return Panel(
        id=told["id"],
        title=told["title"],
        kind=told["type"],
        unit=defaults.get("unit", ""),
        x=grid["x"],
        y=grid["y"],
        w=grid["w"],
        h=grid["h"],
        stacked=defaults.get("custom", {}).get("stacking", {}).get("mode") == "normal",
        queries=tuple(Query(target["expr"], target["legendFormat"]) for target in told.get("targets", ())),
    )


def fill(expr: str, job: str = "pix2dslr", instance: str = ".*", rate_interval: str = "1m") -> str:
    """Put values in the place of the dashboard's variables."""
    for name, value in {"$job": job, "$instance": instance, "$__rate_interval": rate_interval}.items():
        expr = expr.replace(name, value)
    return expr
