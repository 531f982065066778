"""deploy/kubernetes: rendered by a real kustomize where there is one, against schemas, settings, image and compose."""

import ipaddress
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import kubernetes_validate
import pytest
import yaml

from service.edge.wire import PROBES
from service.server import _CLOSE_WITHIN_S
from service.settings import Settings
from tests.deploy.promql import asked_by

ROOT: Final = Path(__file__).parents[2]
DEPLOY: Final = ROOT / "deploy"
FOLDER: Final = DEPLOY / "kubernetes"
PREFIX: Final = "PIX2DSLR_"
OVERLAYS: Final = ("cpu", "gpu")
COMPONENTS: Final = ("observability", "api-keys")
SHIPPED: Final = ("api-keys",)
"""The components that the overlays take as they are."""

OPERATORS: Final = {"ServiceMonitor", "PrometheusRule"}
"""Kinds of the Prometheus Operator, which Kubernetes itself has no schema of."""

KUSTOMIZATIONS: Final = sorted([*FOLDER.rglob("kustomization.yaml"), *DEPLOY.glob("grafana/kustomization.yaml")])
OLDEST: Final = "1.34"
"""Where the newest of what is used, a sleep as preStop, is no longer an option of the cluster."""

Tree = dict[str, Any]


def find_kustomize() -> list[str] | None:
    """A command that renders a folder, kustomize 5 or newer by itself or in kubectl."""
    if path := shutil.which("kustomize"):
        return [path, "build"]
    if path := shutil.which("kubectl"):
        told = subprocess.run([path, "version", "--client", "--output=json"], capture_output=True, check=False).stdout
        version = json.loads(told or "{}").get("kustomizeVersion", "v0")
        if int(version.removeprefix("v").partition(".")[0]) >= 5:
            return [path, "kustomize"]
    return None


KUSTOMIZE: Final = find_kustomize()
HOW: Final = "no kustomize 5 was found: install kustomize, or kubectl 1.27 or newer, which has it in it"


