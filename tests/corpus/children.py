"""A child process that reads files by other libraries: one that crashes or hangs on a file is replaced."""

import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from tests.corpus.comparing import LOSSLESS, LOSSY, Difference, Look, difference
from tests.corpus.reading import NotComparable, read

_MEMORY: Final = 8 << 30
_HOLDS_DEPTH: Final = ("png", "tiff")
_NO_ALPHA: Final = ("jpeg",)
_LOSSLESS: Final = ("png", "tiff", "bmp")
_READY: Final = b"{ready}\n"

Answers = Mapping[str, Path]
"""Files of answers by what was asked for; their suffixes say their formats."""


class Child:
    """A process that reads files, with `exiftool` below it where it is installed; for one thread.

    Args:
        seconds: most that reading a file by one library may take.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._process: Any = None
        self._pipe: Connection | None = None

    def look(self, decoder: str, source: Path, answers: Answers) -> Look:
        """Read a file and its answers by one decoder and compare them."""
        done = self._call(_look, (decoder, source, answers))
        return Look(decoder, done, unreadable=True) if isinstance(done, str) else done

    def tags(self, *files: Path) -> list[dict[str, Any]]:
        """Metadata of each file by exiftool, `Group:Name` to value; nothing where it can't say."""
        done = self._call(_tags, files)
        return [{} for _ in files] if isinstance(done, str) else done

    def _call(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        """What the function returns, or in words why it did not."""
        if self._pipe is None:
            context = multiprocessing.get_context("spawn")
            self._pipe, theirs = context.Pipe()
            self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
            self._process.start()
            theirs.close()
        try:
            self._pipe.send((function.__name__, arguments))
            if self._pipe.poll(self._seconds):
                return self._pipe.recv()
            said = f"it took more than {self._seconds:g} s"
        except (EOFError, OSError):
            self._process.join(5)
            said = f"it crashed: exit code {self._process.exitcode}"
        self.close()
        return said

    def close(self) -> None:
        """End the process and what it started."""
        if self._pipe is None:
            return
        self._pipe.close()
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            self._process.kill()
        self._process.join()
        self._pipe = None


def _serve(pipe: Connection) -> None:
    os.setpgrp()
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 2)  # libraries write what they think of a file
    functions: dict[str, Callable[..., Any]] = {"_look": _look, "_tags": _Exiftool()}
    while True:
        try:
            name, arguments = pipe.recv()
        except EOFError:  # the parent is gone
            os.killpg(0, signal.SIGKILL)
        pipe.send(functions[name](*arguments))


def _look(decoder: str, source: Path, answers: Answers) -> Look:
    try:
        truth = read(decoder, source.read_bytes())
    except NotComparable as error:
        return Look(decoder, str(error))
    except Exception as error:  # noqa: BLE001 - whatever a library raises on a broken file
        return Look(decoder, _words(error), unreadable=True)
    found = {}
    for name, file in answers.items():
        format_ = file.suffix[1:]
        try:
            answer = read(decoder, file.read_bytes())
        except Exception as error:  # noqa: BLE001
            if format_ == "png":  # libvips' wheel reads no HEIC
                found[name] = Difference((f"answer: {decoder} can't read it: {_words(error)}",))
            continue
        if answer.complaint and not truth.complaint:
            found[name] = Difference((f"answer: {decoder} says {answer.complaint}",))
            continue
        holds = {"depth": format_ in _HOLDS_DEPTH, "alpha": format_ not in _NO_ALPHA}
        found[name] = difference(truth, answer, LOSSLESS if format_ in _LOSSLESS else LOSSY, **holds)
    return Look(decoder, "", truth.complaint, answers=found)


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]


def _tags(*files: Path) -> list[dict[str, Any]]:
    return _Exiftool()(*files)


class _Exiftool:
    """One process for many files: starting Perl takes longer than reading one."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self, *files: Path) -> list[dict[str, Any]]:
        if self._process is None:
            command = ["exiftool", "-stay_open", "True", "-@", "-"]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        lines = ["-j", "-G1", *map(str, files), "-execute"]
        self._process.stdin.write("".join(f"{line}\n" for line in lines).encode())
        self._process.stdin.flush()
        said = b""
        while not said.endswith(_READY):
            piece = self._process.stdout.readline()
            if not piece:
                raise EOFError("exiftool ended")
            said += piece
        told = json.loads(said.removesuffix(_READY) or b"[]")
        by_file = {each["SourceFile"]: each for each in told}
        return [by_file.get(str(file), {}) for file in files]


def has_exiftool() -> bool:
    """Whether exiftool is installed."""
    return shutil.which("exiftool") is not None
