"""The Grafana dashboard and how it is provisioned, as far as its files tell."""

import re
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from benchmarks.panels import Panel, Query, read_dashboard, read_panels
from tests.deploy.promql import asked_by, labels_of_legend

ROOT: Final = Path(__file__).parents[2]
COMPOSE: Final[dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
PROVISIONING: Final = ROOT / "deploy" / "grafana" / "provisioning"
DATASOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
COLUMNS: Final = 24

DASHBOARD: Final = read_dashboard()
PANELS: Final = read_panels()
ROWS: Final = [panel.title for panel in PANELS if panel.kind == "row"]


def provisioned() -> dict[str, Any]:
    (source,) = yaml.safe_load((PROVISIONING / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert isinstance(source, dict)
    return source


def test_it_is_written_for_current_grafana() -> None:
    # what @grafana/schema 13.2 writes; Grafana migrates older ones at each load
    assert DASHBOARD["schemaVersion"] == 42
    assert re.fullmatch(r"[a-z0-9-]{1,40}", DASHBOARD["uid"])
    assert "id" not in DASHBOARD  # a database's own


def test_it_has_the_rows_that_an_operator_looks_for() -> None:
    assert ROWS == ["Overview", "Traffic", "Latency", "Queue", "Device", "Rejections", "Resources"]


def test_every_panel_has_an_id_and_a_name_of_its_own() -> None:
    assert len({panel.id for panel in PANELS}) == len(PANELS)
    titles = [panel.title for panel in PANELS if panel.kind != "row"]
    assert len(set(titles)) == len(titles)


def test_panels_fill_the_grid_without_overlapping() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in PANELS:
        assert panel.x + panel.w <= COLUMNS, panel.title
        for cell in ((x, y) for x in range(panel.x, panel.x + panel.w) for y in range(panel.y, panel.y + panel.h)):
            assert cell not in taken, f"{panel.title} lies on {taken[cell]}"
            taken[cell] = panel.title
    # Grafana would move panels up into a gap
    assert len(taken) == COLUMNS * (max(y for _, y in taken) + 1)


@pytest.mark.parametrize(
    "told", [told for told in DASHBOARD["panels"] if told["type"] != "row"], ids=lambda told: told["title"]
)
def test_every_panel_tells_unit_thresholds_and_meaning(told: dict[str, Any]) -> None:
    assert told["description"]
    assert told["datasource"] == DATASOURCE
    assert all(target["datasource"] == DATASOURCE for target in told["targets"])
    assert len({target["refId"] for target in told["targets"]}) == len(told["targets"]) > 0
    defaults = told["fieldConfig"]["defaults"]
    assert defaults["unit"]
    assert defaults["thresholds"]["steps"][0]["value"] is None
    if told["type"] == "timeseries":
        assert told["options"]["legend"]["showLegend"]
        assert all(target["legendFormat"] for target in told["targets"])


@pytest.mark.parametrize(
    ("panel", "query"),
    [(panel, query) for panel in PANELS for query in panel.queries],
    ids=lambda one: one.title if isinstance(one, Panel) else "",
)
def test_every_query_parses_and_keeps_to_what_is_chosen(panel: Panel, query: Query) -> None:
    asked = asked_by(query.expr)
    assert asked.matched
    assert all({"job", "instance"} <= labels for labels in asked.matched.values()), panel.title
    if "by (" in query.expr:
        assert labels_of_legend(query.legend) <= asked.grouped


def test_rates_are_over_the_interval_that_grafana_works_out() -> None:
    for query in (query for panel in PANELS for query in panel.queries):
        assert set(re.findall(r"\[([^\]]+)\]", query.expr)) <= {"$__rate_interval"}, query.expr


def test_its_data_source_is_the_provisioned_one() -> None:
    variables = {each["name"]: each for each in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert variables["datasource"]["query"] == provisioned()["type"]
    assert variables["datasource"]["current"]["value"] == provisioned()["uid"]
    assert all(variables[name]["datasource"] == DATASOURCE for name in ("job", "instance"))


def test_grafana_finds_what_compose_mounts() -> None:
    grafana = COMPOSE["services"]["grafana"]
    mounts = dict(volume.split(":")[1::-1] for volume in grafana["volumes"])
    (provider,) = yaml.safe_load((PROVISIONING / "dashboards" / "pix2dslr.yml").read_text())["providers"]
    dashboards = provider["options"]["path"]
    assert (ROOT / mounts[dashboards] / "pix2dslr.json").is_file()
    home = Path(grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert home == Path(dashboards) / "pix2dslr.json"
    assert (ROOT / mounts["/etc/grafana/provisioning"]).samefile(PROVISIONING)


def test_grafana_asks_the_prometheus_of_compose_which_asks_every_replica() -> None:
    prometheus = COMPOSE["services"]["prometheus"]
    assert provisioned()["url"] == "http://prometheus:" + prometheus["ports"][0].rpartition(":")[2]
    mounts = dict(volume.split(":")[1::-1] for volume in prometheus["volumes"])
    (option,) = (word for word in prometheus["command"] if word.startswith("--config.file="))
    file = Path(option.partition("=")[2])
    config = yaml.safe_load((ROOT / mounts[str(file.parent)] / file.name).read_text())
    assert provisioned()["jsonData"]["timeInterval"] == config["global"]["scrape_interval"]
    ((found,),) = (job["dns_sd_configs"] for job in config["scrape_configs"])
    assert all(name in COMPOSE["services"] for name in found["names"])
    (name,) = found["names"]
    assert found["port"] == int(COMPOSE["services"][name]["environment"]["PIX2DSLR_METRICS_PORT"])
    for name in config["rule_files"]:
        assert (ROOT / "deploy" / "prometheus" / name).is_file()


@pytest.mark.parametrize("name", ["prometheus", "grafana"])
def test_what_watches_has_no_door_open(name: str) -> None:
    service = COMPOSE["services"][name]
    assert service["profiles"] == ["observability"]
    assert re.fullmatch(r"[a-z]+/[a-z]+:v?\d+\.\d+\.\d+@sha256:\w{64}", service["image"])
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    named = [volume.partition(":")[0] for volume in service["volumes"] if not volume.endswith(":ro")]
    assert named == [name]
    assert name in COMPOSE["volumes"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory"}


def test_grafana_has_no_account_that_a_default_password_opens() -> None:
    environment = COMPOSE["services"]["grafana"]["environment"]
    assert environment["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"
    assert environment["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    assert not [variable for variable in environment if "PASSWORD" in variable]
