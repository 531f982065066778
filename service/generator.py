"""One ONNX Runtime session behind one call: tiles in, tiles out."""

import contextlib
import ctypes
import io
import logging
import math
import os
import sys
from pathlib import Path
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from service.spec import CONTEXT, TILE, ContractBroken, GeneratorSpec, read_spec

Device = Literal["auto", "cuda", "cpu"]

CUDA: Final = "CUDAExecutionProvider"
CPU: Final = "CPUExecutionProvider"

log = logging.getLogger(__name__)


class ModelUnusable(Exception):
    """A model file can't be loaded: missing, no ONNX file, or it breaks the contract; the message says which."""


class DeviceUnavailable(Exception):
    """The device that was asked for can't run a session here."""


class Generator:
    """A loaded generator.

    Attributes:
        spec: what the file says about itself.
        device: what the session really runs on, `cuda` or `cpu`, read back from it.
    """

    def __init__(self, path: Path, device: Device = "auto", threads: int = 0) -> None:
        """Load a file and check its contract.

        Args:
            path: the ONNX file.
            device: `auto` takes CUDA where it works and the CPU otherwise.
            threads: CPU threads of the session; 0 takes what the container may use.

        Raises:
            ModelUnusable: the file is missing, is no ONNX model, or breaks the contract.
            DeviceUnavailable: `device` is `cuda` and no session runs there.
        """
        if not path.is_file():
            raise ModelUnusable(f"{path} is missing")
        self._session = _open(path, device, threads)
        self.device: Literal["cuda", "cpu"] = "cuda" if self._session.get_providers()[0] == CUDA else "cpu"
        try:
            self.spec: GeneratorSpec = read_spec(
                self._session.get_inputs(),
                self._session.get_outputs(),
                self._session.get_modelmeta().custom_metadata_map,
            )
        except ContractBroken as error:
            raise ModelUnusable(f"{path} breaks the generator's contract: {error}") from error

    @property
    def provider(self) -> str:
        """The execution provider that the session runs on first, such as `CUDAExecutionProvider`."""
        return str(self._session.get_providers()[0])

    def __call__(
        self, tiles: npt.NDArray[np.uint8], context: npt.NDArray[np.uint8]
    ) -> npt.NDArray[np.float32] | npt.NDArray[np.float16]:
        """Enhance a batch.

        Args:
            tiles: uint8 (N, 128, 128, 3), RGB.
            context: uint8 (N, 32, 32, 3), RGB, the whole picture of each tile; not looked at by a generator
                without that input.

        Returns:
            float32 or float16 (N, 128, 128, 3), RGB in 0..1.
        """
        feeds = {"tiles": tiles, "context": context} if self.spec.takes_context else {"tiles": tiles}
        return self._session.run(["enhanced"], feeds)[0]  # type: ignore[no-any-return]

    def warm_up(self, batch: int) -> None:
        """Run one batch of that size, so that the first request finds everything allocated."""
        self(np.zeros((batch, TILE, TILE, 3), np.uint8), np.zeros((batch, CONTEXT, CONTEXT, 3), np.uint8))


def _open(path: Path, device: Device, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or cpu_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # a CUDA library that is missing is ours to say, in one line
    if device != "cpu" and CUDA in ort.get_available_providers() and _has_cuda_driver():
        try:
            # the libraries of the `cuda` extra lie in site-packages, where the loader does not look;
            # what preload_dlls can't find it prints, and standard output is not ours to write to
            with contextlib.redirect_stdout(io.StringIO()) as said:
                ort.preload_dlls(directory="")
            if said.getvalue():
                log.info("preloading CUDA libraries: %s", said.getvalue().strip())
            settings = {"cudnn_conv_algo_search": "HEURISTIC", "arena_extend_strategy": "kSameAsRequested"}
            session = ort.InferenceSession(path, options, providers=[(CUDA, settings), CPU])
            session.disable_fallback()
            if session.get_providers()[0] == CUDA or device == "auto":
                return session
        except Exception as error:  # noqa: BLE001  ORT raises types of its own C++ layer
            log.info("no CUDA session: %s", str(error).splitlines()[0])
    if device == "cuda":
        raise DeviceUnavailable("device is set to cuda, and ONNX Runtime can't start a CUDA session here")
    try:
        return ort.InferenceSession(path, options, providers=[CPU])
    except Exception as error:
        raise ModelUnusable(f"{path} is no ONNX model that can be loaded") from error


def _has_cuda_driver() -> bool:
    # asked first, since without a driver ONNX Runtime takes seconds to find out and writes errors to stderr
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True


def cpu_threads() -> int:
    """How many CPU threads this process may use: its affinity, or the container's quota where that is less."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(available, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no cgroup v2, or the quota is "max"
        return available
