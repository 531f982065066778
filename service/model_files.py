"""Model files: read once, and used only where their SHA-256 is listed in the folder's SHA256SUMS."""

import hashlib
import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from service.onnx_wire import Garbled, has_external_tensors

SUMS: Final = "SHA256SUMS"
"""The list in a folder of models; `sha256sum` writes and checks it."""

_OWN_FORMAT: Final = b"ORTM"
"""ONNX Runtime's own format has this there; it can name other files too, and no exporter of ours writes it."""

_LINE: Final = re.compile(r"([0-9a-fA-F]{64}) [ *](?:\./)?(.+)")


class ModelUnusable(Exception):
    """A model file can't be loaded: missing, no ONNX file, or it breaks the contract; the message says which."""


class ModelUntrusted(ModelUnusable):
    """A model file is not the one that its folder's list names, or there is none.

    Attributes:
        found: what is wrong, in one line.
        do: what to do about it, in one line.
    """

    def __init__(self, found: str, do: str) -> None:
        super().__init__(f"{found}; {do}")
        self.found = found
        self.do = do


@dataclass(frozen=True)
class ModelFile:
    """A file as it was read: what is loaded are these bytes, whatever becomes of the file.

    Attributes:
        path: where it lay.
        data: all of it.
        sha256: hash of `data`, in hex.
    """

    path: Path
    data: bytes
    sha256: str


def read_model(path: Path) -> ModelFile:
    """Read a model file.

    Raises:
        ModelUnusable: it is missing, can't be read, is no ONNX file, or keeps tensors in other files.
    """
    if not path.is_file():
        raise ModelUnusable(f"{path} is missing")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelUnusable(f"{path} can't be read: {error.strerror}") from error
    try:
        if data[4:8] == _OWN_FORMAT:
            raise ModelUnusable(f"{path} is in ONNX Runtime's own format, which is not read: export it as ONNX")
        if has_external_tensors(data):
            raise ModelUnusable(f"{path} keeps tensors in other files, which are not read: export it as one file")
    except Garbled:
        raise ModelUnusable(f"{path} is no ONNX model that can be loaded") from None
    return ModelFile(path, data, hashlib.sha256(data).hexdigest())


def find_models(folder: Path) -> dict[str, Path]:
    """List the model files of a folder by camera: CAMERA.onnx, in the order of their names.

    Raises:
        ModelUnusable: the folder can't be read.
    """
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise ModelUnusable(f"the models' folder {folder} can't be read: {error.strerror}") from error
    return {Path(name).stem: folder / name for name in names if name.endswith(".onnx") and not name.startswith(".")}


def read_sums(folder: Path) -> dict[str, str]:
    """Read a folder's list: SHA-256 in hex by file name.

    Raises:
        ModelUntrusted: there is no such list, or a line of it is none.
    """
    path = folder / SUMS
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        found = f"{path}, the list of the models to trust, can't be read: {error.strerror}"
        raise ModelUntrusted(found, _advice(folder, "*.onnx", ">")) from error
    sums = {}
    for number, line in enumerate(lines, 1):
        match = _LINE.fullmatch(line)
        if match is not None:
            sums[match[2]] = match[1].lower()
        elif line.strip() and not line.startswith("#"):
            found = f"line {number} of {path} is none that sha256sum writes"
            raise ModelUntrusted(found, _advice(folder, "*.onnx", ">"))
    return sums


def verify(model: ModelFile, sums: Mapping[str, str]) -> None:
    """Check a file that was read against its folder's list.

    Raises:
        ModelUntrusted: it is not listed, or with another hash.
    """
    expected = sums.get(model.path.name)
    listed = model.path.with_name(SUMS)
    if expected is None:
        advice = _advice(model.path.parent, shlex.quote(model.path.name), ">>")
        raise ModelUntrusted(f"{model.path} is not listed in {listed}", advice)
    if expected != model.sha256:
        found = f"{model.path} is not the file that {listed} lists: its SHA-256 is {model.sha256}"
        raise ModelUntrusted(found, f"put the right file there; {_advice(model.path.parent, '*.onnx', '>')}")


def record(path: Path) -> None:
    """Write a file's line into its folder's list, in place of one that it has; raises OSError."""
    folder, sums = path.parent, path.with_name(SUMS)
    kept = []
    if sums.exists():
        for line in sums.read_text(encoding="utf-8", errors="replace").splitlines():
            match = _LINE.fullmatch(line)
            if match is None or match[2] != path.name:
                kept.append(line)
    with path.open("rb") as file:
        kept.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {path.name}")
    partial = folder / f".{SUMS}.{os.getpid()}"
    partial.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
    partial.replace(sums)


def _advice(folder: Path, files: str, into: str) -> str:
    return f"if you trust it: (cd {shlex.quote(str(folder))} && sha256sum {files} {into} {SUMS})"
