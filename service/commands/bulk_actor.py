"""What a bulk run's actors do: each has the service's parts, reads pictures, enhances them, and writes the answers."""

import os
import posixpath
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from service.caller import NOBODY
from service.commands.batch import Options, Task, enhance_task
from service.commands.bulk_ledger import Made, Segment
from service.commands.bulk_listing import Row, called_from
from service.commands.bulk_places import open_place
from service.commands.common import explain, file_sha256, log_if_asked, model_file
from service.commands.files import CantWrite, Stamp
from service.scheduler import Closed, DeviceFailed
from service.settings import Settings
from service.state import State

if TYPE_CHECKING:
    import pyarrow as pa

_MOST: Final = 16
"""Pictures under way in one actor; more hold memory and gain nothing."""


class CantStart(Exception):
    """An actor can't do its work on its node; the message says why."""


@dataclass(frozen=True)
class Work:
    """What every actor of a run is to do; travels to other machines.

    Attributes:
        source, target: URLs of the places.
        options: how pictures are enhanced.
        settings: those that are not as a node has them by default.
        how: digest of all that an answer depends on besides its picture.
        model_sha256: of the generator's file; a node with another one takes no part.
        cpus: CPUs of an actor.
    """

    source: str
    target: str
    options: Options
    settings: Mapping[str, Any]
    how: str
    model_sha256: str
    cpus: int


class Enhancing:
    """One actor: blocks of rows in, what became of each out."""

    def __init__(self, work: Work) -> None:
        """Start the service's parts.

        Raises:
            CantStart: the generator or the device can't be used here, or the generator is another one.
            NoSuchPlace: a place can't be reached from here.
        """
        settings = Settings(**{**work.settings, "threads": work.cpus})
        log_if_asked(settings)
        model = model_file(settings)
        try:
            if file_sha256(model) != work.model_sha256:
                raise CantStart(f"{model} is another generator here than where the run was started")
        except OSError as error:
            raise CantStart(f"{model}: {explain(error)}") from error
        self._work = work
        self._source, self._target = open_place(work.source), open_place(work.target)
        self._called = called_from(self._source, self._target)
        self._segment = Segment(self._target)
        self._state = State(settings)
        self._state.start()
        if self._state.failure is not None:
            raise CantStart(self._state.failure)
        # one more than the CPUs, so that a lane always finds tiles
        self._pool = ThreadPoolExecutor(min(work.cpus + 1, _MOST), thread_name_prefix="picture")

    def __call__(self, table: "pa.Table") -> "pa.Table":
        """Do the rows that are to be done, and pass on the others.

        Raises:
            OSError, CantWrite: the target's ledger can't be written.
        """
        rows = rows_of(table)
        todo = [row for row in rows if row.outcome == "todo"]
        outcomes = [row for row in rows if row.outcome != "todo"]
        if todo:
            self._segment.begin(row.target for row in todo)
            done = list(self._pool.map(self._one, todo))
            self._segment.end(
                (made for _, made in done if made is not None), (row.target for row, made in done if made is None)
            )
            outcomes += [row for row, _ in done]
        return table_of(outcomes)

    def _one(self, row: Row) -> tuple[Row, Made | None]:
        written: list[Stamp] = []
        task = Task(
            row.source,
            row.stamp.size,
            lambda: self._source.read(row.source),
            lambda data: written.append(self._target.write(row.target, data)),
        )
        try:
            pixels = enhance_task(self._state.pipeline, self._work.options, task, NOBODY, lambda *_: None)
        except (DeviceFailed, Closed):
            # every picture would fail here from now on: another process tries this one again, here or elsewhere
            os._exit(1)
        except Exception as error:  # noqa: BLE001  one picture is no reason to stop, whatever it is
            return replace(row, outcome="failed", problem=problem_of(error), detail=explain(error)), None
        made = Made(row.target, written[0], posixpath.join(self._called, row.source), row.stamp, self._work.how)
        return replace(row, outcome="done", pixels=pixels), made


def problem_of(error: BaseException) -> str:
    """Return the short name of what went wrong with one picture: as the HTTP API's problems, or one of our own."""
    from service import problems  # brings FastAPI, which takes half of a command's start

    if isinstance(error, CantWrite):
        return "cant-write"
    if isinstance(error, OSError):
        return "unreadable"
    if isinstance(error, problems.EXPECTED):
        kind: str = problems.details(error)["type"]
        return kind.rpartition(":")[2]
    return "internal-error"


def table_of(rows: Sequence[Row]) -> "pa.Table":
    """Lay rows out as Ray carries them; names as bytes, since some are no text."""
    import pyarrow as pa

    columns = {
        "outcome": pa.array([row.outcome for row in rows], pa.string()),
        "source": pa.array([os.fsencode(row.source) for row in rows], pa.binary()),
        "target": pa.array([os.fsencode(row.target) for row in rows], pa.binary()),
        "size": pa.array([row.stamp.size for row in rows], pa.int64()),
        "mtime_ns": pa.array([row.stamp.mtime_ns for row in rows], pa.int64()),
        "problem": pa.array([row.problem for row in rows], pa.string()),
        "detail": pa.array([os.fsencode(row.detail) for row in rows], pa.binary()),
        "pixels": pa.array([row.pixels for row in rows], pa.int64()),
        "count": pa.array([row.count for row in rows], pa.int64()),
    }
    return pa.table(columns)


def rows_of(table: "pa.Table") -> list[Row]:
    """Read rows that `table_of` laid out."""
    entries: Iterable[Mapping[str, Any]] = table.to_pylist()
    return [
        Row(
            each["outcome"],
            os.fsdecode(each["source"]),
            os.fsdecode(each["target"]),
            Stamp(each["size"], each["mtime_ns"]),
            each["problem"],
            os.fsdecode(each["detail"]),
            each["pixels"],
            each["count"],
        )
        for each in entries
    ]
