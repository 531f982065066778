"""What there is of NVIDIA's driver, GPUs and libraries on Linux, asked without starting a session."""

import contextlib
import ctypes
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import onnxruntime as ort
from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile

LOADED_LATER: Final = {"cuda": ("libcudnn.so.9",), "tensorrt": ()}
"""Libraries that a provider opens by itself at its first convolution, so that its file does not name them."""


@dataclass(frozen=True)
class Driver:
    """NVIDIA's driver.

    Attributes:
        cuda: the newest CUDA that it runs, such as 13.0.
        gpus: name and GiB of memory of each GPU.
    """

    cuda: str
    gpus: tuple[tuple[str, float], ...]


def driver() -> Driver | None:
    """Ask the driver; None where there is none.

    Source: CUDA Driver API, "Initialization", "Version Management" and "Device Management".
    """
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    version, count = ctypes.c_int(), ctypes.c_int()
    library.cuDriverGetVersion(ctypes.byref(version))
    # it fails where the driver is installed and no GPU can be reached
    if library.cuInit(0) != 0 or library.cuDeviceGetCount(ctypes.byref(count)) != 0:
        count.value = 0
    gpus = []
    for number in range(count.value):
        device, name, memory = ctypes.c_int(), ctypes.create_string_buffer(128), ctypes.c_size_t()
        library.cuDeviceGet(ctypes.byref(device), number)
        library.cuDeviceGetName(name, len(name), device)
        library.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
        gpus.append((name.value.decode(errors="replace"), memory.value / 2**30))
    return Driver(f"{version.value // 1000}.{version.value % 1000 // 10}", tuple(gpus))


def libraries(provider: str) -> dict[str, bool]:
    """Return which of NVIDIA's libraries a provider of this ONNX Runtime needs, and whether each can be loaded.

    Args:
        provider: `cuda` or `tensorrt`.

    Returns:
        Empty where this build has no such provider.
    """
    path = Path(ort.__file__).parent / "capi" / f"libonnxruntime_providers_{provider}.so"
    if not path.is_file():
        return {}
    # those of the `cuda` extra lie in site-packages, where the loader does not look; what it misses it prints
    with contextlib.redirect_stdout(io.StringIO()):
        ort.preload_dlls(directory="")
    names = [*needed(path), *LOADED_LATER[provider]]
    # libcuda is the driver's own
    return {name: _loads(name) for name in names if re.match(r"lib(cu(?!da\.)|nv)", name)}


def needed(library: Path) -> list[str]:
    """Return the libraries that an ELF file names as needed (System V ABI, DT_NEEDED)."""
    with library.open("rb") as file:
        sections = [section for section in ELFFile(file).iter_sections() if isinstance(section, DynamicSection)]
        tags = [tag for section in sections for tag in section.iter_tags("DT_NEEDED")]
        return [str(tag.needed) for tag in tags]  # type: ignore[attr-defined]


def _loads(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True
