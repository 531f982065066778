"""The image, the compose files and CI against the service's own settings and its Makefile, without a Docker engine."""

import fnmatch
import ipaddress
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import onnxruntime
import pytest
import yaml

from service.settings import Settings

ROOT: Final = Path(__file__).parents[1]
PREFIX: Final = "PIX2DSLR_"
DEPLOYMENTS: Final = {
    "image": [],
    "compose": ["docker-compose.yml"],
    "gpu": ["docker-compose.yml", "docker-compose.gpu.yml"],
    "scale": ["docker-compose.yml", "docker-compose.scale.yml"],
    "gpu scale": ["docker-compose.yml", "docker-compose.gpu.yml", "docker-compose.scale.yml"],
}
OURS: Final = {name: ["pix2dslr", "nginx"] if "scale" in name else ["pix2dslr"] for name in DEPLOYMENTS}
WITH_COMPOSE: Final = [name for name in DEPLOYMENTS if name != "image"]
BALANCED: Final = [name for name in DEPLOYMENTS if "scale" in name]

Tree = dict[str, Any]
Instruction = tuple[str, str]


def read_dockerfile() -> list[Instruction]:
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", "")
    words = (line.split(maxsplit=1) for line in text.splitlines() if line.strip())
    return [(name.upper(), rest.strip()) for name, rest in words]


INSTRUCTIONS: Final = read_dockerfile()
FINAL_STAGE: Final = INSTRUCTIONS[max(i for i, (name, _) in enumerate(INSTRUCTIONS) if name == "FROM") :]
PROJECT: Final[Tree] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def of_image(name: str) -> str:
    """The one instruction of that name in the final stage."""
    (rest,) = (rest for other, rest in FINAL_STAGE if other == name)
    return rest


def pairs_of(text: str) -> dict[str, str]:
    return dict(word.split("=", 1) for word in shlex.split(text))


def health_check() -> tuple[dict[str, str], list[str]]:
    options, _, command = of_image("HEALTHCHECK").partition("CMD")
    arguments: list[str] = json.loads(command)
    return pairs_of(options.replace("--", "")), arguments


class ComposeLoader(yaml.SafeLoader):
    """YAML with compose's own tag: `!reset` takes away what the files before say."""


class Reset:
    """Stands where `!reset` does."""


ComposeLoader.add_multi_constructor("!reset", lambda *_: Reset())


def merge(base: Tree, overlay: Tree) -> Tree:
    """Merge as compose does with mappings; neither file's lists meet."""
    both = {name: merge(base[name], overlay[name]) for name in base.keys() & overlay if isinstance(base[name], dict)}
    return {name: value for name, value in {**base, **overlay, **both}.items() if not isinstance(value, Reset)}


def services_of(deployment: str) -> Tree:
    merged: Tree = {}
    for name in DEPLOYMENTS[deployment]:
        merged = merge(merged, yaml.load((ROOT / name).read_text(), ComposeLoader))  # noqa: S506  a safe one
    services: Tree = merged.get("services", {})
    return services


def service_of(deployment: str, name: str = "pix2dslr") -> Tree:
    service: Tree = services_of(deployment).get(name, {})
    return service


def environment_of(deployment: str) -> dict[str, str]:
    """What the process finds in its environment, where whoever starts it sets nothing."""
    own = service_of(deployment).get("environment", {})
    return {**pairs_of(of_image("ENV")), **{name: default_of(value) for name, value in own.items()}}


def default_of(value: str) -> str:
    """What compose makes of a value whose variable is not set."""
    return re.sub(r"\$\{[A-Z_]+:?-([^}]*)\}", r"\1", value)


