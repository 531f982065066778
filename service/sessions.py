"""ONNX Runtime sessions and how they are run: one way for the CPU, one for CUDA and TensorRT."""

import contextlib
import ctypes
import io
import logging
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

CPU: Final = "CPUExecutionProvider"
CUDA: Final = "CUDAExecutionProvider"
TENSORRT: Final = "TensorrtExecutionProvider"

Device = Literal["auto", "cuda", "cpu"]
Answer = npt.NDArray[np.float32] | npt.NDArray[np.float16]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class GpuOptions:
    """Which GPU a session runs on, and what it may use beyond the ordinary.

    Attributes:
        number: of the GPU, from 0, among those that CUDA shows.
        graphs: replay a recorded CUDA graph for each batch size. Only one batch can then run at a time.
        tensorrt_cache: folder for TensorRT's engines; None leaves TensorRT out. The first start builds them, which
            takes minutes.
        largest_batch: TensorRT's engines are built for batches of 1 up to so many tiles.
    """

    number: int = 0
    graphs: bool = False
    tensorrt_cache: Path | None = None
    largest_batch: int = 64


_FIRST: Final = GpuOptions()


class NoGpuSession(Exception):
    """No session runs on a GPU here; the message says why."""


def open_on_cpu(model: bytes, threads: int) -> ort.InferenceSession:
    """Open a session on the CPU; raises whatever ONNX Runtime raises for a model that it can't load."""
    return ort.InferenceSession(model, _options(threads), providers=[CPU])


def open_on_gpu(model: bytes, threads: int, gpu: GpuOptions) -> ort.InferenceSession:
    """Open a session on an NVIDIA GPU.

    Args:
        model: the ONNX file's bytes. TensorRT gets them too; its engines lie in files, in the folder of `gpu`.
        threads: CPU threads for what is left to the CPU.
        gpu: what it may use.

    Raises:
        NoGpuSession: there is no driver or GPU, or a library is missing.
    """
    if CUDA not in ort.get_available_providers():
        raise NoGpuSession("this build of ONNX Runtime has no CUDA")
    # asked first, since without a driver ONNX Runtime takes seconds to find out and writes errors to stderr
    if _driver() is None:
        raise NoGpuSession("there is no NVIDIA driver")
    try:
        # the libraries of the `cuda` extra lie in site-packages, where the loader does not look;
        # what preload_dlls can't find it prints, and standard output is not ours to write to
        with contextlib.redirect_stdout(io.StringIO()) as said:
            ort.preload_dlls(directory="")
        if said.getvalue():
            log.info("preloading CUDA libraries: %s", said.getvalue().strip())
        session = ort.InferenceSession(model, _options(threads), providers=[*_providers(model, gpu), CPU])
        session.disable_fallback()
    except Exception as error:  # ORT raises types of its own C++ layer
        raise NoGpuSession(str(error).splitlines()[0]) from error
    if session.get_providers()[0] == CPU:
        raise NoGpuSession("ONNX Runtime fell back to the CPU")
    return session


def _options(threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # a CUDA library that is missing is ours to say, in one line
    return options


def _providers(model: bytes, gpu: GpuOptions) -> list[tuple[str, dict[str, Any]]]:
    cuda: dict[str, Any] = {
        "device_id": str(gpu.number),
        "cudnn_conv_algo_search": "HEURISTIC",
        "arena_extend_strategy": "kSameAsRequested",
    }
    if gpu.graphs:
        cuda["enable_cuda_graph"] = "1"
    providers: list[tuple[str, dict[str, Any]]] = [(CUDA, cuda)]
    if gpu.tensorrt_cache is not None:
        inputs = open_on_cpu(model, 1).get_inputs()
        cache = {"enable": "1", "path": str(gpu.tensorrt_cache)}
        tensorrt: dict[str, Any] = {"device_id": str(gpu.number)}
        tensorrt |= {f"trt_{kind}_cache_{key}": value for kind in ("engine", "timing") for key, value in cache.items()}
        for profile, batch in (("min", 1), ("opt", gpu.largest_batch), ("max", gpu.largest_batch)):
            tensorrt[f"trt_profile_{profile}_shapes"] = ",".join(
                f"{each.name}:{'x'.join(str(side) for side in (batch, *each.shape[1:]))}" for each in inputs
            )
        providers.insert(0, (TENSORRT, tensorrt))
    return providers


def _driver() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return None


def gpu_count() -> int:
    """How many GPUs the NVIDIA driver shows this process, after CUDA_VISIBLE_DEVICES; 0 where there is no driver."""
    driver, count = _driver(), ctypes.c_int(0)
    if driver is None or driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


class DirectRunner:
    """Runs a session on arrays as they come; on a CPU it reads them where they lie. Safe from any thread."""

    def __init__(self, session: ort.InferenceSession) -> None:
        self._session = session

    def __call__(self, feeds: dict[str, npt.NDArray[np.uint8]]) -> Answer:
        """Run one batch: uint8 arrays by input name -> the first output."""
        return self._session.run(None, feeds)[0]  # type: ignore[no-any-return]


class BoundRunner:
    """Runs a session on buffers that stay on the device, one set for each thread and batch size.

    So nothing is allocated for a batch, and two threads have two batches in flight: one is brought or fetched while
    the other is computed.
    """

    def __init__(self, session: ort.InferenceSession, device: Literal["cuda", "cpu"], gpu: GpuOptions = _FIRST) -> None:
        """Prepare to run.

        Args:
            session: with one output of the shape of its input `tiles`.
            device: where the buffers go.
            gpu: its number; and whether each batch size gets its own CUDA graph.
        """
        self._session = session
        self._device = device
        self._graphs = gpu.graphs
        self._number = gpu.number
        # a recorded graph replays on the buffers that it was recorded with, whichever thread asks
        self._own: Any = SimpleNamespace() if gpu.graphs else threading.local()
        self._output = session.get_outputs()[0]

    def __call__(self, feeds: dict[str, npt.NDArray[np.uint8]]) -> Answer:
        """Run one batch: uint8 arrays by input name -> the output, in memory of its own."""
        count = len(feeds["tiles"])
        bound: dict[int, _Bound] = self._own.__dict__.setdefault("bound", {})
        if count not in bound:
            bound[count] = self._bind(feeds)
        buffers = bound[count]
        for name, value in buffers.inputs.items():
            value.update_inplace(feeds[name])
        self._session.run_with_iobinding(buffers.binding, buffers.options)
        answer: Answer = buffers.output.numpy()
        return answer.copy() if self._device == "cpu" else answer  # there it is the buffer itself

    def _bind(self, feeds: dict[str, npt.NDArray[np.uint8]]) -> "_Bound":
        binding = self._session.io_binding()
        inputs = {}
        for name, array in feeds.items():
            value = ort.OrtValue.ortvalue_from_shape_and_type(array.shape, np.uint8, self._device, self._number)
            binding.bind_ortvalue_input(name, value)
            inputs[name] = value
        kind = np.float16 if self._output.type == "tensor(float16)" else np.float32
        output = ort.OrtValue.ortvalue_from_shape_and_type(feeds["tiles"].shape, kind, self._device, self._number)
        binding.bind_ortvalue_output(self._output.name, output)
        options = None
        if self._graphs:
            options = ort.RunOptions()
            options.add_run_config_entry("gpu_graph_id", str(len(feeds["tiles"])))
        return _Bound(binding, inputs, output, options)


@dataclass(frozen=True)
class _Bound:
    binding: Any
    inputs: dict[str, Any]
    output: Any
    options: Any
