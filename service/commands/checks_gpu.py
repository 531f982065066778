"""What `pix2dslr doctor` asks of a GPU: the driver, NVIDIA's libraries, what a session really runs on."""

from collections.abc import Iterator
from typing import Final

import onnxruntime as ort

from service.commands import gpu
from service.commands.checks import Check, Status
from service.model_files import ModelUnusable, read_model, read_sums, verify
from service.sessions import CPU, CUDA, TENSORRT, GpuOptions, NoGpuSession, open_on_gpu
from service.settings import Settings

_CUDA_EXTRA: Final = "install the extra cuda: pip install --require-hashes -r requirements/cuda.txt"


def graphics(settings: Settings) -> Iterator[Check]:
    """Look at the driver, at the libraries that this ONNX Runtime needs, and at what really starts."""
    driver = gpu.driver()
    asked: Status = "problem" if settings.device == "cuda" else "note"
    if driver is None or not driver.gpus:
        # nothing to complain about on a machine that is meant to have none
        status: Status = "problem" if settings.device == "cuda" else "ok"
        missing = "there is no NVIDIA driver" if driver is None else "the NVIDIA driver reaches no GPU"
        advice = "install the driver, or pass the GPU to the container (docker: --gpus all)" if status != "ok" else ""
        yield Check("gpu", status, missing, advice, {"driver_cuda": driver and driver.cuda, "gpus": []})
    else:
        named = ", ".join(f"{name} ({size:.0f} GiB)" for name, size in driver.gpus)
        details = {"driver_cuda": driver.cuda, "gpus": [{"name": n, "gib": round(s, 1)} for n, s in driver.gpus]}
        yield Check("gpu", "ok", f"{named}; its driver runs CUDA up to {driver.cuda}", details=details)
    wanted = settings.device != "cpu" and driver is not None and bool(driver.gpus)
    for provider, needs in (("cuda", wanted or settings.device == "cuda"), ("tensorrt", _asks_tensorrt(settings))):
        yield _libraries(provider, asked if needs else "ok")
    yield _providers(settings, asked if wanted or settings.device == "cuda" else "ok")


def _asks_tensorrt(settings: Settings) -> bool:
    return settings.tensorrt_cache is not None and settings.device != "cpu"


def _libraries(provider: str, otherwise: Status) -> Check:
    found = gpu.libraries(provider)
    name, missing = f"{provider} libraries", [library for library, there in found.items() if not there]
    details = {"needed": found}
    if not found:
        line = f"this build of ONNX Runtime has no {provider}"
        return Check(name, otherwise, line, "install onnxruntime-gpu" if otherwise != "ok" else "", details)
    if not missing:
        return Check(name, "ok", f"all {len(found)} are found: {', '.join(found)}", details=details)
    line = f"{len(found) - len(missing)} of {len(found)} are found; missing: {', '.join(missing)}"
    if otherwise == "ok":
        return Check(name, "ok", line + " (nothing here needs them)", details=details)
    advice = _CUDA_EXTRA if provider == "cuda" else "install TensorRT 10, or leave PIX2DSLR_TENSORRT_CACHE out"
    return Check(name, otherwise, line, advice, details)


def _providers(settings: Settings, otherwise: Status) -> Check:
    """Open a session on each device, and say what it really runs on."""
    built = ort.get_available_providers()
    usable, why = [CPU], ""
    file = settings.models / f"{settings.camera}.onnx"
    if settings.device != "cpu" and file.is_file():
        try:
            model = read_model(file)
            if settings.verify_models:
                verify(model, read_sums(settings.models))
            usable = list(open_on_gpu(model.data, 1, GpuOptions()).get_providers())
        except (ModelUnusable, NoGpuSession) as error:
            why = str(error)
    details = {"built_in": built, "usable": usable, "cuda_fails_with": why}
    # TensorRT is tried by the self-test, where it is asked for: it takes minutes
    unusable = [name for name in built if name not in (*usable, TENSORRT)]
    line = f"{', '.join(usable)} can be used"
    if unusable:
        line += f"; {', '.join(unusable)} can't: {why or 'not asked for'}"
    if CUDA in usable or otherwise == "ok":
        return Check("providers", "ok", line, details=details)
    advice = "see the libraries and the driver above, or set PIX2DSLR_DEVICE=cpu"
    return Check("providers", otherwise, line, advice, details)
