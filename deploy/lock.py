"""Write requirements/*.txt anew: what is installed, at one version each, with the hashes of all its files.

`python -m deploy.lock` takes over what changed in pyproject.toml and keeps all other versions, `--upgrade` keeps none.
uv resolves for all platforms at once and asks the package index for the hashes.
"""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
FOLDER: Final = ROOT / "requirements"
PROJECT: Final[Mapping[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS: Final[Mapping[str, list[str]]] = PROJECT["project"]["optional-dependencies"]

_PIN: Final = re.compile(r"^([a-z0-9.-]+)==([^\s;]+)[^\n]*(?:\n[ \t]+[^\n]*)*", re.MULTILINE)
_OF_TORCH: Final = re.compile(r"torch|triton|nvidia-.+|cuda-.+")


@dataclass(frozen=True)
class Set:
    """What is installed together.

    Attributes:
        told: for whom, in the file's first line.
        extras: of pyproject.toml, beside its dependencies.
        named: requirements instead of the project's own.
        on: sets whose files it includes, so that each version stands once.
        leaves: names that it must not have.
    """

    told: str
    extras: tuple[str, ...] = ()
    named: tuple[str, ...] = ()
    on: tuple[str, ...] = ()
    leaves: re.Pattern[str] | None = None


SETS: Final = {
    "build": Set("builds the project itself", named=(*PROJECT["build-system"]["requires"], "editables")),
    "tools": Set("builds what has no wheel, pyvips", named=("setuptools", "cffi", "pkgconfig")),
    "audit": Set("audits, and writes these files", named=(*EXTRAS["audit"], *EXTRAS["lock"])),
    "sbom": Set("lists what the image holds", named=("cyclonedx-bom",)),
    "cpu": Set("runs the service", extras=("otel",)),
    "cuda": Set("runs the service on NVIDIA's GPUs", extras=("otel", "cuda"), on=("cpu",)),
    "ray": Set("`pix2dslr bulk` and Ray Serve", extras=("otel", "ray"), on=("cpu",)),
    "torch": Set("torch's default build, on Linux with CUDA's libraries", named=("torch",), on=("test",)),
    "test": Set(
        "trains, tests and lints, but for torch",
        extras=("otel", "ray", "train", "test", "lint", "browser"),
        on=("cpu", "build", "tools", "ray"),
        leaves=_OF_TORCH,
    ),
}
"""All files but torch-cpu.txt, whose wheels the package index does not have."""


def pins_in(text: str) -> dict[str, str]:
    """Return the lines of each pinned requirement, by its name."""
    return {found[1]: found[0] for found in _PIN.finditer(text)}


def pinned(name: str) -> dict[str, str]:
    """Return the pins of a set's file, without those of the files that it includes."""
    path = FOLDER / f"{name}.txt"
    return pins_in(path.read_text()) if path.exists() else {}


def included(name: str) -> set[str]:
    """Return the sets that a set includes, directly or not."""
    return {each for one in SETS[name].on for each in (one, *included(one))}


def constraints(name: str, *, upgrade: bool) -> list[str]:
    """Return the versions that a set keeps: of what it includes, and unless all are new of its file and the others.

    torch pins CUDA's libraries for itself, at other versions than ONNX Runtime's.
    """
    other_cuda = "torch" if name == "cuda" else "cuda"
    kept: dict[str, str] = {}
    others = [] if upgrade else [name, *(each for each in SETS if each not in (name, other_cuda))]
    for each in [*sorted(included(name)), *others]:
        for package, lines in pinned(each).items():
            kept.setdefault(package, lines.split(maxsplit=1)[0])
    return sorted(kept.values())


def resolve(name: str, kept: Iterable[str]) -> dict[str, str]:
    """Let uv resolve a set, all platforms at once, and return its pins with their hashes."""
    wanted = SETS[name]
    own = [] if wanted.named else [*PROJECT["project"]["dependencies"]]
    asked = [*own, *wanted.named, *(line for extra in wanted.extras for line in EXTRAS[extra])]
    (versions := FOLDER / ".kept").write_text("\n".join(kept))
    command = [
        *(sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.11"),
        *("--generate-hashes", "--no-header", "--no-annotate", "--constraints", str(versions), "-"),
    ]
    try:
        done = subprocess.run(command, input="\n".join(asked), capture_output=True, text=True, check=False)  # noqa: S603
    finally:
        versions.unlink()
    if done.returncode:
        sys.exit(done.stderr)
    return pins_in(done.stdout)


def main() -> None:
    """Write every file; those that others include come first."""
    upgrade = "--upgrade" in sys.argv[1:]
    for name in sorted(SETS, key=lambda each: len(included(each))):
        elsewhere = {package for each in included(name) for package in pinned(each)}
        leaves = SETS[name].leaves
        found = {
            package: lines
            for package, lines in resolve(name, constraints(name, upgrade=upgrade)).items()
            if package not in elsewhere and not (leaves and leaves.fullmatch(package))
        }
        head = [f"# By deploy/lock.py: {SETS[name].told}.", *(f"-r {each}.txt" for each in SETS[name].on)]
        (FOLDER / f"{name}.txt").write_text("\n".join([*head, *(found[each] for each in sorted(found))]) + "\n")


if __name__ == "__main__":
    main()
