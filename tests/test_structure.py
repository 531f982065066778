"""Imports go one way, as the design says."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

DECODING = {"service.decoding", "service.decoding.messages"}
PROJECT = Path(__file__).parents[1]
MODULES = {
    ".".join(file.relative_to(PROJECT).with_suffix("").parts)
    for folder in ("service", "model_export", "tests")
    for file in (PROJECT / folder).rglob("*.py")
}


def ours(path: Path) -> set[str]:
    """Modules of this project that a file imports."""

    def names() -> Iterator[str]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield node.module
                yield from (f"{node.module}.{alias.name}" for alias in node.names)

    modules = {name.replace("/", ".") for name in names() if name.startswith(("service", "model_export", "tests"))}
    return modules & MODULES


@pytest.mark.parametrize("path", sorted((PROJECT / "service").rglob("*.py")), ids=lambda path: path.stem)
def test_the_service_imports_nothing_of_the_offline_half(path: Path) -> None:
    assert not [name for name in ours(path) if name.startswith(("model_export", "tests"))]


@pytest.mark.parametrize(
    ("module", "allowed"),
    [
        ("spec", set()),
        ("icc", set()),
        ("colour", {"service.icc"}),
        ("exif", set()),
        ("xmp", {"service.copies"}),
        ("copies", set()),
        ("metadata", {"service.copies", "service.exif", "service.xmp"}),
        ("heif", {"service.copies", "service.metadata", "service.xmp"}),
        ("jpeg", {"service.metadata", "service.xmp"}),
        ("webp", {"service.metadata"}),
        ("cicp", {"service.icc", "service.picture"}),
        ("avif", {"service.metadata"}),
        ("bmp", {"service.picture"}),
        ("png", {f"service.{name}" for name in ("cicp", "colour", "copies", "icc", "metadata")}),
        (
            "headers",
            {
                *(f"service.{name}" for name in ("avif", "bmp", "cicp", "colour", "decoders", "heif", "jpeg")),
                *(f"service.{name}" for name in ("metadata", "picture", "png", "tiff", "webp")),
            },
        ),
        ("tiff_directories", {"service.picture"}),
        ("tiff", {"service.metadata", "service.picture", "service.tiff_directories"}),
        (
            "tiff_samples",
            {f"service.{name}" for name in ("colour", "picture", "tiff", "tiff_directories")},
        ),
        ("picture", {"service.metadata"}),
        (
            "decoders",
            {f"service.{name}" for name in ("avif", "bmp", "colour", "heif", "jpeg", "picture", "png", "tiff_samples")},
        ),
        ("encoders", {f"service.{name}" for name in ("copies", "heif", "metadata", "picture", "png", "tiff")}),
        (
            "codec",
            {
                *(
                    f"service.{name}"
                    for name in ("bmp", "colour", "decoders", "encoders", "headers", "heif", "metadata")
                ),
                *(f"service.{name}" for name in ("picture", "tiff")),
            },
        ),
        ("decoding/messages", {"service.picture"}),
        ("decoding/known", {f"service.{name}" for name in ("codec", "picture")} | DECODING),
        (
            "decoding/worker",
            {f"service.{name}" for name in ("codec", "colour", "headers", "memory", "picture")}
            | {f"service.decoding.{name}" for name in ("containment", "known")}
            | DECODING,
        ),
        ("decoding/containment", set()),
        ("decoding/line", set()),
        ("decoding/process", {"service.caller", "service.picture"} | DECODING),
        (
            "decoding/pool",
            {f"service.{name}" for name in ("caller", "generator", "metadata", "picture")}
            | {f"service.decoding.{name}" for name in ("line", "process")}
            | DECODING,
        ),
        ("view", {"service.codec", "service.colour", "service.tiling"}),
        ("alignment", set()),
        ("archive", set()),
        ("negotiation", {"service.picture"}),
        ("tiling", {"service.spec"}),
        ("quality", {"service.spec", "service.tiling"}),
        ("sessions", set()),
        ("onnx_wire", set()),
        ("model_files", {"service.onnx_wire"}),
        ("generator", {"service.model_files", "service.sessions", "service.spec"}),
        ("catalogue", {"service.generator", "service.model_files", "service.sessions"}),
        ("turns", set()),
        ("live", set()),
        ("watchdog", set()),
        ("keys", set()),
        ("edge/errors", set()),
        ("edge/budget", {"service.edge.errors"}),
        ("edge/rooms", {"service.edge.budget"}),
        ("edge/requests", {"service.edge.wire"}),
        ("edge/rlimit", set()),
        ("edge/places", set()),
        ("edge/wire", {"service.edge.budget", "service.edge.places"}),
        ("admission", set()),
        ("warmup", {"service.generator", "service.spec"}),
        ("retries", set()),
        ("caller", set()),
        ("jobs", {"service.caller"}),
        ("lanes", {"service.generator", "service.jobs", "service.retries", "service.spec"}),
        (
            "scheduler",
            {f"service.{name}" for name in ("admission", "caller", "generator", "jobs", "lanes", "retries", "turns")},
        ),
        ("telemetry", set()),
        ("metrics", {"service.telemetry", "service.versions"}),
        ("logs", {"service.telemetry"}),
        ("tracing", {"service.telemetry", "service.versions"}),
        (
            "enhancer",
            {f"service.{name}" for name in ("codec", "scheduler", "spec", "telemetry", "tiling", "view")},
        ),
        (
            "evaluation",
            {f"service.{name}" for name in ("alignment", "caller", "codec", "pipeline", "quality", "schemas")}
            | {"service.telemetry"},
        ),
    ],
)
def test_the_core_imports_only_what_lies_below(module: str, allowed: set[str]) -> None:
    assert ours(PROJECT / "service" / f"{module}.py") <= allowed


@pytest.mark.parametrize("path", sorted((PROJECT / "service").rglob("*.py")), ids=lambda path: path.stem)
def test_only_the_command_imports_the_commands(path: Path) -> None:
    if path.name != "cli.py" and path.parent.name != "commands":
        assert not [name for name in ours(path) if name.startswith("service.commands")]


@pytest.mark.parametrize("path", sorted((PROJECT / "model_export").glob("*.py")), ids=lambda path: path.stem)
def test_the_offline_half_imports_only_pure_parts_of_the_service(path: Path) -> None:
    allowed = {"service.spec", "service.tiling", "service.quality", "service.generator", "service.alignment"}
    allowed |= {"service.model_files"}
    assert {name for name in ours(path) if name.startswith("service.")} <= allowed


@pytest.mark.parametrize(
    ("module", "allowed"),
    [
        ("kid", set()),
        ("features", set()),
        ("contenders", {"model_export.pairs"}),
        ("evaluate", {f"model_export.{name}" for name in ("contenders", "features", "kid", "pairs")}),
        ("score_inputs", {f"model_export.{name}" for name in ("contenders", "evaluate", "pairs")}),
        ("tables", {"model_export.evaluate"}),
        ("align", set()),
        ("patch_files", {"model_export.align", "model_export.pairs"}),
    ],
)
def test_scoring_and_cutting_import_only_what_lies_below(module: str, allowed: set[str]) -> None:
    imported = ours(PROJECT / "model_export" / f"{module}.py")
    assert {name for name in imported if name.startswith("model_export.")} <= allowed
