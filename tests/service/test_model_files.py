import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from service.catalogue import Catalogue
from service.generator import Generator
from service.model_files import (
    SUMS,
    ModelUntrusted,
    ModelUnusable,
    find_models,
    read_model,
    read_sums,
    record,
    verify,
)
from service.onnx_wire import Garbled, has_external_tensors
from service.settings import SHIPPED_MODELS
from tests.onnx_files import write_generator


def sha256sum_agrees(folder: Path) -> bool:
    if shutil.which("sha256sum") is None:
        pytest.skip("sha256sum is not installed (Debian: coreutils)")
    check = ["sha256sum", "--check", "--strict", "--quiet", SUMS]
    return subprocess.run(check, cwd=folder, capture_output=True).returncode == 0


def test_the_shipped_files_are_listed() -> None:
    assert read_sums(SHIPPED_MODELS).keys() == {path.name for path in SHIPPED_MODELS.glob("*.onnx")}
    for path in find_models(SHIPPED_MODELS).values():
        verify(read_model(path), read_sums(SHIPPED_MODELS))
    assert sha256sum_agrees(SHIPPED_MODELS)


def test_a_line_is_added_and_replaced(tmp_path: Path) -> None:
    for name in ("b.onnx", "a.onnx", "b.onnx"):
        (tmp_path / name).write_bytes(os.urandom(9))
        record(tmp_path / name)
        assert sha256sum_agrees(tmp_path)
    assert list(read_sums(tmp_path)) == ["a.onnx", "b.onnx"]
    assert {path.name for path in tmp_path.iterdir()} == {"a.onnx", "b.onnx", SUMS}


def test_a_list_is_read_as_sha256sum_writes_it(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"").hexdigest()
    lines = [f"{digest}  plain.onnx", f"{digest.upper()} *binary.onnx", f"{digest}  ./from-find.onnx", "", "# by hand"]
    (tmp_path / SUMS).write_text("\n".join(lines))
    assert read_sums(tmp_path) == dict.fromkeys(("plain.onnx", "binary.onnx", "from-find.onnx"), digest)


@pytest.mark.parametrize("line", ["iphone.onnx", "0" * 63 + "  iphone.onnx", "0" * 64 + " iphone.onnx", "<<<<<<< HEAD"])
def test_a_list_that_is_none_is_refused(tmp_path: Path, line: str) -> None:
    write_generator(tmp_path / "iphone.onnx")
    (tmp_path / SUMS).write_text(f"\n{line}\n")
    with pytest.raises(ModelUntrusted, match=rf"line 2 of .*{SUMS} is none that sha256sum writes"):
        Catalogue(tmp_path, "iphone", device="cpu")


def not_listed(folder: Path) -> None:
    (folder / SUMS).write_text("")


def no_list(folder: Path) -> None:
    (folder / SUMS).unlink()


def changed(folder: Path) -> None:
    listed = (folder / SUMS).read_text()
    write_generator(folder / "iphone.onnx", invert=True)
    (folder / SUMS).write_text(listed)


def one_byte_more(folder: Path) -> None:
    with (folder / "iphone.onnx").open("ab") as file:
        file.write(b"\0")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (not_listed, "is not listed in"),
        (no_list, "the list of the models to trust, can't be read: No such file or directory"),
        (changed, "is not the file that"),
    ],
)
def test_what_is_not_listed_is_refused_with_what_to_do(
    tmp_path: Path, damage: Callable[[Path], None], words: str
) -> None:
    folder = tmp_path / "my models"
    folder.mkdir()
    write_generator(folder / "iphone.onnx")
    Catalogue(folder, "iphone", device="cpu")
    damage(folder)
    with pytest.raises(ModelUntrusted, match=words) as refused:
        Catalogue(folder, "iphone", device="cpu")
    assert "\n" not in str(refused.value)
    Catalogue(folder, "iphone", device="cpu", verified=False)
    advice = refused.value.do
    subprocess.run(["sh", "-c", advice[advice.index("(") :]], check=True)
    Catalogue(folder, "iphone", device="cpu")


