"""What `pix2dslr doctor` finds, and what it asks of the machine: versions, settings, CPUs, memory, the port."""

import difflib
import errno
import http.client
import importlib.metadata
import json
import os
import platform
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import psutil

from service.codec import FORMATS
from service.decoding.messages import Disconnected
from service.decoding.pool import DecodePool
from service.decoding.process import Worker
from service.generator import cpu_threads
from service.settings import Settings

Status = Literal["ok", "note", "problem"]

_PACKAGES: Final = (
    "pix2dslr",
    "onnxruntime-gpu",
    "onnxruntime",
    "numpy",
    "opencv-python-headless",
    "pillow",
    "pillow-heif",
    "fastapi",
    "uvicorn",
    "pydantic",
    "typer",
    "watchfiles",
)
_NVIDIA: Final = ("nvidia-cuda-runtime", "nvidia-cudnn-cu13", "nvidia-cublas", "nvidia-cufft", "nvidia-curand")
_BYTES_A_PIXEL: Final = 16
"""Memory that a picture takes at most: 16-bit RGBA, decoded and enhanced. 8-bit RGB took 6.4, with 29 megapixels."""


@dataclass(frozen=True)
class Check:
    """What was found.

    Attributes:
        name: of what was looked at.
        status: `problem` where something that was asked for can't work, `note` where something could be better.
        found: in one line.
        do: what to do about it, in one line; empty where nothing has to be done.
        details: the same for programs.
    """

    name: str
    status: Status
    found: str
    do: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


def versions() -> Check:
    """Look at what is installed."""
    found = {name: version for name in (*_PACKAGES, *_NVIDIA) if (version := _version(name)) is not None}
    details = {"python": platform.python_version(), "system": platform.platform(), "formats": list(FORMATS), **found}
    line = ", ".join([f"Python {details['python']}", *(f"{name} {found[name]}" for name in _PACKAGES if name in found)])
    if {"onnxruntime", "onnxruntime-gpu"} <= found.keys():
        # both write the same files: what runs is a mixture
        advice = "uninstall both onnxruntime and onnxruntime-gpu, then install the one that pix2dslr names"
        return Check("versions", "note", line, advice, details)
    return Check("versions", "ok", line, details=details)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def environment(variables: Mapping[str, str]) -> Check:
    """Look for settings whose names are misspelt; they would be passed over without a word."""
    known = {f"PIX2DSLR_{name.upper()}" for name in Settings.model_fields}
    given = sorted(name for name in variables if name.startswith("PIX2DSLR_"))
    unknown = [name for name in given if name.upper() not in known]
    found = ", ".join(f"{name}={variables[name]}" for name in given) or "all settings are the defaults"
    details = {"given": {name: variables[name] for name in given}, "unknown": unknown}
    if not unknown:
        return Check("settings", "ok", found, details=details)
    close = difflib.get_close_matches(unknown[0], known, 1)
    advice = f"{unknown[0]} is no setting" + (f": is {close[0]} meant?" if close else "; see service/settings.py")
    return Check("settings", "note", found, advice, details)


def cpus(settings: Settings) -> Check:
    """Look at what the container lets this process use, and whether others use it."""
    there, usable = os.cpu_count() or 1, cpu_threads()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    details = {"cpus": there, "usable": usable, "threads": settings.threads or usable, "load": round(load, 2)}
    found = f"{usable} of {there} CPUs may be used, the load is {load:.1f}"
    if settings.threads > usable:
        advice = f"PIX2DSLR_THREADS={settings.threads} is more than the CPUs: leave it out"
        return Check("cpu", "note", found, advice, details)
    if load > usable + 0.5:
        return Check("cpu", "note", found, "others use the CPUs: timings are worse than they could be", details)
    return Check("cpu", "ok", found, details=details)


def memory(settings: Settings) -> Check:
    """Look at whether the largest picture that is allowed would fit."""
    free = psutil.virtual_memory().available
    limit = _container_limit()
    usable = free if limit is None else min(free, limit)
    need = settings.max_pixels * _BYTES_A_PIXEL
    details = {"available_bytes": free, "container_bytes": limit, "largest_picture_bytes": need}
    inside = "" if limit is None else f", {limit / 2**30:.1f} GiB in the container"
    found = f"{free / 2**30:.1f} GiB are free{inside}; the largest picture takes {need / 2**30:.1f} GiB"
    if need > usable:
        fitting = int(usable / _BYTES_A_PIXEL / 2 / 1e6) * 1_000_000
        advice = (
            f"PIX2DSLR_MAX_PIXELS={max(fitting, 1_000_000)} refuses pictures that would not fit, or give it more memory"
        )
        return Check("memory", "note", found, advice, details)
    return Check("memory", "ok", found, details=details)


def _container_limit() -> int | None:
    """What the container has left in bytes (cgroup v2); None where it has no limit of its own."""
    group = Path("/sys/fs/cgroup")
    try:
        return int((group / "memory.max").read_text()) - int((group / "memory.current").read_text())
    except (OSError, ValueError):
        return None


def decoding(settings: Settings) -> Check:
    """Look at whether files are decoded in processes that can do others no harm."""
    if settings.decode_workers == 0 or not DecodePool.possible():
        found = "files are decoded in the service's own process: one that takes a decoder over has all that it has"
        return Check("decoding", "note", found, "unset PIX2DSLR_DECODE_WORKERS" if DecodePool.possible() else "")
    worker = None
    try:
        worker = Worker(1)
        formats = worker.wait_until_ready()
    except (OSError, Disconnected, TimeoutError) as error:
        found = f"no decode worker starts: {error or type(error).__name__}"
        return Check("decoding", "problem", found, "look at memory and limits of processes and threads")
    finally:
        if worker is not None:
            worker.end()
    details = {"formats": sorted(formats), "lacks": worker.lacks}
    if worker.lacks:
        found = f"decode workers run {' and '.join(worker.lacks)}: they open no files and no connections all the same"
        advice = (
            "a kernel from 6.12 on, and a container that allows Landlock, also keep them from files' names and signals"
        )
        return Check("decoding", "note", found, advice, details)
    found = f"decode workers read {len(formats)} formats, and open no files, no connections and no other processes"
    return Check("decoding", "ok", found, details=details)


def port(settings: Settings) -> Check:
    """Look at whether `pix2dslr serve` could listen."""
    where = f"{settings.host}:{settings.port}"
    details = {"host": settings.host, "port": settings.port}
    try:
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        with socket.create_server((settings.host, settings.port), family=family):
            return Check("port", "ok", f"{where} is free", details={**details, "free": True})
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        taken = error.errno == errno.EADDRINUSE
    details["free"] = False
    if taken and _is_ours(settings):
        return Check("port", "ok", f"{where} is served by a pix2dslr already", details=details)
    # only who names a port says that it is needed
    status: Status = "problem" if {"host", "port"} & settings.model_fields_set else "note"
    advice = "name another: PIX2DSLR_PORT=9000" if taken else "name an address of this machine: PIX2DSLR_HOST=127.0.0.1"
    return Check("port", status, f"can't listen on {where}: {reason}", advice, details)


def _is_ours(settings: Settings) -> bool:
    connection = http.client.HTTPConnection(settings.host, settings.port, timeout=2)
    try:
        connection.request("GET", "/livez")
        answer = json.loads(connection.getresponse().read())
    except (OSError, ValueError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return isinstance(answer, dict) and "alive" in answer
