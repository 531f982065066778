"""What is measured of one picture, and which request it belongs to; metrics, spans, log and headers are made of it."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

request_id: ContextVar[str] = ContextVar("request_id", default="-")
"""Id of the request that this task or thread works on."""

trace_id: ContextVar[str] = ContextVar("trace_id", default="")
"""Id of the trace that the request belongs to, 32 hexadecimal digits; empty where there is none."""


@dataclass(frozen=True)
class Stage:
    """A stage of one picture.

    Attributes:
        seconds: that it took. Where it is done in pieces, as blending is, less than from its start to its end.
        start, end: its first and its last moment, as `time.monotonic()` says them.
    """

    seconds: float
    start: float
    end: float

    def joined(self, other: "Stage") -> "Stage":
        """Return both as one."""
        return Stage(self.seconds + other.seconds, min(self.start, other.start), max(self.end, other.end))


class Stopwatch:
    """The stages of one picture, and what else is told of it; written by one thread at a time.

    Attributes:
        start: when it was started, as `time.monotonic()` says it.
        facts: what is known of the picture: `camera`, `device`, `tiles`, `pixels`.
    """

    def __init__(self) -> None:
        self._stages: dict[str, Stage] = {}
        self._total: float | None = None
        self.start = time.monotonic()
        self.facts: dict[str, str | int] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a block as a stage."""
        start = time.monotonic()
        try:
            yield
        finally:
            end = time.monotonic()
            self.add(name, Stage(end - start, start, end))

    def add(self, name: str, stage: Stage) -> None:
        """Add what was measured elsewhere."""
        known = self._stages.get(name)
        self._stages[name] = stage if known is None else known.joined(stage)

    def stop(self) -> None:
        """Let the total stay as it is now, so that whoever asks later is told the same."""
        if self._total is None:
            self._total = time.monotonic() - self.start

    @property
    def stages(self) -> Mapping[str, Stage]:
        """The stages so far, in the order of their first use."""
        return dict(self._stages)

    @property
    def seconds(self) -> Mapping[str, float]:
        """Seconds by stage, in the order of their first use, and their `total` since the start."""
        total = time.monotonic() - self.start if self._total is None else self._total
        return {**{name: stage.seconds for name, stage in self.stages.items()}, "total": total}

    def server_timing(self) -> str:
        """Return the `Server-Timing` header's value, durations in milliseconds (W3C Server Timing)."""
        return ", ".join(f"{name};dur={seconds * 1000:.1f}" for name, seconds in self.seconds.items())
