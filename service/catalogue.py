"""Which generators there are, and which are loaded."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from service.generator import DeviceUnavailable, Generator
from service.model_files import ModelFile, ModelUnusable, find_models, read_model, read_sums, verify
from service.sessions import Device, GpuOptions, gpu_count

log = logging.getLogger(__name__)


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


def match_camera(camera: str, known: Sequence[str]) -> str | None:
    """Return which of some cameras is meant: that of this name, else the only one that differs in case alone."""
    if camera in known:
        return camera
    alike = [name for name in known if name.casefold() == camera.strip().casefold()]
    return alike[0] if len(alike) == 1 else None


class Stopped(Exception):
    """The generators were not loaded to the end: nobody needs them any more."""


class Catalogue:
    """The generators of one folder, each named by its camera: CAMERA.onnx; loaded once on each device.

    Attributes:
        default: the camera that is used where none is named.
        devices: names of the devices, such as `cpu`, or `cuda:0` and `cuda:1`.
    """

    def __init__(
        self,
        folder: Path,
        default: str,
        device: Device = "auto",
        threads: int = 0,
        gpu: GpuOptions | None = None,
        verified: bool = True,
        stopping: Callable[[], bool] = lambda: False,
        devices: int | None = 1,
    ) -> None:
        """Load every generator of the folder.

        Args:
            folder: where the ONNX files lie.
            default: the camera that is used where none is named.
            device, threads, gpu: as `Generator`.
            verified: whether a file must be listed with its hash in the folder's SHA256SUMS.
            stopping: asked before each file whether the rest is in vain.
            devices: how many devices: the first so many GPUs, or sessions on the CPU that stand for as many; None
                takes all GPUs, and the CPU once.

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
        self._hashes: dict[str, str] = {}
        self._bytes: dict[str, int] = {}
        models: dict[str, ModelFile] = {}
        for camera, path in files.items():
            model = models[camera] = read_model(path)
            if verified:
                verify(model, sums)
            self._hashes[camera] = model.sha256
            self._bytes[camera] = len(model.data)

        def load(device: Device, number: int) -> Mapping[str, Generator]:
            loaded = {}
            for camera, model in models.items():
                if stopping():
                    raise Stopped
                # from the bytes that were checked: the file may change meanwhile, and later
                loaded[camera] = Generator(model, device, threads, replace(gpu or GpuOptions(), number=number))
            return loaded

        self._loaded = [load(device, 0)]
        self.default = default
        kind = self[default].device
        wanted = devices or (gpu_count() if kind == "cuda" else 1)
        for number in range(1, wanted):
            try:
                self._loaded.append(load(kind, number))
            except DeviceUnavailable as error:
                if device == "cuda" and devices is not None:  # so many were asked for
                    raise
                log.warning("going on without GPU %d: %s", number, error)
        self.devices = tuple(f"{kind}:{number}" for number in range(len(self._loaded)))
        if kind == "cpu" and len(self.devices) == 1:
            self.devices = ("cpu",)

    def __getitem__(self, camera: str) -> Generator:
        """Return the generator of a camera, as it is loaded on the first device.

        Raises:
            UnknownCamera: there is none.
        """
        return self.on(0)(camera)

    def on(self, device: int) -> Callable[[str], Generator]:
        """Return what gives a camera's generator as it is loaded on a device; it raises as `[camera]` does."""
        loaded = self._loaded[device]

        def generator(camera: str) -> Generator:
            if camera not in loaded:
                raise UnknownCamera(camera, self.cameras)
            return loaded[camera]

        return generator

    def named(self, camera: str | None) -> str:
        """Return the name of a camera's generator as the catalogue has it; None and "" name the default.

        Raises:
            UnknownCamera: there is none.
        """
        if not camera:
            return self.default
        name = match_camera(camera, self.cameras)
        if name is None:
            raise UnknownCamera(camera, self.cameras)
        return name

    @property
    def cameras(self) -> tuple[str, ...]:
        """The cameras that there are generators for."""
        return tuple(self._loaded[0])

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
