"""What runs here: the package and the libraries that its answers' bytes depend on."""

from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Final

_THAT_MAKE_BYTES: Final = ("numpy", "opencv-python-headless", "pillow", "pillow-heif", "onnxruntime", "onnxruntime-gpu")


def package_version() -> str:
    """Return the installed package's version, `0` where it runs from a bare checkout."""
    return _version("pix2dslr") or "0"


def onnxruntime_version() -> str:
    """Return the version of ONNX Runtime, whichever of its packages is there."""
    return _version("onnxruntime-gpu") or _version("onnxruntime") or "unknown"


@cache
def answers_depend_on() -> str:
    """Return the versions of all that the same picture and options could give other bytes with."""
    return " ".join([package_version(), *(f"{name}={_version(name)}" for name in _THAT_MAKE_BYTES)])


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
