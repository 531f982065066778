"""One end of the waiting for several jobs."""

import threading
import weakref

from service.scheduler import Job


class Cancellation:
    """Carries a client's hanging up, or an interruption, to the jobs that it concerns, whichever comes first.

    Safe from any thread.
    """

    def __init__(self) -> None:
        self._jobs: weakref.WeakSet[Job] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._cancelled = False

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits any more."""
        return self._cancelled

    def attach(self, job: Job) -> None:
        """Cancel this job when nobody waits any more, or now where that is so."""
        with self._lock:
            self._jobs.add(job)
            cancelled = self._cancelled
        if cancelled:
            job.cancel()

    def cancel(self) -> None:
        """Give up: what waits for one of the jobs raises `Cancelled` in its thread."""
        with self._lock:
            self._cancelled = True
            jobs = list(self._jobs)
        for job in jobs:
            job.cancel()