def test_a_file_that_grew_by_a_byte_is_refused(tmp_path: Path) -> None:
    path = write_generator(tmp_path / "iphone.onnx")
    one_byte_more(tmp_path)
    assert hashlib.sha256(path.read_bytes()).hexdigest() != read_sums(tmp_path)["iphone.onnx"]
    with pytest.raises(ModelUnusable):
        Catalogue(tmp_path, "iphone", device="cpu")


def test_what_was_read_is_what_is_loaded(tmp_path: Path) -> None:
    path = write_generator(tmp_path / "iphone.onnx")
    model = read_model(path)
    verify(model, read_sums(tmp_path))
    write_generator(path, invert=True)
    black = np.zeros((1, 128, 128, 3), np.uint8), np.zeros((1, 32, 32, 3), np.uint8)
    assert Generator(model, "cpu", 1)(*black).max() == 0
    assert Generator(path, "cpu", 1)(*black).min() == 1


def test_a_folder_that_can_not_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelUnusable, match="gone can't be read: No such file or directory"):
        Catalogue(tmp_path / "gone", "iphone", device="cpu")


def outside(location: str = "../../../etc/passwd") -> TensorProto:
    tensor = numpy_helper.from_array(np.array(255, np.float32), "scale")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


def in_initializer(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].CopyFrom(outside())


def in_memory(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].CopyFrom(outside("*/_ORT_MEM_ADDR_/*"))


def in_constant(model: onnx.ModelProto) -> None:
    model.graph.node.insert(0, helper.make_node("Constant", [], ["unused"], value=outside()))


def in_branch(model: onnx.ModelProto) -> None:
    branch = helper.make_graph([], "branch", [], [helper.make_tensor_value_info("scale", 1, [])], [outside()])
    inner = helper.make_graph([helper.make_node("If", ["x"], ["y"], then_branch=branch)], "outer", [], [])
    model.graph.node.append(helper.make_node("Loop", ["", ""], ["unused"], body=inner))


def in_function(model: onnx.ModelProto) -> None:
    node = helper.make_node("Constant", [], ["y"], value=outside())
    model.functions.append(helper.make_function("ours", "f", [], ["y"], [node], []))


def in_sparse(model: onnx.ModelProto) -> None:
    indices = numpy_helper.from_array(np.array([0]), "indices")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(outside(), indices, [1]))


def named_but_not_flagged(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].external_data.add(key="location", value="weights.bin")


@pytest.mark.parametrize(
    "change", [in_initializer, in_memory, in_constant, in_branch, in_function, in_sparse, named_but_not_flagged]
)
def test_tensors_in_other_files_are_refused(tmp_path: Path, change: Callable[[onnx.ModelProto], None]) -> None:
    path = write_generator(tmp_path / "iphone.onnx")
    model = onnx.load(path)
    change(model)
    path.write_bytes(model.SerializeToString())
    record(path)
    with pytest.raises(ModelUnusable, match="keeps tensors in other files"):
        Catalogue(tmp_path, "iphone", device="cpu")
    with pytest.raises(ModelUnusable, match="keeps tensors in other files"):
        Generator(path, device="cpu")


def test_onnxs_own_way_to_write_them_is_refused(tmp_path: Path) -> None:
    model = onnx.load(SHIPPED_MODELS / "iphone.onnx")
    onnx.save(model, tmp_path / "iphone.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert (tmp_path / "weights.bin").exists()
    with pytest.raises(ModelUnusable, match="keeps tensors in other files"):
        read_model(tmp_path / "iphone.onnx")


def test_onnx_runtimes_own_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "iphone.onnx").write_bytes(b"\x18\0\0\0ORTM" + bytes(100))
    with pytest.raises(ModelUnusable, match="own format"):
        read_model(tmp_path / "iphone.onnx")


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_garbled(data: bytes) -> None:
    try:
        assert has_external_tensors(data) in (True, False)
    except Garbled:
        pass


@given(st.integers(0, 2000))
def test_a_model_that_was_cut_off_is_garbled_or_has_no_such_tensors(cut: int) -> None:
    data = (SHIPPED_MODELS / "iphone.onnx").read_bytes()[: cut * cut]
    try:
        assert not has_external_tensors(data)
    except Garbled:
        pass
