"""How far a run is: bars with rate and time left on a terminal, nothing but failures in a pipe. On standard error."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from service.commands.common import shown

_LONGEST_NAME: Final = 40


class Display:
    """Shows a run to whoever watches it; safe from any thread."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self.on_terminal,
        )
        self._all = self._progress.add_task("", total=0, rate="", visible=False)
        self._lock = threading.Lock()
        self._files = self._finished = self._bytes = self._tiles = 0
        self._start = time.monotonic()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._progress.stop()

    @property
    def on_terminal(self) -> bool:
        """Whether anybody watches."""
        return self._console.is_terminal

    def expect(self, sizes: Sequence[int]) -> None:
        """Announce files by their bytes: the time left is guessed from them before any file is opened."""
        with self._lock:
            if not self._files:
                self._start = time.monotonic()
            self._files += len(sizes)
            self._bytes += sum(sizes)
            self._progress.update(self._all, total=self._bytes, visible=self._files > 0, description=self._title)

    @contextmanager
    def file(self, name: str, size: int) -> Iterator[Callable[[int, int], None]]:
        """Show a file as under way; what is yielded is to be called with (tiles done, all tiles)."""
        row = self._progress.add_task(_short(name), total=size, rate="")
        seen = 0

        def tiles_done(done: int, tiles: int) -> None:
            nonlocal seen
            with self._lock:
                self._tiles += done - seen
                rate = self._tiles / max(time.monotonic() - self._start, 1e-3)
            self._progress.update(self._all, advance=size * (done - seen) / tiles, rate=f"{rate:.0f} tiles/s")
            self._progress.update(row, completed=size * done / tiles)
            seen = done

        try:
            yield tiles_done
        finally:
            left = size - next(task.completed for task in self._progress.tasks if task.id == row)
            self._progress.remove_task(row)
            with self._lock:
                self._finished += 1
                self._progress.update(self._all, advance=left, description=self._title)

    def say(self, line: str) -> None:
        """Write a line, above the bars where there are any."""
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    @property
    def _title(self) -> str:
        return f"{self._finished} of {self._files} pictures"


def _short(name: str) -> str:
    name = shown(name)
    return name if len(name) <= _LONGEST_NAME else "…" + name[1 - _LONGEST_NAME :]
