"""For whom work is done, and whether it still waits for it."""

import threading
import weakref
from dataclasses import dataclass, field
from typing import Final, Protocol


class Cancelled(Exception):
    """The client gave up on the picture."""


class Cancellable(Protocol):
    """Work that can be given up."""

    def cancel(self) -> None:
        """Give up; safe from any thread, may be called again."""


class Cancellation:
    """Carries a client's hanging up, or an interruption, to the work that it concerns, whichever comes first.

    Safe from any thread.
    """

    def __init__(self) -> None:
        self._works: weakref.WeakSet[Cancellable] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._cancelled = False

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits any more."""
        return self._cancelled

    def check(self) -> None:
        """Raise `Cancelled` where nobody waits any more."""
        if self._cancelled:
            raise Cancelled

    def attach(self, work: Cancellable) -> None:
        """Cancel this work when nobody waits any more, or now where that is so. It is not kept alive for that."""
        with self._lock:
            self._works.add(work)
            cancelled = self._cancelled
        if cancelled:
            work.cancel()

    def detach(self, work: Cancellable) -> None:
        """Forget work that is done."""
        with self._lock:
            self._works.discard(work)

    def cancel(self) -> None:
        """Give up: what waits for the work raises `Cancelled` in its thread."""
        with self._lock:
            self._cancelled = True
            works = list(self._works)
        for work in works:
            work.cancel()


@dataclass(frozen=True, eq=False)
class Caller:
    """For whom a picture is worked on.

    Attributes:
        client: what tells clients apart, as `edge.clients.client_of` names them; all work of one name shares its part
            of whatever is scarce. Empty within a process that serves no clients.
        cancellation: of this request, or of this picture.
    """

    client: str = ""
    cancellation: Cancellation = field(default_factory=Cancellation)


NOBODY: Final = Caller()
"""For work that is never given up and is no client's."""