def render(folder: Path) -> list[Tree]:
    assert KUSTOMIZE is not None
    done = subprocess.run([*KUSTOMIZE, str(folder)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr  # where it warns of what is deprecated
    return [each for each in yaml.safe_load_all(done.stdout) if each]


@pytest.fixture(
    scope="module", params=[(name, chosen) for name in OVERLAYS for chosen in (SHIPPED, COMPONENTS, ())], ids=str
)
def rendered(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Tree]:
    """An overlay as it ships, with all components, or with none, by real kustomize."""
    if KUSTOMIZE is None:
        pytest.skip(HOW)
    name, chosen = request.param
    copy = tmp_path_factory.mktemp(name) / "deploy"
    shutil.copytree(DEPLOY, copy)
    folder = copy / "kubernetes" / "overlays" / name
    if chosen != SHIPPED:
        kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
        kustomization["components"] = [f"../../components/{each}" for each in chosen]
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return render(folder)


def only(kind: str, trees: list[Tree], name: str = "pix2dslr") -> Tree:
    (found,) = (
        tree
        for tree in trees
        if tree["kind"] == kind and re.fullmatch(name + "(-[a-z0-9]{10})?", tree["metadata"]["name"])
    )
    return found


def container_of(trees: list[Tree]) -> Tree:
    (container,) = only("Deployment", trees)["spec"]["template"]["spec"]["containers"]
    assert isinstance(container, dict)
    return container


def settings_of(trees: list[Tree]) -> dict[str, str]:
    data = only("ConfigMap", trees)["data"]
    assert isinstance(data, dict)
    return data


def files() -> Iterator[tuple[Path, Tree]]:
    """Every file that is a whole object of its own, read without kustomize; patches are none."""
    for path in sorted(FOLDER.rglob("*.yaml")):
        tree = yaml.safe_load(path.read_text())
        if path.name != "kustomization.yaml" and "kind" in tree and path not in patches():
            yield path, tree


def patches() -> set[Path]:
    return {
        path.parent / patch["path"]
        for path in KUSTOMIZATIONS
        for patch in yaml.safe_load(path.read_text()).get("patches", ())
    }


def literals() -> Iterator[tuple[str, str]]:
    """Every variable that a kustomization sets."""
    for path in KUSTOMIZATIONS:
        for generator in yaml.safe_load(path.read_text()).get("configMapGenerator", ()):
            for literal in generator.get("literals", ()):
                name, _, value = literal.partition("=")
                yield name, value


def dockerfile(instruction: str) -> str:
    found: list[str] = re.findall(rf"^{instruction} ((?:.*\\\n)*.*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    return found[-1]


def image_environment() -> dict[str, str]:
    return dict(word.split("=", 1) for word in shlex.split(dockerfile("ENV").replace("\\\n", " ")))


WHOLE: Final = [tree for path, tree in files()]
BASE: Final = [tree for path, tree in files() if path.parent.name == "base"]


def base(kind: str) -> Tree:
    (tree,) = (tree for tree in BASE if tree["kind"] == kind)
    return tree


POD: Final[Tree] = base("Deployment")["spec"]["template"]["spec"]
CONTAINER: Final[Tree] = POD["containers"][0]


@pytest.mark.parametrize("version", [OLDEST, kubernetes_validate.latest_version()])
@pytest.mark.parametrize("tree", WHOLE, ids=lambda tree: f"{tree['kind']}-{tree['metadata']['name']}")
def test_files_follow_kubernetes_own_schemas(tree: Tree, version: str) -> None:
    if tree["kind"] not in OPERATORS:
        kubernetes_validate.validate(tree, version, strict=True)


def test_the_schemas_refuse_what_is_wrong() -> None:
    """Else the test above could not fail."""
    wrong = json.loads(json.dumps(base("Deployment")))
    wrong["spec"]["template"]["spec"]["containers"][0]["lifecycle"]["preStop"]["sleep"]["second"] = 10
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, OLDEST, strict=True)


def test_what_kustomize_makes_follows_the_schemas(rendered: list[Tree]) -> None:
    kinds = {tree["kind"] for tree in rendered}
    assert {"Deployment", "Service", "PodDisruptionBudget", "HorizontalPodAutoscaler", "NetworkPolicy"} <= kinds
    for tree in rendered:
        if tree["kind"] not in OPERATORS:
            kubernetes_validate.validate(tree, OLDEST, strict=True)


def test_only_the_component_needs_the_operator(rendered: list[Tree], request: pytest.FixtureRequest) -> None:
    chosen = request.node.callspec.params["rendered"][1]
    assert OPERATORS & {tree["kind"] for tree in rendered} == (OPERATORS if "observability" in chosen else set())


def test_every_file_is_used() -> None:
    named: set[Path] = set()
    for path in KUSTOMIZATIONS:
        kustomization = yaml.safe_load(path.read_text())
        for name in kustomization.get("resources", []):
            target = (path.parent / name).resolve()
            assert target.exists(), f"{path}: {name}"
            named.add(target)
        named |= {(path.parent / patch["path"]).resolve() for patch in kustomization.get("patches", ())}
    theirs = {path.resolve() for path in FOLDER.rglob("*.yaml") if path.name != "kustomization.yaml"}
    assert theirs - named == {(FOLDER / "prometheus-adapter-values.yaml").resolve()}


def test_every_variable_is_a_setting_that_takes_its_value() -> None:
    seen = list(literals())
    assert {name for name, _ in seen} >= {"PIX2DSLR_DEVICE", "PIX2DSLR_METRICS_PORT", "PIX2DSLR_API_KEYS_FILE"}
    for name, value in seen:
        assert name.startswith(PREFIX)
        setting = name.removeprefix(PREFIX).lower()
        assert setting in Settings.model_fields
        Settings.model_validate({setting: value})


def test_each_overlay_runs_its_image_on_its_device(rendered: list[Tree], request: pytest.FixtureRequest) -> None:
    overlay = request.node.callspec.params["rendered"][0]
    compose = ["docker-compose.yml", *(["docker-compose.gpu.yml"] if overlay == "gpu" else [])]
    service: Tree = {}
    for name in compose:
        service |= yaml.safe_load((ROOT / name).read_text())["services"]["pix2dslr"]
    assert container_of(rendered)["image"].rpartition("/")[2] == service["image"]
    assert settings_of(rendered)["PIX2DSLR_DEVICE"] == service["environment"]["PIX2DSLR_DEVICE"]
    limits = container_of(rendered)["resources"]["limits"]
    assert limits.get("nvidia.com/gpu") == (1 if overlay == "gpu" else None)


def test_the_container_reads_the_generated_settings(rendered: list[Tree]) -> None:
    (source,) = container_of(rendered)["envFrom"]
    # with the hash in its name: a changed setting rolls the pods
    assert source["configMapRef"]["name"] == only("ConfigMap", rendered)["metadata"]["name"] != "pix2dslr"


def test_labels_select_what_they_should(rendered: list[Tree]) -> None:
    labels = only("Deployment", rendered)["spec"]["template"]["metadata"]["labels"].items()
    selectors = [only("Deployment", rendered)["spec"]["selector"]["matchLabels"]]
    selectors += [tree["spec"]["selector"] for tree in rendered if tree["kind"] == "Service"]
    selectors += [only("PodDisruptionBudget", rendered)["spec"]["selector"]["matchLabels"]]
    selectors += [only("NetworkPolicy", rendered)["spec"]["podSelector"]["matchLabels"]]
    spread = only("Deployment", rendered)["spec"]["template"]["spec"]["topologySpreadConstraints"]
    selectors += [each["labelSelector"]["matchLabels"] for each in spread]
    for selector in selectors:
        assert selector
        assert selector.items() <= labels
    target = only("HorizontalPodAutoscaler", rendered)["spec"]["scaleTargetRef"]
    deployment = only("Deployment", rendered)
    assert (target["apiVersion"], target["kind"], target["name"]) == (
        deployment["apiVersion"], "Deployment", deployment["metadata"]["name"])  # fmt: skip


def test_the_monitor_finds_its_service_and_the_alerts_their_job() -> None:
    folder = FOLDER / "components" / "observability"
    monitor = yaml.safe_load((folder / "servicemonitor.yaml").read_text())["spec"]
    service = yaml.safe_load((folder / "service.yaml").read_text())
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    (endpoint,) = monitor["endpoints"]
    (port,) = service["spec"]["ports"]
    assert endpoint["port"] == port["name"]
    assert endpoint["path"] == "/metrics"
    rules = yaml.safe_load((folder / "prometheusrule.yaml").read_text())
    jobs = set(re.findall(r'job="(\w+)"', yaml.safe_dump(rules)))
    assert jobs == {service["metadata"]["labels"][monitor["jobLabel"]]}
    # the Service of the pictures must not be scraped too
    assert not monitor["selector"]["matchLabels"].items() <= base("Service")["metadata"].get("labels", {}).items()


def test_ports_are_those_that_the_service_listens_on() -> None:
    ports = {each["name"]: each["containerPort"] for each in CONTAINER["ports"]}
    settings = dict(literals())
    assert ports == {"http": int(dockerfile("EXPOSE")), "metrics": int(settings["PIX2DSLR_METRICS_PORT"])}
    assert int(image_environment()["PIX2DSLR_PORT"]) == ports["http"]
    (port,) = base("Service")["spec"]["ports"]
    assert port["targetPort"] == "http"  # and metrics on no Service that clients reach
    allowed = {each["port"] for rule in base("NetworkPolicy")["spec"]["ingress"] for each in rule["ports"]}
    assert allowed == ports.keys()


@pytest.mark.parametrize(("probe", "path"), [("startup", "/readyz"), ("readiness", "/readyz"), ("liveness", "/livez")])
def test_probes_ask_what_answers_on_the_second_port(probe: str, path: str) -> None:
    asked = CONTAINER[f"{probe}Probe"]["httpGet"]
    assert asked == {"path": path, "port": "metrics"}
    assert path in PROBES


def test_the_grace_period_holds_the_drain() -> None:
    drain = float(dict(literals())["PIX2DSLR_DRAIN_TIMEOUT_S"])
    assert drain == Settings.model_fields["drain_timeout_s"].default
    before = CONTAINER["lifecycle"]["preStop"]["sleep"]["seconds"]
    # a proxy looks at readiness or at endpoints every few seconds
    assert before >= 5
    assert POD["terminationGracePeriodSeconds"] >= before + drain + _CLOSE_WITHIN_S
    section = (ROOT / "docs" / "deploying.md").read_text().partition("### How a pod ends\n")[2]
    told = [int(number) for number in re.findall(r"^\| (\d+) \|", section, re.MULTILINE)]
    assert told[:3] == [before, drain, _CLOSE_WITHIN_S]
    assert sum(told[:-1]) == told[-1] == POD["terminationGracePeriodSeconds"]


def test_a_rollout_never_has_fewer_replicas() -> None:
    spec = base("Deployment")["spec"]
    assert spec["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert "replicas" not in spec  # the autoscaler's
    scaler = base("HorizontalPodAutoscaler")["spec"]
    assert 2 <= scaler["minReplicas"] < scaler["maxReplicas"]


def test_the_container_may_do_little() -> None:
    (user, _, group) = dockerfile("USER").partition(":")
    security = POD["securityContext"]
    assert (security["runAsUser"], security["runAsGroup"]) == (int(user), int(group))
    assert security["runAsNonRoot"] is True
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert CONTAINER["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert POD["automountServiceAccountToken"] is False
    assert base("ServiceAccount")["automountServiceAccountToken"] is False
    assert POD["serviceAccountName"] == base("ServiceAccount")["metadata"]["name"]
    (mount,) = CONTAINER["volumeMounts"]
    assert mount["mountPath"] == "/tmp"  # noqa: S108  a container's own
    assert base("NetworkPolicy")["spec"]["egress"] == []


def test_only_the_ingress_controller_and_prometheus_reach_it() -> None:
    allowed = {}
    for rule in base("NetworkPolicy")["spec"]["ingress"]:
        (port,), (peer,) = rule["ports"], rule["from"]
        assert peer.keys() == {"namespaceSelector"}
        ((label, namespace),) = peer["namespaceSelector"]["matchLabels"].items()
        # the one that Kubernetes itself sets, and nobody else can
        assert label == "kubernetes.io/metadata.name"
        allowed[port["port"]] = namespace
    assert allowed == {"http": "ingress-nginx", "metrics": "monitoring"}


def test_a_client_is_who_the_ingress_controller_says() -> None:
    networks = Settings.model_validate(
        {"trusted_proxies": dict(literals())["PIX2DSLR_TRUSTED_PROXIES"]}
    ).trusted_proxies
    assert networks
    assert not [each for each in networks if ipaddress.ip_network(each).is_global]


def test_a_pod_is_in_a_user_namespace_of_its_own() -> None:
    assert POD["hostUsers"] is False


def test_a_pod_can_not_fill_the_disk_of_its_node() -> None:
    resources = CONTAINER["resources"]
    assert resources["requests"]["ephemeral-storage"] == "64Mi"
    (tmp,) = (each for each in POD["volumes"] if each["name"] == "tmp")
    limit, of_tmp = (int(size.removesuffix("Mi")) for size in (
        resources["limits"]["ephemeral-storage"], tmp["emptyDir"]["sizeLimit"]))  # fmt: skip
    # and log files of 50 MiB
    assert limit >= of_tmp + 50


def test_no_variable_of_kubernetes_stands_in_for_a_setting() -> None:
    """A pod gets NAME_PORT=tcp://... for each Service NAME, and ours would be PIX2DSLR_PORT."""
    name = base("Service")["metadata"]["name"].upper().replace("-", "_")
    assert f"{name}_PORT" in {PREFIX + field.upper() for field in Settings.model_fields}
    assert POD["enableServiceLinks"] is False


def test_threads_follow_the_limit_of_cpus() -> None:
    """PIX2DSLR_THREADS=0 takes what the container may use: without a limit the whole node."""
    assert Settings.model_fields["threads"].default == 0
    assert "PIX2DSLR_THREADS" not in dict(literals())
    assert CONTAINER["resources"]["limits"]["cpu"] == CONTAINER["resources"]["requests"]["cpu"]


def test_the_keys_lie_where_the_setting_says(rendered: list[Tree], request: pytest.FixtureRequest) -> None:
    chosen = request.node.callspec.params["rendered"][1]
    file = settings_of(rendered).get("PIX2DSLR_API_KEYS_FILE")
    assert (file is not None) == ("api-keys" in chosen)
    if file is not None:
        mounts = {each["mountPath"]: each["name"] for each in container_of(rendered)["volumeMounts"]}
        volumes = {each["name"]: each for each in only("Deployment", rendered)["spec"]["template"]["spec"]["volumes"]}
        secret = volumes[mounts[str(Path(file).parent)]]["secret"]
        # 0440: readable by the group alone that fsGroup gives it
        assert secret["defaultMode"] == 0o440
        assert POD["securityContext"]["fsGroup"] == POD["securityContext"]["runAsGroup"]


def test_the_adapter_makes_the_metric_that_the_autoscaler_asks_for() -> None:
    values = yaml.safe_load((FOLDER / "prometheus-adapter-values.yaml").read_text())
    (rule,) = values["rules"]["custom"]
    (series,) = asked_by(rule["seriesQuery"]).matched
    (metric,) = base("HorizontalPodAutoscaler")["spec"]["metrics"]
    made = re.sub(rule["name"]["matches"], rule["name"]["as"].replace("$1", r"\1"), series)
    assert made == metric["pods"]["metric"]["name"]
    told = {"<<.Series>>": series, "<<.LabelMatchers>>": 'namespace="photos",pod=~"a|b"', "<<.GroupBy>>": "pod"}
    query = rule["metricsQuery"]
    for name, value in told.items():
        query = query.replace(name, value)
    assert asked_by(query).grouped == {"pod"}
    assert rule["resources"]["overrides"].keys() == {"namespace", "pod"}
