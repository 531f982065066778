"""Folders as they change: which pictures came or changed, once whoever writes them is done."""

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import watchfiles

from service.commands.files import Stamp

_SETTLED_S: Final = 0.5
"""A file that did not change for so long is taken for whole; a camera or a browser writes more often than that."""
_WAIT_S: Final = 0.1


class WatchFailed(Exception):
    """The system does not let the folders be watched; the message says why."""


class Watch:
    """Watches folders, and those in them, from the moment it is entered."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders
        self._stop = threading.Event()
        self._told: queue.SimpleQueue[set[Path] | Exception] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._pending: dict[Path, tuple[Stamp, float]] = {}

    def __enter__(self) -> Self:
        """Begin; raises WatchFailed."""
        self._thread.start()
        self._take(None)  # the first word, an empty one, says that the watch stands
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    def changed(self) -> Iterator[Path | None]:
        """Yield each file or folder that came or changed, once it has settled; None where there is none for a moment.

        Raises:
            WatchFailed: the system gave up.
        """
        while True:
            now = time.monotonic()
            for path in self._take(_WAIT_S):
                self._look_at(path, now, anew=True)
            settled = []
            for path in list(self._pending):
                self._look_at(path, now, anew=False)
                if path in self._pending and now - self._pending[path][1] >= _SETTLED_S:
                    settled.append(path)
                    del self._pending[path]
            yield from settled
            yield None

    def _look_at(self, path: Path, now: float, *, anew: bool) -> None:
        try:
            stamp = Stamp.of(path)
        except OSError:  # gone again, as the temporary files of copying programs are
            self._pending.pop(path, None)
            return
        if anew or self._pending[path][0] != stamp:
            self._pending[path] = stamp, now

    def _take(self, seconds: float | None) -> set[Path]:
        taken: set[Path] = set()
        try:
            told = self._told.get(timeout=seconds)
            while not isinstance(told, Exception):
                taken |= told
                told = self._told.get_nowait()
        except queue.Empty:
            return taken
        raise WatchFailed(str(told)) from told

    def _run(self) -> None:
        stands = False
        try:
            for changes in watchfiles.watch(
                *(folder.absolute() for folder in self._folders),
                watch_filter=None,
                debounce=200,
                rust_timeout=100,
                yield_on_timeout=True,
                stop_event=self._stop,
                raise_interrupt=False,
                ignore_permission_denied=True,
            ):
                changed = {Path(path) for kind, path in changes if kind != watchfiles.Change.deleted}
                if changed or not stands:
                    self._told.put(changed)
                    stands = True
        except Exception as error:  # noqa: BLE001  of a Rust library's own types; told to the thread that waits
            self._told.put(error)
