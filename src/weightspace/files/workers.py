"""Worker processes that leave none behind, and how many there can be."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from weightspace.errors import WeightspaceError

T = TypeVar("T")


class WorkerError(WeightspaceError):
    """Workers that cannot run here, or one that died."""


@contextmanager
def processes(
    workers: int, prepare: Callable[..., None] | None = None, arguments: tuple[Any, ...] = ()
) -> Iterator[tuple[ProcessPoolExecutor, Callable[[], None]]]:
    """A pool of worker processes that leaves none behind, however it ends; and what ends them before they are done.

    Args:
        prepare: called in each worker before its first task, with `arguments`.
    Raises:
        WorkerError: if a worker dies.
    """
    others = set(multiprocessing.active_children())
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, _prepare_worker, (prepare, arguments))

    def stop() -> None:
        results = getattr(pool, "_result_queue", None)  # `shutdown` forgets it
        pool.shutdown(wait=False, cancel_futures=True)
        workers = set(multiprocessing.active_children()) - others
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.join(10)
        # One that ended in the middle of a result leaves the pool's thread waiting for the rest as long as anybody
        # could still write it: and that is this process itself.
        writer = getattr(results, "_writer", None)
        if writer is not None and not writer.closed:
            writer.close()

    try:
        yield pool, stop
    except BrokenProcessPool as error:
        raise WorkerError(
            "a worker process died, perhaps for lack of memory, or in a script that does its work outside of "
            "`if __name__ == '__main__':`: run the same command again, it goes on with the shards that are missing; "
            "fewer --workers need less memory"
        ) from error
    except BaseException:
        stop()  # the shard in flight is lost; to finish it could take minutes
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def result(future: Future[T]) -> T:
    """What the future of a pool brings, waited for in a way that Ctrl-C may break off.

    `Future.result` and `concurrent.futures.wait` hold locks written in Python: an interrupt in the middle leaves them
    taken, and the pool, which needs them to tell that its workers are gone, never ends.
    """
    finished: queue.SimpleQueue[Future[T]] = queue.SimpleQueue()
    future.add_done_callback(finished.put)
    while True:
        with suppress(queue.Empty):  # awake now and then: a signal just before a wait does not end the wait
            return finished.get(timeout=0.2).result()


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _prepare_worker(prepare: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
    """Let this worker end when its parent is gone, however the parent ended, and make it ready."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C goes to all: the parent answers it, and ends us
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if prepare is not None:
        prepare(*arguments)

    parent = multiprocessing.parent_process()
    assert parent is not None  # of a worker there is one

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
