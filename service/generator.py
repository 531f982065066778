"""One ONNX Runtime session behind one call: tiles in, tiles out."""

import logging
import math
import os
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from service.model_files import ModelFile, ModelUnusable, read_model
from service.sessions import (
    CPU,
    Answer,
    BoundRunner,
    Device,
    DirectRunner,
    GpuOptions,
    NoGpuSession,
    open_on_cpu,
    open_on_gpu,
)
from service.spec import CONTEXT, TILE, ContractBroken, GeneratorSpec, read_spec

_PLAIN = GpuOptions()

log = logging.getLogger(__name__)


class DeviceUnavailable(Exception):
    """The device that was asked for can't run a session here."""


class Generator:
    """A loaded generator.

    Attributes:
        spec: what the file says about itself.
        device: what the session really runs on, `cuda` or `cpu`, read back from it.
    """

    def __init__(
        self, model: Path | ModelFile, device: Device = "auto", threads: int = 0, gpu: GpuOptions = _PLAIN
    ) -> None:
        """Load a file and check its contract.

        Args:
            model: the ONNX file; one that was read already is used as it was then.
            device: `auto` takes CUDA where it works and the CPU otherwise.
            threads: CPU threads of the session; 0 takes what the container may use.
            gpu: which GPU, and what its session may use.

        Raises:
            ModelUnusable: the file is missing, is no ONNX model, or breaks the contract.
            DeviceUnavailable: `device` is `cuda` and no session runs there.
        """
        if isinstance(model, Path):
            model = read_model(model)
        self._session = _open(model, device, threads or cpu_threads(), gpu)
        self.device: Literal["cuda", "cpu"] = "cpu" if self._session.get_providers()[0] == CPU else "cuda"
        try:
            self.spec: GeneratorSpec = read_spec(
                self._session.get_inputs(),
                self._session.get_outputs(),
                self._session.get_modelmeta().custom_metadata_map,
            )
        except ContractBroken as error:
            raise ModelUnusable(f"{model.path} breaks the generator's contract: {error}") from error
        self._run = (
            DirectRunner(self._session) if self.device == "cpu" else BoundRunner(self._session, self.device, gpu)
        )

    @property
    def provider(self) -> str:
        """The execution provider that the session runs on first, such as `CUDAExecutionProvider`."""
        return str(self._session.get_providers()[0])

    def __call__(self, tiles: npt.NDArray[np.uint8], context: npt.NDArray[np.uint8]) -> Answer:
        """Enhance a batch.

        Args:
            tiles: uint8 (N, 128, 128, 3), RGB.
            context: uint8 (N, 32, 32, 3), RGB, the whole picture of each tile; not looked at by a generator
                without that input.

        Returns:
            float32 or float16 (N, 128, 128, 3), RGB in 0..1.
        """
        feeds = {"tiles": tiles, "context": context} if self.spec.takes_context else {"tiles": tiles}
        return self._run(feeds)

    def warm_up(self, batch: int) -> None:
        """Run one batch of that size, so that the first request finds everything allocated."""
        self(np.zeros((batch, TILE, TILE, 3), np.uint8), np.zeros((batch, CONTEXT, CONTEXT, 3), np.uint8))


def _open(model: ModelFile, device: Device, threads: int, gpu: GpuOptions) -> ort.InferenceSession:
    if device != "cpu":
        try:
            return open_on_gpu(model.data, threads, gpu)
        except NoGpuSession as error:
            log.info("no GPU session: %s", error)
            if device == "cuda":
                raise DeviceUnavailable(f"device is set to cuda, and no session starts there: {error}") from error
    try:
        return open_on_cpu(model.data, threads)
    except Exception as error:
        raise ModelUnusable(f"{model.path} is no ONNX model that can be loaded") from error


def cpu_threads() -> int:
    """How many CPU threads this process may use: its affinity, or the container's quota where that is less."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(available, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no cgroup v2, or the quota is "max"
        return available
