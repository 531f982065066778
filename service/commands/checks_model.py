"""What `pix2dslr doctor` asks of the generators: contract, hashes, a finite answer, and how fast they are here."""

import base64
import importlib.metadata
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np

from service.codec import Header, Picture, encode
from service.commands.checks import Check
from service.commands.parallel import default_jobs
from service.generator import Generator
from service.model_files import ModelUntrusted, ModelUnusable, find_models, read_model, read_sums, verify
from service.settings import SHIPPED_MODELS, Settings
from service.spec import CONTEXT, TILE
from service.state import State
from service.telemetry import Stopwatch

_TEST_SIDE: Final = 1024
_TEST_S: Final = 2.0


def models(settings: Settings) -> Iterator[Check]:
    """Look at every generator: contract, hashes, and an answer."""
    folder = settings.models
    try:
        files = find_models(folder)
        sums = read_sums(folder) if settings.verify_models and files else None
    except ModelUntrusted as error:
        yield Check("models", "problem", error.found, error.do)
        return
    except ModelUnusable as error:
        yield Check("models", "problem", str(error), "name the folder of the generators in PIX2DSLR_MODELS")
        return
    if settings.camera not in files:
        there = ", ".join(files) or "none"
        advice = "name the folder of the generators in PIX2DSLR_MODELS, or one that is there in PIX2DSLR_CAMERA"
        yield Check("model " + settings.camera, "problem", f"it is not in {folder}; there: {there}", advice)
    for file in files.values():
        yield _model(file, sums)


def _model(file: Path, sums: Mapping[str, str] | None) -> Check:
    name = f"model {file.stem}"
    try:
        model = read_model(file)
        if sums is not None:
            verify(model, sums)
        generator = Generator(model, "cpu", 1)
    except ModelUntrusted as error:
        return Check(name, "problem", error.found, error.do)
    except ModelUnusable as error:
        # nothing starts with a broken file in the folder
        return Check(name, "problem", str(error), f"put a whole file there, or remove {file.name}")
    spec = generator.spec
    details = {"file": str(file), "file_sha256": model.sha256, "verified": sums is not None, **spec.metadata()}
    if _installed_sha256(file) not in (None, model.sha256):
        advice = "install pix2dslr again"
        return Check(name, "problem", "the file is not the one that was installed", advice, details)
    rng = np.random.default_rng(0)
    tiles = rng.integers(0, 256, (2, TILE, TILE, 3), np.uint8)
    contexts = rng.integers(0, 256, (2, CONTEXT, CONTEXT, 3), np.uint8)
    answer = generator(tiles, contexts)
    if not (np.isfinite(answer).all() and answer.min() >= -1e-3 and answer.max() <= 1.001):
        advice = "its weights are damaged: export it again, or put another there"
        return Check(name, "problem", "it answers values that are no colours", advice, details)
    trusted = "is the file that SHA256SUMS lists" if sums is not None else "is not checked against SHA256SUMS"
    weights = f"{spec.architecture}, weights {spec.weights_sha256[:12]}"
    line = f"{trusted}, keeps the contract, answers finite colours; {weights}"
    return Check(name, "ok", line, details=details)


def _installed_sha256(file: Path) -> str | None:
    """The hash that the installed package's RECORD gives a shipped file; None where it gives none."""
    if file.parent.resolve() != SHIPPED_MODELS.resolve():
        return None
    try:
        files = importlib.metadata.files("pix2dslr") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    for entry in files:
        if entry.name == file.name and entry.hash is not None and Path(str(entry.locate())).resolve() == file.resolve():
            return base64.urlsafe_b64decode(entry.hash.value + "==").hex()
    return None


def self_test(settings: Settings) -> Check:
    """Enhance pictures as `pix2dslr enhance` does, files to files, for about two seconds."""
    state = State(settings)
    try:
        start = time.perf_counter()
        state.start()
        ready = time.perf_counter() - start
        if state.failure is not None:
            return Check("self-test", "problem", f"it does not start: {state.failure}", "see above")
        return _timed(state, ready)
    finally:
        state.stop()


def _timed(state: State, ready: float) -> Check:
    pipeline, generator = state.pipeline, state.catalogue[state.catalogue.default]
    ramp = np.add.outer(np.arange(_TEST_SIDE), np.arange(_TEST_SIDE))[:, :, None] // np.array([8, 10, 12])
    noise = np.random.default_rng(0).integers(0, 24, (_TEST_SIDE, _TEST_SIDE, 3))
    file = encode(Picture((ramp + noise).clip(0, 255).astype(np.uint8), Header("jpeg", _TEST_SIDE, _TEST_SIDE)), "jpeg")

    def enhance(_: int) -> int:
        ticket = pipeline.admit(file)
        with ticket.job:
            outcome = pipeline.enhance(ticket, Stopwatch())
        encode(outcome.enhancement.picture, "jpeg", spend=True)
        return outcome.enhancement.tiles

    jobs = default_jobs()
    pictures = tiles = 0
    with ThreadPoolExecutor(jobs) as pool:
        start = time.perf_counter()
        while (seconds := time.perf_counter() - start) < _TEST_S:
            tiles += sum(pool.map(enhance, range(jobs)))
            pictures += jobs
    megapixels = pictures * _TEST_SIDE**2 / 1e6
    details = {
        "device": generator.device,
        "provider": generator.provider,
        "seconds_to_start": round(ready, 2),
        "tiles_per_second": round(tiles / seconds, 1),
        "ms_per_megapixel": round(seconds * 1000 / megapixels, 1),
        "megapixels": round(megapixels, 1),
    }
    line = (
        f"{details['tiles_per_second']:.0f} tiles/s, {details['ms_per_megapixel']:.0f} ms a megapixel from file "
        f"to file on {generator.provider}; ready after {ready:.1f} s"
    )
    return Check("self-test", "ok", line, details=details)
