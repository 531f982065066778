"""Which generators there are, and which are loaded."""

from collections.abc import Callable, Sequence
from pathlib import Path

from service.generator import Generator
from service.model_files import ModelUnusable, find_models, read_model, read_sums, verify
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


class Stopped(Exception):
    """The generators were not loaded to the end: nobody needs them any more."""


class Catalogue:
    """The generators of one folder, each named by its camera: CAMERA.onnx."""

    def __init__(
        self,
        folder: Path,
        default: str,
        device: Device = "auto",
        threads: int = 0,
        gpu: GpuOptions | None = None,
        verified: bool = True,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        """Load every generator of the folder.

        Args:
            folder: where the ONNX files lie.
            default: the camera that is used where none is named.
            device, threads, gpu: as `Generator`.
            verified: whether a file must be listed with its hash in the folder's SHA256SUMS.
            stopping: asked before each file whether the rest is in vain.

        Raises:
            ModelUnusable: a file breaks the contract, or the default is not there.
            ModelUntrusted: a file is not listed, or with another hash.
            DeviceUnavailable: as `Generator`.
            Stopped: loading was in vain.
        """
        files = find_models(folder)
        if default not in files:
            raise ModelUnusable(f"{folder / default}.onnx is missing, the generator that is used by default")
        sums = read_sums(folder) if verified else {}
        self._generators: dict[str, Generator] = {}
        self._hashes: dict[str, str] = {}
        self._bytes: dict[str, int] = {}
        for camera, path in files.items():
            if stopping():
                raise Stopped
            model = read_model(path)
            if verified:
                verify(model, sums)
            # from the bytes that were checked: the file may change meanwhile, and later
            self._generators[camera] = Generator(model, device, threads, gpu or GpuOptions())
            self._hashes[camera] = model.sha256
            self._bytes[camera] = len(model.data)
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
        """Size of a camera's model file in bytes, as it was loaded."""
        return self._bytes[camera]
