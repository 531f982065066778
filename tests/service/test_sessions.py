"""The CPU's runner and the GPU's, the latter on buffers in the CPU's memory where there is no GPU."""

import threading
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pytest
from onnx import TensorProto

from service.sessions import (
    CUDA,
    TENSORRT,
    BoundRunner,
    DirectRunner,
    GpuOptions,
    NoGpuSession,
    _providers,
    open_on_cpu,
    open_on_gpu,
)
from service.settings import SHIPPED_MODELS
from tests.onnx_files import CONTEXT, write_generator

IPHONE = (SHIPPED_MODELS / "iphone.onnx").read_bytes()


@pytest.fixture(scope="module")
def session() -> ort.InferenceSession:
    return open_on_cpu(IPHONE, 1)


def feeds(count: int, seed: int = 0) -> dict[str, npt.NDArray[np.uint8]]:
    rng = np.random.default_rng(seed)
    return {
        "tiles": rng.integers(0, 256, (count, 128, 128, 3), np.uint8),
        "context": rng.integers(0, 256, (count, 32, 32, 3), np.uint8),
    }


def test_bound_buffers_answer_as_arrays_do(session: ort.InferenceSession) -> None:
    direct, bound = DirectRunner(session), BoundRunner(session, "cpu")
    for count, seed in ((1, 0), (3, 1), (1, 2), (3, 3)):
        np.testing.assert_array_equal(bound(feeds(count, seed)), direct(feeds(count, seed)))


def test_an_answer_outlives_the_next_batch(session: ort.InferenceSession) -> None:
    bound = BoundRunner(session, "cpu")
    first = bound(feeds(2, 0))
    kept = first.copy()
    bound(feeds(2, 1))
    np.testing.assert_array_equal(first, kept)


def test_threads_do_not_share_buffers(session: ort.InferenceSession) -> None:
    direct, bound = DirectRunner(session), BoundRunner(session, "cpu")
    expected = [direct(feeds(2, seed)) for seed in range(3)]
    wrong: list[int] = []

    def work(seed: int) -> None:
        wrong.extend(seed for _ in range(8) if not np.array_equal(bound(feeds(2, seed)), expected[seed]))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_half_precision_answers_are_half(tmp_path: Path) -> None:
    path = write_generator(tmp_path / "half.onnx", enhanced=("enhanced", TensorProto.FLOAT16, ["N", 128, 128, 3]))
    session = open_on_cpu(path.read_bytes(), 1)
    tiles = feeds(2)["tiles"]
    answer = BoundRunner(session, "cpu")({"tiles": tiles})
    assert answer.dtype == np.float16
    np.testing.assert_allclose(answer, tiles / 255, atol=1e-3)


def test_cuda_is_asked_for_as_set() -> None:
    (name, options), *rest = _providers(IPHONE, GpuOptions())
    assert (name, rest) == (CUDA, [])
    assert "enable_cuda_graph" not in options
    assert _providers(IPHONE, GpuOptions(graphs=True))[0][1]["enable_cuda_graph"] == "1"


def test_tensorrt_comes_first_with_profiles_of_the_files_own_inputs(tmp_path: Path) -> None:
    (first, options), (second, _) = _providers(IPHONE, GpuOptions(tensorrt_cache=tmp_path, largest_batch=32))
    assert (first, second) == (TENSORRT, CUDA)
    assert options["trt_engine_cache_path"] == str(tmp_path)
    assert options["trt_profile_min_shapes"] == "tiles:1x128x128x3,context:1x32x32x3"
    assert options["trt_profile_max_shapes"] == "tiles:32x128x128x3,context:32x32x32x3"
    alone = write_generator(tmp_path / "m.onnx")
    options = _providers(alone.read_bytes(), GpuOptions(tensorrt_cache=tmp_path))[0][1]
    assert options["trt_profile_min_shapes"] == "tiles:1x128x128x3"
    with_context = write_generator(tmp_path / "c.onnx", context=CONTEXT)
    assert (
        "context"
        in _providers(with_context.read_bytes(), GpuOptions(tensorrt_cache=tmp_path))[0][1]["trt_profile_min_shapes"]
    )


@pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="this machine has the GPU that the test wants missing")
def test_without_a_gpu_it_is_said_why() -> None:
    with pytest.raises(NoGpuSession, match=r"driver|CUDA"):
        open_on_gpu(IPHONE, 1, GpuOptions())
