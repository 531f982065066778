"""A bulk run on Ray Data: one task lists, a pool of actors enhances, and what became of each row comes back here.

The one module of the commands that imports Ray.
"""

import logging
import os
import queue
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import ray
import ray.data
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask

from service.commands.bulk_actor import Enhancing, Work, rows_of, table_of
from service.commands.bulk_listing import Listing, Row
from service.generator import cpu_threads

_OBJECT_STORE: Final = 100 << 20
"""Bytes of shared memory for a cluster of our own: rows are names."""

_BLOCK_BYTES: Final = 4096
"""Ray gathers rows into blocks of about as much before it passes them on; by its default of 128 MB it would wait for a
million of them."""

_ROWS_A_BATCH: Final = 8
"""Pictures that an actor gets at once for each of its CPUs: what is done again where it is killed, at most."""

_LOOK_EVERY_S: Final = 0.1


class RunFailed(Exception):
    """The run can't begin or go on; the message says why."""


@dataclass(frozen=True)
class Pool:
    """The actors of a run.

    Attributes:
        address: of a Ray cluster; None starts one on this machine, for as long as the run takes.
        actors: how many at most; None as many as there is room for.
        cpus: CPUs of each.
        gpus: GPUs of each, or a part of one.
    """

    address: str | None
    actors: int | None
    cpus: int
    gpus: float


@contextmanager
def cluster(pool: Pool, *, verbose: bool) -> Iterator[int]:
    """Connect to a cluster, or start one; yield how many actors it has room for. In the end all of ours is stopped.

    Raises:
        RunFailed: there is none at the address, or it has no room for an actor.
    """
    logging.getLogger("ray.data").setLevel(logging.ERROR if verbose else logging.CRITICAL)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"ray\.")  # such as that a short list is short
    quiet: dict[str, Any] = {"log_to_driver": verbose, "logging_level": logging.ERROR}
    try:
        with _unheard(unless=verbose):
            if pool.address is None:
                ray.init("local", num_cpus=cpu_threads(), object_store_memory=_OBJECT_STORE, include_dashboard=False,
                         **quiet)  # fmt: skip
            else:
                ray.init(pool.address, **quiet)
    except Exception as error:  # Ray raises many kinds, among them RuntimeError for another version
        where = f"the Ray cluster at {pool.address} can't be used" if pool.address else "Ray can't be started"
        raise RunFailed(f"{where}: {_one_line(error)}") from error
    try:
        there: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        room = int(there.get("CPU", 0) // pool.cpus)
        if pool.gpus:
            room = min(room, int(there.get("GPU", 0) / pool.gpus + 1e-6))
        if not room and pool.actors is None:
            raise RunFailed(
                f"no room for an actor with {pool.cpus} CPUs and {pool.gpus:g} GPUs: the cluster has "
                f"{there.get('CPU', 0):g} and {there.get('GPU', 0):g}"
            )
        yield pool.actors or room
    finally:
        ray.shutdown()


def run(
    listing: Listing, work: Work, pool: Pool, actors: int, each: Callable[[Row], None], stop: Callable[[], bool]
) -> None:
    """Enhance what a listing yields; each row is counted once, however often it was tried.

    Args:
        listing: what there is to do.
        work: how.
        pool: of actors.
        actors: how many of them.
        each: gets what became of each row.
        stop: whether to stop now; is asked ten times a second.

    Raises:
        RunFailed: the source can't be listed, no actor can start, or the target's ledger can't be written.
    """
    results: queue.Queue[Sequence[Row] | Exception | None] = queue.Queue()

    def pump() -> None:
        try:
            for table in _dataset(listing, work, pool, actors).iter_batches(
                batch_size=None, batch_format="pyarrow", prefetch_batches=0
            ):
                results.put(rows_of(table))
            results.put(None)
        except Exception as error:  # noqa: BLE001  told by the thread that waits
            results.put(error)

    threading.Thread(target=pump, name="ray-results", daemon=True).start()
    while not stop():
        try:
            rows = results.get(timeout=_LOOK_EVERY_S)
        except queue.Empty:
            continue
        if rows is None:
            return
        if isinstance(rows, Exception):
            raise RunFailed(_one_line(rows)) from rows
        for row in rows:
            each(row)


def _dataset(listing: Listing, work: Work, pool: Pool, actors: int) -> ray.data.Dataset:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.target_max_block_size = _BLOCK_BYTES
    context.retried_io_errors = []  # a listing that began anew in its middle would skip the wrong rows
    rows = ray.data.read_datasource(_Listed(listing), num_cpus=0)
    dataset: ray.data.Dataset = rows.map_batches(
        Enhancing,
        fn_constructor_args=(work,),
        batch_size=_ROWS_A_BATCH * work.cpus,
        batch_format="pyarrow",
        num_cpus=work.cpus,
        num_gpus=pool.gpus or None,
        # of one size: a pool that may shrink loses actors in the middle of a run and gets others, which load anew. Once
        # the listing is at its end Ray lets those go that have no more to do; a lost node's come back in their place
        compute=ray.data.ActorPoolStrategy(size=actors, max_tasks_in_flight_per_actor=2),
    )
    return dataset


class _Listed(Datasource):
    """A listing as Ray reads it: in one task, block after block, on the node where the run was started."""

    supports_distributed_reads = False

    def __init__(self, listing: Listing) -> None:
        self._listing = listing

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[ReadTask]:  # noqa: ARG002
        listing = self._listing

        def blocks() -> Iterator[pa.Table]:
            return (table_of(block) for block in listing.blocks())

        return [ReadTask(blocks, BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None))]


@contextmanager
def _unheard(*, unless: bool) -> Iterator[None]:
    """Keep what C++ code writes to standard error from being seen: Ray's greets with a line about its log's level."""
    if unless:
        yield
        return
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123  for its descriptor
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _one_line(error: BaseException) -> str:
    """Return the words of what is at the bottom of one of Ray's errors, which wrap each other with tracebacks."""
    seen = []
    inner: BaseException | None = error
    while inner is not None and inner not in seen:
        seen.append(inner)
        cause = getattr(inner, "cause", None)
        inner = cause if isinstance(cause, BaseException) else inner.__cause__
    lines = [line for line in str(seen[-1]).splitlines() if line.strip()]
    if not lines:
        return type(seen[-1]).__name__
    # our own exceptions begin with their words, and Ray may have added advice; tracebacks end with theirs
    return " ".join(lines[-1 if "ray::" in lines[0] else 0].split())
