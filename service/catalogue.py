"""Which generators there are, and which are loaded."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from service.generator import Generator, ModelUnusable
from service.sessions import Device, GpuOptions


class UnknownCamera(Exception):
    """No generator is loaded for that camera.

    Attributes:
        camera: what was asked for.
        known: what there is.
    """

    def __init__(self, camera: str, known: Sequence[str]) -> None:
        super().__init__(f"no generator for {camera!r}; there are {', '.join(known)}")
        self.camera = camera
        self.known = tuple(known)


class Catalogue:
    """The generators of one folder, each named by its camera: CAMERA.onnx."""

    def __init__(
        self,
        folder: Path,
        default: str,
        device: Device = "auto",
        threads: int = 0,
        gpu: GpuOptions | None = None,
    ) -> None:
        """Load every generator of the folder.

        Args:
            folder: where the ONNX files lie.
            default: the camera that is used where none is named.
            device, threads, gpu: as `Generator`.

        Raises:
            ModelUnusable: a file breaks the contract, or the default is not there.
            DeviceUnavailable: as `Generator`.
        """
        self._files = {path.stem: path for path in sorted(folder.glob("*.onnx"))}
        if default not in self._files:
            raise ModelUnusable(f"{folder / default}.onnx is missing, the generator that is used by default")
        gpu = gpu or GpuOptions()
        self._generators = {camera: Generator(path, device, threads, gpu) for camera, path in self._files.items()}
        self._hashes = {camera: hashlib.sha256(path.read_bytes()).hexdigest() for camera, path in self._files.items()}
        self.default = default

    def __getitem__(self, camera: str) -> Generator:
        """Return the generator of a camera.

        Raises:
            UnknownCamera: there is none.
        """
        if camera not in self._generators:
            raise UnknownCamera(camera, self.cameras)
        return self._generators[camera]

    @property
    def cameras(self) -> tuple[str, ...]:
        """The cameras that there are generators for."""
        return tuple(self._generators)

    def file_sha256(self, camera: str) -> str:
        """Hash of a camera's model file, weights and graph, as it was loaded.

        Raises:
            UnknownCamera: there is none.
        """
        if camera not in self._hashes:
            raise UnknownCamera(camera, self.cameras)
        return self._hashes[camera]

    def file_bytes(self, camera: str) -> int:
        """Size of a camera's model file in bytes."""
        return self._files[camera].stat().st_size