def settings_of(deployment: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """What the service makes of it."""
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(name)
    for name, value in environment_of(deployment).items():
        if name.startswith(PREFIX):
            monkeypatch.setenv(name, value)
    return Settings()


def seconds(duration: str) -> float:
    """Seconds of a duration as compose and Docker write it, such as 5m10s."""
    assert re.fullmatch(r"(\d+h)?(\d+m)?(\d+s)?", duration)
    return sum(int(n) * {"h": 3600, "m": 60, "s": 1}[unit] for n, unit in re.findall(r"(\d+)([hms])", duration))


@pytest.mark.parametrize("deployment", DEPLOYMENTS)
def test_every_variable_is_a_setting(deployment: str) -> None:
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    ours = {name for name in environment_of(deployment) if name.startswith(PREFIX)}
    assert ours
    assert ours <= known


def test_settings_of_each_deployment(monkeypatch: pytest.MonkeyPatch) -> None:
    devices = {name: settings_of(name, monkeypatch).device for name in DEPLOYMENTS}
    assert devices == {"image": "auto", "compose": "cpu", "gpu": "cuda", "scale": "cpu", "gpu scale": "cuda"}


@pytest.mark.parametrize("deployment", DEPLOYMENTS)
def test_ports_agree(deployment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(deployment, monkeypatch)
    assert settings.host == "0.0.0.0"  # noqa: S104  inside a container
    assert of_image("EXPOSE") == str(settings.port)
    if deployment in BALANCED:
        assert "ports" not in service_of(deployment), "several replicas can't have one port of the host"
        (port,) = re.findall(r"^\s*listen (\d+)", (ROOT / "deploy/nginx/nginx.conf").read_text(), re.MULTILINE)
        assert service_of(deployment, "nginx")["ports"] == [f"${{BIND:-127.0.0.1}}:${{PORT:-8000}}:{port}"]
        assert f":{port}/readyz" in service_of(deployment, "nginx")["healthcheck"]["test"][-1]
    elif deployment in WITH_COMPOSE:
        assert service_of(deployment)["ports"] == [f"${{BIND:-127.0.0.1}}:${{PORT:-8000}}:{settings.port}"]


@pytest.mark.parametrize("deployment", WITH_COMPOSE)
def test_nothing_is_published_beyond_this_machine_unless_asked_for(deployment: str) -> None:
    for name, service in services_of(deployment).items():
        for port in service.get("ports", ()):
            assert default_of(port).startswith("127.0.0.1:"), name


@pytest.mark.parametrize("deployment", WITH_COMPOSE)
def test_other_peoples_names_do_not_lead_to_it(deployment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page of theirs could have its own name lead to this machine, and would be of our origin."""
    assert settings_of(deployment, monkeypatch).trusted_hosts == ("localhost", "127.0.0.1", "::1")


@pytest.mark.parametrize("deployment", WITH_COMPOSE)
def test_stopping_waits_for_the_drain(deployment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    drain = settings_of(deployment, monkeypatch).drain_timeout_s
    assert seconds(service_of(deployment)["stop_grace_period"]) >= drain + 5


@pytest.mark.parametrize("deployment", BALANCED)
def test_stopping_waits_for_nginx(deployment: str) -> None:
    text = (ROOT / "deploy/nginx/nginx.conf").read_text()
    (finishing,) = re.findall(r"^worker_shutdown_timeout (\w+);", text, re.MULTILINE)
    assert seconds(service_of(deployment, "nginx")["stop_grace_period"]) >= seconds(finishing) + 5


@pytest.mark.parametrize("deployment", BALANCED)
def test_nginx_has_its_files_and_believed_networks(deployment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    nginx = service_of(deployment, "nginx")
    *files, bodies = nginx["volumes"]
    # a volume, which lies on disk: in memory the bodies of a few clients would fill it
    assert bodies == "bodies:/tmp"
    for volume in files:
        source, target, how = volume.split(":")
        assert (ROOT / source).is_file()
        assert (target, how) == (f"/etc/nginx/{Path(source).name}", "ro")
    assert int(nginx["user"].partition(":")[0]) > 0
    version = [int(part) for part in re.findall(r"\d+", nginx["image"])]
    assert version >= [1, 28], "1.27.3 brought `resolve`; 1.28 was the first stable one with it"
    trusted = [ipaddress.ip_network(each) for each in settings_of(deployment, monkeypatch).trusted_proxies]
    assert all(network.is_private for network in trusted)


@pytest.mark.parametrize(("deployment", "name"), [(each, name) for each in WITH_COMPOSE for name in OURS[each]])
def test_compose_takes_every_privilege_away(deployment: str, name: str) -> None:
    service = service_of(deployment, name)
    assert service["read_only"] is True
    assert service.get("tmpfs", ["/tmp"]) == ["/tmp"]  # noqa: S108  a container's own
    assert ("tmpfs" in service) == (name == "pix2dslr")
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.keys() & {"privileged", "cap_add", "command", "entrypoint"}
    if name == "pix2dslr":  # what its image says
        assert not service.keys() & {"user", "healthcheck"}


@pytest.mark.parametrize(("deployment", "name"), [(each, name) for each in WITH_COMPOSE for name in OURS[each]])
def test_compose_bounds_memory_processes_and_logs(deployment: str, name: str) -> None:
    service = service_of(deployment, name)
    assert {"memory", "pids"} <= service["deploy"]["resources"]["limits"].keys()
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}


def test_bodies_take_a_part_of_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    limit = service_of("compose")["deploy"]["resources"]["limits"]["memory"]
    (gibibytes,) = re.findall(r"^\$\{MEMORY:-(\d+)g\}$", limit)
    assert settings_of("compose", monkeypatch).max_buffered_bytes <= int(gibibytes) * (1 << 30) // 4


def test_the_gpu_overlay_has_an_image_of_its_own() -> None:
    cpu, gpu = service_of("compose"), service_of("gpu")
    assert cpu["image"] != gpu["image"]
    assert cpu["build"]["args"] == {"EXTRAS": "cpu"}
    assert gpu["build"]["args"] == {"EXTRAS": "cuda"}
    assert {"cpu", "cuda"} <= PROJECT["optional-dependencies"].keys()
    assert "reservations" not in cpu["deploy"]["resources"]
    assert gpu["deploy"]["resources"]["reservations"]["devices"] == [
        {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    ]


def test_the_image_is_not_root() -> None:
    assert all(int(number) > 0 for number in of_image("USER").split(":"))


def test_signals_reach_the_server() -> None:
    command = json.loads(of_image("CMD"))
    assert command[0] in PROJECT["scripts"]
    assert of_image("STOPSIGNAL") == "SIGTERM"
    assert "ENTRYPOINT" not in dict(FINAL_STAGE)


def test_labels_say_what_the_package_says() -> None:
    labels = pairs_of(of_image("LABEL"))
    assert {name: labels[f"org.opencontainers.image.{name}"] for name in ("title", "version", "licenses")} == {
        "title": PROJECT["name"],
        "version": PROJECT["version"],
        "licenses": PROJECT["license"],
    }


def test_what_the_image_leaves_out_is_what_the_wheel_holds() -> None:
    """A name that changed would leave its file in the image, and nobody would see."""
    (command,) = [rest for name, rest in INSTRUCTIONS if name == "RUN" and "libonnxruntime" in rest]
    inside = next(iter(onnxruntime.__path__))
    named = re.findall(r"rm -rf (capi/libonnxruntime[.\w*]+) ([a-z ]+)\)", command)
    ((library, folders),) = named
    for pattern in (library, *folders.split(), *re.findall(r"onnxruntime/(\S+\.so)", command)):
        found = list(Path(inside).glob(pattern))
        assert found or "providers" in pattern, pattern  # those are in the builds for a GPU alone
    source = "".join(path.read_text() for path in (ROOT / "service").rglob("*.py"))
    assert not re.search(rf"onnxruntime\.({'|'.join(folders.split())})", source)


def test_the_image_has_its_bill_of_materials() -> None:
    (command,) = [rest for name, rest in INSTRUCTIONS if name == "RUN" and "cyclonedx_py" in rest]
    (path,) = re.findall(r"--output-file (\S+)", command)
    assert path.startswith("/opt/venv/"), "which alone the final stage takes"
    assert path in (ROOT / "Makefile").read_text()


def test_the_final_stage_takes_the_environment_alone() -> None:
    assert [rest for name, rest in FINAL_STAGE if name in ("COPY", "ADD")] == ["--from=build /opt/venv /opt/venv"]
    assert "RUN" not in dict(FINAL_STAGE)


def test_the_build_context_has_what_the_build_reads() -> None:
    ignored, *kept = [
        line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")
    ]
    assert ignored == "*"
    allowed = [line.removeprefix("!") for line in kept if line.startswith("!")]
    hatch = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    read = [PROJECT["readme"], *PROJECT["license-files"], *hatch["packages"]]
    for name, rest in INSTRUCTIONS:
        if name == "COPY" and not rest.startswith("--from"):
            read += [source for source in rest.split()[:-1] if source != "."]
    for path in read:
        assert (ROOT / path).exists()
        assert any(fnmatch.fnmatch(path, pattern) for pattern in allowed), path


def listening_port(log: Iterable[str]) -> str:
    """The port that the service says it took, waited for."""
    read = []
    for line in log:
        read.append(line)
        if found := re.search(r"listening on http://\S+:(\d+)", line):
            return found[1]
    pytest.fail("".join(read))


def test_the_health_check_follows_the_service(identity_model: Path, tmp_path: Path) -> None:
    """The image's own command and health check, with the image's environment but for the port and the model."""
    options, probe = health_check()
    assert not {"curl", "wget", "sh"} & {Path(word).name for word in probe}
    # on CI ONNX Runtime keeps quiet of its own accord
    inherited = {name: value for name, value in os.environ.items() if name not in ("CI", "XDG_CACHE_HOME")}
    environment = {
        **{name: value for name, value in inherited.items() if not name.startswith((PREFIX, "ORT_"))},
        **environment_of("image"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "http_proxy": "http://127.0.0.1:9",  # nothing listens there
        "PIX2DSLR_HOST": "127.0.0.1",
        "PIX2DSLR_PORT": "0",
        "PIX2DSLR_MODELS": str(identity_model.parent),
        "PIX2DSLR_CAMERA": identity_model.stem,
        "PIX2DSLR_DEVICE": "cpu",
        "PIX2DSLR_THREADS": "1",
    }

    def healthy() -> bool:
        done = subprocess.run(probe, env=environment, capture_output=True, timeout=seconds(options["timeout"]))
        return done.returncode == 0

    assert not healthy()
    with subprocess.Popen(json.loads(of_image("CMD")), env=environment, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            environment["PIX2DSLR_PORT"] = listening_port(server.stderr)
            deadline = time.monotonic() + seconds(options["start-period"])
            while not healthy():
                assert server.poll() is None
                assert time.monotonic() < deadline
            server.send_signal(signal.SIGTERM)
            assert server.wait(timeout=30) == 0
        finally:
            server.kill()
    assert not healthy()
    # ONNX Runtime's telemetry would have left the id of this machine there
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name",
    [
        ".github/workflows/ci.yml",
        ".github/workflows/weekly.yml",
        ".pre-commit-config.yaml",
        "CONTRIBUTING.md",
        ".ci/run",
    ],
)
def test_make_has_the_targets_that_others_call(name: str) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    called = set(re.findall(r"\bmake ([a-z]+)", (ROOT / name).read_text()))
    assert called
    assert called <= targets


@pytest.mark.parametrize("name", ["ci", "weekly", "release"])
def test_ci_asks_for_little(name: str) -> None:
    workflow = yaml.safe_load((ROOT / f".github/workflows/{name}.yml").read_text())
    assert workflow["permissions"] == {"contents": "read"}
    rights = {right for job in workflow["jobs"].values() for right in job.get("permissions", {}).items()}
    # to push the image, and to have GitHub sign where it comes from
    signing = {(right, "write") for right in ("packages", "id-token", "attestations")}
    assert rights == ({("contents", "read"), *signing} if name == "release" else set())


def test_ci_runs_on_the_oldest_python() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    pythons = workflow["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert PROJECT["requires-python"] == f">={pythons[0]}"


def compose_program() -> list[str]:
    """The command of Docker Compose 2, as a plug-in or by itself."""
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]):
            said = subprocess.run([*command, "version", "--short"], capture_output=True, text=True, check=False)
            if said.returncode == 0 and int(said.stdout.strip().removeprefix("v").partition(".")[0]) >= 2:
                return command
    pytest.skip(
        "no Docker Compose 2 (apt-get install docker-compose, from Debian 13 on); others read the files without"
    )


@pytest.mark.parametrize("deployment", WITH_COMPOSE)
def test_compose_reads_them_as_we_do(deployment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "8123")
    files = [word for name in DEPLOYMENTS[deployment] for word in ("--file", name)]
    command = [*compose_program(), *files, "config", "--format", "json"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    services = json.loads(said)["services"]
    assert services.keys() == set(OURS[deployment])
    service, ours = services["pix2dslr"], service_of(deployment)
    assert service["environment"] == {key: default_of(value) for key, value in ours["environment"].items()}
    for name in ("image", "read_only", "tmpfs", "cap_drop", "security_opt", "restart"):
        assert service[name] == ours[name]
    entrance = services["nginx"] if deployment in BALANCED else service
    assert [(port["host_ip"], port["published"]) for port in entrance["ports"]] == [("127.0.0.1", "8123")]
    assert deployment not in BALANCED or "ports" not in service
    assert service["deploy"]["resources"]["limits"]["memory"] == str(4 << 30)
