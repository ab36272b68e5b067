"""Run chunks through Ray Data: in order, a few ahead of the recorded ones, with retries after lost workers."""

import logging
import pickle
import shutil
import signal
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import ray
import ray.data
from ray.data import ActorPoolStrategy, DataContext
from ray.exceptions import ActorDiedError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from whatwhere.indexer.catalog.records import Source
from whatwhere.indexer.collection.layout import CollectionAddress
from whatwhere.indexer.cores import available_cores
from whatwhere.indexer.errors import ClusterUnavailable, WorkersLost
from whatwhere.indexer.pipeline.ray.ledger import Ledger
from whatwhere.indexer.pipeline.ray.settings import ClusterSettings
from whatwhere.indexer.pipeline.ray.work import Arrived, Work
from whatwhere.indexer.pipeline.ray.worker import ChunkWorker

AHEAD = 2  # chunks that may wait to be recorded, besides one per worker
TRIES = 3  # attempts for a chunk whose worker dies
_OBJECT_STORE_BYTES = 256 * 1024 * 1024  # messages contain URIs and outcomes, not images
_LEDGER_THREADS = 8

log = logging.getLogger(__name__)


@contextmanager
def connected(cluster: ClusterSettings) -> Iterator[None]:
    """Start Ray or connect to the cluster at the address; disconnect at the end, unless it was connected before.

    Meanwhile Ray Data logs only errors: it prints every data set to the terminal otherwise.
    Raises ClusterUnavailable if it cannot be reached.
    """
    if ray.is_initialized():
        yield
        return
    on_terminate = signal.getsignal(signal.SIGTERM)
    data_log = logging.getLogger("ray.data")
    level = data_log.level
    folder = tempfile.mkdtemp(prefix="whatwhere-ray-") if cluster.address is None else None
    try:
        _join(cluster, folder)
        signal.signal(signal.SIGTERM, on_terminate)  # Ray's handler would end the process silently
        data_log.setLevel(logging.ERROR)
        yield
    finally:
        data_log.setLevel(level)
        ray.shutdown()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _join(cluster: ClusterSettings, folder: str | None) -> None:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    own: dict[str, Any] = {
        "num_cpus": max(available_cores(), cluster.cpus * (cluster.workers or 1)),
        "include_dashboard": False,
        "object_store_memory": _OBJECT_STORE_BYTES,
        "_temp_dir": folder,
    }
    try:
        ray.init(address=cluster.address or "local", **quiet, **({} if cluster.address else own))
    except (ConnectionError, RuntimeError, ValueError) as error:
        place = f"at {cluster.address}" if cluster.address else "on this machine"
        raise ClusterUnavailable(
            f"no Ray {place} ({error}): start one with `ray start --head`, or use --engine ray"
        ) from error


def described(chunks: Sequence[Sequence[Source]], work: Work, cluster: ClusterSettings) -> Iterator[Arrived]:
    """Yield the chunks in order; the caller records each before it asks for the next.

    After the loss of a worker, chunks that are not recorded are described again. Raises WorkersLost if that happens
    TRIES times without a chunk in between, and the named errors of workers.
    """
    workers = cluster.workers or _room(work, cluster)
    work = replace(work, reading=work.reading.for_one_of(workers))
    ledger = _ledger(work.collection, workers + AHEAD)
    recorded = lost = 0
    while recorded < len(chunks):
        try:
            # After a loss, one worker alone until the next chunk: this identifies a chunk that kills its worker.
            for arrived in _pass(chunks[recorded:], recorded, work, cluster, (workers if lost == 0 else 1, ledger)):
                yield arrived
                recorded += 1
                lost = 0
                ray.get(ledger.recorded.remote(recorded))
        except RayError as error:
            if isinstance(error, RayTaskError) and not isinstance(error, ActorDiedError):
                raise  # a bug, which would happen again
            lost += 1
            log.warning("worker lost chunk=%d try=%d of %d: %s", recorded, lost, TRIES, _first_line(error))
            if lost == TRIES:
                first, last = chunks[recorded][0].uri, chunks[recorded][-1].uri
                raise WorkersLost(
                    f"a worker was lost {TRIES} times between {first} and {last} ({_first_line(error)}): finished "
                    "work is kept; exclude these files, or give workers more memory, then run again"
                ) from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _room(work: Work, cluster: ClusterSettings) -> int:
    """Return the number of workers that fit into the current cluster, at least one."""
    there: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    gpus = _gpus(work, cluster)
    by_cpu = there.get("CPU", 0) // cluster.cpus
    return max(1, int(min(by_cpu, there.get("GPU", 0) // gpus) if gpus else by_cpu))


def _gpus(work: Work, cluster: ClusterSettings) -> float:
    if cluster.gpus is not None:
        return cluster.gpus
    return 1.0 if work.device == "cuda" else 0.0


def _ledger(collection: CollectionAddress, window: int) -> Any:
    """Start the ledger on this machine, which has the catalog."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options = {"num_cpus": 0, "max_concurrency": _LEDGER_THREADS, "scheduling_strategy": here}
    return ray.remote(Ledger).options(**options).remote(collection, window)


def _pass(
    chunks: Sequence[Sequence[Source]], first: int, work: Work, cluster: ClusterSettings, pool: tuple[int, Any]
) -> Iterator[Arrived]:
    """Run chunks, numbered from `first`, in a pool of (number of workers, ledger)."""
    workers, ledger = pool
    rows = [{"number": first + index, "sources": pickle.dumps(list(chunk))} for index, chunk in enumerate(chunks)]
    with (
        warnings.catch_warnings()
    ):  # Ray warns about its own settings and about `max_restarts`, which has no replacement
        warnings.simplefilter("ignore", DeprecationWarning)
        context = DataContext.get_current()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        data = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            ChunkWorker,  # type: ignore[arg-type] # the class, which the workers call once
            fn_constructor_args=(work, ledger, cluster.cpus),
            compute=ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=1),
            num_cpus=cluster.cpus,
            num_gpus=_gpus(work, cluster),
            max_restarts=0,  # a restart would wait for the resources of a lost machine forever
        )
    for block in data.iter_batches(batch_size=None, prefetch_batches=0, batch_format="pyarrow"):
        (result,) = (pickle.loads(cell.as_py()) for cell in block["result"])  # noqa: S301 - written by our own worker
        if isinstance(result, Exception):
            raise result
        yield result
