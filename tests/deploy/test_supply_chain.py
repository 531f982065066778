"""What others made is taken by its hash: Python packages, images, actions."""

import re
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deploy.lock import EXTRAS, FOLDER, PROJECT, ROOT, SETS, included, pinned, pins_in

FILES: Final = sorted(FOLDER.glob("*.txt"))
MACHINES: Final = [
    {"sys_platform": system, "platform_system": name, "platform_machine": machine, "python_version": python}
    for system, name, machine in (
        ("linux", "Linux", "x86_64"),
        ("linux", "Linux", "aarch64"),
        ("darwin", "Darwin", "arm64"),
    )
    for python in ("3.11", "3.12")
]
WORKFLOWS: Final = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
COMPOSE: Final = sorted(ROOT.glob("docker-compose*.yml"))


def test_each_set_has_its_file() -> None:
    assert {path.stem for path in FILES} == {*SETS, "torch-cpu"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_version_is_pinned_with_the_hashes_of_its_files(path: Path) -> None:
    lines = path.read_text().replace("\\\n", "").splitlines()
    hashed = r"[a-z0-9.-]+==[^\s;]+( ;[^;]+?)?(\s+--hash=sha256:[0-9a-f]{64})+"
    for line in lines:
        # no index and no address: those are whoever installs it's choice
        assert re.fullmatch(rf"#.*|-r [a-z-]+\.txt|{hashed}", line.rstrip()), line
    assert pins_in(path.read_text()).keys() == {line.partition("==")[0] for line in lines if line[0] not in "#-"}


def whole(name: str) -> dict[str, str]:
    """The version of each package of a set, with those of the files that it includes."""
    sets = [name, *included(name)]
    return {package: lines.split()[0].partition("==")[2] for each in sets for package, lines in pinned(each).items()}


@pytest.mark.parametrize("name", [name for name, each in SETS.items() if not each.named])
@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: " ".join(machine.values()))
def test_what_the_project_needs_is_there_on_every_machine(name: str, machine: dict[str, str]) -> None:
    asked = [*PROJECT["project"]["dependencies"], *(line for extra in SETS[name].extras for line in EXTRAS[extra])]
    found = whole("torch" if name == "test" else name)
    lines = {package: text for each in (name, *included(name)) for package, text in pinned(each).items()}
    for wanted in map(Requirement, asked):
        if wanted.marker is None or wanted.marker.evaluate(machine):
            package = canonicalize_name(wanted.name)
            assert found[package] in wanted.specifier, wanted
            (condition,) = re.findall(r"^\S+(?: ; ([^\\\n]+?))?(?: \\)?$", lines.get(package, "torch"), re.MULTILINE)[
                :1
            ]
            assert not condition or Marker(condition).evaluate(machine), wanted


def test_all_sets_agree_on_versions() -> None:
    """But for CUDA's libraries, which torch pins for itself."""
    versions: dict[str, str] = {}
    for each in SETS:
        for package, version in whole(each).items():
            if not package.startswith("nvidia-"):
                assert versions.setdefault(package, version) == version, each
    assert len(versions) > 150


def test_both_builds_of_torch_are_of_one_release() -> None:
    (build,) = pins_in((FOLDER / "torch-cpu.txt").read_text()).values()
    assert build.split()[0] == f"torch=={whole('torch')['torch']}+cpu"


def test_everything_is_installed_by_its_hash() -> None:
    lines = (
        "".join((ROOT / name).read_text() + "\n" for name in ("Makefile", "Dockerfile"))
        .replace("\\\n", " ")
        .splitlines()
    )
    variables: dict[str, str] = dict(re.findall(r"^(\w+) := (.*)$", "\n".join(lines), re.MULTILINE))
    commands = []
    for line in lines:
        while name := next(iter(re.findall(r"\$\((\w+)\)", line)), ""):
            line = line.replace(f"$({name})", variables.get(name, name))
        if " := " not in line:
            commands += re.findall(r"\bpip\b[^&|]*? (?:install|wheel) [^&|]*", line)
    assert len(commands) >= 10
    for command in commands:
        # or it is the project itself, for which nothing is fetched
        ours = "--no-index" in command or "--no-deps --no-build-isolation" in command
        assert ours or "--require-hashes --only-binary :all:" in command, command
    built = [command for command in commands if "--no-binary" in command]
    assert built
    assert all("--no-build-isolation" in command for command in built), "what builds it has no hash"


def test_images_of_others_are_named_by_digest() -> None:
    images = re.findall(r"^ARG BASE_IMAGE=(\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    for path in COMPOSE:
        tree: dict[str, Any] = yaml.load(re.sub("!reset", "", path.read_text()), yaml.SafeLoader)
        images += [each["image"] for each in tree["services"].values() if "image" in each]
    others = [image for image in images if not image.startswith("pix2dslr:")]
    assert len(others) == 4
    for image in others:
        assert re.fullmatch(r"[a-z/]+:[\w.-]+@sha256:[0-9a-f]{64}", image), image


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_named_by_commit(path: Path) -> None:
    used = re.findall(r"^ +(?:- )?uses: (.+)$", path.read_text(), re.MULTILINE)
    assert used
    for line in used:
        assert re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+", line), line


def test_what_is_named_by_hash_is_kept_new() -> None:
    """A digest gets no updates by itself."""
    updates = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text())["updates"]
    assert {each["package-ecosystem"] for each in updates} == {"github-actions", "docker", "docker-compose"}
